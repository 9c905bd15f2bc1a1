"""The commands of advice are quoted for a shell, and show no query of an address."""

from __future__ import annotations

import shlex

import pytest

from hermes_mcp_auth_remote.commands import finish_command, login_advice, login_command, logout_command
from hermes_mcp_auth_remote.values import Server
from tests.requirements import covers

URL = "https://notes.example/mcp"


@covers("advice-runs")
@pytest.mark.parametrize(
    ("server", "owner", "command"),
    [
        (Server("notes", URL, known_from="config"), None, "login notes"),
        (Server("my notes", URL, known_from="config"), "telegram:42", "login 'my notes' --owner telegram:42"),
        (Server("-notes", URL, known_from="config"), "me", "login --owner me -- -notes"),
        (Server("notes", URL), None, f"login notes --url {URL}"),
        (Server("notes", f"{URL}?key=hidden&b"), "me", "login notes --url - --owner me"),
        ("notes", None, "login notes"),
        (URL, None, f"login --url {URL}"),
        (f"{URL}/a'b", None, f"""login --url '{URL}/a'"'"'b'"""),
        (f"{URL}?key=hidden", None, "login --url -"),
    ],
)
def test_the_login_command_names_the_server_in_the_shortest_way_that_works(
    server: Server | str, owner: str | None, command: str
) -> None:
    assert login_command(server, owner) == f"hermes-mcp-auth {command}"
    assert "hidden" not in login_command(server, owner)


def test_other_commands_and_advice() -> None:
    server = Server("my notes", URL, known_from="config")
    assert login_advice(server, "me") == "Run `hermes-mcp-auth login 'my notes' --owner me`."
    assert login_advice(Server("notes", URL)) == (
        "Run `hermes-mcp-auth login notes --url -`, and type the address that your program uses."
    )
    assert login_command(server, via="telegram:7").endswith("login 'my notes' --via telegram:7")
    assert shlex.split(logout_command("-x y", "me")) == [
        "hermes-mcp-auth",
        "logout",
        "--owner",
        "me",
        "--",
        "-x y",
    ]
    assert finish_command("an-id") == "hermes-mcp-auth login --finish an-id"
