"""The plugin in the real Hermes gateway, at a certified authorization server and an MCP server behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from mcp.server import MCPServer

from tests import tripwire
from tests.hermes.stage import PLUGIN, SECONDS, parts_of
from tests.parts import bot_api
from tests.parts.bot_api import BotApi, Message, User
from tests.parts.hermes_gateway import Gateway, gateway
from tests.parts.model import Call, Model, model
from tests.parts.oidc_provider import FEATURES, OidcOptions, oidc_provider
from tests.parts.person import approve_device, approve_oidc
from tests.parts.protected_resource import protected_resource
from tests.requirements import covers

pytestmark = [pytest.mark.hermes, pytest.mark.node]


def notes() -> MCPServer:
    server = MCPServer("notes")

    @server.tool()
    def latest() -> str:
        """Return the latest note."""
        return "Buy milk."

    return server


@dataclass(frozen=True, slots=True)
class Scene:
    """The gateway, Anna, and what stands behind it."""

    api: BotApi
    anna: User
    hermes: Gateway
    model: Model

    def said(self, text: str) -> Message:
        """Wait for a message with this text."""
        return self.api.wait(lambda: [m for m in self.api.messages(self.anna) if text in m.text], SECONDS)[-1]

    def is_live(self) -> None:
        """Have the agent call the server's tool."""
        self.said("notes: connected")
        self.api.wait(lambda: "The tools of notes are live." in self.hermes.output(), SECONDS)
        self.model.will(Call("mcp__notes__latest"), "You were to buy milk.")
        self.api.say(self.anna, "What was the latest?")
        self.said("You were to buy milk.")
        assert "Buy milk." in self.model.tool_results()[-1]


@contextmanager
def scene(home: Path, options: OidcOptions) -> Iterator[Scene]:
    with (
        oidc_provider(options) as op,
        protected_resource(op, notes().streamable_http_app()) as resource,
        bot_api.running() as api,
        model() as stand_in,
    ):
        tripwire.guard([api.token])
        anna = api.user(42, "Anna")
        api.start(anna)
        servers = {"notes": {"url": resource.url, "auth": "oauth"}}
        with gateway(
            home, telegram=api, model=stand_in, mcp_servers=servers, plugins=[PLUGIN], allowed=[42]
        ) as hermes:
            yield Scene(api, anna, hermes, stand_in)


@covers("hermes-story", "hermes-live", "hermes-kept-out")
def test_an_address_of_a_certified_provider_is_pasted_in_the_chat_and_the_tools_are_live(
    tmp_path: Path,
) -> None:
    with scene(tmp_path, OidcOptions(features=FEATURES - {"deviceFlow"})) as here:
        here.api.say(here.anna, "/mcpauth notes")
        prompt = here.said("Connect notes")
        address = approve_oidc(here.api.url_of(prompt, "Open the page"), name="grace")
        paste = here.api.say(here.anna, address)
        here.is_live()
        assert paste.id in {message.id for message in here.api.deleted(here.anna)}
        for secret in parts_of(address):
            assert not here.model.saw(secret)
            assert here.hermes.search_everything(secret) == []


@covers("hermes-story", "hermes-live")
def test_a_certified_provider_with_device_codes_needs_no_answer_in_the_chat(tmp_path: Path) -> None:
    with scene(tmp_path, OidcOptions()) as here:
        here.api.say(here.anna, "/mcpauth notes")
        prompt = here.said("enter this code")
        approve_device(here.api.url_of(prompt, "Open the page"), name="grace")
        here.is_live()
