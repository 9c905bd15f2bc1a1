"""Run blocking calls in threads outside the event loop's default executor.

`asyncio.run` joins the default executor before it returns, and all libraries in the process share it. If a
call in that executor waits for a server, it delays the end of the program and the work of other libraries.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.fork import reset_after_fork
from hermes_mcp_auth_remote.traceback_redaction import hide_locals, hiding_locals

P = ParamSpec("P")
T = TypeVar("T")

MAX_FILE_THREADS = 8
# The threads of a DaemonExecutor. Libraries look up a few host names in them.
MAX_LIBRARY_THREADS = 32


class _FileExecutor:
    """The executor for file work; a forked child gets a new one."""

    def __init__(self) -> None:
        self.reset_in_child()
        reset_after_fork(self)

    def reset_in_child(self) -> None:
        """Replace the executor: a forked child process does not have its threads."""
        self.executor = ThreadPoolExecutor(MAX_FILE_THREADS, "mcp-auth-files")


_file_executor = _FileExecutor()


async def run_file_work(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a short blocking function that reads or writes files, in one of MAX_FILE_THREADS threads.

    Raises what the function raises. Never pass a function that waits for a server: use `run_in_own_thread`.
    """
    return await asyncio.wrap_future(submit_file_work(function, *args, **kwargs))


def submit_file_work(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Start the work of `run_file_work` and return its future: a cancelled caller may have to undo it."""
    context = contextvars.copy_context()

    def call() -> T:
        with hiding_locals():
            return context.run(function, *args, **kwargs)

    try:
        return _file_executor.executor.submit(call)
    except RuntimeError as error:
        # The interpreter is ending, so the work was not queued. A poll that gets tokens at that moment must
        # still store them.
        if not str(error).startswith("cannot schedule new futures"):
            raise
        done: Future[T] = Future()
        _set_outcome(done, call)
        return done


async def run_undoable_file_work(
    function: Callable[P, T], undo: Callable[[T], object], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Do what `run_file_work` does. If the caller is cancelled and `function` still succeeds, call `undo`.

    `undo` gets the result of `function`.

    A thread cannot be interrupted, so the function may still succeed after its caller was cancelled.
    """
    work = submit_file_work(function, *args, **kwargs)
    try:
        return await asyncio.shield(asyncio.wrap_future(work))
    except asyncio.CancelledError:
        if not work.cancel():
            work.add_done_callback(partial(_undo_work, undo))
        raise


async def run_unstoppable_file_work(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do what `run_file_work` does; if the caller is cancelled, the function runs to its end all the same."""
    return await asyncio.shield(asyncio.wrap_future(submit_file_work(function, *args, **kwargs)))


def _undo_work(undo: Callable[[T], object], work: Future[T]) -> None:
    if not work.cancelled() and work.exception() is None:
        with suppress(McpAuthError):
            undo(work.result())


async def run_in_own_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function that waits for a server or a program, in a daemon thread.

    Raises what the function raises. If the caller is cancelled, the thread goes on. It does not delay the
    exit.
    """
    outcome: asyncio.Future[Future[T]] = asyncio.get_running_loop().create_future()
    context = contextvars.copy_context()

    def call() -> None:
        done: Future[T] = Future()
        _set_outcome(done, partial(context.run, function, *args, **kwargs))
        set_result_threadsafe(outcome, done)

    threading.Thread(target=call, name="mcp-auth-call", daemon=True).start()
    return (await outcome).result()


class DaemonExecutor(ThreadPoolExecutor):
    """A default executor whose threads delay neither the end of the event loop nor the exit.

    The libraries of chat platforms look up host names in the default executor. Each call gets a thread. If
    MAX_LIBRARY_THREADS calls are running, the next call fails with an OSError.
    """

    def __init__(self) -> None:
        super().__init__(1)
        self._free_slots = threading.Semaphore(MAX_LIBRARY_THREADS)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start a thread for a call and return its future."""
        future: Future[T] = Future()
        # The call runs at once: a caller cannot cancel it, so its slot is always released.
        future.set_running_or_notify_cancel()

        def call() -> T:
            try:
                return fn(*args, **kwargs)
            finally:
                # Release the slot before the caller gets the result and may submit the next call.
                self._free_slots.release()

        if not self._free_slots.acquire(blocking=False):
            future.set_exception(OSError(errno.EAGAIN, "too many calls wait for a server"))
            return future
        try:
            target = partial(_set_outcome, future, call)
            threading.Thread(target=target, name="mcp-auth-library", daemon=True).start()
        except RuntimeError:
            self._free_slots.release()
            raise
        return future


def _set_outcome(future: Future[T], call: Callable[[], T]) -> None:
    """Set a future to what a call returns or raises."""
    try:
        value = call()
    except BaseException as error:  # noqa: BLE001  the caller raises it
        hide_locals(error)
        future.set_exception(error)
    else:
        future.set_result(value)


def set_result_threadsafe(future: asyncio.Future[T], result: T) -> None:
    """Set a future's result from any thread; does nothing if its waiter or its event loop is gone."""
    # RuntimeError: the loop has closed.
    with suppress(RuntimeError):
        future.get_loop().call_soon_threadsafe(_set_result_if_pending, future, result)


def _set_result_if_pending(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)
