"""The whole story on practice particles: simulate, train, cluster, average, report, and compare with the truth."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryodc.clustering import cluster_run
from cryodc.errors import InputError
from cryodc.evaluation import Evaluation, evaluate_run
from cryodc.io import require_empty
from cryodc.runs import RunFolder
from cryodc.simulation import SimulationConfig, demo_phantoms, write_simulation
from cryodc.training import Listener, TrainRequest, train_run


@dataclass(frozen=True)
class DemoConfig:
    """Size of the demo: four phantoms in a box of 32 voxels of 10 Å.

    Parameters
    ----------
    n_per_protein
        Particles of each phantom.
    snr
        As in :class:`cryodc.simulation.config.SimulationConfig`.
    epochs
        Passes over the particles in training.
    batch_size
        Particles per step.
    seed
        Of everything random.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """

    n_per_protein: int = 250
    snr: float = 0.1
    epochs: int = 10
    batch_size: int = 64
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class DemoListener:
    """What a caller wants to hear: each stage with its number of steps, steps done, and lines worth showing."""

    on_stage: Callable[[str, int | None], None] = lambda name, n_steps: None
    on_steps: Callable[[int], None] = lambda n_steps: None
    on_line: Callable[[str], None] = lambda line: None


@dataclass(frozen=True)
class DemoResult:
    """Where everything is, and how found compares with true."""

    run: RunFolder
    truth: Path
    evaluation: Evaluation


def run_demo(out: Path, config: DemoConfig | None = None, listener: DemoListener | None = None) -> DemoResult:
    """Make particles in ``out/sim`` and take them through every step, into the run folder ``out/run``.

    The number of proteins, their maps and the poses are unknown to every step but the last.

    Parameters
    ----------
    out
        A folder that does not exist yet, or is empty.
    config
        Size and seed.
    listener
        Hears of progress.

    Raises
    ------
    InputError
        If ``out`` holds anything, or a setting is out of range.
    """
    # Steps that read maps and draw pages: imported by whom they serve.
    from cryodc.averaging import AverageRequest, average_run
    from cryodc.report import write_report

    config, listener = config or DemoConfig(), listener or DemoListener()
    require_empty(out)
    if Path("subtomograms").exists():
        # Images are looked for in the current folder first.
        raise InputError(
            "the current folder may hold other particles of the names that the demo gives its own",
            file=Path("subtomograms"),
            remedy="run `cryodc demo` in another folder",
        )
    simulation = SimulationConfig(n_per_map=config.n_per_protein, snr=config.snr, seed=config.seed)
    phantoms = demo_phantoms()
    listener.on_stage("Simulating", config.n_per_protein * len(phantoms))
    write_simulation(phantoms, simulation, out / "sim", on_batch=listener.on_steps)
    run = train_demo(out, config, listener)
    listener.on_stage("Clustering", None)
    listener.on_line(cluster_run(run, seed=config.seed).verdict)
    listener.on_stage("Averaging", None)
    request = AverageRequest(ignore_poses=True, seed=config.seed, device=config.device)
    average_run(run, request, listener.on_line)
    listener.on_stage("Reporting", None)
    write_report(run)
    listener.on_stage("Comparing with the truth", None)
    truth = out / "sim" / "truth.csv"
    return DemoResult(run, truth, evaluate_run(run, truth))


def train_demo(out: Path, config: DemoConfig, listener: DemoListener) -> RunFolder:
    """Train on the simulation in ``out/sim`` into ``out/run``."""
    request = TrainRequest(
        star=out / "sim" / "particles.star",
        out=out / "run",
        overrides={"optimisation": {"epochs": config.epochs, "batch_size": config.batch_size}},
        seed=config.seed,
        device=config.device,
    )
    told: list[str] = []

    def match(text: str) -> None:
        if not told:
            listener.on_stage("Learning templates", None)
        told.append(text)

    training = Listener(
        on_start=lambda n_done, n_total: listener.on_stage("Training", n_total - n_done),
        on_batch=listener.on_steps,
        on_templates=match,
        on_warning=listener.on_line,
    )
    return train_run(request, training)[0]
