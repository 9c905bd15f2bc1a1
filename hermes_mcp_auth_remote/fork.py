"""A forked child has none of its parent's threads, so what they held or were about begins anew there."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Resettable(Protocol):
    """Something with locks, threads or work under way."""

    def reset_in_child(self) -> None:
        """Begin anew, in a child process, while no other thread runs."""
        ...


_registered_objects: WeakSet[Resettable] = WeakSet()


def reset_after_fork(obj: Resettable) -> None:
    """Call `thing.forked()` in every child that is forked from now on, for as long as the thing lives."""
    _registered_objects.add(obj)


def _reset_registered_objects() -> None:
    for thing in list(_registered_objects):
        thing.reset_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_registered_objects)
