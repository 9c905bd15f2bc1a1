"""`login` without a server lists the servers that are known, and lets the user choose one."""

from __future__ import annotations

import json

import pytest

from tests.cli.commands import COMMAND, Cli, log_in
from tests.cli.test_screens import compare_screen
from tests.consent_form import approve
from tests.parts.authorization_server import Demo
from tests.parts.terminal import open_terminal
from tests.requirements import covers

pytestmark = pytest.mark.slow

COMMAND_WITHOUT_WAIT = [*COMMAND, "login", "--no-wait", "--no-qr"]
QUESTION = "Number, name or address:"


def write_servers(cli: Cli, demo: Demo) -> str:
    """Write a config.yaml with three servers and log in to two; return the URL of the second server."""
    other = demo.mcp_url.replace("/mcp", "/other/mcp")
    entries: dict[str, object] = {
        "demo": {"url": demo.mcp_url, "auth": "oauth"},
        "a-server-with-a-rather-long-name": {"url": "https://missing.example/mcp", "auth": "oauth"},
        "misspelt": {"url": "ftp://misspelt.example/mcp", "auth": "oauth"},
    }
    cli.write_config(json.dumps({"mcp_servers": entries}))
    log_in(cli, demo, "demo")
    log_in(cli, demo, "other", "--url", other)
    return other


@covers("server-choice")
@pytest.mark.tmux
@pytest.mark.parametrize("columns", [80, 40])
def test_the_user_chooses_a_server_by_its_number(cli: Cli, demo: Demo, columns: int) -> None:
    write_servers(cli, demo)
    with open_terminal(COMMAND_WITHOUT_WAIT, env=cli.environ(), columns=columns, rows=40) as screen:
        listing = screen.wait_for(QUESTION)
        assert all(len(line) <= columns for line in listing.splitlines())
        screen.press("Enter")
        screen.wait_for(f"{QUESTION} \n{QUESTION}")
        screen.send("9")
        screen.press("Enter")
        text = screen.wait_for(f"or a name.\n{QUESTION}")
        compare_screen(f"login-choice-{columns}-columns", text, cli)
        screen.send("ohter")
        screen.press("Enter")
        screen.wait_for(f"Did you mean other?\n{QUESTION}")
        screen.send("1")
        screen.press("Enter")
        assert screen.wait_for_exit() == 0
        assert "Server         demo" in screen.full_text()


@covers("server-choice")
@pytest.mark.tmux
def test_the_user_chooses_a_server_by_its_address(cli: Cli, demo: Demo) -> None:
    other = write_servers(cli, demo)
    with open_terminal(COMMAND_WITHOUT_WAIT, env=cli.environ(), rows=40) as screen:
        screen.wait_for(QUESTION)
        screen.send(other)
        screen.press("Enter")
        assert screen.wait_for_exit() == 0
        assert "Server         other" in screen.full_text()


@covers("server-choice")
@pytest.mark.tmux
def test_the_chosen_server_gets_the_whole_login(cli: Cli, demo: Demo) -> None:
    with open_terminal([*COMMAND, "login", "--no-qr"], env=cli.environ(), rows=40) as screen:
        screen.wait_for(QUESTION)
        screen.send("1")
        screen.press("Enter")
        [url] = [line for line in screen.wait_for("here:").splitlines() if line.startswith("http")]
        screen.paste(approve(url))
        screen.press("Enter")
        assert screen.wait_for_exit() == 0
        assert "demo: connected" in screen.full_text()


@covers("server-choice")
@pytest.mark.tmux
def test_a_new_user_is_asked_for_an_address(cli: Cli, demo: Demo) -> None:
    (cli.home / "config.yaml").unlink()
    with open_terminal([*COMMAND, "login", "--no-wait", "--no-qr"], env=cli.environ(), rows=40) as screen:
        screen.wait_for("Address of the server:")
        screen.send("ftp://elsewhere.example")
        screen.press("Enter")
        screen.wait_for("Pass the server's https address.")
        # There is no list from which a number or a name could come.
        for answer in ("9", "linear"):
            screen.send(answer)
            screen.press("Enter")
            screen.wait_for(f"No server {answer}")
        assert "Type the address of the server" in screen.full_text()
        assert "from 1 to 0" not in screen.full_text()
        screen.send(f'"{demo.mcp_url}",')
        screen.press("Enter")
        assert screen.wait_for_exit() == 0


@covers("server-choice")
@pytest.mark.parametrize("quoted", ['"{}"', "'{}'", '"{}",', "<{}>", "`{}`", "“{}”", "{}"])
def test_an_address_on_standard_input_may_have_quotes(cli: Cli, demo: Demo, quoted: str) -> None:
    text = quoted.format(demo.mcp_url)
    result = cli.run("login", "quoted", "--url", "-", "--no-wait", stdin=f"{text}\n".encode())
    assert (result.exit_code, demo.mcp_url in result.err + result.out) == (0, True)


@covers("server-choice", "interrupted")
@pytest.mark.tmux
@pytest.mark.parametrize("key", ["C-c", "C-d"])
def test_the_choice_can_be_cancelled(cli: Cli, key: str) -> None:
    with open_terminal([*COMMAND, "login"], env=cli.environ()) as screen:
        screen.wait_for(QUESTION)
        screen.press(key)
        assert screen.wait_for_exit() == 130
        assert "Cancelled." in screen.full_text()


@covers("server-choice")
def test_without_a_terminal_the_servers_are_listed_with_the_usage(cli: Cli, demo: Demo) -> None:
    write_servers(cli, demo)
    result = cli.run("login")
    assert (result.exit_code, result.out) == (2, "")
    compare_screen("login-choice-no-terminal", result.err, cli)


@covers("server-choice")
@pytest.mark.tmux
@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.yaml", "mcp_servers: [", "not valid YAML"),
        ("config.yaml", "mcp_servers: [1]", "must be a mapping"),
    ],
)
def test_a_broken_file_ends_the_command_instead_of_a_question(
    cli: Cli, demo: Demo, file: str, text: str, message: str
) -> None:
    write_servers(cli, demo)
    (cli.home / file).write_text(text)
    result = cli.run("login")
    assert (result.exit_code, message in result.err) == (3, True)
    with open_terminal([*COMMAND, "login"], env=cli.environ()) as screen:
        assert screen.wait_for_exit() == 3
        assert message in screen.full_text()
        assert QUESTION not in screen.full_text()
    # An address needs no file.
    assert cli.run("login", "--url", demo.mcp_url, "--no-wait").exit_code == 0
