"""Obtain tokens by a grant without a user: read its inputs, then run `flows.machine_grants`."""

from __future__ import annotations

from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.flows.client_selection import PreviousLogin
from hermes_mcp_auth_remote.flows.machine_grants import GrantInputs, GrantResult, obtain_tokens
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.service.dependencies import Dependencies
from hermes_mcp_auth_remote.signing import can_sign, check_can_sign, new_proof_key, read_token_file
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.values import CredentialKey, Secret, Server


async def request_machine_tokens(
    deps: Dependencies,
    server: Server,
    key: CredentialKey,
    credentials: Credentials,
    challenge: Challenge | None,
) -> Credentials:
    """Request tokens and return the credentials to store.

    This function reads small files and blocks, so call it only in a flight (`single_flight`).

    `credentials` are the stored credentials. If they name an issuer, only that issuer gets the configured
    secrets. Raises ConfigError, a ServerError or NetworkError.
    """
    previous_login = PreviousLogin(
        credentials.client,
        credentials.binding.issuer if credentials.binding else None,
        (credentials.tokens.scope if credentials.tokens else None) or frozenset(),
    )
    proof_key = _select_proof_key(server, credentials)
    inputs = GrantInputs(deps.signer_for(server), _read_assertion(server), deps.prover_for(proof_key))
    now = deps.clock()
    result = await deps.run_exchange(
        obtain_tokens(server, inputs, now, previous_login=previous_login, challenge=challenge), server
    )
    bound_proof_key = proof_key if result.tokens.scheme == "DPoP" else None
    binding = _make_binding(server, key, result, now)
    return Credentials(result.tokens, result.client, result.authorization_server, binding, bound_proof_key)


def _select_proof_key(server: Server, credentials: Credentials) -> Secret | None:
    if server.options.dpop:
        check_can_sign("Proofs (DPoP)")
    if server.options.dpop is False or not can_sign():
        return None
    return credentials.proof_key or new_proof_key()


def _read_assertion(server: Server) -> Secret | None:
    options = server.options
    if options.grant == "jwt_bearer":
        if options.assertion_file is None:
            raise ConfigError(f"The grant `jwt_bearer` of {server.name} needs `oauth.assertion_file`.")
        return read_token_file(options.assertion_file, "assertion_file")
    if options.grant == "enterprise":
        if options.identity_provider is None:
            raise ConfigError(f"The grant `enterprise` of {server.name} needs `oauth.identity_provider`.")
        return read_token_file(options.identity_provider.token_file, "identity_provider.token_file")
    return None


def _make_binding(server: Server, key: CredentialKey, grant_result: GrantResult, now: float) -> Binding:
    return Binding(
        server_name=key.server_name,
        server_url=server.url,
        issuer=grant_result.authorization_server.issuer,
        client_id=grant_result.client.client_id,
        resource=grant_result.resource,
        requested_scope=grant_result.scope,
        account=grant_result.tokens.account,
        connected_at=now,
        config_files=server.config_files,
    )
