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
from tests.browserless import approve
from tests.gateway_hooks.given import Person, RoomChat, Talk
from tests.gateway_hooks.test_attacks import place, seat
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.test_frames import Boom, boom
from tests.trackers import Trackers, caught

pytestmark = pytest.mark.slow

FAULTS = (
    "service.AuthService.complete_login",
    "service.logins.exchange_code",
    "oauth.token.read_token_response",
    "store.files.credential_files.tokens_document",
    "service.sessions.Session.adopt",
)


@pytest.fixture
def trackers(demo: Demo) -> Iterator[Trackers]:
    one = Trackers(demo.authorization_server.minted_secrets)
    with one.logging():
        yield one
    assert one.sent_leaks() == []


def answer_of(talk: Talk, trackers: Trackers) -> str:
    login = talk.login
    answer = approve(login.authorization_url)
    trackers.more |= {login.request.state.reveal(), parse_qs(urlsplit(answer).query)["code"][0]}
    return answer


def check_logged(caplog: pytest.LogCaptureFixture, trackers: Trackers, kind: str) -> None:
    """Check that the error is logged and sent to the tracker without secrets."""
    told = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert told
    assert all(kind in each.getMessage() for each in told)
    assert not trackers.found_in(caplog.text)
    assert any(kind in each for each in trackers.transport.sent)


@covers("tracebacks-masked")
@pytest.mark.parametrize("where", FAULTS)
def test_a_fault_at_a_paste(
    talk: Talk,
    ada: Person,
    trackers: Trackers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    ada.says("/connect notes")
    answer = answer_of(talk, trackers)
    held = boom(monkeypatch, trackers, where)
    assert ada.pastes(answer)
    assert answer in [message.text for message in ada.room.deleted]
    check_logged(caplog, trackers, "Boom in tests.service.test_frames.fail")
    assert [each for each in held if each.startswith("gateway_hooks.")] == []


@covers("tracebacks-masked")
@pytest.mark.parametrize("call", ["send", "delete"])
def test_a_chat_library_that_raises_what_it_must_not(
    talk: Talk,
    ada: Person,
    trackers: Trackers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
) -> None:
    ada.says("/connect notes")
    answer = answer_of(talk, trackers).replace("state=", "state=x")
    held: list[str] = []

    async def fail(_self: RoomChat, _given: object) -> None:
        held.extend(trackers.live_leaks())
        raise Boom("an error of a library")

    monkeypatch.setattr(RoomChat, call, fail)
    assert ada.pastes(answer)
    check_logged(caplog, trackers, "Boom in tests.gateway_hooks.test_frames.fail")
    assert held == []


@covers("tracebacks-masked")
def test_a_policy_that_raises(
    talk: Talk,
    ada: Person,
    trackers: Trackers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ada.says("/connect notes")
    answer = answer_of(talk, trackers)
    for name in ("may_change", "may_talk"):
        with monkeypatch.context() as patch:
            patch.setattr(AllowList, name, lambda *_: 1 / 0)
            assert ada.pastes(answer)
    check_logged(caplog, trackers, "ZeroDivisionError")


@covers("tracebacks-masked")
def test_what_keeps_messages_up_to_date_raises_without_variables(
    talk: Talk, ada: Person, trackers: Trackers, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada.says("/connect notes")
    answer_of(talk, trackers)
    boom(monkeypatch, trackers, "store.codec.decode_document")

    def fail(*_given: object) -> None:
        kept = [each.request.state.reveal() for each in talk.waiting()]
        raise Boom(len(kept))

    monkeypatch.setattr("gateway_hooks.runtime.message_sync.PromptMessages._schedule_updates", fail)
    talk.desk.prompt_messages.wake()
    error = caught(talk.desk.run())
    assert isinstance(error, ExceptionGroup)
    assert trackers.leaks(error) == []


class Adapter:
    """The part of an adapter of Hermes that plain text needs."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def send(self, *given: Any, **named: Any) -> Any:
        self.sent.append(str([given, named]))
        return SimpleNamespace(success=True, message_id=str(len(self.sent)))

    async def delete_message(self, *_given: Any) -> bool:
        return True


@covers("tracebacks-masked")
@pytest.mark.parametrize("where", ["login_actions", "parse_intent"])
def test_a_fault_at_a_paste_in_plain_text_inside_hermes(
    trackers: Trackers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    code = "a-code-that-somebody-pastes"
    trackers.more.add(code)

    async def main(text: list[str]) -> None:
        signal = seat(tmp_path, "signal", listens=True)
        signal.adapter_ref.platform_adapter.send = Adapter().send
        said = signal.handle_event(SimpleNamespace(source=place("D0123"), text=text.pop(), message_id="1"))
        assert said is not None
        await asyncio.gather(*signal._tasks, return_exceptions=True)

    def fail(*_given: Any, **_named: Any) -> Any:
        raise Boom("an unexpected error")

    if where == "login_actions":
        monkeypatch.setattr("gateway_hooks.runtime.login_actions.LoginActions.reject_unmatched_answer", fail)
    else:
        monkeypatch.setattr("gateway_hooks.hermes.adapter.parse_intent", fail)
    asyncio.run(main([f"http://127.0.0.1:51234/callback?code={code}&state=some-state"]))
    check_logged(caplog, trackers, "Boom")
