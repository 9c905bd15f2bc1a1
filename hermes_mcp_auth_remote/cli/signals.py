"""Run a coroutine so that SIGTERM and SIGHUP cancel it as Ctrl-C does, and cleanup code runs."""

from __future__ import annotations

import asyncio
import signal
import sys
import warnings
from collections.abc import Coroutine
from typing import TypeVar

from hermes_mcp_auth_remote.cli.output import StoppedBySignal
from hermes_mcp_auth_remote.errors import OutOfResources
from hermes_mcp_auth_remote.threads import DaemonExecutor

T = TypeVar("T")


def run_until_stopped(work: Coroutine[object, object, T]) -> T:
    """Run a coroutine and return its result.

    Raises KeyboardInterrupt for Ctrl-C, StoppedBySignal for SIGTERM and SIGHUP, OutOfResources if no event
    loop can start.
    """
    from hermes_mcp_auth_remote.service.event_loops import check_descriptors

    try:
        check_descriptors()
    except OutOfResources:
        # The coroutine may hold others, which Python would report too.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            work.close()
        raise
    received_signals: list[int] = []

    async def run_with_signal_handlers() -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        # Chat libraries resolve host names in the default executor, and a name server may never respond.
        # Daemon threads do not delay the exit.
        loop.set_default_executor(DaemonExecutor())

        def stop(signal_number: int) -> None:
            received_signals.append(signal_number)
            if task is not None:
                task.cancel()

        if sys.platform != "win32":
            for number in (signal.SIGTERM, signal.SIGHUP):
                # Do not replace SIG_IGN: nohup ignores SIGHUP.
                if signal.getsignal(number) is signal.SIG_DFL:
                    loop.add_signal_handler(number, stop, number)
        return await work

    try:
        return asyncio.run(run_with_signal_handlers())
    except asyncio.CancelledError:
        if not received_signals:
            raise
        raise StoppedBySignal(received_signals[0]) from None
