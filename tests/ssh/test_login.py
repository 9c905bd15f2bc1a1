"""A login in a real SSH session: with a paste of any length, or through a forwarded port."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browserless import approve
from tests.cli.commands import COMMAND, Cli
from tests.parts.authorization_server import Demo, serve_demo
from tests.parts.ports import free_port
from tests.parts.ssh import SshServer, ssh_server
from tests.parts.terminal import terminal
from tests.requirements import covers
from tests.tripwire import guard

pytestmark = [pytest.mark.ssh, pytest.mark.tmux]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def demo() -> Iterator[Demo]:
    with serve_demo() as demo:
        guard(demo.authorization_server.minted_secrets)
        yield demo


@pytest.fixture
def cli(demo: Demo, tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home", demo.authorization_server.minted_secrets)


def over_there(cli: Cli, *arguments: str) -> list[str]:
    # DISPLAY and BROWSER as with X11 forwarding: the command must still not open a browser.
    seen = [f"HERMES_HOME={cli.home}", "LANG=C.UTF-8", "DISPLAY=localhost:10.0", "BROWSER=/bin/false"]
    return ["env", f"PYTHONPATH={Path.cwd()}", *seen, sys.executable, *COMMAND[1:], *arguments]


def url_on(screen: str) -> str:
    [url] = [line for line in screen.splitlines() if line.startswith("http")]
    return url


@covers("ssh-paste")
def test_a_paste_of_six_thousand_characters_arrives_whole_and_logs_in(
    cli: Cli, demo: Demo, sshd: SshServer
) -> None:
    cli.configure(demo.mcp_url)
    with terminal(sshd.command(over_there(cli, "login", "demo")), columns=80, rows=50) as screen:
        shown = screen.wait_for("Ctrl-C cancels.")
        assert "A browser was opened" not in shown
        answer = approve(url_on(shown))
        # Some authorization servers add long parameters. A truncated paste would lose the code at the end.
        before, _, query = answer.partition("?")
        long = f"{before}?session_state={'s' * (6000 - len(answer) - 15)}&{query}"
        assert len(long) == 6000
        screen.paste(long)
        screen.wait_for("[6000 characters]")
        screen.press("Enter")
        assert screen.wait_for_exit() == 0
        text = screen.joined()
    assert "✓ demo: connected" in text
    cli.check(text)
    assert "ssss" not in text
    assert cli.stored()["access_token"] in demo.authorization_server.minted_secrets


@covers("forwarded")
def test_a_forwarded_port_brings_the_redirect_and_nothing_is_pasted(
    cli: Cli, demo: Demo, sshd: SshServer
) -> None:
    there, here = free_port(), free_port()
    cli.configure(demo.mcp_url, redirect_port=there)
    command = sshd.command(over_there(cli, "login", "demo", "--no-qr"), forwards=[(here, there)])
    with terminal(command, columns=80, rows=50) as screen:
        shown = screen.wait_for("Ctrl-C cancels.")
        assert f"ssh -L {there}:127.0.0.1:{there}" in shown
        answer = approve(url_on(shown))
        # One machine is client and server, so the local port differs from the port in the redirect URI.
        status, _, page = fetch_as(answer, here, there)
        assert status == 200
        assert "You are logged in" in page
        assert screen.wait_for_exit() == 0
        assert "✓ demo: connected" in screen.joined()


def fetch_as(url: str, here: int, there: int) -> tuple[int, dict[str, str], str]:
    """Fetch through the forwarded local port, with a Host header that names the remote port."""
    from http.client import HTTPConnection
    from urllib.parse import urlsplit

    assert urlsplit(url).port == there
    connection = HTTPConnection("127.0.0.1", here, timeout=20)
    try:
        target = url.partition(f":{there}")[2]
        connection.request("GET", target, headers={"Host": f"127.0.0.1:{there}"})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
    finally:
        connection.close()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_connection_that_drops_leaves_no_listener_and_no_half_login(
    cli: Cli, demo: Demo, sshd: SshServer
) -> None:
    port = free_port()
    cli.configure(demo.mcp_url, redirect_port=port)
    with terminal(sshd.command(over_there(cli, "login", "demo", "--no-qr")), rows=50) as screen:
        answer = approve(url_on(screen.wait_for("Ctrl-C cancels.")))
        screen.press("Enter", "~", ".")  # the escape sequence of ssh that drops the connection
        screen.wait_for_exit()
    login_id = next((cli.home / "mcp-tokens" / "logins").glob("*.json")).stem
    # The terminal hangs up: the command gets SIGHUP, cancels the login and exits.
    end = time.monotonic() + 20
    while is_listening(port):
        assert time.monotonic() < end, "the listener is still open after the connection dropped"
        time.sleep(0.02)
    ended = cli.run("login", "--finish", login_id, "--json", stdin=answer.encode())
    assert ended.events[0]["error"] == "login_cancelled"
    assert cli.files() == {}
