"""Signals during each step of a command: one message, unchanged credentials, no open listener."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey
from tests.cli.commands import Cli, RunningCommand, log_in
from tests.consent_form import approve, fetch
from tests.parts.authorization_server import Demo, Step
from tests.requirements import covers
from tests.service.helpers import wait_until

pytestmark = pytest.mark.slow

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def is_listening(uri: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", urlsplit(uri).port or 0)) == 0


# An interrupted command prints this if a token request is in flight.
WAITING_PATTERN = (
    r"Waiting for 127\.0\.0\.1 to answer a token request, at most \d\d s; Ctrl-C again ends at once\.\n"
)


def check_cancelled(started: RunningCommand, number: signal.Signals, *, stderr: str = "") -> None:
    result = started.wait_for_exit()
    assert result.exit_code == EXIT_CODES[number]
    [event] = result.events
    assert (event["error"], event["message"], event["advice"]) == (
        "interrupted",
        "Cancelled.",
        "Run the command again.",
    )
    assert result.err == stderr


def says_it_waits(started: RunningCommand) -> bool:
    """Return whether the next line says that the command waits for a token request."""
    assert started.process.stderr is not None
    return re.fullmatch(WAITING_PATTERN, started.process.stderr.readline().decode()) is not None


@pytest.mark.parametrize("number", list(EXIT_CODES))
def test_a_signal_cancels_a_waiting_login(cli: Cli, demo: Demo, number: signal.Signals) -> None:
    log_in(cli, demo)
    before = cli.credential_files()
    with cli.start("login", "demo", "--json") as login:
        waiting = login.read_event()
        login.send_signal(number)
        check_cancelled(login, number)
    assert cli.credential_files() == before
    assert not is_listening(waiting["redirect_uri"])
    redirect_url = approve(waiting["authorization_url"]).encode()
    late_result = cli.run("login", "--finish", waiting["login_id"], "--json", stdin=redirect_url)
    assert (late_result.exit_code, late_result.events[0]["error"]) == (5, "login_cancelled")


@pytest.mark.parametrize(
    "step", ["protected_resource_metadata", "authorization_server_metadata", "registration"]
)
def test_a_signal_before_the_login_is_shown_stores_nothing(cli: Cli, demo: Demo, step: Step) -> None:
    gate = demo.authorization_server.hold(step)
    with cli.start("login", "demo", "--json") as login:
        assert gate.arrived.wait(20)
        login.send_signal(signal.SIGINT)
        check_cancelled(login, signal.SIGINT)
    assert cli.credential_files() == {}


@covers("interrupted")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_code_exchange_waits_for_the_tokens(
    cli: Cli, demo: Demo, number: signal.Signals
) -> None:
    log_in(cli, demo)
    before = cli.credential_files()
    gate = demo.authorization_server.hold("token")
    with cli.start("login", "demo", "--json") as login:
        waiting = login.read_event()
        redirect_url = approve(waiting["authorization_url"])
        login.send(redirect_url + "\n")
        assert gate.arrived.wait(20)
        login.send_signal(number)
        # The code can be used once, so the command waits for its tokens.
        assert says_it_waits(login)
        gate.open()
        check_cancelled(login, number)
    assert cli.credential_files() != before
    second_result = cli.run("login", "--finish", waiting["login_id"], "--json", stdin=redirect_url.encode())
    assert (second_result.exit_code, second_result.events[0]["error"]) == (5, "login_already_used")
    assert demo.authorization_server.count_requests("token") == 2
    assert demo.authorization_server.count_requests("revocation") == 0


@covers("interrupted", "exit-waits")
def test_a_second_signal_during_the_code_exchange_exits_at_once(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    before = cli.credential_files()
    gate = demo.authorization_server.hold("token")
    with cli.start("login", "demo", "--json") as login:
        login.send(approve(login.read_event()["authorization_url"]) + "\n")
        assert gate.arrived.wait(20)
        login.send_signal(signal.SIGINT)
        assert says_it_waits(login)
        login.send_signal(signal.SIGINT)
        assert login.wait_for_exit().exit_code == -signal.SIGINT
    assert cli.credential_files() == before


@covers("exit-waits")
def test_a_signal_during_the_wait_for_a_lock_exits_at_once(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.change_stored_tokens(expires_at=1)
    lock = FileStore(cli.home).lock(CredentialKey("demo"))
    assert lock.try_acquire()
    with cli.start("token", "demo") as token:
        # The thread that waits for the lock (Linux).
        threads = Path(f"/proc/{token.process.pid}/task")
        wait_until(lambda: len(list(threads.iterdir())) > 1)
        token.send_signal(signal.SIGINT)
        result = token.wait_for_exit()
    lock.release()
    assert (result.exit_code, result.out, result.err) == (130, "", "\nCancelled.\n")
    assert demo.authorization_server.count_requests("refresh") == 0


def test_a_signal_during_the_exchange_shows_no_success_in_the_browser(cli: Cli, demo: Demo) -> None:
    import threading

    gate = demo.authorization_server.hold("token")
    pages: list[object] = []

    def browse(url: str) -> None:
        try:
            pages.append(fetch("GET", url))
        except OSError as error:
            pages.append(error)

    with cli.start("login", "demo", "--json") as login:
        browser = threading.Thread(target=browse, args=(approve(login.read_event()["authorization_url"]),))
        browser.start()
        assert gate.arrived.wait(20)
        login.send_signal(signal.SIGINT)
        assert says_it_waits(login)
        browser.join()
        assert "You are logged in" not in str(pages)
        gate.open()
        check_cancelled(login, signal.SIGINT)
    assert "demo.json" in cli.credential_files()


def test_a_signal_during_a_refresh_stores_the_new_tokens(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.change_stored_tokens(expires_at=1)
    gate = demo.authorization_server.hold("refresh", after_processing=True)
    with cli.start("token", "demo") as token:
        assert gate.arrived.wait(20)
        token.send_signal(signal.SIGINT)
        # The server has rotated the refresh token, so the command must store the new one.
        while not (line := token.process.stderr.readline()).strip():  # type: ignore[union-attr]
            pass
        assert line == b"Cancelled.\n"
        assert says_it_waits(token)
        gate.open()
        assert token.wait_for_exit().exit_code == 130
    demo.authorization_server.clear_faults()
    assert cli.run("token", "demo", may_show=[cli.stored_tokens()["access_token"]]).exit_code == 0
    assert demo.authorization_server.count_requests("refresh") == 1


@covers("exit-waits")
def test_a_second_signal_during_a_refresh_exits_at_once_without_output(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.change_stored_tokens(expires_at=1)
    gate = demo.authorization_server.hold("refresh")
    with cli.start("token", "demo") as token:
        assert gate.arrived.wait(20)
        token.send_signal(signal.SIGINT)
        while not (line := token.process.stderr.readline()).strip():  # type: ignore[union-attr]
            pass
        assert line == b"Cancelled.\n"
        assert says_it_waits(token)
        token.send_signal(signal.SIGINT)
        result = token.wait_for_exit()
    assert (result.exit_code, result.out, result.err) == (-signal.SIGINT, "", "")


def test_a_cancelled_logout_keeps_the_credentials(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    before = cli.credential_files()
    gate = demo.authorization_server.hold("revocation")
    with cli.start("logout", "demo", "--json") as logout:
        assert gate.arrived.wait(20)
        logout.send_signal(signal.SIGINT)
        check_cancelled(logout, signal.SIGINT)
    assert cli.credential_files() == before


def test_another_process_can_finish_the_login_of_a_killed_one(cli: Cli, demo: Demo) -> None:
    with cli.start("login", "demo", "--json") as login:
        waiting = login.read_event()
        login.send_signal(signal.SIGKILL)
        assert login.wait_for_exit().exit_code == -signal.SIGKILL
    redirect_url = approve(waiting["authorization_url"]).encode()
    result = cli.run("login", "--finish", waiting["login_id"], "--json", stdin=redirect_url)
    assert result.exit_code == 0
