"""The output of `make demo-telegram` and `make demo-discord` without a terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.terminal import open_terminal
from tests.requirements import covers

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("platform", ["telegram", "discord"])
def test_demo_shows_whole_login_and_tool_call(platform: str) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "tests.chat_demo", platform],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    for expected_text in (
        "connect. If not, cancel.",
        "demo: connected",
        "ada@example.com",
    ):
        assert expected_text in process.stdout
    assert process.stdout.count("/callback?") == 0
    assert "called the tool `whoami`" in process.stdout


@covers("demo-typed")
@pytest.mark.tmux
@pytest.mark.parametrize("platform", ["telegram", "discord"])
def test_demo_accepts_everything_that_a_user_types(platform: str) -> None:
    command = [sys.executable, "-m", "tests.chat_demo", platform]
    with open_terminal(command, columns=80, rows=100, cwd=ROOT) as screen:
        screen.wait_for("Type one of these")

        def type_line(line: str, expected_text: str) -> None:
            screen.send(line)
            screen.press("Enter")
            screen.wait_for(expected_text)

        type_line("paste", "(approve first)")
        type_line("7", "no button with that number")
        type_line("/connect demo", "[1] Open the page")
        type_line("/unknown", "unknown")
        type_line("1", "Her browser ended on a page that does not load")
        type_line("paste", "demo: connected")
        text = screen.full_text()
        screen.press("C-c")
        assert screen.wait_for_exit() == 0
        assert "Traceback" not in screen.full_text()
        # Check only the ASCII lines. A line with box characters may be longer: it is a box of the chat
        # client.
        assert all(len(line) <= 80 for line in text.splitlines() if line.isascii())


def test_the_demo_ends_without_a_traceback_if_the_reader_of_its_output_ends() -> None:
    command = f"{sys.executable} -m tests.chat_demo telegram </dev/null | head -1"
    process = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (process.stdout[:14], process.stderr) == ("A Telegram bot", "")
