"""Remove the local variables from tracebacks, so that no error tracker collects a paste or a token.

sentry-sdk, rich and similar tools show the local variables of all frames of a traceback. Many frames of this
package and of its libraries hold a secret in plain text. So an exception that leaves this package gets
replacement frames: the same files, functions and lines, without variables.

The public functions use `with_hidden_locals` or `hiding_locals`. This module imports very little.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator
from functools import wraps
from types import CodeType, FrameType, FunctionType, GeneratorType, TracebackType
from typing import TypeVar, cast

T = TypeVar("T")

# A frame with this global variable is a replacement frame.
_HIDDEN_MARKER = "__hermes_mcp_auth_remote_hidden__"
_COROUTINE_FLAG, _GENERATOR_FLAGS = (
    0x80,
    0x20 | 0x200,
)  # inspect.CO_COROUTINE, .CO_GENERATOR, .CO_ASYNC_GENERATOR
# No legitimate code chains more exceptions; the rest is left as it is.
_MAX_CHAINED_ERRORS = 1000


def hide_locals(error: BaseException, stop_at: BaseException | None = None) -> None:
    """Replace all frames of an exception, its causes, contexts and members by frames without variables.

    Call it in the handler that caught the exception: the frames of the callers, which are added when it is
    raised again, stay. `stop_at` is an exception that the caller was already handling; it is not changed.
    """
    pending: list[BaseException | None] = [error]
    visited_ids: set[int] = {id(stop_at)}
    while pending and len(visited_ids) < _MAX_CHAINED_ERRORS:
        current = pending.pop()
        if current is None or id(current) in visited_ids:
            continue
        visited_ids.add(id(current))
        current.__traceback__ = _without_locals(current.__traceback__)
        pending += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", current)
            pending += group.exceptions


class hiding_locals:  # noqa: N801  named like the functions of contextlib
    """A block whose exceptions show no variables of its function or of the functions that it calls."""

    __slots__ = ("_stop_at",)

    def __enter__(self) -> None:
        """Remember the exception that is being handled already: the caller's own errors keep their frames."""
        self._stop_at = sys.exc_info()[1]

    def __exit__(
        self, error_type: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Hide the variables of an exception that leaves the block."""
        if error is not None:
            hide_locals(error, self._stop_at)


def with_hidden_locals(function_or_class: T) -> T:
    """Decorate a function, a coroutine function, or the public methods and `__init__` of a class.

    Generators are returned unchanged: use `hiding_locals` in them.
    """
    if isinstance(function_or_class, FunctionType):
        return cast("T", _wrap_function(function_or_class))
    if isinstance(function_or_class, type):
        for name, member in list(vars(function_or_class).items()):
            if isinstance(member, FunctionType) and (name == "__init__" or not name.startswith("_")):
                setattr(function_or_class, name, _wrap_function(member))
    return function_or_class


def raise_location(error: BaseException) -> str:
    """Return where an error was raised, as "module.function, line 7". Its text may contain secrets."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return "an unknown place"
    frame = traceback.tb_frame
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_name}, line {traceback.tb_lineno}"


def _wrap_function(function: FunctionType) -> Callable[..., object]:
    call: Callable[..., object] = function
    flags = function.__code__.co_flags
    if flags & _GENERATOR_FLAGS:
        return call
    if flags & _COROUTINE_FLAG:
        coroutine_function = cast("Callable[..., Awaitable[object]]", function)

        # Not a coroutine function: its frame would hold the arguments until the call ends.
        @wraps(function)
        def call_async(*args: object, **kwargs: object) -> Awaitable[object]:
            return _await_hidden(coroutine_function(*args, **kwargs))

        return call_async

    @wraps(function)
    def call_sync(*args: object, **kwargs: object) -> object:
        with hiding_locals():
            return call(*args, **kwargs)

    return call_sync


async def _await_hidden(awaitable: Awaitable[T]) -> T:
    with hiding_locals():
        return await awaitable


def _without_locals(traceback: TracebackType | None) -> TracebackType | None:
    entries: list[TracebackType] = []
    while traceback is not None:
        entries.append(traceback)
        traceback = traceback.tb_next
    result: TracebackType | None = None
    for entry in reversed(entries):
        if _HIDDEN_MARKER in entry.tb_frame.f_globals:
            # An inner function has replaced this frame already.
            result = TracebackType(result, entry.tb_frame, 0, entry.tb_lineno)
        else:
            result = TracebackType(result, _empty_frame_for(entry), 0, entry.tb_lineno)
    return result


def _empty_frame_for(traceback: TracebackType) -> FrameType:
    """Return a frame of the same file and function that has not run, so it has no variables."""
    code, frame_globals = traceback.tb_frame.f_code, traceback.tb_frame.f_globals
    new_globals: dict[str, object] = {
        "__name__": frame_globals.get("__name__"),
        "__file__": frame_globals.get("__file__"),
        # linecache needs it to find the source of a module in an archive.
        "__loader__": frame_globals.get("__loader__"),
        _HIDDEN_MARKER: True,
    }
    empty_code = _EMPTY_CODE.replace(
        co_filename=code.co_filename,
        co_name=code.co_name,
        co_qualname=code.co_qualname,
        # The new traceback names the first instruction. This puts that instruction in the line that raised
        # the exception. `executing` loops forever if it looks for an instruction that does not exist.
        co_firstlineno=traceback.tb_lineno,
    )
    generator = cast("GeneratorType[None, None, None]", FunctionType(empty_code, new_globals)())
    # `gi_frame` is None only after a generator has ended.
    return cast("FrameType", generator.gi_frame)


def _empty_generator() -> Generator[None]:
    yield


_EMPTY_CODE: CodeType = _empty_generator.__code__
