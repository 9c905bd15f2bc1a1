"""Logins in real processes: paste, redirect and other processes compete; `--json` reports the result."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.commands import Cli, log_in
from tests.consent_form import approve, deny, fetch
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow


def is_listening(uri: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", urlsplit(uri).port or 0)) == 0


def test_a_paste_logs_in_and_json_events_describe_the_login(cli: Cli, demo: Demo) -> None:
    with cli.start("login", "demo", "--json") as login:
        waiting = login.read_event()
        assert waiting["event"] == "waiting"
        assert waiting["server"] == "demo"
        assert waiting["owner"] is None
        assert waiting["issuer"] == demo.issuer
        assert waiting["scope"] == ["mcp:tools", "offline_access"]
        assert waiting["listening"] is True
        assert waiting["browser_opened"] is False
        assert is_listening(waiting["redirect_uri"])
        login.send(approve(waiting["authorization_url"]) + "\n")
        connected = login.read_event()
        assert login.wait_for_exit().exit_code == 0
    assert connected["event"] == "connected"
    assert connected["url"] == demo.mcp_url
    assert connected["account"] == "ada@example.com"
    assert connected["scope"] == ["mcp:tools", "offline_access"]
    assert connected["missing_scope"] == []
    assert connected["can_refresh"] is True
    assert not is_listening(waiting["redirect_uri"])
    assert cli.stored_tokens()["access_token"] in demo.authorization_server.minted_secrets


def test_a_redirect_to_the_listener_logs_in_without_a_paste(cli: Cli, demo: Demo) -> None:
    with cli.start("login", "demo", "--json") as login:
        waiting = login.read_event()
        status, headers, page = fetch("GET", approve(waiting["authorization_url"]))
        assert status == 200
        assert "You are logged in" in page
        assert headers["referrer-policy"] == "no-referrer"
        assert login.read_event()["event"] == "connected"
        # The command exits although its standard input is still open.
        assert login.process.wait(20) == 0
    assert not is_listening(waiting["redirect_uri"])


def test_a_redirect_of_another_login_is_refused_and_this_one_still_waits(cli: Cli, demo: Demo) -> None:
    with cli.start("login", "demo", "--json") as login:
        waiting = login.read_event()
        wrong_url = f"{waiting['redirect_uri']}?code=some-code-of-another&state=another"
        status, _, page = fetch("GET", wrong_url)
        assert status == 400
        assert "The login still waits" in page
        assert login.read_event()["event"] == "refused"
        assert fetch("GET", approve(waiting["authorization_url"]))[0] == 200
        assert login.read_event()["event"] == "connected"


@covers("race")
def test_a_login_reports_that_another_process_finished_it(cli: Cli, demo: Demo) -> None:
    with cli.start("login", "demo", "--json") as login:
        waiting = login.read_event()
        redirect_url = approve(waiting["authorization_url"]).encode()
        finish_result = cli.run("login", "--finish", waiting["login_id"], "--json", stdin=redirect_url)
        assert finish_result.exit_code == 0
        assert [event["event"] for event in finish_result.events] == ["connected"]
        assert login.read_event() == finish_result.events[0]
        assert login.process.wait(20) == 0
    second_result = cli.run("login", "--finish", waiting["login_id"], "--json", stdin=redirect_url)
    assert (second_result.exit_code, second_result.events[0]["error"]) == (5, "login_already_used")
    assert demo.authorization_server.count_requests("token") == 1


def test_a_login_can_be_started_with_no_wait_and_finished_later(cli: Cli, demo: Demo) -> None:
    started = cli.run("login", "demo", "--no-wait")
    assert started.exit_code == 0
    url = next(line for line in started.err.splitlines() if line.startswith("http"))
    login_id = started.out.split()[-1]
    refused = cli.run("login", "--finish", login_id, stdin=b"https://elsewhere.example/?code=x&state=y")
    assert refused.exit_code == 5
    assert cli.credential_files() == {}
    finished = cli.run("login", "--finish", login_id, stdin=approve(url).encode())
    assert finished.exit_code == 0
    assert finished.out.startswith("✓ demo: connected\n")


@pytest.mark.parametrize("login_id", ["", "../../etc/passwd", "A" * 22, "x" * 5000])
def test_an_unknown_login_cannot_be_finished(cli: Cli, login_id: str) -> None:
    result = cli.run("login", "--finish", login_id, "--json", stdin=b"whatever\n")
    assert (result.exit_code, result.events[0]["error"]) == (5, "login_not_found")


def test_a_denial_fails_the_login(cli: Cli, demo: Demo) -> None:
    with cli.start("login", "demo", "--json") as login:
        login.send(deny(login.read_event()["authorization_url"]) + "\n")
        result = login.wait_for_exit()
    assert (result.exit_code, result.events[0]["error"]) == (5, "authorization_denied")


def test_an_unfinished_login_expires(cli: Cli, demo: Demo) -> None:
    cli.configure(demo.mcp_url, timeout=1)
    result = cli.run("login", "demo", "--json")
    assert (result.exit_code, result.events[-1]["error"]) == (5, "login_expired")
    assert not is_listening(result.events[0]["redirect_uri"])


def test_a_pipe_that_ends_after_a_refused_line_fails_the_login(cli: Cli, demo: Demo) -> None:
    result = cli.run("login", "demo", "--json", stdin=b"nonsense\n")
    assert result.exit_code == 5
    assert [(event["event"], event.get("error")) for event in result.events] == [
        ("waiting", None),
        ("refused", "paste_refused"),
        ("error", "paste_refused"),
    ]


def test_an_unconfigured_server_is_found_by_url_and_by_derived_name(cli: Cli, demo: Demo) -> None:
    cli.write_config("{}")
    result = log_in(cli, demo, "--url", demo.mcp_url)
    name = result.events[-1]["server"]
    token = cli.stored_tokens(name)["access_token"]
    for server in (name, demo.mcp_url):
        assert cli.run("token", server, may_show=[token]).out == f"{token}\n"
    assert f"✓ {name}: connected" in cli.run("status").out
    assert cli.run("logout", name).exit_code == 0
    assert cli.credential_files() == {}


def test_a_url_does_not_replace_another_url_with_the_same_name(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    before = cli.credential_files()
    other = demo.mcp_url.replace("/mcp", "/other/mcp")
    result = cli.run("login", "demo", "--url", other, "--json")
    assert (result.exit_code, result.events[0]["error"]) == (3, "config")
    assert demo.mcp_url in result.events[0]["message"]
    assert other in result.events[0]["advice"]
    assert cli.credential_files() == before


def test_two_logins_for_one_server_do_not_disturb_each_other(cli: Cli, demo: Demo) -> None:
    with cli.start("login", "demo", "--json") as one, cli.start("login", "demo", "--json") as two:
        first, second = one.read_event(), two.read_event()
        assert first["redirect_uri"] != second["redirect_uri"]
        one.send(approve(second["authorization_url"]) + "\n")
        assert one.read_event()["error"] == "paste_refused"
        two.send(approve(second["authorization_url"]) + "\n")
        assert two.read_event()["event"] == "connected"
        one.send(approve(first["authorization_url"]) + "\n")
        assert one.read_event()["event"] == "connected"


def test_an_owner_has_separate_credentials(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo, "demo", "--owner", "telegram:42")
    assert cli.run("token", "demo").exit_code == 4
    result = cli.run(
        "token", "demo", "--owner", "telegram:42", may_show=demo.authorization_server.minted_secrets
    )
    assert result.exit_code == 0
    assert result.out.strip() in demo.authorization_server.minted_secrets
    all_events = cli.run("status", "--json").events
    assert [(event["owner"], event["state"]) for event in all_events] == [
        (None, "not_connected"),
        ("telegram:42", "connected"),
    ]
    owner_events = cli.run("status", "--owner", "telegram:42", "--json").events
    assert [(event["owner"], event["state"]) for event in owner_events] == [("telegram:42", "connected")]
    unknown_owner = cli.run("status", "demo", "--owner", "telegram:43")
    assert "hermes-mcp-auth login demo --owner telegram:43" in unknown_owner.out


def test_a_busy_configured_port_leaves_only_the_paste(cli: Cli, demo: Demo) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        cli.configure(demo.mcp_url, redirect_port=port)
        with cli.start("login", "demo", "--json") as login:
            waiting = login.read_event()
            assert waiting["listening"] is False
            assert urlsplit(waiting["redirect_uri"]).port == port
            login.send(approve(waiting["authorization_url"]) + "\n")
            assert login.read_event()["event"] == "connected"


def test_the_browser_gets_the_url_as_one_argument_without_a_shell(
    cli: Cli, demo: Demo, tmp_path: Path
) -> None:
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$0.asked.new" && mv "$0.asked.new" "$0.asked"\n')
    browser.chmod(0o700)
    with cli.start("login", "demo", "--json", env={"BROWSER": str(browser)}) as login:
        waiting = login.read_event()
        assert waiting["browser_opened"] is True
        fetch("GET", approve(waiting["authorization_url"]))
        assert login.read_event()["event"] == "connected"
    browser_arguments = Path(f"{browser}.asked").read_text()
    assert browser_arguments == f"{waiting['authorization_url']}\n"


@covers("browser-failure")
def test_a_login_in_a_browser_says_that_no_browser_opened(cli: Cli, demo: Demo, tmp_path: Path) -> None:
    # This directory has no program that opens a browser.
    with cli.start("login", "demo", "--flow", "loopback", env={"PATH": str(tmp_path)}) as login:
        assert login.process.stderr is not None
        lines = iter(login.process.stderr.readline, b"")
        assert any(b"No browser was opened on this machine." in line for line in lines)


@pytest.mark.parametrize("more", [(), ("--no-wait",), ("--flow", "device")])
def test_login_refuses_a_server_with_a_machine_grant(cli: Cli, demo: Demo, more: tuple[str, ...]) -> None:
    cli.configure(demo.mcp_url, grant="client_credentials", client_id="job-7", client_secret="ours-alone")
    result = cli.run("login", "demo", *more)
    assert result.exit_code == 3
    assert "demo needs no login: its `oauth.grant` is `client_credentials`" in result.err
    assert "`hermes-mcp-auth token demo` fetches a token." in result.err
    assert "ours-alone" not in result.err
    assert demo.authorization_server.requests == []
