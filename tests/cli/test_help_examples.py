"""Each example in a help text runs as printed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.cli.examples import EXAMPLES
from tests.cli.commands import COMMAND, Cli, log_in
from tests.parts.authorization_server import Demo
from tests.parts.terminal import open_terminal
from tests.requirements import covers

pytestmark = pytest.mark.slow

URL = "https://mcp.linear.app/mcp"
# No bot's token is configured.
EXIT_CODES = {"serve": 3}
# These commands run until Ctrl-C, or until the client closes their standard input.
ENDLESS = {"hermes-mcp-auth demo --serve"}
OPEN_PAGE = """
import sys, urllib.request
urllib.request.urlopen(sys.argv[1])
"""


def printed_examples(cli: Cli, verb: str) -> list[str]:
    """Return the examples as the help text prints them."""
    help_text = cli.run(verb, "--help").out
    assert all(len(line) <= 80 for line in help_text.splitlines())
    return [line.strip() for line in help_text.partition("\nexamples:\n")[2].splitlines()]


@pytest.fixture
def examples_cli(cli: Cli, demo: Demo, tmp_path: Path) -> Cli:
    """A command line that is logged in to `linear`, with a browser that approves."""
    demo.authorization_server.change_behaviour(auto_approve=True)
    cli.configure(demo.mcp_url, name="linear")
    log_in(cli, demo, "linear")
    log_in(cli, demo, "linear", "--owner", "telegram:42")
    folder = tmp_path / "bin"
    folder.mkdir()
    scripts = {
        "hermes-mcp-auth": shlex.join(COMMAND),
        "open-page": shlex.join([sys.executable, "-c", OPEN_PAGE]),
    }
    for name, command in scripts.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (folder / name).chmod(0o755)
    path = f"{folder}:{cli.environ()['PATH']}"
    return Cli(cli.home, cli.secrets, {"PATH": path, "BROWSER": str(folder / "open-page")})


@covers("help-examples")
@pytest.mark.parametrize("verb", EXAMPLES)
def test_the_examples_of_a_verb_run(examples_cli: Cli, demo: Demo, verb: str) -> None:
    examples = printed_examples(examples_cli, verb)
    assert examples == list(EXAMPLES[verb])
    for example in examples:
        if example in ENDLESS:
            continue
        command = example.replace(URL, demo.mcp_url)
        if re.search(r"[|;]", command):
            # A pipe needs a shell, and a shell needs a process of its own.
            process = subprocess.run(
                ["sh", "-c", command],
                env=examples_cli.environ(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=40,
                check=False,
            )
            assert process.returncode == 0, process.stderr
            continue
        result = examples_cli.run(
            *shlex.split(command)[1:], may_show=demo.authorization_server.minted_secrets
        )
        assert result.exit_code == EXIT_CODES.get(verb, 0), (command, result.err)


@pytest.mark.tmux
def test_a_help_text_fits_a_narrow_terminal(cli: Cli) -> None:
    with open_terminal([*COMMAND, "doctor", "--help"], env=cli.environ(), columns=40, rows=60) as screen:
        assert screen.wait_for_exit() == 0
        text = screen.full_text()
    description = text.partition("\n\n")[2].partition("examples:")[0]
    assert "Runs the steps of a login, and stops\nbefore the first step that would\nregister" in description
    assert max(map(len, description.splitlines())) <= 40
    assert "  hermes-mcp-auth doctor https://mcp.linear.app/mcp" in text, "a command is not wrapped"


@covers("help-examples")
def test_the_help_names_every_verb_that_has_examples(cli: Cli) -> None:
    verbs = set(re.findall(r"^    (\w+) ", cli.run("--help").out, re.MULTILINE))
    assert verbs == set(EXAMPLES)
