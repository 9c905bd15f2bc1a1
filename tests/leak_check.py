"""Secrets of a test. `conftest` fails a test if one of them reaches a log, an output or an error."""

from __future__ import annotations

from collections.abc import Collection

_watched: list[Collection[str]] = []


def watch_secrets(secrets: Collection[str]) -> None:
    """Watch for these texts until the test ends. The collection may grow later."""
    _watched.append(secrets)


def contains_secret(text: str) -> bool:
    """Return whether a text contains a watched secret."""
    return any(secret in text for secrets in _watched for secret in list(secrets) if len(secret) > 7)


def clear_secrets() -> None:
    """Stop watching all secrets."""
    _watched.clear()
