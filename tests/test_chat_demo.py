"""The output of `make demo-telegram` and `make demo-discord` without a terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
        "Continue only if you asked for this just now.",
        "demo: connected",
        "ada@example.com",
    ):
        assert expected_text in process.stdout
    assert process.stdout.count("/callback?") == 0
    assert "called the tool `whoami`" in process.stdout
