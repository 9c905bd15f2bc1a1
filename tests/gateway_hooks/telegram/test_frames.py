"""A bug during a paste in Telegram: no error handler and no error tracker gets the code."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway_hooks.telegram import TelegramPlatform
from gateway_hooks.telegram.chat import TelegramChat
from tests.gateway_hooks.telegram.given import Scene
from tests.gateway_hooks.telegram.test_application import Host, hosted
from tests.parts.bot_api import User
from tests.requirements import covers
from tests.service.test_frames import boom
from tests.trackers import Trackers


@covers("tracebacks-masked")
@pytest.mark.parametrize("where", ["service.AuthService.complete_login", "chat", "read_update"])
def test_a_fault_at_a_paste(
    scene: Scene,
    anna: User,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    api, host, trackers = (
        scene.api,
        Host(),
        Trackers(scene.demo.authorization_server.minted_secrets, {scene.api.token}),
    )

    async def story() -> None:
        async with hosted(scene, host):
            prompt = await scene.prompt(anna)
            answer = await scene.approved(prompt)
            trackers.more.add(scene.login().request.state.reveal())
            if where == "chat":
                monkeypatch.setattr(TelegramChat, "delete", lambda *_: 1 / 0)
            elif where == "read_update":
                monkeypatch.setattr(TelegramPlatform, "read_update", lambda *_: 1 / 0)
            else:
                boom(monkeypatch, trackers, where)
            caplog.clear()
            api.say(anna, answer)
            await api.until(lambda: [each for each in caplog.records if each.levelno >= logging.ERROR])

    with trackers.logging():
        asyncio.run(story())
    assert host.heard == []
    # The handlers get neither the update nor its error.
    assert not any(trackers.found_in(repr(each)) for each in host.seen)
    assert [each for each in host.seen if isinstance(each, BaseException)] == []
    assert trackers.transport.sent
    assert trackers.sent_leaks() == []
