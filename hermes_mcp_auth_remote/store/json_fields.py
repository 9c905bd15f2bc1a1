"""Strict reading of the JSON objects that only we write: a binding, a login."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

from hermes_mcp_auth_remote.errors import StoreCorrupt
from hermes_mcp_auth_remote.oauth.wire import Document

VERSION = 1


class Members:
    """A JSON object of ours; every reader raises StoreCorrupt for a member of another kind."""

    def __init__(self, document: object, path: str) -> None:
        if not isinstance(document, Mapping):
            raise StoreCorrupt(f"{path} lacks a part.")
        self.all = cast("Document", document)
        self._path = path

    def check_version(self, *known: int) -> None:
        """Refuse what another version of this program wrote in a way that this one does not know."""
        if self.all.get("version") not in (known or (VERSION,)):
            raise StoreCorrupt(
                f"{self._path} was written by another version of hermes-mcp-auth.",
                "Update hermes-mcp-auth, or delete that file and log in again.",
            )

    def _wrong(self, name: str) -> StoreCorrupt:
        return StoreCorrupt(f"{self._path}: `{name}` is missing or of the wrong kind.")

    def maybe_text(self, name: str) -> str | None:
        """Return a text or None."""
        value = self.all.get(name)
        if value is None or isinstance(value, str):
            return value
        raise self._wrong(name)

    def text(self, name: str) -> str:
        """Return a text."""
        value = self.maybe_text(name)
        if value is None:
            raise self._wrong(name)
        return value

    def maybe_number(self, name: str) -> float | None:
        """Return a finite number or None."""
        value = self.all.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name)
        try:
            number = float(value)
        except OverflowError:
            raise self._wrong(name) from None
        if not math.isfinite(number):
            raise self._wrong(name)
        return number

    def number(self, name: str) -> float:
        """Return a finite number."""
        value = self.maybe_number(name)
        if value is None:
            raise self._wrong(name)
        return value

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self.all.get(name)
        if not isinstance(value, bool):
            raise self._wrong(name)
        return value

    def maybe_texts(self, name: str) -> tuple[str, ...] | None:
        """Return a list of texts or None."""
        value = self.all.get(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self._wrong(name)
        items = cast("list[object]", value)
        if not all(isinstance(item, str) for item in items):
            raise self._wrong(name)
        return tuple(cast("list[str]", value))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        value = self.maybe_texts(name)
        if value is None:
            raise self._wrong(name)
        return value

    def maybe_set(self, name: str) -> frozenset[str] | None:
        """Return a list of texts as a set, or None."""
        value = self.maybe_texts(name)
        return None if value is None else frozenset(value)

    def part(self, name: str) -> Members:
        """Return a member that is an object."""
        return Members(self.all.get(name), self._path)
