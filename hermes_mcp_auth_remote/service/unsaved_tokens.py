"""Fresh tokens on their way to the disk; where it does not take them, they are used all the same and kept.

The refresh token that they took the place of is used up at the server (RFC 6749 §6): they are the only ones
that are good, so they count as stored until the disk has room again, or somebody has stored others.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace

from hermes_mcp_auth_remote.errors import StoreError, StoreUnwritable
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey, Secret

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _UnsavedCredentials:
    """What the disk lacks; `in_place_of` is the access token that it still has, None for none."""

    replaced_access_token: Secret | None
    credentials: Credentials
    is_new_login: bool
    has_warned: bool = False


class BufferedCredentialStore:
    """What counts of one server and owner: what is stored, or what the disk has not taken yet."""

    __slots__ = (
        "_has_warned_unwritable",
        "_key",
        "_store",
        "_unsaved",
    )

    def __init__(self, store: FileStore, key: CredentialKey) -> None:
        self._store = store
        self._key = key
        self._unsaved: _UnsavedCredentials | None = None
        self._has_warned_unwritable = False

    @property
    def has_unsaved(self) -> bool:
        """True while the disk lacks tokens that only this process has."""
        return self._unsaved is not None

    def read(self) -> Credentials:
        """Return what counts; raises as `FileStore.read` does."""
        stored = self._store.read(self._key)
        unkept = self._unsaved
        if unkept is None:
            return stored
        if _access_token_of(stored) == unkept.replaced_access_token:
            return unkept.credentials
        # Somebody has logged in, refreshed or logged out since. A flight may have put other tokens there.
        if self._unsaved is unkept:
            self._unsaved = None
        return stored

    def save_credentials(self, old: Credentials, new: Credentials, *, is_new_login: bool = False) -> None:
        """Store tokens that took the place of `before`; a disk that refuses is said once and tried again.

        `is_login` stores a new login's client and metadata as well. Raises StoreUnsafe.
        """
        behind = self._unsaved
        if behind is None:
            self._unsaved = _UnsavedCredentials(_access_token_of(old), new, is_new_login)
        else:
            self._unsaved = replace(behind, credentials=new, is_new_login=is_new_login or behind.is_new_login)
        self._write_unsaved()

    def retry_save(self) -> None:
        """Try once more to store what the disk did not take. Raises as `FileStore.read` does."""
        if self._unsaved is not None:
            self.read()
            self._write_unsaved()

    def save_binding(self, binding: Binding) -> None:
        """Store a binding that says why the session is over: for others, who would find out by themselves."""
        if self._unsaved is not None:
            self._unsaved = replace(
                self._unsaved, credentials=replace(self._unsaved.credentials, binding=binding)
            )
        with suppress(StoreError):
            self._store.save_binding(self._key, binding)

    def warn_unwritable(self, error: StoreUnwritable) -> None:
        """Log once that the tokens are not refreshed because new ones could not be stored."""
        if not self._has_warned_unwritable:
            self._has_warned_unwritable = True
            _log.warning(
                "%s The tokens of %s are not refreshed until that is fixed: the present access token is used "
                "until it ends. %s",
                error,
                self._key.server_name,
                error.advice,
            )

    def discard_unsaved(self) -> None:
        """Let go of what the disk did not take."""
        self._unsaved = None

    def _write_unsaved(self) -> None:
        unkept = self._unsaved
        if unkept is None or unkept.credentials.tokens is None:
            return
        try:
            if unkept.is_new_login:
                self._store.save_login(self._key, unkept.credentials)
            else:
                self._store.save_tokens(self._key, unkept.credentials.tokens, unkept.credentials.binding)
        except StoreUnwritable as trouble:
            if not unkept.has_warned:
                self._unsaved = replace(unkept, has_warned=True)
                _log.warning(
                    "%s Until that is mended, the new tokens of %s are in this process's memory alone: "
                    "when it ends, a login is needed. %s",
                    trouble,
                    self._key.server_name,
                    trouble.advice,
                )
        else:
            self._unsaved, self._has_warned_unwritable = None, False
            if unkept.has_warned:
                _log.warning("The new tokens of %s are on the disk now.", self._key.server_name)


def _access_token_of(credentials: Credentials) -> Secret | None:
    return None if credentials.tokens is None else credentials.tokens.access_token
