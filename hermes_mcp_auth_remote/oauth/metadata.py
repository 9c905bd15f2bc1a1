"""Where to log in: protected resource and authorization server metadata. RFC 9728, RFC 8414, OIDC Discovery.

`discover` is the whole step: challenge in, authorization server out. Servers of 2025-03-26 publish no
protected resource metadata; there the MCP server's origin is the authorization server.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from hermes_mcp_auth_remote.errors import (
    AddressRefused,
    DiscoveryFailed,
    IssuerMismatch,
    MalformedResponse,
    McpAuthError,
    NetworkError,
    ServerError,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.urls import (
    authorization_server_urls,
    canonical_resource,
    covers_url,
    endpoint_url,
    host_of,
    is_safe_url,
    is_trusted_issuer,
    origin_of,
    protected_resource_urls,
    safe_url,
)
from hermes_mcp_auth_remote.oauth.wire import (
    Document,
    Exchange,
    Response,
    get_json,
    read_json_object,
    string_list,
    string_member,
)

PROTECTED_RESOURCE_STEP = "protected resource metadata"
AUTHORIZATION_SERVER_STEP = "authorization server metadata"
# Each one that fails costs up to three requests.
MAX_ISSUERS_TRIED = 4
# Of a list; a resource has one or two.
MAX_ISSUERS_READ = 8


@dataclass(frozen=True, slots=True)
class ProtectedResource:
    """Protected resource metadata (RFC 9728 section 2).

    `requires_dpop` is True if the resource accepts only tokens that are bound to a key (RFC 9449).
    """

    resource: str
    authorization_servers: tuple[str, ...]
    scopes_supported: tuple[str, ...] | None = None
    requires_dpop: bool = False


@dataclass(frozen=True, slots=True)
class AuthorizationServer:
    """Authorization server metadata (RFC 8414 section 2), its URLs checked; `document` is all it said."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    registration_endpoint: str | None = None
    revocation_endpoint: str | None = None
    device_authorization_endpoint: str | None = None
    pushed_authorization_request_endpoint: str | None = None
    require_pushed_authorization_requests: bool = False
    code_challenge_methods_supported: tuple[str, ...] | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] | None = None
    scopes_supported: tuple[str, ...] | None = None
    grant_types_supported: tuple[str, ...] | None = None
    client_id_metadata_document_supported: bool = False
    authorization_response_iss_parameter_supported: bool = False
    is_openid: bool = False
    # True where nothing was published and the endpoints are the defaults of MCP 2025-03-26.
    uses_default_endpoints: bool = False
    document: Document = field(default_factory=dict[str, object], repr=False)


@dataclass(frozen=True, slots=True)
class Discovery:
    """What discovery found; `protected_resource` is None for a server of MCP 2025-03-26."""

    authorization_server: AuthorizationServer
    protected_resource: ProtectedResource | None = None


def discover_metadata(
    server_url: str,
    challenge: Challenge,
    *,
    trusted_issuers: Iterable[str] = (),
    configured_issuer: str | None = None,
    preferred_issuer: str | None = None,
) -> Exchange[Discovery]:
    """Find the authorization server of an MCP server, in the order of the MCP specification.

    `authorization_server` is the operator's own word and skips the protected resource's;
    `prefer_issuer` moves one of several to the front (the one that we hold credentials of).
    Raises DiscoveryFailed, IssuerMismatch, UnsafeUrl or a NetworkError.
    """
    # Who is asked on the operator's own word needs no second one.
    trusted = frozenset(trusted_issuers) | {configured_issuer or ""}
    try:
        resource = yield from discover_protected_resource(server_url, challenge)
    except (ServerError, NetworkError):
        if configured_issuer is None:
            raise
        resource = None
    if configured_issuer is not None:
        issuers: tuple[str, ...] = (configured_issuer,)
    elif resource is not None:
        preferred = (preferred_issuer or "").rstrip("/")
        known = sorted(resource.authorization_servers, key=lambda issuer: issuer.rstrip("/") != preferred)
        issuers = tuple(known[:MAX_ISSUERS_TRIED])
    else:
        # MCP 2025-03-26: "the authorization base URL [is] the MCP server URL [without] path".
        found = yield from discover_authorization_server(origin_of(server_url), trusted)
        return Discovery(found or default_authorization_server(server_url), None)
    first_trouble: McpAuthError | None = None
    for issuer in issuers:
        try:
            found = yield from discover_authorization_server(issuer, trusted)
        except (ServerError, NetworkError) as trouble:
            first_trouble = first_trouble or trouble
            continue
        if found is not None:
            return Discovery(found, resource)
    raise first_trouble or DiscoveryFailed(
        f"The authorization server {host_of(issuers[0])} publishes no metadata where the standards put it."
    )


def discover_protected_resource(server_url: str, challenge: Challenge) -> Exchange[ProtectedResource | None]:
    """Fetch protected resource metadata: from the challenge, else by path, else at the root.

    Returns None where the server publishes none at all (MCP 2025-03-26). A server that fails to answer is
    not one that publishes none: falling back then would be a downgrade, so the failure is raised.
    """
    trouble: McpAuthError | None = None
    # Sentry sends two and the first is dead (quirk 8): each one, then the well-known places.
    places = (*challenge.resource_metadata, *protected_resource_urls(server_url))
    for url in dict.fromkeys(places):
        try:
            response = yield get_json(
                safe_url(url, f"address of the {PROTECTED_RESOURCE_STEP}"), PROTECTED_RESOURCE_STEP
            )
            if response.ok:
                return read_protected_resource_response(response, server_url)
            _check_absent(response, PROTECTED_RESOURCE_STEP)
        except AddressRefused:
            raise
        except (ServerError, NetworkError) as error:
            trouble = trouble or error
    if trouble is not None:
        raise trouble
    return None


def read_protected_resource_response(response: Response, server_url: str) -> ProtectedResource:
    """Read protected resource metadata and check that it speaks of this server (RFC 9728 section 3.3)."""
    document = read_json_object(response.body, PROTECTED_RESOURCE_STEP)
    resource = string_member(document, "resource")
    if resource is None:
        # RFC 9728 section 2 makes it REQUIRED; without it the document may be of any server.
        raise MalformedResponse(f"The {PROTECTED_RESOURCE_STEP} names no `resource`.")
    safe_url(resource, "`resource` of the protected resource metadata")
    if not covers_url(resource, server_url):
        raise DiscoveryFailed(
            f"The {PROTECTED_RESOURCE_STEP} speaks of {host_of(resource)}, not of the server that was asked.",
            "Do not log in there; check the server's address and report it to its operator.",
        )
    issuers = string_list(document, "authorization_servers", MAX_ISSUERS_READ)
    if not issuers:
        raise DiscoveryFailed(f"The {PROTECTED_RESOURCE_STEP} lists no authorization server.")
    # One good address is enough; the others are never fetched.
    issuers = tuple(issuer for issuer in issuers if is_safe_url(issuer)) or issuers
    safe_url(issuers[0], "issuer in the protected resource metadata")
    # `dpop_signing_alg_values_supported` only offers proofs (RFC 9728 section 2).
    requires_dpop = document.get("dpop_bound_access_tokens_required") is True
    return ProtectedResource(resource, issuers, string_list(document, "scopes_supported"), requires_dpop)


def discover_authorization_server(
    issuer: str, trusted_issuers: frozenset[str] = frozenset()
) -> Exchange[AuthorizationServer | None]:
    """Fetch an issuer's metadata from each well-known place; None where all of them are absent."""
    trouble: McpAuthError | None = None
    for url in authorization_server_urls(safe_url(issuer, "issuer")):
        try:
            response = yield get_json(url, AUTHORIZATION_SERVER_STEP)
            if response.ok:
                return read_authorization_server_response(response, issuer, trusted_issuers)
            _check_absent(response, AUTHORIZATION_SERVER_STEP)
        except (ServerError, NetworkError) as error:
            if isinstance(error, NetworkError):
                # The same host failed once; its other well-known places would only make the user wait.
                raise
            trouble = trouble or error
    if trouble is not None:
        raise trouble
    return None


def _check_absent(response: Response, label: str) -> None:
    """Raise DiscoveryFailed unless a status means "there is no such document here"."""
    if response.status >= 500 or response.status == 429:
        raise DiscoveryFailed(
            f"The {label} could not be read: the server answered {response.status}.",
            "Try again later; if it lasts, the server's operator has to mend it.",
        )


def read_authorization_server_response(
    response: Response, issuer: str, trusted_issuers: frozenset[str] = frozenset()
) -> AuthorizationServer:
    """Read authorization server metadata; raises IssuerMismatch, UnreadableAnswer or UnsafeUrl.

    RFC 8414 section 3.3: the `issuer` "MUST be identical" to the one that built the URL. Two tolerances: a
    bare trailing slash where the issuer has no path (quirk 1), and what `is_trusted` takes (quirks 2, 3).
    """
    document = read_json_object(response.body, AUTHORIZATION_SERVER_STEP)
    published = string_member(document, "issuer")
    if published is None:
        raise MalformedResponse(f"The {AUTHORIZATION_SERVER_STEP} names no `issuer`.")
    shown, asked = safe_url(published, "issuer"), safe_url(issuer, "issuer")
    if (
        published != issuer
        and not _differs_only_by_slash(published, issuer)
        and not is_trusted_issuer(published, issuer, trusted_issuers)
    ):
        # A path may hold anything: only the origins, which were checked, are our own words.
        is_same_origin = origin_of(shown) == origin_of(asked)
        them = "that issuer, as it is quoted" if is_same_origin else "both issuers, as they are quoted"
        raise IssuerMismatch(
            f"The metadata of {origin_of(asked)} names another issuer, at {origin_of(shown)}.",
            f"If you trust that, add exactly {them}, to `oauth.trusted_issuers` of this server.",
            server_message=shown if is_same_origin else f"{shown} and {asked}",
        )
    return authorization_server_from_document(document)


def _differs_only_by_slash(published_issuer: str, requested_issuer: str) -> bool:
    one, other = urlsplit(published_issuer), urlsplit(requested_issuer)
    bare = all(p.path in {"", "/"} and not p.query and not p.fragment for p in (one, other))
    return bare and origin_of(published_issuer) == origin_of(requested_issuer)


def authorization_server_from_document(document: Document) -> AuthorizationServer:
    """Turn a metadata document into a value, every URL of it checked; raises UnreadableAnswer, UnsafeUrl."""
    issuer = string_member(document, "issuer")

    def read_endpoint(name: str) -> str | None:
        value = string_member(document, name)
        return None if value is None else endpoint_url(value, f"`{name}`", issuer or "")

    authorization_endpoint, token_endpoint = (
        read_endpoint("authorization_endpoint"),
        read_endpoint("token_endpoint"),
    )
    if issuer is None or authorization_endpoint is None or token_endpoint is None:
        raise MalformedResponse(
            f"The {AUTHORIZATION_SERVER_STEP} lacks `authorization_endpoint` or `token_endpoint`."
        )
    safe_url(issuer, "issuer")
    return AuthorizationServer(
        issuer=issuer,
        authorization_endpoint=authorization_endpoint,
        token_endpoint=token_endpoint,
        registration_endpoint=read_endpoint("registration_endpoint"),
        revocation_endpoint=read_endpoint("revocation_endpoint"),
        device_authorization_endpoint=read_endpoint("device_authorization_endpoint"),
        pushed_authorization_request_endpoint=read_endpoint("pushed_authorization_request_endpoint"),
        require_pushed_authorization_requests=document.get("require_pushed_authorization_requests") is True,
        code_challenge_methods_supported=string_list(document, "code_challenge_methods_supported"),
        token_endpoint_auth_methods_supported=string_list(document, "token_endpoint_auth_methods_supported"),
        scopes_supported=string_list(document, "scopes_supported"),
        grant_types_supported=string_list(document, "grant_types_supported"),
        client_id_metadata_document_supported=document.get("client_id_metadata_document_supported") is True,
        authorization_response_iss_parameter_supported=(
            document.get("authorization_response_iss_parameter_supported") is True
        ),
        is_openid="id_token_signing_alg_values_supported" in document,
        uses_default_endpoints=document.get("hermes_mcp_auth_guessed") is True,
        document=document,
    )


def default_authorization_server(server_url: str) -> AuthorizationServer:
    """Build the default endpoints of MCP 2025-03-26 for a server that publishes no metadata at all."""
    origin = origin_of(canonical_resource(server_url))
    return authorization_server_from_document(
        {
            "issuer": origin,
            "authorization_endpoint": f"{origin}/authorize",
            "token_endpoint": f"{origin}/token",
            "registration_endpoint": f"{origin}/register",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            # Ours; readers of RFC 8414 documents ignore what they do not know.
            "hermes_mcp_auth_guessed": True,
        }
    )
