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
_MARK = "__hermes_mcp_auth_remote_hidden__"
_COROUTINE, _GENERATORS = 0x80, 0x20 | 0x200  # inspect.CO_COROUTINE, .CO_GENERATOR, .CO_ASYNC_GENERATOR
# Nothing honest chains more exceptions; the rest is cut off.
_MAX_ERRORS = 1000


def hide_locals(error: BaseException, until: BaseException | None = None) -> None:
    """Replace the frames of an exception, and of those that it is shown with, by ones without variables.

    Call it where the exception was caught: what is then raised through the callers shows their frames as
    they are. `until` is an exception that was being handled before, which is left alone.
    """
    left: list[BaseException | None] = [error]
    seen: set[int] = {id(until)}
    while left and len(seen) < _MAX_ERRORS:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = _without_locals(one.__traceback__)
        left += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", one)
            left += group.exceptions


class hidden_locals:  # noqa: N801  named like the functions of contextlib
    """A block whose exceptions show no variables: neither those of this function, nor of what it calls."""

    __slots__ = ("_until",)

    def __enter__(self) -> None:
        """Note what is being handled already: the frames of the caller's own errors stay."""
        self._until = sys.exc_info()[1]

    def __exit__(self, kind: object, error: BaseException | None, link: TracebackType | None) -> None:
        """Hide the variables of what is raised."""
        if error is not None:
            hide_locals(error, self._until)


def hides_locals(thing: T) -> T:
    """Decorate a function, a coroutine function, or all public ones of a class, and its `__init__`.

    Generators are left as they are: use `hidden_locals` in them.
    """
    if isinstance(thing, FunctionType):
        return cast("T", _hiding(thing))
    if isinstance(thing, type):
        for name, member in list(vars(thing).items()):
            if isinstance(member, FunctionType) and (name == "__init__" or not name.startswith("_")):
                setattr(thing, name, _hiding(member))
    return thing


def place_of(error: BaseException) -> str:
    """Return where an error was raised, as "module.function, line 7": its own text may quote anything."""
    link = error.__traceback__
    while link is not None and link.tb_next is not None:
        link = link.tb_next
    if link is None:
        return "an unknown place"
    frame = link.tb_frame
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_name}, line {link.tb_lineno}"


def _hiding(function: FunctionType) -> Callable[..., object]:
    call: Callable[..., object] = function
    flags = function.__code__.co_flags
    if flags & _GENERATORS:
        return call
    if flags & _COROUTINE:
        work = cast("Callable[..., Awaitable[object]]", function)

        # No coroutine of its own: its frame would hold the arguments for as long as the work waits.
        @wraps(function)
        def begin(*args: object, **kwargs: object) -> Awaitable[object]:
            return _awaited(work(*args, **kwargs))

        return begin

    @wraps(function)
    def run(*args: object, **kwargs: object) -> object:
        with hidden_locals():
            return call(*args, **kwargs)

    return run


async def _awaited(work: Awaitable[T]) -> T:
    with hidden_locals():
        return await work


def _without_locals(link: TracebackType | None) -> TracebackType | None:
    links: list[TracebackType] = []
    while link is not None:
        links.append(link)
        link = link.tb_next
    after: TracebackType | None = None
    for each in reversed(links):
        if _MARK in each.tb_frame.f_globals:
            # Hidden before, on its way through an inner function; so is what follows.
            after = TracebackType(after, each.tb_frame, 0, each.tb_lineno)
        else:
            after = TracebackType(after, _stand_in(each), 0, each.tb_lineno)
    return after


def _stand_in(link: TracebackType) -> FrameType:
    """Return a frame of the same file and function that has never run: it has no variables."""
    code, known = link.tb_frame.f_code, link.tb_frame.f_globals
    names: dict[str, object] = {
        "__name__": known.get("__name__"),
        "__file__": known.get("__file__"),
        # Finds the source lines of a module that is in an archive.
        "__loader__": known.get("__loader__"),
        _MARK: True,
    }
    same = _NEVER_RUN.replace(
        co_filename=code.co_filename,
        co_name=code.co_name,
        co_qualname=code.co_qualname,
        # Its first instruction, which the traceback names, then stands in the line that raised. A library
        # that looks for an instruction that is not there (`executing`) never comes back.
        co_firstlineno=link.tb_lineno,
    )
    begun = cast("GeneratorType[None, None, None]", FunctionType(same, names)())
    # None only once a generator has ended.
    return cast("FrameType", begun.gi_frame)


def _never_run() -> Generator[None]:
    yield


_NEVER_RUN: CodeType = _never_run.__code__
