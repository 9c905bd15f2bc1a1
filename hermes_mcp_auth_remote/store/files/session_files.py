"""Read the files of one session: `<stem>.json`, `<stem>.client.json`, `<stem>.meta.json` and the others.

A `prefix` is the path of the files without their suffix. Writers replace each file atomically, and the tokens
last, so a caller reads the tokens first and compares their version afterwards.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Self

from hermes_mcp_auth_remote.errors import StoreCorrupt
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.wire import Document, string_member
from hermes_mcp_auth_remote.store.codec import (
    binding_for,
    decode_document,
    matches_tokens,
    read_binding,
    read_client,
    read_metadata,
    read_tokens,
)
from hermes_mcp_auth_remote.store.credentials import Credentials, reconcile
from hermes_mcp_auth_remote.store.files.login_commit_record import BLANK, is_blank
from hermes_mcp_auth_remote.store.files.paths import BINDING, CLIENT, METADATA, PROOF_KEY, TOKENS
from hermes_mcp_auth_remote.store.files.private_files import read_private
from hermes_mcp_auth_remote.store.protocol import Version
from hermes_mcp_auth_remote.values import Secret

# Metadata up to this size is parsed once for all sessions that store the same.
_MAX_SHARED_BYTES = 16_384


class FileVersion(NamedTuple):
    """The version of a tokens file."""

    mtime_ns: int
    size: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Return the version of a file with this status."""
        return cls(status.st_mtime_ns, status.st_size, status.st_ino)

    def encode(self) -> Version:
        """Return the version for callers of the store."""
        return Version(f"{self.mtime_ns:x}.{self.size:x}.{self.inode:x}")

    @property
    def written_at(self) -> float:
        """The time of the last write (epoch seconds)."""
        return self.mtime_ns / 1e9


def read_version(path: str) -> FileVersion | None:
    """Return the version of a tokens file, None if it is missing or blank. Raises OSError."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    # Compare the size first: reading each file would cost more.
    return None if status.st_size == len(BLANK) and is_blank(path) else FileVersion.of(status)


def read_document(path: str) -> Document | None:
    """Return a JSON object, None if the file is missing or blank. Raises StoreError."""
    data = _read_content(path)
    return None if data is None else decode_document(data, path)


def read_tokens_file(prefix: str, version: FileVersion | None) -> Tokens | None:
    """Return the stored tokens of a version, None if there are none. Raises StoreError."""
    path = prefix + TOKENS
    document = read_document(path)
    written_at = 0.0 if version is None else version.written_at
    return None if document is None else read_tokens(document, written_at, path)


def read_client_file(prefix: str) -> Client | None:
    """Return the stored client, None if there is none. Raises StoreError."""
    path = prefix + CLIENT
    data = _read_content(path)
    return None if data is None else _decode_client(data, path)


def _decode_client(data: bytes, path: str) -> Client:
    return read_client(decode_document(data, path), path)


class SessionContents(NamedTuple):
    """The contents of the files beside a tokens file, None for a file that is missing or blank."""

    metadata: bytes | None
    client: bytes | None
    proof_key: bytes | None
    binding: bytes | None

    def __repr__(self) -> str:
        # The contents are secrets.
        return "SessionContents(****)"


def read_contents(prefix: str, *, has_proof_key: bool) -> SessionContents:
    """Read the files beside a tokens file. Raises StoreError."""
    # Read in reverse order of writing: a file is then never older than the files read before it.
    return SessionContents(
        _read_content(prefix + METADATA),
        _read_content(prefix + CLIENT),
        _read_content(prefix + PROOF_KEY) if has_proof_key else None,
        _read_content(prefix + BINDING),
    )


def _read_content(path: str) -> bytes | None:
    data = read_private(path)
    return None if data == BLANK else data


def decode_credentials(
    prefix: str,
    tokens: Tokens | None,
    contents: SessionContents,
    decode_client: Callable[[bytes, str], Client] = _decode_client,
) -> tuple[Credentials, str | None]:
    """Return the credentials of these tokens, and the server's name in the binding. Raises StoreCorrupt.

    `decode_client` decodes the content of a client's file; it also gets the path, for errors.
    """
    data = contents.metadata
    authorization_server = None if data is None else _decode_metadata(data, prefix + METADATA)
    data = contents.client
    client = None if data is None else decode_client(data, prefix + CLIENT)
    data = contents.proof_key
    proof_key = None if data is None else _decode_proof_key(data, prefix + PROOF_KEY)
    if contents.binding is None:
        return Credentials(tokens, client, authorization_server, proof_key=proof_key), None
    path = prefix + BINDING
    document = binding_for(decode_document(contents.binding, path), tokens)
    binding = read_binding(document, tokens, path)
    credentials = Credentials(tokens, client, authorization_server, binding, proof_key)
    reconciled = reconcile(credentials, lambda: tokens is not None and matches_tokens(document, tokens))
    return reconciled, binding.server_name


def decode_client_id(data: bytes, path: str) -> Client:
    """Return a client that has only the id of a stored one. Raises StoreCorrupt."""
    client_id = string_member(decode_document(data, path), "client_id")
    if client_id is None:
        raise StoreCorrupt(f"{path} contains no client_id.")
    return Client(client_id)


def _decode_proof_key(data: bytes, path: str) -> Secret:
    return Secret(json.dumps(decode_document(data, path)))


def _decode_metadata(data: bytes, path: str) -> AuthorizationServer:
    if len(data) > _MAX_SHARED_BYTES:
        return read_metadata(decode_document(data, path), path)
    try:
        # The users of a server all store the same metadata, and to check it takes longer than to read it.
        return _parse_metadata(data)
    except StoreCorrupt:
        return read_metadata(decode_document(data, path), path)


@lru_cache(maxsize=1024)
def _parse_metadata(data: bytes) -> AuthorizationServer:
    return read_metadata(decode_document(data, METADATA), METADATA)
