"""How fast each step is on this machine, and how much memory it takes: ``cryodc bench``."""

from cryodc.bench.bench import BenchRequest, Figure, run_bench
from cryodc.bench.stages import STAGES

__all__ = ["STAGES", "BenchRequest", "Figure", "run_bench"]
