"""Environments without UTF-8, colours, a terminal or standard streams."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.cli.commands import COMMAND, Cli, log_in
from tests.parts.authorization_server import Demo
from tests.parts.terminal import open_terminal

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("env", "mark"),
    [
        ({"LANG": "C"}, "✗"),
        ({"LC_ALL": "C"}, "✗"),
        ({"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, "x"),
        ({"PYTHONIOENCODING": "latin-1"}, "x"),
        ({"PYTHONIOENCODING": "ascii"}, "x"),
    ],
)
def test_an_encoding_without_the_marks_gets_ascii_marks(
    cli: Cli, demo: Demo, env: Mapping[str, str], mark: str
) -> None:
    result = cli.run("token", "demo", env=env)
    assert result.exit_code == 4
    assert result.err.startswith(f"{mark} demo needs a login")
    status = cli.run("status", env=env)
    assert status.exit_code == 0
    assert status.out.startswith(f"{mark} demo: not connected\n")


def test_an_account_outside_the_encoding_is_printed_with_question_marks(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(account="Ада 🦊")
    log_in(cli, demo)
    status = cli.run("status", env={"PYTHONIOENCODING": "ascii"})
    assert status.exit_code == 0
    assert status.out.startswith("+ demo: connected\n")
    assert "Account  ??? ?\n" in status.out


@pytest.mark.parametrize(
    ("env", "escapes", "blocks"),
    [
        ({}, True, True),
        ({"NO_COLOR": "1"}, False, True),
        ({"TERM": "dumb"}, False, True),
        ({"PYTHONIOENCODING": "ascii"}, False, False),
    ],
)
@pytest.mark.tmux
def test_the_qr_code_uses_only_what_the_terminal_supports(
    cli: Cli, demo: Demo, env: Mapping[str, str], *, escapes: bool, blocks: bool
) -> None:
    demo.authorization_server.change_behaviour(with_par=True)
    # `env` sets the variables, because tmux sets TERM itself.
    command = ["env", *(f"{name}={value}" for name, value in env.items()), *COMMAND, "login", "demo"]
    typescript = cli.home / "typed"
    script = ["script", "-qec", " ".join(command), str(typescript)]
    with open_terminal(script, env=cli.environ(), rows=60) as screen:
        text = screen.wait_for("Ctrl-C cancels.")
        screen.press("C-c")
        screen.wait_for("Cancelled.")
    assert (b"\x1b[38;5;16" in typescript.read_bytes()) == escapes
    assert ("█" in text) == blocks


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_cause_no_traceback(cli: Cli, demo: Demo, closed: str) -> None:
    script = f"{' '.join(COMMAND)} token demo {closed}; echo $? >&9"
    process = subprocess.run(
        ["sh", "-c", f"exec 9>&1; ({script})"],
        capture_output=True, env=cli.environ(), check=False, timeout=30,
    )  # fmt: skip
    assert process.stdout.decode().split()[-1] == "4"
    assert b"Traceback" not in process.stderr


def test_a_login_with_a_closed_standard_input_waits_for_the_redirect(cli: Cli, demo: Demo) -> None:
    cli.configure(demo.mcp_url, timeout=1)
    process = subprocess.run(
        ["sh", "-c", f"{' '.join(COMMAND)} login demo --json <&-"],
        capture_output=True, env=cli.environ(), check=False, timeout=30,
    )  # fmt: skip
    assert process.returncode == 5
    assert b"login_expired" in process.stdout
    assert process.stderr == b""


SCRIPT = str(Path(sys.executable).with_name("hermes-mcp-auth"))


@pytest.mark.parametrize("program", [(SCRIPT,), COMMAND], ids=["script", "module"])
def test_a_printed_command_runs_in_an_environment_that_is_not_activated(
    cli: Cli, demo: Demo, program: Sequence[str], tmp_path: Path
) -> None:
    cli.configure(demo.mcp_url)
    env = cli.environ({"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path.cwd())})

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)

    # An error, a screen with a login that waits, a table, and the line after a list.
    commands = [
        re.search("Run `(.+)`", run(*program, "token", "demo").stderr),
        re.search(": (.+)$", run(*program, "login", "demo", "--no-wait", "--flow", "paste").stdout),
        re.search("Run +(.+ --finish .+)$", run(*program, "status", "demo").stdout, re.MULTILINE),
        re.search("Log in to a server: (.+)$", run("env", "HERMES_HOME=empty", *program, "status").stdout),
    ]
    for command in commands:
        assert command is not None
        assert command[1].startswith("/")
        # With --help, the command ends at once.
        result = run("sh", "-c", f"{command[1]} --help")
        assert (result.returncode, result.stderr) == (0, "")
    # A program reads JSON: it knows where this program is.
    assert "`hermes-mcp-auth login demo`" in run(*program, "token", "demo", "--json").stdout
