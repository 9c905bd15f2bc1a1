"""Hermes's gateway with the plugin in it, its people, and the secrets that must be found nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hermes_mcp_auth_remote.demo.behaviour import Behaviour
from hermes_mcp_auth_remote.demo.serving import Demo, running
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
from tests import tripwire
from tests.browserless import approve
from tests.parts import bot_api
from tests.parts.bot_api import BotApi, Chat, Message, User
from tests.parts.hermes_gateway import Gateway, gateway
from tests.parts.model import Model, model
from tests.service.given import log_in

SECONDS = 60.0
CALL_SECONDS = 10
PLUGIN = "mcp-auth-remote"


@dataclass(slots=True)
class Stage:
    """Anna (42) and Ben (43), whom Hermes listens to, on Telegram; servers `notes` and `later`."""

    api: BotApi
    anna: User
    ben: User
    model: Model
    hermes: Gateway
    demo: Demo
    home: Path
    secrets: set[str] = field(default_factory=set[str])

    def said(self, text: str, who: User | Chat | None = None) -> Message:
        """Wait for a message of the bot's with this text in it, and return the latest."""
        found = self.api.wait(lambda: self.shown(text, who), SECONDS)
        return found[-1]

    def shown(self, text: str, who: User | Chat | None = None) -> list[Message]:
        """Return the bot's messages with this text in them, as they stand."""
        return [each for each in self.api.messages(who or self.anna) if each.from_bot and text in each.text]

    def ask(self, text: str, until: str, who: User | None = None) -> None:
        """Write to the agent and wait for its answer."""
        self.api.say(who or self.anna, text)
        self.said(until, who)

    def begin(self, who: User | None = None, server: str = "notes") -> str:
        """Type the command, wait for the prompt, approve; returns the address where the browser ended."""
        person = who or self.anna
        asked = self.api.say(person, f"/mcpauth {server}")
        title = f"Connect {server}"
        self.api.wait(lambda: [each for each in self.shown(title, person) if each.id > asked.id], SECONDS)
        return self.approved(person, server)

    def approved(self, who: User | None = None, server: str = "notes") -> str:
        """Approve the latest prompt in a browser."""
        prompt = self.shown(f"Connect {server}", who)[-1]
        return self.answer_of(self.api.url_of(prompt, "Open the page"))

    def answer_of(self, url: str) -> str:
        """Approve at an address; returns the one where the browser ended."""
        address = approve(url)
        self.secrets |= {value for value in parts_of(address) if len(value) > 7}
        return address

    def live(self, server: str = "notes") -> None:
        """Wait until the gateway has the server's tools, so often as it has said so."""
        self.api.wait(lambda: f"The tools of {server} are live." in self.hermes.output(), SECONDS)

    def tokens(self, server: str = "notes") -> bool:
        return (self.home / "mcp-tokens" / f"{server}.json").exists()

    def leaked_nowhere_but(self, *groups: Chat) -> None:
        """Search all that the model, Hermes's files and the chats hold for each secret that was in play.

        In `groups` the bot may not delete what people wrote.
        """
        self.hermes.stop()
        assert self.secrets
        known = {group.id for group in groups}
        for secret in self.secrets:
            assert not self.model.saw(secret), "the model saw a code"
            assert self.hermes.search_everything(secret) == []
            assert [each for each in self.api.visible(secret) if each.chat_id not in known] == []
        for secret in list(self.demo.server.minted):
            assert not self.model.saw(secret), "the model saw a token"
            assert secret not in self.hermes.logs()
            assert secret not in self.hermes.state_db_text()
            assert secret not in self.hermes.transcripts()

    nothing_leaked = leaked_nowhere_but


def parts_of(address: str) -> set[str]:
    """Return the values of code and state in an address."""
    from urllib.parse import parse_qs, urlsplit

    query = parse_qs(urlsplit(address).query)
    return {value for name in ("code", "state") for value in query.get(name, [])}


def another_plugin(folder: Path, source: str) -> Path:
    """Write a plugin of a folder of its own, which does something to the Hermes around ours."""
    folder.mkdir()
    (folder / "plugin.yaml").write_text(f"name: {folder.name}\nversion: 1\ndescription: for a test\n")
    (folder / "__init__.py").write_text(source)
    return folder


@contextmanager
def on_stage(
    home: Path,
    *connected: str,
    behaviour: Behaviour | None = None,
    settings: Mapping[str, Any] | None = None,
    verbosity: str = "-v",
    before: Callable[[Demo], None] = lambda _: None,
    people: Sequence[int] = (42, 43),
    privacy_mode: bool = True,
    beside: Path | None = None,
) -> Iterator[Stage]:
    """Run everything; `connected` have tokens at the start, `beside` is the folder of another plugin."""
    with (
        running(behaviour or Behaviour(), paths=("/mcp", "/later")) as demo,
        bot_api.running(privacy_mode=privacy_mode) as api,
        model() as stand_in,
    ):
        tripwire.guard([api.token])
        tripwire.guard(demo.server.minted)
        urls = {"notes": demo.resources.origin + "/mcp", "later": demo.resources.origin + "/later"}
        for name in connected:
            asyncio.run(log_in(AuthService(home), Server(name, urls[name])))
        before(demo)
        servers = {name: {"url": url, "auth": "oauth", "timeout": CALL_SECONDS} for name, url in urls.items()}
        anna, ben = api.user(42, "Anna"), api.user(43, "Ben")
        for person in (anna, ben):
            api.start(person)
        with gateway(
            home,
            telegram=api,
            model=stand_in,
            mcp_servers=servers,
            plugins=[PLUGIN] if beside is None else [PLUGIN, beside],
            allowed=people,
            settings=settings,
            verbosity=verbosity,
        ) as hermes:
            yield Stage(api, anna, ben, stand_in, hermes, demo, home)
