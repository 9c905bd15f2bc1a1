"""The prompt of a login stays up to date: over time, after restarts and when the platform fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.platform import ChatError
from gateway_hooks.runtime.message_sync import RETRY_SECONDS
from hermes_mcp_auth_remote.errors import StoreUnwritable
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Origin
from tests.browserless import approve
from tests.demo.player import MovedClock
from tests.gateway_hooks.conftest import Begin
from tests.gateway_hooks.given import PLATFORM, Person, Talk, until
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow


@pytest.fixture
def other(tmp_path: Path, clock: MovedClock) -> AuthService:
    """Return the service of another process over the same home."""
    return AuthService(tmp_path, clock=clock)


async def look_by_itself(talk: Talk) -> None:
    """Sync once as the bot does when only the time has changed. Finish the updates."""
    board = talk.desk.prompt_messages
    await board.sync()
    await asyncio.gather(*board._update_tasks.values())
    await rested(talk)


async def rested(talk: Talk) -> None:
    """Sync until the file system's time is later than the last change."""
    board = talk.desk.prompt_messages
    while board._synced_changed_at == -1:
        await board.sync()
        await asyncio.gather(*board._update_tasks.values())
        await asyncio.sleep(0.02)


@covers("chat-countdown")
def test_over_ten_minutes_a_prompt_is_edited_at_four_moments(
    ada: Person, talk: Talk, clock: MovedClock
) -> None:
    ada.says("/connect notes")
    begun, edited = clock.now, list[float]()
    for second in range(1, 611):
        clock.now = begun + second
        before = ada.room.calls.count("edit")
        talk.run(talk.desk.prompt_messages.sync())
        if talk.desk.prompt_messages._update_tasks:
            talk.settle()
        edited += [second] * (ada.room.calls.count("edit") - before)
    assert edited == [300, 480, 540, 600]
    assert ada.sees() == ["notes: not connected"]


def test_where_nothing_has_changed_nothing_is_read(
    ada: Person, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada.says("/connect notes")
    talk.run(rested(talk))
    monkeypatch.setattr(talk.service, "logins", None)
    talk.run(talk.desk.prompt_messages.sync())


@covers("chat-survives")
def test_after_a_restart_the_prompt_is_kept_up_and_the_answer_counts(begin: Begin) -> None:
    first = begin()
    ada = first.person("ada")
    ada.says("/connect notes")
    ada.presses("QR code")
    login = first.login
    second = begin(place=first.place)
    second.settle()
    again = second.person("ada")
    again.pastes(approve(login.authorization_url))
    assert again.sees() == ["notes: connected"]
    assert len(again.room.messages) == 2
    assert [each.key.server_name for each, _ in second.connected] == ["notes"]


@covers("chat-survives")
def test_what_ended_while_no_bot_ran_is_said_after_the_start(
    begin: Begin, other: AuthService, clock: MovedClock
) -> None:
    talk = begin()
    ada = talk.person("ada")
    ada.says("/connect notes")
    clock.now += 3000
    begin(place=talk.place).settle()
    assert ada.sees() == ["notes: not connected"]
    assert "not finished in time" in ada.reads()


@covers("chat-survives")
@pytest.mark.parametrize("how", ["finished", "cancelled", "failed"])
def test_what_another_process_does_is_shown(ada: Person, talk: Talk, other: AuthService, how: str) -> None:
    ada.says("/connect notes")
    ada.presses("QR code")
    login = talk.login
    if how == "finished":
        answer = approve(login.authorization_url)
        talk.run(other.complete_login(login.id, answer, Origin("terminal")))
    elif how == "cancelled":
        talk.run(other.cancel(login.id))
    else:
        denied = f"{login.request.redirect_uri}?error=access_denied&state={login.request.state.reveal()}"
        issuer = f"{denied}&iss={login.request.issuer}"
        with pytest.raises(Exception, match="denied"):
            talk.run(other.complete_login(login.id, issuer, Origin("terminal")))
    talk.until(lambda: ada.sees() != ["Connect notes", "Scan this to connect notes"] and len(ada.sees()) == 1)
    assert ada.sees() == ["notes: connected" if how == "finished" else "notes: not connected"]


@covers("chat-tidy")
def test_once_it_is_over_only_the_prompt_stays_whatever_was_shown_beside_it(ada: Person, talk: Talk) -> None:
    ada.says("/connect notes")
    ada.presses("QR code")
    ada.presses("QR code")
    for _ in range(2):
        ada.pastes("http://127.0.0.1:1/callback?code=of-another-login-it-is&state=no-such")
    assert len(ada.sees()) == 5
    ada.pastes(approve(talk.login.authorization_url))
    assert ada.sees() == ["notes: connected"]
    assert talk.service.logins()[-1].message_ids == ()


@covers("chat-tidy")
def test_a_picture_that_comes_after_the_end_goes_at_once(ada: Person, talk: Talk) -> None:
    ada.says("/connect notes")
    login = talk.login

    async def late() -> None:
        ada.room.held = asyncio.Event()
        pressed = replace(ada._spoken(""), callback_data=ada.button("QR code")[1].action, message_id="")
        drawing = asyncio.create_task(talk.desk.handle(pressed, ada.chat))
        await talk.service.cancel(login.id)
        while not talk.desk.prompt_messages._update_tasks:
            await talk.desk.prompt_messages.sync()
            await asyncio.sleep(0)
        ada.room.held.set()
        await drawing
        await talk.settled()

    talk.run(late())
    assert ada.sees() == ["notes: not connected"]


@covers("chat-survives")
def test_a_prompt_that_the_person_deleted_comes_back_at_the_next_change(
    ada: Person, talk: Talk, clock: MovedClock
) -> None:
    ada.says("/connect notes")
    del ada.room.messages[talk.login.message_ids[0]]
    clock.now += 300
    talk.settle()
    assert ada.sees() == ["Connect notes"]
    del ada.room.messages[talk.login.message_ids[0]]
    ada.pastes(approve(talk.login.authorization_url))
    assert ada.sees() == ["notes: connected"]


@covers("chat-survives")
def test_an_end_that_could_not_be_shown_is_shown_later(
    ada: Person, talk: Talk, clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    ada.says("/connect notes")
    ada.room.failing_edits = 2
    ada.pastes(approve(talk.login.authorization_url))
    for failed in (1, 2):
        assert ada.sees() == ["Connect notes"]
        assert caplog.text.count("The platform is out of reach.") == failed
        talk.run(rested(talk))
        clock.now += RETRY_SECONDS
        talk.run(look_by_itself(talk))
    assert ada.sees() == ["notes: connected"]
    assert len(talk.connected) == 1


def test_a_library_that_breaks_is_put_off_and_its_words_reach_no_log(
    ada: Person,
    talk: Talk,
    clock: MovedClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: object) -> None:
        raise KeyError("a-token-in-an-address")

    ada.says("/connect notes")
    with monkeypatch.context() as patched:
        patched.setattr(type(ada.chat), "edit", broken)
        clock.now += 300
        talk.settle()
        talk.settle()
        assert caplog.text.count("could not be brought up to date: KeyError") == 1
        assert "a-token-in-an-address" not in caplog.text
    clock.now += RETRY_SECONDS
    talk.settle()
    assert "(5 minutes)" in ada.reads()


@covers("chat-survives")
def test_one_slow_chat_holds_up_no_other(begin: Begin, demo: Demo, clock: MovedClock) -> None:
    talk = begin()
    people = [talk.person(f"user-{number}") for number in range(100)]

    async def begun(number: int, person: Person) -> None:
        origin = Origin(PLATFORM, chat_id=person.room.name, user_id=person.user, bot_id=talk.place.bot_id)
        login = replace(template, id=f"{number:022d}", origin=origin)
        talk.service._deps.store.logins.add(login)
        await talk.desk.prompt_messages.show(login, person.chat)

    async def story() -> None:
        await asyncio.gather(*(begun(*each) for each in enumerate(people)))
        slow = people[0].room
        slow.held = asyncio.Event()
        clock.now += 300
        running = asyncio.create_task(talk.desk.prompt_messages.run())
        await until(lambda: all("(5 minutes)" in person.reads() for person in people[1:]))
        assert "(10 minutes)" in people[0].reads()
        slow.held.set()
        await until(lambda: "(5 minutes)" in people[0].reads())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    template = talk.run(
        talk.service.start_login(talk.desk._context.servers.find("notes"), Origin("terminal"))
    )
    talk.run(story())
    assert [person.room.calls.count("edit") for person in people] == [1] * 100


@covers("begun-elsewhere")
def test_a_login_begun_for_a_user_by_a_command_elsewhere_is_shown_and_finished(
    ada: Person, talk: Talk, other: AuthService
) -> None:
    server = talk.desk._context.servers.find("notes")
    login = talk.run(other.start_login(server, Origin(PLATFORM, user_id="ada")))
    talk.until(lambda: ada.sees() == ["Connect notes"])
    assert ada.pastes(approve(login.authorization_url))
    assert ada.sees() == ["notes: connected"]
    assert talk.run(other.wait_for_login(login.id)).status == "done"


@covers("begun-elsewhere", "chat-listed")
def test_a_login_begun_for_somebody_who_is_not_listed_is_cancelled_and_not_shown(
    talk: Talk, other: AuthService, caplog: pytest.LogCaptureFixture
) -> None:
    server = talk.desk._context.servers.find("notes")
    login = talk.run(other.start_login(server, Origin(PLATFORM, user_id="eve")))
    talk.settle()
    assert talk.person("eve").sees() == []
    assert other.login(login.id).status == "cancelled"
    assert "not on the list" in caplog.text


def test_a_login_for_a_user_whom_the_bot_may_not_write_to_is_cancelled(
    talk: Talk, other: AuthService, ada: Person
) -> None:
    ada.room.cannot_write = True
    server = talk.desk._context.servers.find("notes")
    login = talk.run(other.start_login(server, Origin(PLATFORM, user_id="ada")))
    talk.settle()
    assert other.login(login.id).status == "cancelled"


@pytest.mark.parametrize(
    "origin",
    [
        Origin("elsewhere", user_id="ada"),
        Origin(PLATFORM, chat_id="private-ada", user_id="ada", bot_id="901"),
    ],
    ids=["platform", "bot"],
)
def test_logins_of_other_places_are_left_alone(
    talk: Talk, other: AuthService, ada: Person, origin: Origin
) -> None:
    server = talk.desk._context.servers.find("notes")
    login = talk.run(other.start_login(server, origin))
    talk.settle()
    assert ada.sees() == []
    assert other.login(login.id).status == "waiting"
    # The bot does not edit a message that has the same id in this room.
    ada.room.put("bot", card=Card("Something else"))
    talk.run(other.save_messages(login.id, ("1",)))
    talk.run(other.cancel(login.id))
    talk.settle()
    assert ada.sees() == ["Something else"]


@covers("chat-survives")
def test_logins_that_cannot_be_read_stop_the_board_for_no_longer_than_that(
    ada: Person, talk: Talk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unreadable() -> None:
        raise StoreUnwritable("The disk is gone.")

    ada.says("/connect notes")
    with monkeypatch.context() as patched:
        patched.setattr(talk.service, "logins", unreadable)
        talk.desk.prompt_messages.wake()
        talk.until(lambda: "The disk is gone." in caplog.text)
    talk.run(talk.service.cancel(talk.login.id))
    talk.until(lambda: ada.sees() == ["notes: not connected"])


@covers("chat-ours")
def test_while_logins_cannot_be_read_no_code_goes_on_to_others(
    ada: Person, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable() -> None:
        raise StoreUnwritable("The disk is gone.")

    ada.says("/connect notes")
    answer = approve(talk.login.authorization_url)
    with monkeypatch.context() as patched:
        patched.setattr(talk.service, "logins", unreadable)
        assert talk.run(talk.desk.handle(ada._spoken(answer), ada.chat))
        assert not talk.run(talk.desk.handle(ada._spoken("hello"), ada.chat))
    assert answer not in ada.reads()
    assert "The disk is gone." in ada.reads()


def test_a_chat_that_cannot_be_reached_is_said_in_the_log_alone(
    ada: Person, talk: Talk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: object) -> str:
        raise ChatError("Out of reach.")

    monkeypatch.setattr(type(ada.chat), "send", failing)
    assert ada.says("/connect notes")
    assert "A message could not be answered: Out of reach." in caplog.text
    assert talk.waiting() == []
