"""The verbs of the command line as functions: each is the very function that ``cryodc VERB`` calls.

They take and give the nouns of ``import cryodc``. Those that write into a run take a :class:`cryodc.RunFolder`, which
``cryodc.find_run`` finds. ``import`` is a word of Python, so that verb is called ``import_``.
"""

from cryodc.averaging import average_run as average
from cryodc.bench import run_bench as bench
from cryodc.centring import recentre_particles as recentre
from cryodc.check import check_particles as check
from cryodc.clustering import cluster_run as cluster
from cryodc.dataset import pack_particles as pack
from cryodc.demo import run_demo as demo
from cryodc.evaluation import evaluate_run as evaluate
from cryodc.export import export_run as export
from cryodc.export import map_back
from cryodc.export import select_run as select
from cryodc.generate import generate_run as generate
from cryodc.identify import identify_run as identify
from cryodc.picks import convert_picks as convert
from cryodc.picks import extract_subtomograms as extract
from cryodc.planning import plan_particles as plan
from cryodc.report import write_report as report
from cryodc.runs import run_status as status
from cryodc.simulation import write_simulation as simulate
from cryodc.states import find_states as states
from cryodc.tilts import import_tilt_stacks as import_
from cryodc.training import encode_new as encode
from cryodc.training import train_run as train
from cryodc.viewer import run_viewer as view

__all__ = [
    "average",
    "bench",
    "check",
    "cluster",
    "convert",
    "demo",
    "encode",
    "evaluate",
    "export",
    "extract",
    "generate",
    "identify",
    "import_",
    "map_back",
    "pack",
    "plan",
    "recentre",
    "report",
    "select",
    "simulate",
    "states",
    "status",
    "train",
    "view",
]
