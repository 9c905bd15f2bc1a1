"""Scenarios: Hermes's gateway with the plugin, users, servers, and the secrets that must not leak.

`run_shared_gateway` runs one gateway for a module; the tests of the module use it one after another.
`run_scenario` runs a gateway for a single test.
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

import pytest

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
from tests import leak_check
from tests.consent_form import approve
from tests.hermes.leaks import TrackedSecrets, assert_no_leaks, code_and_state
from tests.hermes.shared_gateway import PLUGIN, RELOAD_SETTINGS, SharedGateway, reload_mcp
from tests.parts import bot_api
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.parts.bot_api import BotApi, Chat, Message, User
from tests.parts.discord_api import DiscordApi
from tests.parts.fake_model import FakeModel, serve_fake_model
from tests.parts.hermes_gateway import Gateway, run_gateway
from tests.service.helpers import log_in

__all__ = [
    "CALL_SECONDS",
    "LAYOUTS",
    "LAYOUTS_WITH_SOAK",
    "PLUGIN",
    "SECONDS",
    "Scenario",
    "code_and_state",
    "run_scenario",
    "run_shared_gateway",
    "write_plugin",
]

SECONDS = 60.0
CALL_SECONDS = 30
# For tests in which a call times out.
SHORT_CALL_SECONDS = 4
OPERATOR_ID = 100
# Hermes reads its list of users only when it starts. These ids are enough for all tests of a module.
ALLOWED_USERS = range(OPERATOR_ID, 200)

_group_numbers = count(1001)

# Parameters of a gateway's fixture: the real Hermes, and (in another group) the stand-in for a later version.
_REAL = pytest.param("0.19", marks=pytest.mark.real_hermes)
_STAND_IN_GROUP = pytest.mark.xdist_group("hermes-layout-021")
LAYOUTS = (_REAL, pytest.param("0.21", marks=_STAND_IN_GROUP))
# For modules whose tests depend little on the layout: only the long variants run with the real Hermes, whose
# gateway needs several seconds to start.
LAYOUTS_WITH_SOAK = (
    pytest.param("0.19", marks=[pytest.mark.real_hermes, pytest.mark.soak]),
    pytest.param("0.21", marks=_STAND_IN_GROUP),
)


@dataclass(slots=True)
class Scenario:
    """Two Telegram users that Hermes admits, Anna and Ben, and two servers (default: `notes`, `later`)."""

    api: BotApi
    anna: User
    ben: User
    model: FakeModel
    hermes: Gateway
    demo: Demo
    home: Path
    tracked_secrets: TrackedSecrets = field(default_factory=TrackedSecrets)
    notes: str = "notes"
    later: str = "later"
    # The gateway continues to run after the test.
    is_shared: bool = False

    @property
    def codes(self) -> set[str]:
        return self.tracked_secrets.codes

    def wait_for_message(self, text: str, chat: User | Chat | None = None) -> Message:
        """Wait for a message of the bot that contains this text. Return the latest."""
        messages = self.api.wait(lambda: self.bot_messages(text, chat), SECONDS)
        return messages[-1]

    def bot_messages(self, text: str, chat: User | Chat | None = None) -> list[Message]:
        """Return the bot's current messages that contain this text."""
        return [
            message
            for message in self.api.messages(chat or self.anna)
            if message.is_from_bot and text in message.text
        ]

    def ask_agent(self, text: str, reply: str, user: User | None = None) -> None:
        """Write to the agent and wait for its reply."""
        self.api.say(user or self.anna, text)
        self.wait_for_message(reply, user)

    def add_group(self, title: str, members: Sequence[User], *, forum: bool = False) -> Chat:
        """Create a group that no other test uses."""
        return self.api.add_group(-next(_group_numbers), title, members, forum=forum)

    def start_login(self, user: User | None = None, server: str = "") -> str:
        """Send the command, wait for the prompt and approve; return the redirect URL."""
        person, name = user or self.anna, server or self.notes
        command = self.api.say(person, f"/mcpauth {name}")
        title = f"Connect {name}"
        self.api.wait(
            lambda: [message for message in self.bot_messages(title, person) if message.id > command.id],
            SECONDS,
        )
        return self.approve_prompt(person, name)

    def approve_prompt(self, user: User | None = None, server: str = "") -> str:
        """Approve the latest prompt in a browser; return the redirect URL."""
        prompt = self.bot_messages(f"Connect {server or self.notes}", user)[-1]
        return self.approve_url(self.api.button_url(prompt, "Open the page"))

    def approve_url(self, url: str) -> str:
        """Approve at an authorization URL; return the redirect URL."""
        address = approve(url)
        self.tracked_secrets.add_address(address)
        return address

    def wait_for_tools(self, server: str = "") -> None:
        """Wait until the gateway has logged once more that the server's tools are loaded."""
        log_line = f"The tools of {server or self.notes} are loaded."
        self.api.wait(lambda: log_line in self.hermes.output(), SECONDS)

    def has_tokens(self, server: str = "") -> bool:
        return (self.home / "mcp-tokens" / f"{server or self.notes}.json").exists()

    def assert_no_leaks_outside(self, *groups: Chat) -> None:
        """Search the model's requests, Hermes's files and the chats for each secret of the test.

        `groups` may show a code, because the bot cannot delete users' messages there. If only this test
        uses the gateway, this method first stops it. A shared gateway is searched while it runs; the
        fixture searches again after the gateway has stopped.
        """
        assert self.codes
        self.tracked_secrets.exempt_chats = {group.id for group in groups}
        if self.is_shared:
            # A running gateway may still be deleting messages.
            self.api.wait(
                lambda: self._chats_showing() <= (self.tracked_secrets.exempt_chats or set()), SECONDS
            )
        else:
            self.hermes.stop()
        assert_no_leaks(
            self.hermes, self.model, [self.tracked_secrets], lambda code: chats_showing(self.api, code)
        )

    assert_no_leaks = assert_no_leaks_outside

    def _chats_showing(self) -> set[int]:
        return {chat for code in self.codes for chat in chats_showing(self.api, code)}


def chats_showing(api: BotApi, text: str) -> set[int]:
    """Return the ids of the chats that currently show a text."""
    return {message.chat_id for message in api.messages_containing(text)}


def write_plugin(folder: Path, source: str) -> Path:
    """Write, to a folder, a plugin that changes Hermes."""
    folder.mkdir()
    (folder / "plugin.yaml").write_text(f"name: {folder.name}\nversion: 1\ndescription: for a test\n")
    (folder / "__init__.py").write_text(source)
    return folder


@dataclass(slots=True)
class SharedTelegramGateway:
    """A gateway on Telegram for all tests of a module: `with hermes.new_scenario("notes") as scenario:`."""

    api: BotApi
    shared: SharedGateway
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def operator_id(self) -> int:
        """The id of the user who resets the gateway. Hermes must accept this user's commands."""
        return OPERATOR_ID

    @contextmanager
    def new_scenario(
        self,
        *connected: str,
        behaviour: Behaviour | None = None,
        names: tuple[str, str] | None = None,
        call_seconds: float = CALL_SECONDS,
    ) -> Iterator[Scenario]:
        """Give a test its users and servers; `connected` ("notes", "later") are connected at the start.

        `names` replaces the default server names (notes1, later1 and so on). Hermes waits `call_seconds`
        for the result of a tool call.
        """
        number, anna = self.add_test_user("Anna")
        _, ben = self.add_test_user("Ben")
        notes, later = names or (f"notes{number}", f"later{number}")
        home, hermes = self.shared.home, self.shared.hermes
        with serve_demo(behaviour or Behaviour(), paths=("/mcp", "/later")) as demo:
            urls = {notes: demo.resources.origin + "/mcp", later: demo.resources.origin + "/later"}
            for name in connected:
                full_name = {"notes": notes, "later": later}[name]
                store_tokens(home, Server(full_name, urls[full_name]))
            servers = mcp_server_settings(urls, call_seconds)
            with self.shared.prepare_test(
                servers, demo.authorization_server.minted_secrets, reload=bool(connected)
            ) as tracked_secrets:
                yield Scenario(
                    self.api,
                    anna,
                    ben,
                    self.shared.model,
                    hermes,
                    demo,
                    home,
                    tracked_secrets,
                    notes,
                    later,
                    is_shared=True,
                )

    def revoke_access(self, user: User) -> None:
        """Restart the gateway with a Hermes that does not admit this user."""
        allowed_ids = self.shared.secrets["TELEGRAM_ALLOWED_USERS"].split(",")
        allowed_ids.remove(str(user.id))
        for secrets in (self.shared.secrets, self.shared.hermes.secrets):
            secrets["TELEGRAM_ALLOWED_USERS"] = ",".join(allowed_ids)
        self.shared.hermes.restart()

    def add_test_user(self, name: str) -> tuple[int, User]:
        """Return a number and a user that no other test uses.

        The user has pressed Start long before: Hermes loses a message that directly follows a Start.
        """
        number = next(self._numbers)
        assert OPERATOR_ID + number in ALLOWED_USERS, "There are more tests than users: extend ALLOWED_USERS."
        return number, add_started_user(self.api, OPERATOR_ID + number, name)


def add_started_user(api: BotApi, user_id: int, name: str) -> User:
    """Create a user who has already started a chat with the bot."""
    user = api.add_user(user_id, name)
    api.private_chat(user).is_started = True
    return user


def store_tokens(home: Path, server: Server) -> None:
    """Store tokens, but no login record: a record would make the plugin connect the server."""
    with TemporaryDirectory() as other_home:
        asyncio.run(log_in(AuthService(Path(other_home)), server))
        files = list((Path(other_home) / "mcp-tokens").glob("*.json"))
        (home / "mcp-tokens").mkdir(mode=0o700, exist_ok=True)
        # Copy the tokens last, as every writer does.
        for path in sorted(files, key=lambda path: path.name == f"{server.name}.json"):
            copy2(path, home / "mcp-tokens" / path.name)


def mcp_server_settings(
    urls: Mapping[str, str], call_seconds: float = CALL_SECONDS
) -> dict[str, dict[str, Any]]:
    """Return the value of `mcp_servers` in config.yaml."""
    return {name: {"url": url, "auth": "oauth", "timeout": call_seconds} for name, url in urls.items()}


@contextmanager
def run_shared_gateway(
    home: Path,
    *,
    plugins: Sequence[str | Path] = (PLUGIN,),
    settings: Mapping[str, Any] | None = None,
    verbosity: str = "-v",
    open_groups: Sequence[int] = (),
    discord: DiscordApi | None = None,
    discord_user_ids: Sequence[str] = (),
    layout: str = "0.19",
) -> Iterator[SharedTelegramGateway]:
    """Run a gateway for all tests of a module. After it has stopped, search for the secrets of all tests.

    Hermes listens to every user in `open_groups` and to the Discord users with the ids `on_discord`. The bot
    receives all messages of its groups.
    """
    with bot_api.serve_bot_api(privacy_mode=False) as api, serve_fake_model() as fake_model:
        leak_check.watch_secrets([api.token])
        operator = add_started_user(api, OPERATOR_ID, "Olga")

        def reload() -> None:
            reload_mcp(
                lambda: api.say(operator, "/reload-mcp"),
                lambda: [message.text for message in api.messages(operator) if message.is_from_bot],
            )

        with run_gateway(
            home,
            telegram=api,
            discord=discord,
            model=fake_model,
            plugins=plugins,
            allowed=[*ALLOWED_USERS, *discord_user_ids],
            settings={**RELOAD_SETTINGS, **(settings or {})},
            secrets={"TELEGRAM_GROUP_ALLOWED_CHATS": ",".join(map(str, open_groups))}
            if open_groups
            else None,
            verbosity=verbosity,
            layout=layout,
        ) as hermes:
            shared = SharedGateway(
                hermes, fake_model, reload, lambda code: chats_showing(api, code), api.token
            )
            yield SharedTelegramGateway(api, shared)
            shared.close()


@contextmanager
def run_scenario(
    home: Path,
    *connected: str,
    behaviour: Behaviour | None = None,
    settings: Mapping[str, Any] | None = None,
    verbosity: str = "-v",
    prepare_demo: Callable[[Demo], None] = lambda _: None,
    allowed_users: Sequence[int] = (42, 43),
    privacy_mode: bool = True,
    extra_plugin: Path | None = None,
) -> Iterator[Scenario]:
    """Run a gateway and its servers for one test.

    The `connected` servers have tokens at the start. `extra_plugin` is the folder of another plugin.
    """
    with (
        serve_demo(behaviour or Behaviour(), paths=("/mcp", "/later")) as demo,
        bot_api.serve_bot_api(privacy_mode=privacy_mode) as api,
        serve_fake_model() as fake_model,
    ):
        leak_check.watch_secrets([api.token])
        leak_check.watch_secrets(demo.authorization_server.minted_secrets)
        urls = {"notes": demo.resources.origin + "/mcp", "later": demo.resources.origin + "/later"}
        for name in connected:
            asyncio.run(log_in(AuthService(home), Server(name, urls[name])))
        prepare_demo(demo)
        anna, ben = api.add_user(42, "Anna"), api.add_user(43, "Ben")
        for person in (anna, ben):
            api.start(person)
        with run_gateway(
            home,
            telegram=api,
            model=fake_model,
            mcp_servers=mcp_server_settings(urls),
            plugins=[PLUGIN] if extra_plugin is None else [PLUGIN, extra_plugin],
            allowed=allowed_users,
            settings=settings,
            verbosity=verbosity,
        ) as hermes:
            yield Scenario(
                api,
                anna,
                ben,
                fake_model,
                hermes,
                demo,
                home,
                TrackedSecrets(minted=demo.authorization_server.minted_secrets),
            )
