"""Keep new tokens in memory if they cannot be written to the disk.

The server has used up the refresh token that they replace (RFC 6749 §6), so only the new tokens are valid.
They count as stored until a write succeeds or another process stores other tokens.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace

from hermes_mcp_auth_remote.errors import StoreError, StoreUnwritable
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.store.protocol import (
    ANY,
    CredentialStore,
    ExpectedVersion,
    StoreConflict,
    Stored,
    Version,
)
from hermes_mcp_auth_remote.values import CredentialKey, Secret

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _UnsavedCredentials:
    """Credentials that this process could not write.

    `replaced_access_token` is the access token that is still on the disk, None if there is none.
    """

    replaced_access_token: Secret | None
    credentials: Credentials
    is_new_login: bool
    has_warned: bool = False


class BufferedCredentialStore:
    """The credentials of one server and owner: those on the disk, or newer ones that are not written yet."""

    __slots__ = (
        "_has_warned_unwritable",
        "_key",
        "_store",
        "_unsaved",
    )

    def __init__(self, store: CredentialStore, key: CredentialKey) -> None:
        self._store = store
        self._key = key
        self._unsaved: _UnsavedCredentials | None = None
        self._has_warned_unwritable = False

    @property
    def has_unsaved(self) -> bool:
        """True while only the memory of this process has the newest tokens."""
        return self._unsaved is not None

    def read(self) -> Stored:
        """Return the newest credentials and the stored version; raises as `CredentialStore.read` does."""
        stored = self._store.read(self._key)
        unsaved = self._unsaved
        if unsaved is None:
            return stored
        if _access_token_of(stored.credentials) == unsaved.replaced_access_token:
            return Stored(unsaved.credentials, stored.version)
        # Another process has stored other tokens since. Discard the unsaved ones, unless another thread has
        # just replaced them.
        if self._unsaved is unsaved:
            self._unsaved = None
        return stored

    def save_credentials(
        self,
        old: Credentials,
        new: Credentials,
        *,
        expect: ExpectedVersion,
        is_new_login: bool = False,
    ) -> Version | None:
        """Store credentials that replace `old`; if the write fails, log it once and keep them in memory.

        `expect` is the version of `old`. `is_new_login` also stores the client and metadata of a new login.
        Returns the version in the store. Raises StoreConflict if another program has stored other tokens
        since `old` was read, and StoreUnsafe.
        """
        unsaved = self._unsaved
        if unsaved is None:
            self._unsaved = _UnsavedCredentials(_access_token_of(old), new, is_new_login)
        else:
            self._unsaved = replace(
                unsaved, credentials=new, is_new_login=is_new_login or unsaved.is_new_login
            )
        return self._write_unsaved(expect)

    def retry_save(self) -> None:
        """Try again to write unsaved credentials. Raises as `CredentialStore.read` does."""
        if self._unsaved is not None:
            version = self.read().version
            # Another program's tokens replace the unsaved ones.
            with suppress(StoreConflict):
                self._write_unsaved(version)

    def save_binding(self, binding: Binding, expect: ExpectedVersion) -> None:
        """Store a binding that says why the session is over, for other processes; ignores store errors."""
        if self._unsaved is not None:
            self._unsaved = replace(
                self._unsaved, credentials=replace(self._unsaved.credentials, binding=binding)
            )
        with suppress(StoreError):
            self._store.save_binding(self._key, binding, expect=expect)

    def warn_unwritable(self, error: StoreUnwritable) -> None:
        """Log once that the tokens are not refreshed because new ones could not be stored."""
        if not self._has_warned_unwritable:
            self._has_warned_unwritable = True
            _log.warning(
                "%s Until that is fixed, the tokens of %s are not refreshed: the current access token is "
                "used until it expires. %s",
                error,
                self._key.server_name,
                error.advice,
            )

    def discard_unsaved(self) -> None:
        """Discard credentials that could not be written."""
        self._unsaved = None

    def _write_unsaved(self, expect: ExpectedVersion) -> Version | None:
        """Write the unsaved credentials, and return the version in the store; raises StoreConflict."""
        unsaved = self._unsaved
        known_version = None if expect is ANY else expect
        if unsaved is None or unsaved.credentials.tokens is None:
            return known_version
        tokens, binding = unsaved.credentials.tokens, unsaved.credentials.binding
        try:
            version = (
                self._store.save_login(self._key, unsaved.credentials, expect=expect)
                if unsaved.is_new_login
                else self._store.save_tokens(self._key, tokens, binding, expect=expect)
            )
        except StoreConflict as conflict:
            if _access_token_of(conflict.found.credentials) == unsaved.replaced_access_token:
                # A program wrote the same tokens again, or changed the times of the file.
                return self._write_unsaved(conflict.found.version)
            self._unsaved = None
            raise
        except StoreUnwritable as error:
            if not unsaved.has_warned:
                self._unsaved = replace(unsaved, has_warned=True)
                _log.warning(
                    "%s Until that is fixed, only this process has the new tokens of %s: "
                    "when this process ends, you must log in again. %s",
                    error,
                    self._key.server_name,
                    error.advice,
                )
            return known_version
        self._unsaved, self._has_warned_unwritable = None, False
        if unsaved.has_warned:
            _log.warning("The new tokens of %s are on the disk now.", self._key.server_name)
        return version


def _access_token_of(credentials: Credentials) -> Secret | None:
    return None if credentials.tokens is None else credentials.tokens.access_token
