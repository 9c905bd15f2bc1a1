"""Hermes's storage class and FileStore read each other's files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey, Secret
from tests.hermes.storage_process import HermesStorage, hermes_storage
from tests.store.given import KEY, NOW, REDIRECT_URI, credentials_of

pytestmark = [pytest.mark.hermes, pytest.mark.xdist_group("hermes-storage")]

WRITE = """
asyncio.run(storage.set_client_info(OAuthClientInformationFull(
    client_id="by-hermes", redirect_uris=["http://127.0.0.1:8765/callback"],
    token_endpoint_auth_method="none")))
storage.save_oauth_metadata(OAuthMetadata(
    issuer="https://as9.example", authorization_endpoint="https://as9.example/authorize",
    token_endpoint="https://as9.example/token"))
asyncio.run(storage.set_tokens(OAuthToken(
    access_token="access-hermes", refresh_token="refresh-hermes", expires_in=600, scope="read write")))
"""

REFRESH = """
asyncio.run(storage.set_tokens(OAuthToken(
    access_token="access-hermes", refresh_token="refresh-hermes", expires_in=600)))
"""

REWRITE = """
asyncio.run(storage.set_client_info(asyncio.run(storage.get_client_info())))
storage.save_oauth_metadata(storage.load_oauth_metadata())
asyncio.run(storage.set_tokens(asyncio.run(storage.get_tokens())))
"""


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HermesStorage]:
    with hermes_storage(tmp_path_factory.mktemp("storage")) as storage:
        yield storage


def test_hermes_reads_what_we_wrote(tmp_path: Path, hermes: HermesStorage) -> None:
    FileStore(tmp_path).save_login(KEY, credentials_of())
    found = hermes.read(tmp_path)
    expires_in = found["tokens"].pop("expires_in")
    assert 0 < expires_in <= NOW + 3600
    assert found["tokens"] == {
        "access_token": "access-0",
        "token_type": "Bearer",
        "scope": "read write",
        "refresh_token": "refresh-0",
    }
    assert found["client"] == {
        "client_id": "client-0",
        "client_secret": "client-secret-0",
        "redirect_uris": [REDIRECT_URI],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "client_secret_post",
    }
    assert found["metadata"]["token_endpoint"] == "https://as0.example/token"
    assert found["metadata"]["scopes_supported"] == ["read", "write"]


@pytest.mark.parametrize("server", ["my.server", "häuser", "../x", "a b/c", "___", "x" * 200])
def test_hermes_finds_our_files_under_any_servers_name(
    tmp_path: Path, hermes: HermesStorage, server: str
) -> None:
    FileStore(tmp_path).save_login(CredentialKey(server), credentials_of(0, CredentialKey(server)))
    assert hermes.read(tmp_path, server)["tokens"]["access_token"] == "access-0"


def test_hermes_reads_a_client_with_an_incomplete_registration(tmp_path: Path, hermes: HermesStorage) -> None:
    stored = credentials_of()
    assert stored.client is not None
    sloppy = {"client_uri": "", "logo_uri": None, "client_id_issued_at": "yesterday", "contacts": "me"}
    odd = {"grant_types": "code", "response_types": None, "scope": ["a"], "client_name": None}
    client = replace(stored.client, document={**sloppy, **odd, "client_secret_expires_at": None})
    FileStore(tmp_path).save_login(KEY, replace(stored, client=client))
    assert hermes.read(tmp_path)["client"]["client_id"] == "client-0"


def test_we_read_what_hermes_wrote(tmp_path: Path, hermes: HermesStorage) -> None:
    hermes.run(tmp_path, WRITE)
    found = FileStore(tmp_path).read(KEY)
    assert found.binding is None
    assert found.tokens is not None
    assert found.tokens.access_token == Secret("access-hermes")
    assert found.tokens.refresh_token == Secret("refresh-hermes")
    assert found.tokens.scope == frozenset({"read", "write"})
    assert found.tokens.expires_at is not None
    assert found.tokens.obtained_at is not None
    assert found.tokens.expires_at - found.tokens.obtained_at == 600
    assert found.client is not None
    assert (found.client.client_id, found.client.auth_method) == ("by-hermes", "none")
    assert found.authorization_server is not None
    assert found.authorization_server.token_endpoint == "https://as9.example/token"
    assert FileStore(tmp_path).list_keys() == [KEY]


def test_tokens_that_hermes_refreshed_are_read_and_stay_bound(tmp_path: Path, hermes: HermesStorage) -> None:
    store = FileStore(tmp_path)
    stored = credentials_of()
    assert stored.binding is not None
    store.save_login(KEY, stored)
    store.save_binding(KEY, replace(stored.binding, login_needed="the provider ended the session"))
    before = store.version(KEY)
    hermes.run(tmp_path, REFRESH)
    assert store.version(KEY) != before
    found = store.read(KEY)
    assert found.tokens is not None
    assert found.tokens.access_token == Secret("access-hermes")
    # Tokens refreshed by Hermes clear `login_needed`.
    assert found.binding == replace(stored.binding, refresh_expires_at=None)


def test_hermes_may_rewrite_every_file_and_the_binding_still_holds(
    tmp_path: Path, hermes: HermesStorage
) -> None:
    store = FileStore(tmp_path)
    stored = credentials_of()
    store.save_login(KEY, stored)
    hermes.run(tmp_path, REWRITE)
    assert (
        json.loads((tmp_path / "mcp-tokens/notes.meta.json").read_text())["issuer"] == "https://as0.example/"
    )
    found = store.read(KEY)
    assert found.binding == stored.binding
    assert found.authorization_server is not None
    assert found.authorization_server.issuer == "https://as0.example"
    assert found.client is not None
    assert replace(found.client, document={}) == stored.client


def test_a_later_login_of_hermes_is_not_read_as_ours(tmp_path: Path, hermes: HermesStorage) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of())
    hermes.run(tmp_path, WRITE)
    assert store.read(KEY).binding is None


def test_a_client_that_hermes_dropped_leaves_tokens_and_binding(
    tmp_path: Path, hermes: HermesStorage
) -> None:
    store = FileStore(tmp_path)
    stored = credentials_of()
    store.save_login(KEY, stored)
    hermes.run(tmp_path, "assert storage.poison_client_registration()")
    found = store.read(KEY)
    assert (found.client, found.authorization_server) == (None, None)
    assert (found.tokens, found.binding) == (stored.tokens, stored.binding)
    assert store.delete(KEY)
    assert list((tmp_path / "mcp-tokens").iterdir()) == []


def test_the_lock_of_later_versions_of_hermes_excludes_us(tmp_path: Path, hermes: HermesStorage) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of())
    with hermes.locked(tmp_path):
        assert not store.lock(KEY).try_acquire()
    with store.lock(KEY).hold(1):
        pass
