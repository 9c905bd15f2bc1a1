"""Runs a verb's work so that SIGTERM and a closed terminal end it as Ctrl-C does: everything is put back."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import TypeVar

from hermes_mcp_auth_remote.cli.output import StoppedBySignal
from hermes_mcp_auth_remote.threads import DaemonExecutor

T = TypeVar("T")


def run_until_stopped(work: Coroutine[object, object, T]) -> T:
    """Run to the end and return what came of it; raises KeyboardInterrupt, or Stopped for another signal."""
    stopped: list[int] = []

    async def run_with_signal_handlers() -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        # A chat platform's library looks its names up there, and a name server may never answer.
        loop.set_default_executor(DaemonExecutor())

        def stop(signal_number: int) -> None:
            stopped.append(signal_number)
            if task is not None:
                task.cancel()

        if sys.platform != "win32":
            for number in (signal.SIGTERM, signal.SIGHUP):
                # nohup has it ignored, and means it.
                if signal.getsignal(number) is signal.SIG_DFL:
                    loop.add_signal_handler(number, stop, number)
        return await work

    try:
        return asyncio.run(run_with_signal_handlers())
    except asyncio.CancelledError:
        if not stopped:
            raise
        raise StoppedBySignal(stopped[0]) from None
