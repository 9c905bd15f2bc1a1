"""Which origin may complete a login, and what a gateway sees of the logins of other processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import PasteRefused
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.logins import PURGE_INTERVAL_SECONDS
from hermes_mcp_auth_remote.service.prompting import prompting
from hermes_mcp_auth_remote.store.files.login_files import LoginFiles
from hermes_mcp_auth_remote.store.protocol import UNKNOWN
from hermes_mcp_auth_remote.values import Origin, Server
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.test_prompting import RecordingPrompter

pytestmark = pytest.mark.slow

BOT = Origin("telegram", chat_id="42", user_id="42", bot_id="900")


@covers("sender-binding")
@pytest.mark.parametrize(
    "elsewhere",
    [
        Origin("discord", chat_id="42", user_id="42", bot_id="900"),
        Origin("telegram", chat_id="43", user_id="42", bot_id="900"),
        Origin("telegram", chat_id="42", user_id="43", bot_id="900"),
        Origin("telegram", chat_id="42", thread_id="1", user_id="42", bot_id="900"),
        Origin("telegram", chat_id="42", user_id="42", bot_id="901"),
    ],
    ids=["platform", "chat", "user", "thread", "bot"],
)
def test_a_login_is_completed_only_from_its_origin(
    service: AuthService, server: Server, elsewhere: Origin
) -> None:
    login = asyncio.run(service.start_login(server, BOT))
    answer = approve(login.authorization_url)
    with pytest.raises(PasteRefused, match="started somewhere else"):
        asyncio.run(service.complete_login(login.id, answer, elsewhere))
    asyncio.run(service.complete_login(login.id, answer, BOT))


@covers("begun-elsewhere")
def test_a_login_without_a_chat_is_completed_in_any_chat_of_its_user(
    service: AuthService, server: Server
) -> None:
    login = asyncio.run(service.start_login(server, Origin("telegram", user_id="42")))
    answer = approve(login.authorization_url)
    with pytest.raises(PasteRefused, match="started somewhere else"):
        asyncio.run(
            service.complete_login(
                login.id, answer, Origin("telegram", chat_id="42", user_id="43", bot_id="900")
            )
        )
    asyncio.run(service.complete_login(login.id, answer, BOT))


def test_every_process_sees_the_messages_that_show_a_login(
    service: AuthService, server: Server, tmp_path: Path, clock: ManualClock
) -> None:
    login = asyncio.run(service.start_login(server, BOT))
    asyncio.run(service.save_messages(login.id, ("7", "8")))
    assert AuthService(tmp_path, clock=clock).blocking.login(login.id).message_ids == ("7", "8")


def test_a_new_prompt_message_is_first_and_listed_once(service: AuthService, server: Server) -> None:
    login = asyncio.run(service.start_login(server, BOT))
    for message, after in (("7", ("7",)), ("8", ("8", "7")), ("7", ("7", "8"))):
        assert asyncio.run(service.save_prompt_message(login.id, message)).message_ids == after
        assert service.blocking.login(login.id).message_ids == after


def test_only_changed_logins_are_read_again(
    service: AuthService, server: Server, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = asyncio.run(service.start_login(server, BOT))
    before = service.glance_logins()
    clock.now += 1
    second = asyncio.run(service.start_login(server, BOT))
    after = service.glance_logins()
    assert after is UNKNOWN or after != before
    assert [listed_login.id for listed_login in service.blocking.logins()] == [first.id, second.id]
    read_ids: list[str] = []
    get = LoginFiles.get

    def record_read(files: LoginFiles, login_id: str) -> object:
        read_ids.append(login_id)
        return get(files, login_id)

    monkeypatch.setattr(LoginFiles, "get", record_read)
    assert len(service.blocking.logins()) == 2
    assert read_ids == []
    asyncio.run(AuthService(tmp_path, clock=clock).cancel(second.id))
    read_ids.clear()
    assert [login.status for login in service.blocking.logins()] == ["waiting", "cancelled"]
    assert read_ids == [second.id]


def test_logins_that_start_together_purge_expired_logins_once(
    service: AuthService, server: Server, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    purge_times: list[float] = []
    purge = LoginFiles.remove_expired

    def record_purge(files: LoginFiles, now: float) -> None:
        purge_times.append(now)
        purge(files, now)

    monkeypatch.setattr(LoginFiles, "remove_expired", record_purge)
    started_at = clock.now
    for _ in range(3):
        asyncio.run(service.start_login(server, BOT))
    assert purge_times == [started_at]
    clock.now += PURGE_INTERVAL_SECONDS
    asyncio.run(service.start_login(server, BOT))
    # A clock that was set back does not delay the next purge.
    clock.now -= 10 * PURGE_INTERVAL_SECONDS
    asyncio.run(service.start_login(server, BOT))
    assert purge_times == [
        started_at,
        started_at + PURGE_INTERVAL_SECONDS,
        started_at - 9 * PURGE_INTERVAL_SECONDS,
    ]


def test_a_login_past_its_end_is_listed_and_stored_as_expired(
    service: AuthService, server: Server, tmp_path: Path, clock: ManualClock
) -> None:
    login = asyncio.run(service.start_login(server, BOT))
    clock.now = login.expires_at
    assert [listed_login.status for listed_login in service.blocking.logins()] == ["expired"]
    assert LoginFiles(tmp_path / "mcp-tokens").get(login.id).status == "expired"


def test_a_prompter_that_can_show_a_code_gets_a_device_login(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(with_device=True)

    async def story() -> None:
        chat = RecordingPrompter(service, None)
        with prompting(chat, BOT, can_connect_shared=True, flow="auto"):
            call = asyncio.create_task(service.session(server).header())
            await asyncio.wait_for(chat.shown_event.wait(), 20)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        (login,) = chat.shown
        assert login.device_authorization is not None
        await service.cancel(login.id)
        await asyncio.wait_for(chat.outcome_event.wait(), 20)

    asyncio.run(story())
