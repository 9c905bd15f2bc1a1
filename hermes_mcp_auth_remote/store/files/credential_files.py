"""Store credentials in Hermes's files, `HERMES_HOME/mcp-tokens/<stem>.*`, which Hermes reads and writes too.

Tokens are written last: Hermes watches only the tokens file, and a process that sees new tokens must find
everything that belongs to them. Each file is replaced atomically. The files of one login are
replaced together (`login_commit`). If the process that stores them is killed, the next read by any process of
this program completes the commit or rolls it back (`login_commit_recovery`).

The binding says which server, issuer and client the tokens belong to, and contains the fingerprint of these
tokens. The new binding is written first. Until the commit is complete, its file also contains the old
binding, which applies to the old tokens. So no reader uses a refresh token with the metadata of another
issuer.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

from hermes_mcp_auth_remote.errors import LoginError, StoreError, StoreUnsafe, StoreUnwritable
from hermes_mcp_auth_remote.hermes_home import file_stem
from hermes_mcp_auth_remote.login import apply_event
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.wire import Document
from hermes_mcp_auth_remote.store.codec import (
    binding_document,
    client_document,
    encode_document,
    metadata_document,
    tokens_document,
    with_config_files,
)
from hermes_mcp_auth_remote.store.connection import due_session
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials, infer_binding
from hermes_mcp_auth_remote.store.files.due_sessions import DueSessions
from hermes_mcp_auth_remote.store.files.key_changes import FileKeyChanges
from hermes_mcp_auth_remote.store.files.listing import SessionListing
from hermes_mcp_auth_remote.store.files.lock import FileLock
from hermes_mcp_auth_remote.store.files.login_commit import begin_commit, read_record
from hermes_mcp_auth_remote.store.files.login_commit_record import remove_or_blank
from hermes_mcp_auth_remote.store.files.login_commit_recovery import (
    RecoveringLock,
    finish_commit,
    recover_commit,
)
from hermes_mcp_auth_remote.store.files.login_files import LoginFiles
from hermes_mcp_auth_remote.store.files.paths import (
    BINDING,
    CIMD_DISABLED,
    CLIENT,
    CLIENT_BACKUP,
    COMMIT_RECORD,
    LOCK,
    METADATA,
    OWNERS_FOLDER,
    PROOF_KEY,
    REFRESH_FAILURE,
    TOKEN_REFUSAL,
    TOKENS,
    owner_folder,
)
from hermes_mcp_auth_remote.store.files.private_files import (
    NotReplaceable,
    advice_for,
    check_writable,
    ensure_private_directory,
    has_directory,
    remove_temporary_files,
    write_private,
)
from hermes_mcp_auth_remote.store.files.record_files import NoticeFile, PeopleFile, SessionRecordFiles
from hermes_mcp_auth_remote.store.files.session_files import (
    FileVersion,
    decode_credentials,
    read_client_file,
    read_contents,
    read_document,
    read_tokens_file,
    read_version,
)
from hermes_mcp_auth_remote.store.protocol import (
    ANY,
    PAGE_SIZE,
    UNKNOWN,
    AnyValue,
    DueSession,
    ExpectedVersion,
    Lease,
    LeaseName,
    Poller,
    StoreConflict,
    Stored,
    StoredSession,
    Summary,
    Unknown,
    Version,
)
from hermes_mcp_auth_remote.store.record_codec import (
    read_refresh_failure,
    read_token_refusal,
    refresh_failure_document,
    token_refusal_document,
)
from hermes_mcp_auth_remote.values import CredentialKey, Owner

# If a writer is active during this many attempts, a reader returns its last result, even if inconsistent.
_READ_ATTEMPTS = 50
# A temporary file of this age belongs to no running write.
_STALE_SECONDS = 3600
# How long a caller waits before it asks again for a lease. Each try costs one system call.
LEASE_RETRY_SECONDS = 0.02


class FileStore:
    """The store of a HERMES_HOME (`store.protocol.Store`). Any thread or process may use it.

    Each file is replaced atomically. The lease of a key is `lock(key)`.
    """

    lease_retry_seconds = LEASE_RETRY_SECONDS
    uses_system_clock = True
    # Use the function itself: a method that calls it would make each request of a program slower.
    now = staticmethod(time.time)

    def __init__(self, home: Path) -> None:
        self.root = Path(home) / "mcp-tokens"
        self.logins = LoginFiles(self.root)
        # The folders of the last owner: from the outside in, and the innermost one with a separator.
        self._last_folders: tuple[Owner, tuple[str, ...], str] | None = None
        self.refresh_failures = SessionRecordFiles(
            lambda key: self._file(key, REFRESH_FAILURE), refresh_failure_document, read_refresh_failure
        )
        self.token_refusals = SessionRecordFiles(
            lambda key: self._file(key, TOKEN_REFUSAL), token_refusal_document, read_token_refusal
        )
        self.notices = NoticeFile(self.root)
        self.people = PeopleFile(Path(home))
        self._listing = SessionListing(self)
        self._due_sessions = DueSessions(FileKeyChanges(self), self._read_due_session)

    def read(self, key: CredentialKey) -> Stored:
        """Read the stored credentials, which may be empty.

        `tokens.account` and `tokens.refresh_expires_at` come from the binding. Raises StoreCorrupt,
        StoreUnsafe, StoreUnwritable.
        """
        credentials, version = Credentials(), None
        for _ in range(_READ_ATTEMPTS):
            version = self._file_version(key)
            credentials = self._read_once(key, version)
            if self._file_version(key) == version:
                break
        return Stored(credentials, None if version is None else version.encode())

    def _read_once(self, key: CredentialKey, version: FileVersion | None) -> Credentials:
        if not self._has_folders(key):
            return Credentials()
        prefix = self._prefix(key)
        tokens = read_tokens_file(prefix, version)
        contents = read_contents(prefix, has_proof_key=tokens is not None and tokens.scheme == "DPoP")
        credentials, server_name = decode_credentials(prefix, tokens, contents)
        if server_name is not None:
            self._check_server_name(key, server_name)
        return credentials

    def save_login(
        self,
        key: CredentialKey,
        credentials: Credentials,
        login_id: str | None = None,
        *,
        expect: ExpectedVersion = ANY,
    ) -> Version | None:
        """Store a new login's credentials, all of them or none; the caller holds `lock(key)`.

        If client, metadata or binding is None, the stored one is removed, because it belongs to other tokens.
        If tokens is None, the stored tokens stay. Marks the login `login_id` as done. If this process is
        killed first, the process that completes the commit marks it as done. Raises StoreConflict,
        StoreUnwritable, StoreUnsafe.
        """
        self._prepare_folders(key)
        self._check_version(key, expect)
        with suppress(StoreError):
            recover_commit(self._path(key, COMMIT_RECORD), self.logins)
        client, authorization_server = credentials.client, credentials.authorization_server
        binding, tokens = credentials.binding, credentials.tokens
        bound_tokens = (
            tokens if tokens is not None else read_tokens_file(self._prefix(key), self._file_version(key))
        )
        previous_binding = (
            None if binding is None or tokens is None else self._previous_binding(key, binding, tokens)
        )
        documents: dict[str, Document | None] = {
            BINDING: None if binding is None else binding_document(binding, bound_tokens, previous_binding),
            CLIENT: None if client is None else client_document(client),
            METADATA: None if authorization_server is None else metadata_document(authorization_server),
        }
        if tokens is None:
            self._write_documents(key, documents)
            return self._version(key)
        proof_key = credentials.proof_key
        documents[PROOF_KEY] = None if proof_key is None else json.loads(proof_key.reveal())
        documents[TOKENS] = tokens_document(tokens)
        version = self._commit_files(key, self._encode_documents(key, documents), login_id)
        if login_id is not None:
            # The credentials are stored, so an error must not reach the caller.
            with suppress(StoreError, LoginError):
                self.logins.change(login_id, lambda login: apply_event(login, "succeed"))
        remove_temporary_files(str(self._path(key, "")), version.written_at - _STALE_SECONDS)
        return version.encode()

    def _commit_files(
        self, key: CredentialKey, contents: Mapping[str, bytes | None], login_id: str | None = None
    ) -> FileVersion:
        """Replace files together; if the disk refuses one of them, restore the others.

        Returns the version of the last file, which is not None.
        """
        commit = begin_commit(self._path(key, COMMIT_RECORD), contents, login_id)
        try:
            commit = commit.complete()
        except StoreError:
            with suppress(StoreError):
                commit = read_record(commit.record_path) or commit
                commit.roll_back()
                commit.delete_record()
            raise
        version = FileVersion(*commit.read_last_version())
        finish_commit(commit)
        return version

    def _previous_binding(self, key: CredentialKey, binding: Binding, tokens: Tokens) -> Document | None:
        """Return the binding of the stored tokens; None if there are none, or if they equal `tokens`."""
        try:
            stored = self.read(key).credentials
        except StoreError:
            try:
                stored = Credentials(read_tokens_file(self._prefix(key), self._file_version(key)))
            except StoreError:
                # No reader can use tokens that cannot be read.
                return None
        if stored.tokens is None or stored.tokens.access_token == tokens.access_token:
            return None
        return binding_document(infer_binding(stored, key.server_name, binding.server_url), stored.tokens)

    def save_tokens(
        self, key: CredentialKey, tokens: Tokens, binding: Binding | None, *, expect: ExpectedVersion = ANY
    ) -> Version:
        """Store refreshed tokens and, unless it is None, their binding; return the version of the tokens.

        Raises StoreConflict, StoreUnwritable.
        """
        self._prepare_folders(key)
        self._check_version(key, expect)
        document = tokens_document(tokens)
        # Refuse tokens that are too large before anything is written.
        self._encode_documents(key, {TOKENS: document})
        if binding is not None:
            # Ignore a failure, because the refresh token must be saved in any case. A reader treats tokens
            # with an older binding as tokens that Hermes has refreshed.
            with suppress(StoreUnwritable):
                self._write_documents(key, {BINDING: binding_document(binding, tokens)})
        return self._write_file(key, self._path(key, TOKENS).name, encode_document(document)).encode()

    def check_can_store(self, key: CredentialKey) -> None:
        """Raise StoreUnwritable if new tokens certainly cannot be stored, such as on a read-only mount."""
        check_writable(self._path(key, TOKENS))

    def recover_login(self, key: CredentialKey, login_id: str) -> bool:
        """Complete or roll back the login of a killed process.

        Return True if a live process has not finished storing it.
        """
        self.complete_login(key)
        try:
            record = read_record(self._path(key, COMMIT_RECORD))
        except StoreError:
            return False
        return record is not None and record.login_id == login_id

    def complete_login(self, key: CredentialKey) -> None:
        """Complete or roll back the login of a killed process; does nothing while the lock is held."""
        if not os.path.lexists(self._file(key, COMMIT_RECORD)):
            return
        with suppress(StoreError):
            if self._has_folders(key):
                lock = self._make_lock(key)
                lock.try_acquire()
                lock.release()

    def save_binding(
        self, key: CredentialKey, binding: Binding, *, expect: ExpectedVersion = ANY
    ) -> Version | None:
        """Store only a binding, such as one that says why a login is needed.

        Raises StoreConflict, StoreUnwritable.
        """
        self._prepare_folders(key)
        self._check_version(key, expect)
        version = self._file_version(key)
        tokens = read_tokens_file(self._prefix(key), version)
        self._write_documents(key, {BINDING: binding_document(binding, tokens)})
        return None if version is None else version.encode()

    def save_config_identity(self, key: CredentialKey, server_url: str, config_files: str) -> None:
        """Store in the binding which config.yaml and .env give the server this URL.

        The caller holds `lock(key)`. Does nothing if the binding is for another URL. Raises StoreUnwritable,
        StoreUnsafe, StoreCorrupt.
        """
        document = read_document(self._file(key, BINDING)) or {}
        updated = with_config_files(document, server_url, config_files)
        if updated is not None:
            self._write_documents(key, {BINDING: updated})

    def drop_client(
        self, key: CredentialKey, client: Client, *, expect: ExpectedVersion = ANY
    ) -> Version | None:
        """Remove a client that the authorization server rejects, so that the next login registers a new one.

        Does nothing if another client is stored by now. For a client ID metadata document, also store the
        rejection, as later versions of Hermes do. Raises StoreConflict, StoreUnwritable.
        """
        self._prepare_folders(key)
        self._check_version(key, expect)
        if not client.is_registered and client.client_id.startswith("https://"):
            write_private(self._path(key, CIMD_DISABLED), b"")
        stored = read_client_file(self._prefix(key))
        if stored is not None and stored.client_id == client.client_id:
            remove_or_blank(self._path(key, CLIENT))
        return self._version(key)

    def is_cimd_disabled(self, key: CredentialKey) -> bool:
        """True if the authorization server has rejected the client ID metadata document.

        `delete` resets it.
        """
        return self._has_folders(key) and os.path.lexists(self._file(key, CIMD_DISABLED))

    def delete(self, key: CredentialKey) -> bool:
        """Remove every file except the lock; True if a file existed. Raises StoreUnwritable, StoreUnsafe."""
        if not self._has_folders(key):
            return False
        self._refuse_other_server(key)
        # Remove the commit record (it contains new tokens) and the tokens first: a crash must not leave them.
        suffixes = COMMIT_RECORD, TOKENS, PROOF_KEY, BINDING, CLIENT, METADATA, CLIENT_BACKUP, CIMD_DISABLED
        removed = [
            remove_or_blank(self._path(key, suffix)) for suffix in (*suffixes, REFRESH_FAILURE, TOKEN_REFUSAL)
        ]
        remove_temporary_files(str(self._path(key, "")), None)
        return any(removed)

    def list_summaries(
        self, owner: Owner | AnyValue = ANY, after: CredentialKey | None = None, limit: int = PAGE_SIZE
    ) -> list[Summary]:
        """List the stored tokens, sorted by the folder of their owner, then by file name.

        Without a binding, the server's name is the file's stem. Raises StoreUnwritable, StoreUnsafe.
        """
        return list(islice(self._listing.summaries(owner, after), limit))

    def iterate_sessions(self, owner: Owner | AnyValue = ANY) -> Iterator[StoredSession]:
        """Yield the stored sessions, each with its credentials and records, or with its error.

        The iterator raises StoreUnwritable, StoreUnsafe for a folder that cannot be read.
        """
        return self._listing.sessions(owner)

    def list_due(
        self, now: float, after: DueSession | None = None, limit: int = PAGE_SIZE
    ) -> list[DueSession]:
        """List the sessions whose users must act; reads those that have changed since the last call.

        The first call reads all sessions. Raises StoreUnsafe, StoreUnwritable.
        """
        return self._due_sessions.list_due(now, after, limit)

    def _read_due_session(self, key: CredentialKey) -> DueSession | None:
        stored = self.read(key)
        tokens = stored.credentials.tokens
        failure = None if tokens is None else self.refresh_failures.read(key, tokens)
        return due_session(key, stored, failure)

    def key_for_stem(self, folder: str, stem: str, owner: Owner) -> CredentialKey | None:
        """Return the key of the files with a stem; without a binding, the server's name is the stem.

        Returns None if that name has other files, such as for the copy `notes (1).json`.
        """
        try:
            document = read_document(f"{folder}{os.sep}{stem}{BINDING}")
        except StoreError:
            document = None
        server_name = (document or {}).get("server")
        if not isinstance(server_name, str) or file_stem(server_name) != stem:
            server_name = stem
        return CredentialKey(server_name, owner) if file_stem(server_name) == stem else None

    def glance(self, key: CredentialKey) -> Version | Unknown | None:
        """Return the version of the tokens file by two stats; UNKNOWN if a login is half stored."""
        # Use strings: two Path objects cost more than the two stats, and callers poll once a second.
        folder, stem = self._folders_of(key.owner)[2], file_stem(key.server_name)
        if os.path.lexists(f"{folder}.{stem}{COMMIT_RECORD}"):
            # `read` completes the login if its process has died.
            return UNKNOWN
        try:
            version = read_version(f"{folder}{stem}{TOKENS}")
        except OSError:
            return UNKNOWN
        return None if version is None else version.encode()

    def _file_version(self, key: CredentialKey) -> FileVersion | None:
        """Return the version of the tokens file, None if it is missing or blank. Raises StoreUnwritable.

        Recovers a half-stored login of a killed process first.
        """
        folder, stem = self._folders_of(key.owner)[2], file_stem(key.server_name)
        if os.path.lexists(f"{folder}.{stem}{COMMIT_RECORD}"):
            self.complete_login(key)
        path = f"{folder}{stem}{TOKENS}"
        try:
            return read_version(path)
        except OSError as error:
            raise StoreUnwritable(f"{path} cannot be read: {error.strerror}.", advice_for(error)) from error

    def _version(self, key: CredentialKey) -> Version | None:
        version = self._file_version(key)
        return None if version is None else version.encode()

    def _check_version(self, key: CredentialKey, expect: ExpectedVersion) -> None:
        """Raise StoreConflict if the stored tokens do not have the version `expect`."""
        if expect is not ANY and self._version(key) != expect:
            raise StoreConflict(
                f"Another program has stored other tokens of {key.server_name} in the meantime.",
                found=self.read(key),
            )

    def try_lease(self, name: LeaseName) -> Lease | None:
        """Take a lease at once; None if another thread or process holds it. Raises StoreError."""
        if isinstance(name, Poller):
            return self.logins.try_poller_lease(name.poller_id)
        lock = self.lock(name)
        return lock if lock.try_acquire() else None

    def is_leased(self, name: LeaseName) -> bool:
        """True if a thread or process holds the lease. Raises StoreError."""
        if isinstance(name, Poller):
            return self.logins.is_poller_alive(name.poller_id)
        lock = self.lock(name)
        is_free = lock.try_acquire()
        lock.release()
        return not is_free

    def lock(self, key: CredentialKey) -> FileLock:
        """Return a new lock on `<stem>.json.refresh.lock`, which later versions of Hermes use too."""
        self._prepare_folders(key)
        return self._make_lock(key)

    def _make_lock(self, key: CredentialKey) -> FileLock:
        record = self._path(key, COMMIT_RECORD)
        return RecoveringLock(self._path(key, LOCK), lambda: recover_commit(record, self.logins))

    def _folders(self, key: CredentialKey) -> tuple[str, ...]:
        """Return the folders of a key, from the outside in."""
        return self._folders_of(key.owner)[1]

    def _folders_of(self, owner: Owner) -> tuple[Owner, tuple[str, ...], str]:
        # A read calls this ten times, and creating a Path costs more than opening a file.
        last = self._last_folders
        if last is None or last[0] != owner:
            root = str(self.root)
            folders: tuple[str, ...] = (root,)
            if owner is not None:
                owners = f"{root}{os.sep}{OWNERS_FOLDER}"
                folders = (root, owners, f"{owners}{os.sep}{owner_folder(owner)}")
            last = self._last_folders = (owner, folders, f"{folders[-1]}{os.sep}")
        return last

    def _file(self, key: CredentialKey, suffix: str) -> str:
        dot = "." if suffix == COMMIT_RECORD else ""
        return f"{self._folders_of(key.owner)[2]}{dot}{file_stem(key.server_name)}{suffix}"

    def _prefix(self, key: CredentialKey) -> str:
        return f"{self._folders_of(key.owner)[2]}{file_stem(key.server_name)}"

    def _path(self, key: CredentialKey, suffix: str) -> Path:
        return Path(self._file(key, suffix))

    def _has_folders(self, key: CredentialKey) -> bool:
        return all(has_directory(folder) for folder in self._folders(key))

    def _prepare_folders(self, key: CredentialKey) -> None:
        for folder in self._folders(key):
            ensure_private_directory(folder)
        self._refuse_other_server(key)

    def _refuse_other_server(self, key: CredentialKey) -> None:
        try:
            document = read_document(self._file(key, BINDING)) or {}
        except StoreError:
            # Continue: the next write replaces an unreadable binding, and does not follow a link.
            return
        server_name = document.get("server")
        if isinstance(server_name, str):
            self._check_server_name(key, server_name)

    def _check_server_name(self, key: CredentialKey, stored_server_name: str) -> None:
        if stored_server_name != key.server_name:
            raise StoreUnsafe(
                f"{self._path(key, BINDING)} belongs to another server, whose name gives the same file name.",
                "Rename one of the two servers in config.yaml; Hermes would confuse them as well.",
            )

    def _encode_documents(
        self, key: CredentialKey, documents: Mapping[str, Document | None]
    ) -> dict[str, bytes | None]:
        """Return file contents by file name; raises StoreUnwritable if one is too large."""
        return {
            self._path(key, suffix).name: None if document is None else encode_document(document)
            for suffix, document in documents.items()
        }

    def _write_documents(self, key: CredentialKey, documents: Mapping[str, Document | None]) -> None:
        """Write documents by suffix, in order; None removes a file. Write nothing if one is too large."""
        for name, data in self._encode_documents(key, documents).items():
            if data is None:
                remove_or_blank(self._folders_of(key.owner)[2] + name)
            else:
                self._write_file(key, name, data)

    def _write_file(self, key: CredentialKey, name: str, data: bytes) -> FileVersion:
        try:
            return FileVersion.of(write_private(self._folders_of(key.owner)[2] + name, data))
        except NotReplaceable:
            # The file must be written in place. A commit keeps a copy in case of a crash.
            return self._commit_files(key, {name: data})
