"""Start an event loop, or raise a typed error if this process has no free file descriptors."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Coroutine
from typing import TypeVar

from hermes_mcp_auth_remote.errors import OutOfResources

T = TypeVar("T")

# An event loop has a selector and a pair of sockets.
_LOOP_DESCRIPTORS = 3
_RESOURCE_ERRNOS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


def run_in_new_loop(start: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run a coroutine in an event loop of its own; raises what it raises.

    Raises OutOfResources if no event loop can start, or if the coroutine itself runs out of descriptors.
    """
    check_descriptors()
    try:
        return asyncio.run(start())
    except OSError as error:
        if error.errno not in _RESOURCE_ERRNOS:
            raise
        raise _out_of_resources(error) from None


def check_descriptors() -> None:
    """Raise OutOfResources if this process cannot open what an event loop needs.

    asyncio leaves a half-made event loop behind if it runs out of descriptors.
    """
    descriptors: list[int] = []
    try:
        for _ in range(_LOOP_DESCRIPTORS):
            descriptors.append(os.open(os.devnull, os.O_RDONLY))  # noqa: PERF401  the others must be closed
    except OSError as error:
        raise _out_of_resources(error) from None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _out_of_resources(error: OSError) -> OutOfResources:
    return OutOfResources(f"This process can open nothing more: {error.strerror}.")
