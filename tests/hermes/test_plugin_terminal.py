"""Logins that start in the chat and end in a terminal, or the reverse, while the gateway runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.service import AuthService
from tests.hermes.stage import SECONDS, SharedStage, shared_stage
from tests.parts.hermes_gateway import MAIN, PYTHON
from tests.requirements import covers

pytestmark = [pytest.mark.hermes, pytest.mark.xdist_group("hermes-terminal")]


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedStage]:
    with shared_stage(tmp_path_factory.mktemp("hermes")) as shared:
        yield shared


@covers("hermes-elsewhere")
def test_a_login_started_in_the_chat_is_finished_in_a_terminal(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        address = stage.begin()
        (login,) = AuthService(stage.home).waiting_logins()
        done = finish(stage.home, login.id, address)
        assert done.returncode == 0, done.stderr
        stage.said(f"{stage.notes}: connected")
        stage.live()
        stage.nothing_leaked()


@covers("hermes-elsewhere")
def test_a_login_started_in_a_terminal_is_shown_and_finished_in_the_chat(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        begun = command(stage.home, "login", stage.notes, "--via", f"telegram:{stage.anna.id}", "--no-wait")
        assert begun.returncode == 0, begun.stderr
        stage.said(f"Connect {stage.notes}")
        stage.api.say(stage.anna, stage.approved())
        stage.said(f"{stage.notes}: connected")
        stage.live()
        stage.nothing_leaked()


@covers("hermes-elsewhere", "hermes-live")
def test_hermes_mcpauth_logs_in_from_a_terminal_and_the_tools_are_live(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        with subprocess.Popen(
            [PYTHON, MAIN, "mcpauth", stage.notes, "--flow", "paste"],
            cwd=stage.home,
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
        assert stage.notes in listed.stdout
        stage.nothing_leaked()


def command(home: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of this package while the gateway runs."""
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
