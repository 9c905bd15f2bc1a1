"""Tracebacks without local variables keep their lines."""

from __future__ import annotations

import asyncio
import gc
import re
import traceback
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from types import TracebackType

import pytest

from hermes_mcp_auth_remote.traceback_redaction import hide_locals, hiding_locals, with_hidden_locals
from tests.error_trackers import ErrorTrackers, catch_error

SECRET = "s3cret-that-a-frame-holds"


@pytest.fixture
def trackers() -> ErrorTrackers:
    return ErrorTrackers({SECRET})


def fail(secret: str) -> None:
    local_copy = {"a": [secret]}
    raise RuntimeError(len(local_copy))


def fail_with_a_cause(secret: str) -> None:
    try:
        fail(secret)
    except RuntimeError as error:
        raise ValueError("another") from error


def fail_while_handling(secret: str) -> None:
    try:
        fail(secret)
    except RuntimeError:
        fail_with_a_cause(secret)


def fail_without_context(secret: str) -> None:
    try:
        fail(secret)
    except RuntimeError:
        raise ValueError("another") from None


def fail_in_a_group(secret: str) -> None:
    errors: list[Exception] = []
    for failure in (fail, fail_with_a_cause, fail_while_handling):
        try:
            failure(secret)
        except (RuntimeError, ValueError) as error:
            errors.append(error)
    raise ExceptionGroup("several", errors)


FAILURES = (fail, fail_with_a_cause, fail_while_handling, fail_without_context, fail_in_a_group)


def traceback_links(error: BaseException) -> list[TracebackType]:
    links, link = [], error.__traceback__
    while link is not None:
        links.append(link)
        link = link.tb_next
    return links


@pytest.mark.parametrize("failure", FAILURES)
def test_a_decorated_function_hides_its_variables(
    trackers: ErrorTrackers, failure: Callable[[str], None]
) -> None:
    assert trackers.find_leaks(catch_error(lambda: failure("".join(SECRET))))
    error = catch_error(lambda: with_hidden_locals(failure)("".join(SECRET)))
    assert trackers.find_leaks(error) == []
    assert failure.__name__ in [link.tb_frame.f_code.co_name for link in traceback_links(error)]


@pytest.mark.parametrize("failure", FAILURES)
def test_hidden_locals_do_not_change_the_traceback_lines(failure: Callable[[str], None]) -> None:
    def format_lines(function: Callable[[str], None]) -> list[str]:
        error = catch_error(lambda: function("text"))
        assert error.__traceback__ is not None
        # Compare only the frames that both tracebacks have.
        links = error.__traceback__.tb_next
        assert links is not None
        formatted = "".join(traceback.format_exception(error.with_traceback(links.tb_next)))
        return [line for line in formatted.splitlines() if not re.fullmatch(r"[ |]*[~^]+", line)]

    without = [
        line for line in format_lines(with_hidden_locals(failure)) if "/traceback_redaction.py" not in line
    ]
    assert [line for line in without if "return call(" not in line] == format_lines(failure)


def test_a_coroutine_and_its_caller_hide_their_variables(trackers: ErrorTrackers) -> None:
    live: list[str] = []

    @with_hidden_locals
    async def work(text: str) -> None:
        texts = [text]
        del text
        await asyncio.sleep(0)
        fail(texts.pop())

    async def main(text: list[str]) -> None:
        await work(text.pop())

    error = catch_error(main([SECRET]))
    assert trackers.find_leaks(error) == []
    assert live == []
    assert "main" in [link.tb_frame.f_code.co_name for link in traceback_links(error)]


def test_an_async_generator_hides_its_variables(trackers: ErrorTrackers) -> None:
    async def produce(text: list[str]) -> AsyncGenerator[int]:
        with hiding_locals():
            secret = text.pop()
            yield 1
            fail(secret)

    async def main(text: list[str]) -> None:
        async for _ in produce(text):
            pass

    assert trackers.find_leaks(catch_error(main([SECRET]))) == []


def test_a_decorated_class_hides_the_variables_of_its_methods(trackers: ErrorTrackers) -> None:
    @with_hidden_locals
    class Decorated:
        def __init__(self, text: str = "") -> None:
            if text:
                fail(text)

        def act(self, text: str) -> None:
            fail(text)

        async def wait(self, text: list[str]) -> None:
            await asyncio.sleep(0)
            fail(text.pop())

        def give(self) -> Generator[int]:
            yield 1

        @contextmanager
        def block(self) -> Generator[None]:
            yield

        @property
        def name(self) -> str:
            return "thing"

    assert trackers.find_leaks(catch_error(lambda: Decorated(SECRET[:]))) == []
    assert trackers.find_leaks(catch_error(lambda: Decorated().act(SECRET[:]))) == []
    assert trackers.find_leaks(catch_error(Decorated().wait([SECRET]))) == []
    assert list(Decorated().give()) == [1]
    assert Decorated().name == "thing"
    with Decorated().block():
        pass


def test_an_error_that_the_caller_was_handling_keeps_its_variables() -> None:
    def fail_in_caller() -> None:
        mine = "the caller's own"
        raise LookupError(len(mine))

    def fail_while_handling_caller_error() -> None:
        try:
            fail_in_caller()
        except LookupError:
            with_hidden_locals(fail)("text")

    error = catch_error(fail_while_handling_caller_error)
    context = error.__context__
    assert context is not None
    assert traceback_links(context)[-1].tb_frame.f_locals == {"mine": "the caller's own"}
    assert traceback_links(error)[-1].tb_frame.f_locals == {}


def test_a_frame_that_still_runs_continues() -> None:
    """A coroutine that has caught the error continues: its frame is not cleared, which would end it."""

    async def catch_and_continue() -> str:
        value = "still here"
        try:
            await asyncio.sleep(0)
            fail("text")
        except RuntimeError as error:
            hide_locals(error)
            await asyncio.sleep(0)
            del error
        return value

    assert asyncio.run(catch_and_continue()) == "still here"


def test_replaced_frames_keep_no_objects_alive() -> None:
    nested = with_hidden_locals(with_hidden_locals(with_hidden_locals(fail)))
    error = catch_error(lambda: nested("text"))
    gc.collect()
    frames = [link.tb_frame for link in traceback_links(error)][-4:]
    assert [frame.f_code.co_name for frame in frames] == ["call_sync", "call_sync", "call_sync", "fail"]
    assert [frame.f_back for frame in frames] == [None] * 4
    assert [frame.f_locals for frame in frames] == [{}] * 4
    # With another value, `executing` (sentry-sdk and IPython may use it) would search for the instruction
    # forever.
    assert [link.tb_lasti for link in traceback_links(error)][-4:] == [0] * 4


def test_long_and_cyclic_error_chains_do_not_hang() -> None:
    error: BaseException = RuntimeError("first")
    for _ in range(5000):
        next_error = RuntimeError("next")
        next_error.__context__ = error
        error = next_error
    hide_locals(error)
    cyclic_error = RuntimeError("ring")
    cyclic_error.__cause__ = cyclic_error
    hide_locals(cyclic_error)
