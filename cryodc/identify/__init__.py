"""Which known structure a class is: averages against a library of maps and atomic models, or none of them."""

from cryodc.identify.compare import ClassMap, Match, class_map, comparison_box, match
from cryodc.identify.identify import identify_run
from cryodc.identify.library import Known, Library, make_decoys, read_library
from cryodc.identify.rank import MIN_AGREEMENT, MIN_Z, Ranking, rank

__all__ = [
    "MIN_AGREEMENT",
    "MIN_Z",
    "ClassMap",
    "Known",
    "Library",
    "Match",
    "Ranking",
    "class_map",
    "comparison_box",
    "identify_run",
    "make_decoys",
    "match",
    "rank",
    "read_library",
]
