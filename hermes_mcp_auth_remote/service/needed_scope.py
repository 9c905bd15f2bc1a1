"""Store the scope that a server demands, so that the next login asks for it (RFC 6750 §3.1)."""

from __future__ import annotations

from dataclasses import replace

from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.service.binding_changes import change_binding
from hermes_mcp_auth_remote.service.dependencies import Dependencies
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials, infer_binding
from hermes_mcp_auth_remote.values import CredentialKey, Server

# A server that demands another scope at each call must not make the record grow.
MAX_NEEDED_SCOPES = 100


async def save_needed_scope(
    deps: Dependencies, server: Server, key: CredentialKey, challenge: Challenge
) -> None:
    """Add the scope of an `insufficient_scope` challenge to the stored credentials; ignores store errors.

    A login of any process then requests it (quirk 65).
    """
    demanded_scope = challenge.scope or frozenset[str]()

    def changed_binding(credentials: Credentials) -> Binding | None:
        if credentials.tokens is None:
            return None
        binding = infer_binding(credentials, key.server_name, server.url)
        known_scope = binding.needed_scope
        if known_scope is not None and demanded_scope <= known_scope:
            return None
        scope = demanded_scope | (known_scope or frozenset())
        if len(scope) > MAX_NEEDED_SCOPES:
            scope = frozenset(sorted(demanded_scope)[:MAX_NEEDED_SCOPES])
        return replace(binding, needed_scope=scope)

    await change_binding(deps, key, changed_binding)
