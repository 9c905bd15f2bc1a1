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
from tests.trackers import Trackers, caught

SECRET = "s3cret-that-a-frame-holds"


@pytest.fixture
def trackers() -> Trackers:
    return Trackers({SECRET})


def fail(secret: str) -> None:
    held = {"a": [secret]}
    raise RuntimeError(len(held))


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
    for each in (fail, fail_with_a_cause, fail_while_handling):
        try:
            each(secret)
        except (RuntimeError, ValueError) as error:
            errors.append(error)
    raise ExceptionGroup("several", errors)


FAILURES = (fail, fail_with_a_cause, fail_while_handling, fail_without_context, fail_in_a_group)


def links_of(error: BaseException) -> list[TracebackType]:
    links, link = [], error.__traceback__
    while link is not None:
        links.append(link)
        link = link.tb_next
    return links


@pytest.mark.parametrize("failure", FAILURES)
def test_a_function(trackers: Trackers, failure: Callable[[str], None]) -> None:
    assert trackers.leaks(caught(lambda: failure("".join(SECRET))))
    error = caught(lambda: with_hidden_locals(failure)("".join(SECRET)))
    assert trackers.leaks(error) == []
    assert failure.__name__ in [each.tb_frame.f_code.co_name for each in links_of(error)]


@pytest.mark.parametrize("failure", FAILURES)
def test_the_lines_stay(failure: Callable[[str], None]) -> None:
    def told(work: Callable[[str], None]) -> list[str]:
        error = caught(lambda: work("text"))
        assert error.__traceback__ is not None
        # Compare only the frames that both tracebacks have.
        links = error.__traceback__.tb_next
        assert links is not None
        told = "".join(traceback.format_exception(error.with_traceback(links.tb_next)))
        return [line for line in told.splitlines() if not re.fullmatch(r"[ |]*[~^]+", line)]

    without = [line for line in told(with_hidden_locals(failure)) if "/traceback_redaction.py" not in line]
    assert [line for line in without if "return call(" not in line] == told(failure)


def test_a_coroutine_and_who_waits_for_it(trackers: Trackers) -> None:
    live: list[str] = []

    @with_hidden_locals
    async def work(text: str) -> None:
        kept = [text]
        del text
        await asyncio.sleep(0)
        fail(kept.pop())

    async def main(text: list[str]) -> None:
        await work(text.pop())

    error = caught(main([SECRET]))
    assert trackers.leaks(error) == []
    assert live == []
    assert "main" in [each.tb_frame.f_code.co_name for each in links_of(error)]


def test_an_async_generator(trackers: Trackers) -> None:
    async def produce(text: list[str]) -> AsyncGenerator[int]:
        with hiding_locals():
            kept = text.pop()
            yield 1
            fail(kept)

    async def main(text: list[str]) -> None:
        async for _ in produce(text):
            pass

    assert trackers.leaks(caught(main([SECRET]))) == []


def test_a_class(trackers: Trackers) -> None:
    @with_hidden_locals
    class Thing:
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

    assert trackers.leaks(caught(lambda: Thing(SECRET[:]))) == []
    assert trackers.leaks(caught(lambda: Thing().act(SECRET[:]))) == []
    assert trackers.leaks(caught(Thing().wait([SECRET]))) == []
    assert list(Thing().give()) == [1]
    assert Thing().name == "thing"
    with Thing().block():
        pass


def test_an_error_that_the_caller_was_handling_keeps_its_variables() -> None:
    def theirs() -> None:
        mine = "the caller's own"
        raise LookupError(len(mine))

    def both() -> None:
        try:
            theirs()
        except LookupError:
            with_hidden_locals(fail)("text")

    after = caught(both)
    before = after.__context__
    assert before is not None
    assert links_of(before)[-1].tb_frame.f_locals == {"mine": "the caller's own"}
    assert links_of(after)[-1].tb_frame.f_locals == {}


def test_frames_that_still_run_go_on() -> None:
    """Clearing a frame would end a coroutine that has caught the error and continues."""

    async def patient() -> str:
        kept = "still here"
        try:
            await asyncio.sleep(0)
            fail("text")
        except RuntimeError as error:
            hide_locals(error)
            await asyncio.sleep(0)
            del error
        return kept

    assert asyncio.run(patient()) == "still here"


def test_stand_ins_keep_nothing_alive_and_nested_functions_cost_no_more() -> None:
    nested = with_hidden_locals(with_hidden_locals(with_hidden_locals(fail)))
    error = caught(lambda: nested("text"))
    gc.collect()
    frames = [each.tb_frame for each in links_of(error)][-4:]
    assert [frame.f_code.co_name for frame in frames] == ["call_sync", "call_sync", "call_sync", "fail"]
    assert [frame.f_back for frame in frames] == [None] * 4
    assert [frame.f_locals for frame in frames] == [{}] * 4
    # With another value, `executing` (optional in sentry-sdk and IPython) searches the instruction forever.
    assert [each.tb_lasti for each in links_of(error)][-4:] == [0] * 4


def test_many_errors_in_a_chain() -> None:
    error: BaseException = RuntimeError("first")
    for _ in range(5000):
        after = RuntimeError("next")
        after.__context__ = error
        error = after
    hide_locals(error)
    ring = RuntimeError("ring")
    ring.__cause__ = ring
    hide_locals(ring)
