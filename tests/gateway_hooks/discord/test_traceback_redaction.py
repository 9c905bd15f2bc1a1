"""A bug during a paste in Discord: the library logs no traceback, and no error tracker gets the code."""

from __future__ import annotations

import logging

import pytest

from gateway_hooks.discord import McpLogins
from gateway_hooks.discord.chat import InteractionChat
from tests.error_trackers import ErrorTrackers
from tests.gateway_hooks.discord.environment import DiscordEnvironment
from tests.requirements import covers
from tests.service.helpers import wait_until
from tests.service.test_traceback_redaction import inject_error

pytestmark = pytest.mark.slow


@covers("tracebacks-masked")
@pytest.mark.parametrize("fault", ["service.AuthService.complete_login", "chat", "message"])
def test_bug_during_paste_is_logged_without_code(
    env: DiscordEnvironment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    ada, trackers = env.ada, ErrorTrackers(env.demo.authorization_server.minted_secrets)

    def has_logged_error() -> bool:
        return any(record.levelno >= logging.ERROR for record in caplog.records)

    with trackers.capture_error_logs(), env.running_bot():
        prompt = env.request_prompt(ada)
        trackers.extra_secrets.add(env.waiting_login().request.state.reveal())
        answer = env.approve_login()
        caplog.clear()
        if fault == "message":
            monkeypatch.setattr(McpLogins, "chat_for", lambda *_: 1 / 0)
            env.api.say(ada, env.api.dm(ada), answer)
        elif fault == "chat":
            monkeypatch.setattr(InteractionChat, "close", lambda *_: 1 / 0)
            env.submit_answer(ada, prompt, answer)
        else:
            inject_error(monkeypatch, trackers, fault)
            env.submit_answer(ada, prompt, answer)
        wait_until(has_logged_error)
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert all("(internal error)" in error for error in errors)
    assert not trackers.contains_secret(caplog.text)
    assert trackers.transport.sent
    assert trackers.find_sent_leaks() == []
