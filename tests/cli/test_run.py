"""`run` replaces itself with a command. The store then has a valid token; with `--env`, a variable too."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.cli.commands import COMMAND, TIMEOUT_SECONDS, Cli, log_in
from tests.parts.authorization_server import Demo
from tests.parts.terminal import open_terminal
from tests.requirements import covers

pytestmark = pytest.mark.slow

# The program writes its arguments and environment to a file, so that its output contains no token.
DUMP_CODE = """
import json, os, sys
open(sys.argv[1], "w").write(json.dumps({"argv": sys.argv[2:], "environ": dict(os.environ)}))
sys.exit(3)
"""


def run_and_dump(
    cli: Cli, path: Path, *before: str, after: tuple[str, ...] = ()
) -> tuple[list[str], dict[str, str]]:
    result = cli.run("run", *before, "--", sys.executable, "-c", DUMP_CODE, str(path), *after)
    assert (result.exit_code, result.out, result.err) == (3, "", "")
    dump = json.loads(path.read_text())
    return dump["argv"], dump["environ"]


@covers("run-environment")
def test_the_token_is_in_the_environment_only_with_the_env_option(
    cli: Cli, demo: Demo, tmp_path: Path
) -> None:
    log_in(cli, demo)
    token = cli.stored_tokens()["access_token"]
    _, environ = run_and_dump(cli, tmp_path / "with", "demo", "--env", "MCP_TOKEN")
    assert environ["MCP_TOKEN"] == token
    assert {name for name, value in environ.items() if token in value} == {"MCP_TOKEN"}
    _, environ = run_and_dump(cli, tmp_path / "without", "demo")
    assert [name for name, value in environ.items() if token in value] == []


def test_options_after_the_separator_belong_to_the_command(cli: Cli, demo: Demo, tmp_path: Path) -> None:
    log_in(cli, demo, "demo", "--owner", "telegram:42")
    command_arguments = ("--env", "X", "--json", "--", "-h", "--owner", "a b", "", "$HOME")
    argv, environ = run_and_dump(
        cli, tmp_path / "it", "demo", "--owner", "telegram:42", "--env", "T", after=command_arguments
    )
    assert argv == list(command_arguments)
    assert environ["T"] in demo.authorization_server.minted_secrets


@covers("run-environment")
def test_run_refreshes_an_expired_token_in_the_store(cli: Cli, demo: Demo, tmp_path: Path) -> None:
    log_in(cli, demo)
    cli.change_stored_tokens(expires_at=time.time() - 1)
    run_and_dump(cli, tmp_path / "it", "demo")
    assert demo.authorization_server.count_requests("refresh") == 1
    assert cli.stored_tokens()["expires_at"] > time.time()


def test_run_replaces_its_process_with_the_command(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    code = "import os; print('{\"pid\": %d}' % os.getpid(), flush=True); input()"
    with cli.start("run", "demo", "--", sys.executable, "-c", code) as command:
        assert command.read_json() == {"pid": command.process.pid}
        command.send_signal(signal.SIGTERM)
        assert command.process.wait(TIMEOUT_SECONDS) == -signal.SIGTERM


def test_the_command_gets_the_default_sigpipe_handler(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    result = cli.run("run", "demo", "--", "sh", "-c", "yes | head -n 1")
    assert (result.exit_code, result.out, result.err) == (0, "y\n", "")


@pytest.mark.tmux
def test_the_command_gets_the_terminal(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    command = [*COMMAND, "run", "demo", "--", "sh", "-c", 'test -t 0 && read line && echo "got $line"']
    with open_terminal(command, env=cli.environ()) as screen:
        screen.send("this")
        screen.press("Enter")
        assert screen.wait_for_exit() == 0
        assert "got this" in screen.screen()


def test_without_a_login_the_command_is_not_run(cli: Cli, tmp_path: Path) -> None:
    result = cli.run("run", "demo", "--", "touch", str(tmp_path / "made"))
    assert (result.exit_code, result.out) == (4, "")
    assert "Run `hermes-mcp-auth login demo`." in result.err
    assert not (tmp_path / "made").exists()


def test_json_after_the_separator_does_not_change_the_output_of_run(cli: Cli) -> None:
    result = cli.run("run", "demo", "--", "gh", "--json")
    assert result.out == ""
    assert result.err.startswith("✗ demo needs a login")


def test_a_missing_or_non_executable_command_is_an_error(cli: Cli, demo: Demo, tmp_path: Path) -> None:
    log_in(cli, demo)
    missing = cli.run("run", "demo", "--", "no-such-command")
    assert (missing.exit_code, missing.err) == (
        127,
        "✗ no-such-command: No such file or directory.\n  Check the command.\n",
    )
    plain_file = tmp_path / "plain"
    plain_file.write_text("")
    assert cli.run("run", "demo", "--", str(plain_file)).exit_code == 126
    assert plain_file.stat().st_size == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("demo",), "put the command after the server and --"),
        (("demo", "--"), "put the command after the server and --"),
        (("demo", "ls"), "unrecognized arguments: ls; put -- before the command: -- ls"),
        (("--", "ls"), "the following arguments are required: server"),
        (("demo", "--env", "A=B", "--", "ls"), "--env takes the name of a variable"),
        (("demo", "--env", "", "--", "ls"), "--env takes the name of a variable"),
    ],
)
def test_wrong_usage_sends_no_request(cli: Cli, demo: Demo, arguments: tuple[str, ...], why: str) -> None:
    log_in(cli, demo)
    demo.authorization_server.requests.clear()
    result = cli.run("run", *arguments)
    assert result.exit_code == 2
    assert why in result.err
    assert demo.authorization_server.requests == []
