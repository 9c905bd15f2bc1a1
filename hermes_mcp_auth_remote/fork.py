"""Reset locks, threads and in-flight work in a forked child (os.register_at_fork)."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Resettable(Protocol):
    """An object with locks, threads or in-flight work."""

    def reset_in_child(self) -> None:
        """Reset the object in a forked child process, in which no other thread runs yet."""
        ...


_registered_objects: WeakSet[Resettable] = WeakSet()


def reset_after_fork(obj: Resettable) -> None:
    """Call `obj.reset_in_child()` in each child forked from now on; keeps only a weak reference to `obj`."""
    _registered_objects.add(obj)


def _reset_registered_objects() -> None:
    for obj in list(_registered_objects):
        obj.reset_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_registered_objects)
