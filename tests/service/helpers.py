"""Helpers: logins at the demo server, and the files that a service stores."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey, Origin, Owner, Secret, Server
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Demo

KEY = CredentialKey("notes")
TERMINAL = Origin("terminal")
CHAT = Origin("telegram", chat_id="7", thread_id="1", user_id="42")


def server_of(demo: Demo) -> Server:
    return Server("notes", demo.ping_url)


async def log_in(
    service: AuthService, server: Server, origin: Origin = TERMINAL, owner: Owner = None
) -> Connection:
    login = await service.start_login(server, origin, owner=owner)
    answer = await asyncio.to_thread(approve, login.authorization_url)
    return await service.complete_login(login.id, answer, origin)


def make_logged_in_service(home: Path, demo: Demo, clock: ManualClock) -> AuthService:
    """Return a service with a session, and clear the list of requests that the login sent."""
    service = AuthService(home, clock=clock)
    asyncio.run(log_in(service, server_of(demo)))
    demo.authorization_server.requests.clear()
    return service


def read_credential_files(home: Path) -> dict[str, bytes]:
    """Return the content of each stored credential file, by name."""
    folder = home / "mcp-tokens"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.*")) if path.suffix == ".json"}


def remove_binding(home: Path) -> None:
    """Remove the binding record, as if Hermes had written the credentials."""
    store = FileStore(home)
    store.save_login(KEY, replace(store.read(KEY).credentials, binding=None))


def refresh_elsewhere(home: Path, demo: Demo) -> str:
    """Refresh as a program that takes no lock would, and return the new access token."""
    store, ledger = FileStore(home), demo.authorization_server.ledger
    stored = store.read(KEY).credentials
    assert stored.tokens is not None
    assert stored.tokens.refresh_token is not None
    old = ledger.refresh_tokens[stored.tokens.refresh_token.reveal()]
    granted = ledger.issue_tokens(old.family, old.family.scope, demo.authorization_server.behaviour, old)
    assert granted.refresh_token is not None
    fresh = replace(
        stored.tokens,
        access_token=Secret(granted.access_token),
        refresh_token=Secret(granted.refresh_token),
        expires_at=ledger.clock() + 3600,
        obtained_at=ledger.clock(),
    )
    store.save_tokens(KEY, fresh, None)
    return granted.access_token


def wait_until(is_true: Callable[[], bool]) -> None:
    """Wait until another thread has made the condition true. Fail after 20 s."""
    for _ in range(2000):
        if is_true():
            return
        time.sleep(0.01)
    raise AssertionError("The condition did not become true within 20 s.")
