"""Hermes's storage class and FileStore read each other's files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey, Secret
from tests.hermes.storage_process import HermesStorage, run_hermes_storage
from tests.store.builders import KEY, NOW, REDIRECT_URI, build_credentials, keys_of

pytestmark = [pytest.mark.hermes, pytest.mark.real_hermes, pytest.mark.xdist_group("hermes-storage")]

WRITE_SCRIPT = """
asyncio.run(storage.set_client_info(OAuthClientInformationFull(
    client_id="by-hermes", redirect_uris=["http://127.0.0.1:8765/callback"],
    token_endpoint_auth_method="none")))
storage.save_oauth_metadata(OAuthMetadata(
    issuer="https://as9.example", authorization_endpoint="https://as9.example/authorize",
    token_endpoint="https://as9.example/token"))
asyncio.run(storage.set_tokens(OAuthToken(
    access_token="access-hermes", refresh_token="refresh-hermes", expires_in=600, scope="read write")))
"""

REFRESH_SCRIPT = """
asyncio.run(storage.set_tokens(OAuthToken(
    access_token="access-hermes", refresh_token="refresh-hermes", expires_in=600)))
"""

REWRITE_SCRIPT = """
asyncio.run(storage.set_client_info(asyncio.run(storage.get_client_info())))
storage.save_oauth_metadata(storage.load_oauth_metadata())
asyncio.run(storage.set_tokens(asyncio.run(storage.get_tokens())))
"""


@pytest.fixture(scope="module")
def hermes_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HermesStorage]:
    with run_hermes_storage(tmp_path_factory.mktemp("storage")) as storage:
        yield storage


def test_hermes_reads_our_files(tmp_path: Path, hermes_storage: HermesStorage) -> None:
    FileStore(tmp_path).save_login(KEY, build_credentials())
    stored = hermes_storage.read_stored(tmp_path)
    expires_in = stored["tokens"].pop("expires_in")
    assert 0 < expires_in <= NOW + 3600
    assert stored["tokens"] == {
        "access_token": "access-0",
        "token_type": "Bearer",
        "scope": "read write",
        "refresh_token": "refresh-0",
    }
    assert stored["client"] == {
        "client_id": "client-0",
        "client_secret": "client-secret-0",
        "redirect_uris": [REDIRECT_URI],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "client_secret_post",
    }
    assert stored["metadata"]["token_endpoint"] == "https://as0.example/token"
    assert stored["metadata"]["scopes_supported"] == ["read", "write"]


@pytest.mark.parametrize("server", ["my.server", "häuser", "../x", "a b/c", "___", "x" * 200])
def test_hermes_finds_our_files_under_any_servers_name(
    tmp_path: Path, hermes_storage: HermesStorage, server: str
) -> None:
    FileStore(tmp_path).save_login(CredentialKey(server), build_credentials(0, CredentialKey(server)))
    assert hermes_storage.read_stored(tmp_path, server)["tokens"]["access_token"] == "access-0"


def test_hermes_reads_a_client_with_an_incomplete_registration(
    tmp_path: Path, hermes_storage: HermesStorage
) -> None:
    stored = build_credentials()
    assert stored.client is not None
    sloppy = {"client_uri": "", "logo_uri": None, "client_id_issued_at": "yesterday", "contacts": "me"}
    odd = {"grant_types": "code", "response_types": None, "scope": ["a"], "client_name": None}
    client = replace(stored.client, document={**sloppy, **odd, "client_secret_expires_at": None})
    FileStore(tmp_path).save_login(KEY, replace(stored, client=client))
    assert hermes_storage.read_stored(tmp_path)["client"]["client_id"] == "client-0"


def test_our_store_reads_the_files_of_hermes(tmp_path: Path, hermes_storage: HermesStorage) -> None:
    hermes_storage.run_script(tmp_path, WRITE_SCRIPT)
    credentials = FileStore(tmp_path).read(KEY).credentials
    assert credentials.binding is None
    assert credentials.tokens is not None
    assert credentials.tokens.access_token == Secret("access-hermes")
    assert credentials.tokens.refresh_token == Secret("refresh-hermes")
    assert credentials.tokens.scope == frozenset({"read", "write"})
    assert credentials.tokens.expires_at is not None
    assert credentials.tokens.obtained_at is not None
    assert credentials.tokens.expires_at - credentials.tokens.obtained_at == 600
    assert credentials.client is not None
    assert (credentials.client.client_id, credentials.client.auth_method) == ("by-hermes", "none")
    assert credentials.authorization_server is not None
    assert credentials.authorization_server.token_endpoint == "https://as9.example/token"
    assert keys_of(FileStore(tmp_path)) == [KEY]


def test_tokens_that_hermes_refreshed_are_read_and_stay_bound(
    tmp_path: Path, hermes_storage: HermesStorage
) -> None:
    store = FileStore(tmp_path)
    stored = build_credentials()
    assert stored.binding is not None
    store.save_login(KEY, stored)
    store.save_binding(KEY, replace(stored.binding, login_needed="the provider ended the session"))
    previous_version = store.glance(KEY)
    hermes_storage.run_script(tmp_path, REFRESH_SCRIPT)
    assert store.glance(KEY) != previous_version
    credentials = store.read(KEY).credentials
    assert credentials.tokens is not None
    assert credentials.tokens.access_token == Secret("access-hermes")
    # Tokens refreshed by Hermes clear `login_needed`.
    assert credentials.binding == replace(stored.binding, refresh_expires_at=None)


def test_hermes_may_rewrite_every_file_and_the_binding_still_holds(
    tmp_path: Path, hermes_storage: HermesStorage
) -> None:
    store = FileStore(tmp_path)
    stored = build_credentials()
    store.save_login(KEY, stored)
    hermes_storage.run_script(tmp_path, REWRITE_SCRIPT)
    assert (
        json.loads((tmp_path / "mcp-tokens/notes.meta.json").read_text())["issuer"] == "https://as0.example/"
    )
    credentials = store.read(KEY).credentials
    assert credentials.binding == stored.binding
    assert credentials.authorization_server is not None
    assert credentials.authorization_server.issuer == "https://as0.example"
    assert credentials.client is not None
    assert replace(credentials.client, document={}) == stored.client


def test_later_login_by_hermes_has_no_binding(tmp_path: Path, hermes_storage: HermesStorage) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials())
    hermes_storage.run_script(tmp_path, WRITE_SCRIPT)
    assert store.read(KEY).credentials.binding is None


def test_tokens_and_binding_survive_if_hermes_drops_the_client(
    tmp_path: Path, hermes_storage: HermesStorage
) -> None:
    store = FileStore(tmp_path)
    stored = build_credentials()
    store.save_login(KEY, stored)
    hermes_storage.run_script(tmp_path, "assert storage.poison_client_registration()")
    credentials = store.read(KEY).credentials
    assert (credentials.client, credentials.authorization_server) == (None, None)
    assert (credentials.tokens, credentials.binding) == (stored.tokens, stored.binding)
    assert store.delete(KEY)
    assert list((tmp_path / "mcp-tokens").iterdir()) == []


def test_lock_of_later_hermes_versions_excludes_our_store(
    tmp_path: Path, hermes_storage: HermesStorage
) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials())
    with hermes_storage.hold_lock(tmp_path):
        assert not store.lock(KEY).try_acquire()
    with store.lock(KEY).hold(1):
        pass
