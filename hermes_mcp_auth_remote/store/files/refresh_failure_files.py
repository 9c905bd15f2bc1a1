"""Why the last refresh of a session failed, for other processes: `mcp-tokens/<stem>.refresh-failure`.

A file of its own: older versions and Hermes neither read nor rewrite it. It names the tokens that it speaks
of, so it says nothing of any that came later. It is advice, never a record that something depends on: a file
that cannot be read counts as missing.
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
    """The failure files of a store. The caller of `write` and `clear` holds the key's lock."""

    def __init__(self, path_for: Callable[[CredentialKey], Path]) -> None:
        self._path_for = path_for

    def read(self, key: CredentialKey, tokens: Tokens) -> RefreshFailure | None:
        """Return what the last refresh of these tokens came to, None if none has failed; never raises."""
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
        """Store a failure; a disk that does not take it is no further trouble."""
        document = {"version": FORMAT_VERSION, "tokens": _token_pair_fingerprint(tokens), **asdict(failure)}
        with suppress(StoreError, OSError):
            write_private(self._path_for(key), encode_document(document))

    def clear(self, key: CredentialKey) -> None:
        """Forget the failure; never raises."""
        with suppress(StoreError, OSError):
            remove_file(self._path_for(key))


def _token_pair_fingerprint(tokens: Tokens) -> str:
    """Return what tells these tokens from others, and nothing about them.

    A new login may bring the access token that there was, with another refresh token.
    """
    refresh_token = tokens.refresh_token.reveal() if tokens.refresh_token is not None else ""
    pair = f"{tokens.access_token.reveal()} {refresh_token}"
    return hashlib.sha256(pair.encode()).hexdigest()[:16]


def _read_failure(members: DocumentReader, tokens: Tokens) -> RefreshFailure | None:
    members.check_version()
    if members.string("tokens") != _token_pair_fingerprint(tokens):
        return None
    return RefreshFailure(
        first_at=members.number("first_at"),
        last_at=members.number("last_at"),
        failures=int(members.number("failures")),
        in_phase=int(members.number("in_phase")),
        was_alive=members.boolean("was_alive"),
        is_final=members.boolean("is_final"),
        message=members.string("message"),
        advice=members.string("advice"),
        kind=members.string("kind"),
        error=members.optional_string("error"),
        server_words=clean_server_message(members.string("server_words")),
        unauthorized_at=members.optional_number("unauthorized_at"),
        is_answered=members.boolean("is_answered"),
    )
