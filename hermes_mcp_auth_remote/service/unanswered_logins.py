"""Find logins that got no response of the provider, which may have forgotten the client (quirk 49).

The next login then registers another client, once. The record of such a login is removed after an hour, so
the stored credentials keep the fact: people come back tomorrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from hermes_mcp_auth_remote.errors import LoginError, StoreError
from hermes_mcp_auth_remote.login import MAX_PASTE_ATTEMPTS, Login, is_expired
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.service.binding_changes import change_binding
from hermes_mcp_auth_remote.service.dependencies import Dependencies
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials, UnansweredClient, infer_binding
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import CredentialKey


def unanswered_login(
    logins: Sequence[Login],
    key: CredentialKey,
    credentials: Credentials,
    login_time: Callable[[Login], float],
) -> Login | None:
    """Return the last login of this key with the stored client if it ended without a response, else None.

    `logins` are in the order of their start; `login_time` returns the current time by the clock of a login.
    """
    client = credentials.client
    if client is None or not client.is_registered:
        return None
    ended = [
        login
        for login in logins
        if login.key == key
        and login.is_client_reused
        and login.request.client.client_id == client.client_id
        and (login.is_over or is_expired(login, login_time(login)))
    ]
    return ended[-1] if ended and _is_unanswered(ended[-1], credentials) else None


def _is_unanswered(login: Login, credentials: Credentials) -> bool:
    """True if a login that is over, at the stored issuer, got no response from the provider."""
    authorization_server = credentials.authorization_server
    is_same_issuer = authorization_server is not None and authorization_server.issuer == login.request.issuer
    if login.poll_state is not None or not is_same_issuer:
        return False
    if login.status == "failed":
        # Only wrong addresses were pasted.
        return login.failure_code == LoginError.code and login.paste_attempts >= MAX_PASTE_ATTEMPTS
    return login.status in {"waiting", "expired", "cancelled"}


async def save_unanswered_clients(deps: Dependencies) -> None:
    """Mark the stored client of each unanswered login in its credentials, before the record is removed."""
    for login in await run_file_work(_list_unanswered, deps):
        await change_binding(deps, login.key, partial(_marked_binding, login=login))


def _list_unanswered(deps: Dependencies) -> list[Login]:
    logins = deps.store.logins.list_all()
    unanswered: list[Login] = []
    for key in dict.fromkeys(login.key for login in logins if login.is_client_reused):
        try:
            credentials = deps.store.read(key).credentials
        except StoreError:
            continue
        login = unanswered_login(logins, key, credentials, deps.login_time)
        if login is not None and credentials.unanswered_client is None:
            unanswered.append(login)
    return unanswered


def _marked_binding(credentials: Credentials, *, login: Login) -> Binding | None:
    client = credentials.client
    if client is None or client.client_id != login.request.client.client_id or credentials.unanswered_client:
        return None
    binding = infer_binding(credentials, login.key.server_name, login.server_url)
    return replace(binding, unanswered_client=UnansweredClient(client.client_id))


async def save_replacement(deps: Dependencies, key: CredentialKey, server_url: str, client: Client) -> None:
    """Store the client that a login registered instead of the stored one, for the logins after it.

    Ignores store errors: then the next login registers one more client.
    """

    def changed_binding(credentials: Credentials) -> Binding | None:
        stored_client = credentials.client
        if stored_client is None or stored_client.client_id == client.client_id:
            return None
        binding = infer_binding(credentials, key.server_name, server_url)
        return replace(binding, unanswered_client=UnansweredClient(stored_client.client_id, client))

    if client.is_registered:
        await change_binding(deps, key, changed_binding)
