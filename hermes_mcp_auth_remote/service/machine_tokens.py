"""Tokens for a session that needs no person: what the grant stands on is read, the rest is the protocol's."""

from __future__ import annotations

from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.flows.client_selection import Held
from hermes_mcp_auth_remote.flows.machine_grants import Granted, Means, obtain
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.service.dependencies import World
from hermes_mcp_auth_remote.signing import can_sign, check_can_sign, new_proof_key, read_token_file
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.values import Key, Secret, Server


async def granted(
    world: World, server: Server, key: Key, stored: Credentials, challenge: Challenge | None
) -> Credentials:
    """Ask for tokens, and return all that is to be stored; reads small files, so it runs in a flight.

    `stored` is what there was: its issuer is the only one that gets what the operator configured. Raises
    ConfigError, a ServerError or NetworkError.
    """
    held = Held(
        stored.client,
        stored.binding.issuer if stored.binding else None,
        (stored.tokens.scope if stored.tokens else None) or frozenset(),
    )
    proof_key = _proof_key(server, stored)
    means = Means(world.signer(server), _assertion(server), world.prover(proof_key))
    now = world.clock()
    found = await world.run(obtain(server, means, now, held=held, challenge=challenge), server)
    bound = proof_key if found.tokens.scheme == "DPoP" else None
    binding = _binding(server, key, found, now)
    return Credentials(found.tokens, found.client, found.authorization_server, binding, bound)


def _proof_key(server: Server, stored: Credentials) -> Secret | None:
    if server.options.dpop:
        check_can_sign("Proofs (DPoP)")
    if server.options.dpop is False or not can_sign():
        return None
    return stored.proof_key or new_proof_key()


def _assertion(server: Server) -> Secret | None:
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


def _binding(server: Server, key: Key, found: Granted, now: float) -> Binding:
    return Binding(
        server=key.server,
        server_url=server.url,
        issuer=found.authorization_server.issuer,
        client_id=found.client.client_id,
        resource=found.resource,
        requested_scope=found.scope,
        account=found.tokens.account,
        connected_at=now,
        config_files=server.config_files,
    )
