"""Token requests, token responses and revocation. RFC 6749 §4.1.3, §5, §6; RFC 7009; RFC 8707 §2.2."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from hermes_mcp_auth_remote.errors import MalformedResponse, TokenError
from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest
from hermes_mcp_auth_remote.oauth.client import Client, Signer, authenticate_client, try_auth_methods
from hermes_mcp_auth_remote.oauth.dpop import Prover, send_with_proof
from hermes_mcp_auth_remote.oauth.jws import read_unverified_claims
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.oauth.redirect import AuthorizationResponse
from hermes_mcp_auth_remote.oauth.token_errors import read_granted_document
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import (
    MAX_MEMBER_CHARS,
    Document,
    Exchange,
    Form,
    Headers,
    Request,
    Response,
    format_scope,
    parse_scope,
    parse_seconds,
    post_form,
    sanitize,
    string_member,
)
from hermes_mcp_auth_remote.values import Secret, ServerOptions

TOKEN_STEP = "token request"  # noqa: S105  a step's name
REFRESH_STEP = "refresh"
REVOCATION_STEP = "revocation"
MAX_TOKEN_TYPE_CHARS = 64

TokenScheme = Literal["Bearer", "DPoP"]
"""The scheme of the Authorization header; a DPoP token needs a proof of its key (RFC 9449 section 7.1)."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that a token endpoint issued (RFC 6749 section 5.1). Times: epoch seconds, None for unknown.

    `client_auth_method` is the authentication method that the server accepted, if it refused the client's
    own: store it with the client (`client.with_auth_method`).
    """

    access_token: Secret
    refresh_token: Secret | None = None
    scope: frozenset[str] | None = None
    expires_at: float | None = None
    refresh_expires_at: float | None = None
    obtained_at: float | None = None
    account: str | None = None
    scheme: TokenScheme = "Bearer"
    client_auth_method: str | None = field(default=None, compare=False)

    @property
    def authorization_header(self) -> str:
        """The value of the Authorization header; never "bearer", which some servers refuse (quirk 21)."""
        return f"{self.scheme} {self.access_token.reveal()}"

    def matches_header(self, authorization_header: Secret | None) -> bool:
        """True if the value of an Authorization header contains this access token."""
        return Secret(self.authorization_header) == authorization_header


def exchange_code(
    response: AuthorizationResponse,
    request: AuthorizationRequest,
    now: float,
    *,
    sign: Signer | None = None,
    prover: Prover | None = None,
) -> Exchange[Tokens]:
    """Exchange the code for tokens (RFC 6749 section 4.1.3). `now` is in epoch seconds.

    With a `prover` the server may bind the tokens to its key (RFC 9449 section 5). Raises TokenError,
    MalformedResponse or a NetworkError.
    """
    form: dict[str, str | Secret] = {
        "grant_type": "authorization_code",
        "code": response.code,
        "redirect_uri": request.redirect_uri,
        "code_verifier": request.code_verifier,
    }
    if request.resource is not None:
        form["resource"] = request.resource
    token_endpoint = TokenEndpoint(request.client, request.issuer, request.token_endpoint, sign, prover)
    tokens = yield from request_tokens(token_endpoint, TOKEN_STEP, form, now)
    # RFC 6749 section 5.1: scope is "OPTIONAL, if identical to the scope requested by the client".
    return tokens if tokens.scope is not None else replace(tokens, scope=request.scope)


def refresh_tokens(
    authorization_server: AuthorizationServer,
    client: Client,
    tokens: Tokens,
    now: float,
    *,
    resource: str | None = None,
    scope: frozenset[str] | None = None,
    sign: Signer | None = None,
    prover: Prover | None = None,
) -> Exchange[Tokens]:
    """Refresh tokens (RFC 6749 section 6). `now` is in epoch seconds.

    Values that the response omits are taken from `tokens`. Most servers need no `scope`; Entra requires it
    (quirk 28). Raises TokenError ("invalid_grant" if the session is over), MalformedResponse or a
    NetworkError.
    """
    if tokens.refresh_token is None:
        raise TokenError("There is no refresh token.", "invalid_grant")
    form: dict[str, str | Secret] = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token}
    if resource is not None:
        form["resource"] = resource
    if scope:
        form["scope"] = format_scope(scope)
    token_endpoint = TokenEndpoint(
        client, authorization_server.issuer, authorization_server.token_endpoint, sign, prover
    )
    new_tokens = yield from request_tokens(token_endpoint, REFRESH_STEP, form, now)
    return replace(
        new_tokens,
        # A server that does not rotate refresh tokens sends none; the old one stays valid (quirk 33).
        refresh_token=new_tokens.refresh_token or tokens.refresh_token,
        refresh_expires_at=new_tokens.refresh_expires_at
        if new_tokens.refresh_token
        else tokens.refresh_expires_at,
        scope=new_tokens.scope if new_tokens.scope is not None else tokens.scope,
        account=new_tokens.account or tokens.account,
    )


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """A token endpoint and the client that authenticates there."""

    client: Client
    issuer: str
    url: str
    sign: Signer | None = None
    prover: Prover | None = None


def request_tokens(token_endpoint: TokenEndpoint, step: str, form: Form, now: float) -> Exchange[Tokens]:
    """Send one token request. `now` is in epoch seconds.

    If the server refuses the client's authentication method, try the other one once (quirks 17, 50, 51). The
    tokens then name the method that worked. Raises TokenError, MalformedResponse or a NetworkError.
    """
    endpoint = token_endpoint.url

    def attempt(client: Client) -> Exchange[Tokens]:
        fields, headers = authenticate_client(client, token_endpoint.issuer, form, sign=token_endpoint.sign)
        secrets = tuple(
            v for v in (*fields.values(), token_endpoint.client.client_secret) if isinstance(v, Secret)
        )
        # A server that quotes the Authorization header quotes the secret.
        secrets += tuple(
            Secret(value.reveal().removeprefix("Basic ")) for _, value in headers if isinstance(value, Secret)
        )
        request = post_form(endpoint, step, fields, headers, is_token_request=True)
        response = yield from send_with_proof(request, token_endpoint.prover)
        return read_token_response(
            response, now, host_of(endpoint), step, secrets, has_proof=token_endpoint.prover is not None
        )

    tokens, client = yield from try_auth_methods(token_endpoint.client, attempt)
    is_same_method = client.auth_method == token_endpoint.client.auth_method
    return tokens if is_same_method else replace(tokens, client_auth_method=client.auth_method)


def read_token_response(
    response: Response,
    now: float,
    host: str,
    step: str = TOKEN_STEP,
    secrets: tuple[Secret, ...] = (),
    *,
    has_proof: bool = False,
) -> Tokens:
    """Read a token response, JSON or form. `now` is in epoch seconds.

    Raises TokenError or MalformedResponse. Accepts a DPoP token only if the request carried a proof
    (`has_proof`), because a client without the key cannot use the token.
    """
    document = read_granted_document(response, host, step, secrets)
    return _read_tokens(
        _flatten_nested_token(document), now, f"response to the {step} at {host}", has_proof=has_proof
    )


def _flatten_nested_token(document: Document) -> Document:
    # Slack nests the user's token (quirk 31).
    user_document = document.get("authed_user")
    if not document.get("access_token") and isinstance(user_document, dict) and document.get("ok") is True:
        return cast("Document", user_document)
    return document


def _read_tokens(document: Document, now: float, label: str, *, has_proof: bool) -> Tokens:
    access_token = string_member(document, "access_token")
    if access_token is None and string_member(document, "id_token") is not None:
        # OpenID Connect servers send only an ID token if the request names nothing else (quirk 63).
        raise MalformedResponse(
            f"The {label} has an ID token but no access token: the login asked for no API.",
            "Set `oauth.scope` for this server to a scope of the MCP server, or its audience with "
            "`oauth.authorize_params: {audience: …}`; the server's operator knows both. Then log in again.",
        )
    if (
        access_token is None
        or not (access_token.isascii() and access_token.isprintable())
        or " " in access_token
    ):
        raise MalformedResponse(f"The {label} has no usable access token.")
    scheme = _read_scheme(string_member(document, "token_type"))
    # RFC 6749 section 7.1: a client "MUST NOT use an access token if it does not understand the token type".
    is_bound = has_proof and scheme == "dpop"
    if scheme not in {"bearer", "user"} and not is_bound:
        raise MalformedResponse(f"The {label} grants a token that is not a Bearer token.")
    refresh_token, scope = string_member(document, "refresh_token"), document.get("scope")
    expires_in = parse_seconds(document.get("expires_in"))
    refresh_in = parse_seconds(document.get("refresh_token_expires_in", document.get("refresh_expires_in")))
    return Tokens(
        access_token=Secret(access_token),
        refresh_token=Secret(refresh_token) if refresh_token else None,
        # GitHub and Slack separate the scopes with commas.
        scope=(parse_scope(scope.replace(",", " ")) or None) if isinstance(scope, str) else None,
        expires_at=None if expires_in is None else now + expires_in,
        refresh_expires_at=None if refresh_in is None else now + refresh_in,
        obtained_at=now,
        account=account_from_id_token(document.get("id_token")),
        scheme="DPoP" if is_bound else "Bearer",
    )


def shift_times(tokens: Tokens, seconds: float) -> Tokens:
    """Return the tokens with all times moved by `seconds`: the times come from another clock."""

    def shift(time: float | None) -> float | None:
        return None if time is None else time + seconds

    return replace(
        tokens,
        expires_at=shift(tokens.expires_at),
        obtained_at=shift(tokens.obtained_at),
        refresh_expires_at=shift(tokens.refresh_expires_at),
    )


def _read_scheme(token_type: str | None) -> str:
    """Return a token type in lower case; "BearerToken" and "Bearer " are Bearer (quirk 63)."""
    scheme = re.sub(r"[\s_-]", "", (token_type or "bearer")[:MAX_TOKEN_TYPE_CHARS]).lower()
    return scheme.removesuffix("token") or "bearer"


def require_dpop(tokens: Tokens, options: ServerOptions, host: str) -> None:
    """Raise MalformedResponse for tokens that are bound to no key if the operator requires DPoP.

    RFC 9449 section 5: a server that does not support DPoP ignores the proof and issues a Bearer token.
    """
    if options.dpop and tokens.scheme != "DPoP":
        raise MalformedResponse(
            f"{host} granted a token that is bound to no key, and `oauth.dpop` demands one.",
            "Have the provider bind tokens to keys (DPoP), or remove `oauth.dpop: true` from the settings.",
        )


def account_from_id_token(id_token: object) -> str | None:
    """Return the user's e-mail address, name or subject from an ID token, for display; else None.

    The signature is not verified: OpenID Connect Core section 3.1.3.7 accepts TLS to the token endpoint
    instead, and no decision depends on the account.
    """
    if not isinstance(id_token, str) or len(id_token) > MAX_MEMBER_CHARS:
        return None
    claims = read_unverified_claims(id_token) or {}
    for name in ("email", "preferred_username", "name", "sub"):
        if account := sanitize(claims.get(name)):
            return account
    return None


def revocation_request(
    authorization_server: AuthorizationServer,
    client: Client,
    token: Secret,
    token_type_hint: str,
    *,
    sign: Signer | None = None,
) -> Request | None:
    """Build a revocation request (RFC 7009 section 2.1); None if the server has no endpoint.

    `token_type_hint` is "access_token" or "refresh_token".
    """
    if authorization_server.revocation_endpoint is None:
        return None
    form: Form = {"token": token, "token_type_hint": token_type_hint}
    headers: Headers
    fields, headers = authenticate_client(client, authorization_server.issuer, form, sign=sign)
    return post_form(authorization_server.revocation_endpoint, REVOCATION_STEP, fields, headers)
