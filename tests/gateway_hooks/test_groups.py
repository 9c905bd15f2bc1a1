"""In groups the bot shows no login. If a user posts an answer in a group, its login ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Origin
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.gateway_hooks.conftest import StartBot
from tests.gateway_hooks.fake_platform import ChatBot, ChatUser, without_secrets
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.transcript_files import compare_transcript

pytestmark = pytest.mark.slow


@pytest.fixture
def ada_in_group(bot: ChatBot) -> ChatUser:
    return bot.user("ada", group="kitchen")


@covers("chat-private")
@pytest.mark.parametrize("command", ["/connect notes", "/connect", "/connections", "/disconnect notes"])
def test_group_command_is_answered_in_private(
    bot: ChatBot, ada: ChatUser, ada_in_group: ChatUser, command: str
) -> None:
    assert ada_in_group.send_text(command)
    assert ada_in_group.visible_titles() == ["I wrote to you privately."]
    assert len(ada.visible_titles()) == 1


@covers("chat-private")
def test_login_from_group_is_finished_in_private(bot: ChatBot, ada: ChatUser, ada_in_group: ChatUser) -> None:
    ada_in_group.send_text("/connect notes")
    assert bot.login.origin == ada.chat.origin
    ada.press("QR code")
    ada.paste(approve(bot.login.authorization_url))
    assert ada.visible_titles() == ["notes: connected"]
    assert ada_in_group.visible_titles() == ["I wrote to you privately."]


@covers("chat-private")
def test_deep_link_continues_login_if_bot_cannot_write_first(
    bot: ChatBot, ada: ChatUser, ada_in_group: ChatUser
) -> None:
    ada.room.cannot_write = True
    ada_in_group.send_text("/connect notes")
    login = bot.login
    (card,) = ada_in_group.room.cards()
    assert card.paragraphs == ("I cannot write to you yet. Open our private chat and continue there.",)
    assert card.link is not None
    ada.room.cannot_write = False
    assert ada.send_text(f"/start {card.link.url.partition('start=')[2]}")
    assert ada.visible_titles() == ["Connect notes"]
    # The bot also removes the first prompt when the login ends.
    assert ada.send_text(f"/start mcp_{login.id}")
    ada.paste(approve(login.authorization_url))
    assert ada.visible_titles() == ["notes: connected"]


@covers("chat-private")
def test_start_with_login_id_in_group_shows_login_in_private(
    bot: ChatBot, ada: ChatUser, ada_in_group: ChatUser
) -> None:
    ada.room.cannot_write = True
    ada_in_group.send_text("/connect notes")
    ada.room.cannot_write = False
    ada_in_group.send_text(f"/start mcp_{bot.login.id}")
    assert ada.visible_titles() == ["Connect notes"]
    assert ada_in_group.visible_titles() == ["Connect notes", "I wrote to you privately."]


def test_continue_button_works_only_for_its_user(bot: ChatBot, ada: ChatUser, ada_in_group: ChatUser) -> None:
    bot.platform.has_deep_links = False
    ada.room.cannot_write = True
    ada_in_group.send_text("/connect notes")
    bob_in_group = bot.user("bob", group="kitchen")
    bob_in_group.press("Continue")
    assert bot.user("bob").room.toasts == ["That login belongs to another user."]
    assert bot.user("bob").visible_titles() == []
    ada.room.cannot_write = False
    ada_in_group.press("Continue")
    assert ada.visible_titles() == ["Connect notes"]


def test_deep_link_without_login_shows_connections(
    bot: ChatBot, ada: ChatUser, ada_in_group: ChatUser
) -> None:
    ada.room.cannot_write = True
    for command in ("/connections", "/connect"):
        ada_in_group.send_text(command)
        link = ada_in_group.last_card.link
        assert link is not None
        assert link.url.endswith("?start=mcp_")
    ada.room.cannot_write = False
    ada.send_text("/start mcp_")
    assert ada.visible_titles() == ["Connections"]


@pytest.mark.parametrize("state", ["over", "unknown"])
def test_deep_link_of_ended_login_says_so(
    bot: ChatBot, ada: ChatUser, ada_in_group: ChatUser, state: str
) -> None:
    ada.room.cannot_write = True
    ada_in_group.send_text("/connect notes")
    login_id = bot.login.id if state == "over" else "another"
    bot.run(bot.service.cancel(bot.login.id))
    ada.room.cannot_write = False
    ada.send_text(f"/start mcp_{login_id}")
    assert ada.visible_titles() == ["That login is over."]


@covers("chat-exposed")
def test_answer_in_group_is_deleted_and_login_restarts_in_private(
    bot: ChatBot, ada: ChatUser, ada_in_group: ChatUser
) -> None:
    ada.send_text("/connect notes")
    first = bot.login
    answer = approve(first.authorization_url)
    assert ada_in_group.paste(answer)
    assert answer not in ada_in_group.visible_text()
    assert bot.service.blocking.login(first.id).status == "cancelled"
    second = bot.login
    compare_transcript(
        "chat_exposed",
        without_secrets(f"{ada_in_group.visible_text()}\n\n--------\n\n{ada.visible_text()}", first, second),
    )
    # The exposed answer no longer works.
    ada.paste(answer)
    assert bot.login.id == second.id
    ada.paste(approve(second.authorization_url))
    assert bot.service.blocking.login(second.id).status == "done"


@covers("chat-exposed")
def test_user_is_told_to_delete_answer_if_bot_cannot(
    bot: ChatBot, ada: ChatUser, ada_in_group: ChatUser
) -> None:
    ada_in_group.room.cannot_delete = True
    ada.send_text("/connect notes")
    first = bot.login
    ada_in_group.paste(approve(first.authorization_url))
    assert (
        "I may not delete messages here: please delete that message yourself." in ada_in_group.visible_text()
    )
    assert bot.service.blocking.login(first.id).status == "cancelled"


@covers("chat-exposed")
def test_exposed_login_ends_even_if_restart_fails(
    bot: ChatBot, ada: ChatUser, ada_in_group: ChatUser, demo: Demo
) -> None:
    ada.send_text("/connect notes")
    first = bot.login
    answer = approve(first.authorization_url)
    demo.authorization_server.fail_next("protected_resource_metadata", status=503, times=None)
    ada_in_group.paste(answer)
    assert bot.service.blocking.login(first.id).status == "cancelled"
    assert bot.waiting_logins() == []


@covers("chat-exposed")
def test_answer_of_another_user_in_group_is_deleted_and_keeps_login(bot: ChatBot, ada: ChatUser) -> None:
    bob_in_group = bot.user("bob", group="kitchen")
    ada.send_text("/connect notes")
    answer = approve(bot.login.authorization_url)
    assert bob_in_group.paste(answer)
    assert answer not in bob_in_group.visible_text()
    assert bob_in_group.visible_titles() == ["Do not post codes in a group"]
    assert bot.login.status == "waiting"


@covers("chat-ours")
def test_other_url_in_group_is_not_claimed(bot: ChatBot, ada_in_group: ChatUser) -> None:
    assert not ada_in_group.send_text("see https://example.com/?code=1&state=2")
    assert len(ada_in_group.room.messages) == 1


def test_exposed_login_ends_even_if_bot_cannot_write_in_private(
    bot: ChatBot, ada: ChatUser, ada_in_group: ChatUser
) -> None:
    ada.send_text("/connect notes")
    first = bot.login
    answer = approve(first.authorization_url)
    ada.room.cannot_write = True
    ada_in_group.paste(answer)
    assert bot.service.blocking.login(first.id).status == "cancelled"
    assert bot.waiting_logins() == []
    assert "Finish logins only in our private chat." in ada_in_group.visible_text()


def test_answer_in_group_cancels_login_of_another_process(
    bot: ChatBot, ada: ChatUser, ada_in_group: ChatUser, tmp_path: Path, clock: ManualClock
) -> None:
    server = bot.dispatcher._context.servers.find("notes")
    other_service = AuthService(tmp_path, clock=clock)
    first = bot.run(other_service.start_login(server, Origin("parlour", user_id="ada")))
    bot.settle()
    ada_in_group.paste(approve(first.authorization_url))
    assert other_service.blocking.login(first.id).status == "cancelled"
    assert ada_in_group.visible_titles() == ["Do not post codes in a group"]


@covers("chat-private")
def test_press_in_group_edits_no_private_message(start_bot: StartBot) -> None:
    bot = start_bot("notes", "mail")
    ada, ada_in_group = bot.user("ada"), bot.user("ada", group="kitchen")
    ada.send_text("/connections")
    (list_message,) = [message for message in ada.room.messages.values() if message.author == "bot"]
    list_card = list_message.card
    ada_in_group.press_action(ada.find_button("Connect mail")[1].action, message_id=list_message.id)
    assert list_message.card == list_card
    assert ada.visible_titles() == ["Connections", "Connect mail"]
