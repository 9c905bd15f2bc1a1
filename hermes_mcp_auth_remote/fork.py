"""A forked child has none of its parent's threads, so what they held or were about begins anew there."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forked(Protocol):
    """Something with locks, threads or work under way."""

    def forked(self) -> None:
        """Begin anew, in a child process, while no other thread runs."""
        ...


_of_this_process: WeakSet[Forked] = WeakSet()


def begin_anew_in_children(thing: Forked) -> None:
    """Call `thing.forked()` in every child that is forked from now on, for as long as the thing lives."""
    _of_this_process.add(thing)


def _after_fork() -> None:
    for thing in list(_of_this_process):
        thing.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
