"""Polls that their servers do not answer: they keep no turn of other servers."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hermes_mcp_auth_remote.service.poll_scheduler import (
    AT_ONCE,
    AT_ONCE_FOR_ONE_PLACE,
    LATE_SECONDS,
    Poller,
    Watch,
)
from tests.jumping import Jumping, jump
from tests.requirements import covers
from tests.service.test_polling import SECONDS, Counted, Told

pytestmark = pytest.mark.slow

__all__ = ["jump"]


class Hanging(Counted):
    """Work whose steps at one place end at once, and at all others when the gate is opened."""

    async def step(self, watch: Watch) -> float | None:
        return None if watch.place == "honest" else await super().step(watch)


@covers("device-heap", "late-tokens")
def test_servers_that_answer_late_leave_their_turns_to_others(jump: Jumping) -> None:
    work, told = Hanging(held=True), Told()
    work.filled_by = AT_ONCE
    poller = Poller(work)
    for number in range(AT_ONCE):
        place = f"hostile-{number // AT_ONCE_FOR_ONE_PLACE}"
        poller.watch(f"{number}", place, told.of(f"{number}"))
    assert work.full.wait(SECONDS)
    poller.watch("mine", "honest", told.of("mine"))
    turn = threading.Event()
    poller._call(turn.set)
    assert turn.wait(SECONDS)
    assert told.troubles == {}
    jump(LATE_SECONDS + 1)
    assert told.wait() == ["mine"]
    work.gate.set()
    told.wait(AT_ONCE)
    assert work.most_at_once == AT_ONCE


def test_the_jumping_clock_is_a_clock(jump: Jumping) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        jump(1000)
        return loop.time() - before

    assert asyncio.run(main()) >= 1000
