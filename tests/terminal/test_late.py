"""A late token response: the terminal shows a message and continues to wait for the login."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import StillExchanging
from hermes_mcp_auth_remote.terminal.prompt import AnswerChannels
from tests.browserless import approve
from tests.jumping import Jumping, jump
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.given import eventually
from tests.terminal.test_prompt import Race, Typed, demo, one_demo

pytestmark = pytest.mark.slow

__all__ = ["demo", "jump", "one_demo"]


@covers("late-tokens")
@pytest.mark.parametrize("at_keyboard", [True, False])
def test_a_code_that_is_answered_late_still_connects(
    jump: Jumping, demo: Demo, tmp_path: Path, *, at_keyboard: bool
) -> None:
    async def main() -> None:
        race = Race(demo, tmp_path, Typed(), AnswerChannels(at_keyboard=at_keyboard))
        login = await race.shown()
        gate = demo.authorization_server.hold("token")
        race.lines.lines.put_nowait(await asyncio.to_thread(approve, login.authorization_url))
        # End of input.
        race.lines.lines.put_nowait(None)
        assert await asyncio.to_thread(gate.arrived.wait, 20)
        await jump.pass_time(21)
        await asyncio.to_thread(eventually, lambda: bool(race.screen.refusals))
        assert [type(each) for each in race.screen.refusals] == [StillExchanging]
        gate.open()
        assert (await race.end()).account == "ada@example.com"

    asyncio.run(main())
