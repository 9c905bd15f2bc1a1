"""A store in SQLite, as strict as a database that several machines share.

- Each write gives a new random version, so versions compare by equality only.
- `change` runs its function twice: the first result is thrown away, as after a conflict.
- A lease is a row with an end; it does not end with the process of its holder.
- The clock is the database's own.
- No file of HERMES_HOME exists, and each call opens a connection of its own, so a fork shares none.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from hermes_mcp_auth_remote.errors import LoginError, LoginNotFound, StoreCorrupt, StoreError
from hermes_mcp_auth_remote.login import Login, apply_event
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.token_refusal import TokenRefusal
from hermes_mcp_auth_remote.oauth.wire import Document
from hermes_mcp_auth_remote.store.codec import (
    binding_document,
    client_document,
    matches_tokens,
    metadata_document,
    read_binding,
    read_client,
    read_metadata,
    read_tokens,
    tokens_document,
    with_config_files,
)
from hermes_mcp_auth_remote.store.connection import due_session
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials, reconcile
from hermes_mcp_auth_remote.store.login_codec import login_document, read_login, without_secrets
from hermes_mcp_auth_remote.store.protocol import (
    ANY,
    PAGE_SIZE,
    UNKNOWN,
    AnyValue,
    DueSession,
    ExpectedVersion,
    Lease,
    LeaseName,
    LoginChange,
    Notice,
    Person,
    StoreConflict,
    Stored,
    StoredSession,
    Summary,
    Unknown,
    Version,
)
from hermes_mcp_auth_remote.store.record_codec import (
    notices_document,
    people_document,
    read_notices,
    read_people,
    read_refresh_failure,
    read_token_refusal,
    refresh_failure_document,
    token_refusal_document,
)
from hermes_mcp_auth_remote.values import Clock, CredentialKey, Owner, Secret

T = TypeVar("T")

NOW = 1_800_000_000.0
LEASE_SECONDS = 30.0
LABEL = "the row"
RETENTION_SECONDS = 3600

SCHEMA = """
CREATE TABLE IF NOT EXISTS credentials (
  server TEXT, owner TEXT, version TEXT, written_at REAL, document TEXT, remind_at REAL,
  is_cimd_disabled INTEGER DEFAULT 0, has_tokens INTEGER, PRIMARY KEY (server, owner));
CREATE TABLE IF NOT EXISTS records (kind TEXT, server TEXT, owner TEXT, document TEXT,
  PRIMARY KEY (kind, server, owner));
CREATE TABLE IF NOT EXISTS logins (id TEXT PRIMARY KEY, version TEXT, document TEXT);
CREATE TABLE IF NOT EXISTS lists (name TEXT PRIMARY KEY, version TEXT, document TEXT);
CREATE TABLE IF NOT EXISTS leases (name TEXT PRIMARY KEY, holder TEXT, ends_at REAL, sent_at REAL);
"""


class Database:
    """Opens connections. Reads never wait for a writer (write-ahead log)."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with self.connection() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(SCHEMA)

    @contextmanager
    def connection(self) -> Generator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=20, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        with self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def new_version() -> Version:
    return Version(secrets.token_hex(8))


def key_values(key: CredentialKey) -> tuple[str, str]:
    """Return the columns of a key as JSON: SQL does not compare NULL, and takes no lone surrogates."""
    return json.dumps(key.server_name), json.dumps(key.owner)


def key_of(server: str, owner: str) -> CredentialKey:
    return CredentialKey(json.loads(server), json.loads(owner))


class SqliteStore:
    """A `store.protocol.Store`. `knows_changes` False: a database without a feed of changes."""

    lease_retry_seconds = 0.05
    uses_system_clock = False

    def __init__(self, path: Path, *, clock: Clock | None = None, knows_changes: bool = True) -> None:
        self._database = Database(path)
        self._clock = clock
        self._knows_changes = knows_changes
        self.logins = SqliteLogins(self._database, knows_changes=knows_changes)
        self.refresh_failures = SqliteRecords[RefreshFailure](
            self._database, "refresh failure", refresh_failure_document, read_refresh_failure, self._index
        )
        self.token_refusals = SqliteRecords[TokenRefusal](
            self._database, "token refusal", token_refusal_document, read_token_refusal, self._index
        )
        self.notices = SqliteNotices(SqliteList[Notice](self._database, notices_document, read_notices))
        self.people = SqlitePeople(SqliteList[Person](self._database, people_document, read_people))

    def now(self) -> float:
        return NOW if self._clock is None else self._clock()

    def glance(self, key: CredentialKey) -> Version | Unknown | None:
        return self._read_version(key) if self._knows_changes else UNKNOWN

    def _read_version(self, key: CredentialKey) -> Version | None:
        with self._database.connection() as connection:
            row = connection.execute(
                "SELECT version FROM credentials WHERE server=? AND owner=? AND has_tokens", key_values(key)
            ).fetchone()
        return None if row is None else Version(row[0])

    def read(self, key: CredentialKey) -> Stored:
        with self._database.connection() as connection:
            return self._read_in(connection, key)

    def _read_in(self, connection: sqlite3.Connection, key: CredentialKey) -> Stored:
        row = connection.execute(
            "SELECT version, written_at, document, has_tokens FROM credentials WHERE server=? AND owner=?",
            key_values(key),
        ).fetchone()
        if row is None:
            return Stored(Credentials(), None)
        credentials = _decode_credentials(json.loads(row[2]), row[1])
        return Stored(credentials, Version(row[0]) if row[3] else None)

    def _write_in(
        self,
        connection: sqlite3.Connection,
        key: CredentialKey,
        credentials: Credentials,
        binding: Document | None,
    ) -> Version | None:
        """Write a row with this document of the binding; return its version, None without tokens."""
        document = {
            "tokens": None if credentials.tokens is None else tokens_document(credentials.tokens),
            "client": None if credentials.client is None else client_document(credentials.client),
            "metadata": (
                None
                if credentials.authorization_server is None
                else metadata_document(credentials.authorization_server)
            ),
            "binding": binding,
            "proof_key": None if credentials.proof_key is None else credentials.proof_key.reveal(),
        }
        version = new_version()
        connection.execute(
            "INSERT INTO credentials (server, owner, version, written_at, document, has_tokens)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET version=excluded.version,"
            " written_at=excluded.written_at, document=excluded.document, has_tokens=excluded.has_tokens",
            (
                *key_values(key),
                version,
                self.now(),
                json.dumps(document),
                credentials.tokens is not None,
            ),
        )
        self._index(connection, key)
        return version if credentials.tokens is not None else None

    def _index(self, connection: sqlite3.Connection, key: CredentialKey) -> None:
        """Store when the user of a session must act."""
        stored = self._read_in(connection, key)
        tokens = stored.credentials.tokens
        failure = None if tokens is None else self.refresh_failures.read_in(connection, key, tokens)
        session = due_session(key, stored, failure)
        connection.execute(
            "UPDATE credentials SET remind_at=? WHERE server=? AND owner=?",
            (None if session is None else session.remind_at, *key_values(key)),
        )

    def _check_version(
        self, connection: sqlite3.Connection, key: CredentialKey, expect: ExpectedVersion
    ) -> Stored:
        stored = self._read_in(connection, key)
        if expect is not ANY and stored.version != expect:
            raise StoreConflict("Another worker has stored other tokens.", found=stored)
        return stored

    def _binding_document(self, connection: sqlite3.Connection, key: CredentialKey) -> Document | None:
        row = connection.execute(
            "SELECT document FROM credentials WHERE server=? AND owner=?", key_values(key)
        ).fetchone()
        return None if row is None else json.loads(row[0])["binding"]

    def save_login(
        self,
        key: CredentialKey,
        credentials: Credentials,
        login_id: str | None = None,
        *,
        expect: ExpectedVersion = ANY,
    ) -> Version | None:
        with self._database.transaction() as connection:
            stored = self._check_version(connection, key, expect)
            tokens = credentials.tokens or stored.credentials.tokens
            proof_key = credentials.proof_key if credentials.tokens else stored.credentials.proof_key
            binding = credentials.binding
            version = self._write_in(
                connection,
                key,
                Credentials(tokens, credentials.client, credentials.authorization_server, None, proof_key),
                None if binding is None else binding_document(binding, tokens),
            )
            if credentials.tokens is not None:
                _forget_request(connection, key)
            if login_id is not None:
                self.logins.finish_in(connection, login_id)
        return version

    def save_tokens(
        self, key: CredentialKey, tokens: Tokens, binding: Binding | None, *, expect: ExpectedVersion = ANY
    ) -> Version:
        with self._database.transaction() as connection:
            stored = self._check_version(connection, key, expect).credentials
            document = (
                self._binding_document(connection, key)
                if binding is None
                else binding_document(binding, tokens)
            )
            version = self._write_in(
                connection,
                key,
                Credentials(tokens, stored.client, stored.authorization_server, None, stored.proof_key),
                document,
            )
            _forget_request(connection, key)
        assert version is not None
        return version

    def save_binding(
        self, key: CredentialKey, binding: Binding, *, expect: ExpectedVersion = ANY
    ) -> Version | None:
        with self._database.transaction() as connection:
            stored = self._check_version(connection, key, expect).credentials
            return self._write_in(connection, key, stored, binding_document(binding, stored.tokens))

    def save_config_identity(self, key: CredentialKey, server_url: str, config_files: str) -> None:
        with self._database.transaction() as connection:
            document = self._binding_document(connection, key)
            updated = None if document is None else with_config_files(document, server_url, config_files)
            if updated is not None:
                self._write_in(connection, key, self._read_in(connection, key).credentials, updated)

    def drop_client(
        self, key: CredentialKey, client: Client, *, expect: ExpectedVersion = ANY
    ) -> Version | None:
        with self._database.transaction() as connection:
            stored = self._check_version(connection, key, expect)
            credentials = stored.credentials
            if credentials.client is None or credentials.client.client_id != client.client_id:
                version = stored.version
            else:
                without_client = Credentials(
                    credentials.tokens,
                    None,
                    credentials.authorization_server,
                    None,
                    credentials.proof_key,
                )
                document = self._binding_document(connection, key)
                version = self._write_in(connection, key, without_client, document)
            if not client.is_registered and client.client_id.startswith("https://"):
                connection.execute(
                    "INSERT INTO credentials (server, owner, version, written_at, document, has_tokens)"
                    " VALUES (?, ?, ?, ?, ?, 0) ON CONFLICT DO NOTHING",
                    (*key_values(key), new_version(), self.now(), json.dumps(_NO_CREDENTIALS)),
                )
                connection.execute(
                    "UPDATE credentials SET is_cimd_disabled=1 WHERE server=? AND owner=?", key_values(key)
                )
        return version

    def is_cimd_disabled(self, key: CredentialKey) -> bool:
        with self._database.connection() as connection:
            row = connection.execute(
                "SELECT is_cimd_disabled FROM credentials WHERE server=? AND owner=?", key_values(key)
            ).fetchone()
        return row is not None and bool(row[0])

    def check_can_store(self, key: CredentialKey) -> None:
        pass

    def recover_login(self, key: CredentialKey, login_id: str) -> bool:
        # A transaction is never half done.
        return False

    def delete(self, key: CredentialKey) -> bool:
        with self._database.transaction() as connection:
            values = key_values(key)
            connection.execute("DELETE FROM records WHERE server=? AND owner=?", values)
            count = connection.execute("DELETE FROM credentials WHERE server=? AND owner=?", values).rowcount
        return count > 0

    def list_summaries(
        self, owner: Owner | AnyValue = ANY, after: CredentialKey | None = None, limit: int = PAGE_SIZE
    ) -> list[Summary]:
        query, values = "SELECT server, owner, version FROM credentials WHERE has_tokens", list[object]()
        if owner is not ANY:
            query, values = f"{query} AND owner=?", [json.dumps(owner)]
        if after is not None:
            query, values = f"{query} AND (owner, server) > (?, ?)", [*values, *reversed(key_values(after))]
        with self._database.connection() as connection:
            rows = connection.execute(f"{query} ORDER BY owner, server LIMIT ?", (*values, limit)).fetchall()
        return [Summary(key_of(row[0], row[1]), Version(row[2])) for row in rows]

    def iterate_sessions(self, owner: Owner | AnyValue = ANY) -> Iterator[StoredSession]:
        last_key: CredentialKey | None = None
        while page := self.list_summaries(owner, last_key):
            yield from map(self._read_session, page)
            last_key = page[-1].key

    def _read_session(self, summary: Summary) -> StoredSession:
        try:
            stored = self.read(summary.key)
        except StoreError as error:
            return StoredSession(summary.key, Stored(Credentials(), summary.version), error=error)
        tokens = stored.credentials.tokens
        if tokens is None:
            return StoredSession(summary.key, stored)
        failures, refusals = self.refresh_failures, self.token_refusals
        return StoredSession(
            summary.key,
            stored,
            failures.read(summary.key, tokens),
            refusals.read(summary.key, tokens),
        )

    def list_due(
        self, now: float, after: DueSession | None = None, limit: int = PAGE_SIZE
    ) -> list[DueSession]:
        query, values = "WHERE has_tokens AND remind_at <= ?", [now]
        position: tuple[object, ...] = ()
        if after is not None:
            query = f"{query} AND (remind_at, server, owner) > (?, ?, ?)"
            position = (after.remind_at, *key_values(after.key))
        with self._database.connection() as connection:
            rows = connection.execute(
                f"SELECT server, owner, version, remind_at FROM credentials {query}"
                " ORDER BY remind_at, server, owner LIMIT ?",
                (*values, *position, limit),
            ).fetchall()
        return [DueSession(key_of(row[0], row[1]), Version(row[2]), row[3]) for row in rows]

    def try_lease(self, name: LeaseName) -> Lease | None:
        row_name, holder, now = _lease_row_name(name), new_version(), self.now()
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT ends_at, sent_at FROM leases WHERE name=?", (row_name,)
            ).fetchone()
            if row is not None and row[0] > now:
                return None
            sent_at = None if row is None else row[1]
            connection.execute(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)",
                (row_name, holder, now + LEASE_SECONDS, sent_at),
            )
        return SqliteLease(self._database, row_name, holder, sent_at, self.now)

    def is_leased(self, name: LeaseName) -> bool:
        with self._database.connection() as connection:
            row = connection.execute(
                "SELECT ends_at FROM leases WHERE name=?", (_lease_row_name(name),)
            ).fetchone()
        return row is not None and row[0] > self.now()


_NO_CREDENTIALS = {"tokens": None, "client": None, "metadata": None, "binding": None, "proof_key": None}


def _decode_credentials(document: dict[str, Any], written_at: float) -> Credentials:
    tokens = None if document["tokens"] is None else read_tokens(document["tokens"], written_at, LABEL)
    credentials = Credentials(
        tokens,
        None if document["client"] is None else read_client(document["client"], LABEL),
        None if document["metadata"] is None else read_metadata(document["metadata"], LABEL),
        None if document["binding"] is None else read_binding(document["binding"], tokens, LABEL),
        None if document["proof_key"] is None else Secret(document["proof_key"]),
    )
    binding = document["binding"] or {}
    return reconcile(credentials, lambda: tokens is not None and matches_tokens(binding, tokens))


def _forget_request(connection: sqlite3.Connection, key: CredentialKey) -> None:
    """Remove the mark of a request: the stored tokens are its result, or replace the tokens that it spent."""
    connection.execute("UPDATE leases SET sent_at=NULL WHERE name=?", (_lease_row_name(key),))


def _lease_row_name(name: LeaseName) -> str:
    return json.dumps(key_values(name)) if isinstance(name, CredentialKey) else name.poller_id


@dataclass
class SqliteLease:
    database: Database
    name: str
    holder: str
    request_sent_at: float | None
    clock: Clock
    has_sent: bool = False

    def record_request(self) -> None:
        self.has_sent = True
        with self.database.transaction() as connection:
            connection.execute(
                "UPDATE leases SET sent_at=? WHERE name=? AND holder=?",
                (self.clock(), self.name, self.holder),
            )

    def release(self) -> None:
        with self.database.transaction() as connection:
            # Only the holder that sent a request knows what came of it.
            connection.execute(
                "UPDATE leases SET ends_at=0, sent_at=CASE WHEN ? THEN NULL ELSE sent_at END"
                " WHERE name=? AND holder=?",
                (self.has_sent, self.name, self.holder),
            )


class SqliteRecords(Generic[T]):
    """One record for each session's tokens."""

    def __init__(
        self,
        database: Database,
        kind: str,
        encode: Callable[[Tokens, T], Document],
        decode: Callable[[Document, Tokens, str], T | None],
        index: Callable[[sqlite3.Connection, CredentialKey], None],
    ) -> None:
        self._database, self._kind, self._encode, self._decode = database, kind, encode, decode
        self._index = index

    def read(self, key: CredentialKey, tokens: Tokens) -> T | None:
        with self._database.connection() as connection:
            return self.read_in(connection, key, tokens)

    def read_in(self, connection: sqlite3.Connection, key: CredentialKey, tokens: Tokens) -> T | None:
        row = connection.execute(
            "SELECT document FROM records WHERE kind=? AND server=? AND owner=?",
            (self._kind, *key_values(key)),
        ).fetchone()
        return None if row is None else self._decode(json.loads(row[0]), tokens, LABEL)

    def write(self, key: CredentialKey, tokens: Tokens, record: T) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)",
                (self._kind, *key_values(key), json.dumps(self._encode(tokens, record))),
            )
            self._index(connection, key)

    def clear(self, key: CredentialKey) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "DELETE FROM records WHERE kind=? AND server=? AND owner=?", (self._kind, *key_values(key))
            )
            self._index(connection, key)


class SqliteLogins:
    def __init__(self, database: Database, *, knows_changes: bool) -> None:
        self._database = database
        self._knows_changes = knows_changes

    def add(self, login: Login) -> Version:
        version = new_version()
        with self._database.transaction() as connection:
            self._write_in(connection, login, version)
        return version

    def _write_in(self, connection: sqlite3.Connection, login: Login, version: Version) -> None:
        stored = without_secrets(login) if login.is_over else login
        connection.execute(
            "INSERT OR REPLACE INTO logins VALUES (?, ?, ?)",
            (json.dumps(login.id), version, json.dumps(login_document(stored))),
        )

    def get(self, login_id: str) -> Login:
        with self._database.connection() as connection:
            return self._get_in(connection, login_id)[0]

    def _get_in(self, connection: sqlite3.Connection, login_id: str) -> tuple[Login, Version]:
        row = connection.execute(
            "SELECT document, version FROM logins WHERE id=?", (json.dumps(login_id),)
        ).fetchone()
        if row is None:
            raise LoginNotFound("There is no such login here; it may have ended long ago.")
        return read_login(json.loads(row[0]), LABEL), Version(row[1])

    def glance(self, login_id: str) -> Version | Unknown | None:
        if not self._knows_changes:
            return UNKNOWN
        with self._database.connection() as connection:
            row = connection.execute(
                "SELECT version FROM logins WHERE id=?", (json.dumps(login_id),)
            ).fetchone()
        return None if row is None else Version(row[0])

    def glance_all(self) -> Version | Unknown:
        if not self._knows_changes:
            return UNKNOWN
        with self._database.connection() as connection:
            rows = connection.execute("SELECT version FROM logins ORDER BY id").fetchall()
        return Version(" ".join(row[0] for row in rows))

    def change(self, login_id: str, apply_change: Callable[[Login], Login]) -> LoginChange:
        apply_change(self.get(login_id))
        while True:
            with self._database.connection() as connection:
                before, version = self._get_in(connection, login_id)
            after = apply_change(before)
            if after == before:
                return LoginChange(before, after, version)
            with self._database.transaction() as connection:
                if self._get_in(connection, login_id)[1] != version:
                    continue
                next_version = new_version()
                self._write_in(connection, after, next_version)
            return LoginChange(before, after, next_version)

    def finish_in(self, connection: sqlite3.Connection, login_id: str) -> None:
        try:
            login = self._get_in(connection, login_id)[0]
            self._write_in(connection, apply_event(login, "succeed"), new_version())
        except LoginError:
            pass

    def list_all(self) -> list[Login]:
        with self._database.connection() as connection:
            rows = connection.execute("SELECT document FROM logins").fetchall()
        logins = list[Login]()
        for row in rows:
            try:
                logins.append(read_login(json.loads(row[0]), LABEL))
            except StoreCorrupt:
                continue
        return sorted(logins, key=lambda login: (login.started_at, login.id))

    def list_open(self, owner: Owner | AnyValue = ANY, platform: str | AnyValue = ANY) -> list[Login]:
        return [
            login
            for login in self.list_all()
            if not login.is_over
            and owner in {ANY, login.key.owner}
            and platform in {ANY, login.origin.platform}
        ]

    def remove_expired(self, now: float) -> None:
        expired = [login.id for login in self.list_all() if login.expires_at + RETENTION_SECONDS < now]
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM logins WHERE id=?", [(json.dumps(login_id),) for login_id in expired]
            )


class SqliteList(Generic[T]):
    """A list that is one document."""

    def __init__(
        self,
        database: Database,
        encode: Callable[[Iterable[T]], Document],
        decode: Callable[[Document, str], list[T]],
    ) -> None:
        self._database, self._encode, self._decode = database, encode, decode
        self._name = decode.__name__

    def read(self) -> tuple[list[T], str]:
        with self._database.connection() as connection:
            return self._read_in(connection)

    def _read_in(self, connection: sqlite3.Connection) -> tuple[list[T], str]:
        row = connection.execute("SELECT document, version FROM lists WHERE name=?", (self._name,)).fetchone()
        return ([], "") if row is None else (self._decode(json.loads(row[0]), LABEL), row[1])

    def change(self, apply_change: Callable[[list[T]], Iterable[T]]) -> tuple[list[T], list[T]]:
        list(apply_change(self.read()[0]))
        while True:
            before, version = self.read()
            after = list(apply_change(list(before)))
            with self._database.transaction() as connection:
                if self._read_in(connection)[1] != version:
                    continue
                connection.execute(
                    "INSERT OR REPLACE INTO lists VALUES (?, ?, ?)",
                    (self._name, new_version(), json.dumps(self._encode(after))),
                )
            return before, after


@dataclass
class SqliteNotices:
    notices: SqliteList[Notice]

    def list_all(self) -> list[Notice]:
        return self.notices.read()[0]

    def replace(self, previous: Notice | None, replacement: Notice | None) -> bool:
        notice_keys = {notice.deduplication_key for notice in (previous, replacement) if notice is not None}
        if len(notice_keys) != 1:
            raise ValueError("both notices have the same recipient and session")

        def find_current(notices: list[Notice]) -> Notice | None:
            return next((notice for notice in notices if notice.deduplication_key in notice_keys), None)

        def replace_current(notices: list[Notice]) -> list[Notice]:
            current = find_current(notices)
            if current != previous:
                return notices
            others = [notice for notice in notices if notice is not current]
            return others if replacement is None else [*others, replacement]

        return find_current(self.notices.change(replace_current)[0]) == previous


@dataclass
class SqlitePeople:
    people: SqliteList[Person]

    def list_all(self) -> list[Person]:
        return self.people.read()[0]

    def change(self, apply_change: Callable[[list[Person]], Iterable[Person]]) -> list[Person]:
        return self.people.change(apply_change)[1]
