"""Particles shared among the processes of a team: each looks at some, and all know what was found.

Within :func:`sharing` every process runs the same program and holds the same state. Loops over particles are the
exception: each process takes some of their chunks (:func:`share`), and what it finds is added to what the others find
(:func:`sum_over_team`). Files are read and written by the leader alone (:func:`by_leader`, :func:`led`). With one
process all of this is the plain loop and the plain call.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import islice
from typing import NamedTuple, TypeVar

import torch.distributed as dist
from torch import Tensor

from cryodc.device.processes import PATIENCE, Team, add_up
from cryodc.fourier import chunks

T = TypeVar("T")


class _Sharing(NamedTuple):
    team: Team
    waiting: dist.ProcessGroup | None


_ALONE = _Sharing(Team(0, 1), None)
_now = _ALONE


@contextmanager
def sharing(team: Team) -> Iterator[None]:
    """Share particles among the processes of a team meanwhile; each of them must come here and make the same calls.

    Parameters
    ----------
    team
        As :func:`cryodc.device.processes.join_team` gives it.
    """
    # Not the default group: its time-out is shorter than what the leader may take for itself.
    waiting = dist.new_group(backend="gloo", timeout=PATIENCE) if team.size > 1 else None
    with _shared_as(_Sharing(team, waiting)):
        yield


@contextmanager
def _shared_as(now: _Sharing) -> Iterator[None]:
    global _now
    before, _now = _now, now
    try:
        yield
    finally:
        _now = before


def sharing_team() -> Team:
    """The processes that share particles: this one alone, but within :func:`sharing`."""
    return _now.team


def share(n_rows: int, n_at_once: int) -> Iterator[slice]:
    """The chunks of ``n_rows`` that this process looks at; every process has some if there are enough rows.

    Parameters
    ----------
    n_rows
        Rows of particles.
    n_at_once
        The most in a chunk.

    Examples
    --------
    >>> list(share(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    team = _now.team
    if team.size > 1:
        n_at_once = min(n_at_once, -(-n_rows // team.size))
    return islice(chunks(n_rows, n_at_once), team.rank, None, team.size)


def own_part(n_rows: int) -> slice:
    """The rows of which this process keeps something for later, where it is too much for every process to keep all.

    Parameters
    ----------
    n_rows
        Rows of particles.

    Examples
    --------
    >>> own_part(5)
    slice(0, 5, None)
    """
    team = _now.team
    return slice(*(rank * n_rows // team.size for rank in (team.rank, team.rank + 1)))


def sum_over_team(*tensors: Tensor) -> None:
    """Replace tensors by their sums over all processes, the same to the last bit on each of them."""
    if _now.team.size > 1:
        _in_place(add_up, tensors)


def as_the_leader(*tensors: Tensor) -> None:
    """Replace tensors by those of the leader, from which those of the others may differ by rounding."""
    if _now.team.size > 1:
        _in_place(lambda tensor: dist.broadcast(tensor, src=0), tensors)


def _in_place(change: Callable[[Tensor], object], tensors: Sequence[Tensor]) -> None:
    for tensor in tensors:
        # Of a view with gaps, gloo would take the memory as if there were none.
        dense = tensor.contiguous()
        change(dense)
        if dense is not tensor:
            tensor.copy_(dense)


def by_leader(work: Callable[[], T]) -> T:
    """Let the leader do something by itself, however long it takes; every process gets what came of it.

    Raises
    ------
    Exception
        In every process, if the leader met one.
    """
    team, waiting = _now
    if waiting is None:
        return work()
    outcome: list[T | Exception | None] = [None]
    if team.leads:
        with _shared_as(_ALONE):
            try:
                outcome[0] = work()
            except Exception as error:
                outcome[0] = error
    dist.broadcast_object_list(outcome, src=0, group=waiting)
    found = outcome[0]
    if isinstance(found, Exception):
        raise found
    return found  # type: ignore[return-value]


@contextmanager
def led(context: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
    """Enter and leave a context on the leader alone; every process gets what it gives, and waits until it is left.

    Parameters
    ----------
    context
        Makes the context; called on the leader alone.
    """
    with ExitStack() as stack:
        yield by_leader(lambda: stack.enter_context(context()))
        by_leader(stack.close)
