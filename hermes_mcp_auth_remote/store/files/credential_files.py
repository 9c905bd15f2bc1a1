"""The store in Hermes's own files, `HERMES_HOME/mcp-tokens/<stem>.*`, so that Hermes and we share a login.

Tokens are written last: Hermes watches that file alone, and a process that sees new tokens finds all that
belongs to them. Each file is replaced as a whole, and a login's files together (`commit`): if the process
that stores them is killed, the next read by any process of this program completes or takes back what it began
(`settling`). Until then, and for a reader that meets the login while it is stored, the binding, which is
written first, says of which tokens it speaks and what holds for those before: no refresh token is used beside
another issuer's metadata.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from hermes_mcp_auth_remote.errors import StoreError, StoreUnsafe, StoreUnwritable
from hermes_mcp_auth_remote.hermes_home import file_stem
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.wire import Document
from hermes_mcp_auth_remote.store.codec import (
    binding_document,
    bound,
    client_document,
    from_bytes,
    is_of_tokens,
    metadata_document,
    read_binding,
    read_client,
    read_metadata,
    read_tokens,
    to_bytes,
    tokens_document,
    with_config_files,
)
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials, agreed, binding_of
from hermes_mcp_auth_remote.store.files.commit import begin, read_record
from hermes_mcp_auth_remote.store.files.commit_record import BLANK, is_blank, remove_or_blank
from hermes_mcp_auth_remote.store.files.commit_recovery import SettlingLock, finish_commit, settle_files
from hermes_mcp_auth_remote.store.files.lock import FileLock
from hermes_mcp_auth_remote.store.files.login_files import LoginFiles
from hermes_mcp_auth_remote.store.files.paths import (
    BINDING,
    CLIENT,
    CLIENT_BACKUP,
    LOCK,
    METADATA,
    NO_METADATA_DOCUMENT,
    OWNERS,
    PENDING,
    PROOF_KEY,
    REFRESH_FAILURE,
    TOKENS,
    owner_folder,
    owner_of,
)
from hermes_mcp_auth_remote.store.files.private_files import (
    NotReplaceable,
    check_writable,
    has_directory,
    private_directory,
    read_private,
    sweep,
    write_private,
)
from hermes_mcp_auth_remote.store.files.refresh_failure_files import RefreshFailures
from hermes_mcp_auth_remote.values import Key, Owner, Secret

Version = tuple[int, int, int]

# A reader that meets a writer each time gives up on a consistent picture after this many.
_READ_TRIES = 50
# Older than any write that is still under way.
_STALE_SECONDS = 3600


class FileStore:
    """Credentials and pending logins below a HERMES_HOME. Synchronous; any thread or process may use it.

    Single files are replaced atomically. Who reads, refreshes and writes takes `lock(key)` around it.
    """

    def __init__(self, home: Path) -> None:
        self.root = Path(home) / "mcp-tokens"
        self.logins = LoginFiles(self.root)
        self.refresh_failures = RefreshFailures(lambda key: self._path(key, REFRESH_FAILURE))

    def read(self, key: Key) -> Credentials:
        """Read what is stored, empty where nothing is; raises StoreCorrupt, StoreUnsafe, StoreUnwritable.

        `tokens.account` and `.refresh_expires_at` come from the binding.
        """
        credentials = Credentials()
        for _ in range(_READ_TRIES):
            version = self.version(key)
            credentials = self._read(key, version)
            if self.version(key) == version:
                break
        return credentials

    def _read(self, key: Key, version: Version | None) -> Credentials:
        if not self._is_there(key):
            return Credentials()
        tokens = self._tokens(key, version)
        # Against the order of writing: what is read next is never older than what was read before.
        server = self._metadata(key)
        client = self._client(key)
        proof_key = self._proof_key(key) if tokens is not None and tokens.scheme == "DPoP" else None
        path = self._path(key, BINDING)
        if (document := self._document(path)) is None:
            return Credentials(tokens, client, server, proof_key=proof_key)
        binding = read_binding(document := bound(document, tokens), tokens, str(path))
        self._check_server(key, binding.server)
        found = Credentials(tokens, client, server, binding, proof_key)
        return agreed(found, is_of_tokens=tokens is not None and is_of_tokens(document, tokens))

    def replace(self, key: Key, credentials: Credentials, login_id: str | None = None) -> None:
        """Store a new login's credentials, all or none; raises StoreUnwritable, StoreUnsafe.

        A client, metadata or binding of None is removed: an old one would speak of other tokens. Tokens of
        None leave the tokens file as it is: only new ones ever take the place of old ones. The caller holds
        `lock(key)`. The login of `login_id` succeeds if another process has to complete the work.
        """
        self._prepare(key)
        with suppress(StoreError):
            settle_files(self._path(key, PENDING), self.logins)
        client, server = credentials.client, credentials.authorization_server
        binding, tokens = credentials.binding, credentials.tokens
        speaks_of = tokens if tokens is not None else self._tokens(key, self.version(key))
        before = None if binding is None or tokens is None else self._before(key, binding, tokens)
        documents: dict[str, Document | None] = {
            BINDING: None if binding is None else binding_document(binding, speaks_of, before),
            CLIENT: None if client is None else client_document(client),
            METADATA: None if server is None else metadata_document(server),
        }
        if tokens is None:
            self._put(key, documents)
            return
        proof = credentials.proof_key
        documents[PROOF_KEY] = None if proof is None else json.loads(proof.reveal())
        documents[TOKENS] = tokens_document(tokens)
        self._commit(key, self._contents(key, documents), login_id)
        written_at = self._path(key, TOKENS).stat().st_mtime
        sweep(str(self._path(key, "")), written_at - _STALE_SECONDS)

    def _commit(self, key: Key, contents: Mapping[str, bytes | None], login_id: str | None = None) -> None:
        """Replace files together; if the disk refuses one of them, take back the others."""
        commit = begin(self._path(key, PENDING), contents, login_id)
        try:
            commit = commit.complete()
        except StoreError:
            with suppress(StoreError):
                commit = read_record(commit.record) or commit
                commit.take_back()
                commit.end()
            raise
        finish_commit(commit)

    def _before(self, key: Key, binding: Binding, tokens: Tokens) -> Document | None:
        """Return the binding of the tokens that are stored, None where there are none or the same."""
        try:
            found = self.read(key)
        except StoreError:
            try:
                found = Credentials(self._tokens(key, self.version(key)))
            except StoreError:
                # What cannot be read reaches nobody.
                return None
        if found.tokens is None or found.tokens.access_token == tokens.access_token:
            return None
        return binding_document(binding_of(found, key.server, binding.server_url), found.tokens)

    def replace_tokens(self, key: Key, tokens: Tokens, binding: Binding | None) -> None:
        """Store refreshed tokens; a binding of None leaves the stored one. Raises StoreUnwritable."""
        self._prepare(key)
        document = tokens_document(tokens)
        # Tokens that are too large are refused before anything is written.
        self._contents(key, {TOKENS: document})
        if binding is not None:
            # The refresh token counts: a binding of the tokens before is as if Hermes had refreshed.
            with suppress(StoreUnwritable):
                self._put(key, {BINDING: binding_document(binding, tokens)})
        self._put(key, {TOKENS: document})

    def check_can_store(self, key: Key) -> None:
        """Raise StoreUnwritable if new tokens certainly could not be stored, such as on a read-only mount."""
        check_writable(self._path(key, TOKENS))

    def settle(self, key: Key) -> None:
        """Complete or take back what a killed process left of a login; not while the lock is held."""
        record = self._path(key, PENDING)
        if not os.path.lexists(record):
            return
        with suppress(StoreError):
            if self._is_there(key):
                lock = self._new_lock(key)
                lock.try_acquire()
                lock.release()

    def is_being_stored(self, key: Key, login_id: str) -> bool:
        """True if what a login brought is stored half-way, and `settle` could not complete it."""
        try:
            record = read_record(self._path(key, PENDING))
        except StoreError:
            return False
        return record is not None and record.login_id == login_id

    def mark(self, key: Key, binding: Binding) -> None:
        """Store a binding alone, such as one that says why a login is needed. Raises StoreUnwritable."""
        self._prepare(key)
        self._put(key, {BINDING: binding_document(binding, self._tokens(key, self.version(key)))})

    def note_config(self, key: Key, server_url: str, config_files: str) -> None:
        """Note in the binding which config.yaml and .env give the server this address. Under `lock(key)`.

        Does nothing if the binding is of another address. Raises StoreUnwritable, StoreUnsafe, StoreCorrupt.
        """
        document = self._document(self._path(key, BINDING)) or {}
        noted = with_config_files(document, server_url, config_files)
        if noted is not None:
            self._put(key, {BINDING: noted})

    def drop_client(self, key: Key, client: Client) -> None:
        """Forget a client that the provider no longer takes, so that the next login registers anew.

        Another client by now is left alone. For a client ID metadata document the refusal is noted, as later
        versions of Hermes do. Raises StoreUnwritable.
        """
        self._prepare(key)
        if not client.registered and client.client_id.startswith("https://"):
            write_private(self._path(key, NO_METADATA_DOCUMENT), b"")
        stored = self._client(key)
        if stored is not None and stored.client_id == client.client_id:
            remove_or_blank(self._path(key, CLIENT))

    def is_metadata_document_refused(self, key: Key) -> bool:
        """True where the provider turned our client ID metadata document away, until `delete`."""
        return self._is_there(key) and os.path.lexists(self._path(key, NO_METADATA_DOCUMENT))

    def delete(self, key: Key) -> bool:
        """Remove all but the lock file; True where something was. Raises StoreUnwritable, StoreUnsafe."""
        if not self._is_there(key):
            return False
        self._refuse_other_server(key)
        # The record of tokens to come and tokens first: a crash half-way must not keep them.
        parts = PENDING, TOKENS, PROOF_KEY, BINDING, CLIENT, METADATA, CLIENT_BACKUP, NO_METADATA_DOCUMENT
        removed = [remove_or_blank(self._path(key, suffix)) for suffix in (*parts, REFRESH_FAILURE)]
        sweep(str(self._path(key, "")), None)
        return any(removed)

    def keys(self) -> list[Key]:
        """List every server and owner with stored tokens; a name without a binding is its file's stem."""
        found = [*self._keys_in(self.root, None)]
        owners = self.root / OWNERS
        if has_directory(self.root) and has_directory(owners):
            for folder in sorted(owners.iterdir()):
                owner = owner_of(folder.name)
                if owner is not None:
                    found += self._keys_in(folder, owner)
        return found

    def _keys_in(self, folder: Path, owner: Owner) -> Iterator[Key]:
        if not has_directory(folder):
            return
        for path in folder.glob(f".*{PENDING}"):
            self.settle(Key(path.name[1 : -len(PENDING)], owner))
        for path in sorted(folder.iterdir()):
            stem, dot, rest = path.name.partition(".")
            if dot + rest != TOKENS or not stem or is_blank(path):
                continue
            key = Key(stem, owner)
            try:
                document = self._document(folder / f"{stem}{BINDING}")
            except StoreError:
                document = None
            server = (document or {}).get("server")
            known = isinstance(server, str) and file_stem(server) == stem
            yield Key(server, owner) if known and isinstance(server, str) else key

    def version(self, key: Key) -> Version | None:
        """Return (mtime_ns, size, inode) of the tokens file, None without one. Two stats, to notice others.

        A login that a killed process left half-way is completed first.
        """
        # Strings: a Path for each costs more than the two stats, and this is called once a second.
        folder, stem = f"{self._folders(key)[-1]}{os.sep}", file_stem(key.server)
        if os.path.lexists(f"{folder}.{stem}{PENDING}"):
            self.settle(key)
        path = f"{folder}{stem}{TOKENS}"
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreUnwritable(f"{path} is out of reach: {error.strerror}.") from error
        return status.st_mtime_ns, status.st_size, status.st_ino

    def lock(self, key: Key) -> FileLock:
        """Return a new lock on `<stem>.json.refresh.lock`, which later versions of Hermes lock too."""
        self._prepare(key)
        return self._new_lock(key)

    def _new_lock(self, key: Key) -> FileLock:
        record = self._path(key, PENDING)
        return SettlingLock(self._path(key, LOCK), lambda: settle_files(record, self.logins))

    def _folders(self, key: Key) -> tuple[Path, ...]:
        if key.owner is None:
            return (self.root,)
        owners = self.root / OWNERS
        return self.root, owners, owners / owner_folder(key.owner)

    def _path(self, key: Key, suffix: str) -> Path:
        dot = "." if suffix == PENDING else ""
        return self._folders(key)[-1] / f"{dot}{file_stem(key.server)}{suffix}"

    def _is_there(self, key: Key) -> bool:
        return all(has_directory(folder) for folder in self._folders(key))

    def _prepare(self, key: Key) -> None:
        for folder in self._folders(key):
            private_directory(folder)
        self._refuse_other_server(key)

    def _refuse_other_server(self, key: Key) -> None:
        try:
            document = self._document(self._path(key, BINDING)) or {}
        except StoreError:
            # Whatever it is, a new file takes its place; a link is not followed.
            return
        server = document.get("server")
        if isinstance(server, str):
            self._check_server(key, server)

    def _check_server(self, key: Key, server: str) -> None:
        if server != key.server:
            raise StoreUnsafe(
                f"{self._path(key, BINDING)} is of another server, whose name gives the same file name.",
                "Rename one of the two servers in config.yaml; Hermes would mix them up as well.",
            )

    def _document(self, path: Path) -> Document | None:
        data = read_private(path)
        return None if data is None or data == BLANK else from_bytes(data, str(path))

    def _tokens(self, key: Key, version: Version | None) -> Tokens | None:
        path = self._path(key, TOKENS)
        if (document := self._document(path)) is None:
            return None
        return read_tokens(document, 0.0 if version is None else version[0] / 1e9, str(path))

    def _client(self, key: Key) -> Client | None:
        path = self._path(key, CLIENT)
        document = self._document(path)
        return None if document is None else read_client(document, str(path))

    def _proof_key(self, key: Key) -> Secret | None:
        document = self._document(self._path(key, PROOF_KEY))
        return None if document is None else Secret(json.dumps(document))

    def _metadata(self, key: Key) -> AuthorizationServer | None:
        path = self._path(key, METADATA)
        document = self._document(path)
        return None if document is None else read_metadata(document, str(path))

    def _contents(self, key: Key, documents: Mapping[str, Document | None]) -> dict[str, bytes | None]:
        """Return files' contents by their names; raises StoreUnwritable if one is too large."""
        return {
            self._path(key, suffix).name: None if document is None else to_bytes(document)
            for suffix, document in documents.items()
        }

    def _put(self, key: Key, documents: Mapping[str, Document | None]) -> None:
        """Write files by their suffix in this order, None removes; nothing is written if one is too large."""
        contents, folder = self._contents(key, documents), self._folders(key)[-1]
        for name in list(contents):
            data = contents[name]
            if data is None:
                remove_or_blank(folder / name)
            else:
                try:
                    write_private(folder / name, data)
                except NotReplaceable:
                    # To be written in place, which needs a copy: a crash must not leave half a file.
                    self._commit(key, {name: data})
