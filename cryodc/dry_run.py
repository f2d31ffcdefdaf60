"""What a verb would do, said instead of done: ``--dry-run``; or said to whoever wants to know how long it takes.

Within :func:`planning` nothing is written. A verb runs as ever until its checks are done; there it calls
:func:`declare`, which ends it with a :class:`Forecast`. A verb that declares nothing ends where it would first write.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_planning = False
_listener: "Callable[[Forecast], None] | None" = None
_DISK_BYTES_PER_SECOND = 2e8
_VOXEL_BYTES = 4
_N_TIMED = 20
_PROCESS_BYTES = 700_000_000
"""Of Python with torch, before a particle is read."""

COSTS = {
    "step": 300,
    "code": 30,
    "templates": 6000,
    "matching": 150,
    "clustering": 6,
    "average": 260,
    "alignment": 1600,
    "classification": 1000,
    "states": 125,
    "decoding": 500,
    "comparison": 17_000,
    "box": 30,
    "backprojection": 700,
    "simulation": 70,
    "tilt series": 900,
    "packing": 10,
}
"""Work on one particle, in Fourier transforms of its box, measured on one core for 30 to 130 particles of box 24."""


@dataclass(frozen=True)
class Forecast:
    """What a verb would read and write, and what it would cost.

    Parameters
    ----------
    writes
        The file or folder.
    reads
        What is read, in words.
    bytes_read, bytes_written
        About.
    box
        Shape of the boxes that are computed on.
    work
        How often each kind of work in ``COSTS`` is done.
    boxes_in_memory
        Boxes held at a time.
    """

    writes: Path
    reads: str = ""
    bytes_read: float = 0
    bytes_written: float = 0
    box: tuple[int, ...] = ()
    work: Mapping[str, float] = field(default_factory=dict)
    boxes_in_memory: float = 0

    @property
    def memory_bytes(self) -> float:
        """About, with the process itself."""
        return _PROCESS_BYTES + self.boxes_in_memory * math.prod(self.box) * _VOXEL_BYTES

    def seconds(self, of_transform: Callable[[tuple[int, ...]], float] | None = None) -> float:
        """How long it would take on this machine, to a factor of about three.

        Parameters
        ----------
        of_transform
            Seconds of one Fourier transform of a box; by default measured.
        """
        transforms = sum(COSTS[kind] * count for kind, count in self.work.items())
        measured = of_transform or _seconds_of_transform
        computing = transforms * measured(self.box) if transforms else 0.0
        return computing + (self.bytes_read + self.bytes_written) / _DISK_BYTES_PER_SECOND


class Planned(BaseException):
    """Ends a verb that was asked what it would do; no ``except Exception`` catches it.

    Parameters
    ----------
    plan
        The answer.
    """

    def __init__(self, plan: Forecast) -> None:
        super().__init__(plan)
        self.plan = plan


@contextmanager
def planning() -> Iterator[None]:
    """Let verbs say what they would do, by raising :class:`Planned`."""
    global _planning
    before, _planning = _planning, True
    try:
        yield
    finally:
        _planning = before


@contextmanager
def forecasts_to(listener: Callable[[Forecast], None]) -> Iterator[None]:
    """Let this hear what is about to be computed: a verb goes on."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


def is_planning() -> bool:
    """Whether nothing is to be written."""
    return _planning


def declare(plan: Forecast) -> None:
    """End here where only the plan is wanted; called when every check is done, and before anything is written."""
    if _planning:
        raise Planned(plan)
    if _listener is not None and plan.work:
        _listener(plan)


def particle_bytes(n_particles: int, box_size: int) -> float:
    """Of subtomograms and their half-spectrum weights, in float32."""
    return n_particles * _VOXEL_BYTES * (box_size**3 + box_size**2 * (box_size // 2 + 1))


def _seconds_of_transform(box: tuple[int, ...]) -> float:
    import torch

    # Enough of them to measure, and no more memory than a verb itself takes.
    boxes = torch.zeros((max(1, min(8, 2_000_000 // math.prod(box))), *box))
    dims = tuple(range(1, 1 + len(box)))
    taken, threads = [], torch.get_num_threads()
    # One core, as the costs are told. The quickest of several: where other work shares the machine, some wait for long.
    torch.set_num_threads(1)
    for _ in range(_N_TIMED):
        started = time.perf_counter()
        torch.fft.rfftn(boxes, dim=dims)
        taken.append(time.perf_counter() - started)
    torch.set_num_threads(threads)
    return min(taken) / len(boxes)
