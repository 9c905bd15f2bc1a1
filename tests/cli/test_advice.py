"""Every command that an advice names runs exactly as printed.

`find_sites` lists the places of both packages that write such a command: texts with the program's name, and
calls of the functions that make commands. A new place fails the first test until it has a scenario, which
makes the product print the command, or a reason in NOT_EXECUTED.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote import AuthService, McpAuth, Server, commands
from hermes_mcp_auth_remote.bridge.login import login_error_text
from hermes_mcp_auth_remote.errors import AuthorizationRequired, ServerNotFound
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey
from tests.bridge.test_connect import connect
from tests.cli.commands import COMMAND, Cli, log_in
from tests.docstrings import docstring_ids
from tests.parts.authorization_server import Demo
from tests.parts.terminal import open_terminal
from tests.requirements import covers
from tests.store.builders import ROOT, build_credentials

pytestmark = pytest.mark.slow

USAGE, CONFIGURATION = 2, 3
# The login screen has this label. The login then waits for its user.
LOGIN_IS_SHOWN = "Open until"
# No program listens on this port.
UNREACHABLE_URL = "http://127.0.0.1:1/mcp"
COMMAND_FUNCTIONS = {
    name
    for name, _ in inspect.getmembers(commands, inspect.isfunction)
    if not name.startswith("_") and inspect.getmodule(getattr(commands, name)) is commands
} | {"started_program"}
NOT_EXECUTED = {
    "cli.arguments: hermes-mcp-auth COMMAND --help": "has a placeholder: the help lists the commands",
    "cli.arguments: hermes-mcp-auth serve": "help text that names the verb",
    "cli.arguments: hermes-mcp-auth token": "help text that names the verb",
    "cli.status_table: hermes-mcp-auth status NAME": "has a placeholder: the table lists several names",
    "cli.login_via_chat: hermes-mcp-auth serve --{}": "needs a bot's token; tests/cli/test_serve.py runs it",
    "cli.demo: started_program()": "tests/cli/test_screens.py runs the commands of the demo",
    "shown_program: started_program()": "tests/cli/test_environment.py runs the commands of other screens",
}


def find_sites() -> set[str]:
    """Return "module: text of the command" and "module: function()" for each place that writes a command."""
    sites = set[str]()
    for package in ("hermes_mcp_auth_remote", "gateway_hooks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT / package).with_suffix("").parts)
            tree = ast.parse(path.read_text("utf-8"))
            docstrings = docstring_ids(tree)
            # tests/cli/test_help_examples.py runs each example.
            if module not in {"commands", "cli.examples"}:
                sites |= {f"{module}: {site}" for site in _sites_in(tree, docstrings)}
    return sites


def _sites_in(tree: ast.AST, docstrings: set[int]) -> Iterator[str]:
    formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    skipped = docstrings | {id(value) for node in formatted for value in node.values}
    for node in ast.walk(tree):
        text = ""
        if isinstance(node, ast.JoinedStr):
            text = "".join(
                str(value.value) if isinstance(value, ast.Constant) else "{}" for value in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            text = node.value
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in COMMAND_FUNCTIONS:
                yield f"{name}()"
        for command in re.findall(r"hermes-mcp-auth [^`\n]+", text):
            yield str(command).strip(" .")


def commands_in(text: str) -> list[str]:
    """Return the commands of a text: between backticks, else to the end of the line."""
    return [
        quoted or bare.strip()
        for quoted, bare in re.findall(r"`(hermes-mcp-auth [^`]+)`|(hermes-mcp-auth [^`\n]+)", text)
    ]


def other_url(demo: Demo) -> str:
    return demo.mcp_url.replace("/mcp", "/other/mcp")


def read_advice(auth: McpAuth) -> str:
    with pytest.raises(AuthorizationRequired) as caught:
        auth.headers()
    return caught.value.advice


def use_machine_grant(cli: Cli, demo: Demo) -> None:
    """Let config.yaml say that the demo server needs no user."""
    cli.configure(demo.mcp_url, grant="client_credentials", client_id="machine", client_secret="s" * 40)


def run_command(cli: Cli, arguments: list[str], stdin: str) -> tuple[int | None, str]:
    """Run a command until it ends or shows a login; return its exit code (None: a login) and its errors."""
    with cli.start(*arguments) as command:
        command.send(stdin)
        assert command.process.stdin is not None
        command.process.stdin.close()
        assert command.process.stderr is not None
        errors = ""
        while line := command.process.stderr.readline().decode():
            errors += line
            if LOGIN_IS_SHOWN in line:
                return None, errors
        command.process.communicate()
        return command.process.returncode, errors


# The scenarios: each returns a text that the product shows.


def error_without_advice(cli: Cli, demo: Demo) -> str:
    return AuthorizationRequired("demo").advice


def call_of_a_known_server(cli: Cli, demo: Demo) -> str:
    return read_advice(McpAuth("demo")) + read_advice(McpAuth(demo.mcp_url, owner="telegram:4 2"))


def call_of_an_unknown_address(cli: Cli, demo: Demo) -> str:
    return read_advice(McpAuth(other_url(demo))) + read_advice(McpAuth(f"{other_url(demo)}?key=1"))


def call_after_a_logout(cli: Cli, demo: Demo) -> str:
    log_in(cli, demo, "mine", "--url", other_url(demo))
    auth = McpAuth("mine")
    assert cli.run("logout", "mine").exit_code == 0
    return read_advice(auth)


def tokens_of_another_address(cli: Cli, demo: Demo) -> str:
    log_in(cli, demo, "mine", "--url", f"{other_url(demo)}?key=1")
    session = AuthService(cli.home).session(Server("mine", other_url(demo)))
    with pytest.raises(AuthorizationRequired, match="another address") as caught:
        asyncio.run(session.header())
    return caught.value.advice


def machine_tokens_of_another_address(cli: Cli, demo: Demo) -> str:
    credentials = build_credentials(0, CredentialKey("demo"))
    assert credentials.binding is not None
    binding = replace(credentials.binding, server_url=other_url(demo))
    FileStore(cli.home).save_login(CredentialKey("demo"), replace(credentials, binding=binding))
    use_machine_grant(cli, demo)
    return read_advice(McpAuth("demo"))


def call_with_a_bot(cli: Cli, demo: Demo) -> str:
    # No bot answers, so `login --via` waits until its end.
    entry = {"url": demo.mcp_url, "auth": "oauth", "oauth": {"timeout": 1}}
    chats = {"telegram": {"admins": [42]}}
    cli.write_config(json.dumps({"mcp_servers": {"demo": entry}, "mcp_auth_chats": chats}))
    return read_advice(McpAuth("demo"))


def two_servers_at_one_address(cli: Cli, demo: Demo) -> str:
    log_in(cli, demo, "mine", "--url", demo.mcp_url)
    log_in(cli, demo)
    return cli.run("token", demo.mcp_url).err


def call_of_an_unknown_name(cli: Cli, demo: Demo) -> str:
    result = cli.run("token", "xyzzy", "--owner", "me")
    with pytest.raises(ServerNotFound) as caught:
        McpAuth("qwerty")
    return result.err + caught.value.advice


def logout_of_an_unknown_name(cli: Cli, demo: Demo) -> str:
    return cli.run("logout", "xyzzy").err


def logout_of_an_unknown_owner(cli: Cli, demo: Demo) -> str:
    return cli.run("logout", "--owner", "xyzzy").err


def address_without_a_scheme(cli: Cli, demo: Demo) -> str:
    address = other_url(demo).removeprefix("http://")
    arguments = (
        ("token", address),
        ("status", address),
        ("doctor", address),
        ("run", address, "--", "true", address),
        ("login", "new", f"--url={address}"),
        ("login", address),
    )
    texts = [cli.run(*it) for it in arguments]
    return "".join(text.out + text.err for text in texts)


def login_to_a_machine(cli: Cli, demo: Demo) -> str:
    use_machine_grant(cli, demo)
    return cli.run("login", "demo").err + cli.run("doctor", "demo").out


def login_with_a_taken_name(cli: Cli, demo: Demo) -> str:
    return cli.run("login", "demo", "--url", other_url(demo)).err


def token_without_a_login(cli: Cli, demo: Demo) -> str:
    return "".join(cli.run("token", url).err for url in (other_url(demo), f"{other_url(demo)}?key=1"))


def doctor(cli: Cli, demo: Demo) -> str:
    return "".join(cli.run("doctor", server).out for server in ("demo", demo.mcp_url, other_url(demo)))


def doctor_of_an_ended_session(cli: Cli, demo: Demo) -> str:
    log_in(cli, demo)
    cli.change_stored_tokens(expires_at=1, refresh_token=None)
    return cli.run("doctor", "demo").out


def doctor_of_all_servers(cli: Cli, demo: Demo) -> str:
    cli.configure(UNREACHABLE_URL)
    return cli.run("doctor").out


def login_at_an_unreachable_server(cli: Cli, demo: Demo) -> str:
    cli.configure(UNREACHABLE_URL)
    return cli.run("login", "demo").err + cli.run("login", "--url", UNREACHABLE_URL).err


def status(cli: Cli, demo: Demo) -> str:
    text = "".join(cli.run("status", *server).out for server in ((), (demo.mcp_url,), (other_url(demo),)))
    cli.run("login", "demo", "--no-wait")
    return text + cli.run("status").out


def login_without_waiting(cli: Cli, demo: Demo) -> str:
    return cli.run("login", "demo", "--no-wait").out


def finish_of_an_unknown_login(cli: Cli, demo: Demo) -> str:
    return cli.run("login", "--finish", "another-login", stdin=b"whatever").err


def login_without_standard_input(cli: Cli, demo: Demo) -> str:
    cli.configure(demo.mcp_url, timeout=1)
    command = ["sh", "-c", 'exec "$@" </dev/null', "sh", *COMMAND, "login", "demo"]
    process = subprocess.run(command, env=cli.environ(), capture_output=True, check=False, timeout=40)
    return process.stderr.decode()


def error_of_the_bridge(cli: Cli, demo: Demo) -> str:
    with connect(cli, other_url(demo), "--no-browser") as client:
        client.initialize()
        text = client.call()
    login_id = cli.run("login", "demo", "--no-wait").out.split()[-1]
    return f"{text} {login_error_text(AuthorizationRequired('demo', login_id=login_id), '')}"


EXECUTED: dict[Callable[[Cli, Demo], str], tuple[str, ...]] = {
    error_without_advice: ("errors: hermes-mcp-auth login {}",),
    call_of_a_known_server: ("service.refresh: login_advice()",),
    call_of_an_unknown_address: ("service.refresh: login_advice()",),
    call_after_a_logout: ("service.refresh: login_advice()",),
    tokens_of_another_address: ("service.refresh: logout_command()",),
    machine_tokens_of_another_address: ("service.refresh: token_command()",),
    call_with_a_bot: ("service.chat_advice: login_command()",),
    two_servers_at_one_address: ("service.server_lookup: logout_command()",),
    call_of_an_unknown_name: ("config.configuration: login_command()",),
    finish_of_an_unknown_login: ("cli.login: hermes-mcp-auth status",),
    logout_of_an_unknown_name: ("cli.logout: hermes-mcp-auth status",),
    logout_of_an_unknown_owner: ("errors: hermes-mcp-auth status",),
    address_without_a_scheme: ("cli.output: corrected_command()",),
    login_to_a_machine: ("service.start_login: token_command()", "cli.doctor: command_for()"),
    login_with_a_taken_name: ("cli.servers: login_command()",),
    token_without_a_login: ("cli.token: login_command()",),
    doctor: ("cli.doctor: login_command()",),
    doctor_of_an_ended_session: ("cli.doctor_examination: login_command()",),
    doctor_of_all_servers: ("cli.doctor: command_for()",),
    login_at_an_unreachable_server: ("cli.output: command_for()",),
    status: (
        "cli.connection_status: login_command()",
        "cli.connection_status: finish_command()",
    ),
    login_without_waiting: ("cli.login: finish_command()",),
    login_without_standard_input: ("terminal.text: finish_command()",),
    error_of_the_bridge: ("bridge.login: finish_command()", "cli.connect: login_command()"),
}
# Asks for an address, so it needs a terminal.
INTERACTIVE = "cli.status: hermes-mcp-auth login"


@pytest.fixture
def home(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the home of the commands the default home of this process."""
    monkeypatch.setenv("HERMES_HOME", str(cli.home))
    return cli.home


@covers("advice-runs")
def test_every_place_that_writes_a_command_is_executed_or_has_a_reason() -> None:
    executed = {site for sites in EXECUTED.values() for site in sites} | {INTERACTIVE}
    assert find_sites() == executed | set(NOT_EXECUTED)
    assert not executed & set(NOT_EXECUTED)


@covers("advice-runs")
@pytest.mark.parametrize("scenario", EXECUTED, ids=lambda scenario: scenario.__name__)
def test_the_commands_of_an_advice_run_as_printed(
    cli: Cli, demo: Demo, home: Path, scenario: Callable[[Cli, Demo], str]
) -> None:
    text = scenario(cli, demo)
    found = commands_in(text)
    assert found, text
    for command in dict.fromkeys(found):
        program, *arguments = shlex.split(command)
        assert program == "hermes-mcp-auth"
        exit_code, errors = run_command(cli, arguments, f"{other_url(demo)}\n" if "-" in arguments else "")
        assert exit_code not in {USAGE, CONFIGURATION}, (command, errors)


@covers("advice-runs")
@pytest.mark.tmux
def test_the_command_for_a_new_user_runs_as_printed(cli: Cli, demo: Demo) -> None:
    (cli.home / "config.yaml").unlink()
    [command] = commands_in(cli.run("status").out)
    arguments = shlex.split(command)[1:]
    with open_terminal([*COMMAND, *arguments], env=cli.environ(), rows=60) as screen:
        screen.wait_for("Address of the server:")
        screen.send(demo.mcp_url)
        screen.press("Enter")
        screen.wait_for("Paste the address here:")
