"""Tokens without a person: our own word, a workload's, an enterprise's. RFC 6749 §4.4, 7523 §2.1, 8693.

The third is MCP's enterprise-managed authorization: the identity provider turns what it granted at sign-in
into an assertion for one authorization server (ID-JAG, draft-ietf-oauth-identity-assertion-authz-grant).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from hermes_mcp_auth_remote.errors import ConfigError, TokenRefused, UnreadableAnswer
from hermes_mcp_auth_remote.flows.client_selection import Held, check_binding
from hermes_mcp_auth_remote.flows.discovery import probe
from hermes_mcp_auth_remote.flows.login_preparation import wants_proofs
from hermes_mcp_auth_remote.oauth.authorization import select_resource, select_scope
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import Client, Signer, authenticate, configured_client
from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer, discover
from hermes_mcp_auth_remote.oauth.token import Place, Tokens, ask, demand_bound
from hermes_mcp_auth_remote.oauth.token_errors import granted_document
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import Document, Exchange, Form, post_form, scope_text, text_member
from hermes_mcp_auth_remote.values import IdentityProvider, Secret, Server

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105  a grant's name
ID_JAG = "urn:ietf:params:oauth:token-type:id-jag"
_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:"  # noqa: S105  the beginning of a name

CLIENT_CREDENTIALS_STEP = "client credentials request"
ASSERTION_STEP = "assertion grant request"
EXCHANGE_STEP = "token exchange"


@dataclass(frozen=True, slots=True)
class Means:
    """What a grant without a person stands on, read or made at the edge a moment ago.

    `assertion` is the workload's JWT, or the token of the identity provider that `oauth.identity_provider`
    names; `prover` is used where both servers take proofs.
    """

    sign: Signer | None = None
    assertion: Secret | None = None
    prover: Prover | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """Tokens, and all that belongs to them; `tokens.scheme` says whether the prover's key does, too."""

    tokens: Tokens
    client: Client
    authorization_server: AuthorizationServer
    resource: str | None
    scope: frozenset[str] | None


def obtain(
    server: Server,
    means: Means,
    now: float,
    *,
    held: Held | None = None,
    challenge: Challenge | None = None,
) -> Exchange[Granted]:
    """Take a server's URL to tokens, by the grant that its options name. `now` is in epoch seconds.

    Raises ConfigError where the options do not suffice, TokenRefused, any other ServerError or NetworkError.
    """
    options = server.options
    answered = challenge
    if answered is None:
        answered = yield from probe(server)
    answered = answered or Challenge()
    found = yield from discover(
        server.url,
        answered,
        trusted_issuers=options.trusted_issuers,
        authorization_server=options.authorization_server,
        prefer_issuer=held.issuer if held else None,
    )
    issuer = found.authorization_server
    client = _client(server, issuer, held, means.sign)
    had = held.scope if held is not None and answered.insufficient_scope else frozenset[str]()
    scope = select_scope(found, answered, configured=options.scope, held=had, cap=options.scope_cap)
    if scope and not options.scope:
        # There is nothing to be offline from: whoever needs a new token asks again.
        scope = scope - {"offline_access"} or None
    resource = select_resource(server.url, found.protected_resource, options.resource)
    prover = means.prover if wants_proofs(server, found, answered) else None
    place = Place(client, issuer.issuer, issuer.token_endpoint, means.sign, prover)
    tokens = yield from _ask(server, place, means.assertion, resource, scope, now)
    demand_bound(tokens, options, host_of(issuer.issuer))
    # RFC 6749 section 5.1: scope is "OPTIONAL, if identical to the scope requested by the client".
    tokens = tokens if tokens.scope is not None else replace(tokens, scope=scope)
    # RFC 6749 section 4.4.3: "A refresh token SHOULD NOT be included"; we would not use it.
    return Granted(replace(tokens, refresh_token=None), client, issuer, resource, scope)


def _client(server: Server, issuer: AuthorizationServer, held: Held | None, sign: Signer | None) -> Client:
    options = server.options
    if options.client_id is None:
        raise ConfigError(f"The grant `{options.grant}` of {server.name} needs `oauth.client_id`.")
    check_binding(options.client_id, issuer, held or Held())
    method = options.token_endpoint_auth_method or ("private_key_jwt" if sign is not None else None)
    client = configured_client(issuer, options.client_id, options.client_secret, method, "")
    return replace(client, redirect_uris=())


def _ask(
    server: Server,
    place: Place,
    assertion: Secret | None,
    resource: str | None,
    scope: frozenset[str] | None,
    now: float,
) -> Exchange[Tokens]:
    options = server.options
    if options.grant == "client_credentials":
        form = _form("client_credentials", resource, scope)
        return (yield from ask(place, CLIENT_CREDENTIALS_STEP, form, now))
    if assertion is None:
        raise ConfigError(f"The grant `{options.grant}` of {server.name} needs a token in a file.")
    if options.grant == "enterprise" and options.identity_provider is not None:
        provider = options.identity_provider
        assertion = yield from exchange_for_id_jag(provider, assertion, place.issuer, resource, scope)
    else:
        check_audience(assertion, place)
    form = {**_form(JWT_BEARER, resource, scope), "assertion": assertion}
    return (yield from ask(place, ASSERTION_STEP, form, now))


def _form(grant_type: str, resource: str | None, scope: frozenset[str] | None) -> Form:
    form: dict[str, str | Secret] = {"grant_type": grant_type}
    if resource is not None:
        form["resource"] = resource
    if scope:
        form["scope"] = scope_text(scope)
    return form


def check_audience(assertion: Secret, place: Place) -> None:
    """Refuse to show a workload's JWT to anybody but whom it is addressed to; raises ConfigError.

    A server that names another authorization server than the JWT does could pass it on to the right one.
    """
    audience = _claims(assertion).get("aud")
    named = cast("list[object]", audience) if isinstance(audience, list) else [audience]
    ours = {place.issuer, place.issuer.rstrip("/"), place.issuer.rstrip("/") + "/", place.token_endpoint}
    if not any(isinstance(each, str) and each in ours for each in named):
        raise ConfigError(
            f"The token in `oauth.assertion_file` is not addressed to {host_of(place.issuer)}.",
            "Have it issued with the issuer of that authorization server as its audience, or set "
            "`oauth.authorization_server`.",
            server_words=place.issuer,
        )


def _claims(assertion: Secret) -> Document:
    try:
        _, payload, _ = assertion.reveal().split(".")
        claims: object = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, Mapping):
        raise ConfigError("The file that `oauth.assertion_file` names does not hold a signed JWT.")
    return cast("Document", claims)


def exchange_for_id_jag(
    provider: IdentityProvider,
    subject_token: Secret,
    audience: str,
    resource: str | None,
    scope: frozenset[str] | None,
) -> Exchange[Secret]:
    """Turn what an identity provider granted into an assertion for one authorization server (RFC 8693 §2.1).

    `audience` is that server's issuer. Raises TokenRefused, UnreadableAnswer or a NetworkError.
    """
    method = "none" if provider.client_secret is None else "client_secret_basic"
    client = Client(provider.client_id, provider.client_secret, method)
    form = {
        **_form(TOKEN_EXCHANGE, resource, scope),
        "requested_token_type": ID_JAG,
        "audience": audience,
        "subject_token": subject_token,
        "subject_token_type": _TOKEN_TYPE + provider.subject_type,
    }
    fields, headers = authenticate(client, provider.token_endpoint, form)
    response = yield post_form(provider.token_endpoint, EXCHANGE_STEP, fields, headers)
    host = host_of(provider.token_endpoint)
    secrets = tuple(secret for secret in (subject_token, provider.client_secret) if secret is not None)
    try:
        document = granted_document(response, host, EXCHANGE_STEP, secrets)
    except TokenRefused as refused:
        refused.advice = (
            "Sign in at your identity provider again, so that `token_file` holds a token it takes."
        )
        raise
    id_jag = text_member(document, "access_token")
    if id_jag is None or document.get("issued_token_type") != ID_JAG:
        raise UnreadableAnswer(f"{host} answered the {EXCHANGE_STEP} without an ID-JAG.")
    return Secret(id_jag)
