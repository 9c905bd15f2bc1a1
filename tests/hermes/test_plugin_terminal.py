"""Logins that are begun in the chat and finished in a terminal, or the reverse, while the gateway runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.service import AuthService
from tests.hermes.stage import SECONDS, on_stage
from tests.parts.hermes_gateway import MAIN, PYTHON
from tests.requirements import covers

pytestmark = pytest.mark.hermes


@covers("hermes-elsewhere")
def test_a_login_begun_in_the_chat_is_finished_in_a_terminal(tmp_path: Path) -> None:
    with on_stage(tmp_path) as stage:
        address = stage.begin()
        (login,) = AuthService(tmp_path).waiting()
        done = finish(tmp_path, login.id, address)
        assert done.returncode == 0, done.stderr
        stage.said("notes: connected")
        stage.live()
        stage.nothing_leaked()


@covers("hermes-elsewhere")
def test_a_login_begun_in_a_terminal_is_shown_and_finished_in_the_chat(tmp_path: Path) -> None:
    with on_stage(tmp_path) as stage:
        begun = command(tmp_path, "login", "notes", "--via", "telegram:42", "--no-wait")
        assert begun.returncode == 0, begun.stderr
        stage.said("Connect notes")
        stage.api.say(stage.anna, stage.approved())
        stage.said("notes: connected")
        stage.live()
        stage.nothing_leaked()


@covers("hermes-elsewhere", "hermes-live")
def test_hermes_mcpauth_logs_in_from_a_terminal_and_the_tools_are_live(tmp_path: Path) -> None:
    with on_stage(tmp_path) as stage:
        with subprocess.Popen(
            [PYTHON, MAIN, "mcpauth", "notes", "--flow", "paste"],
            cwd=tmp_path,
            env=stage.hermes.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            assert process.stdin is not None
            url = next(line.strip() for line in process.stderr if "code_challenge=" in line)
            process.stdin.write(stage.answer_of(url) + "\n")
            process.stdin.close()
            assert process.wait(SECONDS) == 0
        stage.live()
        assert stage.tokens()
        listed = stage.hermes.command("mcpauth")
        assert "notes" in listed.stdout
        stage.nothing_leaked()


def command(home: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run our own command line beside the gateway."""
    return subprocess.run(
        [sys.executable, "-m", "hermes_mcp_auth_remote.cli", *words],
        env={**os.environ, "HERMES_HOME": str(home)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def finish(home: Path, login_id: str, address: str) -> subprocess.CompletedProcess[str]:
    return command(home, "login", "--finish", login_id, stdin=address)
