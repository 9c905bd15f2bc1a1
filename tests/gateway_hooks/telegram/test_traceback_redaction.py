"""A bug during a paste in Telegram: no error handler and no error tracker gets the code."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway_hooks.telegram import TelegramPlatform
from gateway_hooks.telegram.chat import TelegramChat
from tests.error_trackers import ErrorTrackers
from tests.gateway_hooks.telegram.environment import TelegramEnvironment
from tests.gateway_hooks.telegram.test_application import HostHandlers, running_application
from tests.parts.bot_api import User
from tests.requirements import covers
from tests.service.test_traceback_redaction import inject_error


@covers("tracebacks-masked")
@pytest.mark.parametrize("fault", ["service.AuthService.complete_login", "chat", "read_update"])
def test_bug_during_paste_is_logged_without_code(
    env: TelegramEnvironment,
    anna: User,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    api, host, trackers = (
        env.api,
        HostHandlers(),
        ErrorTrackers(env.demo.authorization_server.minted_secrets, {env.api.token}),
    )

    async def paste_answer() -> None:
        async with running_application(env, host):
            prompt = await env.request_prompt(anna)
            answer = await env.approve_login(prompt)
            trackers.extra_secrets.add(env.waiting_login().request.state.reveal())
            if fault == "chat":
                monkeypatch.setattr(TelegramChat, "delete", lambda *_: 1 / 0)
            elif fault == "read_update":
                monkeypatch.setattr(TelegramPlatform, "read_update", lambda *_: 1 / 0)
            else:
                inject_error(monkeypatch, trackers, fault)
            caplog.clear()
            api.say(anna, answer)
            await api.until(lambda: [record for record in caplog.records if record.levelno >= logging.ERROR])

    with trackers.capture_error_logs():
        asyncio.run(paste_answer())
    assert host.texts == []
    # The handlers get neither the update nor its error.
    assert not any(trackers.contains_secret(repr(received)) for received in host.updates_and_errors)
    assert [received for received in host.updates_and_errors if isinstance(received, BaseException)] == []
    assert trackers.transport.sent
    assert trackers.find_sent_leaks() == []
