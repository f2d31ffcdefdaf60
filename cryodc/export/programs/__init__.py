"""Files of single programs and libraries: AnnData, ChimeraX, copick."""

from cryodc.export.programs.anndata_file import export_anndata

__all__ = ["export_anndata"]
