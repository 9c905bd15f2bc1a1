"""Secrets that a test minted; `conftest` fails a test where one reaches a log, an output or an error."""

from __future__ import annotations

from collections.abc import Collection

_guarded: list[Collection[str]] = []


def guard(secrets: Collection[str]) -> None:
    """Watch for these texts until the test ends; a set may go on growing."""
    _guarded.append(secrets)


def found_in(text: str) -> bool:
    """True where a guarded secret stands in a text."""
    return any(secret in text for secrets in _guarded for secret in list(secrets) if len(secret) > 7)


def forget() -> None:
    """Guard nothing more."""
    _guarded.clear()
