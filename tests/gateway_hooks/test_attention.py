"""Reminders: one message with one button for the user of a session that ends or has ended."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from gateway_hooks.dialog.platform import ChatError
from gateway_hooks.dialog.policy import AllowList
from gateway_hooks.dialog.servers import StaticServers
from gateway_hooks.runtime.reminders import ExpiryReminders
from hermes_mcp_auth_remote.errors import StoreCorrupt
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey, Origin, Owner, Server, ServerOptions
from tests.browserless import approve
from tests.demo.player import MovedClock
from tests.gateway_hooks.conftest import Begin
from tests.gateway_hooks.given import Place, RoomChat, Talk
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.given import log_in

pytestmark = pytest.mark.slow

NEEDED = "notes: a login is needed"
SOON = "notes: log in again soon"
CONNECTED = "notes: connected"
REASON = "the provider has ended the session"

ONE = AllowList(users=frozenset({"ada"}))
DAY = 86_400.0


@pytest.fixture
def connected(tmp_path: Path, demo: Demo, clock: MovedClock) -> AuthService:
    """Return the service of another process that has a shared session."""
    service = AuthService(tmp_path, clock=clock)
    asyncio.run(log_in(service, Server("notes", demo.ping_url)))
    return service


def ended(home: Path, owner: Owner = None) -> None:
    """Mark the session as ended, as a cron job does that finds it rejected."""
    store, key = FileStore(home), CredentialKey("notes", owner)
    stored = store.read(key)
    assert stored.binding is not None
    store.save_login(key, replace(stored, binding=replace(stored.binding, login_needed=REASON)))


def lasting(home: Path, *, until: float, since: float, renews_until: float | None = None) -> None:
    """Set the expiry of the access token. With `refresh_until` the session can refresh until then."""
    store, key = FileStore(home), CredentialKey("notes")
    stored = store.read(key)
    assert stored.tokens is not None
    tokens = replace(stored.tokens, expires_at=until, obtained_at=since, refresh_expires_at=renews_until)
    if renews_until is None:
        tokens = replace(tokens, refresh_token=None)
    assert stored.binding is not None
    binding = replace(stored.binding, refresh_expires_at=renews_until)
    store.save_login(key, replace(stored, tokens=tokens, binding=binding))


def look(talk: Talk, times: int = 1) -> None:
    for _ in range(times):
        talk.run(talk.desk._reminders.check_sessions())


def told(talk: Talk, user: str = "ada") -> list[str]:
    return talk.person(user).sees()


@covers("attention")
def test_a_session_that_died_at_night_makes_one_message_with_one_button_over_restarts(
    begin: Begin, connected: AuthService, tmp_path: Path
) -> None:
    talk = begin(policy=ONE)
    look(talk)
    assert told(talk) == []
    ended(tmp_path)
    look(talk, 20)
    assert told(talk) == [NEEDED]
    for _ in range(2):
        talk = begin(policy=ONE, place=talk.place)
        look(talk, 5)
    ada = talk.person("ada")
    assert ada.sees() == [NEEDED]
    assert [button.label for row in ada.last.buttons for button in row] == ["Log in again"]
    assert ada.last.paragraphs == (f"The session is over: {REASON}",)
    assert ada.room.calls == ["send"]


@covers("attention")
def test_its_button_begins_the_login_in_that_very_message_and_the_next_end_is_told_anew(
    begin: Begin, connected: AuthService, tmp_path: Path
) -> None:
    talk = begin(policy=ONE)
    ended(tmp_path)
    look(talk)
    ada = talk.person("ada")
    ada.presses("Log in again")
    assert ada.sees() == ["Connect notes"]
    look(talk, 3)
    ada.pastes(approve(talk.login.authorization_url))
    assert ada.sees() == [CONNECTED]
    look(talk, 3)
    assert ada.sees() == [CONNECTED]
    assert connected.notices.list_all() == []
    ended(tmp_path)
    look(talk, 3)
    assert ada.sees() == [CONNECTED, NEEDED]


def test_a_login_elsewhere_turns_the_message(
    begin: Begin, connected: AuthService, tmp_path: Path, demo: Demo
) -> None:
    talk = begin(policy=ONE)
    ended(tmp_path)
    look(talk)
    talk.run(log_in(connected, Server("notes", demo.ping_url)))
    look(talk, 3)
    assert told(talk) == [CONNECTED]
    assert talk.person("ada").room.calls == ["send", "edit"]


def test_over_anew_between_two_looks_is_another_trouble(
    begin: Begin, connected: AuthService, tmp_path: Path, demo: Demo, clock: MovedClock
) -> None:
    talk = begin(policy=ONE)
    ended(tmp_path)
    look(talk)
    clock.now += 60
    talk.run(log_in(connected, Server("notes", demo.ping_url)))
    ended(tmp_path)
    look(talk, 3)
    assert told(talk) == [NEEDED, NEEDED]


@covers("attention")
def test_a_session_with_a_known_end_is_told_three_days_ahead_once_however_often_it_refreshes(
    begin: Begin, connected: AuthService, tmp_path: Path, clock: MovedClock
) -> None:
    talk, now = begin(policy=ONE), clock.now
    lasting(tmp_path, until=now + 60, since=now, renews_until=now + 3.1 * DAY)
    look(talk)
    assert told(talk) == []
    for hours in range(4):
        ends = now + 2.9 * DAY - hours
        lasting(tmp_path, until=now + 3600 * hours, since=now, renews_until=ends)
        look(talk)
    assert told(talk) == [SOON]
    assert "cannot renew itself beyond that" in talk.person("ada").last.paragraphs[0]
    # The session ends: the bot edits the first message and sends no second one.
    ended(tmp_path)
    look(talk, 3)
    assert told(talk) == [NEEDED]
    assert talk.person("ada").room.calls == ["send", "edit"]


@covers("attention")
def test_a_token_that_cannot_renew_itself_is_told_an_hour_ahead(
    begin: Begin, connected: AuthService, tmp_path: Path, clock: MovedClock
) -> None:
    talk, now = begin(policy=ONE), clock.now
    lasting(tmp_path, until=now + 3660, since=now - 8 * 3600)
    look(talk)
    assert told(talk) == []
    clock.now += 120
    look(talk, 3)
    assert told(talk) == [SOON]
    clock.now += 3600
    look(talk, 3)
    assert told(talk) == [NEEDED]
    assert talk.person("ada").last.paragraphs[0].startswith("The session ended at ")


def test_a_token_of_an_hour_is_told_of_when_it_has_ended_and_not_as_it_comes(
    begin: Begin, connected: AuthService, tmp_path: Path, clock: MovedClock
) -> None:
    talk, now = begin(policy=ONE), clock.now
    lasting(tmp_path, until=now + 3600, since=now)
    look(talk)
    clock.now += 3500
    look(talk)
    assert told(talk) == []
    clock.now += 101
    look(talk, 3)
    assert told(talk) == [NEEDED]


@covers("attention", "whose-tokens")
def test_the_owner_hears_of_their_own_session_and_nobody_else(
    begin: Begin, connected: AuthService, tmp_path: Path, demo: Demo
) -> None:
    server = Server("notes", demo.ping_url)

    async def log_in_for(owner: str) -> None:
        login = await connected.start_login(server, Origin("terminal"), owner=owner)
        answer = await asyncio.to_thread(approve, login.authorization_url)
        await connected.complete_login(login.id, answer, Origin("terminal"))

    owners = ("parlour:ada", "parlour:eve", "elsewhere:bob")
    for owner in owners:
        asyncio.run(log_in_for(owner))
    for each in (None, *owners):
        ended(tmp_path, each)
    everybody = AllowList(users=frozenset({"ada", "bob"}), admins=frozenset({"bob"}), owners="per_user")
    talk = begin(policy=everybody)
    look(talk, 3)
    assert told(talk, "ada") == [NEEDED]
    # Bob's session belongs to another platform. The policy no longer lists eve. The shared one has no user.
    assert told(talk, "bob") == told(talk, "eve") == []


@pytest.mark.parametrize(
    ("policy", "users"),
    [
        (AllowList(users=frozenset({"ada"})), ["ada"]),
        (AllowList(users=frozenset({"ada", "bob"})), []),
        (AllowList(users=frozenset({"ada"}), admins=frozenset({"bob", "eve"})), ["bob", "eve"]),
        (AllowList(users=frozenset({"ada"}), admins=frozenset()), []),
        (AllowList(), []),
    ],
)
def test_caretakers_hear_of_what_is_shared(
    begin: Begin, connected: AuthService, tmp_path: Path, policy: AllowList, users: list[str]
) -> None:
    ended(tmp_path)
    talk = begin(policy=policy)
    look(talk, 2)
    assert [user for user in ("ada", "bob", "eve") if told(talk, user)] == users


def test_whoever_is_at_it_is_not_told(begin: Begin, connected: AuthService, tmp_path: Path) -> None:
    ended(tmp_path)
    talk = begin(policy=ONE)
    ada = talk.person("ada")
    ada.says("/connect notes")
    look(talk, 3)
    assert ada.sees() == ["Connect notes"]
    ada.presses("Cancel")
    look(talk, 3)
    assert ada.sees() == ["notes: not connected"], "ada has just cancelled the login"


def test_a_platform_that_fails_for_a_while_is_tried_again_and_a_closed_chat_every_hour(
    begin: Begin,
    connected: AuthService,
    tmp_path: Path,
    clock: MovedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended(tmp_path)
    talk = begin(policy=ONE)

    async def failing(self: object, card: object) -> str:
        raise ChatError("The platform is out of reach.")

    with monkeypatch.context() as patch:
        patch.setattr(RoomChat, "send", failing)
        look(talk, 2)
    assert connected.notices.list_all() == []
    talk.place.room("ada").cannot_write = True
    look(talk, 5)
    assert talk.place.room("ada").calls == ["send"]
    assert told(talk) == []
    talk.place.room("ada").cannot_write = False
    clock.now += 3599
    look(talk)
    assert told(talk) == []
    clock.now += 1
    look(talk, 3)
    assert told(talk) == [NEEDED]


def test_of_two_processes_with_one_bot_one_tells_it(
    begin: Begin, connected: AuthService, tmp_path: Path
) -> None:
    ended(tmp_path)
    place = Place()
    talks = [begin(policy=ONE, place=place) for _ in range(4)]

    async def at_once() -> None:
        await asyncio.gather(*(talk.desk._reminders.check_sessions() for talk in talks))

    talks[0].run(at_once())
    assert told(talks[0]) == [NEEDED]


def test_servers_that_are_gone_and_grants_without_a_person_are_nobodys_trouble(
    begin: Begin, connected: AuthService, tmp_path: Path, demo: Demo
) -> None:
    ended(tmp_path)
    talk = begin("another", policy=ONE)
    look(talk)
    context = talk.desk._context
    for options in (ServerOptions(grant="client_credentials", client_id="us"), ServerOptions()):
        listed = StaticServers([Server("notes", demo.ping_url, options)])
        attention = ExpiryReminders(replace(context, servers=listed))
        talk.run(attention.check_sessions())
        assert told(talk) == ([NEEDED] if options.grant == "authorization_code" else [])


def test_a_store_that_fails_is_said_in_the_log_and_ends_nothing(
    begin: Begin, connected: AuthService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ended(tmp_path)
    file = tmp_path / "mcp-tokens" / "logins" / ".notices.json"
    file.write_text("[]")
    file.chmod(0o600)
    talk = begin(policy=ONE)
    with pytest.raises(StoreCorrupt):
        look(talk)

    async def main() -> None:
        running = asyncio.create_task(talk.desk.run())
        for _ in range(2000):
            if any("The sessions could not be checked" in each for each in caplog.messages):
                break
            await asyncio.sleep(0.01)
        else:
            raise AssertionError("No warning was logged.")
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    with caplog.at_level(logging.WARNING):
        talk.run(main())
    assert told(talk) == []
