"""One Hermes gateway for all tests of a module. The tests use it one after another.

Each test has servers, people and chats of its own, so that what Hermes and the plugin remember of earlier
tests does not concern it. Between tests the gateway is reset: no login is left open, and the operator's
`/reload-mcp` leaves no server connected. After a test that failed the gateway is stopped, and the next test
starts another.
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

# The operator's `/reload-mcp` is not asked about: settings for every shared gateway.
RELOADS = {"approvals": {"mcp_reload_confirm": False}}
RELOAD_SECONDS = 60.0
PLUGIN = "mcp-auth-remote"
LIVE_SECONDS = 60.0
RELOADED = "MCP Servers Reloaded"
REFUSED = "can't run mid-turn"


@dataclass(slots=True)
class SharedGateway:
    """A gateway and the secrets of all tests that used it.

    `reload` has the operator write `/reload-mcp` and waits for the answer. `chats_showing` returns the chats
    that show a text. `token` is the bot's. `settings` and `secrets` are what each test finds.
    """

    hermes: Gateway
    model: Model
    reload: Callable[[], None]
    chats_showing: Callable[[str], Iterable[Any]]
    token: str
    tests: list[Secrets] = field(default_factory=list[Secrets])
    # Servers whose tools do not appear after a login, because the test prevents it.
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
        # What an earlier test minted must not reach a log during this one either.
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
            # Killed, it would take up its turns again when it starts.
            self.hermes.stop()
            raise

    def _prepare(self, servers: Mapping[str, Mapping[str, Any]]) -> None:
        hermes = self.hermes
        found = {**hermes.settings, "mcp_servers": self.settings["mcp_servers"]}
        if found != self.settings or hermes.secrets != self.secrets:
            # A test has restarted the gateway with others.
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

        Hermes does not come back for a minute from a connection that a `/reload-mcp` has overtaken.
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
    """Send `/reload-mcp` as the operator until Hermes has done it.

    `replies` returns the texts that the operator got so far. Hermes refuses the command during a turn of the
    operator's: a gateway that was killed takes that up again when it starts.
    """
    end = time.monotonic() + RELOAD_SECONDS
    while True:
        before = len(replies())
        say()
        while not (new := [text for text in replies()[before:] if RELOADED in text or REFUSED in text]):
            assert time.monotonic() < end, "Hermes did not reload its MCP servers."
            time.sleep(0.05)
        if RELOADED in new[-1]:
            return
        time.sleep(0.1)
