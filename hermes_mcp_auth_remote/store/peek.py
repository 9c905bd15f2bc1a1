"""The fast path of `token`: a stored access token that is beyond doubt, read with json and os alone."""

# Importing pathlib would take a fifth of this path's time.
# ruff: noqa: PTH116, PTH118

from __future__ import annotations

import json
import os

from hermes_mcp_auth_remote.errors import StoreError
from hermes_mcp_auth_remote.hermes import file_stem
from hermes_mcp_auth_remote.store.disk import Place, has_directory, read_private

# Shorter-lived ones are for the slow path, which refreshes.
MIN_LEFT_SECONDS = 60
# Beyond a century `expires_at` is junk.
MAX_LEFT_SECONDS = 3_155_760_000


def valid_token(home: Place, server: str, now: float) -> str | None:
    """Return the operator's access token for a server where nothing is in doubt, else None; never raises.

    `now` is in epoch seconds. Beyond doubt: private files, a binding of exactly this server that asks for no
    login, at least 60 s left, and a config.yaml that has not changed since. All else, and every explanation,
    is the slow path's.
    """
    try:
        root = os.path.join(home, "mcp-tokens")
        stem = os.path.join(root, file_stem(server))
        if not has_directory(root) or _is_newer(os.path.join(home, "config.yaml"), f"{stem}.binding.json"):
            return None
        binding, tokens = _members(f"{stem}.binding.json"), _members(f"{stem}.json")
    except (StoreError, OSError, ValueError, RecursionError):
        return None
    if binding.get("server") != server or binding.get("login_needed", "") is not None:
        return None
    expires_at, access_token = tokens.get("expires_at"), tokens.get("access_token")
    if not isinstance(expires_at, int | float) or not isinstance(access_token, str):
        return None
    # Compared, not subtracted: an integer of any length may stand there.
    if not now + MIN_LEFT_SECONDS <= expires_at <= now + MAX_LEFT_SECONDS:
        return None
    whole = access_token and access_token.isascii() and access_token.isprintable() and " " not in access_token
    return access_token if whole else None


def _is_newer(path: str, other: str) -> bool:
    try:
        return os.stat(path).st_mtime_ns > os.lstat(other).st_mtime_ns
    except FileNotFoundError:
        return not os.path.lexists(other)


def _members(path: str) -> dict[str, object]:
    data = read_private(path)
    parsed: dict[str, object] | list[object] | str | float | None = json.loads(data or b"{}")
    return parsed if isinstance(parsed, dict) else {}
