"""Files of single programs and libraries: AnnData, ChimeraX."""

from cryodc.export.programs.anndata_file import export_anndata
from cryodc.export.programs.chimerax_scene import write_scenes

__all__ = ["export_anndata", "write_scenes"]
