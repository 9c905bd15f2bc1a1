"""Refresh: a token's address, the server that may get the refresh token, and the time limits."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hermes_mcp_auth_remote.errors import AuthorizationRequired, MalformedResponse, TimedOut, Unreachable
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.signing import new_proof_key
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS
from hermes_mcp_auth_remote.values import Server
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.helpers import KEY

pytestmark = pytest.mark.slow


def change_stored_file(home: Path, name: str, **members: object) -> None:
    """Change members of one stored file, as another program would."""
    path = home / "mcp-tokens" / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))


@covers("token-address")
def test_a_refresh_token_is_never_sent_to_an_issuer_from_replaced_metadata(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    change_stored_file(tmp_path, "notes.meta.json", issuer=f"{demo.issuer.rstrip('/')}/elsewhere")
    session = AuthService(tmp_path, clock=clock).session(server)
    assert asyncio.run(session.header()).startswith("Bearer ")
    clock.now += 3600
    with pytest.raises(AuthorizationRequired, match="access token has ended"):
        asyncio.run(session.header())
    assert demo.authorization_server.requests == []


@covers("token-address")
def test_a_replaced_client_file_does_not_hide_that_the_tokens_are_for_another_address(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    change_stored_file(tmp_path, "notes.client.json", client_id="re-registered")
    moved = replace(server, url=demo.mcp_url)
    with pytest.raises(AuthorizationRequired, match="another address"):
        asyncio.run(AuthService(tmp_path, clock=clock).session(moved).header())
    assert demo.authorization_server.requests == []


@pytest.mark.parametrize("grant", ["authorization_code", "client_credentials"])
def test_a_caller_does_not_wait_for_a_refresh_that_hangs(
    logged_in_service: AuthService,
    server: Server,
    clock: ManualClock,
    tmp_path: Path,
    grant: Any,
) -> None:
    may_end = threading.Event()

    async def hang(exchange: Exchange[Any], server: Server) -> Any:
        await asyncio.to_thread(may_end.wait, 20)
        raise Unreachable("The test is over.")

    clock.now += 3600
    grant_server = replace(server, options=replace(server.options, grant=grant))
    limits = replace(TIME_LIMITS, caller_seconds=0.01)
    session = AuthService(tmp_path, clock=clock, run_exchange=hang, limits=limits).session(grant_server)
    try:
        with pytest.raises(TimedOut, match="in time"):
            asyncio.run(session.header())
    finally:
        may_end.set()


@covers("dpop-choice")
def test_a_bound_session_refuses_a_bearer_token_if_the_operator_requires_dpop(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    store = FileStore(tmp_path)
    stored = store.read(KEY).credentials
    assert stored.tokens is not None
    bound = replace(stored, tokens=replace(stored.tokens, scheme="DPoP"), proof_key=new_proof_key())
    store.save_login(KEY, bound)
    clock.now += 3600
    before = store.read(KEY).credentials
    dpop_server = replace(server, options=replace(server.options, dpop=True))
    with pytest.raises(MalformedResponse, match="bound to no key"):
        asyncio.run(AuthService(tmp_path, clock=clock).session(dpop_server).header())
    assert demo.authorization_server.count_requests("refresh") == 1
    # Only the refresh token changed, because the server has used up the old one.
    after = store.read(KEY).credentials
    assert after.tokens is not None
    assert before.tokens is not None
    assert after.tokens.refresh_token != before.tokens.refresh_token
    assert replace(after, tokens=replace(after.tokens, refresh_token=None)) == replace(
        before, tokens=replace(before.tokens, refresh_token=None)
    )
