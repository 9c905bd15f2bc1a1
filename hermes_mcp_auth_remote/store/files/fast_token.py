"""The fast path of the `token` command: read a stored access token with only json and os."""

# Importing pathlib would take a fifth of the fast path's time.
# ruff: noqa: PTH118

from __future__ import annotations

import json
import os

from hermes_mcp_auth_remote.errors import StoreError
from hermes_mcp_auth_remote.hermes_home import config_identity, file_stem
from hermes_mcp_auth_remote.refresh_margins import refresh_time
from hermes_mcp_auth_remote.store.files.private_files import StrPath, has_directory, read_private

# An `expires_at` more than a century ahead is invalid.
MAX_REMAINING_SECONDS = 3_155_760_000


def read_valid_token(home: StrPath, server_name: str, now: float) -> str | None:
    """Return the operator's access token for a server, or None if the slow path must decide; never raises.

    `now` is in epoch seconds. Returns a token only if the files are private, the binding is for this server
    and asks for no login, and the bearer token needs no refresh yet (`refresh_margins`). In addition,
    config.yaml and .env must be unchanged since the URL in the binding was read from them. The slow path
    handles and explains all other cases.
    """
    try:
        root = os.path.join(home, "mcp-tokens")
        stem = os.path.join(root, file_stem(server_name))
        # The record means that a login is half stored; the slow path recovers it.
        if not has_directory(root) or os.path.lexists(
            os.path.join(root, f".{file_stem(server_name)}.pending.tmp")
        ):
            return None
        binding, tokens = _read_object(f"{stem}.binding.json"), _read_object(f"{stem}.json")
        # Read the configuration last: a later change counts as a change after the token was printed.
        needs_slow_path = binding.get("config_files") != config_identity(home)
    except (StoreError, OSError, ValueError, RecursionError):
        return None
    # `before` means that a login is half stored, and the binding may be for other tokens.
    needs_slow_path = needs_slow_path or "before" in binding
    if needs_slow_path or binding.get("server") != server_name or binding.get("login_needed", "") is not None:
        return None
    access_token = tokens.get("access_token")
    if not isinstance(access_token, str) or _needs_refresh(tokens, now):
        return None
    # A DPoP token is useless without a proof for each request (RFC 9449).
    is_bearer = str(tokens.get("token_type", "Bearer")).lower() == "bearer"
    is_usable = (
        is_bearer
        and access_token
        and access_token.isascii()
        and access_token.isprintable()
        and " " not in access_token
    )
    return access_token if is_usable else None


def _needs_refresh(tokens: dict[str, object], now: float) -> bool:
    expires_at, lifetime_seconds = tokens.get("expires_at"), tokens.get("expires_in")
    # Check the range first: the value may be an integer of any length, which cannot become a float.
    if not isinstance(expires_at, int | float) or not now <= expires_at <= now + MAX_REMAINING_SECONDS:
        return True
    if not isinstance(lifetime_seconds, int | float) or not 0 <= lifetime_seconds <= MAX_REMAINING_SECONDS:
        lifetime_seconds = None
    return refresh_time(expires_at, lifetime_seconds) <= now


def _read_object(path: str) -> dict[str, object]:
    data = read_private(path)
    value: dict[str, object] | list[object] | str | float | None = json.loads(data or b"{}")
    return value if isinstance(value, dict) else {}
