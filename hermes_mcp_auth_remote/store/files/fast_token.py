"""The fast path of `token`: a stored access token that is beyond doubt, read with json and os alone."""

# Importing pathlib would take a fifth of this path's time.
# ruff: noqa: PTH118

from __future__ import annotations

import json
import os

from hermes_mcp_auth_remote.errors import StoreError
from hermes_mcp_auth_remote.hermes_home import config_identity, file_stem
from hermes_mcp_auth_remote.store.files.private_files import StrPath, has_directory, read_private

# Shorter-lived ones are for the slow path, which refreshes.
MIN_REMAINING_SECONDS = 60
# Beyond a century `expires_at` is junk.
MAX_REMAINING_SECONDS = 3_155_760_000


def read_valid_token(home: StrPath, server_name: str, now: float) -> str | None:
    """Return the operator's access token for a server where nothing is in doubt, else None; never raises.

    `now` is in epoch seconds. Beyond doubt: private files, a binding of exactly this server that asks for no
    login, a bearer token with at least 60 s left, and the very config.yaml and .env that gave the server the
    binding's address (or that do not name it). All else, and every explanation, is the slow path's.
    """
    try:
        root = os.path.join(home, "mcp-tokens")
        stem = os.path.join(root, file_stem(server_name))
        # A login that a killed process left half-way: the slow path completes it.
        if not has_directory(root) or os.path.lexists(
            os.path.join(root, f".{file_stem(server_name)}.pending.tmp")
        ):
            return None
        binding, tokens = _read_object(f"{stem}.binding.json"), _read_object(f"{stem}.json")
        # Last: after a change from now on, the token was printed before it.
        is_doubtful = binding.get("config_files") != config_identity(home)
    except (StoreError, OSError, ValueError, RecursionError):
        return None
    # `before`: a login was stored half-way, and the binding may speak of other tokens than these.
    is_doubtful = is_doubtful or "before" in binding
    if is_doubtful or binding.get("server") != server_name or binding.get("login_needed", "") is not None:
        return None
    expires_at, access_token = tokens.get("expires_at"), tokens.get("access_token")
    if not isinstance(expires_at, int | float) or not isinstance(access_token, str):
        return None
    # Compared, not subtracted: an integer of any length may stand there.
    if not now + MIN_REMAINING_SECONDS <= expires_at <= now + MAX_REMAINING_SECONDS:
        return None
    # One that needs a proof with every request is of no use alone (RFC 9449).
    is_bearer = str(tokens.get("token_type", "Bearer")).lower() == "bearer"
    whole = (
        is_bearer
        and access_token
        and access_token.isascii()
        and access_token.isprintable()
        and " " not in access_token
    )
    return access_token if whole else None


def _read_object(path: str) -> dict[str, object]:
    data = read_private(path)
    parsed: dict[str, object] | list[object] | str | float | None = json.loads(data or b"{}")
    return parsed if isinstance(parsed, dict) else {}
