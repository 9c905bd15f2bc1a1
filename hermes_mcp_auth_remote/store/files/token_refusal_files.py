"""Record for other processes that a server refuses refreshed tokens: `mcp-tokens/<stem>.token-refusal`.

As with `refresh_failure_files`, the record contains a fingerprint of its tokens, and a file that cannot be
read counts as missing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from hermes_mcp_auth_remote.errors import StoreError
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.token_refusal import TokenRefusal
from hermes_mcp_auth_remote.store.codec import decode_document, encode_document
from hermes_mcp_auth_remote.store.files.private_files import read_private, remove_file, write_private
from hermes_mcp_auth_remote.store.files.refresh_failure_files import token_pair_fingerprint
from hermes_mcp_auth_remote.store.json_fields import FORMAT_VERSION, DocumentReader
from hermes_mcp_auth_remote.values import CredentialKey


class TokenRefusalFiles:
    """The token refusals of a store (`store.protocol.TokenRefusalStore`)."""

    def __init__(self, path_for: Callable[[CredentialKey], Path]) -> None:
        self._path_for = path_for

    def read(self, key: CredentialKey, tokens: Tokens) -> TokenRefusal | None:
        """Return the refusal of these tokens, None if there is none; never raises."""
        path = self._path_for(key)
        try:
            data = read_private(path)
            return None if data is None else _read_refusal(data, str(path), tokens)
        except (StoreError, OSError):
            return None

    def write(self, key: CredentialKey, tokens: Tokens, refusal: TokenRefusal) -> None:
        """Store a refusal; ignores errors of the disk."""
        document = {
            "version": FORMAT_VERSION,
            "tokens": token_pair_fingerprint(tokens),
            **asdict(refusal),
        }
        with suppress(StoreError, OSError):
            write_private(self._path_for(key), encode_document(document))

    def clear(self, key: CredentialKey) -> None:
        """Remove the stored refusal; never raises."""
        with suppress(StoreError, OSError):
            remove_file(self._path_for(key))


def _read_refusal(data: bytes, path: str, tokens: Tokens) -> TokenRefusal | None:
    reader = DocumentReader(decode_document(data, path), path)
    reader.check_version()
    if reader.string("tokens") != token_pair_fingerprint(tokens):
        return None
    return TokenRefusal(
        refreshes=max(int(reader.number("refreshes")), 1),
        first_at=reader.number("first_at"),
        last_at=reader.number("last_at"),
        is_refused=reader.boolean("is_refused"),
    )
