"""Read and check JSON objects that only this program writes, such as a binding or a login."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

from hermes_mcp_auth_remote.errors import StoreCorrupt
from hermes_mcp_auth_remote.oauth.wire import Document

FORMAT_VERSION = 1


class DocumentReader:
    """Reads the members of a JSON object; every method raises StoreCorrupt for a value of another type."""

    def __init__(self, document: object, path: str) -> None:
        if not isinstance(document, Mapping):
            raise StoreCorrupt(f"{path} lacks a JSON object that it must contain.")
        self.document = cast("Document", document)
        self._path = path

    def check_version(self, *accepted_versions: int) -> None:
        """Raise StoreCorrupt for a format version that this version of the program does not know."""
        if self.document.get("version") not in (accepted_versions or (FORMAT_VERSION,)):
            raise StoreCorrupt(
                f"{self._path} was written by another version of hermes-mcp-auth.",
                "Update hermes-mcp-auth, or delete that file and log in again.",
            )

    def _member_error(self, name: str) -> StoreCorrupt:
        return StoreCorrupt(f"{self._path}: `{name}` is missing or has the wrong type.")

    def optional_string(self, name: str) -> str | None:
        """Return a string or None."""
        value = self.document.get(name)
        if value is None or isinstance(value, str):
            return value
        raise self._member_error(name)

    def string(self, name: str) -> str:
        """Return a string."""
        value = self.document.get(name)
        if not isinstance(value, str):
            raise self._member_error(name)
        return value

    def optional_number(self, name: str) -> float | None:
        """Return a finite number or None."""
        value = self.document.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._member_error(name)
        try:
            number = float(value)
        except OverflowError:
            raise self._member_error(name) from None
        if not math.isfinite(number):
            raise self._member_error(name)
        return number

    def number(self, name: str) -> float:
        """Return a finite number."""
        value = self.optional_number(name)
        if value is None:
            raise self._member_error(name)
        return value

    def boolean(self, name: str) -> bool:
        """Return true or false."""
        value = self.document.get(name)
        if not isinstance(value, bool):
            raise self._member_error(name)
        return value

    def optional_string_list(self, name: str) -> tuple[str, ...] | None:
        """Return a list of strings or None."""
        value = self.document.get(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self._member_error(name)
        items = cast("list[object]", value)
        if not all(isinstance(item, str) for item in items):
            raise self._member_error(name)
        return tuple(cast("list[str]", value))

    def string_list(self, name: str) -> tuple[str, ...]:
        """Return a list of strings."""
        value = self.optional_string_list(name)
        if value is None:
            raise self._member_error(name)
        return value

    def optional_string_set(self, name: str) -> frozenset[str] | None:
        """Return a list of strings as a set, or None."""
        value = self.optional_string_list(name)
        return None if value is None else frozenset(value)

    def child(self, name: str) -> DocumentReader:
        """Return a reader for a member that is an object."""
        return DocumentReader(self.document.get(name), self._path)
