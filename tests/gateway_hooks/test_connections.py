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
from tests.browserless import approve
from tests.demo.player import MovedClock
from tests.gateway_hooks.conftest import Begin
from tests.gateway_hooks.given import Person, Place, Talk
from tests.gateway_hooks.test_login import compare
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow


def connect(talk: Talk, person: Person, name: str = "notes") -> None:
    person.says(f"/connect {name}")
    (login,) = [each for each in talk.waiting() if each.key.server_name == name]
    person.pastes(approve(login.authorization_url))


def test_connections_are_listed_and_ended_from_the_list(begin: Begin, demo: Demo) -> None:
    talk = begin("notes", "mail", "tasks")
    ada = talk.person("ada")
    connect(talk, ada)
    ada.says("/connect tasks")
    ada.room.messages.clear()
    seen = []
    for act in ("/connections", "Disconnect notes", "Keep it", "/connections"):
        if act.startswith("/"):
            ada.says(act)
        else:
            ada.presses(act)
        seen.append(ada.reads())
    ada.presses("Disconnect notes")
    ada.presses("Yes, disconnect")
    seen.append(ada.reads())
    compare("chat_connections", "\n\n--------\n\n".join(seen))
    assert talk.service.connection(talk.desk._context.servers.find("notes")) is None
    assert demo.authorization_server.count_requests("revocation") >= 1
    assert ada.room.notes[-1] == "One moment…"


def test_what_the_provider_did_not_revoke_is_told(ada: Person, talk: Talk, demo: Demo) -> None:
    connect(talk, ada)
    demo.authorization_server.fail_next("revocation", status=503, times=None)
    ada.presses("Disconnect")
    ada.presses("Yes, disconnect")
    assert "The provider did not confirm that it revoked them" in ada.reads()
    assert talk.service.keys() == []


def test_the_account_that_is_not_ones_own_is_disconnected_from_where_it_is_named(
    ada: Person, talk: Talk
) -> None:
    connect(talk, ada)
    assert "If that is not your account, disconnect at once." in ada.reads()
    ada.presses("Disconnect")
    assert ada.sees() == ["Disconnect notes?"]
    assert "All users of this bot lose the connection." in ada.reads()
    ada.presses("Yes, disconnect")
    assert ada.sees() == ["notes: disconnected"]
    ada.presses("Connect notes")
    assert ada.sees() == ["Connect notes"]


def test_disconnecting_can_be_typed_also_where_a_name_has_spaces(begin: Begin) -> None:
    talk = begin("my notes", place=Place(Capabilities(has_buttons=False, command_prefix="/mcpauth ")))
    ada = talk.person("ada")
    connect(talk, ada, "my notes")
    ada.says("/disconnect my notes")
    assert "To answer, type: /mcpauth disconnect my notes yes." in ada.reads()
    ada.says("/disconnect My Notes YES")
    assert ada.last.title == "my notes: disconnected"
    assert talk.service.keys() == []


def test_a_name_that_nobody_knows_leads_to_the_list(ada: Person, talk: Talk) -> None:
    connect(talk, ada)
    ada.says("/disconnect something yes")
    assert ada.last.title == "Connections"
    assert talk.service.keys() == [CredentialKey("notes")]


def test_a_session_that_is_over_and_one_that_cannot_be_read_are_told_apart(
    begin: Begin, demo: Demo, tmp_path: Path
) -> None:
    talk = begin("notes", "mail")
    ada = talk.person("ada")
    for name in ("notes", "mail"):
        connect(talk, ada, name)
    demo.authorization_server.ledger.revoke_everything()
    session = talk.desk.session("notes", "ada")

    async def used() -> None:
        with pytest.raises(Exception, match="needs a login"):
            await session.handle_challenge(await session.header(), 401, [])

    talk.run(used())
    (tmp_path / "mcp-tokens" / "mail.json").write_text("{")
    ada.says("/connections")
    assert "notes: login needed: " in ada.reads()
    assert "mail: unreadable: " in ada.reads()


def test_a_message_that_is_gone_is_answered_in_a_new_one(ada: Person) -> None:
    ada.says("/connections")
    message, button = ada.button("Connect notes")
    del ada.room.messages[message.id]
    ada.presses_again(button.action, on=message.id)
    assert ada.sees() == ["Connect notes"]


def test_help_is_for_those_who_may(ada: Person, talk: Talk) -> None:
    talk.run(talk.desk.send_help(ada._spoken("/help"), ada.chat))
    assert "/connect: log in to a server" in ada.reads()
    eve = talk.person("eve")
    talk.run(talk.desk.send_help(eve._spoken("/help"), eve.chat))
    assert eve.sees() == ["You may not use this bot yet"]


def test_a_mistake_in_the_configuration_is_said(
    tmp_path: Path, demo: Demo, clock: MovedClock, runner: asyncio.Runner
) -> None:
    entries = {
        "notes": {"url": demo.ping_url, "auth": "oauth"},
        "wrong": {"url": demo.ping_url, "auth": "oauth", "oauth": {"flow": "none-such"}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"mcp_servers": entries}))
    service = AuthService(tmp_path, clock=clock)
    talk = Talk(runner, service, ConfigServers(tmp_path, {}), clock)
    ada = talk.person("ada")
    ada.says("/connections")
    assert "notes: not connected" in ada.reads()
    assert "wrong: unreadable: " in ada.reads()
    for act in ("/connect wrong", "/disconnect wrong yes"):
        ada.says(act)
        assert "config.yaml" in str(ada.room.cards()[-1])
        assert ada.last.tone == "bad"
    (tmp_path / "config.yaml").write_text("{")
    for act in ("/connections", "/connect notes"):
        assert ada.says(act)
        assert "config.yaml" in str(ada.room.cards()[-1])


def test_where_no_server_is_configured_that_is_said(
    tmp_path: Path, clock: MovedClock, runner: asyncio.Runner
) -> None:
    talk = Talk(runner, AuthService(tmp_path, clock=clock), StaticServers([]), clock)
    ada = talk.person("ada")
    for act in ("/connections", "/connect", "/connect notes"):
        ada.says(act)
        assert "No server that users can log in to is configured here." in str(ada.room.cards()[-1])


def test_servers_are_found_by_name_in_any_case_where_that_is_clear_and_by_tag() -> None:
    servers = StaticServers(
        Server(name, "https://mcp.example/mcp") for name in ("notes", "Mail", "mail", "x" * 300)
    )
    for name, found in (("notes", "notes"), ("NOTES", "notes"), ("mail", "mail"), ("Mail", "Mail")):
        server = resolve_server(servers, name)
        assert server is not None
        assert server.name == found
    assert resolve_server(servers, "MAIL") is None
    assert resolve_server(servers, "") is None
    long = resolve_server(servers, "", tag_of("x" * 300))
    assert long is not None
    assert long.name == "x" * 300
    assert resolve_server(servers, "", "0123456789abcdef") is None
    with pytest.raises(ServerNotFound):
        servers.find("nobody")


def test_configured_servers_are_read_anew_each_time(tmp_path: Path) -> None:
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
def test_an_answer_behind_a_command_is_an_answer(ada: Person, talk: Talk) -> None:
    ada.says("/connect notes")
    answer = approve(talk.login.authorization_url)
    ada.says(f"/connect {answer}")
    assert ada.sees() == ["notes: connected"]
    assert answer not in ada.reads()


@covers("bare-code", "chat-not-echoed")
def test_an_answer_that_says_nothing_of_its_login_is_held_against_the_latest(
    begin: Begin, clock: MovedClock
) -> None:
    talk = begin("notes", "mail")
    ada = talk.person("ada")
    ada.says("/connect notes")
    clock.now += 1
    ada.says("/connect mail")
    first, second = talk.waiting()
    ada.pastes("a1" * 20)
    assert [talk.service.login(each.id).paste_attempts for each in (first, second)] == [0, 1]
    assert "That did not finish the login of mail" in ada.sees()
    assert "a1a1" not in ada.reads()


def test_a_login_that_another_finishes_at_the_same_moment_is_not_said_to_have_failed(
    ada: Person, talk: Talk, demo: Demo
) -> None:
    ada.says("/connect notes")
    answer = approve(talk.login.authorization_url)

    async def twice() -> None:
        heard = [replace(ada._spoken(answer)) for _ in range(2)]
        await asyncio.gather(*(talk.desk.handle(each, ada.chat) for each in heard))
        await talk.settled()

    talk.run(twice())
    assert demo.authorization_server.count_requests("token") == 1
    assert "notes: connected" in ada.sees()
    assert answer not in ada.reads()
