"""The output of `make demo-telegram` and `make demo-discord` without a terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("platform", ["telegram", "discord"])
def test_a_whole_login_is_played_and_ends_with_a_tool_call(platform: str) -> None:
    played = subprocess.run(
        [sys.executable, "-m", "tests.chat_demo", platform],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert played.returncode == 0, played.stderr
    assert played.stderr == ""
    for said in ("Continue only if you asked for this just now.", "demo: connected", "ada@example.com"):
        assert said in played.stdout
    assert played.stdout.count("/callback?") == 0
    assert "called the tool `whoami`" in played.stdout
