"""Compare the screens with tests/transcripts. `NEW_TRANSCRIPTS=1` writes the transcripts again.

Placeholders replace values that differ between runs: <port>, <time>, <home>, and <...> for all others.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.browserless import approve, deny
from tests.cli.commands import COMMAND, Cli, log_in
from tests.parts.authorization_server import Demo
from tests.parts.terminal import Terminal, terminal
from tests.requirements import covers

pytestmark = pytest.mark.slow

TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"


def settled(text: str, cli: Cli) -> str:
    """Replace secrets, and values that differ between runs, with placeholders."""
    text = text.replace(str(cli.home), "<home>")
    # The rows of a QR code with its quiet zone.
    text = re.sub(r"(?:^ *[█▀▄][█▀▄ ]*\n)+", "<QR code>\n", text, flags=re.MULTILINE)
    text = re.sub(r"(?<=[=])(?:client-[\w-]+|[\w-]{43}|urn[\w%.-]+)", "<...>", text)
    text = re.sub(r"127\.0\.0\.1(:|%3A)\d+", r"127.0.0.1\1<port>", text)
    text = re.sub(r"(ssh -L\s)\d+:", r"\1<port>:", text)
    text = re.sub(r"--finish \S{22}\b", "--finish <id>", text)
    text = re.sub(r"\b(?:\d{4}-\d\d-\d\d )?\d\d:\d\d\b", "<time>", text)
    text = re.sub(r"\[\d+ characters\]", "[<...> characters]", text)
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n") + "\n"


def compare(name: str, text: str, cli: Cli) -> None:
    """Compare a screen with its transcript."""
    cli.check(text)
    file = TRANSCRIPTS / f"{name}.txt"
    if os.environ.get("NEW_TRANSCRIPTS"):
        file.write_text(settled(text, cli), "utf-8")
    assert settled(text, cli) == file.read_text("utf-8")


def url_on(screen: str) -> str:
    """Return the URL; it must be alone on its line."""
    [url] = [line for line in screen.splitlines() if line.startswith("http")]
    return url


def shown_login(screen: Terminal) -> str:
    # On a narrow screen "Ctrl-C" is on the previous line.
    return url_on(screen.wait_for("cancels."))


@pytest.mark.tmux
def test_a_login_with_a_qr_code_a_wrong_paste_and_the_right_one(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(with_par=True)
    with terminal([*COMMAND, "login", "demo"], env=cli.environ(), columns=80, rows=60) as screen:
        url = shown_login(screen)
        assert all(len(line) <= 80 for line in screen.screen().splitlines())
        screen.paste("https://example.com/somewhere")
        screen.press("Enter")
        screen.wait_for("The login still waits.")
        screen.paste(approve(url))
        screen.press("Enter")
        assert screen.wait_for_exit() == 0
        compare("login-80-columns", screen.joined(), cli)


@covers("expected-page")
@pytest.mark.tmux
def test_a_login_on_a_wide_terminal_that_is_denied(cli: Cli, demo: Demo) -> None:
    with terminal([*COMMAND, "login", "demo", "--no-qr"], env=cli.environ(), columns=120, rows=40) as screen:
        screen.paste(deny(shown_login(screen)))
        screen.press("Enter")
        assert screen.wait_for_exit() == 5
        compare("login-120-columns-denied", screen.joined(), cli)


@pytest.mark.tmux
def test_a_login_on_a_narrow_terminal_that_is_given_up(cli: Cli, demo: Demo) -> None:
    with terminal([*COMMAND, "login", "demo"], env=cli.environ(), columns=40, rows=40) as screen:
        shown_login(screen)
        screen.press("C-d")
        assert screen.wait_for_exit() == 5
        text = screen.joined()
    # The command never wraps a URL, so that the user can copy it. All other lines fit.
    assert [line for line in text.splitlines() if len(line) > 40 and "://" not in line] == []
    compare("login-40-columns-given-up", text, cli)


@pytest.mark.tmux
def test_a_login_that_is_interrupted(cli: Cli, demo: Demo) -> None:
    with terminal([*COMMAND, "login", "demo", "--no-qr"], env=cli.environ()) as screen:
        shown_login(screen)
        screen.press("C-c")
        assert screen.wait_for_exit() == 130
        compare("login-interrupted", screen.joined(), cli)


def test_a_login_that_expires_and_one_that_is_finished_later(cli: Cli, demo: Demo) -> None:
    begun = cli.run("login", "demo", "--no-wait")
    compare("login-no-wait", begun.err + begun.out, cli)
    cli.configure(demo.mcp_url, timeout=1)
    expired = cli.run("login", "demo")
    assert expired.code == 5
    compare("login-expired", expired.err + expired.out, cli)


@pytest.mark.tmux
def test_the_demo_at_a_terminal_plays_the_browser(cli: Cli) -> None:
    with terminal([*COMMAND, "demo"], env=cli.environ(), columns=80, rows=40) as screen:
        screen.wait_for("pastes for")
        screen.send("approve")
        screen.press("Enter")
        assert screen.wait_for_exit() == 0
        text = screen.joined()
    compare("demo", text, cli)
    assert not cli.files()


def test_the_demo_without_a_terminal_runs_by_itself(cli: Cli) -> None:
    ended = cli.run("demo", "--json")
    assert ended.code == 0
    assert [event["event"] for event in ended.events] == ["waiting", "connected", "tool_result"]
    assert ended.events[-1]["text"] == "ada@example.com"
    text = cli.run("demo")
    assert text.code == 0
    compare("demo-by-itself", text.out, cli)


def test_the_status_in_all_its_states(cli: Cli, demo: Demo) -> None:
    other = demo.mcp_url.replace("/mcp", "/other/mcp")
    names = ("connected", "ended", "expired", "corrupt")
    for name in names:
        demo.authorization_server.change_behaviour(issue_refresh_token=name != "expired")
        log_in(cli, demo, name, "--url", demo.mcp_url if name != "ended" else other)
    demo.authorization_server.change_behaviour(
        grant_scopes=frozenset({"mcp:tools"}), issue_refresh_token=True
    )
    log_in(cli, demo, "connected", "--owner", "telegram:42", "--url", demo.mcp_url)
    cli.change_stored("expired", expires_at=1_000_000)
    cli.change_stored("ended", expires_at=1_000_000)
    (cli.home / "mcp-tokens" / "corrupt.json").write_text("[]")
    demo.authorization_server.fail_next("refresh", status=400, body='{"error": "invalid_grant"}')
    assert cli.run("token", "ended").code == 4
    entries: dict[str, object] = {
        name: {"url": demo.mcp_url if name != "ended" else other, "auth": "oauth"} for name in names
    }
    entries["missing"] = {"url": "https://missing.example/mcp", "auth": "oauth"}
    entries["misspelt"] = {"url": "ftp://misspelt.example/mcp", "auth": "oauth"}
    cli.write_config(json.dumps({"mcp_servers": entries}))
    ended = cli.run("status")
    assert ended.code in {3, 8}
    compare("status", ended.out, cli)


def test_logout_with_and_without_the_provider(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    said = cli.run("logout", "demo").out
    said += cli.run("logout", "demo").out
    log_in(cli, demo)
    demo.authorization_server.fail_next("revocation", status=503, times=None)
    compare("logout", said + cli.run("logout", "demo").out, cli)


@covers("exit-codes")
def test_an_error_of_each_kind(cli: Cli, demo: Demo) -> None:
    said: list[str] = []

    def says(code: int, *arguments: str, stdin: bytes = b"") -> None:
        ended = cli.run(*arguments, stdin=stdin)
        assert ended.code == code
        last = ended.err[ended.err.rindex("✗") :]
        said.append(f"$ hermes-mcp-auth {' '.join(arguments)}\n{last}[exit code {code}]\n")

    says(3, "token", "dmeo")
    says(4, "token", "demo")
    says(5, "login", "demo", stdin=b"nonsense\n")
    demo.authorization_server.change_behaviour(pkce_advertised=False)
    says(6, "login", "demo")
    says(7, "login", "http://127.0.0.1:9/mcp")
    (cli.home / "mcp-tokens" / "demo.json").write_text("[]")
    says(8, "token", "demo")
    compare("errors", "\n".join(said), cli)


@pytest.mark.parametrize("verb", ["", "login", "status", "token", "header", "run", "logout", "serve", "demo"])
def test_the_help_of_every_verb(cli: Cli, verb: str) -> None:
    ended = cli.run(*verb.split(), "--help")
    assert ended.code == 0
    assert all(len(line) <= 80 for line in ended.out.splitlines())
    compare(f"help-{verb}" if verb else "help", ended.out, cli)
