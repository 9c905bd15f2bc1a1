"""The prompt of a login stays up to date: over time, after restarts and when the platform fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.dialog.platform import ChatError, IncomingEvent
from gateway_hooks.runtime.message_sync import RETRY_SECONDS
from hermes_mcp_auth_remote.errors import StoreUnwritable
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.logins import Logins
from hermes_mcp_auth_remote.store.protocol import UNKNOWN
from hermes_mcp_auth_remote.values import Origin
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.gateway_hooks.conftest import StartBot
from tests.gateway_hooks.fake_platform import PLATFORM, ChatBot, ChatUser, wait_until
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow


@pytest.fixture
def other_service(tmp_path: Path, clock: ManualClock) -> AuthService:
    """Return the service of another process over the same home."""
    return AuthService(tmp_path, clock=clock)


async def sync_once(bot: ChatBot) -> None:
    """Sync once, as the bot does if only the time has changed. Then wait for the updates."""
    prompt_messages = bot.dispatcher.prompt_messages
    await prompt_messages.sync()
    await asyncio.gather(*prompt_messages._update_tasks.values())
    await sync_until_clock_advances(bot)


async def sync_until_clock_advances(bot: ChatBot) -> None:
    """Sync again and again until the file system's clock is later than the last change."""
    prompt_messages = bot.dispatcher.prompt_messages
    while prompt_messages._synced_version is UNKNOWN:
        await prompt_messages.sync()
        await asyncio.gather(*prompt_messages._update_tasks.values())
        await asyncio.sleep(0.02)


@covers("chat-countdown")
def test_prompt_is_edited_four_times_in_ten_minutes(ada: ChatUser, bot: ChatBot, clock: ManualClock) -> None:
    ada.send_text("/connect notes")
    started_at, edit_seconds = clock.now, list[float]()
    for second in range(1, 611):
        clock.now = started_at + second
        edit_count = ada.room.calls.count("edit")
        bot.run(bot.dispatcher.prompt_messages.sync())
        if bot.dispatcher.prompt_messages._update_tasks:
            bot.settle()
        edit_seconds += [second] * (ada.room.calls.count("edit") - edit_count)
    assert edit_seconds == [300, 480, 540, 600]
    assert ada.visible_titles() == ["notes: not connected"]


def test_sync_without_changes_reads_no_logins(
    ada: ChatUser, bot: ChatBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada.send_text("/connect notes")
    bot.run(sync_until_clock_advances(bot))
    monkeypatch.setattr(bot.service, "logins", None)
    bot.run(bot.dispatcher.prompt_messages.sync())


@covers("chat-survives")
def test_prompt_is_updated_and_answer_accepted_after_restart(start_bot: StartBot) -> None:
    first = start_bot()
    ada = first.user("ada")
    ada.send_text("/connect notes")
    ada.press("QR code")
    login = first.login
    second = start_bot(platform=first.platform)
    second.settle()
    ada_after_restart = second.user("ada")
    ada_after_restart.paste(approve(login.authorization_url))
    assert ada_after_restart.visible_titles() == ["notes: connected"]
    assert len(ada_after_restart.room.messages) == 2
    assert [finished_login.key.server_name for finished_login, _ in second.completed_logins] == ["notes"]


@covers("chat-survives")
def test_login_that_ended_without_bot_is_shown_after_start(
    start_bot: StartBot, other_service: AuthService, clock: ManualClock
) -> None:
    bot = start_bot()
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    clock.now += 3000
    start_bot(platform=bot.platform).settle()
    assert ada.visible_titles() == ["notes: not connected"]
    assert "not finished in time" in ada.visible_text()


@covers("chat-survives")
@pytest.mark.parametrize("ending", ["finished", "cancelled", "failed"])
def test_change_by_another_process_is_shown(
    ada: ChatUser, bot: ChatBot, other_service: AuthService, ending: str
) -> None:
    ada.send_text("/connect notes")
    ada.press("QR code")
    login = bot.login
    if ending == "finished":
        answer = approve(login.authorization_url)
        bot.run(other_service.complete_login(login.id, answer, Origin("terminal")))
    elif ending == "cancelled":
        bot.run(other_service.cancel(login.id))
    else:
        denied_answer = (
            f"{login.request.redirect_uri}?error=access_denied&state={login.request.state.reveal()}"
        )
        denied_answer_with_issuer = f"{denied_answer}&iss={login.request.issuer}"
        with pytest.raises(Exception, match="denied"):
            bot.run(other_service.complete_login(login.id, denied_answer_with_issuer, Origin("terminal")))
    bot.run_until(
        lambda: (
            ada.visible_titles() != ["Connect notes", "Scan this to connect notes"]
            and len(ada.visible_titles()) == 1
        )
    )
    assert ada.visible_titles() == ["notes: connected" if ending == "finished" else "notes: not connected"]


@covers("chat-tidy")
def test_only_prompt_remains_after_login_ends(ada: ChatUser, bot: ChatBot) -> None:
    ada.send_text("/connect notes")
    ada.press("QR code")
    ada.press("QR code")
    for _ in range(2):
        ada.paste("http://127.0.0.1:1/callback?code=of-another-login-it-is&state=no-such")
    assert len(ada.visible_titles()) == 5
    ada.paste(approve(bot.login.authorization_url))
    assert ada.visible_titles() == ["notes: connected"]
    assert bot.service.blocking.logins()[-1].message_ids == ()


@covers("chat-tidy")
def test_picture_sent_after_end_is_deleted(ada: ChatUser, bot: ChatBot) -> None:
    ada.send_text("/connect notes")
    login = bot.login

    async def send_picture_late() -> None:
        ada.room.write_gate = asyncio.Event()
        press_event = replace(
            ada.message_event(""), callback_data=ada.find_button("QR code")[1].action, message_id=""
        )
        handle_task = asyncio.create_task(bot.dispatcher.handle(press_event, ada.chat))
        await bot.service.cancel(login.id)
        while not bot.dispatcher.prompt_messages._update_tasks:
            await bot.dispatcher.prompt_messages.sync()
            await asyncio.sleep(0)
        ada.room.write_gate.set()
        await handle_task
        await bot.settle_in_loop()

    bot.run(send_picture_late())
    assert ada.visible_titles() == ["notes: not connected"]


@covers("chat-tidy", "chat-survives")
@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("has_written", [False, True])
def test_messages_that_cannot_be_deleted_are_deleted_later(
    start_bot: StartBot, clock: ManualClock, *, has_written: bool, restarts: bool
) -> None:
    bot = start_bot()
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    ada.press("QR code")
    if has_written:
        # Then the outcome is a new message, and the prompt is deleted too.
        ada.send_text("/connections")
    # The paste, the QR code and, if there is a new message, the prompt.
    ada.room.failing_deletions = 3 if has_written else 2
    ada.paste(approve(bot.login.authorization_url))
    assert ada.room.failing_deletions == 0
    titles = ada.visible_titles()
    assert titles.count("notes: connected") == 1
    assert "Scan this to connect notes" in titles
    assert ("Connect notes" in titles) == has_written
    if restarts:
        bot = start_bot(platform=bot.platform)
        ada = bot.user("ada")
    clock.now += RETRY_SECONDS
    bot.settle()
    assert ada.visible_titles() == [*(["Connections"] if has_written else []), "notes: connected"]
    # Also the message of the user, with the code, is deleted.
    assert "code=" not in str(ada.room)
    assert bot.service.blocking.logins()[-1].message_ids == ()
    assert len(bot.completed_logins) == (0 if restarts else 1)


@covers("chat-tidy", "chat-survives")
def test_a_paste_is_deleted_although_the_bot_was_killed_before(start_bot: StartBot) -> None:
    bot = start_bot()
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    answer = approve(bot.login.authorization_url)

    async def paste_and_kill_bot() -> None:
        ada.room.deletion_gate = asyncio.Event()
        event = ada.message_event(answer)
        handle_task = asyncio.create_task(bot.dispatcher.handle(event, ada.chat))
        await wait_until(lambda: ada.room.calls[-1] == "delete")
        handle_task.cancel()
        await asyncio.gather(handle_task, return_exceptions=True)

    bot.run(paste_and_kill_bot())
    ada.room.deletion_gate = None
    bot = start_bot(platform=bot.platform)
    bot.settle()
    assert "code=" in str(ada.room)
    # The login still waits, as the prompt says. The user notices that nothing happens and sends it again.
    assert ada.visible_titles()[0] == "Connect notes"
    bot.user("ada").paste(answer)
    assert ada.visible_titles() == ["notes: connected"]
    assert "code=" not in str(ada.room)


@covers("chat-survives", "card-notifies")
def test_an_outcome_that_could_not_be_sent_is_sent_later_and_not_hidden_in_an_edit(
    ada: ChatUser, bot: ChatBot, clock: ManualClock
) -> None:
    ada.send_text("/connect notes")
    ada.send_text("/connections")
    ada.room.failing_sends = 1
    ada.paste(approve(bot.login.authorization_url))
    assert ada.visible_titles() == ["Connect notes", "Connections"]
    clock.now += RETRY_SECONDS
    bot.settle()
    assert ada.visible_titles() == ["Connections", "notes: connected"]


@covers("chat-survives", "telegram-trouble")
def test_a_bot_that_is_asked_to_wait_deletes_nothing_until_then(
    ada: ChatUser, bot: ChatBot, clock: ManualClock
) -> None:
    ada.send_text("/connect notes")
    ada.press("QR code")
    ada.send_text("/connections")
    # The paste, and the first one of the messages that are deleted after the login.
    ada.room.failing_deletions, ada.room.asks_to_wait_seconds = 2, 120.0
    ada.paste(approve(bot.login.authorization_url))
    calls = ada.room.calls.count("delete")
    assert ada.room.failing_deletions == 0
    for seconds in (RETRY_SECONDS, 119.0 - RETRY_SECONDS):
        clock.now += seconds
        bot.settle()
        assert ada.room.calls.count("delete") == calls
    clock.now += 1.0
    bot.settle()
    assert ada.visible_titles() == ["Connections", "notes: connected"]


@covers("chat-survives", "telegram-trouble")
def test_the_bot_waits_as_long_as_the_platform_asks(ada: ChatUser, bot: ChatBot, clock: ManualClock) -> None:
    ada.send_text("/connect notes")
    ada.send_text("/connections")
    ada.room.failing_sends, ada.room.asks_to_wait_seconds = 2, 120.0
    ada.paste(approve(bot.login.authorization_url))
    for seconds, failures_left in ((RETRY_SECONDS, 1), (119.0 - RETRY_SECONDS, 1), (1.0, 0), (120.0, 0)):
        clock.now += seconds
        bot.settle()
        assert ada.room.failing_sends == failures_left
    assert ada.visible_titles() == ["Connections", "notes: connected"]


@covers("chat-survives", "card-notifies")
def test_a_login_that_ended_while_the_bot_was_down_gets_a_new_message(
    start_bot: StartBot, other_service: AuthService
) -> None:
    bot = start_bot()
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    ada.send_text("/connections")
    answer = approve(bot.login.authorization_url)
    bot.run(other_service.complete_login(bot.login.id, answer, Origin("terminal")))
    start_bot(platform=bot.platform).settle()
    assert ada.visible_titles() == ["Connections", "notes: connected"]


@covers("chat-survives", "card-notifies")
@pytest.mark.parametrize("has_written", [False, True])
def test_a_restarted_bot_counts_what_the_user_writes_from_then_on(
    start_bot: StartBot, *, has_written: bool
) -> None:
    bot = start_bot()
    bot.user("ada").send_text("/connect notes")
    answer = approve(bot.login.authorization_url)
    bot = start_bot(platform=bot.platform)
    bot.settle()
    ada = bot.user("ada")
    if has_written:
        ada.send_text("/connections")
    ada.paste(answer)
    expected_titles = ["Connections", "notes: connected"] if has_written else ["notes: connected"]
    assert ada.visible_titles() == expected_titles
    assert ("edit" in ada.room.calls[-3:]) != has_written


@covers("chat-survives")
@pytest.mark.parametrize("is_refused_once", [False, True])
def test_the_outcome_is_shown_although_the_bot_was_killed_before_it_knew_the_prompt(
    start_bot: StartBot, *, is_refused_once: bool
) -> None:
    bot = start_bot()
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    answer = approve(bot.login.authorization_url)
    # Killed after the platform has sent the prompt, and before the response with its id arrived.
    bot.run(bot.service.save_messages(bot.login.id, ()))
    bot = start_bot(platform=bot.platform)
    bot.settle()
    ada = bot.user("ada")
    if is_refused_once:
        ada.paste(f"{bot.login.request.redirect_uri}?code=of-another-login-it-is&state=no-such")
        assert ada.visible_titles()[:2] == ["Connect notes", "Connect notes"]
        # The second message is a prompt as well: the login goes on.
        assert ada.find_button("Cancel")[0].id != "2"
    ada.paste(answer)
    assert ada.visible_titles() == ["Connect notes", "notes: connected"]
    # A button of the first message turns it into the outcome: it shows no dead link any more.
    ada.press("Cancel")
    assert ada.visible_titles() == ["notes: connected", "notes: connected"]
    assert ada.room.toasts[-1] == "That login is over."


@covers("chat-survives")
def test_a_button_of_a_login_that_was_removed_long_ago_ends_its_message(
    start_bot: StartBot, tmp_path: Path
) -> None:
    bot = start_bot()
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    login = bot.login
    next(tmp_path.rglob(f"{login.id}.json")).unlink()
    bot = start_bot(platform=bot.platform)
    ada = bot.user("ada")
    ada.press("Cancel")
    assert ada.visible_titles() == ["That login is over."]
    assert ada.last_card.link is None


@covers("chat-survives")
def test_an_answer_that_comes_again_during_the_exchange_is_no_unknown_answer(
    ada: ChatUser, bot: ChatBot, demo: Demo
) -> None:
    ada.send_text("/connect notes")
    answer, cancel_action = approve(bot.login.authorization_url), ada.find_button("Cancel")[1].action
    gate = demo.authorization_server.hold("token")

    async def paste_twice() -> None:
        first = asyncio.create_task(bot.dispatcher.handle(ada.message_event(answer), ada.chat))
        assert await asyncio.to_thread(gate.arrived.wait, 20)
        await bot.dispatcher.handle(ada.message_event(answer), ada.chat)
        press = IncomingEvent(ada.sender, callback_data=cancel_action, pressed_message_id="2")
        await bot.dispatcher.handle(press, ada.chat)
        await bot.settle_in_loop()
        assert ada.visible_titles() == ["Connect notes", "Connect notes"]
        assert ada.last_card.paragraphs == (ENGLISH.exchanging,)
        assert ada.room.toasts[-1] == ENGLISH.exchanging
        gate.open()
        await first
        await bot.settle_in_loop()

    bot.run(paste_twice())
    assert ada.visible_titles() == ["notes: connected"]
    assert "code=" not in str(ada.room)


@covers("chat-tidy")
def test_a_qr_code_that_cannot_be_deleted_is_deleted_with_the_login(ada: ChatUser, bot: ChatBot) -> None:
    ada.send_text("/connect notes")
    ada.press("QR code")
    ada.room.failing_deletions = 1
    bot.run(bot.dispatcher.prompt_messages.delete_extra_messages(bot.login.id, ada.chat))
    assert ada.visible_titles() == ["Connect notes", "Scan this to connect notes"]
    ada.paste(approve(bot.login.authorization_url))
    assert ada.visible_titles() == ["notes: connected"]


@covers("chat-survives")
def test_deleted_prompt_returns_at_next_change(ada: ChatUser, bot: ChatBot, clock: ManualClock) -> None:
    ada.send_text("/connect notes")
    del ada.room.messages[bot.login.message_ids[0]]
    clock.now += 300
    bot.settle()
    assert ada.visible_titles() == ["Connect notes"]
    del ada.room.messages[bot.login.message_ids[0]]
    ada.paste(approve(bot.login.authorization_url))
    assert ada.visible_titles() == ["notes: connected"]


@covers("chat-survives")
def test_outcome_is_shown_later_if_edit_fails(
    ada: ChatUser, bot: ChatBot, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    ada.send_text("/connect notes")
    ada.room.failing_edits = 2
    ada.paste(approve(bot.login.authorization_url))
    for failures_left in (1, 0):
        assert ada.visible_titles() == ["Connect notes"]
        assert ada.room.failing_edits == failures_left
        # The same reason is logged once.
        assert caplog.text.count("The platform is out of reach.") == 1
        bot.run(sync_until_clock_advances(bot))
        clock.now += RETRY_SECONDS
        bot.run(sync_once(bot))
    assert ada.visible_titles() == ["notes: connected"]
    assert len(bot.completed_logins) == 1


def test_unexpected_library_error_is_retried_and_its_text_is_not_logged(
    ada: ChatUser,
    bot: ChatBot,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail_edit(*_: object) -> None:
        raise KeyError("a-token-in-an-address")

    ada.send_text("/connect notes")
    with monkeypatch.context() as patched:
        patched.setattr(type(ada.chat), "edit", fail_edit)
        clock.now += 300
        bot.settle()
        bot.settle()
        assert caplog.text.count("could not be updated: KeyError") == 1
        assert "a-token-in-an-address" not in caplog.text
    clock.now += RETRY_SECONDS
    bot.settle()
    assert "(5 minutes)" in ada.visible_text()


@covers("chat-survives")
def test_slow_chat_does_not_delay_others(start_bot: StartBot, demo: Demo, clock: ManualClock) -> None:
    bot = start_bot()
    users = [bot.user(f"user-{number}") for number in range(100)]

    async def show_login(number: int, person: ChatUser) -> None:
        origin = Origin(
            PLATFORM, chat_id=person.room.name, user_id=person.user_id, bot_id=bot.platform.bot_id
        )
        login = replace(template, id=f"{number:022d}", origin=origin)
        bot.service._deps.store.logins.add(login)
        await bot.dispatcher.prompt_messages.show(login, person.chat)

    async def hold_first_chat() -> None:
        await asyncio.gather(*(show_login(*numbered_user) for numbered_user in enumerate(users)))
        slow_room = users[0].room
        slow_room.write_gate = asyncio.Event()
        clock.now += 300
        sync_task = asyncio.create_task(bot.dispatcher.prompt_messages.run())
        await wait_until(lambda: all("(5 minutes)" in person.visible_text() for person in users[1:]))
        assert "(10 minutes)" in users[0].visible_text()
        slow_room.write_gate.set()
        await wait_until(lambda: "(5 minutes)" in users[0].visible_text())
        sync_task.cancel()
        await asyncio.gather(sync_task, return_exceptions=True)

    template = bot.run(
        bot.service.start_login(bot.dispatcher._context.servers.find("notes"), Origin("terminal"))
    )
    bot.run(hold_first_chat())
    assert [person.room.calls.count("edit") for person in users] == [1] * 100


@covers("begun-elsewhere")
def test_login_of_another_process_for_user_is_shown_and_finished(
    ada: ChatUser, bot: ChatBot, other_service: AuthService
) -> None:
    server = bot.dispatcher._context.servers.find("notes")
    login = bot.run(other_service.start_login(server, Origin(PLATFORM, user_id="ada")))
    bot.run_until(lambda: ada.visible_titles() == ["Connect notes"])
    assert ada.paste(approve(login.authorization_url))
    assert ada.visible_titles() == ["notes: connected"]
    assert bot.run(other_service.wait_for_login(login.id)).status == "done"


@covers("begun-elsewhere", "chat-listed")
def test_login_for_unlisted_user_is_cancelled_and_not_shown(
    bot: ChatBot, other_service: AuthService, caplog: pytest.LogCaptureFixture
) -> None:
    server = bot.dispatcher._context.servers.find("notes")
    login = bot.run(other_service.start_login(server, Origin(PLATFORM, user_id="eve")))
    bot.settle()
    assert bot.user("eve").visible_titles() == []
    assert other_service.blocking.login(login.id).status == "cancelled"
    assert "not on the list" in caplog.text


def test_login_for_unreachable_user_is_cancelled(
    bot: ChatBot, other_service: AuthService, ada: ChatUser
) -> None:
    ada.room.cannot_write = True
    server = bot.dispatcher._context.servers.find("notes")
    login = bot.run(other_service.start_login(server, Origin(PLATFORM, user_id="ada")))
    bot.settle()
    assert other_service.blocking.login(login.id).status == "cancelled"


@pytest.mark.parametrize(
    "origin",
    [
        Origin("elsewhere", user_id="ada"),
        Origin(PLATFORM, chat_id="private-ada", user_id="ada", bot_id="901"),
    ],
    ids=["platform", "bot"],
)
def test_logins_of_other_platforms_and_bots_are_ignored(
    bot: ChatBot, other_service: AuthService, ada: ChatUser, origin: Origin
) -> None:
    server = bot.dispatcher._context.servers.find("notes")
    login = bot.run(other_service.start_login(server, origin))
    bot.settle()
    assert ada.visible_titles() == []
    assert other_service.blocking.login(login.id).status == "waiting"
    # The bot does not edit a message that has the same id in this room.
    ada.room.add_message("bot", card=Card("Something else"))
    bot.run(other_service.save_messages(login.id, ("1",)))
    bot.run(other_service.cancel(login.id))
    bot.settle()
    assert ada.visible_titles() == ["Something else"]


async def fail_change(*_: object) -> Login:
    raise StoreUnwritable("The disk is full.")


async def sync_and_update(bot: ChatBot) -> None:
    prompt_messages = bot.dispatcher.prompt_messages
    await prompt_messages.sync()
    await asyncio.gather(*prompt_messages._update_tasks.values())


@covers("chat-tidy", "chat-survives")
@pytest.mark.parametrize("shown", ["a prompt for another process", "a deleted prompt again", "the outcome"])
def test_a_message_that_cannot_be_recorded_is_sent_once_and_recorded_later(
    ada: ChatUser,
    bot: ChatBot,
    other_service: AuthService,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    shown: str,
) -> None:
    server = bot.dispatcher._context.servers.find("notes")
    if shown == "a prompt for another process":
        login = bot.run(other_service.start_login(server, Origin(PLATFORM, user_id="ada")))
    else:
        ada.send_text("/connect notes")
        login = bot.login
    if shown == "a deleted prompt again":
        del ada.room.messages[login.message_ids[0]]
        clock.now += 301
    elif shown == "the outcome":
        # The user wrote something, so the outcome is a new message.
        ada.send_text("hello")
        bot.run(other_service.complete_login(login.id, approve(login.authorization_url), Origin("terminal")))
    sent_count = ada.room.calls.count("send")
    with monkeypatch.context() as patched:
        patched.setattr(Logins, "_change_login", fail_change)
        for _ in range(4):
            bot.run(sync_and_update(bot))
            clock.now += RETRY_SECONDS
        assert ada.room.calls.count("send") == sent_count + 1
        assert caplog.text.count("The disk is full.") == 1
    clock.now += RETRY_SECONDS
    bot.run(sync_and_update(bot))
    assert ada.room.calls.count("send") == sent_count + 1
    assert not bot.dispatcher.prompt_messages._unsaved_ids
    stored_ids = other_service.blocking.login(login.id).message_ids
    if shown == "the outcome":
        assert stored_ids == ()
        assert len(bot.completed_logins) == 1
        assert ada.visible_titles() == ["notes: connected"]
    else:
        assert stored_ids[0] in ada.room.messages
        ada.paste(approve(login.authorization_url))
        assert ada.visible_titles() == ["notes: connected"]


@covers("chat-survives")
def test_sync_continues_after_read_failure(
    ada: ChatUser, bot: ChatBot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read_count = 0

    def fail_read() -> None:
        nonlocal read_count
        read_count += 1
        raise StoreUnwritable("The disk is gone.")

    ada.send_text("/connect notes")
    with monkeypatch.context() as patched:
        patched.setattr(bot.service, "logins", fail_read)
        bot.dispatcher.prompt_messages.wake()
        bot.run_until(lambda: read_count >= 3)
    # The bot reads three times a second.
    assert caplog.text.count("The disk is gone.") == 1
    bot.run(bot.service.cancel(bot.login.id))
    bot.run_until(lambda: ada.visible_titles() == ["notes: not connected"])


@covers("chat-ours")
def test_code_is_claimed_while_logins_cannot_be_read(
    ada: ChatUser, bot: ChatBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_read() -> None:
        raise StoreUnwritable("The disk is gone.")

    ada.send_text("/connect notes")
    answer = approve(bot.login.authorization_url)
    with monkeypatch.context() as patched:
        patched.setattr(bot.service, "logins", fail_read)
        assert bot.run(bot.dispatcher.handle(ada.message_event(answer), ada.chat))
        assert not bot.run(bot.dispatcher.handle(ada.message_event("hello"), ada.chat))
    assert answer not in ada.visible_text()
    assert "The disk is gone." in ada.visible_text()


def test_unreachable_chat_is_only_logged(
    ada: ChatUser, bot: ChatBot, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail_send(*_: object) -> str:
        raise ChatError("Out of reach.")

    monkeypatch.setattr(type(ada.chat), "send", fail_send)
    assert ada.send_text("/connect notes")
    assert "A message could not be answered: Out of reach." in caplog.text
    assert bot.waiting_logins() == []
