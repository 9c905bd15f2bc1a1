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

from hermes_mcp_auth_remote.errors import StoreError, clean_words
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.store.codec import from_bytes, to_bytes
from hermes_mcp_auth_remote.store.files.private_files import read_private, remove, write_private
from hermes_mcp_auth_remote.store.json_fields import VERSION, Members
from hermes_mcp_auth_remote.values import Key


class RefreshFailures:
    """The failure files of a store. The caller of `write` and `clear` holds the key's lock."""

    def __init__(self, path_of: Callable[[Key], Path]) -> None:
        self._path_of = path_of

    def read(self, key: Key, tokens: Tokens) -> RefreshFailure | None:
        """Return what the last refresh of these tokens came to, None if none has failed; never raises."""
        path = self._path_of(key)
        try:
            data = read_private(path)
            return None if data is None else _read(Members(from_bytes(data, str(path)), str(path)), tokens)
        except (StoreError, OSError):
            return None

    def write(self, key: Key, tokens: Tokens, failure: RefreshFailure) -> None:
        """Store a failure; a disk that does not take it is no further trouble."""
        document = {"version": VERSION, "tokens": _fingerprint(tokens), **asdict(failure)}
        with suppress(StoreError, OSError):
            write_private(self._path_of(key), to_bytes(document))

    def clear(self, key: Key) -> None:
        """Forget the failure; never raises."""
        with suppress(StoreError, OSError):
            remove(self._path_of(key))


def _fingerprint(tokens: Tokens) -> str:
    """Return what tells these tokens from others, and nothing about them.

    A new login may bring the access token that there was, with another refresh token.
    """
    refresh_token = tokens.refresh_token.reveal() if tokens.refresh_token is not None else ""
    pair = f"{tokens.access_token.reveal()} {refresh_token}"
    return hashlib.sha256(pair.encode()).hexdigest()[:16]


def _read(members: Members, tokens: Tokens) -> RefreshFailure | None:
    members.check_version()
    if members.text("tokens") != _fingerprint(tokens):
        return None
    return RefreshFailure(
        first_at=members.number("first_at"),
        last_at=members.number("last_at"),
        failures=int(members.number("failures")),
        in_phase=int(members.number("in_phase")),
        was_alive=members.flag("was_alive"),
        is_final=members.flag("is_final"),
        message=members.text("message"),
        advice=members.text("advice"),
        kind=members.text("kind"),
        error=members.maybe_text("error"),
        server_words=clean_words(members.text("server_words")),
        unauthorized_at=members.maybe_number("unauthorized_at"),
        is_answered=members.flag("is_answered"),
    )
