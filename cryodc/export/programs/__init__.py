"""Files of single programs and libraries: AnnData, ChimeraX, copick."""

from cryodc.export.programs.anndata_file import export_anndata
from cryodc.export.programs.chimerax_scene import write_scenes
from cryodc.export.programs.copick_project import read_copick_config, write_copick

__all__ = ["export_anndata", "read_copick_config", "write_copick", "write_scenes"]
