"""`status` lists every server, also if another server has an error, and the next event of each."""

from __future__ import annotations

import json
import time

import pytest

from tests.cli.commands import Cli, log_in
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow


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
    assert demo.authorization_server.count_requests("mcp") == 1, "`status` sent a request to the server"


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
    demo.authorization_server.change_behaviour(issue_refresh_token=False)
    log_in(cli, demo)
    assert states(cli) == {"demo": "connected"}
    cli.change_stored(expires_at=1_000_000)
    assert states(cli) == {"demo": "expired"}
    text = cli.run("status").out
    assert "✗ demo: expired" in text
    assert "hermes-mcp-auth login demo" in text


def test_scope_that_was_asked_for_and_not_granted_is_shown(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(grant_scopes=frozenset({"mcp:tools"}))
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
    assert "there is no login" in ended.out
    assert "hermes-mcp-auth login --url" in ended.out
    assert cli.run("status", "--json").out == ""


def test_a_refresh_is_told_with_its_time_and_what_comes_next(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    before = cli.run("status", "--json").events[0]
    assert (before["refreshed_at"], before["refresh_expires_at"], before["warning"]) == (None, None, None)
    cli.change_stored(expires_at=1)
    assert "renews itself when it is used" in cli.run("status").out
    started = time.time()
    assert cli.run("token", "demo", may_show=demo.authorization_server.minted_secrets).code == 0
    after = cli.run("status", "--json").events[0]
    assert started - 1 <= after["refreshed_at"] <= time.time()
    assert after["expires_at"] == cli.stored()["expires_at"]
    said = cli.run("status").out
    assert "Refreshed  less than a minute ago" in said
    assert "renews itself by " in said


def test_a_refresh_by_hermes_which_notes_none_is_told_too(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    connected = json.loads((cli.home / "mcp-tokens" / "demo.binding.json").read_text())["connected_at"]
    cli.change_stored(access_token="another", expires_in=3600, expires_at=connected + 3600 + 100)
    assert cli.run("status", "--json").events[0]["refreshed_at"] == pytest.approx(connected + 100)


def change_binding(cli: Cli, **members: object) -> None:
    path = cli.home / "mcp-tokens" / "demo.binding.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))


@covers("status-ahead")
@pytest.mark.parametrize(("days", "warns"), [(2.9, True), (3.1, False)])
def test_a_session_with_a_known_end_is_warned_of_three_days_ahead(
    cli: Cli, demo: Demo, days: float, *, warns: bool
) -> None:
    log_in(cli, demo)
    ends = time.time() + days * 86_400
    change_binding(cli, refresh_expires_at=ends)
    event = cli.run("status", "--json").events[0]
    assert (event["state"], event["refresh_expires_at"]) == ("connected", ends)
    assert (event["warning"] is not None) is warns
    assert ("Warning  log in again before " in cli.run("status").out) is warns


@covers("status-ahead")
@pytest.mark.parametrize(("minutes", "warns"), [(59, True), (61, False)])
def test_a_login_that_cannot_renew_itself_is_warned_of_an_hour_ahead(
    cli: Cli, demo: Demo, minutes: int, *, warns: bool
) -> None:
    demo.authorization_server.change_behaviour(issue_refresh_token=False)
    log_in(cli, demo)
    cli.change_stored(expires_at=time.time() + minutes * 60)
    event = cli.run("status", "--json").events[0]
    assert event["state"] == "connected"
    assert event["next"].endswith("then log in again")
    assert (event["warning"] is not None) is warns


def test_a_session_whose_end_has_passed_renews_no_more(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    change_binding(cli, refresh_expires_at=time.time() - 1)
    assert "then log in again" in cli.run("status").out
    cli.change_stored(expires_at=1)
    assert states(cli) == {"demo": "expired"}


def test_a_grant_without_a_person_never_expires_and_warns_of_nothing(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(issue_refresh_token=False)
    log_in(cli, demo)
    cli.change_stored(expires_at=1)
    cli.configure(demo.mcp_url, grant="client_credentials", client_id="us", client_secret="ours")
    event = cli.run("status", "--json").events[0]
    assert (event["state"], event["warning"]) == ("connected", None)
    assert event["next"] == "renews itself when it is used"


def test_a_login_that_waits_is_listed_with_how_to_finish_it_and_without_its_address(
    cli: Cli, demo: Demo
) -> None:
    begun = cli.run("login", "demo", "--no-wait", "--json").events[0]
    by_url = demo.mcp_url.replace("/mcp", "/other/mcp")
    cli.run("login", "other", "--url", by_url, "--owner", "telegram:42", "--no-wait", "--json")
    ended = cli.run("status", "--json")
    assert [(each["server"], each["owner"], each["state"]) for each in ended.events] == [
        ("demo", None, "not_connected"),
        ("other", "telegram:42", "not_connected"),
    ]
    assert ended.events[0]["waiting"] == [{"login_id": begun["login_id"], "expires_at": begun["expires_at"]}]
    text = cli.run("status").out
    assert f"hermes-mcp-auth login --finish {begun['login_id']}" in text
    assert "✗ other (telegram:42): not connected\n  Waiting  a login waits until" in text
    assert "/authorize" not in text + ended.out
    assert [each["server"] for each in cli.run("status", "--json", "--owner", "telegram:42").events] == [
        "demo",
        "other",
    ]


@covers("operators-choice")
@pytest.mark.parametrize(
    ("owners", "said"),
    [
        ("shared", "all users of a bot share the operator's tokens"),
        ("per_user", "each user has their own tokens"),
    ],
)
def test_whose_tokens_chats_use_is_said(cli: Cli, demo: Demo, owners: str, said: str) -> None:
    log_in(cli, demo)
    assert "chats" not in cli.run("status").out.lower() + cli.run("status", "--json").out
    cli.write_config(json.dumps({"mcp_auth_chats": {"owners": owners, "telegram": {"allow": [7]}}}))
    assert said in " ".join(cli.run("status").out.split())
    assert cli.run("status", "--json").events[-1] == {"chats": {"owners": owners}}


@covers("status-all")
def test_a_mistake_about_chats_hides_no_login_and_is_said_last(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo, "--url", demo.mcp_url, "known")
    cli.write_config(json.dumps({"mcp_auth_chats": {"owner": "shared"}}))
    ended = cli.run("status", "--json")
    assert ended.code == 3
    assert ended.events[0]["server"] == "known"
    assert ended.events[-1]["message"] == "mcp_auth_chats.owner is not known."
