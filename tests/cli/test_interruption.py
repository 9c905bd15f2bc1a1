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
from tests.browserless import approve, fetch
from tests.cli.commands import Cli, Started, log_in
from tests.parts.authorization_server import Demo, Step
from tests.requirements import covers
from tests.service.given import eventually

pytestmark = pytest.mark.slow

ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def is_listening(uri: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", urlsplit(uri).port or 0)) == 0


# An interrupted command prints this if a token request is in flight.
WAITING = r"Waiting for 127\.0\.0\.1 to answer a token request, at most \d\d s; Ctrl-C again ends at once\.\n"


def check_cancelled(started: Started, number: signal.Signals, *, said: str = "") -> None:
    ended = started.end()
    assert ended.code == ENDS[number]
    assert ended.events == [
        {"error": "interrupted", "message": "Cancelled.", "advice": "Run the command again."}
    ]
    assert ended.err == said


def waits(started: Started) -> bool:
    """Return whether the next line says that the command waits for a token request."""
    assert started.process.stderr is not None
    return re.fullmatch(WAITING, started.process.stderr.readline().decode()) is not None


@pytest.mark.parametrize("number", list(ENDS))
def test_while_a_login_waits(cli: Cli, demo: Demo, number: signal.Signals) -> None:
    log_in(cli, demo)
    before = cli.files()
    with cli.started("login", "demo", "--json") as login:
        waiting = login.event()
        login.signal(number)
        check_cancelled(login, number)
    assert cli.files() == before
    assert not is_listening(waiting["redirect_uri"])
    answer = approve(waiting["authorization_url"]).encode()
    late = cli.run("login", "--finish", waiting["login_id"], "--json", stdin=answer)
    assert (late.code, late.events[0]["error"]) == (5, "login_cancelled")


@pytest.mark.parametrize(
    "step", ["protected_resource_metadata", "authorization_server_metadata", "registration"]
)
def test_before_the_login_is_shown(cli: Cli, demo: Demo, step: Step) -> None:
    gate = demo.authorization_server.hold(step)
    with cli.started("login", "demo", "--json") as login:
        assert gate.arrived.wait(20)
        login.signal(signal.SIGINT)
        check_cancelled(login, signal.SIGINT)
    assert cli.files() == {}


@covers("interrupted")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_the_code_is_exchanged(cli: Cli, demo: Demo, number: signal.Signals) -> None:
    log_in(cli, demo)
    before = cli.files()
    gate = demo.authorization_server.hold("token")
    with cli.started("login", "demo", "--json") as login:
        waiting = login.event()
        answer = approve(waiting["authorization_url"])
        login.send(answer + "\n")
        assert gate.arrived.wait(20)
        login.signal(number)
        # The code can be used once, so the command waits for its tokens.
        assert waits(login)
        gate.open()
        check_cancelled(login, number)
    assert cli.files() != before
    again = cli.run("login", "--finish", waiting["login_id"], "--json", stdin=answer.encode())
    assert (again.code, again.events[0]["error"]) == (5, "login_already_used")
    assert demo.authorization_server.count_requests("token") == 2
    assert demo.authorization_server.count_requests("revocation") == 0


@covers("interrupted", "exit-waits")
def test_twice_while_the_code_is_exchanged_ends_at_once_and_changes_nothing(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    before = cli.files()
    gate = demo.authorization_server.hold("token")
    with cli.started("login", "demo", "--json") as login:
        login.send(approve(login.event()["authorization_url"]) + "\n")
        assert gate.arrived.wait(20)
        login.signal(signal.SIGINT)
        assert waits(login)
        login.signal(signal.SIGINT)
        assert login.end().code == -signal.SIGINT
    assert cli.files() == before


@covers("exit-waits")
def test_while_another_process_has_the_lock_nothing_is_waited_for(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.change_stored(expires_at=1)
    lock = FileStore(cli.home).lock(CredentialKey("demo"))
    assert lock.try_acquire()
    with cli.started("token", "demo") as token:
        # The thread that waits for the lock (Linux).
        threads = Path(f"/proc/{token.process.pid}/task")
        eventually(lambda: len(list(threads.iterdir())) > 1)
        token.signal(signal.SIGINT)
        ended = token.end()
    lock.release()
    assert (ended.code, ended.out, ended.err) == (130, "", "\nCancelled.\n")
    assert demo.authorization_server.count_requests("refresh") == 0


def test_while_a_redirect_is_exchanged_the_browser_gets_no_wrong_news(cli: Cli, demo: Demo) -> None:
    import threading

    gate = demo.authorization_server.hold("token")
    pages: list[object] = []

    def browse(url: str) -> None:
        try:
            pages.append(fetch("GET", url))
        except OSError as error:
            pages.append(error)

    with cli.started("login", "demo", "--json") as login:
        browser = threading.Thread(target=browse, args=(approve(login.event()["authorization_url"]),))
        browser.start()
        assert gate.arrived.wait(20)
        login.signal(signal.SIGINT)
        assert waits(login)
        browser.join()
        assert "You are logged in" not in str(pages)
        gate.open()
        check_cancelled(login, signal.SIGINT)
    assert "demo.json" in cli.files()


def test_while_a_token_is_refreshed_nothing_is_lost(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.change_stored(expires_at=1)
    gate = demo.authorization_server.hold("refresh", after_processing=True)
    with cli.started("token", "demo") as token:
        assert gate.arrived.wait(20)
        token.signal(signal.SIGINT)
        # The server has rotated the refresh token, so the command must store the new one.
        while not (said := token.process.stderr.readline()).strip():  # type: ignore[union-attr]
            pass
        assert said == b"Cancelled.\n"
        assert waits(token)
        gate.open()
        assert token.end().code == 130
    demo.authorization_server.clear_faults()
    assert cli.run("token", "demo", may_show=[cli.stored()["access_token"]]).code == 0
    assert demo.authorization_server.count_requests("refresh") == 1


@covers("exit-waits")
def test_twice_ends_at_once_and_in_silence(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.change_stored(expires_at=1)
    gate = demo.authorization_server.hold("refresh")
    with cli.started("token", "demo") as token:
        assert gate.arrived.wait(20)
        token.signal(signal.SIGINT)
        while not (said := token.process.stderr.readline()).strip():  # type: ignore[union-attr]
            pass
        assert said == b"Cancelled.\n"
        assert waits(token)
        token.signal(signal.SIGINT)
        ended = token.end()
    assert (ended.code, ended.out, ended.err) == (-signal.SIGINT, "", "")


def test_a_logout_that_is_cancelled_keeps_the_files(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    before = cli.files()
    gate = demo.authorization_server.hold("revocation")
    with cli.started("logout", "demo", "--json") as logout:
        assert gate.arrived.wait(20)
        logout.signal(signal.SIGINT)
        check_cancelled(logout, signal.SIGINT)
    assert cli.files() == before


def test_a_process_that_is_killed_leaves_a_login_that_another_can_finish(cli: Cli, demo: Demo) -> None:
    with cli.started("login", "demo", "--json") as login:
        waiting = login.event()
        login.signal(signal.SIGKILL)
        assert login.end().code == -signal.SIGKILL
    answer = approve(waiting["authorization_url"]).encode()
    done = cli.run("login", "--finish", waiting["login_id"], "--json", stdin=answer)
    assert done.code == 0
