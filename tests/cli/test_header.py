"""`header`: for curl, through a pipe or as an argument, and for programs that run a header helper."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time

import pytest

from tests.cli.commands import COMMAND, Cli, log_in
from tests.cli.test_token import PRINT_LOADED_MODULES_CODE
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow


def test_header_prints_only_the_header_and_a_line_feed(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    demo.authorization_server.requests.clear()
    token = cli.stored_tokens()["access_token"]
    result = cli.run("header", "demo", may_show=[token])
    assert (result.exit_code, result.out, result.err) == (0, f"Authorization: Bearer {token}\n", "")
    assert demo.authorization_server.requests == []


@covers("fast-token")
def test_a_valid_token_is_printed_without_loading_an_http_client(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    # During the login, config.yaml was so new that a later change could have kept the modification time. So
    # the login stored no identity of the file. This call stores the identity.
    cli.run("token", "demo", may_show=[cli.stored_tokens()["access_token"]])
    process = subprocess.run(
        [sys.executable, "-I", "-c", PRINT_LOADED_MODULES_CODE, "header", "demo"],
        capture_output=True,
        env=cli.environ(),
        check=True,
        timeout=30,
    )
    assert process.stdout.decode() == f"Authorization: Bearer {cli.stored_tokens()['access_token']}\n"
    loaded_modules = set(process.stderr.decode().split())
    assert loaded_modules & {"asyncio", "httpcore", "yaml", "argparse", "pathlib", "ssl", "qrcode"} == set()


def test_an_expired_token_is_refreshed_first(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    cli.change_stored_tokens(expires_at=time.time() - 1)
    result = cli.run("header", "demo", may_show=demo.authorization_server.minted_secrets)
    assert result.out == f"Authorization: Bearer {cli.stored_tokens()['access_token']}\n"
    assert demo.authorization_server.count_requests("refresh") == 1


def test_with_json_the_output_is_an_object_of_headers(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo, "demo", "--owner", "telegram:42")
    result = cli.run(
        "header",
        "demo",
        "--owner",
        "telegram:42",
        "--json",
        may_show=demo.authorization_server.minted_secrets,
    )
    headers = json.loads(result.out)
    assert list(headers) == ["Authorization"]
    assert headers["Authorization"].removeprefix("Bearer ") in demo.authorization_server.minted_secrets


def test_header_without_a_login_fails(cli: Cli) -> None:
    result = cli.run("header", "demo")
    assert (result.exit_code, result.out) == (4, "")
    assert "Run `hermes-mcp-auth login demo`." in result.err


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize(
    "line",
    [
        '{command} header demo | curl -sS -H @- -H "Accept: application/json" -d @{body} {url}',
        'curl -sS -H "$({command} header demo)" -H "Accept: application/json" -d @{body} {url}',
    ],
)
def test_curl_accepts_the_header_from_a_pipe_and_as_an_argument(cli: Cli, demo: Demo, line: str) -> None:
    cli.configure(demo.ping_url)
    log_in(cli, demo)
    demo.authorization_server.requests.clear()
    body = cli.home / "body.json"
    body.write_text('{"jsonrpc": "2.0", "id": 1, "method": "ping"}')
    script = line.format(command=" ".join(COMMAND), body=body, url=demo.ping_url)
    process = subprocess.run(["sh", "-c", script], capture_output=True, env=cli.environ(), check=False)
    assert (process.returncode, process.stderr) == (0, b"")
    assert [request.status for request in demo.authorization_server.requests] == [200]
