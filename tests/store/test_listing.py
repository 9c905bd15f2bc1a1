"""How the store of files lists sessions while other programs write or damage their files."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import StoreCorrupt, StoreUnsafe
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files import listing
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.files.key_changes import FileKeyChanges
from hermes_mcp_auth_remote.store.files.private_files import has_directory
from hermes_mcp_auth_remote.store.files.session_files import SessionContents, read_contents
from hermes_mcp_auth_remote.values import CredentialKey, Secret
from tests.requirements import covers
from tests.store.builders import KEY, build_credentials, with_client_id

OTHER = CredentialKey("other")


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    store = FileStore(tmp_path)
    for key in (KEY, OTHER):
        store.save_login(key, build_credentials(key=key))
    return store


@pytest.mark.parametrize("suffix", [".json", ".client.json", ".meta.json", ".binding.json"])
def test_a_damaged_file_is_an_error_of_its_session_alone(store: FileStore, suffix: str) -> None:
    path = store.root / f"{KEY.server_name}{suffix}"
    assert path.exists()
    path.write_text("not JSON")
    damaged, whole = store.iterate_sessions()
    assert (damaged.key, type(damaged.error)) == (KEY, StoreCorrupt)
    assert path.name in str(damaged.error)
    assert damaged.stored.credentials == Credentials()
    assert (whole.key, whole.error) == (OTHER, None)
    assert with_client_id(whole.stored) == with_client_id(store.read(OTHER))


def test_a_linked_file_is_an_error_of_its_session_alone(store: FileStore) -> None:
    path = store.root / f"{KEY.server_name}.json"
    path.rename(store.root / "elsewhere")
    path.symlink_to("elsewhere")
    damaged, whole = store.iterate_sessions()
    assert (damaged.key, type(damaged.error)) == (KEY, StoreUnsafe)
    assert whole.error is None


def test_a_session_that_another_server_has_stored_is_an_error(store: FileStore) -> None:
    for path in list(store.root.glob("other.*json")):
        path.rename(store.root / path.name.replace("other", "renamed"))
    [error] = [session.error for session in store.iterate_sessions() if session.key.server_name == "renamed"]
    assert isinstance(error, StoreUnsafe)


# Hermes cuts a stem after 128 characters, so a stem may end with an underscore that no name has.
@pytest.mark.parametrize("stem", ["notes_", "notes (1)", "zz~", "_a", "x" * 127 + "_"])
@pytest.mark.parametrize("has_binding", [True, False])
def test_a_copy_that_no_name_reaches_is_not_listed(
    store: FileStore,
    stem: str,
    has_binding: bool,  # noqa: FBT001
) -> None:
    for suffix in (".json", *([".binding.json"] if has_binding else [])):
        shutil.copy2(store.root / f"notes{suffix}", store.root / f"{stem}{suffix}")
    keys = {KEY, OTHER}
    assert {session.key for session in store.iterate_sessions()} == keys
    assert {summary.key for summary in store.list_summaries()} == keys
    assert FileKeyChanges(store).poll() == keys
    # A page after the last key is empty, so a caller that reads pages comes to an end.
    last_key = store.list_summaries()[-1].key
    assert not store.list_summaries(after=last_key)


def test_tokens_that_are_bound_to_a_key_come_with_their_key(store: FileStore) -> None:
    credentials = build_credentials()
    assert credentials.tokens is not None
    bound_tokens = replace(credentials.tokens, scheme="DPoP")
    key_path = store.root / f"{KEY.server_name}.dpop.json"
    for tokens, has_key in ((bound_tokens, True), (bound_tokens, False), (credentials.tokens, True)):
        proof_key = Secret('{"kty": "EC"}') if has_key else None
        store.save_login(KEY, replace(credentials, tokens=tokens, proof_key=proof_key))
        assert key_path.exists() is has_key
        session = next(store.iterate_sessions())
        assert with_client_id(session.stored) == with_client_id(store.read(KEY))
        assert session.stored.credentials.proof_key == (proof_key if tokens is bound_tokens else None)


def test_no_representation_of_what_was_read_shows_a_secret(store: FileStore) -> None:
    contents = read_contents(str(store.root / KEY.server_name), has_proof_key=False)
    files = listing.SessionFiles(str(store.root), KEY.server_name, None, frozenset(), None, b"shh", contents)
    assert "shh" not in repr(files)
    assert "redirect_uris" not in repr(contents)
    assert b"redirect_uris" in (contents.client or b"")


@covers("store-contract")
def test_a_session_that_changes_while_it_is_read_is_read_again(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    generations = iter([1])

    def read_and_change(prefix: str, *, has_proof_key: bool) -> SessionContents:
        # Another process stores a later login after the tokens were read.
        for generation in generations:
            store.save_login(KEY, build_credentials(generation))
        return read_contents(prefix, has_proof_key=has_proof_key)

    monkeypatch.setattr(listing, "read_contents", read_and_change)
    session = next(store.iterate_sessions())
    assert with_client_id(session.stored) == with_client_id(store.read(KEY))
    assert session.stored.credentials.tokens == build_credentials(1).tokens


def test_a_session_that_is_deleted_while_it_is_read_is_left_out(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_delete(prefix: str, *, has_proof_key: bool) -> SessionContents:
        store.delete(KEY)
        return read_contents(prefix, has_proof_key=has_proof_key)

    monkeypatch.setattr(listing, "read_contents", read_and_delete)
    assert [session.key for session in store.iterate_sessions()] == [OTHER]


def test_a_folder_that_is_removed_while_it_is_listed_is_left_out(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = CredentialKey(KEY.server_name, "telegram:1")
    store.save_login(user, build_credentials(key=user))
    [folder] = (store.root / "owners").iterdir()

    def check_and_remove(path: str) -> bool:
        exists = has_directory(path)
        if Path(path) == folder:
            shutil.rmtree(folder)
        return exists

    monkeypatch.setattr(listing, "has_directory", check_and_remove)
    assert [session.key for session in store.iterate_sessions()] == [KEY, OTHER]
