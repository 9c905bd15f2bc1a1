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
PRINT_LOADED_MODULES_CODE = """
import sys
from hermes_mcp_auth_remote.cli.__main__ import main
code = main(sys.argv[1:])
print(" ".join(sorted(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def test_token_prints_only_the_token_and_a_line_feed(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    demo.authorization_server.requests.clear()
    token = cli.stored_tokens()["access_token"]
    result = cli.run("token", "demo", may_show=[token])
    assert (result.exit_code, result.out, result.err) == (0, f"{token}\n", "")
    assert demo.authorization_server.requests == []


@covers("fast-token")
def test_the_fast_path_loads_no_parser_no_event_loop_and_no_client(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    # At the login, config.yaml was so new that a further change could go unnoticed. So this call stores its
    # identity.
    cli.run("token", "demo", may_show=[cli.stored_tokens()["access_token"]])
    process = subprocess.run(
        [sys.executable, "-I", "-c", PRINT_LOADED_MODULES_CODE, "token", "demo"],
        capture_output=True,
        env=cli.environ(),
        check=True,
        timeout=30,
    )
    assert process.stdout.decode().strip() == cli.stored_tokens()["access_token"]
    loaded_modules = set(process.stderr.decode().split())
    assert "hermes_mcp_auth_remote.store.files.fast_token" in loaded_modules
    assert loaded_modules & {"asyncio", "httpcore", "yaml", "argparse", "pathlib", "ssl", "qrcode"} == set()
    assert not any(name.startswith("hermes_mcp_auth_remote.service") for name in loaded_modules)


def test_help_loads_no_client(cli: Cli) -> None:
    code = PRINT_LOADED_MODULES_CODE.replace("code = main", "try: code = main")
    code = code.replace("\nprint", "\nexcept SystemExit: code = 0\nprint")
    process = subprocess.run(
        [sys.executable, "-I", "-c", code, "--help"],
        capture_output=True, env=cli.environ(), check=True, timeout=30,
    )  # fmt: skip
    assert set(process.stderr.decode().split()) & {"asyncio", "httpcore", "yaml", "ssl", "qrcode"} == set()


def test_two_commands_with_an_expired_token_refresh_once(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.change_stored_tokens(expires_at=time.time() - 1)
    gate = demo.authorization_server.hold("refresh")
    with cli.start("token", "demo") as one, cli.start("token", "demo") as two:
        assert gate.arrived.wait(20)
        gate.open()
        outputs = [started.process.communicate() for started in (one, two)]
        assert [one.process.returncode, two.process.returncode] == [0, 0]
    token = cli.stored_tokens()["access_token"]
    assert [out.decode() for out, _ in outputs] == [f"{token}\n"] * 2
    assert demo.authorization_server.count_requests("refresh") == 1


def test_json_has_the_server_and_the_expiry_of_the_token(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    stored = cli.stored_tokens()
    result = cli.run("token", "demo", "--json", may_show=[stored["access_token"]])
    assert result.events == [
        {
            "version": 1,
            "event": "token",
            "server": "demo",
            "owner": None,
            "url": demo.mcp_url,
            "access_token": stored["access_token"],
            "token_type": "Bearer",
            "expires_at": stored["expires_at"],
        }
    ]


def test_token_without_a_login_fails(cli: Cli, demo: Demo) -> None:
    result = cli.run("token", "demo")
    assert (result.exit_code, result.out) == (4, "")
    assert result.err == (
        "✗ demo needs a login: no user has logged in yet.\n  Run `hermes-mcp-auth login demo`.\n"
    )
    assert cli.run("token", "demo", "--json").events == [
        {
            "version": 1,
            "event": "error",
            "error": "authorization_required",
            "message": "demo needs a login: no user has logged in yet.",
            "advice": "Run `hermes-mcp-auth login demo`.",
            "server": "demo",
            "login_id": None,
            "expires_at": None,
        }
    ]


def test_the_advice_asks_for_no_address_if_the_name_is_known_without_a_stored_login(
    cli: Cli, demo: Demo
) -> None:
    """A waiting login, and the operator's login for another owner, name the server."""
    (cli.home / "config.yaml").unlink()
    assert cli.run("login", "work", "--url", demo.mcp_url, "--no-wait").exit_code == 0
    result = cli.run("token", "work")
    assert (result.exit_code, "Run `hermes-mcp-auth login work`." in result.err) == (4, True)
    log_in(cli, demo, "work")
    result = cli.run("token", "work", "--owner", "telegram:42")
    command = "hermes-mcp-auth login work --owner telegram:42"
    assert (result.exit_code, f"Run `{command}`." in result.err) == (4, True)
    assert cli.run(*command.split()[1:], "--no-wait").exit_code == 0


def test_the_advice_repeats_the_server_and_the_owner(cli: Cli, demo: Demo) -> None:
    assert "`hermes-mcp-auth login demo`" in cli.run("token", demo.mcp_url).err
    other = demo.mcp_url.replace("/mcp", "/other/mcp")
    assert f"`hermes-mcp-auth login --url {other}`" in cli.run("token", other).err
    owner = cli.run("token", "demo", "--owner", "discord:7 8", "--json")
    assert owner.events[0]["advice"] == "Run `hermes-mcp-auth login demo --owner 'discord:7 8'`."


def test_an_ended_session_needs_a_login_and_is_refreshed_only_once(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.change_stored_tokens(expires_at=1)
    demo.authorization_server.fail_next("refresh", status=400, body='{"error": "invalid_grant"}', times=None)
    for _ in range(2):
        result = cli.run("token", "demo", "--json")
        assert (result.exit_code, result.events[0]["error"]) == (4, "authorization_required")
    assert demo.authorization_server.count_requests("refresh") == 1
    assert cli.run("status", "--json").events[0]["state"] == "login_needed"


def test_a_failed_refresh_keeps_the_credentials(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.change_stored_tokens(expires_at=1)
    before = cli.credential_files()
    demo.authorization_server.fail_next("refresh", status=503, body="<html>", times=None)
    assert cli.run("token", "demo", "--json").exit_code in {6, 7}
    assert cli.credential_files() == before


def test_an_unknown_server_name_gets_a_suggestion(cli: Cli) -> None:
    result = cli.run("token", "dmeo", "--json")
    assert (result.exit_code, result.events[0]["error"]) == (3, "server_not_found")
    assert result.events[0]["advice"] == "Did you mean demo?"


def test_tokens_are_not_used_for_another_url_with_the_same_name(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.configure(demo.mcp_url.replace("/mcp", "/other/mcp"))
    result = cli.run("token", "demo")
    assert result.exit_code == 4
    assert "another address" in result.err


@pytest.mark.parametrize("verb", ["token", "status"])
def test_a_closed_pipe_causes_no_traceback(cli: Cli, demo: Demo, verb: str) -> None:
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
def test_a_full_disk_behind_standard_output_is_an_error(
    cli: Cli, demo: Demo, arguments: tuple[str, ...]
) -> None:
    log_in(cli, demo)
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, env=cli.environ(), check=False
        )
    assert process.returncode == 1
    assert process.stderr.decode().startswith("✗ An input or output failed: No space left on device.\n")


def test_a_corrupt_file_is_named_and_not_changed(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    path = cli.home / "mcp-tokens" / "demo.json"
    path.write_text('{"access_token": "cut o')
    result = cli.run("token", "demo", "--json")
    assert (result.exit_code, result.events[0]["error"]) == (8, "store_corrupt")
    assert str(path) in result.events[0]["message"]
    assert path.read_text() == '{"access_token": "cut o'
    assert json.loads((cli.home / "mcp-tokens" / "demo.client.json").read_text())
