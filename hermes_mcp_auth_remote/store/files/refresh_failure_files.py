"""Why the last refresh of a session failed, for other processes: `mcp-tokens/<stem>.refresh-failure`.

It is a separate file, which older versions and Hermes neither read nor rewrite. It contains a fingerprint of
its tokens, so it does not apply to later tokens. Nothing depends on it: a file that cannot be read counts as
missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from hermes_mcp_auth_remote.errors import StoreError, clean_server_message
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.store.codec import decode_document, encode_document
from hermes_mcp_auth_remote.store.files.private_files import read_private, remove_file, write_private
from hermes_mcp_auth_remote.store.json_fields import FORMAT_VERSION, DocumentReader
from hermes_mcp_auth_remote.values import CredentialKey


class RefreshFailureFiles:
    """The refresh failures of a store. The caller of `write` and `clear` holds the key's lock."""

    def __init__(self, path_for: Callable[[CredentialKey], Path]) -> None:
        self._path_for = path_for

    def read(self, key: CredentialKey, tokens: Tokens) -> RefreshFailure | None:
        """Return the last refresh failure of these tokens, None if there is none; never raises."""
        path = self._path_for(key)
        try:
            data = read_private(path)
            return (
                None
                if data is None
                else _read_failure(DocumentReader(decode_document(data, str(path)), str(path)), tokens)
            )
        except (StoreError, OSError):
            return None

    def write(self, key: CredentialKey, tokens: Tokens, failure: RefreshFailure) -> None:
        """Store a failure; ignores errors of the disk."""
        members = asdict(failure)
        members["server_words"] = members.pop("server_message")
        document = {"version": FORMAT_VERSION, "tokens": token_pair_fingerprint(tokens), **members}
        with suppress(StoreError, OSError):
            write_private(self._path_for(key), encode_document(document))

    def clear(self, key: CredentialKey) -> None:
        """Remove the stored failure; never raises."""
        with suppress(StoreError, OSError):
            remove_file(self._path_for(key))


def token_pair_fingerprint(tokens: Tokens) -> str:
    """Return 16 hex digits that identify access and refresh token without revealing them.

    A new login may return the same access token with another refresh token.
    """
    refresh_token = tokens.refresh_token.reveal() if tokens.refresh_token is not None else ""
    pair = f"{tokens.access_token.reveal()} {refresh_token}"
    return hashlib.sha256(pair.encode()).hexdigest()[:16]


def _read_failure(reader: DocumentReader, tokens: Tokens) -> RefreshFailure | None:
    reader.check_version()
    if reader.string("tokens") != token_pair_fingerprint(tokens):
        return None
    return RefreshFailure(
        first_at=reader.number("first_at"),
        last_at=reader.number("last_at"),
        failures=int(reader.number("failures")),
        in_phase=int(reader.number("in_phase")),
        was_alive=reader.boolean("was_alive"),
        is_final=reader.boolean("is_final"),
        message=reader.string("message"),
        advice=reader.string("advice"),
        kind=reader.string("kind"),
        error=reader.optional_string("error"),
        server_message=clean_server_message(reader.string("server_words")),
        unauthorized_at=reader.optional_number("unauthorized_at"),
        is_answered=reader.boolean("is_answered"),
    )
