"""If a token response is late, the terminal shows a message and continues to wait for the login."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import StillExchanging
from hermes_mcp_auth_remote.terminal.prompt import AnswerChannels
from tests.consent_form import approve
from tests.loop_clock import LoopClock, loop_clock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.helpers import wait_until
from tests.terminal.test_prompt import RunningLogin, ScriptedLines, demo, module_demo

pytestmark = pytest.mark.slow

__all__ = ["demo", "loop_clock", "module_demo"]


@covers("late-tokens")
@pytest.mark.parametrize("at_keyboard", [True, False])
def test_a_late_token_response_still_connects(
    loop_clock: LoopClock, demo: Demo, tmp_path: Path, *, at_keyboard: bool
) -> None:
    async def main() -> None:
        race = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels(at_keyboard=at_keyboard))
        login = await race.wait_until_shown()
        gate = demo.authorization_server.hold("token")
        race.lines.lines.put_nowait(await asyncio.to_thread(approve, login.authorization_url))
        # End of input.
        race.lines.lines.put_nowait(None)
        assert await asyncio.to_thread(gate.arrived.wait, 20)
        await loop_clock.pass_time(21)
        await asyncio.to_thread(wait_until, lambda: bool(race.screen.refusals))
        assert [type(error) for error in race.screen.refusals] == [StillExchanging]
        gate.open()
        assert (await race.wait_for_connection()).account == "ada@example.com"

    asyncio.run(main())
