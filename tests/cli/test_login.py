"""Logins in real processes: paste, redirect and other processes compete; `--json` reports the result."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.browserless import approve, deny, fetch
from tests.cli.commands import Cli, log_in
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow


def is_listening(uri: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", urlsplit(uri).port or 0)) == 0


def test_a_paste_logs_in_and_a_program_reads_how(cli: Cli, demo: Demo) -> None:
    with cli.started("login", "demo", "--json") as login:
        waiting = login.event()
        assert waiting["event"] == "waiting"
        assert waiting["server"] == "demo"
        assert waiting["owner"] is None
        assert waiting["issuer"] == demo.issuer
        assert waiting["scope"] == ["mcp:tools", "offline_access"]
        assert waiting["listening"] is True
        assert waiting["browser_opened"] is False
        assert is_listening(waiting["redirect_uri"])
        login.send(approve(waiting["authorization_url"]) + "\n")
        connected = login.event()
        assert login.end().code == 0
    assert connected["event"] == "connected"
    assert connected["url"] == demo.mcp_url
    assert connected["account"] == "ada@example.com"
    assert connected["scope"] == ["mcp:tools", "offline_access"]
    assert connected["missing_scope"] == []
    assert connected["can_refresh"] is True
    assert not is_listening(waiting["redirect_uri"])
    assert cli.stored()["access_token"] in demo.authorization_server.minted_secrets


def test_a_redirect_that_reaches_the_listener_logs_in_and_nothing_is_pasted(cli: Cli, demo: Demo) -> None:
    with cli.started("login", "demo", "--json") as login:
        waiting = login.event()
        status, headers, page = fetch("GET", approve(waiting["authorization_url"]))
        assert status == 200
        assert "You are logged in" in page
        assert headers["referrer-policy"] == "no-referrer"
        assert login.event()["event"] == "connected"
        # The command exits although its standard input is still open.
        assert login.process.wait(20) == 0
    assert not is_listening(waiting["redirect_uri"])


def test_a_redirect_for_another_login_is_told_so_and_this_one_waits_on(cli: Cli, demo: Demo) -> None:
    with cli.started("login", "demo", "--json") as login:
        waiting = login.event()
        wrong = f"{waiting['redirect_uri']}?code=some-code-of-another&state=another"
        status, _, page = fetch("GET", wrong)
        assert status == 400
        assert "The login still waits" in page
        assert login.event()["event"] == "refused"
        assert fetch("GET", approve(waiting["authorization_url"]))[0] == 200
        assert login.event()["event"] == "connected"


@covers("race")
def test_another_process_finishes_the_login_and_this_one_says_so(cli: Cli, demo: Demo) -> None:
    with cli.started("login", "demo", "--json") as login:
        waiting = login.event()
        answer = approve(waiting["authorization_url"]).encode()
        other = cli.run("login", "--finish", waiting["login_id"], "--json", stdin=answer)
        assert other.code == 0
        assert [event["event"] for event in other.events] == ["connected"]
        assert login.event() == other.events[0]
        assert login.process.wait(20) == 0
    again = cli.run("login", "--finish", waiting["login_id"], "--json", stdin=answer)
    assert (again.code, again.events[0]["error"]) == (5, "login_already_used")
    assert demo.authorization_server.count_requests("token") == 1


def test_a_login_is_begun_now_and_finished_later(cli: Cli, demo: Demo) -> None:
    begun = cli.run("login", "demo", "--no-wait")
    assert begun.code == 0
    url = next(line for line in begun.err.splitlines() if line.startswith("http"))
    login_id = begun.out.split()[-1]
    wrong = cli.run("login", "--finish", login_id, stdin=b"https://elsewhere.example/?code=x&state=y")
    assert wrong.code == 5
    assert cli.files() == {}
    done = cli.run("login", "--finish", login_id, stdin=approve(url).encode())
    assert done.code == 0
    assert done.out.startswith("✓ demo: connected\n")


@pytest.mark.parametrize("login_id", ["", "../../etc/passwd", "A" * 22, "x" * 5000])
def test_a_login_that_there_is_not_cannot_be_finished(cli: Cli, login_id: str) -> None:
    ended = cli.run("login", "--finish", login_id, "--json", stdin=b"whatever\n")
    assert (ended.code, ended.events[0]["error"]) == (5, "login_not_found")


def test_denied_at_the_provider_ends_the_login(cli: Cli, demo: Demo) -> None:
    with cli.started("login", "demo", "--json") as login:
        login.send(deny(login.event()["authorization_url"]) + "\n")
        ended = login.end()
    assert (ended.code, ended.events[0]["error"]) == (5, "authorization_denied")


def test_a_login_that_nobody_finishes_expires(cli: Cli, demo: Demo) -> None:
    cli.configure(demo.mcp_url, timeout=1)
    ended = cli.run("login", "demo", "--json")
    assert (ended.code, ended.events[-1]["error"]) == (5, "login_expired")
    assert not is_listening(ended.events[0]["redirect_uri"])


def test_a_pipe_whose_last_word_was_refused_ends_the_login(cli: Cli, demo: Demo) -> None:
    ended = cli.run("login", "demo", "--json", stdin=b"nonsense\n")
    assert ended.code == 5
    assert [event.get("event") or event["error"] for event in ended.events] == [
        "waiting",
        "refused",
        "paste_refused",
    ]


def test_a_server_in_no_config_is_known_by_its_address_and_then_by_its_name(cli: Cli, demo: Demo) -> None:
    cli.write_config("{}")
    ended = log_in(cli, demo, "--url", demo.mcp_url)
    name = ended.events[-1]["server"]
    token = cli.stored(name)["access_token"]
    for named in (name, demo.mcp_url):
        assert cli.run("token", named, may_show=[token]).out == f"{token}\n"
    assert f"✓ {name}: connected" in cli.run("status").out
    assert cli.run("logout", name).code == 0
    assert cli.files() == {}


def test_an_address_never_takes_the_place_of_another_one_with_the_same_name(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    before = cli.files()
    other = demo.mcp_url.replace("/mcp", "/other/mcp")
    ended = cli.run("login", "demo", "--url", other, "--json")
    assert (ended.code, ended.events[0]["error"]) == (3, "config")
    assert demo.mcp_url in ended.events[0]["message"]
    assert other in ended.events[0]["advice"]
    assert cli.files() == before


def test_two_logins_for_one_server_do_not_disturb_each_other(cli: Cli, demo: Demo) -> None:
    with cli.started("login", "demo", "--json") as one, cli.started("login", "demo", "--json") as two:
        first, second = one.event(), two.event()
        assert first["redirect_uri"] != second["redirect_uri"]
        one.send(approve(second["authorization_url"]) + "\n")
        assert one.event()["error"] == "paste_refused"
        two.send(approve(second["authorization_url"]) + "\n")
        assert two.event()["event"] == "connected"
        one.send(approve(first["authorization_url"]) + "\n")
        assert one.event()["event"] == "connected"


def test_the_owner_has_credentials_of_their_own(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo, "demo", "--owner", "telegram:42")
    assert cli.run("token", "demo").code == 4
    ended = cli.run(
        "token", "demo", "--owner", "telegram:42", may_show=demo.authorization_server.minted_secrets
    )
    assert ended.code == 0
    assert ended.out.strip() in demo.authorization_server.minted_secrets
    listed = cli.run("status", "--json").events
    assert [(each["owner"], each["state"]) for each in listed] == [
        (None, "not_connected"),
        ("telegram:42", "connected"),
    ]
    theirs = cli.run("status", "--owner", "telegram:42", "--json").events
    assert [(each["owner"], each["state"]) for each in theirs] == [("telegram:42", "connected")]
    nobodys = cli.run("status", "demo", "--owner", "telegram:43")
    assert "hermes-mcp-auth login demo --owner telegram:43" in nobodys.out


def test_a_busy_port_that_is_configured_leaves_the_paste(cli: Cli, demo: Demo) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        cli.configure(demo.mcp_url, redirect_port=port)
        with cli.started("login", "demo", "--json") as login:
            waiting = login.event()
            assert waiting["listening"] is False
            assert urlsplit(waiting["redirect_uri"]).port == port
            login.send(approve(waiting["authorization_url"]) + "\n")
            assert login.event()["event"] == "connected"


def test_a_browser_that_was_opened_is_one_argument_and_no_shell(cli: Cli, demo: Demo, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$0.asked.new" && mv "$0.asked.new" "$0.asked"\n')
    browser.chmod(0o700)
    with cli.started("login", "demo", "--json", env={"BROWSER": str(browser)}) as login:
        waiting = login.event()
        assert waiting["browser_opened"] is True
        fetch("GET", approve(waiting["authorization_url"]))
        assert login.event()["event"] == "connected"
    asked = Path(f"{browser}.asked").read_text()
    assert asked == f"{waiting['authorization_url']}\n"


@pytest.mark.parametrize("more", [(), ("--no-wait",), ("--flow", "device")])
def test_a_server_that_needs_no_person_is_not_logged_in_to(
    cli: Cli, demo: Demo, more: tuple[str, ...]
) -> None:
    cli.configure(demo.mcp_url, grant="client_credentials", client_id="job-7", client_secret="ours-alone")
    ended = cli.run("login", "demo", *more)
    assert ended.code == 3
    assert "demo needs no login: its `oauth.grant` is `client_credentials`" in ended.err
    assert "`hermes-mcp-auth token demo` fetches a token." in ended.err
    assert "ours-alone" not in ended.err
    assert demo.authorization_server.requests == []
