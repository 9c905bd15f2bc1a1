"""Protected resource metadata and authorization server metadata. RFC 9728, RFC 8414, OIDC Discovery.

`discover_metadata` does the whole step, from a challenge to the authorization server. Servers of MCP
2025-03-26 publish no protected resource metadata; their own origin is the authorization server.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

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
    select_members,
    string_list,
    string_member,
)

PROTECTED_RESOURCE_STEP = "protected resource metadata"
AUTHORIZATION_SERVER_STEP = "authorization server metadata"
# Each issuer that fails costs up to three requests.
MAX_ISSUERS_TRIED = 4
# The limit for a resource's list; a real resource has one or two.
MAX_ISSUERS_READ = 8
# The members that are kept: those that this package reads, and those of Hermes's model that Hermes uses. If
# they exceed the limit of `select_members`, the last ones are cut.
_KEPT_MEMBERS = (
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "registration_endpoint",
    "revocation_endpoint",
    "device_authorization_endpoint",
    "pushed_authorization_request_endpoint",
    "require_pushed_authorization_requests",
    "client_id_metadata_document_supported",
    "authorization_response_iss_parameter_supported",
    "hermes_mcp_auth_guessed",
    "code_challenge_methods_supported",
    "token_endpoint_auth_methods_supported",
    "grant_types_supported",
    "response_types_supported",
    "response_modes_supported",
    "dpop_signing_alg_values_supported",
    "id_token_signing_alg_values_supported",
    # Microsoft Entra.
    "tenant_region_scope",
    "cloud_instance_name",
    "msgraph_host",
    "scopes_supported",
)


@dataclass(frozen=True, slots=True)
class ProtectedResource:
    """Protected resource metadata (RFC 9728 section 2).

    `requires_dpop` is True if the resource accepts only tokens that are bound to a key (RFC 9449).
    """

    resource: str
    authorization_servers: tuple[str, ...]
    scopes_supported: tuple[str, ...] | None = None
    requires_dpop: bool = False


@dataclass(frozen=True, slots=True, weakref_slot=True)
class AuthorizationServer:
    """Authorization server metadata with checked URLs (RFC 8414 section 2).

    `document` holds the members of the metadata document that are used, at most 64 KiB as JSON.
    """

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
    # True if the server publishes no metadata and the endpoints are the defaults of MCP 2025-03-26.
    uses_default_endpoints: bool = False
    document: Document = field(default_factory=dict[str, object], repr=False)


@dataclass(frozen=True, slots=True)
class Discovery:
    """The result of discovery; `protected_resource` is None for a server of MCP 2025-03-26."""

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

    `configured_issuer` is the operator's choice and replaces the protected resource's list. If the resource
    lists `preferred_issuer` (the store has credentials for it), that issuer is tried first.
    Raises DiscoveryFailed, IssuerMismatch, MalformedResponse, UnsafeUrl or a NetworkError.
    """
    # The operator trusts an issuer by configuring it.
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
        sorted_issuers = sorted(
            resource.authorization_servers, key=lambda issuer: issuer.rstrip("/") != preferred
        )
        issuers = tuple(sorted_issuers[:MAX_ISSUERS_TRIED])
    else:
        # MCP 2025-03-26: "the authorization base URL [is] the MCP server URL [without] path".
        found_server = yield from discover_authorization_server(origin_of(server_url), trusted)
        return Discovery(found_server or default_authorization_server(server_url), None)
    first_error: McpAuthError | None = None
    for issuer in issuers:
        try:
            found_server = yield from discover_authorization_server(issuer, trusted)
        except (ServerError, NetworkError) as error:
            first_error = first_error or error
            continue
        if found_server is not None:
            return Discovery(found_server, resource)
    raise first_error or DiscoveryFailed(
        f"The authorization server {host_of(issuers[0])} publishes no metadata at its standard addresses."
    )


def discover_protected_resource(server_url: str, challenge: Challenge) -> Exchange[ProtectedResource | None]:
    """Fetch protected resource metadata: from the challenge's URLs, else by path, else at the root.

    Returns None if the server publishes none (MCP 2025-03-26). Raises a ServerError or NetworkError if a
    request fails, because a fallback after a failure would be a downgrade.
    """
    first_error: McpAuthError | None = None
    # Sentry sends two URLs and the first does not work (quirk 8), so try all, then the well-known URLs.
    urls = (*challenge.resource_metadata, *protected_resource_urls(server_url))
    for url in dict.fromkeys(urls):
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
            first_error = first_error or error
    if first_error is not None:
        raise first_error
    return None


def read_protected_resource_response(response: Response, server_url: str) -> ProtectedResource:
    """Read protected resource metadata and check that it is for this server (RFC 9728 section 3.3).

    Raises DiscoveryFailed, MalformedResponse or UnsafeUrl.
    """
    document = read_json_object(response.body, PROTECTED_RESOURCE_STEP)
    resource = string_member(document, "resource")
    if resource is None:
        # RFC 9728 section 2 makes it REQUIRED; without it the document may be for any server.
        raise MalformedResponse(f"The {PROTECTED_RESOURCE_STEP} names no `resource`.")
    safe_url(resource, "`resource` of the protected resource metadata")
    if not covers_url(resource, server_url):
        raise DiscoveryFailed(
            f"The {PROTECTED_RESOURCE_STEP} is for {host_of(resource)}, not for the requested server.",
            "Do not log in there; check the server's address and report it to its operator.",
        )
    issuers = string_list(document, "authorization_servers", MAX_ISSUERS_READ)
    if not issuers:
        raise DiscoveryFailed(f"The {PROTECTED_RESOURCE_STEP} lists no authorization server.")
    # Drop unsafe URLs if at least one URL is safe.
    issuers = tuple(issuer for issuer in issuers if is_safe_url(issuer)) or issuers
    safe_url(issuers[0], "issuer in the protected resource metadata")
    # `dpop_signing_alg_values_supported` only offers proofs (RFC 9728 section 2).
    requires_dpop = document.get("dpop_bound_access_tokens_required") is True
    return ProtectedResource(resource, issuers, string_list(document, "scopes_supported"), requires_dpop)


def discover_authorization_server(
    issuer: str, trusted_issuers: frozenset[str] = frozenset()
) -> Exchange[AuthorizationServer | None]:
    """Fetch an issuer's metadata from its well-known URLs; None if it publishes none.

    Raises a ServerError or NetworkError if a request fails.
    """
    first_error: McpAuthError | None = None
    for url in authorization_server_urls(safe_url(issuer, "issuer")):
        try:
            response = yield get_json(url, AUTHORIZATION_SERVER_STEP)
            if response.ok:
                return read_authorization_server_response(response, issuer, trusted_issuers)
            _check_absent(response, AUTHORIZATION_SERVER_STEP)
        except (ServerError, NetworkError) as error:
            if isinstance(error, NetworkError):
                # The other well-known URLs are on the same host, so they would only make the user wait.
                raise
            first_error = first_error or error
    if first_error is not None:
        raise first_error
    return None


def _check_absent(response: Response, label: str) -> None:
    """Raise DiscoveryFailed if a status does not mean that the document is absent: 429, 5xx."""
    if response.status >= 500 or response.status == 429:
        raise DiscoveryFailed(
            f"The {label} could not be read: the server responded with status {response.status}.",
            "Try again later; if it fails again, the server's operator must fix it.",
        )


def read_authorization_server_response(
    response: Response, issuer: str, trusted_issuers: frozenset[str] = frozenset()
) -> AuthorizationServer:
    """Read authorization server metadata; raises IssuerMismatch, MalformedResponse or UnsafeUrl.

    RFC 8414 section 3.3: the `issuer` "MUST be identical" to the one that built the URL. Two exceptions: a
    trailing slash if the issuer has no path (quirk 1), and an issuer that `is_trusted_issuer` accepts
    (quirks 2, 3).
    """
    document = read_json_object(response.body, AUTHORIZATION_SERVER_STEP)
    published = string_member(document, "issuer")
    if published is None:
        raise MalformedResponse(f"The {AUTHORIZATION_SERVER_STEP} names no `issuer`.")
    published_url, requested_url = safe_url(published, "issuer"), safe_url(issuer, "issuer")
    if (
        published != issuer
        and not _differs_only_by_slash(published, issuer)
        and not is_trusted_issuer(published, issuer, trusted_issuers)
    ):
        # The message contains only the checked origins, because a path may contain any text.
        is_same_origin = origin_of(published_url) == origin_of(requested_url)
        issuers_text = (
            "that issuer, as it is quoted" if is_same_origin else "both issuers, as they are quoted"
        )
        raise IssuerMismatch(
            f"The metadata of {origin_of(requested_url)} names another issuer, at "
            f"{origin_of(published_url)}.",
            f"If you trust that, add exactly {issuers_text}, to `oauth.trusted_issuers` of this server.",
            server_message=published_url if is_same_origin else f"{published_url} and {requested_url}",
        )
    return authorization_server_from_document(document)


def _differs_only_by_slash(published_issuer: str, requested_issuer: str) -> bool:
    published, requested = urlsplit(published_issuer), urlsplit(requested_issuer)
    have_no_path = all(p.path in {"", "/"} and not p.query and not p.fragment for p in (published, requested))
    return have_no_path and origin_of(published_issuer) == origin_of(requested_issuer)


def authorization_server_from_document(document: Document) -> AuthorizationServer:
    """Parse a metadata document and check all its URLs; raises MalformedResponse or UnsafeUrl.

    Returns the value of an earlier call if that is equal and still in use: thousands of logins may wait for
    one server.
    """
    document = select_members(document, _KEPT_MEMBERS)
    issuer = string_member(document, "issuer")
    known_server = _servers_in_use.get(issuer or "")
    if known_server is not None and known_server.document == document:
        return known_server

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
    authorization_server = AuthorizationServer(
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
    _servers_in_use[issuer] = authorization_server
    return authorization_server


_servers_in_use = WeakValueDictionary[str, AuthorizationServer]()


def default_authorization_server(server_url: str) -> AuthorizationServer:
    """Build the default endpoints of MCP 2025-03-26, for a server that publishes no metadata."""
    origin = origin_of(canonical_resource(server_url))
    return authorization_server_from_document(
        {
            "issuer": origin,
            "authorization_endpoint": f"{origin}/authorize",
            "token_endpoint": f"{origin}/token",
            "registration_endpoint": f"{origin}/register",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            # This package's own member; readers of RFC 8414 documents ignore unknown members.
            "hermes_mcp_auth_guessed": True,
        }
    )
