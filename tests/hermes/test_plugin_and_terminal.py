"""Logins that start in the chat and end in a terminal, or the reverse, while the gateway runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.service import AuthService
from tests.hermes.scenario import SECONDS, SharedTelegramGateway, run_shared_gateway
from tests.parts.hermes_gateway import MAIN, PYTHON
from tests.requirements import covers

pytestmark = [pytest.mark.hermes, pytest.mark.real_hermes, pytest.mark.xdist_group("hermes-terminal")]


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedTelegramGateway]:
    with run_shared_gateway(tmp_path_factory.mktemp("hermes")) as shared:
        yield shared


@covers("hermes-elsewhere")
def test_a_login_started_in_the_chat_is_finished_in_a_terminal(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        address = scenario.start_login()
        (login,) = AuthService(scenario.home).blocking.waiting_logins()
        result = finish_login(scenario.home, login.id, address)
        assert result.returncode == 0, result.stderr
        scenario.wait_for_message(f"{scenario.notes}: connected")
        scenario.wait_for_tools()
        scenario.assert_no_leaks()


@covers("hermes-elsewhere")
def test_a_login_started_in_a_terminal_is_shown_and_finished_in_the_chat(
    hermes: SharedTelegramGateway,
) -> None:
    with hermes.new_scenario() as scenario:
        result = run_cli(
            scenario.home, "login", scenario.notes, "--via", f"telegram:{scenario.anna.id}", "--no-wait"
        )
        assert result.returncode == 0, result.stderr
        scenario.wait_for_message(f"Connect {scenario.notes}")
        scenario.api.say(scenario.anna, scenario.approve_prompt())
        scenario.wait_for_message(f"{scenario.notes}: connected")
        scenario.wait_for_tools()
        scenario.assert_no_leaks()


@covers("hermes-elsewhere", "hermes-live")
def test_hermes_mcpauth_logs_in_from_a_terminal_and_the_tools_are_live(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        with subprocess.Popen(
            [PYTHON, MAIN, "mcpauth", scenario.notes, "--flow", "paste"],
            cwd=scenario.home,
            env=scenario.hermes.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            assert process.stdin is not None
            url = next(line.strip() for line in process.stderr if "code_challenge=" in line)
            process.stdin.write(scenario.approve_url(url) + "\n")
            process.stdin.close()
            assert process.wait(SECONDS) == 0
        scenario.wait_for_tools()
        assert scenario.has_tokens()
        connections = scenario.hermes.run_command("mcpauth")
        assert scenario.notes in connections.stdout
        scenario.assert_no_leaks()


def run_cli(home: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of this package while the gateway runs."""
    return subprocess.run(
        [sys.executable, "-m", "hermes_mcp_auth_remote.cli", *arguments],
        env={**os.environ, "HERMES_HOME": str(home)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def finish_login(home: Path, login_id: str, address: str) -> subprocess.CompletedProcess[str]:
    return run_cli(home, "login", "--finish", login_id, stdin=address)
