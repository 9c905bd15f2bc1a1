"""`logout` of one server, of an owner and of all: revoke if possible, and always delete."""

from __future__ import annotations

import json

import pytest

from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.protocol import Person
from tests.cli.commands import Cli, CommandResult, log_in
from tests.consent_form import approve
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow


def summarize(result: CommandResult) -> tuple[object, ...]:
    """Return the members of the only event."""
    [event] = result.events
    members = ("server", "owner", "was_connected", "revoked", "logins_cancelled", "error")
    return tuple(event[member] for member in members)


@covers("logout")
def test_logout_revokes_both_tokens_and_deletes_all_files(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    first = cli.run("logout", "demo", "--json")
    assert summarize(first) == ("demo", None, True, True, 0, None)
    assert demo.authorization_server.count_requests("revocation") == 2
    assert cli.credential_files() == {}
    second = cli.run("logout", "demo", "--json")
    assert second.exit_code == 0
    assert summarize(second) == ("demo", None, False, False, 0, None)
    assert demo.authorization_server.count_requests("revocation") == 2
    assert cli.run("logout", "demo").out == "✓ demo: there was no login.\n"


def test_logout_deletes_the_files_if_the_revocation_fails(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    demo.authorization_server.fail_next("revocation", hang_up=True, times=None)
    result = cli.run("logout", "demo")
    assert result.exit_code == 0
    assert "The provider did not revoke the tokens" in " ".join(result.out.split())
    assert cli.credential_files() == {}
    assert cli.run("token", "demo").exit_code == 4


def test_logout_of_an_unknown_server_fails(cli: Cli) -> None:
    assert cli.run("logout", "dmeo").exit_code == 3


def test_logout_of_an_unknown_address_or_of_all_logins_of_an_unknown_name_fails(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    address = demo.mcp_url.replace("/mcp", "/other/mcp")
    result = cli.run("logout", address)
    assert (result.exit_code, f"No server has the address {address}." in result.err) == (3, True)
    for arguments in (("dmeo", "--all"), (address, "--all")):
        assert cli.run("logout", *arguments).exit_code == 3
    assert connected_servers(cli) == [("demo", None)]
    assert cli.run("logout", "demo", "--all").exit_code == 0
    # The configuration has this name.
    assert cli.run("logout", "demo", "--all").out == "✓ There was no login.\n"


@covers("unknown-owner")
@pytest.mark.parametrize(
    ("owner", "advice"),
    [
        ("telegarm:42", "Did you mean telegram:42?"),
        ("WRONG", "The owners with a login are: telegram:42."),
    ],
)
def test_an_owner_without_a_login_is_named(cli: Cli, demo: Demo, owner: str, advice: str) -> None:
    log_in(cli, demo, "demo", "--owner", "telegram:42")
    note = f"Nothing is stored for the owner {owner}. {advice}"
    for arguments in ((), ("demo",), ("--all",), ("demo", "--all")):
        result = cli.run("logout", *arguments, "--owner", owner)
        assert (result.exit_code, result.out) == (3, "")
        assert " ".join(result.err.split()) == f"✗ {note}"
    [event] = cli.run("logout", "--owner", owner, "--json").events
    assert (event["error"], event["advice"]) == ("owner_not_found", advice)
    for verb in ("status", "doctor"):
        for names in ((), ("demo",)):
            result = cli.run(verb, *names, "--owner", owner)
            assert (result.exit_code, f"Note: {note}" in " ".join(result.out.split())) == (0, True)
            assert note in cli.run(verb, *names, "--owner", owner, "--json").out
    for arguments in (("token", "demo"), ("header", "demo"), ("run", "demo")):
        result = cli.run(*arguments, "--owner", owner, *(("--", "true") if arguments[0] == "run" else ()))
        assert (result.exit_code, note in " ".join(result.err.split())) == (4, True)
    assert note in " ".join(cli.run("connect", "demo", "--owner", owner).err.split())
    for verb in ("status", "doctor", "token", "logout"):
        result = cli.run(
            verb, "demo", "--owner", "telegram:42", may_show=demo.authorization_server.minted_secrets
        )
        assert (result.exit_code, "Nothing is stored" in result.out + result.err) == (0, False)


@covers("unknown-owner")
def test_the_owner_of_a_waiting_login_is_known(cli: Cli) -> None:
    cli.run("login", "demo", "--no-wait", "--owner", "telegram:42")
    assert "Nothing is stored" not in cli.run("status", "--owner", "telegram:42").out
    assert cli.run("logout", "--owner", "telegram:42").exit_code == 0
    result = cli.run("logout", "--owner", "telegram:42")
    assert result.exit_code == 3
    assert "✗ Nothing is stored for the owner telegram:42." in result.err
    assert "`hermes-mcp-auth status`" in result.err


@covers("logout-repeated")
def test_a_repeated_logout_succeeds_if_the_server_and_the_owner_are_known(cli: Cli, demo: Demo) -> None:
    chats = {"owners": "per_user", "telegram": {"allow": [42], "admins": [43]}}
    entry = {"url": demo.mcp_url, "auth": "oauth"}
    cli.write_config(json.dumps({"mcp_servers": {"demo": entry}, "mcp_auth_chats": chats}))
    admitted = Person("discord", "7", is_admin=False, admitted_by="", admitted_at=0.0)
    FileStore(cli.home).people.change(lambda people: [*people, admitted])
    log_in(cli, demo, "demo", "--owner", "telegram:42")
    assert cli.run("logout", "demo", "--owner", "telegram:42").exit_code == 0
    assert cli.run("logout", "demo").exit_code == 0
    for owner in ("telegram:42", "telegram:43", "discord:7"):
        result = cli.run("logout", "demo", "--owner", owner)
        assert (result.exit_code, result.out) == (0, f"✓ demo ({owner}): there was no login.\n")
        for arguments in ((), ("--all",), ("demo", "--all")):
            result = cli.run("logout", *arguments, "--owner", owner)
            assert (result.exit_code, result.out) == (0, "✓ There was no login.\n")
    assert cli.run("logout", "--owner", "telegram:44").exit_code == 3
    cli.write_config("mcp_servers: [")
    assert cli.run("logout", "--owner", "discord:7").exit_code == 0
    assert cli.run("logout", "--owner", "telegram:42").exit_code == 3


@covers("logout-repeated")
def test_with_ignore_missing_a_repeated_logout_always_succeeds(cli: Cli, demo: Demo) -> None:
    cli.write_config("{}")
    address = demo.mcp_url
    log_in(cli, demo, "added", "--url", address, "--owner", "anna")
    first = cli.run("logout", "added", "--owner", "anna", "--ignore-missing", "--json")
    assert (first.exit_code, summarize(first)) == (0, ("added", "anna", True, True, 0, None))
    for arguments in (
        ("added",),
        ("added", "--all"),
        (address,),
        (address, "--all"),
        ("--owner", "anna"),
        ("added", "--owner", "anna"),
        (address, "--owner", "anna"),
    ):
        # Nothing remembers the login, so the name, the address or the owner may be mistyped.
        assert cli.run("logout", *arguments).exit_code == 3
        result = cli.run("logout", *arguments, "--ignore-missing")
        assert (result.exit_code, result.out, result.err) == (0, "✓ There was no login.\n", "")
    result = cli.run("logout", "added", "--ignore-missing", "--json")
    assert (result.exit_code, result.events) == (0, [])
    # The option hides no other error.
    assert cli.run("logout", "mcp.example.com/mcp", "--ignore-missing").exit_code == 3
    cli.write_config("mcp_servers: [")
    assert cli.run("logout", "added", "--ignore-missing").exit_code == 3


def connected_servers(cli: Cli) -> list[tuple[str, str | None]]:
    return [
        (event["server"], event["owner"])
        for event in cli.run("status", "--json").events
        if event["state"] == "connected"
    ]


def test_logout_of_one_owner_keeps_the_others(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    log_in(cli, demo, "demo", "--owner", "telegram:42")
    assert cli.run("logout", "demo", "--owner", "telegram:42").exit_code == 0
    assert [(event["owner"], event["state"]) for event in cli.run("status", "--json").events] == [
        (None, "connected")
    ]


def test_a_login_after_a_logout_works(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    assert cli.run("logout", "demo").exit_code == 0
    with cli.start("login", "demo", "--json") as login:
        login.send(approve(login.read_event()["authorization_url"]) + "\n")
        assert login.read_event()["event"] == "connected"


def log_in_several_owners(cli: Cli, demo: Demo) -> list[tuple[str, str | None]]:
    """Log in three times: the operator at one server, and a chat user at two servers."""
    other = demo.mcp_url.replace("/mcp", "/other/mcp")
    log_in(cli, demo)
    log_in(cli, demo, "demo", "--owner", "telegram:42")
    log_in(cli, demo, "other", "--url", other, "--owner", "telegram:42")
    demo.authorization_server.requests.clear()
    return [("demo", None), ("demo", "telegram:42"), ("other", "telegram:42")]


@covers("logout-many")
def test_logout_of_all_deletes_every_login_without_a_question(cli: Cli, demo: Demo) -> None:
    logins = log_in_several_owners(cli, demo)
    result = cli.run("logout", "--all", "--json")
    assert result.exit_code == 0
    assert [(event["server"], event["owner"], event["revoked"]) for event in result.events] == [
        (*login_row, True) for login_row in logins
    ]
    assert demo.authorization_server.count_requests("revocation") == 6
    assert cli.credential_files() == {}
    second_result = cli.run("logout", "--all")
    assert (second_result.exit_code, second_result.out) == (0, "✓ There was no login.\n")


@covers("logout-many")
def test_logout_of_an_owner_covers_all_servers_and_no_other_owner(cli: Cli, demo: Demo) -> None:
    log_in_several_owners(cli, demo)
    result = cli.run("logout", "--owner", "telegram:42")
    assert (result.exit_code, result.err) == (0, "")
    assert result.out == (
        "✓ demo (telegram:42): logged out; the provider has revoked the tokens.\n"
        "✓ other (telegram:42): logged out; the provider has revoked the tokens.\n"
    )
    assert connected_servers(cli) == [("demo", None)]


def test_logout_all_of_one_server_covers_every_owner(cli: Cli, demo: Demo) -> None:
    log_in_several_owners(cli, demo)
    assert cli.run("logout", "demo", "--all").exit_code == 0
    assert connected_servers(cli) == [("other", "telegram:42")]


@covers("logout-many")
def test_a_failed_logout_does_not_stop_the_others_and_sets_the_exit_code(cli: Cli, demo: Demo) -> None:
    log_in_several_owners(cli, demo)
    # Put a folder in the file's place: no file system can delete a folder as a file.
    metadata = cli.home / "mcp-tokens" / "demo.meta.json"
    metadata.unlink()
    metadata.mkdir()
    result = cli.run("logout", "--all", "--json")
    assert result.exit_code == 8
    assert [event.get("error") for event in result.events] == ["store_unwritable", None, None]
    metadata.rmdir()
    assert cli.credential_files() == {}


def test_a_failed_logout_is_explained(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    backup = cli.home / "mcp-tokens" / "demo.client.json.bak"
    backup.mkdir()
    result = cli.run("logout", "--all")
    assert (result.exit_code, result.err) == (8, "")
    assert result.out.startswith("✗ demo: the logout failed\n✗ ")
    assert str(backup) in result.out


def test_logout_of_all_works_if_the_revocation_fails(cli: Cli, demo: Demo) -> None:
    log_in_several_owners(cli, demo)
    demo.authorization_server.fail_next("revocation", hang_up=True, times=None)
    result = cli.run("logout", "--all", "--json")
    assert result.exit_code == 0
    assert [event["revoked"] for event in result.events] == [False] * 3
    assert cli.credential_files() == {}


@pytest.mark.parametrize("arguments", [("demo",), ("--all",)])
def test_logout_deletes_an_unreadable_file(cli: Cli, demo: Demo, arguments: tuple[str, ...]) -> None:
    log_in(cli, demo)
    (cli.home / "mcp-tokens" / "demo.json").write_text("[]")
    result = cli.run("logout", *arguments, "--json")
    assert (result.exit_code, result.events[0]["was_connected"], result.events[0]["revoked"]) == (
        0,
        True,
        False,
    )
    assert cli.credential_files() == {}


@pytest.mark.parametrize("arguments", [("demo",), ("--all",)])
@pytest.mark.parametrize(
    "config", ["mcp_servers: [", '{"mcp_servers": {"demo": {"url": "ftp://x", "auth": "oauth"}}}', "{}"]
)
def test_logout_works_with_an_invalid_config(
    cli: Cli, demo: Demo, arguments: tuple[str, ...], config: str
) -> None:
    log_in(cli, demo)
    cli.write_config(config)
    result = cli.run("logout", *arguments, "--json")
    assert (result.exit_code, result.events[0]["revoked"]) == (0, True)
    assert cli.credential_files() == {}


def test_tokens_of_hermes_without_a_binding_are_revoked(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    (cli.home / "mcp-tokens" / "demo.binding.json").unlink()
    cli.write_config("{}")
    assert cli.run("logout", "--all", "--json").events[0]["revoked"] is True
    assert cli.credential_files() == {}


@covers("logout-many")
@pytest.mark.parametrize("arguments", [("demo",), ("--all",), ("demo", "--all")])
def test_logout_cancels_a_waiting_login(cli: Cli, demo: Demo, arguments: tuple[str, ...]) -> None:
    event = cli.run("login", "demo", "--no-wait", "--json").events[0]
    redirect_url = approve(event["authorization_url"])
    result = cli.run("logout", *arguments)
    assert (result.exit_code, result.out) == (0, "✓ demo: the waiting login is cancelled.\n")
    late_result = cli.run("login", "--finish", event["login_id"], "--json", stdin=redirect_url.encode())
    assert (late_result.exit_code, late_result.events[-1]["error"]) == (5, "login_cancelled")
    assert demo.authorization_server.count_requests("token") == 0
    assert cli.credential_files() == {}


def test_logout_keeps_the_waiting_login_of_another_owner(cli: Cli, demo: Demo) -> None:
    event = cli.run("login", "demo", "--no-wait", "--json", "--owner", "telegram:42").events[0]
    assert cli.run("logout", "demo").exit_code == 0
    assert cli.run("logout", "--owner", "telegram:43").exit_code == 3
    redirect_url = approve(event["authorization_url"])
    assert cli.run("login", "--finish", event["login_id"], stdin=redirect_url.encode()).exit_code == 0


def test_logout_without_a_server_or_an_owner_is_wrong_usage(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    result = cli.run("logout")
    assert result.exit_code == 2
    assert "name a server, or an owner with --owner, or --all" in result.err
    assert connected_servers(cli) == [("demo", None)]
