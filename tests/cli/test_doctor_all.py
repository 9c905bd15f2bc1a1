"""`doctor` without a name examines all servers at once. A failed login names the command for one server."""

from __future__ import annotations

import json
import shlex
import socket
from collections.abc import Iterator

import pytest

from tests.cli.commands import Cli, log_in
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow


@pytest.fixture
def silent_url() -> Iterator[str]:
    """The address of a server that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"


def configure(cli: Cli, **urls: str) -> None:
    servers = {name: {"url": url, "auth": "oauth"} for name, url in urls.items()}
    cli.write_config(json.dumps({"mcp_servers": servers}))


@covers("doctor-all")
def test_every_server_gets_a_result_and_the_highest_exit_code_counts(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo, "known", "--url", demo.mcp_url)
    configure(cli, demo=demo.mcp_url, away="http://127.0.0.1:9/mcp", bad="ftp://bad.example")
    demo.authorization_server.requests.clear()
    result = cli.run("doctor")
    assert (result.exit_code, result.err) == (7, "")
    assert f"✓ demo at {demo.mcp_url}\n  Nothing is wrong: run hermes-mcp-auth login demo\n" in result.out
    assert f"✓ known at {demo.mcp_url}\n  Nothing is wrong, and you are connected.\n" in result.out
    assert "✗ away at http://127.0.0.1:9/mcp\n  127.0.0.1 refused the connection" in result.out
    assert "✗ bad\n  The value of mcp_servers.bad.url is not an https URL.\n" in result.out
    assert result.out.endswith(
        "\n\n4 servers examined. Something is wrong with: away, bad\n"
        "See each request: hermes-mcp-auth doctor away\n"
    )
    assert demo.authorization_server.count_requests("registration") == 0
    one = cli.run("doctor", "away")
    assert one.exit_code == 7, "the command that the summary names"


@covers("doctor-all", "json-schema")
def test_the_events_of_all_servers_end_with_a_summary(cli: Cli, demo: Demo) -> None:
    configure(cli, demo=demo.mcp_url, away="http://127.0.0.1:9/mcp")
    result = cli.run("doctor", "--json")
    *reports, summary = result.events
    assert sorted((event["server"], [p["error"] for p in event["problems"]]) for event in reports) == [
        ("away", ["unreachable"]),
        ("demo", []),
    ]
    assert (summary["event"], summary["checked"], summary["failed"]) == ("summary", 2, 1)


@covers("doctor-all")
def test_servers_that_never_respond_do_not_delay_the_others(cli: Cli, demo: Demo, silent_url: str) -> None:
    hanging = {f"hanging{number}": silent_url for number in range(5)}
    configure(cli, **hanging, demo=demo.mcp_url, other=demo.mcp_url.replace("/mcp", "/other/mcp"))
    with cli.start("doctor", "--json") as doctor:
        # The two other servers come first, although five servers before them are still silent.
        assert {doctor.read_event()["server"] for _ in range(2)} == {"demo", "other"}


@covers("doctor-all")
def test_not_all_servers_are_examined_at_once(cli: Cli, demo: Demo, silent_url: str) -> None:
    from hermes_mcp_auth_remote.cli.doctor import MAX_CONCURRENT_EXAMINATIONS

    hanging = {f"hanging{number}": silent_url for number in range(MAX_CONCURRENT_EXAMINATIONS)}
    configure(cli, **hanging, demo=demo.mcp_url)
    gate = demo.authorization_server.hold("mcp")
    with cli.start("doctor", "--json"):
        assert not gate.arrived.wait(1.5)


@covers("doctor-all")
def test_without_servers_it_says_how_to_log_in(cli: Cli) -> None:
    cli.write_config("{}")
    result = cli.run("doctor")
    assert result.exit_code == 0
    assert "there is no login" in result.out
    assert cli.run("doctor", "--json").events == [
        {"version": 1, "event": "summary", "checked": 0, "failed": 0, "advice": None}
    ]


@covers("doctor-all")
def test_invalid_yaml_is_reported_after_the_stored_servers(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo, "known", "--url", demo.mcp_url)
    cli.write_config("mcp_servers: [\n")
    result = cli.run("doctor", "--json")
    assert result.exit_code == 3
    assert [event["event"] for event in result.events] == ["doctor", "summary", "error"]


@covers("doctor-hint")
def test_a_failed_login_names_the_doctor_command_and_the_command_runs(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(pkce_advertised=False)
    for arguments, command in (
        (("demo",), "hermes-mcp-auth doctor demo"),
        (("demo", "--owner", "telegram:42"), "hermes-mcp-auth doctor demo --owner telegram:42"),
        (("new", "--url", demo.mcp_url), f"hermes-mcp-auth doctor {demo.mcp_url}"),
    ):
        result = cli.run("login", *arguments)
        assert result.exit_code == 6
        assert result.err.endswith(f"\n  See each request: {command}\n")
        assert cli.run(*shlex.split(command)[1:]).exit_code == 6
        assert cli.run("login", *arguments, "--json").events[-1]["doctor"] == command


@covers("doctor-hint", "address-key")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("dmeo",), 3),
        (("demo",), 5),
        (("--url", "http://127.0.0.1:9/mcp?api_key=k3y-of-mine"), 7),
        (("--finish", "unknown"), 5),
    ],
)
def test_other_failed_logins_do_not_name_it(cli: Cli, arguments: tuple[str, ...], code: int) -> None:
    result = cli.run("login", *arguments, stdin=b"nonsense\n")
    assert result.exit_code == code
    assert "doctor" not in result.err
    assert "k3y-of-mine" not in result.err


@covers("doctor-hint")
def test_other_verbs_do_not_name_it(cli: Cli) -> None:
    assert "doctor" not in cli.run("token", "demo").err
