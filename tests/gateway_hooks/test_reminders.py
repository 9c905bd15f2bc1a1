"""Reminders: if a session ends soon or has ended, its user gets one message with one button."""

from __future__ import annotations

import asyncio
import logging
import time
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
from hermes_mcp_auth_remote.store.protocol import Stored
from hermes_mcp_auth_remote.values import CredentialKey, Origin, Owner, Server, ServerOptions
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.gateway_hooks.conftest import StartBot
from tests.gateway_hooks.fake_platform import ChatBot, FakePlatform, RoomChat
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.helpers import log_in

pytestmark = pytest.mark.slow

LOGIN_NEEDED_TITLE = "notes: a login is needed"
EXPIRES_SOON_TITLE = "notes: log in again soon"
CONNECTED_TITLE = "notes: connected"
END_REASON = "the provider has ended the session"

ADA_ONLY = AllowList(users=frozenset({"ada"}))
DAY_SECONDS = 86_400.0


@pytest.fixture
def other_service(tmp_path: Path, demo: Demo, clock: ManualClock) -> AuthService:
    """Return the service of another process that has a shared session."""
    service = AuthService(tmp_path, clock=clock)
    asyncio.run(log_in(service, Server("notes", demo.ping_url)))
    return service


def mark_session_ended(home: Path, owner: Owner = None) -> None:
    """Mark the session as ended, as a cron job does if the server rejects the session."""
    store, key = FileStore(home), CredentialKey("notes", owner)
    credentials = store.read(key).credentials
    assert credentials.binding is not None
    store.save_login(key, replace(credentials, binding=replace(credentials.binding, login_needed=END_REASON)))


def set_expiry(
    home: Path, *, expires_at: float, obtained_at: float, refresh_until: float | None = None
) -> None:
    """Set the expiry of the access token. With `refresh_until` the session can refresh until then."""
    store, key = FileStore(home), CredentialKey("notes")
    credentials = store.read(key).credentials
    assert credentials.tokens is not None
    tokens = replace(
        credentials.tokens, expires_at=expires_at, obtained_at=obtained_at, refresh_expires_at=refresh_until
    )
    if refresh_until is None:
        tokens = replace(tokens, refresh_token=None)
    assert credentials.binding is not None
    binding = replace(credentials.binding, refresh_expires_at=refresh_until)
    store.save_login(key, replace(credentials, tokens=tokens, binding=binding))


def check_sessions(bot: ChatBot, times: int = 1) -> None:
    for _ in range(times):
        bot.run(bot.dispatcher.reminders.check_sessions())


def titles_for(bot: ChatBot, user_id: str = "ada") -> list[str]:
    return bot.user(user_id).visible_titles()


@covers("attention")
def test_ended_session_sends_one_reminder_across_restarts(
    start_bot: StartBot, other_service: AuthService, tmp_path: Path
) -> None:
    bot = start_bot(policy=ADA_ONLY)
    check_sessions(bot)
    assert titles_for(bot) == []
    mark_session_ended(tmp_path)
    check_sessions(bot, 20)
    assert titles_for(bot) == [LOGIN_NEEDED_TITLE]
    for _ in range(2):
        bot = start_bot(policy=ADA_ONLY, platform=bot.platform)
        check_sessions(bot, 5)
    ada = bot.user("ada")
    assert ada.visible_titles() == [LOGIN_NEEDED_TITLE]
    assert [button.label for row in ada.last_card.buttons for button in row] == ["Log in again"]
    assert ada.last_card.paragraphs == (f"The session is over: {END_REASON}",)
    assert ada.room.calls == ["send"]


@covers("attention")
def test_reminder_button_starts_login_in_same_message_and_next_end_reminds_again(
    start_bot: StartBot, other_service: AuthService, tmp_path: Path
) -> None:
    bot = start_bot(policy=ADA_ONLY)
    mark_session_ended(tmp_path)
    check_sessions(bot)
    ada = bot.user("ada")
    ada.press("Log in again")
    assert ada.visible_titles() == ["Connect notes"]
    check_sessions(bot, 3)
    ada.paste(approve(bot.login.authorization_url))
    assert ada.visible_titles() == [CONNECTED_TITLE]
    check_sessions(bot, 3)
    assert ada.visible_titles() == [CONNECTED_TITLE]
    assert other_service.blocking.notices.list_all() == []
    mark_session_ended(tmp_path)
    check_sessions(bot, 3)
    assert ada.visible_titles() == [CONNECTED_TITLE, LOGIN_NEEDED_TITLE]


def test_login_in_another_process_edits_reminder(
    start_bot: StartBot, other_service: AuthService, tmp_path: Path, demo: Demo
) -> None:
    bot = start_bot(policy=ADA_ONLY)
    mark_session_ended(tmp_path)
    check_sessions(bot)
    bot.run(log_in(other_service, Server("notes", demo.ping_url)))
    check_sessions(bot, 3)
    assert titles_for(bot) == [CONNECTED_TITLE]
    assert bot.user("ada").room.calls == ["send", "edit"]


def test_session_that_ends_again_between_checks_sends_second_reminder(
    start_bot: StartBot, other_service: AuthService, tmp_path: Path, demo: Demo, clock: ManualClock
) -> None:
    bot = start_bot(policy=ADA_ONLY)
    mark_session_ended(tmp_path)
    check_sessions(bot)
    clock.now += 60
    bot.run(log_in(other_service, Server("notes", demo.ping_url)))
    mark_session_ended(tmp_path)
    check_sessions(bot, 3)
    assert titles_for(bot) == [LOGIN_NEEDED_TITLE, LOGIN_NEEDED_TITLE]


@covers("attention")
def test_reminder_comes_once_three_days_before_refresh_expiry(
    start_bot: StartBot, other_service: AuthService, tmp_path: Path, clock: ManualClock
) -> None:
    bot, now = start_bot(policy=ADA_ONLY), clock.now
    set_expiry(tmp_path, expires_at=now + 60, obtained_at=now, refresh_until=now + 3.1 * DAY_SECONDS)
    check_sessions(bot)
    assert titles_for(bot) == []
    for hours in range(4):
        refresh_until = now + 2.9 * DAY_SECONDS - hours
        set_expiry(tmp_path, expires_at=now + 3600 * hours, obtained_at=now, refresh_until=refresh_until)
        check_sessions(bot)
    assert titles_for(bot) == [EXPIRES_SOON_TITLE]
    assert "cannot refresh itself beyond that" in bot.user("ada").last_card.paragraphs[0]
    # The session ends: the bot edits the first message and sends no second one.
    mark_session_ended(tmp_path)
    check_sessions(bot, 3)
    assert titles_for(bot) == [LOGIN_NEEDED_TITLE]
    assert bot.user("ada").room.calls == ["send", "edit"]


@covers("attention")
def test_reminder_comes_one_hour_before_end_of_token_without_refresh(
    start_bot: StartBot, other_service: AuthService, tmp_path: Path, clock: ManualClock
) -> None:
    bot, now = start_bot(policy=ADA_ONLY), clock.now
    set_expiry(tmp_path, expires_at=now + 3660, obtained_at=now - 8 * 3600)
    check_sessions(bot)
    assert titles_for(bot) == []
    clock.now += 120
    check_sessions(bot, 3)
    assert titles_for(bot) == [EXPIRES_SOON_TITLE]
    clock.now += 3600
    check_sessions(bot, 3)
    assert titles_for(bot) == [LOGIN_NEEDED_TITLE]
    assert bot.user("ada").last_card.paragraphs[0].startswith("The session ended at ")


def test_short_lived_token_gets_reminder_only_after_its_end(
    start_bot: StartBot, other_service: AuthService, tmp_path: Path, clock: ManualClock
) -> None:
    bot, now = start_bot(policy=ADA_ONLY), clock.now
    set_expiry(tmp_path, expires_at=now + 3600, obtained_at=now)
    check_sessions(bot)
    clock.now += 3500
    check_sessions(bot)
    assert titles_for(bot) == []
    clock.now += 101
    check_sessions(bot, 3)
    assert titles_for(bot) == [LOGIN_NEEDED_TITLE]


@covers("attention", "whose-tokens")
def test_only_owner_gets_reminder_of_their_session(
    start_bot: StartBot, other_service: AuthService, tmp_path: Path, demo: Demo
) -> None:
    server = Server("notes", demo.ping_url)

    async def log_in_for(owner: str) -> None:
        login = await other_service.start_login(server, Origin("terminal"), owner=owner)
        answer = await asyncio.to_thread(approve, login.authorization_url)
        await other_service.complete_login(login.id, answer, Origin("terminal"))

    owners = ("parlour:ada", "parlour:eve", "elsewhere:bob")
    for owner in owners:
        asyncio.run(log_in_for(owner))
    for session_owner in (None, *owners):
        mark_session_ended(tmp_path, session_owner)
    policy = AllowList(users=frozenset({"ada", "bob"}), admins=frozenset({"bob"}), owners="per_user")
    bot = start_bot(policy=policy)
    check_sessions(bot, 3)
    assert titles_for(bot, "ada") == [LOGIN_NEEDED_TITLE]
    # Bob's session belongs to another platform. The policy no longer lists eve.
    assert titles_for(bot, "bob") == titles_for(bot, "eve") == []


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
def test_reminder_of_shared_session_goes_to_recipients(
    start_bot: StartBot, other_service: AuthService, tmp_path: Path, policy: AllowList, users: list[str]
) -> None:
    mark_session_ended(tmp_path)
    bot = start_bot(policy=policy)
    check_sessions(bot, 2)
    assert [user for user in ("ada", "bob", "eve") if titles_for(bot, user)] == users


def test_user_with_open_or_cancelled_login_gets_no_reminder(
    start_bot: StartBot, other_service: AuthService, tmp_path: Path
) -> None:
    mark_session_ended(tmp_path)
    bot = start_bot(policy=ADA_ONLY)
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    check_sessions(bot, 3)
    assert ada.visible_titles() == ["Connect notes"]
    ada.press("Cancel")
    check_sessions(bot, 3)
    assert ada.visible_titles() == ["notes: not connected"], "ada has just cancelled the login"


def test_reminder_is_retried_after_failure_and_hourly_in_closed_chat(
    start_bot: StartBot,
    other_service: AuthService,
    tmp_path: Path,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mark_session_ended(tmp_path)
    bot = start_bot(policy=ADA_ONLY)

    async def failing(self: object, card: object) -> str:
        raise ChatError("The platform is out of reach.")

    with monkeypatch.context() as patch:
        patch.setattr(RoomChat, "send", failing)
        check_sessions(bot, 2)
    assert other_service.blocking.notices.list_all() == []
    bot.platform.private_room("ada").cannot_write = True
    check_sessions(bot, 5)
    assert bot.platform.private_room("ada").calls == ["send"]
    assert titles_for(bot) == []
    bot.platform.private_room("ada").cannot_write = False
    clock.now += 3599
    check_sessions(bot)
    assert titles_for(bot) == []
    clock.now += 1
    check_sessions(bot, 3)
    assert titles_for(bot) == [LOGIN_NEEDED_TITLE]


def test_only_one_of_several_processes_sends_reminder(
    start_bot: StartBot, other_service: AuthService, tmp_path: Path
) -> None:
    mark_session_ended(tmp_path)
    platform = FakePlatform()
    bots = [start_bot(policy=ADA_ONLY, platform=platform) for _ in range(4)]

    async def check_all_at_once() -> None:
        await asyncio.gather(*(bot.dispatcher.reminders.check_sessions() for bot in bots))

    bots[0].run(check_all_at_once())
    assert titles_for(bots[0]) == [LOGIN_NEEDED_TITLE]


def test_removed_servers_and_machine_grants_get_no_reminder(
    start_bot: StartBot, other_service: AuthService, tmp_path: Path, demo: Demo
) -> None:
    mark_session_ended(tmp_path)
    bot = start_bot("another", policy=ADA_ONLY)
    check_sessions(bot)
    context = bot.dispatcher._context
    for options in (ServerOptions(grant="client_credentials", client_id="us"), ServerOptions()):
        servers = StaticServers([Server("notes", demo.ping_url, options)])
        reminders = ExpiryReminders(replace(context, servers=servers))
        bot.run(reminders.check_sessions())
        assert titles_for(bot) == ([LOGIN_NEEDED_TITLE] if options.grant == "authorization_code" else [])


def test_failing_store_is_logged_and_bot_keeps_running(
    start_bot: StartBot, other_service: AuthService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mark_session_ended(tmp_path)
    file = tmp_path / "mcp-tokens" / "logins" / ".notices.json"
    file.write_text("[]")
    file.chmod(0o600)
    bot = start_bot(policy=ADA_ONLY)
    with pytest.raises(StoreCorrupt):
        check_sessions(bot)

    async def main() -> None:
        run_task = asyncio.create_task(bot.dispatcher.run())
        for _ in range(2000):
            if any("The sessions could not be checked" in message for message in caplog.messages):
                break
            await asyncio.sleep(0.01)
        else:
            raise AssertionError("No warning was logged.")
        assert not run_task.done()
        run_task.cancel()
        await asyncio.gather(run_task, return_exceptions=True)

    with caplog.at_level(logging.WARNING):
        bot.run(main())
    assert titles_for(bot) == []


@covers("config-once")
def test_a_pass_without_a_change_reads_no_connection(
    start_bot: StartBot, other_service: AuthService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot, reads = start_bot(policy=ADA_ONLY), list[str]()
    # If a change is within one tick of the disk's clock, it is read twice. A test cannot set back ctime, so
    # wait.
    time.sleep(0.06)
    check_sessions(bot)
    store = bot.service._deps.store
    read = store.read

    def record(key: CredentialKey) -> Stored:
        reads.append(key.server_name)
        return read(key)

    monkeypatch.setattr(store, "read", record)
    check_sessions(bot, 5)
    assert reads == []
    mark_session_ended(tmp_path)
    check_sessions(bot)
    # Once for its time, once for its reminder; a due session that keeps is not read again.
    assert set(reads) == {"notes"}
    time.sleep(0.06)
    check_sessions(bot)
    reads.clear()
    check_sessions(bot, 5)
    assert reads == []
    assert titles_for(bot) == [LOGIN_NEEDED_TITLE]
