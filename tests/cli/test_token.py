"""`token`: the fast path, the slow path, and the output for programs if the user must log in."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.commands import COMMAND, Cli, log_in
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow

# Prints the token, and the loaded modules on standard error.
LOADED = """
import sys
from hermes_mcp_auth_remote.cli.__main__ import main
code = main(sys.argv[1:])
print(" ".join(sorted(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def test_a_valid_token_and_a_line_feed_are_all_that_is_printed(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    demo.authorization_server.requests.clear()
    token = cli.stored()["access_token"]
    ended = cli.run("token", "demo", may_show=[token])
    assert (ended.code, ended.out, ended.err) == (0, f"{token}\n", "")
    assert demo.authorization_server.requests == []


@covers("fast-token")
def test_the_fast_path_loads_no_parser_no_loop_and_no_client(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    # At the login, config.yaml was too new to detect a further change. This call stores its identity.
    cli.run("token", "demo", may_show=[cli.stored()["access_token"]])
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOADED, "token", "demo"],
        capture_output=True,
        env=cli.environ(),
        check=True,
        timeout=30,
    )
    assert done.stdout.decode().strip() == cli.stored()["access_token"]
    loaded = set(done.stderr.decode().split())
    assert "hermes_mcp_auth_remote.store.files.fast_token" in loaded
    assert loaded & {"asyncio", "httpcore", "yaml", "argparse", "pathlib", "ssl", "qrcode"} == set()
    assert not any(name.startswith("hermes_mcp_auth_remote.service") for name in loaded)


def test_help_loads_no_client(cli: Cli) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOADED.replace("code = main", "try: code = main").replace(
            "\nprint", "\nexcept SystemExit: code = 0\nprint"), "--help"],
        capture_output=True, env=cli.environ(), check=True, timeout=30,
    )  # fmt: skip
    assert set(done.stderr.decode().split()) & {"asyncio", "httpcore", "yaml", "ssl", "qrcode"} == set()


def test_two_at_once_with_an_expired_token_refresh_once(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.change_stored(expires_at=time.time() - 1)
    gate = demo.authorization_server.hold("refresh")
    with cli.started("token", "demo") as one, cli.started("token", "demo") as two:
        assert gate.arrived.wait(20)
        gate.open()
        endings = [started.process.communicate(timeout=30) for started in (one, two)]
        assert [one.process.returncode, two.process.returncode] == [0, 0]
    token = cli.stored()["access_token"]
    assert [out.decode() for out, _ in endings] == [f"{token}\n"] * 2
    assert demo.authorization_server.count_requests("refresh") == 1


def test_json_says_what_the_token_is_for_and_until_when(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    stored = cli.stored()
    ended = cli.run("token", "demo", "--json", may_show=[stored["access_token"]])
    assert ended.events == [
        {
            "server": "demo",
            "url": demo.mcp_url,
            "access_token": stored["access_token"],
            "token_type": "Bearer",
            "expires_at": stored["expires_at"],
        }
    ]


def test_nobody_has_logged_in(cli: Cli, demo: Demo) -> None:
    ended = cli.run("token", "demo")
    assert (ended.code, ended.out) == (4, "")
    assert ended.err == (
        "✗ demo needs a login: nobody has logged in yet.\n  Run `hermes-mcp-auth login demo`.\n"
    )
    assert cli.run("token", "demo", "--json").events == [
        {
            "error": "authorization_required",
            "message": "demo needs a login: nobody has logged in yet.",
            "advice": "Run `hermes-mcp-auth login demo`.",
            "server": "demo",
            "login_id": None,
            "expires_at": None,
        }
    ]


def test_what_to_run_is_what_this_command_can_be_told_from(cli: Cli, demo: Demo) -> None:
    assert f"`hermes-mcp-auth login {demo.mcp_url}`" in cli.run("token", demo.mcp_url).err
    owner = cli.run("token", "demo", "--owner", "discord:7 8", "--json")
    assert owner.events[0]["advice"] == "Run `hermes-mcp-auth login demo --owner 'discord:7 8'`."


def test_a_session_that_the_provider_ended_needs_a_login_and_is_asked_for_once(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.change_stored(expires_at=1)
    demo.authorization_server.fail_next("refresh", status=400, body='{"error": "invalid_grant"}', times=None)
    for _ in range(2):
        ended = cli.run("token", "demo", "--json")
        assert (ended.code, ended.events[0]["error"]) == (4, "authorization_required")
    assert demo.authorization_server.count_requests("refresh") == 1
    assert cli.run("status", "--json").events[0]["state"] == "login_needed"


def test_a_provider_that_is_down_loses_nothing(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.change_stored(expires_at=1)
    before = cli.files()
    demo.authorization_server.fail_next("refresh", status=503, body="<html>", times=None)
    assert cli.run("token", "demo", "--json").code in {6, 7}
    assert cli.files() == before


def test_an_unknown_name_gets_a_suggestion(cli: Cli) -> None:
    ended = cli.run("token", "dmeo", "--json")
    assert (ended.code, ended.events[0]["error"]) == (3, "server_not_found")
    assert ended.events[0]["advice"] == "Did you mean demo?"


def test_tokens_are_never_handed_to_another_address_of_the_same_name(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.configure(demo.mcp_url.replace("/mcp", "/other/mcp"))
    ended = cli.run("token", "demo")
    assert ended.code == 4
    assert "another address" in ended.err


@pytest.mark.parametrize("verb", ["token", "status"])
def test_a_reader_that_goes_away_is_no_accident(cli: Cli, demo: Demo, verb: str) -> None:
    log_in(cli, demo)
    process = subprocess.Popen(
        [*COMMAND, verb, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli.environ()
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(30) == 141
    process.stderr.close()


@pytest.mark.parametrize("arguments", [("token", "demo"), ("status", "--json")])
def test_a_full_disk_behind_standard_output_is_said(cli: Cli, demo: Demo, arguments: tuple[str, ...]) -> None:
    log_in(cli, demo)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, env=cli.environ(), check=False
        )
    assert done.returncode == 1
    assert done.stderr.decode().startswith("✗ An input or output failed: No space left on device.\n")


def test_a_corrupt_file_is_named_and_kept(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    path = cli.home / "mcp-tokens" / "demo.json"
    path.write_text('{"access_token": "cut o')
    ended = cli.run("token", "demo", "--json")
    assert (ended.code, ended.events[0]["error"]) == (8, "store_corrupt")
    assert str(path) in ended.events[0]["message"]
    assert path.read_text() == '{"access_token": "cut o'
    assert json.loads((cli.home / "mcp-tokens" / "demo.client.json").read_text())
