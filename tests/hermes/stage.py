"""Scenarios: Hermes's gateway with the plugin, users, servers, and the secrets that must not leak.

`run_shared_gateway` runs one gateway for a module, whose tests use it one after another. `run_scenario` runs
a gateway for a single test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from shutil import copy2
from tempfile import TemporaryDirectory
from typing import Any

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
from tests import tripwire
from tests.browserless import approve
from tests.hermes.leaks import Secrets, assert_nothing_leaked, parts_of
from tests.hermes.shared import PLUGIN, RELOADS, SharedGateway, reload_mcp
from tests.parts import bot_api
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.parts.bot_api import BotApi, Chat, Message, User
from tests.parts.discord_api import DiscordApi
from tests.parts.hermes_gateway import Gateway, gateway
from tests.parts.model import Model, model
from tests.service.given import log_in

__all__ = [
    "CALL_SECONDS",
    "PLUGIN",
    "SECONDS",
    "Stage",
    "another_plugin",
    "on_stage",
    "parts_of",
    "shared_stage",
]

SECONDS = 60.0
CALL_SECONDS = 10
# For tests in which a call times out.
SHORT_CALL_SECONDS = 4
OPERATOR = 100
# Hermes reads its list of users when it starts: enough for all tests of a module.
PEOPLE = range(OPERATOR, 200)

_group_numbers = count(1001)


@dataclass(slots=True)
class Stage:
    """Anna and Ben on Telegram, whom Hermes admits, and two servers, by default `notes` and `later`."""

    api: BotApi
    anna: User
    ben: User
    model: Model
    hermes: Gateway
    demo: Demo
    home: Path
    found: Secrets = field(default_factory=Secrets)
    notes: str = "notes"
    later: str = "later"
    # The gateway continues to run after the test.
    is_shared: bool = False

    @property
    def secrets(self) -> set[str]:
        return self.found.codes

    def said(self, text: str, who: User | Chat | None = None) -> Message:
        """Wait for a message of the bot that contains this text. Return the latest."""
        found = self.api.wait(lambda: self.shown(text, who), SECONDS)
        return found[-1]

    def shown(self, text: str, who: User | Chat | None = None) -> list[Message]:
        """Return the bot's current messages that contain this text."""
        return [each for each in self.api.messages(who or self.anna) if each.from_bot and text in each.text]

    def ask(self, text: str, until: str, who: User | None = None) -> None:
        """Write to the agent and wait for its reply."""
        self.api.say(who or self.anna, text)
        self.said(until, who)

    def group(self, title: str, members: Sequence[User], *, forum: bool = False) -> Chat:
        """Create a group that no other test uses."""
        return self.api.group(-next(_group_numbers), title, members, forum=forum)

    def begin(self, who: User | None = None, server: str = "") -> str:
        """Send the command, wait for the prompt and approve; return the redirect URL."""
        person, name = who or self.anna, server or self.notes
        asked = self.api.say(person, f"/mcpauth {name}")
        title = f"Connect {name}"
        self.api.wait(lambda: [each for each in self.shown(title, person) if each.id > asked.id], SECONDS)
        return self.approved(person, name)

    def approved(self, who: User | None = None, server: str = "") -> str:
        """Approve the latest prompt in a browser; return the redirect URL."""
        prompt = self.shown(f"Connect {server or self.notes}", who)[-1]
        return self.answer_of(self.api.url_of(prompt, "Open the page"))

    def answer_of(self, url: str) -> str:
        """Approve at an authorization URL; return the redirect URL."""
        address = approve(url)
        self.found.add_address(address)
        return address

    def live(self, server: str = "") -> None:
        """Wait until the gateway has logged once more that the server's tools are live."""
        said = f"The tools of {server or self.notes} are live."
        self.api.wait(lambda: said in self.hermes.output(), SECONDS)

    def tokens(self, server: str = "") -> bool:
        return (self.home / "mcp-tokens" / f"{server or self.notes}.json").exists()

    def leaked_nowhere_but(self, *groups: Chat) -> None:
        """Search the model's requests, Hermes's files and the chats for each secret of the test.

        `groups` may show a code, because the bot cannot delete users' messages there. This method stops a
        gateway that only this test uses. It searches a shared gateway while that runs; the fixture searches
        again after the stop.
        """
        assert self.secrets
        self.found.exempt = {group.id for group in groups}
        if self.is_shared:
            # A running gateway may still be deleting messages.
            self.api.wait(lambda: self._chats_showing() <= (self.found.exempt or set()), SECONDS)
        else:
            self.hermes.stop()
        assert_nothing_leaked(
            self.hermes, self.model, [self.found], lambda code: chats_showing(self.api, code)
        )

    nothing_leaked = leaked_nowhere_but

    def _chats_showing(self) -> set[int]:
        return {chat for code in self.secrets for chat in chats_showing(self.api, code)}


def chats_showing(api: BotApi, text: str) -> set[int]:
    """Return the ids of the chats that currently show a text."""
    return {each.chat_id for each in api.visible(text)}


def another_plugin(folder: Path, source: str) -> Path:
    """Write a plugin that changes Hermes to a folder."""
    folder.mkdir()
    (folder / "plugin.yaml").write_text(f"name: {folder.name}\nversion: 1\ndescription: for a test\n")
    (folder / "__init__.py").write_text(source)
    return folder


@dataclass(slots=True)
class SharedStage:
    """A gateway on Telegram for all tests of a module: `with hermes.new_scenario("notes") as scenario:`."""

    api: BotApi
    shared: SharedGateway
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def operator(self) -> int:
        """The user who resets the gateway. Hermes must accept their commands."""
        return OPERATOR

    @contextmanager
    def stage(
        self,
        *connected: str,
        behaviour: Behaviour | None = None,
        names: tuple[str, str] | None = None,
        call_seconds: float = CALL_SECONDS,
    ) -> Iterator[Stage]:
        """Give a test its users and servers; `connected` ("notes", "later") are connected at the start.

        `names` replaces the server names notes1, later1 and so on. Hermes waits `call_seconds` for the result
        of a tool call.
        """
        number, anna = self.next_person("Anna")
        _, ben = self.next_person("Ben")
        notes, later = names or (f"notes{number}", f"later{number}")
        home, hermes = self.shared.home, self.shared.hermes
        with serve_demo(behaviour or Behaviour(), paths=("/mcp", "/later")) as demo:
            urls = {notes: demo.resources.origin + "/mcp", later: demo.resources.origin + "/later"}
            for name in connected:
                full = {"notes": notes, "later": later}[name]
                store_tokens(home, Server(full, urls[full]))
            servers = entries(urls, call_seconds)
            with self.shared.one_test(
                servers, demo.authorization_server.minted_secrets, reload=bool(connected)
            ) as found:
                yield Stage(
                    self.api,
                    anna,
                    ben,
                    self.shared.model,
                    hermes,
                    demo,
                    home,
                    found,
                    notes,
                    later,
                    is_shared=True,
                )

    def dismiss(self, person: User) -> None:
        """Restart the gateway with a Hermes that does not admit this user."""
        allowed = self.shared.secrets["TELEGRAM_ALLOWED_USERS"].split(",")
        allowed.remove(str(person.id))
        for secrets in (self.shared.secrets, self.shared.hermes.secrets):
            secrets["TELEGRAM_ALLOWED_USERS"] = ",".join(allowed)
        self.shared.hermes.restart()

    def next_person(self, name: str) -> tuple[int, User]:
        """Return a number and a user that no other test uses.

        The user has not just pressed Start: Hermes loses a message directly after that.
        """
        number = next(self._numbers)
        assert OPERATOR + number in PEOPLE, "There are more tests than users: extend ALLOWED_USERS."
        return number, acquainted(self.api, OPERATOR + number, name)


def acquainted(api: BotApi, user_id: int, name: str) -> User:
    """Create a user who has already started a chat with the bot."""
    person = api.user(user_id, name)
    api.private(person).started = True
    return person


def store_tokens(home: Path, server: Server) -> None:
    """Store tokens without a login record, which would make the plugin connect the server."""
    with TemporaryDirectory() as elsewhere:
        asyncio.run(log_in(AuthService(Path(elsewhere)), server))
        files = list((Path(elsewhere) / "mcp-tokens").glob("*.json"))
        (home / "mcp-tokens").mkdir(mode=0o700, exist_ok=True)
        # Copy the tokens last, as every writer does.
        for path in sorted(files, key=lambda path: path.name == f"{server.name}.json"):
            copy2(path, home / "mcp-tokens" / path.name)


def entries(urls: Mapping[str, str], call_seconds: float = CALL_SECONDS) -> dict[str, dict[str, Any]]:
    """Return the value of `mcp_servers` in config.yaml."""
    return {name: {"url": url, "auth": "oauth", "timeout": call_seconds} for name, url in urls.items()}


@contextmanager
def shared_stage(
    home: Path,
    *,
    plugins: Sequence[str | Path] = (PLUGIN,),
    settings: Mapping[str, Any] | None = None,
    verbosity: str = "-v",
    open_groups: Sequence[int] = (),
    discord: DiscordApi | None = None,
    on_discord: Sequence[str] = (),
) -> Iterator[SharedStage]:
    """Run a gateway for all tests of a module, and search for their secrets after it has stopped.

    Hermes listens to every user in `open_groups` and to the Discord users with the ids `on_discord`. The bot
    receives all messages of its groups.
    """
    with bot_api.running(privacy_mode=False) as api, model() as stand_in:
        tripwire.guard([api.token])
        operator = acquainted(api, OPERATOR, "Olga")

        def reload() -> None:
            reload_mcp(
                lambda: api.say(operator, "/reload-mcp"),
                lambda: [each.text for each in api.messages(operator) if each.from_bot],
            )

        with gateway(
            home,
            telegram=api,
            discord=discord,
            model=stand_in,
            plugins=plugins,
            allowed=[*PEOPLE, *on_discord],
            settings={**RELOADS, **(settings or {})},
            secrets={"TELEGRAM_GROUP_ALLOWED_CHATS": ",".join(map(str, open_groups))}
            if open_groups
            else None,
            verbosity=verbosity,
        ) as hermes:
            shared = SharedGateway(hermes, stand_in, reload, lambda code: chats_showing(api, code), api.token)
            yield SharedStage(api, shared)
            shared.close()


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
    """Run a gateway and its servers for one test.

    The `connected` servers have tokens at the start. `extra_plugin` is the folder of another plugin.
    """
    with (
        serve_demo(behaviour or Behaviour(), paths=("/mcp", "/later")) as demo,
        bot_api.running(privacy_mode=privacy_mode) as api,
        model() as stand_in,
    ):
        tripwire.guard([api.token])
        tripwire.guard(demo.authorization_server.minted_secrets)
        urls = {"notes": demo.resources.origin + "/mcp", "later": demo.resources.origin + "/later"}
        for name in connected:
            asyncio.run(log_in(AuthService(home), Server(name, urls[name])))
        before(demo)
        anna, ben = api.user(42, "Anna"), api.user(43, "Ben")
        for person in (anna, ben):
            api.start(person)
        with gateway(
            home,
            telegram=api,
            model=stand_in,
            mcp_servers=entries(urls),
            plugins=[PLUGIN] if beside is None else [PLUGIN, beside],
            allowed=people,
            settings=settings,
            verbosity=verbosity,
        ) as hermes:
            yield Stage(
                api,
                anna,
                ben,
                stand_in,
                hermes,
                demo,
                home,
                Secrets(minted=demo.authorization_server.minted_secrets),
            )
