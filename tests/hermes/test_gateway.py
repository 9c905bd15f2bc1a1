"""The real Hermes gateway over local chat platforms, a stand-in model and MCP servers; no plugin yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.demo.behaviour import Behaviour
from hermes_mcp_auth_remote.demo.serving import Demo, running
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
from tests import tripwire
from tests.parts import bot_api, discord_api
from tests.parts.bot_api import BotApi, User
from tests.parts.hermes_gateway import Gateway, gateway
from tests.parts.model import Call, Model, model
from tests.service.given import log_in

pytestmark = pytest.mark.hermes

CALL_SECONDS = 10
SECONDS = 60.0  # a turn takes two, on an idle machine
PATHS = ("/mcp", "/later")
GREETER = """
def register(ctx):
    ctx.register_command("greet", lambda name: f"Good day, {name}.", "Greets", "name")
    def setup(parser):
        parser.add_argument("name")

    ctx.register_cli_command("greet", "Greets", setup, lambda given: print(f"Good day, {given.name}."))
"""


@dataclass(frozen=True, slots=True)
class Chat:
    """Anna's private chat with the agent."""

    api: BotApi
    anna: User
    model: Model
    hermes: Gateway
    demo: Demo

    def ask(self, text: str, *, until: str) -> None:
        """Write a message and wait for the agent's answer."""
        self.api.say(self.anna, text)
        self.api.wait(lambda: any(until in said.text for said in self.api.messages(self.anna)), SECONDS)


def started(api: BotApi) -> User:
    """Let Anna press Start before the gateway is there, which would lose what comes right behind it."""
    anna = api.user(42, "Anna")
    api.start(anna)
    return anna


@contextmanager
def chatting(home: Path, *connected: str) -> Iterator[Chat]:
    """Run everything; `connected` are the paths of the demo's servers that have tokens at the start."""
    with running(Behaviour(), paths=PATHS) as demo, bot_api.running() as api, model() as stand_in:
        tripwire.guard([api.token])
        urls = {path.strip("/"): demo.resources.origin + path for path in PATHS}
        for path in connected:
            name = path.strip("/")
            asyncio.run(log_in(AuthService(home), Server(name, urls[name])))
        servers = {name: {"url": url, "auth": "oauth", "timeout": CALL_SECONDS} for name, url in urls.items()}
        anna = started(api)
        with gateway(home, telegram=api, model=stand_in, mcp_servers=servers, allowed=[anna.id]) as hermes:
            yield Chat(api, anna, stand_in, hermes, demo)


def test_a_message_is_answered_by_the_stand_in_and_is_found_where_hermes_keeps_it(tmp_path: Path) -> None:
    with chatting(tmp_path) as chat:
        chat.model.will("Hello, Anna.")
        chat.ask("Good morning, machine.", until="Hello, Anna.")
        assert chat.model.saw("Good morning, machine.")
        chat.hermes.stop()
        places = chat.hermes.search_everything("Good morning, machine.")
        # So a secret that is nowhere there was not looked for in vain.
        assert "state.db: messages" in places
        assert "logs/agent.log" in places
        assert "Good morning, machine." in chat.hermes.state_db_text()


def test_a_server_whose_tokens_are_stored_has_its_tools_called(tmp_path: Path) -> None:
    with chatting(tmp_path, "/mcp") as chat:
        chat.model.will(Call("mcp__mcp__whoami"), "You are Ada there.")
        chat.ask("Who am I?", until="You are Ada there.")
        assert "ada@example.com" in chat.model.tool_results()[-1]


def test_a_server_without_a_token_has_no_tools(tmp_path: Path) -> None:
    with chatting(tmp_path, "/mcp") as chat:
        chat.ask("What can you do?", until="Understood.")
        assert {name for name in chat.model.tools() if name.startswith("mcp__")} == {
            "mcp__mcp__add",
            "mcp__mcp__whoami",
        }
        assert "MCP OAuth for 'later'" in chat.hermes.logs()


def test_tokens_that_came_while_it_ran_are_found_after_a_restart(tmp_path: Path) -> None:
    with chatting(tmp_path) as chat:
        asyncio.run(log_in(AuthService(tmp_path), Server("later", chat.demo.resources.origin + "/later")))
        chat.hermes.restart()
        chat.model.will(Call("mcp__later__whoami"), "Found you.")
        chat.ask("Who am I now?", until="Found you.")
        assert "ada@example.com" in chat.model.tool_results()[-1]


def test_a_held_answer_keeps_the_turn_open(tmp_path: Path) -> None:
    with chatting(tmp_path) as chat:
        held = chat.model.hold()
        chat.api.say(chat.anna, "Think about it.")
        assert held.reached.wait(SECONDS)
        chat.api.say(chat.anna, "http://127.0.0.1:1/callback?code=said-while-busy")
        # Without a plugin, Hermes lets that into the conversation: the trap that the plugin closes.
        chat.api.wait(lambda: chat.model.saw("said-while-busy"), SECONDS)
        held.release()


def test_a_session_that_ends_while_it_is_connected_lets_the_call_run_out(tmp_path: Path) -> None:
    with chatting(tmp_path, "/mcp") as chat:
        chat.ask("What can you do?", until="Understood.")
        chat.demo.server.ledger.revoke_everything()
        chat.model.will(Call("mcp__mcp__whoami"), "I cannot tell.")
        chat.ask("Who am I?", until="I cannot tell.")
        # Not the `needs_reauth` of its source: the transport dies, and nobody answers the call.
        assert "MCP call timed out" in chat.model.tool_results()[-1]


def test_a_folder_given_as_a_plugin_is_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "greeter"
    folder.mkdir()
    (folder / "plugin.yaml").write_text("name: greeter\nversion: 1\ndescription: greets\n")
    (folder / "__init__.py").write_text(GREETER)
    with bot_api.running() as api, model() as stand_in:
        tripwire.guard([api.token])
        anna, home = started(api), tmp_path / "home"
        with gateway(home, telegram=api, model=stand_in, plugins=[folder], allowed=[anna.id]) as hermes:
            api.say(anna, "/greet Ada")
            api.wait(lambda: any("Good day, Ada." in said.text for said in api.messages(anna)), SECONDS)
            assert "Good day, Ada." in hermes.command("greet", "Ada").stdout
            assert not stand_in.turns


def test_discord_is_answered_too(tmp_path: Path) -> None:
    with discord_api.running() as api, model() as stand_in:
        tripwire.guard([api.token])
        ada = api.user("ada")
        api.guild("Home", [ada], channels=["general"])
        with gateway(tmp_path, discord=api, model=stand_in, allowed=[ada.id]):
            stand_in.will("Hello, Ada.")
            api.say(ada, api.dm(ada), "Good morning, machine.")
            api.wait(lambda: api.standing("Hello, Ada."), SECONDS)
            assert stand_in.saw("Good morning, machine.")
