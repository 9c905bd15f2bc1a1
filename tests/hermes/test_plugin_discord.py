"""The plugin in the real Hermes gateway, by Discord: the command, the window, messages, threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.demo.behaviour import Behaviour
from hermes_mcp_auth_remote.demo.serving import Demo, running
from tests import tripwire
from tests.browserless import approve
from tests.hermes.stage import CALL_SECONDS, PLUGIN, SECONDS, parts_of
from tests.parts import discord_api
from tests.parts.discord_api import Channel, DiscordApi, Message, User
from tests.parts.hermes_gateway import Gateway, gateway
from tests.parts.model import Call, Model, model
from tests.requirements import covers

pytestmark = pytest.mark.hermes

PASTE = "Paste the address"
FIELD = "The address your browser ended on"


@dataclass(slots=True)
class Scene:
    """Ada on Discord, in a guild's channel and in her direct chat with the bot."""

    api: DiscordApi
    ada: User
    channel: Channel
    model: Model
    hermes: Gateway
    demo: Demo
    secrets: set[str] = field(default_factory=set[str])

    def said(self, text: str, channel: Channel) -> Message:
        def there() -> list[Message]:
            shown = self.api.messages(channel, seen_by=self.ada)
            return [each for each in shown if text in each.text and each.author != self.ada]

        self.api.wait(there, SECONDS)
        return there()[-1]

    def finish(self, prompt: Message) -> str:
        """Approve in a browser and put the address into the prompt's window; returns it."""
        address = approve(str(next(each["url"] for each in prompt.buttons if "url" in each)))
        self.secrets |= {value for value in parts_of(address) if len(value) > 7}
        window = self.api.modal(self.api.press(self.ada, prompt, PASTE), seconds=SECONDS)
        self.api.submit(self.ada, window, {FIELD: address})
        return address

    def live(self) -> None:
        self.api.wait(lambda: "The tools of notes are live." in self.hermes.output(), SECONDS)

    def nothing_leaked(self) -> None:
        self.hermes.stop()
        assert self.secrets
        for secret in self.secrets:
            assert not self.model.saw(secret), "the model saw a code"
            assert self.hermes.search_everything(secret) == []
            assert self.api.standing(secret) == []
        for secret in list(self.demo.server.minted):
            assert not self.model.saw(secret), "the model saw a token"
            assert secret not in self.hermes.logs()
            assert secret not in self.hermes.state_db_text()


@contextmanager
def on_scene(home: Path) -> Iterator[Scene]:
    with running(Behaviour()) as demo, discord_api.running() as api, model() as stand_in:
        tripwire.guard([api.token])
        tripwire.guard(demo.server.minted)
        ada = api.user("ada")
        guild = api.guild("Home", [ada], channels=["general"])
        servers = {"notes": {"url": demo.mcp_url, "auth": "oauth", "timeout": CALL_SECONDS}}
        with gateway(
            home, discord=api, model=stand_in, mcp_servers=servers, plugins=[PLUGIN], allowed=[ada.id]
        ) as hermes:
            api.wait(lambda: api.commands, SECONDS)
            yield Scene(api, ada, guild.channel("general"), stand_in, hermes, demo)


@covers("hermes-story", "hermes-live")
def test_a_slash_command_is_answered_to_that_person_alone_and_ends_with_live_tools(tmp_path: Path) -> None:
    with on_scene(tmp_path) as scene:
        scene.api.slash(scene.ada, scene.channel, "mcpauth", args="notes")
        prompt = scene.said("Connect notes", scene.channel)
        assert prompt.ephemeral
        scene.finish(prompt)
        scene.said("notes: connected", scene.channel)
        scene.live()
        scene.model.will(Call("mcp__notes__whoami"), "You are Ada there.")
        scene.api.say(scene.ada, scene.api.dm(scene.ada), "Who am I?")
        scene.said("You are Ada there.", scene.api.dm(scene.ada))
        assert "ada@example.com" in scene.model.tool_results()[-1]
        scene.nothing_leaked()


@covers("hermes-kept-out")
def test_a_code_written_as_a_message_is_refused_and_goes_to_nobody(tmp_path: Path) -> None:
    with on_scene(tmp_path) as scene:
        direct = scene.api.dm(scene.ada)
        scene.api.say(scene.ada, direct, "/mcpauth notes")
        prompt = scene.said("Connect notes", direct)
        address = approve(str(next(each["url"] for each in prompt.buttons if "url" in each)))
        written = scene.api.say(scene.ada, direct, address)
        scene.said("Not as a message", direct)
        # Only she can delete it there, and is told so.
        scene.api.remove(scene.ada, written)
        again = scene.said("Connect notes", direct)
        assert again.id != prompt.id
        scene.secrets |= parts_of(address)
        scene.finish(again)
        scene.said("notes: connected", direct)
        scene.nothing_leaked()


@covers("hermes-kept-out")
def test_in_a_channel_codes_go_to_nobody_also_during_a_turn(tmp_path: Path) -> None:
    with on_scene(tmp_path) as scene:
        mention, direct = f"<@{scene.api.bot.id}>", scene.api.dm(scene.ada)
        scene.api.say(scene.ada, scene.channel, f"{mention} /mcpauth notes")
        scene.said("I wrote to you privately", scene.channel)
        prompt = scene.said("Connect notes", direct)
        held = scene.model.hold()
        scene.api.say(scene.ada, scene.channel, f"{mention} Think about it.")
        assert held.reached.wait(SECONDS)
        address = approve(str(next(each["url"] for each in prompt.buttons if "url" in each)))
        scene.secrets |= parts_of(address)
        written = scene.api.say(scene.ada, scene.channel, f"{mention} {address}")
        scene.said("Never here", scene.channel)
        held.release()
        if not scene.api.fresh(written).deleted:
            scene.api.remove(scene.ada, written)
        again = scene.said("Connect notes", direct)
        scene.finish(again)
        scene.said("notes: connected", direct)
        scene.nothing_leaked()


@covers("hermes-asks")
def test_the_agent_asks_in_a_direct_message(tmp_path: Path) -> None:
    with on_scene(tmp_path) as scene:
        direct = scene.api.dm(scene.ada)
        scene.model.will(Call("connect_mcp_server", {"server": "notes"}), "I have asked you.")
        scene.api.say(scene.ada, direct, "Look at my notes.")
        scene.said("I have asked you.", direct)
        scene.finish(scene.said("Connect notes", direct))
        scene.said("notes: connected", direct)
        scene.live()
        scene.nothing_leaked()


@covers("hermes-who")
def test_whom_hermes_does_not_know_is_not_answered(tmp_path: Path) -> None:
    with on_scene(tmp_path) as scene:
        eve = scene.api.user("eve")
        scene.api.say(eve, scene.api.dm(eve), "/mcpauth notes")
        scene.api.say(scene.ada, scene.api.dm(scene.ada), "/mcpauth notes")
        scene.said("Connect notes", scene.api.dm(scene.ada))
        assert [each for each in scene.api.messages(scene.api.dm(eve)) if each.author != eve] == []
