"""Measure steps on simulated particles, each in a process of its own, so that its peak of memory is its own."""

import json
import multiprocessing
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cryodc.bench.rivals import RIVALS
from cryodc.bench.stages import NEEDS, PROTEINS, STAGES, Work
from cryodc.device import choose_device
from cryodc.dry_run import Forecast, declare, particle_bytes
from cryodc.errors import InputError
from cryodc.io import write_text
from cryodc.simulation import SimulationConfig, phantom, write_simulation

EDGE_ANGSTROM = 320.0
_SNR = 0.1
_FEWEST = 20


@dataclass(frozen=True)
class BenchRequest:
    """What a user asks of ``cryodc bench``.

    Parameters
    ----------
    out
        The JSON file to write; None for none.
    boxes
        Box sizes, voxels; the particles of all of them are 320 Å wide.
    n_particles
        Of all proteins together.
    stages
        Names in :data:`cryodc.bench.stages.STAGES`, and of other programs in :data:`cryodc.bench.rivals.RIVALS`; by
        default all steps, and those programs that are installed.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    seed
        Of the simulation and of everything random.
    n_classes
        How many proteins there are, 2 to 6.

    Raises
    ------
    InputError
        If there is no such step, device, box or number of classes, there are too few particles, or a program that is
        asked for is not installed.
    """

    out: Path | None = None
    boxes: tuple[int, ...] = (32,)
    n_particles: int = 240
    stages: tuple[str, ...] = ()
    device: str = "auto"
    seed: int = 0
    n_classes: int = 2

    def __post_init__(self) -> None:
        known = (*STAGES, *RIVALS)
        for stage in self.stages:
            if stage not in known:
                raise InputError("there is no such step to measure", expected=", ".join(known), found=stage)
            if stage in RIVALS and not RIVALS[stage].installed():
                raise InputError(
                    f"{stage} is not installed", found="none on the PATH or among packages", remedy=RIVALS[stage].remedy
                )
        if not 2 <= self.n_classes <= len(PROTEINS):
            raise InputError(
                "so many classes cannot be simulated", expected=f"2 to {len(PROTEINS)}", found=str(self.n_classes)
            )
        fewest = _FEWEST * self.n_classes
        if self.n_particles < fewest:
            raise InputError("too few particles to measure", expected=f"{fewest} or more", found=str(self.n_particles))
        for box in self.boxes:
            self.simulation(box)

    @property
    def chosen(self) -> list[str]:
        """The steps to measure, in order."""
        everything = [*STAGES, *(name for name, rival in RIVALS.items() if rival.installed())]
        return [stage for stage in everything if not self.stages or stage in self.stages]

    def simulation(self, box: int) -> SimulationConfig:
        """The particles of one box."""
        n = -(-self.n_particles // self.n_classes)
        return SimulationConfig(n, box, EDGE_ANGSTROM / box, snr=_SNR, seed=self.seed)


@dataclass(frozen=True)
class Figure:
    """What one step took.

    Parameters
    ----------
    stage, box_size, n_particles
        The step, and what it went over.
    seconds, cpu_seconds
        On the clock, and of all threads.
    ram_bytes, vram_bytes
        Peak of its process, and of the CUDA device; None on a CPU.
    ram_before_bytes
        Peak before the step began: Python, torch and the particles of a class where these are held.
    error_degrees, error_angstrom
        Median error of poses on the true map; None where a step finds none.
    """

    stage: str
    box_size: int
    n_particles: int
    seconds: float
    cpu_seconds: float
    ram_bytes: int
    ram_before_bytes: int
    vram_bytes: int | None = None
    error_degrees: float | None = None
    error_angstrom: float | None = None

    @property
    def per_second(self) -> float:
        """Particles."""
        return self.n_particles / max(self.seconds, 1e-9)

    @property
    def per_cpu_second(self) -> float:
        """Particles."""
        return self.n_particles / max(self.cpu_seconds, 1e-9)


def run_bench(
    request: BenchRequest | None = None, progress: Callable[[str], None] = lambda text: None
) -> tuple[dict[str, Any], list[Figure]]:
    """Simulate particles, measure every step, and write the JSON file.

    Parameters
    ----------
    request
        What is measured; by default all at box 32.
    progress
        Called with a line about each step.

    Returns
    -------
    What the figures were measured on, and one figure for each box and step.

    Raises
    ------
    InputError
        If there is no such device, or a file cannot be written; or with the step whose process has died, as it does
        without memory.
    """
    request = request or BenchRequest()
    device = choose_device(request.device)
    n, largest = request.n_particles, max(request.boxes)
    told = f"{n} simulated particles"
    work = {"step": 2.0 * n, "templates": n, "matching": n, "alignment": n, "classification": n, "states": n}
    declare(Forecast(request.out or Path("bench.json"), told, 0, 3e3, (largest,) * 3, work, 2.0 * n))
    about, figures = machine(device), []
    about |= {"n_particles": n, "n_classes": request.n_classes, "seed": request.seed}
    for box in request.boxes:
        folder = Path(tempfile.mkdtemp(prefix="cryodc-bench-"))
        try:
            progress(f"box {box}: simulating {n} particles, {particle_bytes(n, box) / 2e9:.2g} GB")
            proteins = {name: phantom(name) for name in PROTEINS[: request.n_classes]}
            write_simulation(proteins, request.simulation(box), folder / "sim", with_poses=True)
            figures += _measure_all(request, folder, box, device, progress)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    if request.out is not None:
        rows = [asdict(f) | {"per_second": round(f.per_second, 2)} for f in figures]
        write_text(request.out, json.dumps(about | {"figures": rows}, indent=1) + "\n")
    return about, figures


def machine(device: torch.device) -> dict[str, Any]:
    """What figures were measured on."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else "CPU",
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _measure_all(
    request: BenchRequest, folder: Path, box: int, device: torch.device, progress: Callable[[str], None]
) -> list[Figure]:
    figures: list[Figure] = []
    done: set[str] = set()
    for stage in request.chosen:
        wanted = ["pack", *NEEDS.get(stage, ()), stage]
        for step in dict.fromkeys(wanted):
            if step in done:
                continue
            progress(f"box {box}: {step}")
            figure = _in_own_process(step, folder, box, request.seed, str(device))
            progress(f"box {box}: {step}: {figure.per_second:.3g} a second, {figure.per_cpu_second:.3g} a CPU second")
            done.add(step)
            if step in request.chosen:
                figures.append(figure)
    return figures


def _in_own_process(stage: str, folder: Path, box: int, seed: int, device: str) -> Figure:
    context = multiprocessing.get_context("spawn")
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_measure, stage, folder, box, seed, device, threads).result()
        except BrokenProcessPool as error:
            raise InputError(
                f"the process that measured {stage} at box {box} has died",
                expected="enough memory",
                remedy="give fewer --particles or a smaller --box",
            ) from error


def _measure(stage: str, folder: Path, box: int, seed: int, device: str, threads: int) -> Figure:
    """Time one step; called in its own process."""
    torch.set_num_threads(threads)
    # Names of images are looked for in the current folder first, and the user's may hold others of these names.
    os.chdir(folder)
    where = torch.device(device)
    work = Work(folder, seed, where)
    timed = STAGES[stage](work) if stage in STAGES else RIVALS[stage].begin(work)
    before, began, cpu = _peak_bytes(), time.perf_counter(), _cpu_seconds()
    done = timed()
    vram = None
    if where.type == "cuda":
        torch.cuda.synchronize(where)
        vram = torch.cuda.max_memory_allocated(where)
    seconds, cpu = time.perf_counter() - began, _cpu_seconds() - cpu
    found = done.error_degrees, done.error_angstrom
    peak = _peak_bytes()
    return Figure(stage, box, done.n_particles, round(seconds, 4), round(cpu, 4), peak, before, vram, *found)


def _cpu_seconds() -> float:
    """Of this process and those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _peak_bytes() -> int:
    """Of this process or, where that is larger, of the largest that it waited for."""
    unit = 1 if sys.platform == "darwin" else 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    status = Path("/proc/self/status")
    if not status.exists():
        return max(children, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
    # Not ru_maxrss, which a new process has from the one that started it.
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return max(children, 1024 * int(lines["VmHWM"].split()[0]))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines: Sequence[str] = info.read_text().splitlines() if info.exists() else ()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
