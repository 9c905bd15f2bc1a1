"""Eight processes share a login with an expired token, and make twenty calls each: count the refreshes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.login_home import FASTMCP_PYTHON, PYTHON, REDIRECT_URI, environ_for
from benchmarks.logins import Person
from benchmarks.measurement import ROOT, Figure, Scale
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey, Origin, Server
from tests.parts.authorization_server import Behaviour, Demo, serve_demo

PROCESS_COUNT = 8
CALLS_PER_PROCESS = 20
_TOKEN_LIFETIME_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SharingResult:
    """The result; `logins_needed` counts the processes that need a login for their next call."""

    refreshes: int
    successful_calls: int
    logins_needed: int


def measure_figures(scale: Scale) -> list[Figure]:
    """Count once per client. The server rotates refresh tokens; if one is used twice, the session ends."""
    processes, calls = scale.choose_size(PROCESS_COUNT, 1), scale.choose_size(CALLS_PER_PROCESS, 3)
    kinds = {"ours": PYTHON, "mcp 2.x": PYTHON, "mcp 2.x with stored expiry": PYTHON}
    if FASTMCP_PYTHON.exists():
        kinds["fastmcp"] = str(FASTMCP_PYTHON)
    results = {kind: measure_sharing(kind, python, processes, calls) for kind, python in kinds.items()}
    ours = results.pop("ours")
    what, all_calls = f"{processes} processes, {calls} calls each, one expired token", processes * calls

    def peer_values(field_name: str) -> dict[str, float]:
        return {kind: float(getattr(result, field_name)) for kind, result in results.items()}

    return [
        Figure(f"refreshes: {what}", "", ours.refreshes, "one for all", 1, 1, peer_values("refreshes")),
        Figure(
            f"calls answered: {what}",
            "",
            ours.successful_calls,
            "all",
            all_calls,
            None,
            peer_values("successful_calls"),
        ),
        Figure(
            f"logins needed afterwards: {what}",
            "",
            ours.logins_needed,
            "all",
            processes,
            0,
            peer_values("logins_needed"),
        ),
    ]


def measure_sharing(kind: str, python: str, processes: int, calls: int) -> SharingResult:
    """Let all processes call at once. Then revoke the access token, and let each process call once more."""
    # Use one origin, because some clients expect the token endpoint at the origin of the MCP server.
    with (
        tempfile.TemporaryDirectory(prefix="mcp-auth-bench-") as folder,
        serve_demo(
            Behaviour(auto_approve=True, access_token_seconds=_TOKEN_LIFETIME_SECONDS), separate_origins=False
        ) as demo,
    ):
        home, ledger = Path(folder), demo.authorization_server.ledger
        _log_in_to_demo(home, demo)
        with _run_callers(python, kind, demo.ping_url, home, processes) as callers:
            while any(ledger.find_live_token(token) for token in list(ledger.access_tokens)):
                time.sleep(0.05)
            demo.authorization_server.change_behaviour(access_token_seconds=3600)
            successful_calls = sum(_count_calls(callers, calls))
            refreshes = demo.authorization_server.count_requests("refresh")
            ledger.revoke_access_tokens()
            logins_needed = sum(not _count_calls([caller], 1)[0] for caller in callers)
        return SharingResult(refreshes, successful_calls, logins_needed)


def _log_in_to_demo(home: Path, demo: Demo) -> None:
    async def log_in() -> None:
        service, origin = AuthService(home), Origin("terminal")
        login = await service.start_login(Server("bench", demo.ping_url), origin, redirect_uri=REDIRECT_URI)
        await service.complete_login(login.id, await Person().approve(login.request.url), origin)

    asyncio.run(log_in())
    stored = FileStore(home).read(CredentialKey("bench")).credentials
    assert stored.tokens is not None
    assert stored.client is not None
    login_document = {
        "tokens": _sdk_tokens(stored.tokens),
        "expires_at": stored.tokens.expires_at,
        "client": {
            "client_id": stored.client.client_id,
            "redirect_uris": [REDIRECT_URI],
            "token_endpoint_auth_method": "none",
        },
        "metadata": demo.authorization_server.metadata(),
    }
    (home / "login.json").write_text(json.dumps(login_document), encoding="utf-8")


def _sdk_tokens(tokens: Tokens) -> dict[str, object]:
    assert tokens.refresh_token is not None
    return {
        "access_token": tokens.access_token.reveal(),
        "refresh_token": tokens.refresh_token.reveal(),
        "token_type": "Bearer",
        "expires_in": int(_TOKEN_LIFETIME_SECONDS),
        "scope": " ".join(sorted(tokens.scope or ())),
    }


@contextmanager
def _run_callers(
    python: str, kind: str, url: str, home: Path, count: int
) -> Generator[list[subprocess.Popen[str]]]:
    command = [python, "-m", "benchmarks.calling_process", kind, url, str(home)]
    callers = [
        subprocess.Popen(
            command, cwd=ROOT, env=environ_for(home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(count)
    ]
    try:
        for caller in callers:
            assert caller.stdout is not None
            if caller.stdout.readline().strip() != "ready":
                raise RuntimeError(f"A process of {kind} did not start.")
        yield callers
    finally:
        for caller in callers:
            caller.communicate()


def _count_calls(callers: list[subprocess.Popen[str]], count: int) -> list[int]:
    """Let all processes call at once; return how many calls of each succeeded."""
    for caller in callers:
        assert caller.stdin is not None
        caller.stdin.write(f"{count}\n")
        caller.stdin.flush()
    return [int(caller.stdout.readline()) for caller in callers if caller.stdout is not None]
