"""Secrets of a test. `conftest` fails a test if one of them reaches a log, an output or an error."""

from __future__ import annotations

from collections.abc import Collection

_guarded: list[Collection[str]] = []


def guard(secrets: Collection[str]) -> None:
    """Watch for these texts until the test ends. The collection may grow later."""
    _guarded.append(secrets)


def found_in(text: str) -> bool:
    """Return whether a text contains a watched secret."""
    return any(secret in text for secrets in _guarded for secret in list(secrets) if len(secret) > 7)


def forget() -> None:
    """Stop watching all secrets."""
    _guarded.clear()
