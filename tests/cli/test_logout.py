"""`logout` of one server, of an owner and of all: revoke if possible, and always delete."""

from __future__ import annotations

import pytest

from tests.browserless import approve
from tests.cli.commands import Cli, log_in
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow


@covers("logout")
def test_logout_revokes_both_tokens_deletes_all_and_may_be_repeated(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    first = cli.run("logout", "demo", "--json")
    assert first.events == [
        {"server": "demo", "owner": None, "was_connected": True, "revoked": True, "logins_cancelled": 0}
    ]
    assert demo.authorization_server.count_requests("revocation") == 2
    assert cli.files() == {}
    second = cli.run("logout", "demo", "--json")
    assert second.code == 0
    assert second.events == [
        {"server": "demo", "owner": None, "was_connected": False, "revoked": False, "logins_cancelled": 0}
    ]
    assert demo.authorization_server.count_requests("revocation") == 2
    assert cli.run("logout", "demo").out == "✓ demo: there was no login.\n"


def test_logout_deletes_also_where_the_provider_is_down_and_says_so(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    demo.authorization_server.fail_next("revocation", hang_up=True, times=None)
    ended = cli.run("logout", "demo")
    assert ended.code == 0
    assert "The provider did not revoke the tokens" in " ".join(ended.out.split())
    assert cli.files() == {}
    assert cli.run("token", "demo").code == 4


def test_logout_of_a_name_that_nobody_knows_is_no_success(cli: Cli) -> None:
    assert cli.run("logout", "dmeo").code == 3


def test_logout_of_one_owner_leaves_the_others(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    log_in(cli, demo, "demo", "--owner", "telegram:42")
    assert cli.run("logout", "demo", "--owner", "telegram:42").code == 0
    assert [(each["owner"], each["state"]) for each in cli.run("status", "--json").events] == [
        (None, "connected")
    ]


def test_a_login_after_a_logout_works_as_the_first_did(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    assert cli.run("logout", "demo").code == 0
    with cli.started("login", "demo", "--json") as login:
        login.send(approve(login.event()["authorization_url"]) + "\n")
        assert login.event()["event"] == "connected"


def everybody(cli: Cli, demo: Demo) -> list[tuple[str, str | None]]:
    """Log in three times: the operator at one server, and a chat user at two servers."""
    other = demo.mcp_url.replace("/mcp", "/other/mcp")
    log_in(cli, demo)
    log_in(cli, demo, "demo", "--owner", "telegram:42")
    log_in(cli, demo, "other", "--url", other, "--owner", "telegram:42")
    demo.authorization_server.requests.clear()
    return [("demo", None), ("demo", "telegram:42"), ("other", "telegram:42")]


def left(cli: Cli) -> list[tuple[str, str | None]]:
    return [
        (each["server"], each["owner"])
        for each in cli.run("status", "--json").events
        if each["state"] == "connected"
    ]


@covers("logout-many")
def test_logout_of_all_asks_nothing_and_leaves_nobody(cli: Cli, demo: Demo) -> None:
    whose = everybody(cli, demo)
    ended = cli.run("logout", "--all", "--json")
    assert ended.code == 0
    assert [(each["server"], each["owner"], each["revoked"]) for each in ended.events] == [
        (*each, True) for each in whose
    ]
    assert demo.authorization_server.count_requests("revocation") == 6
    assert cli.files() == {}
    again = cli.run("logout", "--all")
    assert (again.code, again.out) == (0, "✓ There was no login.\n")


@covers("logout-many")
def test_somebody_who_leaves_is_logged_out_everywhere_and_nobody_else_is(cli: Cli, demo: Demo) -> None:
    everybody(cli, demo)
    ended = cli.run("logout", "--owner", "telegram:42")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "✓ demo (telegram:42): logged out; the provider has revoked the tokens.\n"
        "✓ other (telegram:42): logged out; the provider has revoked the tokens.\n"
    )
    assert left(cli) == [("demo", None)]


def test_all_of_one_server_is_everybody_there(cli: Cli, demo: Demo) -> None:
    everybody(cli, demo)
    assert cli.run("logout", "demo", "--all").code == 0
    assert left(cli) == [("other", "telegram:42")]


@covers("logout-many")
def test_one_that_fails_stops_no_other_and_the_worst_code_is_told(cli: Cli, demo: Demo) -> None:
    everybody(cli, demo)
    # A folder: no file system can delete it as a file.
    metadata = cli.home / "mcp-tokens" / "demo.meta.json"
    metadata.unlink()
    metadata.mkdir()
    ended = cli.run("logout", "--all", "--json")
    assert ended.code == 8
    assert [each.get("error") for each in ended.events] == ["store_unwritable", None, None]
    metadata.rmdir()
    assert cli.files() == {}


def test_what_failed_is_said_with_what_to_do(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    backup = cli.home / "mcp-tokens" / "demo.client.json.bak"
    backup.mkdir()
    ended = cli.run("logout", "--all")
    assert (ended.code, ended.err) == (8, "")
    assert ended.out.startswith("✗ demo: the logout failed\n✗ ")
    assert str(backup) in ended.out


def test_a_provider_that_is_down_keeps_nobody_logged_in(cli: Cli, demo: Demo) -> None:
    everybody(cli, demo)
    demo.authorization_server.fail_next("revocation", hang_up=True, times=None)
    ended = cli.run("logout", "--all", "--json")
    assert ended.code == 0
    assert [each["revoked"] for each in ended.events] == [False] * 3
    assert cli.files() == {}


@pytest.mark.parametrize("arguments", [("demo",), ("--all",)])
def test_a_file_that_cannot_be_read_is_deleted_too(cli: Cli, demo: Demo, arguments: tuple[str, ...]) -> None:
    log_in(cli, demo)
    (cli.home / "mcp-tokens" / "demo.json").write_text("[]")
    ended = cli.run("logout", *arguments, "--json")
    assert (ended.code, ended.events[0]["was_connected"], ended.events[0]["revoked"]) == (0, True, False)
    assert cli.files() == {}


@pytest.mark.parametrize("arguments", [("demo",), ("--all",)])
@pytest.mark.parametrize(
    "config", ["mcp_servers: [", '{"mcp_servers": {"demo": {"url": "ftp://x", "auth": "oauth"}}}', "{}"]
)
def test_a_config_with_a_mistake_keeps_nobody_logged_in(
    cli: Cli, demo: Demo, arguments: tuple[str, ...], config: str
) -> None:
    log_in(cli, demo)
    cli.write_config(config)
    ended = cli.run("logout", *arguments, "--json")
    assert (ended.code, ended.events[0]["revoked"]) == (0, True)
    assert cli.files() == {}


def test_what_hermes_wrote_is_revoked_also_where_nothing_names_its_server(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    (cli.home / "mcp-tokens" / "demo.binding.json").unlink()
    cli.write_config("{}")
    assert cli.run("logout", "--all", "--json").events[0]["revoked"] is True
    assert cli.files() == {}


@covers("logout-many")
@pytest.mark.parametrize("arguments", [("demo",), ("--all",), ("demo", "--all")])
def test_a_login_that_waits_is_cancelled_so_that_nobody_finishes_it(
    cli: Cli, demo: Demo, arguments: tuple[str, ...]
) -> None:
    begun = cli.run("login", "demo", "--no-wait", "--json").events[0]
    answer = approve(begun["authorization_url"])
    ended = cli.run("logout", *arguments)
    assert (ended.code, ended.out) == (0, "✓ demo: the waiting login is cancelled.\n")
    late = cli.run("login", "--finish", begun["login_id"], "--json", stdin=answer.encode())
    assert (late.code, late.events[-1]["error"]) == (5, "login_cancelled")
    assert demo.authorization_server.count_requests("token") == 0
    assert cli.files() == {}


def test_a_login_that_waits_for_somebody_else_goes_on(cli: Cli, demo: Demo) -> None:
    begun = cli.run("login", "demo", "--no-wait", "--json", "--owner", "telegram:42").events[0]
    assert cli.run("logout", "demo").code == 0
    assert cli.run("logout", "--owner", "telegram:43").code == 0
    answer = approve(begun["authorization_url"])
    assert cli.run("login", "--finish", begun["login_id"], stdin=answer.encode()).code == 0


def test_logout_of_nobody_in_particular_is_no_command(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    ended = cli.run("logout")
    assert ended.code == 2
    assert "name a server, or an owner with --owner, or --all" in ended.err
    assert left(cli) == [("demo", None)]
