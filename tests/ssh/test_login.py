"""A login in a real SSH session: with a paste of any length, or through a forwarded port."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import COMMAND, Cli
from tests.consent_form import approve
from tests.leak_check import watch_secrets
from tests.parts.authorization_server import Demo, serve_demo
from tests.parts.ports import free_port
from tests.parts.ssh import SshServer, run_ssh_server
from tests.parts.terminal import open_terminal
from tests.requirements import covers

pytestmark = [pytest.mark.ssh, pytest.mark.tmux]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with run_ssh_server(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def demo() -> Iterator[Demo]:
    with serve_demo() as demo:
        watch_secrets(demo.authorization_server.minted_secrets)
        yield demo


@pytest.fixture
def cli(demo: Demo, tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home", demo.authorization_server.minted_secrets)


def remote_command(cli: Cli, *arguments: str) -> list[str]:
    # Set DISPLAY and BROWSER as X11 forwarding does: the command must still not open a browser.
    variables = [f"HERMES_HOME={cli.home}", "LANG=C.UTF-8", "DISPLAY=localhost:10.0", "BROWSER=/bin/false"]
    return ["env", f"PYTHONPATH={Path.cwd()}", *variables, sys.executable, *COMMAND[1:], *arguments]


def find_url(screen: str) -> str:
    [url] = [line for line in screen.splitlines() if line.startswith("http")]
    return url


@covers("ssh-paste")
def test_a_paste_of_six_thousand_characters_is_complete_and_logs_in(
    cli: Cli, demo: Demo, sshd: SshServer
) -> None:
    cli.configure(demo.mcp_url)
    with open_terminal(sshd.command(remote_command(cli, "login", "demo")), columns=80, rows=50) as screen:
        screen_text = screen.wait_for("Ctrl-C cancels.")
        assert "A browser was opened" not in screen_text
        redirect_url = approve(find_url(screen_text))
        # Some authorization servers add long parameters. If the paste were truncated, it would lose the code.
        before, _, query = redirect_url.partition("?")
        long_url = f"{before}?session_state={'s' * (6000 - len(redirect_url) - 15)}&{query}"
        assert len(long_url) == 6000
        screen.paste(long_url)
        screen.wait_for("[6000 characters]")
        screen.press("Enter")
        assert screen.wait_for_exit() == 0
        text = screen.full_text()
    assert "✓ demo: connected" in text
    cli.check_output(text)
    assert "ssss" not in text
    assert cli.stored_tokens()["access_token"] in demo.authorization_server.minted_secrets


@covers("forwarded")
def test_a_forwarded_port_delivers_the_redirect_without_a_paste(
    cli: Cli, demo: Demo, sshd: SshServer
) -> None:
    remote_port, local_port = free_port(), free_port()
    cli.configure(demo.mcp_url, redirect_port=remote_port)
    command = sshd.command(
        remote_command(cli, "login", "demo", "--no-qr"), forwards=[(local_port, remote_port)]
    )
    with open_terminal(command, columns=80, rows=50) as screen:
        screen_text = screen.wait_for("Ctrl-C cancels.")
        # The `ssh` command on the screen is complete: it names the address, port and user of this SSH
        # session.
        forward = f"{remote_port}:127.0.0.1:{remote_port}"
        expected_command = f"ssh -N -L {forward} -p {sshd.port} {sshd.user}@127.0.0.1"
        assert expected_command in screen_text.splitlines()
        redirect_url = approve(find_url(screen_text))
        # One machine is client and server, so the local port differs from the port in the redirect URI.
        status, _, page = fetch_through_forward(redirect_url, local_port, remote_port)
        assert status == 200
        assert "You are logged in" in page
        assert screen.wait_for_exit() == 0
        assert "✓ demo: connected" in screen.full_text()


def fetch_through_forward(url: str, local_port: int, remote_port: int) -> tuple[int, dict[str, str], str]:
    """Fetch through the forwarded local port, with a Host header that names the remote port."""
    from http.client import HTTPConnection
    from urllib.parse import urlsplit

    assert urlsplit(url).port == remote_port
    connection = HTTPConnection("127.0.0.1", local_port, timeout=20)
    try:
        target = url.partition(f":{remote_port}")[2]
        connection.request("GET", target, headers={"Host": f"127.0.0.1:{remote_port}"})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
    finally:
        connection.close()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_dropped_connection_cancels_the_login_and_closes_the_listener(
    cli: Cli, demo: Demo, sshd: SshServer
) -> None:
    port = free_port()
    cli.configure(demo.mcp_url, redirect_port=port)
    with open_terminal(sshd.command(remote_command(cli, "login", "demo", "--no-qr")), rows=50) as screen:
        redirect_url = approve(find_url(screen.wait_for("Ctrl-C cancels.")))
        screen.press("Enter", "~", ".")  # the escape sequence of ssh that drops the connection
        screen.wait_for_exit()
    login_id = next((cli.home / "mcp-tokens" / "logins").glob("*.json")).stem
    # The terminal hangs up: the command gets SIGHUP, cancels the login and exits.
    deadline = time.monotonic() + 20
    while is_listening(port):
        assert time.monotonic() < deadline, "the listener is still open after the connection dropped"
        time.sleep(0.02)
    result = cli.run("login", "--finish", login_id, "--json", stdin=redirect_url.encode())
    assert result.events[0]["error"] == "login_cancelled"
    assert cli.credential_files() == {}
