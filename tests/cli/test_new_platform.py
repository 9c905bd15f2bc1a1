"""A platform that is one folder and one row works everywhere: configuration, `serve`, `--via`, `status`."""

from __future__ import annotations

import json
import queue
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hermes_mcp_auth_remote.config.chats import ChatSettings, load_chat_settings
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.platforms import PLATFORMS
from tests.cli.commands import Cli
from tests.consent_form import approve
from tests.parts.authorization_server import Demo
from tests.parts.text_chat import WIRE
from tests.requirements import covers

pytestmark = pytest.mark.slow

ADA, EVE, TOKEN = "@ada:example.org", "@eve:example.org", "wire-token-that-nobody-may-see"
COMMAND = (sys.executable, "-m", "tests.parts.text_chat")
ROOT = Path(__file__).parents[2]


class WireServer:
    """The platform's server, for one bot."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.token = ""
        self._messages: queue.Queue[dict[str, str]] = queue.Queue()
        self._connection: socket.socket | None = None
        self._is_connected = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        self._connection, _ = self._listener.accept()
        self._is_connected.set()
        with self._connection.makefile("rb") as file:
            self.token = file.readline().decode().strip()
            for line in file:
                self._messages.put(json.loads(line))

    def say(self, user: str, text: str) -> None:
        # The bot reports that it serves before this process has accepted its connection.
        assert self._is_connected.wait(40)
        assert self._connection is not None
        self._connection.sendall(json.dumps({"user": user, "text": text}).encode() + b"\n")

    def wait_for(self, user: str, beginning: str) -> str:
        """Return the next message to a user that begins with a text."""
        while True:
            message = self._messages.get(timeout=40)
            if message["to"] == user and message["text"].startswith(beginning):
                return message["text"]

    def close(self) -> None:
        self._listener.close()
        if self._connection is not None:
            self._connection.close()


@pytest.fixture
def wire() -> Iterator[WireServer]:
    server = WireServer()
    yield server
    server.close()


def environ(cli: Cli) -> dict[str, str]:
    return cli.environ({"WIRE_CHAT_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)})


def run(cli: Cli, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environ(cli),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@contextmanager
def start(cli: Cli, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, *arguments], env=environ(cli), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_event(process: subprocess.Popen[str]) -> Mapping[str, Any]:
    assert process.stdout is not None
    event: Mapping[str, Any] = json.loads(process.stdout.readline())
    return event


def write_config(cli: Cli, demo: Demo, **section: object) -> None:
    document = {
        "mcp_servers": {"demo": {"url": demo.mcp_url, "auth": "oauth"}},
        "mcp_auth_chats": {"owners": "per_user", WIRE.name: section},
    }
    cli.write_config(json.dumps(document))


def url_in(text: str) -> str:
    url = re.search(r"https?://\S+/authorize\S+", text)
    assert url is not None
    return url[0]


@covers("platform-table")
def test_a_platform_with_other_ids_works_from_configuration_to_status(
    cli: Cli, demo: Demo, wire: WireServer
) -> None:
    write_config(cli, demo, allow=[ADA], device=False)
    with start(cli, "serve", "--wire-chat", "--wire-chat-api", wire.url, "--json") as bot:
        serving = read_event(bot)
        assert (serving["platform"], serving["has_no_users"]) == (WIRE.name, False)
        wire.say(EVE, "/connect demo")
        assert EVE in wire.wait_for(EVE, "You may not use this bot yet")
        wire.say(ADA, "/connect demo")
        wire.say(ADA, approve(url_in(wire.wait_for(ADA, "Connect demo"))))
        wire.wait_for(ADA, "demo: connected")
        assert wire.token == TOKEN
        with start(cli, "login", "demo", "--via", f"{WIRE.name}:{ADA}", "--json") as login:
            assert read_event(login)["via"] == f"{WIRE.name}:{ADA}"
            wire.say(ADA, approve(url_in(wire.wait_for(ADA, "Connect demo"))))
            wire.wait_for(ADA, "demo: connected")
            assert login.wait(60) == 0
    events = [json.loads(line) for line in run(cli, "status", "--json").stdout.splitlines()]
    assert [(event["owner"], event["state"]) for event in events[:-1]] == [
        (None, "not_connected"),
        (f"{WIRE.name}:{ADA}", "connected"),
    ]


@covers("platform-table")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["login", "demo", "--via", f"{WIRE.name}:7"], "such ids are names such as @ada:example.org"),
        (["login", "demo", "--via", "slack:7"], " or wire-chat:ID. A user who writes"),
        (["serve", "--wire-chat", "--allow", "7"], "--allow takes ids, which are names such as"),
        (["serve", "--wire-chat", "--telegram", "--allow", ADA], "--allow does not name the platform"),
        (
            ["serve", "--wire-chat", "--wire-chat-api", "http://wire.example"],
            "--wire-chat-api is plain http on another machine",
        ),
    ],
)
def test_ids_and_urls_of_a_platform_are_checked_by_its_row(
    cli: Cli, demo: Demo, arguments: list[str], message: str
) -> None:
    write_config(cli, demo)
    result = run(cli, *arguments)
    assert result.returncode == 3
    assert message in " ".join(result.stderr.split())


@covers("platform-table")
def test_the_configuration_accepts_only_ids_of_the_platform(
    cli: Cli, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PLATFORMS, WIRE.name, WIRE)
    write_config(cli, demo, allow=f"{ADA}, {EVE}")
    settings = load_chat_settings(cli.home, {})
    assert settings is not None
    assert settings.platform_settings(WIRE.name).allow == {ADA, EVE}
    for allow in ([7], [True], ["ada"]):
        write_config(cli, demo, allow=allow)
        with pytest.raises(ConfigError, match="must list ids, which are names such as"):
            load_chat_settings(cli.home, {})


@covers("platform-table")
def test_an_unknown_platform_has_no_rules_and_allows_no_one() -> None:
    settings = ChatSettings().platform_settings("unknown")
    assert settings.allow | settings.roles | settings.admin_roles == frozenset()
    assert settings.admins is None
