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
from tests.exchange_script import make_response
from tests.requirements import covers
from tests.service.fakes import (
    DUE_AT,
    EXPIRED_AT,
    OLD_HEADER,
    SERVER,
    FakeServer,
    get_header,
    grant_tokens,
    make_service,
    make_store,
    read_refresh_token,
    with_refresh_token,
)
from tests.store.builders import KEY, build_credentials, keys_of

Patch = pytest.MonkeyPatch


@covers("refresh-failures")
@pytest.mark.parametrize("process", ["the same process", "another process"])
def test_the_failure_of_an_old_refresh_token_does_not_apply_to_its_successor(
    tmp_path: Path, process: str
) -> None:
    """A new login stores the same access token with another refresh token."""
    store, server = (
        make_store(tmp_path),
        FakeServer(lambda _request: make_response(400, {"error": "invalid_grant"})),
    )
    service = make_service(tmp_path, server, DUE_AT)
    assert get_header(service) == OLD_HEADER
    store.save_login(keys_of(store)[0], with_refresh_token(build_credentials(0), "refresh-of-the-new-login"))
    connection = service.blocking.connection(SERVER)
    assert connection is not None
    assert connection.refresh_failure is None
    assert connection.can_refresh
    server.respond = grant_tokens
    if process == "the same process":
        # The failures stay in memory; the cached token is read again.
        service.session(SERVER)._recheck_at = 0.0
        service.session(SERVER)._cached_token = replace(service.session(SERVER)._cached_token, version=None)
    else:
        service = make_service(tmp_path, server, DUE_AT)
    assert get_header(service) == "Bearer new"
    assert server.form_values("/token", "refresh_token") == ["refresh-0", "refresh-of-the-new-login"]


@covers("disk-refuses")
def test_a_rotated_refresh_token_is_stored_although_the_binding_file_is_read_only(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    make_store(tmp_path)
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
        assert get_header(make_service(tmp_path, FakeServer(), EXPIRED_AT)) == "Bearer new"
    assert read_refresh_token(tmp_path) == Secret("rotated")
    assert get_header(make_service(tmp_path, FakeServer(), EXPIRED_AT)) == "Bearer new"
    assert not [path for path in (tmp_path / "mcp-tokens").iterdir() if path.suffix == ".tmp"]


@covers("late-tokens")
def test_a_rotated_refresh_token_is_stored_although_its_access_token_is_refused(tmp_path: Path) -> None:
    """The operator requires DPoP tokens, and the server stops binding them."""
    credentials = build_credentials(0)
    assert credentials.tokens is not None
    make_store(
        tmp_path,
        credentials=replace(
            credentials, tokens=replace(credentials.tokens, scheme="DPoP"), proof_key=new_proof_key()
        ),
    )
    server = FakeServer()
    dpop_server = Server(SERVER.name, SERVER.url, ServerOptions(dpop=True))
    with pytest.raises(MalformedResponse, match="bound to no key"):
        get_header(make_service(tmp_path, server, EXPIRED_AT), dpop_server)
    assert read_refresh_token(tmp_path) == Secret("rotated")
    # Another process also waits for the back-off, and then sends the stored refresh token.
    with pytest.raises(MalformedResponse, match="bound to no key"):
        get_header(make_service(tmp_path, server, EXPIRED_AT + 1), dpop_server)
    assert len(server.requests) == 1
    assert get_header(make_service(tmp_path, server, EXPIRED_AT + 60)) == "Bearer new"
    assert server.form_values("/token", "refresh_token") == ["refresh-0", "rotated"]


@covers("adopted")
def test_a_late_refresh_does_not_overwrite_a_login_of_another_program(tmp_path: Path) -> None:
    """Hermes 0.19 takes no lock; the server may need 90 s to answer."""
    store = make_store(tmp_path)
    logged_in = build_credentials(1)
    assert logged_in.tokens is not None
    logged_in = replace(logged_in, tokens=replace(logged_in.tokens, expires_at=EXPIRED_AT + 3600))

    def log_in_elsewhere(request: Request) -> Response:
        store.save_login(KEY, logged_in)
        return grant_tokens(request)

    assert get_header(make_service(tmp_path, FakeServer(log_in_elsewhere), EXPIRED_AT)) == "Bearer access-1"
    assert read_refresh_token(tmp_path) == Secret("refresh-1")
    client = FileStore(tmp_path).read(KEY).credentials.client
    assert client is not None
    assert client.client_id == "client-1"


@covers("disk-refuses")
def test_a_logout_revokes_tokens_that_could_not_be_stored(tmp_path: Path, monkeypatch: Patch) -> None:
    credentials = build_credentials(0)
    issuer = credentials.authorization_server
    assert issuer is not None
    revocable = authorization_server_from_document(
        {**issuer.document, "revocation_endpoint": f"{issuer.issuer}/revoke"}
    )
    make_store(tmp_path, credentials=replace(credentials, authorization_server=revocable))
    server = FakeServer()
    service = make_service(tmp_path, server, EXPIRED_AT)

    def refuse(*_: object) -> None:
        raise StoreUnwritable("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(private_files, "stage_private", refuse)
        assert get_header(service) == "Bearer new"
    assert asyncio.run(service.logout(SERVER))
    assert server.form_values("/revoke", "token") == ["rotated", "new"]
