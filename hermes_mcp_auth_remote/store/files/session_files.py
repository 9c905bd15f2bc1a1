"""Read the files of one session: `<stem>.json`, `<stem>.client.json`, `<stem>.meta.json` and the others.

A `prefix` is the path of the files without their suffix. Writers replace each file atomically, and the tokens
last, so a caller reads the tokens first and compares their version afterwards.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from typing import NamedTuple, Self

from hermes_mcp_auth_remote.errors import StoreCorrupt
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.wire import Document
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
from hermes_mcp_auth_remote.store.files.login_commit_record import BLANK
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


def read_document(path: str) -> Document | None:
    """Return a JSON object, None if the file is missing or blank. Raises StoreError."""
    data = read_private(path)
    return None if data is None or data == BLANK else decode_document(data, path)


def read_tokens_file(prefix: str, version: FileVersion | None) -> Tokens | None:
    """Return the stored tokens of a version, None if there are none. Raises StoreError."""
    path = prefix + TOKENS
    document = read_document(path)
    written_at = 0.0 if version is None else version.written_at
    return None if document is None else read_tokens(document, written_at, path)


def read_client_file(prefix: str) -> Client | None:
    """Return the stored client, None if there is none. Raises StoreError."""
    path = prefix + CLIENT
    document = read_document(path)
    return None if document is None else read_client(document, path)


def read_credentials(prefix: str, tokens: Tokens | None) -> tuple[Credentials, str | None]:
    """Return the credentials of these tokens, and the server's name in the binding. Raises StoreError."""
    # Read in reverse order of writing: a file is then never older than the files read before it.
    authorization_server = _read_metadata_file(prefix)
    client = read_client_file(prefix)
    proof_key = _read_proof_key(prefix) if tokens is not None and tokens.scheme == "DPoP" else None
    path = prefix + BINDING
    if (document := read_document(path)) is None:
        return Credentials(tokens, client, authorization_server, proof_key=proof_key), None
    binding = read_binding(document := binding_for(document, tokens), tokens, path)
    credentials = Credentials(tokens, client, authorization_server, binding, proof_key)
    reconciled = reconcile(credentials, lambda: tokens is not None and matches_tokens(document, tokens))
    return reconciled, binding.server_name


def _read_proof_key(prefix: str) -> Secret | None:
    document = read_document(prefix + PROOF_KEY)
    return None if document is None else Secret(json.dumps(document))


def _read_metadata_file(prefix: str) -> AuthorizationServer | None:
    path = prefix + METADATA
    data = read_private(path)
    if data is None or data == BLANK:
        return None
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
