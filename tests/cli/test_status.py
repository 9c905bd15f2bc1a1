"""`status`: every server, however it stands, and none hidden by another's trouble. `logout`, too."""

from __future__ import annotations

import json

from hermes_mcp_auth_remote.demo.serving import Demo
from tests.browserless import approve
from tests.cli.commands import Cli, log_in
from tests.requirements import covers


def states(cli: Cli, *arguments: str) -> dict[str, str]:
    return {each["server"]: each["state"] for each in cli.run("status", "--json", *arguments).events}


def test_configured_servers_and_stored_logins_are_listed_together(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.write_config(
        json.dumps(
            {
                "mcp_servers": {
                    "another": {"url": "https://another.example/mcp", "auth": "oauth"},
                    "off": {"url": "https://off.example/mcp", "auth": "oauth", "enabled": False},
                    "keyed": {"url": "https://keyed.example/mcp", "headers": {"X": "y"}},
                    "local": {"command": "npx"},
                }
            }
        )
    )
    ended = cli.run("status", "--json")
    assert ended.code == 0
    assert [(each["server"], each["state"]) for each in ended.events] == [
        ("another", "not_connected"),
        ("demo", "connected"),
    ]
    assert demo.server.count("mcp") == 1, "only the login itself asked the server"


def test_a_broken_entry_hides_no_other_and_is_named(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.write_config(
        json.dumps(
            {
                "mcp_servers": {
                    "broken": {"url": "ftp://broken.example", "auth": "oauth"},
                    "demo": {"url": demo.mcp_url, "auth": "oauth"},
                    "local": {"command": "npx"},
                }
            }
        )
    )
    ended = cli.run("status", "--json")
    assert ended.code == 3
    assert [(each["server"], each["state"]) for each in ended.events] == [
        ("broken", "config"),
        ("demo", "connected"),
    ]
    assert "mcp_servers.broken.url" in ended.events[0]["message"]
    text = cli.run("status")
    assert text.code == 3
    assert "✓ demo: connected" in text.out
    assert "✗ broken: unreadable\n" in text.out


def test_broken_yaml_hides_no_login_and_is_said_last(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo, "--url", demo.mcp_url.replace("/mcp", "/other/mcp"), "known")
    cli.write_config("mcp_servers: [\n")
    ended = cli.run("status", "--json")
    assert ended.code == 3
    assert ended.events[0]["server"] == "known"
    assert ended.events[-1]["error"] == "config"


@covers("status-all")
def test_a_corrupt_file_of_one_server_hides_no_other(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    log_in(cli, demo, "--url", demo.mcp_url.replace("/mcp", "/other/mcp"), "other")
    (cli.home / "mcp-tokens" / "demo.json").write_text("[]")
    ended = cli.run("status", "--json")
    assert ended.code == 8
    assert {each["server"]: each["state"] for each in ended.events} == {
        "demo": "store_corrupt",
        "other": "connected",
    }
    assert "demo.json" in ended.events[0]["message"]


def test_an_expired_login_without_a_refresh_token_is_expired(cli: Cli, demo: Demo) -> None:
    demo.server.change(issue_refresh_token=False)
    log_in(cli, demo)
    assert states(cli) == {"demo": "connected"}
    cli.change_stored(expires_at=1_000_000)
    assert states(cli) == {"demo": "expired"}
    text = cli.run("status").out
    assert "✗ demo: expired" in text
    assert "hermes-mcp-auth login demo" in text


def test_scope_that_was_asked_for_and_not_granted_is_shown(cli: Cli, demo: Demo) -> None:
    demo.server.change(grant_scopes=frozenset({"mcp:tools"}))
    log_in(cli, demo)
    assert cli.run("status", "--json").events[0]["missing_scope"] == ["offline_access"]
    assert "Not granted  offline_access" in cli.run("status").out


def test_an_expiry_beyond_all_calendars_does_not_stop_the_list(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.change_stored(expires_at=1e15)
    assert cli.run("status").code == 0


def test_nothing_anywhere_says_how_to_begin(cli: Cli) -> None:
    (cli.home / "config.yaml").unlink()
    ended = cli.run("status")
    assert ended.code == 0
    assert "nobody has logged in" in ended.out
    assert "hermes-mcp-auth login --url" in ended.out
    assert cli.run("status", "--json").out == ""


@covers("logout")
def test_logout_revokes_both_tokens_deletes_all_and_may_be_repeated(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    first = cli.run("logout", "demo", "--json")
    assert first.events == [{"server": "demo", "owner": None, "was_connected": True, "revoked": True}]
    assert demo.server.count("revocation") == 2
    assert cli.files() == {}
    second = cli.run("logout", "demo", "--json")
    assert second.code == 0
    assert second.events == [{"server": "demo", "owner": None, "was_connected": False, "revoked": False}]
    assert demo.server.count("revocation") == 2
    assert cli.run("logout", "demo").out == "✓ demo: nobody was logged in.\n"


def test_logout_deletes_also_where_the_provider_is_down_and_says_so(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    demo.server.fail_next("revocation", hang_up=True, times=None)
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
