"""Reading long tables without Python's cyclic garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Pause the collector, as a context or a decorator.

    Millions of cells hold no cycles, but each new generation makes the collector walk over all of them: more than
    half of the time it takes to read a million rows.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
