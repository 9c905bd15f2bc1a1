"""`run` replaces itself with a command. A valid token is in the store, and with `--env` in a variable."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.cli.commands import COMMAND, SECONDS, Cli, log_in
from tests.parts.authorization_server import Demo
from tests.parts.terminal import terminal
from tests.requirements import covers

pytestmark = pytest.mark.slow

# Writes its arguments and environment to a file, so that its output has no token.
SHOW = """
import json, os, sys
open(sys.argv[1], "w").write(json.dumps({"argv": sys.argv[2:], "environ": dict(os.environ)}))
sys.exit(3)
"""


def shown(
    cli: Cli, path: Path, *before: str, after: tuple[str, ...] = ()
) -> tuple[list[str], dict[str, str]]:
    ended = cli.run("run", *before, "--", sys.executable, "-c", SHOW, str(path), *after)
    assert (ended.code, ended.out, ended.err) == (3, "", "")
    found = json.loads(path.read_text())
    return found["argv"], found["environ"]


@covers("run-environment")
def test_the_token_is_in_the_environment_only_where_that_is_asked_for(
    cli: Cli, demo: Demo, tmp_path: Path
) -> None:
    log_in(cli, demo)
    token = cli.stored()["access_token"]
    _, environ = shown(cli, tmp_path / "with", "demo", "--env", "MCP_TOKEN")
    assert environ["MCP_TOKEN"] == token
    assert {name for name, value in environ.items() if token in value} == {"MCP_TOKEN"}
    _, environ = shown(cli, tmp_path / "without", "demo")
    assert [name for name, value in environ.items() if token in value] == []


def test_the_commands_options_are_its_own(cli: Cli, demo: Demo, tmp_path: Path) -> None:
    log_in(cli, demo, "demo", "--owner", "telegram:42")
    theirs = ("--env", "X", "--json", "--", "-h", "--owner", "a b", "", "$HOME")
    argv, environ = shown(cli, tmp_path / "it", "demo", "--owner", "telegram:42", "--env", "T", after=theirs)
    assert argv == list(theirs)
    assert environ["T"] in demo.authorization_server.minted_secrets


@covers("run-environment")
def test_an_ended_token_is_refreshed_for_a_command_that_reads_the_store(
    cli: Cli, demo: Demo, tmp_path: Path
) -> None:
    log_in(cli, demo)
    cli.change_stored(expires_at=time.time() - 1)
    shown(cli, tmp_path / "it", "demo")
    assert demo.authorization_server.count_requests("refresh") == 1
    assert cli.stored()["expires_at"] > time.time()


def test_it_becomes_the_command_and_signals_end_that(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    code = "import os; print('{\"pid\": %d}' % os.getpid(), flush=True); input()"
    with cli.started("run", "demo", "--", sys.executable, "-c", code) as started:
        assert started.event() == {"pid": started.process.pid}
        started.signal(signal.SIGTERM)
        assert started.process.wait(SECONDS) == -signal.SIGTERM


def test_what_python_ignores_for_itself_the_command_does_not(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    ended = cli.run("run", "demo", "--", "sh", "-c", "yes | head -n 1")
    assert (ended.code, ended.out, ended.err) == (0, "y\n", "")


@pytest.mark.tmux
def test_the_terminal_is_the_commands(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    command = [*COMMAND, "run", "demo", "--", "sh", "-c", 'test -t 0 && read line && echo "got $line"']
    with terminal(command, env=cli.environ()) as screen:
        screen.send("this")
        screen.press("Enter")
        assert screen.wait_for_exit() == 0
        assert "got this" in screen.screen()


def test_without_a_login_the_command_is_not_run(cli: Cli, tmp_path: Path) -> None:
    ended = cli.run("run", "demo", "--", "touch", str(tmp_path / "made"))
    assert (ended.code, ended.out) == (4, "")
    assert "Run `hermes-mcp-auth login demo`." in ended.err
    assert not (tmp_path / "made").exists()


def test_an_error_before_the_command_is_told_to_people_whatever_the_commands_options(cli: Cli) -> None:
    ended = cli.run("run", "demo", "--", "gh", "--json")
    assert ended.out == ""
    assert ended.err.startswith("✗ demo needs a login")


def test_a_command_that_is_not_there_or_cannot_be_run(cli: Cli, demo: Demo, tmp_path: Path) -> None:
    log_in(cli, demo)
    missing = cli.run("run", "demo", "--", "no-such-command")
    assert (missing.code, missing.err) == (
        127,
        "✗ no-such-command: No such file or directory.\n  Check the command.\n",
    )
    plain = tmp_path / "plain"
    plain.write_text("")
    assert cli.run("run", "demo", "--", str(plain)).code == 126
    assert plain.stat().st_size == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("demo",), "put the command after the server and --"),
        (("demo", "--"), "put the command after the server and --"),
        (("demo", "ls"), "unrecognized arguments: ls"),
        (("--", "ls"), "the following arguments are required: server"),
        (("demo", "--env", "A=B", "--", "ls"), "--env takes the name of a variable"),
        (("demo", "--env", "", "--", "ls"), "--env takes the name of a variable"),
    ],
)
def test_what_is_no_command_line_is_refused_before_anything_is_asked(
    cli: Cli, demo: Demo, arguments: tuple[str, ...], why: str
) -> None:
    log_in(cli, demo)
    demo.authorization_server.requests.clear()
    ended = cli.run("run", *arguments)
    assert ended.code == 2
    assert why in ended.err
    assert demo.authorization_server.requests == []
