"""The command line in a process with an error tracker, which a `sitecustomize` module starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.commands import COMMAND, TIMEOUT_SECONDS, Cli
from tests.consent_form import approve
from tests.error_trackers import ErrorTrackers
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow

# Sentry with its default options. The transport writes to a file what Sentry would send.
SENTRY_CODE = """
import importlib, os
import sentry_sdk
from sentry_sdk.transport import Transport

class Collecting(Transport):
    def capture_envelope(self, envelope):
        with open(os.environ["ENVELOPES"], "ab") as file:
            file.write(envelope.serialize() + b"\\n")

sentry_sdk.init("https://key@sentry.invalid/1", transport=Collecting)

def patch(where):
    module, _, name = where.rpartition(".")
    def fail(*given, **named):
        raise RuntimeError("an error that nobody expects")
    setattr(importlib.import_module(module), name, fail)

if os.environ.get("BOOM"):
    patch(os.environ["BOOM"])
"""
LOGIN_ARGUMENTS = ("login", "demo", "--json")
FAULTS = (
    "hermes_mcp_auth_remote.oauth.token.read_token_response",
    "hermes_mcp_auth_remote.store.files.credential_files.tokens_document",
)


@pytest.fixture
def envelopes(cli: Cli, tmp_path: Path) -> Path:
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(SENTRY_CODE)
    return tmp_path / "envelopes"


def make_environ(cli: Cli, envelopes: Path, fault: str) -> dict[str, str]:
    return cli.environ(
        {
            "PYTHONPATH": f"{envelopes.parent / 'start'}{os.pathsep}{Path.cwd()}",
            "ENVELOPES": str(envelopes),
            "BOOM": fault,
        }
    )


def check_envelopes(envelopes: Path, output: str, trackers: ErrorTrackers) -> None:
    sent = envelopes.read_text()
    assert "an error that nobody expects" in sent
    assert "hermes_mcp_auth_remote/cli/__main__.py" in sent
    assert not trackers.contains_secret(sent)
    assert not trackers.contains_secret(output)


@covers("tracebacks-masked")
@pytest.mark.parametrize("fault", [FAULTS[0], pytest.param(FAULTS[1], marks=pytest.mark.soak)])
def test_an_error_tracker_gets_no_secret_of_a_failed_login(
    cli: Cli, demo: Demo, envelopes: Path, fault: str
) -> None:
    process = subprocess.Popen(
        [*COMMAND, *LOGIN_ARGUMENTS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=make_environ(cli, envelopes, fault),
        text=True,
    )
    assert process.stdout is not None
    try:
        event = json.loads(process.stdout.readline())
        redirect_url = approve(event["authorization_url"])
        out, err = process.communicate(f"{redirect_url}\n", TIMEOUT_SECONDS)
    finally:
        process.kill()
        process.communicate()
    trackers = ErrorTrackers(
        demo.authorization_server.minted_secrets, {redirect_url.partition("code=")[2].partition("&")[0]}
    )
    assert process.returncode == 1
    check_envelopes(envelopes, out + err, trackers)


@covers("tracebacks-masked")
@pytest.mark.soak
def test_an_error_tracker_gets_no_secret_of_a_failed_token_command(
    cli: Cli, demo: Demo, envelopes: Path
) -> None:
    cli.configure(demo.mcp_url, client_id="c", client_secret="configured-client-secret")
    folder = cli.home / "mcp-tokens"
    folder.mkdir(mode=0o700)
    tokens = {"access_token": "stored-access-token", "refresh_token": "stored-refresh-token"}
    (folder / "demo.json").write_text(json.dumps({**tokens, "expires_at": time.time() + 3600}))
    (folder / "demo.json").chmod(0o600)
    trackers = ErrorTrackers({"configured-client-secret", *tokens.values()})
    for fault in (
        "hermes_mcp_auth_remote.config.server_entry._read_options",
        "hermes_mcp_auth_remote.service.refresh.make_cached_token",
    ):
        process = subprocess.run(
            [sys.executable, *COMMAND[1:], "token", "demo"],
            env=make_environ(cli, envelopes, fault),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        assert process.returncode == 1
        check_envelopes(envelopes, process.stdout + process.stderr, trackers)
        envelopes.unlink()
