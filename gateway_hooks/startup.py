"""Loading a bot of one's own without the garbage collector, which finds nothing in modules and looks long."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def pause_garbage_collection() -> Generator[None]:
    """Import inside the block what a process is about; what is there then is never looked through again.

    For whoever owns the process. A full look through the libraries' objects takes up to a tenth of a second:
    several of them at the start, and later each one in the midst of somebody's answer.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
