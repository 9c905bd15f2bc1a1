"""A login in a chat from the command to the connection, as users see it."""

from __future__ import annotations

import pytest

from gateway_hooks.dialog.platform import Capabilities
from hermes_mcp_auth_remote.login import MAX_PASTE_ATTEMPTS
from hermes_mcp_auth_remote.service.complete_login import CLAIM_SECONDS
from tests.consent_form import approve, deny
from tests.demo.manual_client import ManualClock
from tests.gateway_hooks.conftest import StartBot
from tests.gateway_hooks.fake_platform import ChatBot, ChatUser, FakePlatform, without_secrets
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.transcript_files import compare_transcript

pytestmark = pytest.mark.slow


@covers("chat-prompt", "chat-answer-deleted")
def test_login_with_pasted_answer(bot: ChatBot, ada: ChatUser) -> None:
    screens = []
    assert ada.send_text("/connect notes")
    login = bot.login
    screens.append(without_secrets(ada.visible_text(), login))
    assert ada.press("QR code")
    screens.append(without_secrets(ada.visible_text(), login))
    assert ada.paste("http://127.0.0.1:1/callback?code=an-older-one-entirely&state=of-another-login")
    screens.append(without_secrets(ada.visible_text(), login))
    answer = approve(login.authorization_url)
    assert ada.paste(answer)
    screens.append(without_secrets(ada.visible_text(), login))
    compare_transcript("chat_paste", "\n\n--------\n\n".join(screens))
    assert answer in [message.text for message in ada.room.deleted]
    assert bot.waiting_logins() == []
    ((finished_login, connection),) = bot.completed_logins
    assert (finished_login.id, connection.account) == (login.id, "ada@example.com")


@covers("chat-prompt")
def test_prompt_shows_server_host_scope_expiry_and_warnings(bot: ChatBot, ada: ChatUser) -> None:
    ada.send_text("/connect notes")
    text, login, messages = ada.visible_text(), bot.login, bot.dispatcher._context.messages
    for expected_text in (
        login.server_url,
        login.authorization_host,
        "mcp:tools",
        "08:10 UTC (10 minutes)",
        "08:00–08:10",
        "You sent /connect. If not, cancel.",
        messages.paste_here_step,
        messages.approve_for_all_step,
    ):
        assert expected_text in text, expected_text
    assert ada.last_card.link is not None
    assert ada.last_card.link.url == login.authorization_url


def test_denied_login_offers_another(ada: ChatUser, bot: ChatBot) -> None:
    ada.send_text("/connect notes")
    ada.paste(deny(bot.login.authorization_url))
    assert ada.visible_titles() == ["notes: not connected"]
    assert "Access was denied" in ada.visible_text()
    ada.press("Try again")
    assert ada.visible_titles() == ["Connect notes"]
    assert bot.login.message_ids == (next(reversed(ada.room.messages)),)


def test_cancelled_login_deletes_qr_code(ada: ChatUser, bot: ChatBot) -> None:
    ada.send_text("/connect notes")
    ada.press("QR code")
    ada.press("Cancel")
    assert ada.visible_titles() == ["notes: not connected"]
    assert "Cancelled. Nothing was changed." in ada.visible_text()
    assert [bool(message.png) for message in ada.room.deleted] == [True]


def test_expired_login_is_shown_without_link(ada: ChatUser, bot: ChatBot, clock: ManualClock) -> None:
    ada.send_text("/connect notes")
    ada.press("QR code")
    clock.now += 600
    bot.settle()
    assert ada.visible_titles() == ["notes: not connected"]
    assert "not finished in time" in ada.visible_text()
    assert all(card.link is None for card in ada.room.cards())


@covers("chat-answer-deleted")
def test_answer_that_bot_cannot_delete_is_used_and_user_is_told(
    start_bot: StartBot,
) -> None:
    bot = start_bot()
    ada = bot.user("ada")
    ada.room.cannot_delete = True
    ada.send_text("/connect notes")
    answer = approve(bot.login.authorization_url)
    ada.paste(answer)
    assert ada.visible_titles() == ["notes: connected", "Connections"]
    assert "please delete it yourself" in ada.visible_text()


@covers("chat-answer-deleted")
def test_answer_is_deleted_before_it_is_used(ada: ChatUser, bot: ChatBot, demo: Demo) -> None:
    ada.send_text("/connect notes")
    answer = approve(bot.login.authorization_url)
    demo.authorization_server.fail_next("token", status=503)
    ada.paste(answer)
    assert answer not in ada.visible_text()
    assert ada.room.calls.index("delete") < ada.room.calls.index("edit")


@covers("chat-not-echoed", "paste-limit")
def test_refusals_do_not_echo_answer_and_fifth_ends_login(ada: ChatUser, bot: ChatBot) -> None:
    ada.send_text("/connect notes")
    login = bot.login
    wrong_answer = f"{login.request.redirect_uri}?code=not-the-right-code-1234&state=not-the-right-state"
    for attempt in range(MAX_PASTE_ATTEMPTS):
        assert bot.service.blocking.login(login.id).paste_attempts == attempt
        assert ada.paste(wrong_answer)
        bot_texts = "\n".join(
            str(message) for message in ada.room.messages.values() if message.author == "bot"
        )
        assert "not-the-right" not in bot_texts
        assert wrong_answer not in ada.visible_text()
    assert bot.service.blocking.login(login.id).status == "failed"
    # The bot deletes the refusals when the login ends.
    assert ada.visible_titles() == ["notes: not connected"]
    assert "Too many wrong answers" in ada.visible_text()


@covers("chat-replay")
def test_used_answer_is_refused_and_deleted(ada: ChatUser, bot: ChatBot, demo: Demo) -> None:
    ada.send_text("/connect notes")
    answer = approve(bot.login.authorization_url)
    ada.paste(answer)
    assert ada.paste(answer)
    assert answer not in ada.visible_text()
    assert ada.visible_titles() == ["notes: connected", "notes: already connected"]
    assert demo.authorization_server.count_requests("token") == 1


@covers("sender-binding")
def test_answer_from_another_user_is_refused_and_login_waits(ada: ChatUser, bot: ChatBot) -> None:
    bob = bot.user("bob")
    ada.send_text("/connect notes")
    answer = approve(bot.login.authorization_url)
    assert bob.paste(answer)
    assert bob.visible_titles() == ["None of your logins waits for this answer"]
    assert answer not in bob.visible_text()
    assert ada.paste(answer)
    assert ada.visible_titles() == ["notes: connected"]


@covers("chat-still-connected")
@pytest.mark.parametrize("ending", ["cancelled", "expired", "failed", "not started", "abandoned exchange"])
def test_a_login_that_fails_does_not_say_that_a_connected_server_is_not_connected(
    ada: ChatUser, bot: ChatBot, demo: Demo, clock: ManualClock, ending: str
) -> None:
    ada.send_text("/connect notes")
    ada.paste(approve(bot.login.authorization_url))
    if ending == "not started":
        demo.authorization_server.fail_next("authorization_server_metadata", status=503, times=None)
    ada.send_text("/connect notes")
    if ending == "cancelled":
        ada.press("Cancel")
    elif ending == "expired":
        clock.now += 601
    elif ending == "failed":
        login = bot.login
        denied = f"{login.request.redirect_uri}?error=access_denied&state={login.request.state.reveal()}"
        ada.paste(f"{denied}&iss={login.request.issuer}")
    elif ending == "abandoned exchange":
        # The process that claimed the login was killed.
        bot.service._logins._completion.claim(bot.login)
        clock.now += CLAIM_SECONDS
    bot.settle()
    assert ada.visible_titles() == ["notes: connected", "notes: still connected"]
    assert bot.run(bot.dispatcher.session("notes", "ada").header()).startswith("Bearer ")
    # Without a usable session, the server is not connected.
    ada.press("Disconnect")
    ada.press("Yes, disconnect")
    demo.authorization_server.clear_faults()
    ada.send_text("/connect notes")
    ada.press("Cancel")
    assert ada.last_card.title == "notes: not connected"


@covers("sender-binding")
@pytest.mark.parametrize("label", ["QR code", "Cancel"])
def test_button_of_another_users_login_does_nothing(ada: ChatUser, bot: ChatBot, label: str) -> None:
    bob = bot.user("bob")
    ada.send_text("/connect notes")
    _, button = ada.find_button(label)
    bob.send_text("/connections")
    assert bob.press_action(button.action, message_id="1")
    assert bob.room.toasts == ["That login is over."]
    assert [bot.login.status, len(bob.room.cards())] == ["waiting", 1]


@covers("bare-code")
def test_bare_code_is_accepted_without_iss_support_if_one_login_waits(
    start_bot: StartBot, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(iss_supported=False)
    bot = start_bot("notes", "mail")
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    notes = bot.login
    code = approve(notes.authorization_url).partition("code=")[2].partition("&")[0]
    ada.send_text("/connect mail")
    assert ada.paste(code)
    assert "A code alone does not say which login it belongs to." in ada.visible_text()
    assert code not in ada.visible_text()
    bot.run(bot.service.cancel(next(login.id for login in bot.waiting_logins() if login.id != notes.id)))
    assert ada.paste(code)
    assert bot.service.blocking.login(notes.id).status == "done"


def test_platform_with_forms_treats_answer_as_message_as_exposed(start_bot: StartBot) -> None:
    bot = start_bot(platform=FakePlatform(Capabilities(has_forms=True, can_delete=False)))
    ada = bot.user("ada")
    ada.room.cannot_delete = True
    ada.send_text("/connect notes")
    first = bot.login
    assert ada.find_button("Paste the address")[1].opens_form
    assert ada.paste(approve(first.authorization_url))
    assert bot.service.blocking.login(first.id).status == "cancelled"
    assert ada.last_card.title == "Do not send the address as a message"
    assert "please delete that message yourself" in ada.visible_text()
    second = bot.login
    ada.press("Paste the address", approve(second.authorization_url))
    assert bot.service.blocking.login(second.id).status == "done"


def test_new_login_of_same_server_replaces_waiting_login(ada: ChatUser, bot: ChatBot) -> None:
    ada.send_text("/connect notes")
    first = bot.login
    ada.send_text("/connect notes")
    assert bot.service.blocking.login(first.id).status == "cancelled"
    assert bot.login.id != first.id
    assert ada.visible_titles() == ["notes: not connected", "Connect notes"]


def test_failed_start_keeps_waiting_login(ada: ChatUser, bot: ChatBot, demo: Demo) -> None:
    ada.send_text("/connect notes")
    first = bot.login
    demo.authorization_server.fail_next("protected_resource_metadata", status=503, times=None)
    ada.send_text("/connect notes")
    assert ada.last_card.title == "notes: not connected"
    assert bot.login.id == first.id


def test_missing_or_unknown_server_name_asks_which_server(start_bot: StartBot) -> None:
    bot = start_bot("notes", "mail")
    ada = bot.user("ada")
    for text, title in (
        ("/connect", "Which server do you want to connect?"),
        ("/connect nobody-knows", "There is no such server"),
    ):
        ada.send_text(text)
        assert ada.last_card.title == title
    ada.press("mail")
    assert ada.last_card.title == "Connect mail"
    assert bot.login.key.server_name == "mail"
    # The prompt replaces the question.
    assert len(ada.room.cards()) == 2


def test_server_name_is_case_insensitive(ada: ChatUser, bot: ChatBot) -> None:
    ada.send_text("/connect NOTES")
    assert bot.login.key.server_name == "notes"


def test_unrelated_messages_are_not_claimed(ada: ChatUser, bot: ChatBot) -> None:
    for text in (
        "hello",
        "/weather",
        "/cancel",
        "/new",
        "/start",
        "/start something-else",
        "what does http://127.0.0.1:8765/callback mean?",
        "0123456789abcdef0123456789abcdef",
    ):
        assert not ada.send_text(text), text
    assert not ada.press_action("other:button", message_id="1")
    ada.send_text("/connect notes")
    assert not ada.send_text("what else is there?")
    assert ada.visible_titles() == ["Connect notes"]


def test_commands_can_be_typed_without_buttons(start_bot: StartBot) -> None:
    bot = start_bot(platform=FakePlatform(Capabilities(has_buttons=False, command_prefix="/mcpauth ")))
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    assert "To answer, type: /mcpauth qr, /mcpauth cancel." in ada.visible_text()
    assert ada.last_card.buttons == ()
    ada.send_text("/qr")
    assert [bool(message.png) for message in ada.room.messages.values()][-1]
    ada.send_text("/cancel")
    assert "Cancelled" in ada.visible_text()
