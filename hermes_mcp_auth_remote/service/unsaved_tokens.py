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
from hermes_mcp_auth_remote.values import Key, Secret

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Unkept:
    """What the disk lacks; `in_place_of` is the access token that it still has, None for none."""

    in_place_of: Secret | None
    fresh: Credentials
    is_login: bool
    is_told: bool = False


class Keeping:
    """What counts of one server and owner: what is stored, or what the disk has not taken yet."""

    __slots__ = ("_has_told_unwritable", "_key", "_store", "_unkept")

    def __init__(self, store: FileStore, key: Key) -> None:
        self._store = store
        self._key = key
        self._unkept: _Unkept | None = None
        self._has_told_unwritable = False

    @property
    def is_behind(self) -> bool:
        """True while the disk lacks tokens that only this process has."""
        return self._unkept is not None

    def read(self) -> Credentials:
        """Return what counts; raises as `FileStore.read` does."""
        stored = self._store.read(self._key)
        unkept = self._unkept
        if unkept is None:
            return stored
        if _access_token(stored) == unkept.in_place_of:
            return unkept.fresh
        # Somebody has logged in, refreshed or logged out since. A flight may have put other tokens there.
        if self._unkept is unkept:
            self._unkept = None
        return stored

    def keep(self, before: Credentials, fresh: Credentials, *, is_login: bool = False) -> None:
        """Store tokens that took the place of `before`; a disk that refuses is said once and tried again.

        `is_login` stores a new login's client and metadata as well. Raises StoreUnsafe.
        """
        behind = self._unkept
        if behind is None:
            self._unkept = _Unkept(_access_token(before), fresh, is_login)
        else:
            self._unkept = replace(behind, fresh=fresh, is_login=is_login or behind.is_login)
        self._write()

    def catch_up(self) -> None:
        """Try once more to store what the disk did not take. Raises as `FileStore.read` does."""
        if self._unkept is not None:
            self.read()
            self._write()

    def mark(self, binding: Binding) -> None:
        """Store a binding that says why the session is over: for others, who would find out by themselves."""
        if self._unkept is not None:
            self._unkept = replace(self._unkept, fresh=replace(self._unkept.fresh, binding=binding))
        with suppress(StoreError):
            self._store.mark(self._key, binding)

    def tell_unwritable(self, error: StoreUnwritable) -> None:
        """Log once that the tokens are not refreshed because new ones could not be stored."""
        if not self._has_told_unwritable:
            self._has_told_unwritable = True
            _log.warning(
                "%s The tokens of %s are not refreshed until that is fixed: the present access token is used "
                "until it ends. %s",
                error,
                self._key.server,
                error.advice,
            )

    def forget(self) -> None:
        """Let go of what the disk did not take."""
        self._unkept = None

    def _write(self) -> None:
        unkept = self._unkept
        if unkept is None or unkept.fresh.tokens is None:
            return
        try:
            if unkept.is_login:
                self._store.replace(self._key, unkept.fresh)
            else:
                self._store.replace_tokens(self._key, unkept.fresh.tokens, unkept.fresh.binding)
        except StoreUnwritable as trouble:
            if not unkept.is_told:
                self._unkept = replace(unkept, is_told=True)
                _log.warning(
                    "%s Until that is mended, the new tokens of %s are in this process's memory alone: "
                    "when it ends, a login is needed. %s",
                    trouble,
                    self._key.server,
                    trouble.advice,
                )
        else:
            self._unkept, self._has_told_unwritable = None, False
            if unkept.is_told:
                _log.warning("The new tokens of %s are on the disk now.", self._key.server)


def _access_token(credentials: Credentials) -> Secret | None:
    return None if credentials.tokens is None else credentials.tokens.access_token
