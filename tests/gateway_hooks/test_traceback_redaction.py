"""A bug during a paste reaches no chat library, and no error tracker gets the pasted code."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway_hooks.dialog.policy import AllowList
from tests.consent_form import approve
from tests.error_trackers import ErrorTrackers, catch_error
from tests.gateway_hooks.fake_platform import ChatBot, ChatUser, RoomChat
from tests.gateway_hooks.test_attacks import make_adapter, make_source
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.test_traceback_redaction import InjectedError, inject_error

pytestmark = pytest.mark.slow

FAULTS = (
    "service.AuthService.complete_login",
    "service.logins.exchange_code",
    "oauth.token.read_token_response",
    "store.files.credential_files.tokens_document",
    "service.sessions.Session.adopt",
)


@pytest.fixture
def trackers(demo: Demo) -> Iterator[ErrorTrackers]:
    error_trackers = ErrorTrackers(demo.authorization_server.minted_secrets)
    with error_trackers.capture_error_logs():
        yield error_trackers
    assert error_trackers.find_sent_leaks() == []


def approve_and_track(bot: ChatBot, trackers: ErrorTrackers) -> str:
    login = bot.login
    answer = approve(login.authorization_url)
    trackers.extra_secrets |= {login.request.state.reveal(), parse_qs(urlsplit(answer).query)["code"][0]}
    return answer


def check_logged(caplog: pytest.LogCaptureFixture, trackers: ErrorTrackers, kind: str) -> None:
    """Check that the error is logged and sent to the tracker without secrets."""
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors
    assert all(kind in record.getMessage() for record in errors)
    assert not trackers.contains_secret(caplog.text)
    assert any(kind in report for report in trackers.transport.sent)


@covers("tracebacks-masked")
@pytest.mark.parametrize("fault", FAULTS)
def test_bug_during_paste_is_logged_without_code(
    bot: ChatBot,
    ada: ChatUser,
    trackers: ErrorTrackers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    ada.send_text("/connect notes")
    answer = approve_and_track(bot, trackers)
    leaking_frames = inject_error(monkeypatch, trackers, fault)
    assert ada.paste(answer)
    assert answer in [message.text for message in ada.room.deleted]
    check_logged(caplog, trackers, "InjectedError in tests.service.test_traceback_redaction.fail")
    assert [frame for frame in leaking_frames if frame.startswith("gateway_hooks.")] == []


@covers("tracebacks-masked")
@pytest.mark.parametrize("call", ["send", "delete"])
def test_unexpected_library_error_is_logged_without_code(
    bot: ChatBot,
    ada: ChatUser,
    trackers: ErrorTrackers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
) -> None:
    ada.send_text("/connect notes")
    answer = approve_and_track(bot, trackers).replace("state=", "state=x")
    leaks: list[str] = []

    async def fail(_self: RoomChat, _given: object) -> None:
        leaks.extend(trackers.find_live_leaks())
        raise InjectedError("an error of a library")

    monkeypatch.setattr(RoomChat, call, fail)
    assert ada.paste(answer)
    check_logged(caplog, trackers, "InjectedError in tests.gateway_hooks.test_traceback_redaction.fail")
    assert leaks == []


@covers("tracebacks-masked")
def test_policy_error_is_logged_without_code(
    bot: ChatBot,
    ada: ChatUser,
    trackers: ErrorTrackers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ada.send_text("/connect notes")
    answer = approve_and_track(bot, trackers)
    for name in ("may_change", "may_talk"):
        with monkeypatch.context() as patch:
            patch.setattr(AllowList, name, lambda *_: 1 / 0)
            assert ada.paste(answer)
    check_logged(caplog, trackers, "ZeroDivisionError")


@covers("tracebacks-masked")
def test_message_sync_raises_without_frame_variables(
    bot: ChatBot, ada: ChatUser, trackers: ErrorTrackers, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada.send_text("/connect notes")
    approve_and_track(bot, trackers)
    inject_error(monkeypatch, trackers, "store.codec.decode_document")

    def fail(*_given: object) -> None:
        states = [login.request.state.reveal() for login in bot.waiting_logins()]
        raise InjectedError(len(states))

    monkeypatch.setattr("gateway_hooks.runtime.message_sync.PromptMessages._schedule_updates", fail)
    bot.dispatcher.prompt_messages.wake()
    error = catch_error(bot.dispatcher.run())
    assert isinstance(error, ExceptionGroup)
    assert trackers.find_leaks(error) == []


class FakeAdapter:
    """An adapter of Hermes with only the members that plain-text chats need."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def send(self, *args: Any, **options: Any) -> Any:
        self.sent.append(str([args, options]))
        return SimpleNamespace(success=True, message_id=str(len(self.sent)))

    async def delete_message(self, *_given: Any) -> bool:
        return True


@covers("tracebacks-masked")
@pytest.mark.parametrize("fault", ["login_actions", "parse_intent"])
def test_bug_during_plain_text_paste_in_hermes_is_logged_without_code(
    trackers: ErrorTrackers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    code = "a-code-that-somebody-pastes"
    trackers.extra_secrets.add(code)

    async def main(text: list[str]) -> None:
        signal = make_adapter(tmp_path, "signal", authorizes_users=True)
        signal.adapter_ref.platform_adapter.send = FakeAdapter().send
        action = signal.handle_event(
            SimpleNamespace(source=make_source("D0123"), text=text.pop(), message_id="1")
        )
        assert action is not None
        await asyncio.gather(*signal._tasks, return_exceptions=True)

    def fail(*_given: Any, **_named: Any) -> Any:
        raise InjectedError("an unexpected error")

    if fault == "login_actions":
        monkeypatch.setattr("gateway_hooks.runtime.login_actions.LoginActions.reject_unmatched_answer", fail)
    else:
        monkeypatch.setattr("gateway_hooks.hermes.adapter.parse_intent", fail)
    asyncio.run(main([f"http://127.0.0.1:51234/callback?code={code}&state=some-state"]))
    check_logged(caplog, trackers, "InjectedError")
