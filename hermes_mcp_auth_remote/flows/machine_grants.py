"""Grants without a user: client credentials, JWT bearer, enterprise. RFC 6749 §4.4, 7523 §2.1, 8693.

The enterprise grant is MCP's enterprise-managed authorization: the identity provider exchanges the user's
sign-in token for an assertion (ID-JAG) that only one authorization server accepts. Source:
draft-ietf-oauth-identity-assertion-authz-grant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

from hermes_mcp_auth_remote.errors import ConfigError, MalformedResponse, TokenError
from hermes_mcp_auth_remote.flows.client_selection import PreviousLogin, check_client_issuer
from hermes_mcp_auth_remote.flows.discovery import probe_server
from hermes_mcp_auth_remote.flows.login_preparation import should_use_dpop
from hermes_mcp_auth_remote.oauth.authorization import select_resource, select_scope
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import Client, Signer, authenticate_client, configured_client
from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.oauth.jws import read_unverified_claims
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer, discover_metadata
from hermes_mcp_auth_remote.oauth.token import TokenEndpoint, Tokens, request_tokens, require_dpop
from hermes_mcp_auth_remote.oauth.token_errors import read_granted_document
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import Document, Exchange, Form, format_scope, post_form, string_member
from hermes_mcp_auth_remote.values import IdentityProvider, Secret, Server

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105  a grant's name
ID_JAG = "urn:ietf:params:oauth:token-type:id-jag"
_TOKEN_TYPE_PREFIX = "urn:ietf:params:oauth:token-type:"  # noqa: S105  the beginning of a name

CLIENT_CREDENTIALS_STEP = "client credentials request"
ASSERTION_STEP = "assertion grant request"
EXCHANGE_STEP = "token exchange"


@dataclass(frozen=True, slots=True)
class GrantInputs:
    """The signer, token and key of a grant without a user, which the caller reads or creates.

    `assertion` is the workload's JWT, or the token of the identity provider that `oauth.identity_provider`
    names. `prover` is used if `should_use_dpop` is True.
    """

    sign: Signer | None = None
    assertion: Secret | None = None
    prover: Prover | None = None


@dataclass(frozen=True, slots=True)
class GrantResult:
    """Tokens with their client and server; `tokens.scheme` is "DPoP" if the prover's key binds them."""

    tokens: Tokens
    client: Client
    authorization_server: AuthorizationServer
    resource: str | None
    scope: frozenset[str] | None


def obtain_tokens(
    server: Server,
    inputs: GrantInputs,
    now: float,
    *,
    previous_login: PreviousLogin | None = None,
    challenge: Challenge | None = None,
) -> Exchange[GrantResult]:
    """Obtain tokens for a server with the grant that its options name. `now` is in epoch seconds.

    Raises TokenError, any other ServerError, or NetworkError. Raises ConfigError if the options do not
    suffice.
    """
    options = server.options
    server_challenge = challenge
    if server_challenge is None:
        server_challenge = yield from probe_server(server)
    server_challenge = server_challenge or Challenge()
    discovery = yield from discover_metadata(
        server.url,
        server_challenge,
        trusted_issuers=options.trusted_issuers,
        configured_issuer=options.authorization_server,
        preferred_issuer=previous_login.issuer if previous_login else None,
        configured_resource=options.resource or None,
    )
    authorization_server = discovery.authorization_server
    client = _configured_client(server, authorization_server, previous_login, inputs.sign)
    granted_scope = (
        previous_login.scope
        if previous_login is not None and server_challenge.has_insufficient_scope
        else frozenset[str]()
    )
    scope = select_scope(
        discovery,
        server_challenge,
        configured_scope=options.scope,
        granted_scope=granted_scope,
        scope_cap=options.scope_cap,
    )
    if scope and not options.scope:
        # Without a user, no refresh token is needed: this process repeats the grant.
        scope = scope - {"offline_access"} or None
    resource = select_resource(server.url, discovery.protected_resource, options.resource)
    prover = inputs.prover if should_use_dpop(server, discovery, server_challenge) else None
    token_endpoint = TokenEndpoint(
        client, authorization_server.issuer, authorization_server.token_endpoint, inputs.sign, prover
    )
    tokens = yield from _request_tokens(server, token_endpoint, inputs.assertion, resource, scope, now)
    require_dpop(tokens, options, host_of(authorization_server.issuer))
    # RFC 6749 section 5.1: scope is "OPTIONAL, if identical to the scope requested by the client".
    tokens = tokens if tokens.scope is not None else replace(tokens, scope=scope)
    # RFC 6749 section 4.4.3: "A refresh token SHOULD NOT be included", and this package would not use it.
    return GrantResult(replace(tokens, refresh_token=None), client, authorization_server, resource, scope)


def _configured_client(
    server: Server,
    authorization_server: AuthorizationServer,
    previous_login: PreviousLogin | None,
    sign: Signer | None,
) -> Client:
    options = server.options
    if options.client_id is None:
        raise ConfigError(f"The grant `{options.grant}` of {server.name} needs `oauth.client_id`.")
    check_client_issuer(options.client_id, authorization_server, previous_login or PreviousLogin())
    method = options.token_endpoint_auth_method or ("private_key_jwt" if sign is not None else None)
    client = configured_client(authorization_server, options.client_id, options.client_secret, method, "")
    return replace(client, redirect_uris=())


def _request_tokens(
    server: Server,
    token_endpoint: TokenEndpoint,
    assertion: Secret | None,
    resource: str | None,
    scope: frozenset[str] | None,
    now: float,
) -> Exchange[Tokens]:
    options = server.options
    if options.grant == "client_credentials":
        form = _grant_form("client_credentials", resource, scope)
        return (yield from request_tokens(token_endpoint, CLIENT_CREDENTIALS_STEP, form, now))
    if assertion is None:
        raise ConfigError(
            f"The grant `{options.grant}` of {server.name} needs a token in a file.",
            "Set `oauth.assertion_file`, or `oauth.identity_provider` for the grant `enterprise`.",
        )
    if options.grant == "enterprise" and options.identity_provider is not None:
        provider = options.identity_provider
        assertion = yield from exchange_for_id_jag(
            provider, assertion, token_endpoint.issuer, resource, scope
        )
    else:
        check_audience(assertion, token_endpoint)
    form = {**_grant_form(JWT_BEARER, resource, scope), "assertion": assertion}
    return (yield from request_tokens(token_endpoint, ASSERTION_STEP, form, now))


def _grant_form(grant_type: str, resource: str | None, scope: frozenset[str] | None) -> Form:
    form: dict[str, str | Secret] = {"grant_type": grant_type}
    if resource is not None:
        form["resource"] = resource
    if scope:
        form["scope"] = format_scope(scope)
    return form


def check_audience(assertion: Secret, token_endpoint: TokenEndpoint) -> None:
    """Raise ConfigError if a workload's JWT is not addressed to this token endpoint's issuer.

    Without this check, a hostile MCP server could name its own authorization server. That server would
    receive the JWT and could use it at the server that the JWT is addressed to.
    """
    audience = _decode_claims(assertion).get("aud")
    audiences = cast("list[object]", audience) if isinstance(audience, list) else [audience]
    accepted_audiences = {
        token_endpoint.issuer,
        token_endpoint.issuer.rstrip("/"),
        token_endpoint.issuer.rstrip("/") + "/",
        token_endpoint.url,
    }
    if not any(isinstance(value, str) and value in accepted_audiences for value in audiences):
        raise ConfigError(
            f"The token in `oauth.assertion_file` is not addressed to {host_of(token_endpoint.issuer)}.",
            "Get a token whose audience is the issuer of that authorization server, or set "
            "`oauth.authorization_server`.",
            server_message=token_endpoint.issuer,
        )


def _decode_claims(assertion: Secret) -> Document:
    claims = read_unverified_claims(assertion.reveal())
    if claims is None:
        raise ConfigError("The file that `oauth.assertion_file` names does not hold a signed JWT.")
    return claims


def exchange_for_id_jag(
    provider: IdentityProvider,
    subject_token: Secret,
    audience: str,
    resource: str | None,
    scope: frozenset[str] | None,
) -> Exchange[Secret]:
    """Exchange the identity provider's token for an assertion to one authorization server (RFC 8693 §2.1).

    `audience` is that server's issuer. Raises TokenError, MalformedResponse or a NetworkError.
    """
    method = "none" if provider.client_secret is None else "client_secret_basic"
    client = Client(provider.client_id, provider.client_secret, method)
    form = {
        **_grant_form(TOKEN_EXCHANGE, resource, scope),
        "requested_token_type": ID_JAG,
        "audience": audience,
        "subject_token": subject_token,
        "subject_token_type": _TOKEN_TYPE_PREFIX + provider.subject_type,
    }
    fields, headers = authenticate_client(client, provider.token_endpoint, form)
    response = yield post_form(provider.token_endpoint, EXCHANGE_STEP, fields, headers)
    host = host_of(provider.token_endpoint)
    secrets = tuple(secret for secret in (subject_token, provider.client_secret) if secret is not None)
    try:
        document = read_granted_document(response, host, EXCHANGE_STEP, secrets)
    except TokenError as error:
        error.advice = "Sign in at your identity provider again, and write the new token to `token_file`."
        raise
    id_jag = string_member(document, "access_token")
    if id_jag is None or document.get("issued_token_type") != ID_JAG:
        raise MalformedResponse(f"{host} responded to the {EXCHANGE_STEP} without an ID-JAG.")
    return Secret(id_jag)
