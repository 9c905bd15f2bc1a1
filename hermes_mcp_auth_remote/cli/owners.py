"""Tell the user that nothing is stored for the owner of `--owner`: the owner may be mistyped."""

from __future__ import annotations

from difflib import get_close_matches

from hermes_mcp_auth_remote.errors import OwnerNotFound
from hermes_mcp_auth_remote.platforms import join_alternatives
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Owner

_MAX_LISTED_OWNERS = 10
# Two ids of one platform are often similar. One that differs in a character or two may be a mistyped one.
_CUTOFF = 0.8


def find_owner_error(service: AuthService, owner: Owner) -> OwnerNotFound | None:
    """Return the error for an owner without a stored or waiting login, None if the owner has one.

    The operator (None) needs no login. Blocking. Raises StoreError.
    """
    if owner is None or service.blocking.keys(owner):
        return None
    keys = [*service.blocking.keys(), *(login.key for login in service.blocking.waiting_logins())]
    owners = list(dict.fromkeys(key.owner for key in keys if key.owner is not None))
    if owner in owners:
        return None
    advice = None
    if similar_owners := get_close_matches(owner, owners, cutoff=_CUTOFF):
        advice = f"Did you mean {join_alternatives(similar_owners)}?"
    elif owners:
        advice = f"The owners with a login are: {', '.join(sorted(owners)[:_MAX_LISTED_OWNERS])}."
    return OwnerNotFound(
        f"Nothing is stored for the owner {owner}.", advice, known_owners=tuple(sorted(owners))
    )


def owner_notes(service: AuthService, owner: Owner) -> list[str]:
    """Return a note if the owner has no login, for a verb that goes on; empty if the owner has one."""
    error = find_owner_error(service, owner)
    if error is None:
        return []
    return [f"{error} {error.advice}" if error.known_owners else str(error)]
