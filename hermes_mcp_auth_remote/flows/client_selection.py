"""Which client a login goes as: one of an earlier login, a configured one, or one that registers now."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hermes_mcp_auth_remote.errors import RegistrationRefused
from hermes_mcp_auth_remote.flows.discovery import DEVICE_FLOWS, Found, find, no_device
from hermes_mcp_auth_remote.oauth.authorization import check_pkce, select_scope
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import (
    Client,
    configured_client,
    metadata_document_client,
    offers_device,
    register,
)
from hermes_mcp_auth_remote.oauth.device import may_use_device
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.values import Flow, Server


@dataclass(frozen=True, slots=True)
class Held:
    """What is known from an earlier login: the client, its issuer, the scope that was granted.

    `metadata_document_refused` is True where the provider turned our client ID metadata document away
    (quirk 20); then we register instead.
    """

    client: Client | None = None
    issuer: str | None = None
    scope: frozenset[str] = frozenset()
    metadata_document_refused: bool = False


def find_and_enrol(
    server: Server, challenge: Challenge | None, flow: Flow, redirect_uri: str, now: float
) -> Exchange[Found]:
    """Find a server's authorization server and register there, for all who begin now and hold nothing.

    `found.client` stays None where no client registers. Raises any ServerError or NetworkError.
    """
    found = yield from find(server, None, challenge, flow)
    client, _ = yield from enrolled(server, found, redirect_uri, now, held=Held(), flow=flow)
    return replace(found, client=client) if client.registered else found


def enrolled(
    server: Server, found: Found, redirect_uri: str, now: float, *, held: Held, flow: Flow
) -> Exchange[tuple[Client, bool]]:
    """Return the client that a login goes as, and True where it is an earlier login's.

    Raises any ServerError or NetworkError: no client is made for a login that cannot go on.
    """
    if found.client is not None:
        return found.client, False
    options, issuer = server.options, found.discovery.authorization_server
    by_device = goes_by_device(found, flow)
    if flow == "device" and not by_device:
        raise no_device(issuer)
    if not by_device:
        check_pkce(issuer, allow_missing_pkce=options.allow_missing_pkce)
    # MCP 2026-07-28: pre-registered client information comes first.
    reusable = options.client_id is None and _is_usable(held, issuer, redirect_uri, now)
    known = held.client if reusable else None
    if known is not None and by_device and not may_use_device(known):
        # It would only be refused (quirk 23).
        known = None
    if known is not None:
        return known, True
    client = yield from client_of(server, issuer, held, redirect_uri, scope_of(server, found, held))
    return client, False


def goes_by_device(found: Found, flow: Flow) -> bool:
    """True where a login by this flow gets a code for another device."""
    return flow in DEVICE_FLOWS and offers_device(found.discovery.authorization_server)


def scope_of(server: Server, found: Found, held: Held) -> frozenset[str] | None:
    """Return the scope that a login asks for, None for none."""
    return select_scope(
        found.discovery,
        found.challenge,
        configured=server.options.scope,
        held=held.scope if found.challenge.insufficient_scope else frozenset(),
        cap=server.options.scope_cap,
    )


def client_of(
    server: Server,
    issuer: AuthorizationServer,
    held: Held,
    redirect_uri: str,
    scope: frozenset[str] | None,
) -> Exchange[Client]:
    """Return the configured client, or a new one; raises RegistrationRefused, ClientIdNeeded and others."""
    options = server.options
    if options.client_id is not None:
        check_binding(options.client_id, issuer, held)
        return configured_client(
            issuer,
            options.client_id,
            options.client_secret,
            options.token_endpoint_auth_method or ("private_key_jwt" if options.private_key_file else None),
            redirect_uri,
        )
    has_document = options.client_metadata_url is not None and issuer.client_id_metadata_document_supported
    if has_document and not held.metadata_document_refused:
        return metadata_document_client(options.client_metadata_url or "", redirect_uri)
    client = yield from register(
        issuer,
        redirect_uri,
        client_name=options.client_name,
        scope=scope or (),
        method=options.token_endpoint_auth_method,
        application_type=options.application_type,
    )
    return client


def check_binding(client_id: str, issuer: AuthorizationServer, held: Held) -> None:
    """Refuse to take a configured client to another issuer than the last time; raises RegistrationRefused."""
    # MCP 2026-07-28, authorization server binding: its secret must not follow a server that moved elsewhere.
    same_client = held.client is not None and held.client.client_id == client_id
    if same_client and held.issuer is not None and held.issuer != issuer.issuer:
        raise RegistrationRefused(
            f"The server now sends logins to {host_of(issuer.issuer)}, but `oauth.client_id` was "
            f"registered at {host_of(held.issuer)}.",
            "If you expect that move, log out of this server, set `oauth.client_id` anew and log in again.",
        )


def _is_usable(held: Held, issuer: AuthorizationServer, redirect_uri: str, now: float) -> bool:
    client = held.client
    return (
        client is not None
        and client.registered
        and held.issuer == issuer.issuer
        and redirect_uri in client.redirect_uris
        and (client.secret_expires_at is None or client.secret_expires_at > now)
    )
