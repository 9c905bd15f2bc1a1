"""Takes the local variables out of tracebacks, so that no error tracker collects a paste or a token.

sentry-sdk, rich and the like show the local variables of every frame of a traceback. The frames in which a
secret has to be plain text, ours and those of the libraries that we call, are many. So an exception that
leaves this package has other frames: the same files, functions and lines, without variables.

What calls us from outside goes through `hides_locals` or `hidden_locals`. Imports next to nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator
from functools import wraps
from types import CodeType, FrameType, FunctionType, GeneratorType, TracebackType
from typing import TypeVar, cast

T = TypeVar("T")

# A frame with this global variable is one of ours already.
_HIDDEN_MARKER = "__hermes_mcp_auth_remote_hidden__"
_COROUTINE_FLAG, _GENERATOR_FLAGS = (
    0x80,
    0x20 | 0x200,
)  # inspect.CO_COROUTINE, .CO_GENERATOR, .CO_ASYNC_GENERATOR
# Nothing honest chains more exceptions; the rest is cut off.
_MAX_CHAINED_ERRORS = 1000


def hide_locals(error: BaseException, stop_at: BaseException | None = None) -> None:
    """Replace the frames of an exception, and of those that it is shown with, by ones without variables.

    Call it where the exception was caught: what is then raised through the callers shows their frames as
    they are. `until` is an exception that was being handled before, which is left alone.
    """
    left: list[BaseException | None] = [error]
    seen: set[int] = {id(stop_at)}
    while left and len(seen) < _MAX_CHAINED_ERRORS:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = _without_locals(one.__traceback__)
        left += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", one)
            left += group.exceptions


class hiding_locals:  # noqa: N801  named like the functions of contextlib
    """A block whose exceptions show no variables: neither those of this function, nor of what it calls."""

    __slots__ = ("_stop_at",)

    def __enter__(self) -> None:
        """Note what is being handled already: the frames of the caller's own errors stay."""
        self._stop_at = sys.exc_info()[1]

    def __exit__(
        self, error_type: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Hide the variables of what is raised."""
        if error is not None:
            hide_locals(error, self._stop_at)


def with_hidden_locals(function_or_class: T) -> T:
    """Decorate a function, a coroutine function, or all public ones of a class, and its `__init__`.

    Generators are left as they are: use `hidden_locals` in them.
    """
    if isinstance(function_or_class, FunctionType):
        return cast("T", _wrap_function(function_or_class))
    if isinstance(function_or_class, type):
        for name, member in list(vars(function_or_class).items()):
            if isinstance(member, FunctionType) and (name == "__init__" or not name.startswith("_")):
                setattr(function_or_class, name, _wrap_function(member))
    return function_or_class


def raise_location(error: BaseException) -> str:
    """Return where an error was raised, as "module.function, line 7": its own text may quote anything."""
    link = error.__traceback__
    while link is not None and link.tb_next is not None:
        link = link.tb_next
    if link is None:
        return "an unknown place"
    frame = link.tb_frame
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_name}, line {link.tb_lineno}"


def _wrap_function(function: FunctionType) -> Callable[..., object]:
    call: Callable[..., object] = function
    flags = function.__code__.co_flags
    if flags & _GENERATOR_FLAGS:
        return call
    if flags & _COROUTINE_FLAG:
        work = cast("Callable[..., Awaitable[object]]", function)

        # No coroutine of its own: its frame would hold the arguments for as long as the work waits.
        @wraps(function)
        def call_async(*args: object, **kwargs: object) -> Awaitable[object]:
            return _await_hidden(work(*args, **kwargs))

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
    links: list[TracebackType] = []
    while traceback is not None:
        links.append(traceback)
        traceback = traceback.tb_next
    after: TracebackType | None = None
    for each in reversed(links):
        if _HIDDEN_MARKER in each.tb_frame.f_globals:
            # Hidden before, on its way through an inner function; so is what follows.
            after = TracebackType(after, each.tb_frame, 0, each.tb_lineno)
        else:
            after = TracebackType(after, _empty_frame_for(each), 0, each.tb_lineno)
    return after


def _empty_frame_for(traceback: TracebackType) -> FrameType:
    """Return a frame of the same file and function that has never run: it has no variables."""
    code, known = traceback.tb_frame.f_code, traceback.tb_frame.f_globals
    names: dict[str, object] = {
        "__name__": known.get("__name__"),
        "__file__": known.get("__file__"),
        # Finds the source lines of a module that is in an archive.
        "__loader__": known.get("__loader__"),
        _HIDDEN_MARKER: True,
    }
    same = _EMPTY_CODE.replace(
        co_filename=code.co_filename,
        co_name=code.co_name,
        co_qualname=code.co_qualname,
        # Its first instruction, which the traceback names, then stands in the line that raised. A library
        # that looks for an instruction that is not there (`executing`) never comes back.
        co_firstlineno=traceback.tb_lineno,
    )
    begun = cast("GeneratorType[None, None, None]", FunctionType(same, names)())
    # None only once a generator has ended.
    return cast("FrameType", begun.gi_frame)


def _empty_generator() -> Generator[None]:
    yield


_EMPTY_CODE: CodeType = _empty_generator.__code__
