"""`status` lists every server and its next event, even if another server has an error."""

from __future__ import annotations

import json
import time

import pytest

from tests.cli.commands import COMMAND, Cli, log_in
from tests.parts.authorization_server import Demo
from tests.parts.terminal import open_terminal
from tests.requirements import covers

pytestmark = pytest.mark.slow


def states_by_server(cli: Cli, *arguments: str) -> dict[str, str]:
    return {event["server"]: event["state"] for event in cli.run("status", "--json", *arguments).events}


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
    result = cli.run("status", "--json")
    assert result.exit_code == 0
    *servers, warning = result.events
    assert [(event["server"], event["state"]) for event in servers] == [
        ("another", "not_connected"),
        ("demo", "connected"),
    ]
    assert "keyed" in warning["message"], "a URL without `auth: oauth`"
    assert demo.authorization_server.count_requests("mcp") == 1, "`status` sent a request to the server"


def test_an_invalid_entry_is_listed_with_the_others(cli: Cli, demo: Demo) -> None:
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
    result = cli.run("status", "--json")
    assert result.exit_code == 3
    assert [(event["server"], event["state"], event["error"]) for event in result.events] == [
        ("broken", "unreadable", "config"),
        ("demo", "connected", None),
    ]
    assert "mcp_servers.broken.url" in result.events[0]["message"]
    text = cli.run("status")
    assert text.exit_code == 3
    assert "✓ demo: connected" in text.out
    assert "✗ broken: unreadable\n" in text.out


def test_invalid_yaml_hides_no_login_and_is_the_last_line(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo, "--url", demo.mcp_url.replace("/mcp", "/other/mcp"), "known")
    cli.write_config("mcp_servers: [\n")
    result = cli.run("status", "--json")
    assert result.exit_code == 3
    assert result.events[0]["server"] == "known"
    assert result.events[-1]["error"] == "config"


@covers("status-all")
def test_a_corrupt_file_of_one_server_hides_no_other(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    log_in(cli, demo, "--url", demo.mcp_url.replace("/mcp", "/other/mcp"), "other")
    (cli.home / "mcp-tokens" / "demo.json").write_text("[]")
    result = cli.run("status", "--json")
    assert result.exit_code == 8
    assert {event["server"]: (event["state"], event["error"]) for event in result.events} == {
        "demo": ("unreadable", "store_corrupt"),
        "other": ("connected", None),
    }
    assert "demo.json" in result.events[0]["message"]


def test_a_login_without_a_refresh_token_expires(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(issue_refresh_token=False)
    log_in(cli, demo)
    assert states_by_server(cli) == {"demo": "connected"}
    cli.change_stored_tokens(expires_at=1_000_000)
    assert states_by_server(cli) == {"demo": "expired"}
    text = cli.run("status").out
    assert "✗ demo: expired" in text
    assert "hermes-mcp-auth login demo" in text


def test_requested_scope_that_was_not_granted_is_shown(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(grant_scopes=frozenset({"mcp:tools"}))
    log_in(cli, demo)
    assert cli.run("status", "--json").events[0]["missing_scope"] == ["offline_access"]
    assert "Not granted  offline_access" in cli.run("status").out


def test_an_expiry_beyond_the_calendar_does_not_stop_the_list(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.change_stored_tokens(expires_at=1e15)
    assert cli.run("status").exit_code == 0


def test_an_empty_status_says_how_to_log_in(cli: Cli) -> None:
    (cli.home / "config.yaml").unlink()
    result = cli.run("status")
    assert result.exit_code == 0
    assert "there is no login" in result.out
    assert result.out.endswith("Log in to a server: hermes-mcp-auth login\n")
    assert cli.run("status", "--json").out == ""


def test_the_last_refresh_and_the_next_event_are_shown(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    before = cli.run("status", "--json").events[0]
    assert (before["refreshed_at"], before["refresh_expires_at"], before["action"]) == (None, None, "none")
    cli.change_stored_tokens(expires_at=1)
    assert "refreshes itself when it is used" in cli.run("status").out
    started = time.time()
    assert cli.run("token", "demo", may_show=demo.authorization_server.minted_secrets).exit_code == 0
    after = cli.run("status", "--json").events[0]
    assert started - 1 <= after["refreshed_at"] <= time.time()
    assert after["expires_at"] == cli.stored_tokens()["expires_at"]
    output = cli.run("status").out
    assert "Refreshed  less than a minute ago" in output
    assert "refreshes itself before " in output


def test_a_refresh_by_hermes_is_derived_from_the_expiry(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    connected = json.loads((cli.home / "mcp-tokens" / "demo.binding.json").read_text())["connected_at"]
    cli.change_stored_tokens(access_token="another", expires_in=3600, expires_at=connected + 3600 + 100)
    assert cli.run("status", "--json").events[0]["refreshed_at"] == pytest.approx(connected + 100)


def change_binding(cli: Cli, **members: object) -> None:
    path = cli.home / "mcp-tokens" / "demo.binding.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))


@covers("status-ahead")
@pytest.mark.parametrize(("days", "warns"), [(2.9, True), (3.1, False)])
def test_a_warning_comes_three_days_before_a_session_ends(
    cli: Cli, demo: Demo, days: float, *, warns: bool
) -> None:
    log_in(cli, demo)
    ends_at = time.time() + days * 86_400
    change_binding(cli, refresh_expires_at=ends_at)
    event = cli.run("status", "--json").events[0]
    assert (event["state"], event["refresh_expires_at"]) == ("connected", ends_at)
    assert (event["action"] == "log_in_soon") is warns
    assert event["next"].startswith("log in again before " if warns else "refreshes itself before ")
    text = cli.run("status").out
    assert ("Because  the provider ends the session then" in text) is warns
    assert ("Run      hermes-mcp-auth login demo" in text) is warns


@covers("status-ahead")
@pytest.mark.parametrize(("minutes", "warns"), [(59, True), (61, False)])
def test_a_warning_comes_an_hour_before_a_login_without_refresh_ends(
    cli: Cli, demo: Demo, minutes: int, *, warns: bool
) -> None:
    demo.authorization_server.change_behaviour(issue_refresh_token=False)
    log_in(cli, demo)
    # A token that lives for less than two hours has no warning.
    cli.change_stored_tokens(expires_at=time.time() + minutes * 60, expires_in=86_400)
    event = cli.run("status", "--json").events[0]
    assert event["state"] == "connected"
    assert event["next"].startswith("log in again before " if warns else "log in again when it ends")
    assert (event["action"] == "log_in_soon") is warns
    assert ("Because  this login cannot refresh itself" in cli.run("status").out) is warns


def test_an_ended_session_cannot_refresh(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    change_binding(cli, refresh_expires_at=time.time() - 1)
    assert "Next     log in again before " in cli.run("status").out
    cli.change_stored_tokens(expires_at=1)
    assert states_by_server(cli) == {"demo": "expired"}


def test_a_machine_grant_never_expires_and_has_no_warning(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(issue_refresh_token=False)
    log_in(cli, demo)
    cli.change_stored_tokens(expires_at=1)
    cli.configure(demo.mcp_url, grant="client_credentials", client_id="us", client_secret="ours")
    event = cli.run("status", "--json").events[0]
    assert (event["state"], event["action"]) == ("connected", "none")
    assert event["next"] == "refreshes itself when it is used"


def test_a_waiting_login_is_listed_with_its_finish_command_without_its_url(cli: Cli, demo: Demo) -> None:
    event = cli.run("login", "demo", "--no-wait", "--json").events[0]
    other_url = demo.mcp_url.replace("/mcp", "/other/mcp")
    cli.run("login", "other", "--url", other_url, "--owner", "telegram:42", "--no-wait", "--json")
    result = cli.run("status", "--json")
    assert [(event["server"], event["owner"], event["state"]) for event in result.events] == [
        ("demo", None, "not_connected"),
        ("other", "telegram:42", "not_connected"),
    ]
    assert result.events[0]["waiting"] == [{"login_id": event["login_id"], "expires_at": event["expires_at"]}]
    text = cli.run("status").out
    assert f"hermes-mcp-auth login --finish {event['login_id']}" in text
    assert "✗ other (telegram:42): not connected\n" in text
    assert text.count("Next     finish the login that waits\n  Waiting  a login waits until") == 2
    assert text.count("\n  Run      hermes-mcp-auth login --finish ") == 2
    assert "/authorize" not in text + result.out
    assert [event["server"] for event in cli.run("status", "--json", "--owner", "telegram:42").events] == [
        "demo",
        "other",
    ]


@covers("operators-choice")
@pytest.mark.parametrize(
    ("owners", "expected_text"),
    [
        ("shared", "all users of a bot share the operator's tokens"),
        ("per_user", "each user has their own tokens"),
    ],
)
def test_the_owners_setting_of_chats_is_shown(cli: Cli, demo: Demo, owners: str, expected_text: str) -> None:
    log_in(cli, demo)
    assert "chats" not in cli.run("status").out.lower() + cli.run("status", "--json").out
    cli.write_config(json.dumps({"mcp_auth_chats": {"owners": owners, "telegram": {"allow": [7]}}}))
    assert expected_text in " ".join(cli.run("status").out.split())
    assert cli.run("status", "--json").events[-1] == {"version": 1, "event": "chats", "owners": owners}


@covers("status-all")
def test_an_invalid_chat_section_hides_no_login_and_is_the_last_line(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo, "--url", demo.mcp_url, "known")
    cli.write_config(json.dumps({"mcp_auth_chats": {"owner": "shared"}}))
    result = cli.run("status", "--json")
    assert result.exit_code == 3
    assert result.events[0]["server"] == "known"
    assert result.events[-1]["message"] == "mcp_auth_chats.owner is not known."


@covers("status-next")
def test_a_server_without_a_login_shows_its_address_without_a_key(cli: Cli, demo: Demo) -> None:
    cli.configure(f"{demo.mcp_url}?api_key=k3y-of-mine")
    expected = f"  Address  {demo.mcp_url}?…\n  Next     log in\n  Run      hermes-mcp-auth login demo\n"
    for arguments in ((), ("demo",)):
        assert cli.run("status", *arguments).out == f"✗ demo: not connected\n{expected}"
    assert cli.run("status", "--json").events[0]["url"] == f"{demo.mcp_url}?api_key=k3y-of-mine"


@covers("status-check", "exit-codes")
def test_check_fails_exactly_if_a_person_must_log_in(cli: Cli, demo: Demo) -> None:
    def check() -> tuple[int, bool]:
        """Return the exit code, and whether the first server needs a person."""
        code = cli.run("status", "--check").exit_code
        result = cli.run("status", "demo", "--check", "--json")
        assert result.exit_code == code
        assert cli.run("status").exit_code == (code if code == 8 else 0), "only --check fails"
        return code, result.events[0]["needs_person"]

    assert check() == (4, True), "not connected"
    log_in(cli, demo)
    assert check() == (0, False)
    change_binding(cli, refresh_expires_at=time.time() + 3600)
    assert check() == (4, True), "the session ends soon"
    change_binding(cli, refresh_expires_at=None, needed_scope=["mcp:write"])
    assert check() == (4, True), "the server demands more access"
    change_binding(cli, needed_scope=None, login_needed="it is over")
    assert check() == (4, True), "the session is over"
    change_binding(cli, login_needed=None)
    assert check() == (0, False)
    demo.authorization_server.fail_next("refresh", status=503, times=None)
    cli.change_stored_tokens(expires_at=1)
    assert cli.run("token", "demo").exit_code == 6
    assert states_by_server(cli) == {"demo": "refresh_failing"}
    assert check() == (0, False), "no person can help"
    (cli.home / "mcp-tokens" / "demo.json").write_text("[]")
    assert check() == (8, True)


@covers("status-check")
def test_check_accepts_a_grant_without_a_user_and_no_server_at_all(cli: Cli, demo: Demo) -> None:
    cli.configure(demo.mcp_url, grant="client_credentials", client_id="us", client_secret="ours-alone")
    assert cli.run("status", "--check").exit_code == 0
    assert "Next     gets a token when it is used" in cli.run("status").out
    (cli.home / "config.yaml").unlink()
    assert cli.run("status", "--check").exit_code == 0


@covers("status-check")
def test_check_looks_at_each_owner_and_at_the_chosen_one(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    log_in(cli, demo, "demo", "--owner", "telegram:42")
    folder = cli.home / "mcp-tokens"
    [binding] = [path for path in folder.rglob("demo.binding.json") if path.parent != folder]
    binding.write_text(json.dumps({**json.loads(binding.read_text()), "login_needed": "it is over"}))
    assert cli.run("status", "--check").exit_code == 4
    assert cli.run("status", "demo", "--check").exit_code == 0
    assert cli.run("status", "--check", "--owner", "telegram:42").exit_code == 4


@covers("status-table", "status-next")
@pytest.mark.tmux
@pytest.mark.parametrize("columns", [40, 80, 120])
def test_the_list_fits_the_terminal(cli: Cli, demo: Demo, columns: int) -> None:
    log_in(cli, demo)
    cli.write_config(
        json.dumps(
            {
                "mcp_servers": {
                    "demo": {"url": demo.mcp_url, "auth": "oauth"},
                    "another": {"url": "https://another.example/mcp", "auth": "oauth"},
                }
            }
        )
    )
    with open_terminal([*COMMAND, "status"], env=cli.environ(), columns=columns, rows=20) as screen:
        assert screen.wait_for_exit() == 0
        lines = screen.full_text().splitlines()
    assert max(map(len, lines)) <= columns
    is_table = lines[0].split() == [
        word for word in ("Server", "State", "Account", "Lasts", "Next") if word != "Account" or columns > 100
    ]
    assert is_table is (columns > 40)
    if is_table:
        starts = [lines[0].index(word) for word in lines[0].split()]
        assert all(row[start - 1] == " " for row in (lines[1],) for start in starts)
    text = "\n".join(lines)
    for fact in ("✓ demo", "✗ another", "https://another.example/mcp", "hermes-mcp-auth login another"):
        assert fact in text


@covers("status-table")
@pytest.mark.tmux
def test_marks_are_coloured_in_a_terminal_and_not_with_no_color(cli: Cli, demo: Demo) -> None:
    colours = {}
    for name, extra in (("colour", {}), ("plain", {"NO_COLOR": "1"})):
        with open_terminal([*COMMAND, "status"], env=cli.environ(extra), columns=80, rows=20) as screen:
            assert screen.wait_for_exit() == 0
            colours[name] = screen.coloured_text()
    assert "\x1b[31m✗" in colours["colour"]
    assert "\x1b[3" not in colours["plain"]
    assert "\x1b" not in cli.run("status").out
