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
from hermes_mcp_auth_remote.values import Origin, Server
from tests.browserless import approve
from tests.demo.player import MovedClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.test_asking import Chat

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
def test_a_login_is_finished_where_it_was_begun_by_whoever_began_it(
    service: AuthService, server: Server, elsewhere: Origin
) -> None:
    login = asyncio.run(service.start_login(server, BOT))
    answer = approve(login.authorization_url)
    with pytest.raises(PasteRefused, match="started somewhere else"):
        asyncio.run(service.complete_login(login.id, answer, elsewhere))
    asyncio.run(service.complete_login(login.id, answer, BOT))


@covers("begun-elsewhere")
def test_a_login_begun_for_a_user_elsewhere_is_finished_in_whatever_chat_the_user_has(
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


def test_the_messages_that_show_a_login_are_known_to_every_process(
    service: AuthService, server: Server, tmp_path: Path, clock: MovedClock
) -> None:
    login = asyncio.run(service.start_login(server, BOT))
    asyncio.run(service.save_messages(login.id, ("7", "8")))
    assert AuthService(tmp_path, clock=clock).login(login.id).message_ids == ("7", "8")


def test_a_new_prompt_comes_before_the_messages_that_are_there_and_stands_once(
    service: AuthService, server: Server
) -> None:
    login = asyncio.run(service.start_login(server, BOT))
    for message, after in (("7", ("7",)), ("8", ("8", "7")), ("7", ("7", "8"))):
        assert asyncio.run(service.save_prompt_message(login.id, message)).message_ids == after
        assert service.login(login.id).message_ids == after


def test_logins_are_read_again_only_where_they_have_changed(
    service: AuthService, server: Server, clock: MovedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = asyncio.run(service.start_login(server, BOT))
    before = service.logins_changed_at_ns()
    clock.now += 1
    second = asyncio.run(service.start_login(server, BOT))
    assert service.logins_changed_at_ns() > before
    assert [each.id for each in service.logins()] == [first.id, second.id]
    read: list[str] = []
    get = LoginFiles.get

    def counted(files: LoginFiles, login_id: str) -> object:
        read.append(login_id)
        return get(files, login_id)

    monkeypatch.setattr(LoginFiles, "get", counted)
    assert len(service.logins()) == 2
    assert read == []
    asyncio.run(AuthService(tmp_path, clock=clock).cancel(second.id))
    read.clear()
    assert [each.status for each in service.logins()] == ["waiting", "cancelled"]
    assert read == [second.id]


def test_many_who_begin_at_once_look_through_what_is_over_only_once(
    service: AuthService, server: Server, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    purged: list[float] = []
    purge = LoginFiles.remove_expired

    def counted(files: LoginFiles, now: float) -> None:
        purged.append(now)
        purge(files, now)

    monkeypatch.setattr(LoginFiles, "remove_expired", counted)
    began = clock.now
    for _ in range(3):
        asyncio.run(service.start_login(server, BOT))
    assert purged == [began]
    clock.now += PURGE_INTERVAL_SECONDS
    asyncio.run(service.start_login(server, BOT))
    # A clock that was set back does not delay the next purge.
    clock.now -= 10 * PURGE_INTERVAL_SECONDS
    asyncio.run(service.start_login(server, BOT))
    assert purged == [began, began + PURGE_INTERVAL_SECONDS, began - 9 * PURGE_INTERVAL_SECONDS]


def test_a_login_whose_time_is_over_is_listed_as_expired_and_written_down_as_such(
    service: AuthService, server: Server, tmp_path: Path, clock: MovedClock
) -> None:
    login = asyncio.run(service.start_login(server, BOT))
    clock.now = login.expires_at
    assert [each.status for each in service.logins()] == ["expired"]
    assert LoginFiles(tmp_path / "mcp-tokens").get(login.id).status == "expired"


def test_a_prompter_that_can_show_a_code_is_asked_with_one(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(with_device=True)

    async def story() -> None:
        chat = Chat(service, None)
        with prompting(chat, BOT, can_connect_shared=True, flow="auto"):
            call = asyncio.create_task(service.session(server).header())
            await asyncio.wait_for(chat.was_shown.wait(), 20)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        (login,) = chat.shown
        assert login.device_authorization is not None
        await service.cancel(login.id)
        await asyncio.wait_for(chat.was_told.wait(), 20)

    asyncio.run(story())
