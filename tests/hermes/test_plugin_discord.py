"""The plugin in Hermes's gateway, on Discord: the command, the form, messages, threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import pytest

from tests import leak_check
from tests.consent_form import approve
from tests.hermes.leaks import TrackedSecrets, assert_no_leaks
from tests.hermes.scenario import LAYOUTS_WITH_SOAK, PLUGIN, SECONDS, mcp_server_settings
from tests.hermes.shared_gateway import RELOAD_SETTINGS, SharedGateway, reload_mcp
from tests.parts import discord_api
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.parts.discord_api import Channel, DiscordApi, Message, User
from tests.parts.fake_model import FakeModel, ToolCall, serve_fake_model
from tests.parts.hermes_gateway import Gateway, run_gateway
from tests.requirements import covers

pytestmark = [pytest.mark.hermes, pytest.mark.xdist_group("hermes-discord")]

PASTE_LABEL = "Paste the address"
ADDRESS_LABEL = "The address your browser ended on"
# The number includes the operator. Hermes reads its list of users when it starts.
USER_COUNT = 20


@dataclass(slots=True)
class DiscordScenario:
    """Ada on Discord with a guild's channel, a direct chat with the bot, and an MCP server."""

    api: DiscordApi
    ada: User
    channel: Channel
    model: FakeModel
    hermes: Gateway
    demo: Demo
    notes: str
    tracked_secrets: TrackedSecrets

    @property
    def direct(self) -> Channel:
        return self.api.dm(self.ada)

    def wait_for_message(self, text: str, channel: Channel) -> Message:
        def matching_messages() -> list[Message]:
            messages = self.api.messages(channel, seen_by=self.ada)
            return [message for message in messages if text in message.text and message.author != self.ada]

        self.api.wait(matching_messages, SECONDS)
        return matching_messages()[-1]

    def approve_prompt(self, prompt: Message) -> str:
        """Approve in a browser; return the redirect URL."""
        address = approve(str(next(button["url"] for button in prompt.buttons if "url" in button)))
        self.tracked_secrets.add_address(address)
        return address

    def finish_login(self, prompt: Message) -> str:
        """Approve in a browser, enter the redirect URL in the prompt's modal and return the URL."""
        address = self.approve_prompt(prompt)
        modal = self.api.wait_for_modal(self.api.press(self.ada, prompt, PASTE_LABEL), seconds=SECONDS)
        self.api.submit(self.ada, modal, {ADDRESS_LABEL: address})
        return address

    def wait_for_tools(self) -> None:
        self.api.wait(lambda: f"The tools of {self.notes} are loaded." in self.hermes.output(), SECONDS)

    def assert_no_leaks(self) -> None:
        """Search for secrets while the gateway runs. The fixture searches again after it has stopped."""
        assert self.tracked_secrets.codes
        self.tracked_secrets.exempt_chats = set()
        self.api.wait(lambda: not any(map(self.api.messages_containing, self.tracked_secrets.codes)), SECONDS)
        assert_no_leaks(self.hermes, self.model, [self.tracked_secrets], self.api.messages_containing)


@dataclass(slots=True)
class SharedDiscordGateway:
    """A gateway on Discord for all tests of the module, with a user for each test."""

    api: DiscordApi
    shared: SharedGateway
    users: list[User]
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @contextmanager
    def new_scenario(self) -> Iterator[DiscordScenario]:
        """Give a test its own user, guild and server."""
        number = next(self._numbers)
        ada, notes = self.users[number], f"notes{number}"
        guild = self.api.add_guild(f"Home {number}", [ada], channels=["general"])
        with serve_demo(Behaviour()) as demo:
            servers = mcp_server_settings({notes: demo.mcp_url})
            with self.shared.prepare_test(
                servers, demo.authorization_server.minted_secrets, reload=False
            ) as tracked_secrets:
                channel = guild.channel("general")
                yield DiscordScenario(
                    self.api,
                    ada,
                    channel,
                    self.shared.model,
                    self.shared.hermes,
                    demo,
                    notes,
                    tracked_secrets,
                )


@pytest.fixture(scope="module", params=LAYOUTS_WITH_SOAK)
def discord(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedDiscordGateway]:
    with discord_api.serve_discord_api() as api, serve_fake_model() as fake_model:
        leak_check.watch_secrets([api.token])
        users = [api.add_user(f"ada{number}") for number in range(USER_COUNT)]
        operator = users[0]
        api.add_guild("Hermes's", [operator], channels=["general"])

        def reload() -> None:
            direct = api.dm(operator)
            reload_mcp(
                lambda: api.say(operator, direct, "/reload-mcp"),
                lambda: [message.text for message in api.messages(direct) if message.author != operator],
            )

        with run_gateway(
            tmp_path_factory.mktemp("hermes"),
            discord=api,
            model=fake_model,
            plugins=[PLUGIN],
            allowed=[user.id for user in users],
            settings=RELOAD_SETTINGS,
            layout=request.param,
        ) as hermes:
            api.wait(lambda: api.commands, SECONDS)
            shared = SharedGateway(hermes, fake_model, reload, api.messages_containing, api.token)
            yield SharedDiscordGateway(api, shared, users)
            shared.close()


@covers("hermes-story", "hermes-live")
def test_only_the_user_sees_the_reply_to_a_slash_command_and_the_tools_are_live(
    discord: SharedDiscordGateway,
) -> None:
    with discord.new_scenario() as scenario:
        scenario.api.slash(scenario.ada, scenario.channel, "mcpauth", args=scenario.notes)
        prompt = scenario.wait_for_message(f"Connect {scenario.notes}", scenario.channel)
        assert prompt.ephemeral
        scenario.finish_login(prompt)
        scenario.wait_for_message(f"{scenario.notes}: connected", scenario.channel)
        scenario.wait_for_tools()
        scenario.model.queue_steps(ToolCall(f"mcp__{scenario.notes}__whoami"), "You are Ada there.")
        scenario.api.say(scenario.ada, scenario.direct, "Who am I?")
        scenario.wait_for_message("You are Ada there.", scenario.direct)
        assert "ada@example.com" in scenario.model.tool_results()[-1]
        scenario.assert_no_leaks()


@covers("hermes-kept-out")
def test_a_code_in_a_message_is_refused_and_does_not_reach_hermes(discord: SharedDiscordGateway) -> None:
    with discord.new_scenario() as scenario:
        direct = scenario.direct
        scenario.api.say(scenario.ada, direct, f"/mcpauth {scenario.notes}")
        prompt = scenario.wait_for_message(f"Connect {scenario.notes}", direct)
        address = scenario.approve_prompt(prompt)
        message = scenario.api.say(scenario.ada, direct, address)
        scenario.wait_for_message("Do not send the address as a message", direct)
        # In a direct chat, only the user can delete the message.
        scenario.api.remove(scenario.ada, message)
        new_prompt = scenario.wait_for_message(f"Connect {scenario.notes}", direct)
        assert new_prompt.id != prompt.id
        scenario.finish_login(new_prompt)
        scenario.wait_for_message(f"{scenario.notes}: connected", direct)
        scenario.assert_no_leaks()


@covers("hermes-kept-out")
def test_codes_in_a_channel_do_not_reach_hermes_even_during_a_turn(discord: SharedDiscordGateway) -> None:
    with discord.new_scenario() as scenario:
        mention, direct = f"<@{scenario.api.bot.id}>", scenario.direct
        scenario.api.say(scenario.ada, scenario.channel, f"{mention} /mcpauth {scenario.notes}")
        scenario.wait_for_message("I wrote to you privately", scenario.channel)
        prompt = scenario.wait_for_message(f"Connect {scenario.notes}", direct)
        hold = scenario.model.hold()
        scenario.api.say(scenario.ada, scenario.channel, f"{mention} Think about it.")
        assert hold.reached.wait(SECONDS)
        address = scenario.approve_prompt(prompt)
        message = scenario.api.say(scenario.ada, scenario.channel, f"{mention} {address}")
        scenario.wait_for_message("Do not post codes in a group", scenario.channel)
        hold.release()
        if not scenario.api.current(message).deleted:
            scenario.api.remove(scenario.ada, message)
        new_prompt = scenario.wait_for_message(f"Connect {scenario.notes}", direct)
        scenario.finish_login(new_prompt)
        scenario.wait_for_message(f"{scenario.notes}: connected", direct)
        scenario.assert_no_leaks()


@covers("hermes-asks")
def test_the_agent_prompts_in_a_direct_message(discord: SharedDiscordGateway) -> None:
    with discord.new_scenario() as scenario:
        direct = scenario.direct
        scenario.model.queue_steps(
            ToolCall("connect_mcp_server", {"server": scenario.notes}), "I looked at them."
        )
        scenario.api.say(scenario.ada, direct, "Look at my notes.")
        scenario.finish_login(scenario.wait_for_message(f"Connect {scenario.notes}", direct))
        scenario.wait_for_message(f"{scenario.notes}: connected", direct)
        # The turn waited for the login.
        scenario.wait_for_message("I looked at them.", direct)
        scenario.wait_for_tools()
        scenario.assert_no_leaks()


@covers("hermes-who")
def test_users_that_hermes_does_not_admit_on_discord_get_no_reply(discord: SharedDiscordGateway) -> None:
    with discord.new_scenario() as scenario:
        eve = scenario.api.add_user("eve")
        scenario.api.say(eve, scenario.api.dm(eve), f"/mcpauth {scenario.notes}")
        scenario.api.say(scenario.ada, scenario.direct, f"/mcpauth {scenario.notes}")
        scenario.wait_for_message(f"Connect {scenario.notes}", scenario.direct)
        assert [
            message for message in scenario.api.messages(scenario.api.dm(eve)) if message.author != eve
        ] == []
