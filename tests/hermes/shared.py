"""One Hermes gateway for all tests of a module. The tests use it one after another.

Each test has its own servers, users and chats, so that Hermes's and the plugin's memory of earlier tests does
not affect it. Each test resets the gateway: it cancels open logins, and the operator's `/reload-mcp`
disconnects all servers. A failed test stops the gateway, and the next test starts another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey
from tests import tripwire
from tests.hermes.leaks import Secrets, assert_nothing_leaked
from tests.parts.hermes_gateway import Gateway
from tests.parts.model import Model

# Settings of every shared gateway: Hermes runs `/reload-mcp` without a confirmation.
RELOADS = {"approvals": {"mcp_reload_confirm": False}}
RELOAD_SECONDS = 60.0
PLUGIN = "mcp-auth-remote"
LIVE_SECONDS = 60.0
RELOADED = "MCP Servers Reloaded"
REFUSED = "can't run mid-turn"


@dataclass(slots=True)
class SharedGateway:
    """A gateway and the secrets of all tests that used it.

    `reload` sends `/reload-mcp` as the operator and waits for the reply. `chats_showing` returns the chats
    that show a text. `token` is the bot's. Each test starts with `settings` and `secrets`.
    """

    hermes: Gateway
    model: Model
    reload: Callable[[], None]
    chats_showing: Callable[[str], Iterable[Any]]
    token: str
    tests: list[Secrets] = field(default_factory=list[Secrets])
    # Servers whose tools do not appear after a login, because a test prevents it.
    never_live: set[str] = field(default_factory=set[str])
    settings: dict[str, Any] = field(init=False)
    secrets: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.settings = deepcopy(self.hermes.settings)
        self.secrets = dict(self.hermes.secrets)

    @property
    def home(self) -> Path:
        return self.hermes.home

    @contextmanager
    def one_test(
        self, servers: Mapping[str, Mapping[str, Any]], minted: Collection[str], *, reload: bool
    ) -> Iterator[Secrets]:
        """Configure these servers for a test. `reload` connects those that have tokens."""
        mine = Secrets(minted=minted)
        self.tests.append(mine)
        # Guard the secrets of earlier tests too: they must not reach a log during this test.
        for each in self.tests:
            tripwire.guard(each.minted)
        tripwire.guard([self.token])
        try:
            self._prepare(servers)
            if reload:
                self.reload()
            yield mine
            self._reset(servers)
        except BaseException:
            self.model.release_all()
            # Stop it in order: after a kill, Hermes continues its turns when it starts.
            self.hermes.stop()
            raise

    def _prepare(self, servers: Mapping[str, Mapping[str, Any]]) -> None:
        hermes = self.hermes
        found = {**hermes.settings, "mcp_servers": self.settings["mcp_servers"]}
        if found != self.settings or hermes.secrets != self.secrets:
            # An earlier test restarted the gateway with other settings.
            hermes.stop()
        hermes.settings = deepcopy(self.settings)
        hermes.secrets = dict(self.secrets)
        hermes.settings["mcp_servers"] = {name: dict(entry) for name, entry in servers.items()}
        if hermes.is_running:
            hermes.write_settings()
        else:
            hermes.kill()
            hermes.start()
        self.model.start_over()

    def _reset(self, servers: Iterable[str]) -> None:
        self.model.start_over()
        service, store = AuthService(self.home), FileStore(self.home)
        for login in service.waiting_logins():
            asyncio.run(service.cancel(login.id))
        self._wait_for_tools({each.key.server_name for each in service.logins() if each.status == "done"})
        for name in servers:
            store.delete(CredentialKey(name))
        self.hermes.settings["mcp_servers"] = {}
        self.hermes.write_settings()
        if self.hermes.is_running:
            self.reload()

    def _wait_for_tools(self, servers: set[str]) -> None:
        """Wait until the plugin has connected the servers with finished logins.

        If `/reload-mcp` interrupts a connection attempt, Hermes does not reconnect for a minute.
        """
        if PLUGIN not in self.settings["plugins"]["enabled"] or not self.hermes.is_running:
            return
        end = time.monotonic() + LIVE_SECONDS
        for name in servers - self.never_live:
            while f"The tools of {name} are live." not in self.hermes.output():
                assert time.monotonic() < end, f"The tools of {name} did not appear."
                time.sleep(0.05)

    def close(self) -> None:
        """Stop the gateway and search once more for the secrets of all tests."""
        for each in self.tests:
            tripwire.guard(each.minted)
        tripwire.guard([self.token])
        self.hermes.stop()
        assert_nothing_leaked(self.hermes, self.model, self.tests, self.chats_showing)


def reload_mcp(say: Callable[[], object], replies: Callable[[], list[str]]) -> None:
    """Send `/reload-mcp` as the operator until Hermes accepts it.

    `replies` returns the texts that the operator received. Hermes refuses the command during a turn of the
    operator. A killed gateway continues such a turn when it starts.
    """
    end = time.monotonic() + RELOAD_SECONDS
    while True:
        before = len(replies())
        say()
        while not (new := [text for text in replies()[before:] if RELOADED in text or REFUSED in text]):
            assert time.monotonic() < end, "Hermes did not reload its MCP servers in time."
            time.sleep(0.05)
        if RELOADED in new[-1]:
            return
        time.sleep(0.1)
