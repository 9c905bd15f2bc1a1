"""The plugin in Hermes's gateway, with a certified authorization server and a protected MCP server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from mcp.server import MCPServer

from tests.hermes.leaks import TrackedSecrets
from tests.hermes.scenario import (
    LAYOUTS_WITH_SOAK,
    SECONDS,
    SharedTelegramGateway,
    mcp_server_settings,
    run_shared_gateway,
)
from tests.parts.bot_api import BotApi, Message, User
from tests.parts.browser_user import approve_device, approve_oidc
from tests.parts.fake_model import FakeModel, ToolCall
from tests.parts.hermes_gateway import Gateway
from tests.parts.oidc_provider import FEATURES, OidcOptions, run_oidc_provider
from tests.parts.protected_resource import serve_protected_resource
from tests.requirements import covers

pytestmark = [
    pytest.mark.hermes,
    pytest.mark.node,
    pytest.mark.soak,
    pytest.mark.xdist_group("hermes-provider"),
]


def make_notes_server() -> MCPServer:
    server = MCPServer("notes")

    @server.tool()
    def latest() -> str:
        """Return the latest note."""
        return "Buy milk."

    return server


@dataclass(frozen=True, slots=True)
class ProviderScenario:
    """A scenario whose server uses a certified authorization server."""

    api: BotApi
    anna: User
    hermes: Gateway
    model: FakeModel
    server: str
    tracked_secrets: TrackedSecrets

    def wait_for_message(self, text: str) -> Message:
        """Wait for a message with this text."""
        return self.api.wait(lambda: [m for m in self.api.messages(self.anna) if text in m.text], SECONDS)[-1]

    def assert_tools_work(self) -> None:
        """Assert that the agent can call the server's tool."""
        self.wait_for_message(f"{self.server}: connected")
        self.api.wait(lambda: f"The tools of {self.server} are loaded." in self.hermes.output(), SECONDS)
        self.model.queue_steps(ToolCall(f"mcp__{self.server}__latest"), "You were to buy milk.")
        self.api.say(self.anna, "What was the latest?")
        self.wait_for_message("You were to buy milk.")
        assert "Buy milk." in self.model.tool_results()[-1]


@pytest.fixture(scope="module", params=LAYOUTS_WITH_SOAK)
def hermes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedTelegramGateway]:
    with run_shared_gateway(tmp_path_factory.mktemp("hermes"), layout=request.param) as shared:
        yield shared


@contextmanager
def run_scenario(hermes: SharedTelegramGateway, options: OidcOptions) -> Iterator[ProviderScenario]:
    number, anna = hermes.add_test_user("Anna")
    server = f"notes{number}"
    shared = hermes.shared
    with (
        run_oidc_provider(options) as op,
        serve_protected_resource(op, make_notes_server().streamable_http_app()) as resource,
        shared.prepare_test(mcp_server_settings({server: resource.url}), (), reload=False) as tracked_secrets,
    ):
        yield ProviderScenario(hermes.api, anna, shared.hermes, shared.model, server, tracked_secrets)


@covers("hermes-story", "hermes-live", "hermes-kept-out")
def test_a_paste_from_a_certified_provider_is_accepted_and_the_tools_are_live(
    hermes: SharedTelegramGateway,
) -> None:
    with run_scenario(hermes, OidcOptions(features=FEATURES - {"deviceFlow"})) as scenario:
        scenario.api.say(scenario.anna, f"/mcpauth {scenario.server}")
        prompt = scenario.wait_for_message(f"Connect {scenario.server}")
        address = approve_oidc(scenario.api.button_url(prompt, "Open the page"), name="grace")
        paste = scenario.api.say(scenario.anna, address)
        scenario.assert_tools_work()
        assert paste.id in {message.id for message in scenario.api.deleted_messages(scenario.anna)}
        scenario.tracked_secrets.add_address(address)
        for secret in scenario.tracked_secrets.codes:
            assert not scenario.model.has_received(secret)
            assert scenario.hermes.find_in_home(secret) == []


@covers("hermes-story", "hermes-live")
def test_device_login_at_a_certified_provider_needs_no_paste(hermes: SharedTelegramGateway) -> None:
    with run_scenario(hermes, OidcOptions()) as scenario:
        scenario.api.say(scenario.anna, f"/mcpauth {scenario.server}")
        prompt = scenario.wait_for_message("Enter this code")
        approve_device(scenario.api.button_url(prompt, "Open the page"), name="grace")
        scenario.assert_tools_work()
