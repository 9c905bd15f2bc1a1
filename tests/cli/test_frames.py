"""The command line in a process with an error tracker, which a `sitecustomize` module starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.browserless import approve
from tests.cli.commands import COMMAND, SECONDS, Cli
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.trackers import Trackers

pytestmark = pytest.mark.slow

# Sentry with its default options. The transport writes to a file what Sentry would send.
SENTRY = """
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
HOW_TO_LOG_IN = ("login", "demo", "--json")
FAULTS = (
    "hermes_mcp_auth_remote.oauth.token.read_token_response",
    "hermes_mcp_auth_remote.store.files.credential_files.tokens_document",
)


@pytest.fixture
def envelopes(cli: Cli, tmp_path: Path) -> Path:
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(SENTRY)
    return tmp_path / "envelopes"


def environ(cli: Cli, envelopes: Path, fault: str) -> dict[str, str]:
    return cli.environ(
        {
            "PYTHONPATH": f"{envelopes.parent / 'start'}{os.pathsep}{Path.cwd()}",
            "ENVELOPES": str(envelopes),
            "BOOM": fault,
        }
    )


def check(envelopes: Path, told: str, trackers: Trackers) -> None:
    sent = envelopes.read_text()
    assert "an error that nobody expects" in sent
    assert "hermes_mcp_auth_remote/cli/__main__.py" in sent
    assert not trackers.found_in(sent)
    assert not trackers.found_in(told)


@covers("tracebacks-masked")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_a_login(cli: Cli, demo: Demo, envelopes: Path, fault: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, *HOW_TO_LOG_IN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ(cli, envelopes, fault),
        text=True,
    )
    assert process.stdout is not None
    try:
        shown = json.loads(process.stdout.readline())
        answer = approve(shown["authorization_url"])
        out, err = process.communicate(f"{answer}\n", SECONDS)
    finally:
        process.kill()
        process.communicate()
    trackers = Trackers(
        demo.authorization_server.minted_secrets, {answer.partition("code=")[2].partition("&")[0]}
    )
    assert process.returncode == 1
    check(envelopes, out + err, trackers)


@covers("tracebacks-masked")
def test_a_fault_at_a_token(cli: Cli, demo: Demo, envelopes: Path) -> None:
    cli.configure(demo.mcp_url, client_id="c", client_secret="configured-client-secret")
    folder = cli.home / "mcp-tokens"
    folder.mkdir(mode=0o700)
    tokens = {"access_token": "stored-access-token", "refresh_token": "stored-refresh-token"}
    (folder / "demo.json").write_text(json.dumps({**tokens, "expires_at": time.time() + 3600}))
    (folder / "demo.json").chmod(0o600)
    trackers = Trackers({"configured-client-secret", *tokens.values()})
    for fault in (
        "hermes_mcp_auth_remote.config._read_options",
        "hermes_mcp_auth_remote.service.refresh.make_cached_token",
    ):
        ended = subprocess.run(
            [sys.executable, *COMMAND[1:], "token", "demo"],
            env=environ(cli, envelopes, fault),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert ended.returncode == 1
        check(envelopes, ended.stdout + ended.stderr, trackers)
        envelopes.unlink()
