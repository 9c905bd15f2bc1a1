"""A bug during a paste in Discord: the library logs no traceback, and no error tracker gets the code."""

from __future__ import annotations

import logging

import pytest

from gateway_hooks.discord import McpLogins
from gateway_hooks.discord.chat import InteractionChat
from tests.gateway_hooks.discord.given import Scene
from tests.requirements import covers
from tests.service.given import eventually
from tests.service.test_frames import boom
from tests.trackers import Trackers

pytestmark = pytest.mark.slow


@covers("tracebacks-masked")
@pytest.mark.parametrize("where", ["service.AuthService.complete_login", "chat", "message"])
def test_a_fault_at_a_paste(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    ada, trackers = scene.ada, Trackers(scene.demo.authorization_server.minted_secrets)

    def is_told() -> bool:
        return any(each.levelno >= logging.ERROR for each in caplog.records)

    with trackers.logging(), scene.bot():
        prompt = scene.connect(ada)
        trackers.more.add(scene.login().request.state.reveal())
        answer = scene.approve()
        caplog.clear()
        if where == "message":
            monkeypatch.setattr(McpLogins, "chat_for", lambda *_: 1 / 0)
            scene.api.say(ada, scene.api.dm(ada), answer)
        elif where == "chat":
            monkeypatch.setattr(InteractionChat, "close", lambda *_: 1 / 0)
            scene.paste(ada, prompt, answer)
        else:
            boom(monkeypatch, trackers, where)
            scene.paste(ada, prompt, answer)
        eventually(is_told)
    errors = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    assert all("(internal error)" in each for each in errors)
    assert not trackers.found_in(caplog.text)
    assert trackers.transport.sent
    assert trackers.sent_leaks() == []
