"""One Hermes gateway for all tests of a module. The tests use it one after another.

Each test has its own servers, users and chats. So a test is not affected by what Hermes and the plugin
remember of earlier tests. Each test resets the gateway: it cancels open logins, and the operator's
`/reload-mcp` disconnects all servers. If a test fails, it stops the gateway, and the next test starts
another gateway.
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
from tests import leak_check
from tests.hermes.leaks import TrackedSecrets, assert_no_leaks
from tests.parts.fake_model import FakeModel
from tests.parts.hermes_gateway import Gateway

# Settings of every shared gateway: Hermes runs `/reload-mcp` without a confirmation.
RELOAD_SETTINGS = {"approvals": {"mcp_reload_confirm": False}}
RELOAD_SECONDS = 60.0
PLUGIN = "mcp-auth-remote"
TOOLS_SECONDS = 60.0
RELOADED_TEXT = "MCP Servers Reloaded"
REFUSED_TEXT = "can't run mid-turn"


@dataclass(slots=True)
class SharedGateway:
    """A gateway, and the secrets of all tests that have used it.

    `reload` sends `/reload-mcp` as the operator and waits for the reply. `chats_showing` returns the chats
    that show a text. `token` is the bot's token. Each test starts with `settings` and `secrets`.
    """

    hermes: Gateway
    model: FakeModel
    reload: Callable[[], None]
    chats_showing: Callable[[str], Iterable[Any]]
    token: str
    all_secrets: list[TrackedSecrets] = field(default_factory=list[TrackedSecrets])
    # Servers whose tools do not appear after a login, because a test prevents it.
    servers_without_tools: set[str] = field(default_factory=set[str])
    settings: dict[str, Any] = field(init=False)
    secrets: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.settings = deepcopy(self.hermes.settings)
        self.secrets = dict(self.hermes.secrets)

    @property
    def home(self) -> Path:
        return self.hermes.home

    @contextmanager
    def prepare_test(
        self, servers: Mapping[str, Mapping[str, Any]], minted: Collection[str], *, reload: bool
    ) -> Iterator[TrackedSecrets]:
        """Configure these servers for a test. `reload` connects those that have tokens."""
        tracked_secrets = TrackedSecrets(minted=minted)
        self.all_secrets.append(tracked_secrets)
        # Watch for the secrets of earlier tests too: they must not reach a log during this test.
        for earlier_test in self.all_secrets:
            leak_check.watch_secrets(earlier_test.minted)
        leak_check.watch_secrets([self.token])
        try:
            self._start_with_servers(servers)
            if reload:
                self.reload()
            yield tracked_secrets
            self._reset(servers)
        except BaseException:
            self.model.release_all()
            # Stop Hermes in the normal way: after a kill, Hermes would continue its turns at the next start.
            self.hermes.stop()
            raise

    def _start_with_servers(self, servers: Mapping[str, Mapping[str, Any]]) -> None:
        hermes = self.hermes
        current_settings = {**hermes.settings, "mcp_servers": self.settings["mcp_servers"]}
        if current_settings != self.settings or hermes.secrets != self.secrets:
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
        self.model.reset()

    def _reset(self, servers: Iterable[str]) -> None:
        self.model.reset()
        service, store = AuthService(self.home), FileStore(self.home)
        for login in service.blocking.waiting_logins():
            asyncio.run(service.cancel(login.id))
        self._wait_for_tools(
            {
                login_status.key.server_name
                for login_status in service.blocking.logins()
                if login_status.status == "done"
            }
        )
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
        deadline = time.monotonic() + TOOLS_SECONDS
        for name in servers - self.servers_without_tools:
            while f"The tools of {name} are loaded." not in self.hermes.output():
                assert time.monotonic() < deadline, f"The tools of {name} did not appear."
                time.sleep(0.05)

    def close(self) -> None:
        """Stop the gateway and search once more for the secrets of all tests."""
        for earlier_test in self.all_secrets:
            leak_check.watch_secrets(earlier_test.minted)
        leak_check.watch_secrets([self.token])
        self.hermes.stop()
        assert_no_leaks(self.hermes, self.model, self.all_secrets, self.chats_showing)


def reload_mcp(send_command: Callable[[], object], replies: Callable[[], list[str]]) -> None:
    """Send `/reload-mcp` as the operator until Hermes accepts it.

    `replies` returns the texts that the operator received. During a turn of the operator, Hermes refuses the
    command. If a gateway was killed during such a turn, it continues the turn when it starts.
    """
    deadline = time.monotonic() + RELOAD_SECONDS
    while True:
        previous_count = len(replies())
        send_command()
        while not (
            new_replies := [
                text for text in replies()[previous_count:] if RELOADED_TEXT in text or REFUSED_TEXT in text
            ]
        ):
            assert time.monotonic() < deadline, "Hermes did not reload its MCP servers in time."
            time.sleep(0.05)
        if RELOADED_TEXT in new_replies[-1]:
            return
        time.sleep(0.1)
