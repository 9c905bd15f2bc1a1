"""List the stored sessions, in the order of their owners' folders, then of their file names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from hermes_mcp_auth_remote.errors import StoreError, StoreUnwritable
from hermes_mcp_auth_remote.hermes_home import file_stem
from hermes_mcp_auth_remote.store.codec import decode_document, read_tokens
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files.login_commit_record import BLANK
from hermes_mcp_auth_remote.store.files.paths import (
    COMMIT_RECORD,
    OWNERS_FOLDER,
    PROOF_KEY,
    REFRESH_FAILURE,
    TOKEN_REFUSAL,
    TOKENS,
    folder_name_of,
    owner_from_folder,
)
from hermes_mcp_auth_remote.store.files.private_files import (
    advice_for,
    has_directory,
    read_private_with_status,
)
from hermes_mcp_auth_remote.store.files.session_files import (
    FileVersion,
    SessionContents,
    decode_client_id,
    decode_credentials,
    read_contents,
    read_version,
)
from hermes_mcp_auth_remote.store.protocol import (
    ANY,
    AnyValue,
    RefreshFailureStore,
    Stored,
    StoredSession,
    Summary,
    TokenRefusalStore,
)
from hermes_mcp_auth_remote.values import CredentialKey, Owner

T = TypeVar("T")


class ListedStore(Protocol):
    """What the listing needs of a file store."""

    @property
    def root(self) -> Path:
        """The folder mcp-tokens."""
        ...

    @property
    def refresh_failures(self) -> RefreshFailureStore:
        """The last failed refresh of each session."""
        ...

    @property
    def token_refusals(self) -> TokenRefusalStore:
        """The refusals of tokens that were just refreshed."""
        ...

    def read(self, key: CredentialKey) -> Stored:
        """Return what is stored for a key."""
        ...

    def key_for_stem(self, folder: str, stem: str, owner: Owner) -> CredentialKey | None:
        """Return the key of the files with a stem, None if no key has these files."""
        ...

    def complete_login(self, key: CredentialKey) -> None:
        """Complete or roll back the login of a killed process."""
        ...


# Read the files of this many sessions before the first is decoded. Otherwise the code that reads and the code
# that decodes displace each other in the processor's cache, and a listing takes a sixth longer.
_BATCH_SIZE = 16


class SessionFiles(NamedTuple):
    """The contents of the files of a session. Without a version, another process may have changed them."""

    folder: str
    stem: str
    owner: Owner
    present_names: frozenset[str]
    version: FileVersion | None = None
    tokens: bytes = b""
    contents: SessionContents | None = None

    def __repr__(self) -> str:
        # The contents are secrets.
        return f"SessionFiles({self.stem!r})"


class SessionListing:
    """Lists the sessions of a file store."""

    def __init__(self, store: ListedStore) -> None:
        self._store = store

    def summaries(self, owner: Owner | AnyValue, after: CredentialKey | None) -> Iterator[Summary]:
        """Yield the key and the version of all stored tokens after a key. Raises StoreError."""
        return self._list(owner, after, self._read_summary)

    def sessions(self, owner: Owner | AnyValue) -> Iterator[StoredSession]:
        """Yield all stored sessions. Raises StoreError only if a folder cannot be read."""
        all_files = self._list(owner, None, self._read_files)
        while batch := list(islice(all_files, _BATCH_SIZE)):
            yield from [session for files in batch if (session := self._read_session(files)) is not None]

    def _list(
        self,
        owner: Owner | AnyValue,
        after: CredentialKey | None,
        read_entry: Callable[[str, str, Owner, frozenset[str]], T | None],
    ) -> Iterator[T]:
        last_folder, last_name = "", ""
        if after is not None:
            last_folder, last_name = folder_name_of(after.owner), f"{file_stem(after.server_name)}{TOKENS}"
        for folder_name, folder, folder_owner in self._list_folders(owner, last_folder):
            names = self._list_names_after_recovery(folder, folder_owner)
            present_names = frozenset(names)
            after_name = last_name if folder_name == last_folder else ""
            for name in names:
                stem, dot, extension = name.partition(".")
                if dot + extension != TOKENS or not stem or name <= after_name:
                    continue
                if (entry := read_entry(folder, stem, folder_owner, present_names)) is not None:
                    yield entry

    def _list_folders(self, owner: Owner | AnyValue, first_name: str) -> Iterator[tuple[str, str, Owner]]:
        """Yield name, path and owner of each folder from a name on; the operator's has the name ""."""
        root = str(self._store.root)
        owners = f"{root}{os.sep}{OWNERS_FOLDER}"
        if not has_directory(root):
            return
        if not first_name and (owner is None or owner is ANY):
            yield "", root, None
        if owner is None or not has_directory(owners):
            return
        for name in _list_names(owners) if owner is ANY else [folder_name_of(owner)]:
            if name < first_name:
                continue
            folder, folder_owner = f"{owners}{os.sep}{name}", owner_from_folder(name)
            # Other folders belong to no owner.
            if folder_owner is not None and has_directory(folder):
                yield name, folder, folder_owner

    def _list_names_after_recovery(self, folder: str, owner: Owner) -> list[str]:
        names = _list_names(folder)
        records = [name for name in names if name.startswith(".") and name.endswith(COMMIT_RECORD)]
        for name in records:
            self._store.complete_login(CredentialKey(name[1 : -len(COMMIT_RECORD)], owner))
        # A recovery may add or remove files.
        return _list_names(folder) if records else names

    def _read_summary(
        self,
        folder: str,
        stem: str,
        owner: Owner,
        present_names: frozenset[str],  # noqa: ARG002  for sessions
    ) -> Summary | None:
        path = f"{folder}{os.sep}{stem}{TOKENS}"
        with suppress(OSError):
            if (version := read_version(path)) is not None:
                key = self._store.key_for_stem(folder, stem, owner)
                return None if key is None else Summary(key, version.encode())
        return None

    def _read_files(
        self, folder: str, stem: str, owner: Owner, present_names: frozenset[str]
    ) -> SessionFiles | None:
        """Read the files of a session with as few calls as possible; None if it has no tokens."""
        prefix = f"{folder}{os.sep}{stem}"
        path = prefix + TOKENS
        try:
            result = read_private_with_status(path)
            if result is None or result[0] == BLANK:
                return None
            contents = read_contents(prefix, has_proof_key=stem + PROOF_KEY in present_names)
            version = FileVersion.of(result[1])
            is_same = FileVersion.of(os.lstat(path)) == version
        except (StoreError, OSError):
            return SessionFiles(folder, stem, owner, present_names)
        # Most sessions have no record, and `lexists` would make an exception for each of them.
        if not is_same or os.access(f"{folder}{os.sep}.{stem}{COMMIT_RECORD}", os.F_OK):
            return SessionFiles(folder, stem, owner, present_names)
        return SessionFiles(folder, stem, owner, present_names, version, result[0], contents)

    def _read_session(self, files: SessionFiles) -> StoredSession | None:
        with suppress(StoreError):
            if (session := self._decode_session(files)) is not None:
                return session
        # A writer is active, or a file is damaged or gone.
        summary = self._read_summary(files.folder, files.stem, files.owner, files.present_names)
        if summary is None:
            return None
        key = summary.key
        try:
            stored = self._store.read(key)
        except StoreError as error:
            return StoredSession(key, Stored(Credentials(), summary.version), error=error)
        tokens = stored.credentials.tokens
        if tokens is None:
            return None
        failure, refusal = self._store.refresh_failures, self._store.token_refusals
        return StoredSession(key, stored, failure.read(key, tokens), refusal.read(key, tokens))

    def _decode_session(self, files: SessionFiles) -> StoredSession | None:
        """Return the session that these files contain, None if that is uncertain. Raises StoreError."""
        if files.version is None or files.contents is None:
            return None
        prefix, stem = f"{files.folder}{os.sep}{files.stem}", files.stem
        path = prefix + TOKENS
        tokens = read_tokens(decode_document(files.tokens, path), files.version.written_at, path)
        if (tokens.scheme == "DPoP") != (files.contents.proof_key is not None):
            return None
        credentials, server_name = decode_credentials(prefix, tokens, files.contents, decode_client_id)
        server_name = stem if server_name is None else server_name
        if file_stem(server_name) != stem:
            return None
        key = CredentialKey(server_name, files.owner)
        failure, refusal = None, None
        if stem + REFRESH_FAILURE in files.present_names:
            failure = self._store.refresh_failures.read(key, tokens)
        if stem + TOKEN_REFUSAL in files.present_names:
            refusal = self._store.token_refusals.read(key, tokens)
        return StoredSession(key, Stored(credentials, files.version.encode()), failure, refusal)


def _list_names(folder: str) -> list[str]:
    """Return the names in a folder, sorted; raises StoreUnwritable. A folder that was removed has none."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208  Path objects cost more than the call
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreUnwritable(f"{folder} cannot be read: {error.strerror}.", advice_for(error)) from error
