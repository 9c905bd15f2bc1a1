"""The plugin in the real Hermes gateway, with a certified authorization server and a protected MCP server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from mcp.server import MCPServer

from tests.hermes.leaks import Secrets
from tests.hermes.stage import SECONDS, SharedStage, entries, shared_stage
from tests.parts.bot_api import BotApi, Message, User
from tests.parts.hermes_gateway import Gateway
from tests.parts.model import Call, Model
from tests.parts.oidc_provider import FEATURES, OidcOptions, oidc_provider
from tests.parts.person import approve_device, approve_oidc
from tests.parts.protected_resource import protected_resource
from tests.requirements import covers

pytestmark = [pytest.mark.hermes, pytest.mark.node, pytest.mark.xdist_group("hermes-provider")]


def notes() -> MCPServer:
    server = MCPServer("notes")

    @server.tool()
    def latest() -> str:
        """Return the latest note."""
        return "Buy milk."

    return server


@dataclass(frozen=True, slots=True)
class Scene:
    """A scenario whose server uses a certified authorization server."""

    api: BotApi
    anna: User
    hermes: Gateway
    model: Model
    server: str
    found: Secrets

    def said(self, text: str) -> Message:
        """Wait for a message with this text."""
        return self.api.wait(lambda: [m for m in self.api.messages(self.anna) if text in m.text], SECONDS)[-1]

    def is_live(self) -> None:
        """Assert that the agent can call the server's tool."""
        self.said(f"{self.server}: connected")
        self.api.wait(lambda: f"The tools of {self.server} are live." in self.hermes.output(), SECONDS)
        self.model.will(Call(f"mcp__{self.server}__latest"), "You were to buy milk.")
        self.api.say(self.anna, "What was the latest?")
        self.said("You were to buy milk.")
        assert "Buy milk." in self.model.tool_results()[-1]


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedStage]:
    with shared_stage(tmp_path_factory.mktemp("hermes")) as shared:
        yield shared


@contextmanager
def scene(hermes: SharedStage, options: OidcOptions) -> Iterator[Scene]:
    number, anna = hermes.next_person("Anna")
    server = f"notes{number}"
    shared = hermes.shared
    with (
        oidc_provider(options) as op,
        protected_resource(op, notes().streamable_http_app()) as resource,
        shared.one_test(entries({server: resource.url}), (), reload=False) as found,
    ):
        yield Scene(hermes.api, anna, shared.hermes, shared.model, server, found)


@covers("hermes-story", "hermes-live", "hermes-kept-out")
def test_a_paste_from_a_certified_provider_is_accepted_and_the_tools_are_live(
    hermes: SharedStage,
) -> None:
    with scene(hermes, OidcOptions(features=FEATURES - {"deviceFlow"})) as here:
        here.api.say(here.anna, f"/mcpauth {here.server}")
        prompt = here.said(f"Connect {here.server}")
        address = approve_oidc(here.api.url_of(prompt, "Open the page"), name="grace")
        paste = here.api.say(here.anna, address)
        here.is_live()
        assert paste.id in {message.id for message in here.api.deleted(here.anna)}
        here.found.add_address(address)
        for secret in here.found.codes:
            assert not here.model.saw(secret)
            assert here.hermes.search_everything(secret) == []


@covers("hermes-story", "hermes-live")
def test_a_certified_provider_with_device_codes_needs_no_answer_in_the_chat(hermes: SharedStage) -> None:
    with scene(hermes, OidcOptions()) as here:
        here.api.say(here.anna, f"/mcpauth {here.server}")
        prompt = here.said("enter this code")
        approve_device(here.api.url_of(prompt, "Open the page"), name="grace")
        here.is_live()
