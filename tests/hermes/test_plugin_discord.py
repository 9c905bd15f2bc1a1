"""The plugin in the real Hermes gateway, on Discord: the command, the form, messages, threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import pytest

from tests import tripwire
from tests.browserless import approve
from tests.hermes.leaks import Secrets, assert_nothing_leaked
from tests.hermes.shared import RELOADS, SharedGateway, reload_mcp
from tests.hermes.stage import PLUGIN, SECONDS, entries
from tests.parts import discord_api
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.parts.discord_api import Channel, DiscordApi, Message, User
from tests.parts.hermes_gateway import Gateway, gateway
from tests.parts.model import Call, Model, model
from tests.requirements import covers

pytestmark = [pytest.mark.hermes, pytest.mark.xdist_group("hermes-discord")]

PASTE = "Paste the address"
FIELD = "The address your browser ended on"
# Including the operator. Hermes reads its list of users when it starts.
PEOPLE = 20


@dataclass(slots=True)
class Scene:
    """Ada on Discord with a guild's channel, a direct chat with the bot, and an MCP server."""

    api: DiscordApi
    ada: User
    channel: Channel
    model: Model
    hermes: Gateway
    demo: Demo
    notes: str
    found: Secrets

    @property
    def direct(self) -> Channel:
        return self.api.dm(self.ada)

    def said(self, text: str, channel: Channel) -> Message:
        def there() -> list[Message]:
            shown = self.api.messages(channel, seen_by=self.ada)
            return [each for each in shown if text in each.text and each.author != self.ada]

        self.api.wait(there, SECONDS)
        return there()[-1]

    def approved(self, prompt: Message) -> str:
        """Approve in a browser; return the redirect URL."""
        address = approve(str(next(each["url"] for each in prompt.buttons if "url" in each)))
        self.found.add_address(address)
        return address

    def finish(self, prompt: Message) -> str:
        """Approve in a browser, enter the redirect URL in the prompt's modal and return the URL."""
        address = self.approved(prompt)
        window = self.api.modal(self.api.press(self.ada, prompt, PASTE), seconds=SECONDS)
        self.api.submit(self.ada, window, {FIELD: address})
        return address

    def live(self) -> None:
        self.api.wait(lambda: f"The tools of {self.notes} are live." in self.hermes.output(), SECONDS)

    def nothing_leaked(self) -> None:
        """Search for secrets while the gateway runs. The fixture searches again after it has stopped."""
        assert self.found.codes
        self.found.exempt = set()
        self.api.wait(lambda: not any(map(self.api.standing, self.found.codes)), SECONDS)
        assert_nothing_leaked(self.hermes, self.model, [self.found], self.api.standing)


@dataclass(slots=True)
class SharedScene:
    """A gateway on Discord for all tests of the module, with a user for each test."""

    api: DiscordApi
    shared: SharedGateway
    people: list[User]
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @contextmanager
    def scene(self) -> Iterator[Scene]:
        """Give a test its own user, guild and server."""
        number = next(self._numbers)
        ada, notes = self.people[number], f"notes{number}"
        guild = self.api.guild(f"Home {number}", [ada], channels=["general"])
        with serve_demo(Behaviour()) as demo:
            servers = entries({notes: demo.mcp_url})
            with self.shared.one_test(
                servers, demo.authorization_server.minted_secrets, reload=False
            ) as found:
                channel = guild.channel("general")
                yield Scene(self.api, ada, channel, self.shared.model, self.shared.hermes, demo, notes, found)


@pytest.fixture(scope="module")
def discord(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedScene]:
    with discord_api.running() as api, model() as stand_in:
        tripwire.guard([api.token])
        people = [api.user(f"ada{number}") for number in range(PEOPLE)]
        operator = people[0]
        api.guild("Hermes's", [operator], channels=["general"])

        def reload() -> None:
            direct = api.dm(operator)
            reload_mcp(
                lambda: api.say(operator, direct, "/reload-mcp"),
                lambda: [each.text for each in api.messages(direct) if each.author != operator],
            )

        with gateway(
            tmp_path_factory.mktemp("hermes"),
            discord=api,
            model=stand_in,
            plugins=[PLUGIN],
            allowed=[person.id for person in people],
            settings=RELOADS,
        ) as hermes:
            api.wait(lambda: api.commands, SECONDS)
            shared = SharedGateway(hermes, stand_in, reload, api.standing, api.token)
            yield SharedScene(api, shared, people)
            shared.close()


@covers("hermes-story", "hermes-live")
def test_only_the_user_sees_the_reply_to_a_slash_command_and_the_tools_are_live(
    discord: SharedScene,
) -> None:
    with discord.scene() as scene:
        scene.api.slash(scene.ada, scene.channel, "mcpauth", args=scene.notes)
        prompt = scene.said(f"Connect {scene.notes}", scene.channel)
        assert prompt.ephemeral
        scene.finish(prompt)
        scene.said(f"{scene.notes}: connected", scene.channel)
        scene.live()
        scene.model.will(Call(f"mcp__{scene.notes}__whoami"), "You are Ada there.")
        scene.api.say(scene.ada, scene.direct, "Who am I?")
        scene.said("You are Ada there.", scene.direct)
        assert "ada@example.com" in scene.model.tool_results()[-1]
        scene.nothing_leaked()


@covers("hermes-kept-out")
def test_a_code_in_a_message_is_refused_and_does_not_reach_hermes(discord: SharedScene) -> None:
    with discord.scene() as scene:
        direct = scene.direct
        scene.api.say(scene.ada, direct, f"/mcpauth {scene.notes}")
        prompt = scene.said(f"Connect {scene.notes}", direct)
        address = scene.approved(prompt)
        written = scene.api.say(scene.ada, direct, address)
        scene.said("Do not send the address as a message", direct)
        # In a direct chat, only the user can delete the message.
        scene.api.remove(scene.ada, written)
        again = scene.said(f"Connect {scene.notes}", direct)
        assert again.id != prompt.id
        scene.finish(again)
        scene.said(f"{scene.notes}: connected", direct)
        scene.nothing_leaked()


@covers("hermes-kept-out")
def test_codes_in_a_channel_do_not_reach_hermes_even_during_a_turn(discord: SharedScene) -> None:
    with discord.scene() as scene:
        mention, direct = f"<@{scene.api.bot.id}>", scene.direct
        scene.api.say(scene.ada, scene.channel, f"{mention} /mcpauth {scene.notes}")
        scene.said("I wrote to you privately", scene.channel)
        prompt = scene.said(f"Connect {scene.notes}", direct)
        held = scene.model.hold()
        scene.api.say(scene.ada, scene.channel, f"{mention} Think about it.")
        assert held.reached.wait(SECONDS)
        address = scene.approved(prompt)
        written = scene.api.say(scene.ada, scene.channel, f"{mention} {address}")
        scene.said("Do not post codes in a group", scene.channel)
        held.release()
        if not scene.api.fresh(written).deleted:
            scene.api.remove(scene.ada, written)
        again = scene.said(f"Connect {scene.notes}", direct)
        scene.finish(again)
        scene.said(f"{scene.notes}: connected", direct)
        scene.nothing_leaked()


@covers("hermes-asks")
def test_the_agent_prompts_in_a_direct_message(discord: SharedScene) -> None:
    with discord.scene() as scene:
        direct = scene.direct
        scene.model.will(Call("connect_mcp_server", {"server": scene.notes}), "I have asked you.")
        scene.api.say(scene.ada, direct, "Look at my notes.")
        scene.said("I have asked you.", direct)
        scene.finish(scene.said(f"Connect {scene.notes}", direct))
        scene.said(f"{scene.notes}: connected", direct)
        scene.live()
        scene.nothing_leaked()


@covers("hermes-who")
def test_users_whom_hermes_does_not_admit_on_discord_get_no_reply(discord: SharedScene) -> None:
    with discord.scene() as scene:
        eve = scene.api.user("eve")
        scene.api.say(eve, scene.api.dm(eve), f"/mcpauth {scene.notes}")
        scene.api.say(scene.ada, scene.direct, f"/mcpauth {scene.notes}")
        scene.said(f"Connect {scene.notes}", scene.direct)
        assert [each for each in scene.api.messages(scene.api.dm(eve)) if each.author != eve] == []
