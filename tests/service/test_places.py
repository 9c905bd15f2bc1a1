"""Where a login may be finished, and what a gateway that shows logins of others sees of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.demo.servers import Demo
from hermes_mcp_auth_remote.errors import PasteRefused
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.logins import PURGE_SECONDS
from hermes_mcp_auth_remote.service.prompting import asking
from hermes_mcp_auth_remote.store.files.login_files import LoginFiles
from hermes_mcp_auth_remote.values import Origin, Server
from tests.browserless import approve
from tests.demo.player import MovedClock
from tests.requirements import covers
from tests.service.test_asking import Chat

pytestmark = pytest.mark.slow

BOT = Origin("telegram", chat="42", user="42", bot="900")


@covers("sender-binding")
@pytest.mark.parametrize(
    "elsewhere",
    [
        Origin("discord", chat="42", user="42", bot="900"),
        Origin("telegram", chat="43", user="42", bot="900"),
        Origin("telegram", chat="42", user="43", bot="900"),
        Origin("telegram", chat="42", thread="1", user="42", bot="900"),
        Origin("telegram", chat="42", user="42", bot="901"),
    ],
    ids=["platform", "chat", "user", "thread", "bot"],
)
def test_a_login_is_finished_where_it_was_begun_by_whoever_began_it(
    service: AuthService, server: Server, elsewhere: Origin
) -> None:
    login = asyncio.run(service.begin(server, BOT))
    answer = approve(login.authorization_url)
    with pytest.raises(PasteRefused, match="begun somewhere else"):
        asyncio.run(service.finish(login.id, answer, elsewhere))
    asyncio.run(service.finish(login.id, answer, BOT))


@covers("begun-elsewhere")
def test_a_login_begun_for_a_user_elsewhere_is_finished_in_whatever_chat_the_user_has(
    service: AuthService, server: Server
) -> None:
    login = asyncio.run(service.begin(server, Origin("telegram", user="42")))
    answer = approve(login.authorization_url)
    with pytest.raises(PasteRefused, match="begun somewhere else"):
        asyncio.run(service.finish(login.id, answer, Origin("telegram", chat="42", user="43", bot="900")))
    asyncio.run(service.finish(login.id, answer, BOT))


def test_the_messages_that_show_a_login_are_known_to_every_process(
    service: AuthService, server: Server, tmp_path: Path, clock: MovedClock
) -> None:
    login = asyncio.run(service.begin(server, BOT))
    asyncio.run(service.note_messages(login.id, ("7", "8")))
    assert AuthService(tmp_path, clock=clock).login(login.id).messages == ("7", "8")


def test_a_new_prompt_comes_before_the_messages_that_are_there_and_stands_once(
    service: AuthService, server: Server
) -> None:
    login = asyncio.run(service.begin(server, BOT))
    for message, after in (("7", ("7",)), ("8", ("8", "7")), ("7", ("7", "8"))):
        assert asyncio.run(service.note_prompt(login.id, message)).messages == after
        assert service.login(login.id).messages == after


def test_logins_are_read_again_only_where_they_have_changed(
    service: AuthService, server: Server, clock: MovedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = asyncio.run(service.begin(server, BOT))
    before = service.logins_changed_at()
    clock.now += 1
    second = asyncio.run(service.begin(server, BOT))
    assert service.logins_changed_at() > before
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
    purge = LoginFiles.purge

    def counted(files: LoginFiles, now: float) -> None:
        purged.append(now)
        purge(files, now)

    monkeypatch.setattr(LoginFiles, "purge", counted)
    began = clock.now
    for _ in range(3):
        asyncio.run(service.begin(server, BOT))
    assert purged == [began]
    clock.now += PURGE_SECONDS
    asyncio.run(service.begin(server, BOT))
    # A clock that was set back does not put it off.
    clock.now -= 10 * PURGE_SECONDS
    asyncio.run(service.begin(server, BOT))
    assert purged == [began, began + PURGE_SECONDS, began - 9 * PURGE_SECONDS]


def test_a_login_whose_time_is_over_is_listed_as_expired_and_written_down_as_such(
    service: AuthService, server: Server, tmp_path: Path, clock: MovedClock
) -> None:
    login = asyncio.run(service.begin(server, BOT))
    clock.now = login.expires_at
    assert [each.status for each in service.logins()] == ["expired"]
    assert LoginFiles(tmp_path / "mcp-tokens").get(login.id).status == "expired"


def test_a_prompter_that_can_show_a_code_is_asked_with_one(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.server.change(with_device=True)

    async def story() -> None:
        chat = Chat(service, None)
        with asking(chat, BOT, may_connect_shared=True, flow="auto"):
            call = asyncio.create_task(service.session(server).header())
            await asyncio.wait_for(chat.was_shown.wait(), 20)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        (login,) = chat.shown
        assert login.shown_code is not None
        await service.cancel(login.id)
        await asyncio.wait_for(chat.was_told.wait(), 20)

    asyncio.run(story())
