"""Environments without UTF-8, colours, a terminal or standard streams."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

import pytest

from tests.cli.commands import COMMAND, Cli, log_in
from tests.parts.authorization_server import Demo
from tests.parts.terminal import terminal

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
def test_an_encoding_without_our_marks_gets_a_likeness(
    cli: Cli, demo: Demo, env: Mapping[str, str], mark: str
) -> None:
    ended = cli.run("token", "demo", env=env)
    assert ended.code == 4
    assert ended.err.startswith(f"{mark} demo needs a login")
    listed = cli.run("status", env=env)
    assert listed.code == 0
    assert listed.out.startswith(f"{mark} demo: not connected\n")


def test_an_account_that_the_encoding_lacks_is_no_accident(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(account="Ада 🦊")
    log_in(cli, demo)
    listed = cli.run("status", env={"PYTHONIOENCODING": "ascii"})
    assert listed.code == 0
    assert listed.out.startswith("+ demo: connected\n")
    assert "As       ??? ?\n" in listed.out


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
def test_the_qr_code_keeps_to_what_the_terminal_can(
    cli: Cli, demo: Demo, env: Mapping[str, str], *, escapes: bool, blocks: bool
) -> None:
    demo.authorization_server.change_behaviour(with_par=True)
    # `env` sets the variables, because tmux sets TERM itself.
    words = ["env", *(f"{name}={value}" for name, value in env.items()), *COMMAND, "login", "demo"]
    typed = cli.home / "typed"
    with terminal(["script", "-qec", " ".join(words), str(typed)], env=cli.environ()) as screen:
        shown = screen.wait_for("Ctrl-C cancels.")
        screen.press("C-c")
        screen.wait_for("Cancelled.")
    assert (b"\x1b[38;5;16" in typed.read_bytes()) == escapes
    assert ("█" in shown) == blocks


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_accident(cli: Cli, demo: Demo, closed: str) -> None:
    script = f"{' '.join(COMMAND)} token demo {closed}; echo $? >&9"
    done = subprocess.run(
        ["sh", "-c", f"exec 9>&1; ({script})"],
        capture_output=True, env=cli.environ(), check=False, timeout=30,
    )  # fmt: skip
    assert done.stdout.decode().split()[-1] == "4"
    assert b"Traceback" not in done.stderr


def test_a_login_with_a_closed_standard_input_still_takes_the_redirect(cli: Cli, demo: Demo) -> None:
    cli.configure(demo.mcp_url, timeout=1)
    done = subprocess.run(
        ["sh", "-c", f"{' '.join(COMMAND)} login demo --json <&-"],
        capture_output=True, env=cli.environ(), check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 5
    assert b"login_expired" in done.stdout
    assert done.stderr == b""
