"""A rotated refresh token is stored, used and revoked, even if another step fails."""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hermes_mcp_auth_remote.errors import MalformedResponse, StoreUnwritable
from hermes_mcp_auth_remote.oauth.metadata import authorization_server_from_document
from hermes_mcp_auth_remote.oauth.wire import Request, Response
from hermes_mcp_auth_remote.signing import new_proof_key
from hermes_mcp_auth_remote.store.files import private_files
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import Secret, Server, ServerOptions
from tests.playbook import answer
from tests.requirements import covers
from tests.service.fakes import (
    DUE,
    ENDED,
    OLD,
    SERVER,
    FakeServer,
    grant_tokens,
    header,
    seeded,
    service_at,
    stored_refresh_token,
    with_refresh_token,
)
from tests.store.given import KEY, credentials_of

Patch = pytest.MonkeyPatch


@covers("refresh-failures")
@pytest.mark.parametrize("process", ["the same process", "another process"])
def test_what_a_dead_refresh_token_came_to_says_nothing_of_its_successor(
    tmp_path: Path, process: str
) -> None:
    """A new login stores the same access token with another refresh token."""
    store, server = seeded(tmp_path), FakeServer(lambda _request: answer(400, {"error": "invalid_grant"}))
    service = service_at(tmp_path, server, DUE)
    assert header(service) == OLD
    store.save_login(store.list_keys()[0], with_refresh_token(credentials_of(0), "refresh-of-the-new-login"))
    found = service.connection(SERVER)
    assert found is not None
    assert found.refresh_failure is None
    assert found.can_refresh
    server.respond = grant_tokens
    if process == "the same process":
        # The failures stay in memory; the cached token is read again.
        service.session(SERVER)._recheck_at = 0.0
        service.session(SERVER)._cached_token = replace(service.session(SERVER)._cached_token, version=None)
    else:
        service = service_at(tmp_path, server, DUE)
    assert header(service) == "Bearer new"
    assert server.sent("/token", "refresh_token") == ["refresh-0", "refresh-of-the-new-login"]


@covers("disk-refuses")
def test_a_rotated_refresh_token_is_stored_though_the_binding_is_on_a_read_only_mount(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    seeded(tmp_path)
    binding, rename, open_file = str(tmp_path / "mcp-tokens" / "notes.binding.json"), os.replace, os.open

    def rename_unless_mounted(source: str, target: str) -> None:
        if str(target) == binding:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        rename(source, target)

    def open_unless_read_only(path: Any, flags: int, *rest: Any) -> int:
        if str(path) == binding and flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return open_file(path, flags, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", rename_unless_mounted)
        patch.setattr(os, "open", open_unless_read_only)
        assert header(service_at(tmp_path, FakeServer(), ENDED)) == "Bearer new"
    assert stored_refresh_token(tmp_path) == Secret("rotated")
    assert header(service_at(tmp_path, FakeServer(), ENDED)) == "Bearer new"
    assert not [path for path in (tmp_path / "mcp-tokens").iterdir() if path.suffix == ".tmp"]


@covers("late-tokens")
def test_a_rotated_refresh_token_is_stored_though_its_access_token_is_refused(tmp_path: Path) -> None:
    """The operator requires DPoP tokens, and the server stops binding them."""
    found = credentials_of(0)
    assert found.tokens is not None
    seeded(
        tmp_path,
        credentials=replace(found, tokens=replace(found.tokens, scheme="DPoP"), proof_key=new_proof_key()),
    )
    server = FakeServer()
    strict = Server(SERVER.name, SERVER.url, ServerOptions(dpop=True))
    with pytest.raises(MalformedResponse, match="bound to no key"):
        header(service_at(tmp_path, server, ENDED), strict)
    assert stored_refresh_token(tmp_path) == Secret("rotated")
    # Another process also waits for the back-off, and then sends the stored refresh token.
    with pytest.raises(MalformedResponse, match="bound to no key"):
        header(service_at(tmp_path, server, ENDED + 1), strict)
    assert len(server.requests) == 1
    assert header(service_at(tmp_path, server, ENDED + 60)) == "Bearer new"
    assert server.sent("/token", "refresh_token") == ["refresh-0", "rotated"]


@covers("adopted")
def test_a_late_refresh_takes_the_place_of_no_login_that_another_program_stored(tmp_path: Path) -> None:
    """Hermes 0.19 takes no lock; the server may need 90 s to answer."""
    store = seeded(tmp_path)
    logged_in = credentials_of(1)
    assert logged_in.tokens is not None
    logged_in = replace(logged_in, tokens=replace(logged_in.tokens, expires_at=ENDED + 3600))

    def log_in_elsewhere(request: Request) -> Response:
        store.save_login(KEY, logged_in)
        return grant_tokens(request)

    assert header(service_at(tmp_path, FakeServer(log_in_elsewhere), ENDED)) == "Bearer access-1"
    assert stored_refresh_token(tmp_path) == Secret("refresh-1")
    client = FileStore(tmp_path).read(KEY).client
    assert client is not None
    assert client.client_id == "client-1"


@covers("disk-refuses")
def test_a_logout_revokes_the_tokens_that_the_disk_refused(tmp_path: Path, monkeypatch: Patch) -> None:
    found = credentials_of(0)
    issuer = found.authorization_server
    assert issuer is not None
    revocable = authorization_server_from_document(
        {**issuer.document, "revocation_endpoint": f"{issuer.issuer}/revoke"}
    )
    seeded(tmp_path, credentials=replace(found, authorization_server=revocable))
    server = FakeServer()
    service = service_at(tmp_path, server, ENDED)

    def refuse(*_: object) -> None:
        raise StoreUnwritable("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(private_files, "stage_private", refuse)
        assert header(service) == "Bearer new"
    assert asyncio.run(service.logout(SERVER))
    assert server.sent("/revoke", "token") == ["rotated", "new"]
