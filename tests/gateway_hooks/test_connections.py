"""The list of connections, disconnecting, help and the choice of servers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from gateway_hooks.dialog.platform import Capabilities
from gateway_hooks.dialog.servers import StaticServers, resolve_server, tag_of
from gateway_hooks.runtime.config_servers import ConfigServers
from hermes_mcp_auth_remote.errors import ConfigError, ServerNotFound
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import CredentialKey, Server
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.gateway_hooks.conftest import StartBot
from tests.gateway_hooks.fake_platform import ChatBot, ChatUser, FakePlatform
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.transcript_files import compare_transcript

pytestmark = pytest.mark.slow


def connect_server(bot: ChatBot, user: ChatUser, server_name: str = "notes") -> None:
    user.send_text(f"/connect {server_name}")
    (login,) = [
        waiting_login
        for waiting_login in bot.waiting_logins()
        if waiting_login.key.server_name == server_name
    ]
    user.paste(approve(login.authorization_url))


def test_connections_are_listed_and_disconnected(start_bot: StartBot, demo: Demo) -> None:
    bot = start_bot("notes", "mail", "tasks")
    ada = bot.user("ada")
    connect_server(bot, ada)
    ada.send_text("/connect tasks")
    ada.room.messages.clear()
    screens = []
    for action in ("/connections", "Disconnect notes", "Keep it", "/connections"):
        if action.startswith("/"):
            ada.send_text(action)
        else:
            ada.press(action)
        screens.append(ada.visible_text())
    ada.press("Disconnect notes")
    ada.press("Yes, disconnect")
    screens.append(ada.visible_text())
    compare_transcript("chat_connections", "\n\n--------\n\n".join(screens))
    assert bot.service.blocking.connection(bot.dispatcher._context.servers.find("notes")) is None
    assert demo.authorization_server.count_requests("revocation") >= 1
    assert ada.room.toasts[-1] == "One moment…"


@pytest.mark.parametrize("state", ["never connected", "waiting", "disconnected"])
@pytest.mark.parametrize("text", ["/disconnect notes", "/disconnect notes yes"])
def test_a_server_that_is_not_connected_needs_no_confirmation(
    ada: ChatUser, bot: ChatBot, state: str, text: str
) -> None:
    if state == "disconnected":
        connect_server(bot, ada)
        ada.send_text("/disconnect notes yes")
        assert ada.last_card.title == "notes: disconnected"
    elif state == "waiting":
        ada.send_text("/connect notes")
    ada.send_text(text)
    assert ada.last_card.title == "notes: not connected"
    assert ada.last_card.paragraphs == ("There is nothing to disconnect.",)
    # A confirmed disconnect also ends a login that waits, as a logout does.
    assert len(bot.waiting_logins()) == (state == "waiting" and not text.endswith("yes"))
    ada.press("Connect notes")
    assert ada.last_card.title == "Connect notes"


def test_the_second_of_two_confirmations_says_that_there_is_nothing_left(ada: ChatUser, bot: ChatBot) -> None:
    connect_server(bot, ada)
    for _ in range(2):
        ada.send_text("/disconnect notes")
    ada.press("Yes, disconnect")
    ada.send_text("/disconnect notes yes")
    assert ada.last_card.title == "notes: not connected"


def test_unreadable_tokens_can_be_disconnected(ada: ChatUser, bot: ChatBot, tmp_path: Path) -> None:
    connect_server(bot, ada)
    (tmp_path / "mcp-tokens" / "notes.json").write_text("{")
    ada.send_text("/disconnect notes")
    assert ada.last_card.title == "Disconnect notes?"
    ada.press("Yes, disconnect")
    assert ada.last_card.title == "notes: disconnected"


def test_failed_revocation_is_reported(ada: ChatUser, bot: ChatBot, demo: Demo) -> None:
    connect_server(bot, ada)
    demo.authorization_server.fail_next("revocation", status=503, times=None)
    ada.press("Disconnect")
    ada.press("Yes, disconnect")
    assert "The provider did not confirm that it revoked them" in ada.visible_text()
    assert bot.service.blocking.keys() == []


def test_wrong_account_can_be_disconnected_from_outcome(ada: ChatUser, bot: ChatBot) -> None:
    connect_server(bot, ada)
    assert "If that is not your account, disconnect at once." in ada.visible_text()
    ada.press("Disconnect")
    assert ada.visible_titles() == ["Disconnect notes?"]
    assert "All users of this bot lose the connection." in ada.visible_text()
    ada.press("Yes, disconnect")
    assert ada.visible_titles() == ["notes: disconnected"]
    ada.press("Connect notes")
    assert ada.visible_titles() == ["Connect notes"]


def test_disconnect_can_be_typed_with_spaces_in_name(start_bot: StartBot) -> None:
    bot = start_bot(
        "my notes", platform=FakePlatform(Capabilities(has_buttons=False, command_prefix="/mcpauth "))
    )
    ada = bot.user("ada")
    connect_server(bot, ada, "my notes")
    ada.send_text("/disconnect my notes")
    assert "To answer, type: /mcpauth disconnect my notes yes." in ada.visible_text()
    ada.send_text("/disconnect My Notes YES")
    assert ada.last_card.title == "my notes: disconnected"
    assert bot.service.blocking.keys() == []


def test_unknown_server_name_shows_connections(ada: ChatUser, bot: ChatBot) -> None:
    connect_server(bot, ada)
    ada.send_text("/disconnect something yes")
    assert ada.last_card.title == "Connections"
    assert bot.service.blocking.keys() == [CredentialKey("notes")]


def test_ended_and_unreadable_sessions_are_distinguished(
    start_bot: StartBot, demo: Demo, tmp_path: Path
) -> None:
    bot = start_bot("notes", "mail")
    ada = bot.user("ada")
    for name in ("notes", "mail"):
        connect_server(bot, ada, name)
    demo.authorization_server.ledger.revoke_everything()
    session = bot.dispatcher.session("notes", "ada")

    async def use_session() -> None:
        with pytest.raises(Exception, match="needs a login"):
            await session.handle_challenge(await session.header(), 401, [])

    bot.run(use_session())
    (tmp_path / "mcp-tokens" / "mail.json").write_text("{")
    ada.send_text("/connections")
    assert "notes: login needed: " in ada.visible_text()
    assert "mail: unreadable: " in ada.visible_text()


def test_press_on_deleted_message_sends_new_message(ada: ChatUser) -> None:
    ada.send_text("/connections")
    message, button = ada.find_button("Connect notes")
    del ada.room.messages[message.id]
    ada.press_action(button.action, message_id=message.id)
    assert ada.visible_titles() == ["Connect notes"]


def test_help_is_sent_to_allowed_users(ada: ChatUser, bot: ChatBot) -> None:
    bot.run(bot.dispatcher.send_help(ada.message_event("/help"), ada.chat))
    assert "/connect: log in to a server" in ada.visible_text()
    eve = bot.user("eve")
    bot.run(bot.dispatcher.send_help(eve.message_event("/help"), eve.chat))
    assert eve.visible_titles() == ["You may not use this bot yet"]


def test_configuration_error_is_reported(
    tmp_path: Path, demo: Demo, clock: ManualClock, runner: asyncio.Runner
) -> None:
    entries = {
        "notes": {"url": demo.ping_url, "auth": "oauth"},
        "wrong": {"url": demo.ping_url, "auth": "oauth", "oauth": {"flow": "none-such"}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"mcp_servers": entries}))
    service = AuthService(tmp_path, clock=clock)
    bot = ChatBot(runner, service, ConfigServers(tmp_path, {}), clock)
    ada = bot.user("ada")
    ada.send_text("/connections")
    assert "notes: not connected" in ada.visible_text()
    assert "wrong: unreadable: " in ada.visible_text()
    for command in ("/connect wrong", "/disconnect wrong yes"):
        ada.send_text(command)
        assert "config.yaml" in str(ada.room.cards()[-1])
        assert ada.last_card.tone == "bad"
    (tmp_path / "config.yaml").write_text("{")
    for command in ("/connections", "/connect notes"):
        assert ada.send_text(command)
        assert "config.yaml" in str(ada.room.cards()[-1])


def test_missing_servers_are_reported(tmp_path: Path, clock: ManualClock, runner: asyncio.Runner) -> None:
    bot = ChatBot(runner, AuthService(tmp_path, clock=clock), StaticServers([]), clock)
    ada = bot.user("ada")
    for command in ("/connections", "/connect", "/connect notes"):
        ada.send_text(command)
        assert "This bot has no server yet. Its operator adds servers to config.yaml." in str(
            ada.room.cards()[-1]
        )


def test_resolve_server_accepts_any_case_and_tag() -> None:
    servers = StaticServers(
        Server(name, "https://mcp.example/mcp") for name in ("notes", "Mail", "mail", "x" * 300)
    )
    for name, expected_name in (("notes", "notes"), ("NOTES", "notes"), ("mail", "mail"), ("Mail", "Mail")):
        server = resolve_server(servers, name)
        assert server is not None
        assert server.name == expected_name
    assert resolve_server(servers, "MAIL") is None
    assert resolve_server(servers, "") is None
    long_named_server = resolve_server(servers, "", tag_of("x" * 300))
    assert long_named_server is not None
    assert long_named_server.name == "x" * 300
    assert resolve_server(servers, "", "0123456789abcdef") is None
    with pytest.raises(ServerNotFound):
        servers.find("nobody")


def test_configured_servers_follow_file_changes(tmp_path: Path) -> None:
    servers = ConfigServers(tmp_path, {})
    file = tmp_path / "config.yaml"
    for name in ("one", "two"):
        file.write_text(
            yaml.safe_dump({"mcp_servers": {name: {"url": "https://mcp.example/", "auth": "oauth"}}})
        )
        assert servers.names() == [name]
        assert servers.find(name).name == name
    with pytest.raises(ServerNotFound):
        servers.find("one")
    file.write_text("{")
    with pytest.raises(ConfigError):
        servers.names()


@covers("chat-answer-deleted")
def test_answer_after_command_is_accepted(ada: ChatUser, bot: ChatBot) -> None:
    ada.send_text("/connect notes")
    answer = approve(bot.login.authorization_url)
    ada.send_text(f"/connect {answer}")
    assert ada.visible_titles() == ["notes: connected"]
    assert answer not in ada.visible_text()


@covers("bare-code", "chat-not-echoed")
def test_answer_without_state_counts_for_latest_login(start_bot: StartBot, clock: ManualClock) -> None:
    bot = start_bot("notes", "mail")
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    clock.now += 1
    ada.send_text("/connect mail")
    first, second = bot.waiting_logins()
    ada.paste("a1" * 20)
    assert [bot.service.blocking.login(login.id).paste_attempts for login in (first, second)] == [0, 1]
    assert "Your answer did not complete the login to mail" in ada.visible_titles()
    assert "a1a1" not in ada.visible_text()


def test_concurrent_answers_connect_once_without_failure(ada: ChatUser, bot: ChatBot, demo: Demo) -> None:
    ada.send_text("/connect notes")
    answer = approve(bot.login.authorization_url)

    async def answer_twice() -> None:
        events = [replace(ada.message_event(answer)) for _ in range(2)]
        await asyncio.gather(*(bot.dispatcher.handle(event, ada.chat) for event in events))
        await bot.settle_in_loop()

    bot.run(answer_twice())
    assert demo.authorization_server.count_requests("token") == 1
    assert "notes: connected" in ada.visible_titles()
    assert answer not in ada.visible_text()
