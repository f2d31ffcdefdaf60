"""Tilt series: 2D stacks, their geometry, and 3D subtomograms made of them."""

from cryodc.tilts.import_stacks import import_tilt_stacks
from cryodc.tilts.series import require_columns
from cryodc.tilts.written import ImportSummary

__all__ = [
    "ImportSummary",
    "import_tilt_stacks",
    "require_columns",
]
