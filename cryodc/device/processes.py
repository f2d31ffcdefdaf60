"""Where tensors lie, and how much memory is free there; and several processes that train one model.

Processes are launched by ``torchrun``, and their gradients averaged after every backward pass; a single process needs
nothing of this. The two optimisers of DualContrast work on parts of the model in turn, so gradients are averaged by
hand rather than by a wrapper around the whole model.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist

from cryodc.errors import InputError

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""How long one process may wait for another that works by itself."""
_SHARE_OF_FREE = 0.5
# Gloo's own threads let go of a finished sum some time after it was waited for. The one who lets go last frees its
# tensor, which needs the interpreter: done by such a thread while the interpreter shuts down, that ends the process.
_recent_sums: deque[dist.Work] = deque(maxlen=4)


class Team(NamedTuple):
    """This process's place among those that train together."""

    rank: int
    size: int

    @property
    def leads(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0


@contextmanager
def join_team(device: torch.device) -> Iterator[Team]:
    """Join the processes that ``torchrun`` started (NCCL on CUDA, gloo on CPU), and leave them at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Team(0, 1)
        return
    if dist.is_initialized():
        # Whoever joined first leaves.
        yield Team(dist.get_rank(), dist.get_world_size())
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(dist.get_rank(), dist.get_world_size())
        if dist.get_backend() == "gloo":
            dist.barrier()
    finally:
        dist.destroy_process_group()


def leader_first(team: Team, work: Callable[[], T]) -> T:
    """Let the leader do some work while the others wait, however long it takes; then they do it too.

    Raises
    ------
    InputError
        In every process, if the leader met one.
    """
    if team.size == 1:
        return work()
    # Not the group of the gradients: its time-out is shorter than reading a large data set takes.
    waiting = dist.new_group(backend="gloo", timeout=PATIENCE)
    outcome: list[InputError | None] = [None]
    result: list[T] = []
    if team.leads:
        try:
            result.append(work())
        except InputError as error:
            outcome[0] = error
    dist.broadcast_object_list(outcome, src=0, group=waiting)
    if outcome[0] is not None:
        raise outcome[0]
    return result[0] if team.leads else work()


def wait_for_all(team: Team) -> None:
    """Go on when every process has come here, however long it takes."""
    if team.size > 1:
        dist.barrier(group=dist.new_group(backend="gloo", timeout=PATIENCE))


def average_gradients(parameters: Iterable[torch.nn.Parameter], team: Team) -> None:
    """Replace every gradient by its mean over the team."""
    if team.size == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    add_up(flat)
    flat /= team.size
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def average_number(value: float, team: Team) -> float:
    """Mean of a number over the team."""
    if team.size == 1:
        return value
    tensor = torch.tensor([value], dtype=torch.float64)
    if dist.get_backend() == "nccl":
        tensor = tensor.to(torch.device("cuda"))
    add_up(tensor)
    return float(tensor) / team.size


def add_up(tensor: torch.Tensor) -> None:
    """Replace a tensor by its sum over all processes."""
    work = dist.all_reduce(tensor, async_op=True)
    assert work is not None
    work.wait()
    if dist.get_backend() == "gloo":
        _recent_sums.append(work)


def choose_device(name: str) -> torch.device:
    """``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``; each process of a team gets its own.

    Raises
    ------
    InputError
        If there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError("no such device", expected="auto, cpu, cuda or cuda:N", found=name) from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(
            "cryodc does not compute on this kind of device",
            expected="auto, cpu, cuda or cuda:N",
            found=f"--device {name}",
            remedy="use --device auto or cpu",
        )
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError(
                "no CUDA device is to be seen", found=f"--device {name}", remedy="use --device auto or cpu"
            )
        index = int(os.environ.get("LOCAL_RANK", device.index or 0))
        # Of processes on one machine the first one is to find out too.
        last = max(index, int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1)
        if last >= torch.cuda.device_count():
            raise InputError(
                "no such device", expected=f"cuda:0 to cuda:{torch.cuda.device_count() - 1}", found=f"cuda:{last}"
            )
        return torch.device("cuda", index)
    return device


def memory_budget(device: torch.device) -> float:
    """Bytes that may be held of particles unless the user says how many: half of what is free on a device.

    Processes that ``torchrun`` started on one machine have equal parts of its memory.
    """
    if device.type == "cuda":
        return _SHARE_OF_FREE * torch.cuda.mem_get_info(device)[0]
    return _SHARE_OF_FREE * _free_bytes() / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _free_bytes() -> float:
    """What this process can still get: of the machine, and of the group of processes that it is held to (cgroup 2)."""
    free = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    try:
        table = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = 1024.0 * int(table["MemAvailable"].split()[0])
        group = Path("/sys/fs/cgroup", Path("/proc/self/cgroup").read_text().split("::", 1)[1].strip().lstrip("/"))
        most, used = ((group / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())["inactive_file"]
        return free if most == "max" else min(free, float(most) - float(used) + float(cached))
    except (OSError, KeyError, IndexError, ValueError):
        # No Linux, or no such group: what is known so far.
        return free
