"""Protected resource metadata and authorization server metadata. RFC 9728, RFC 8414, OIDC Discovery.

`discover_metadata` does the whole step, from a challenge to the authorization server. Servers of MCP
2025-03-26 publish no protected resource metadata; their own origin is the authorization server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from hermes_mcp_auth_remote.errors import (
    AddressRefused,
    ClientRefused,
    DiscoveryFailed,
    IssuerMismatch,
    MalformedResponse,
    McpAuthError,
    NetworkError,
    ServerError,
    UnsafeUrl,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.token_errors import is_html_response
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
    split_url,
)
from hermes_mcp_auth_remote.oauth.wire import (
    Document,
    Exchange,
    Response,
    get_json,
    read_json_object,
    retry_after_text,
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
# Keep the members that this package reads, and the members that Hermes uses. If they exceed the limit of
# `select_members`, the last ones are cut.
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
    configured_resource: str | None = None,
    is_suitable: Callable[[AuthorizationServer], bool] | None = None,
) -> Exchange[Discovery]:
    """Find the authorization server of an MCP server, in the order of the MCP specification.

    `configured_issuer` is the operator's choice and replaces the protected resource's list. If the resource
    lists `preferred_issuer` (the store has credentials for it), that issuer is tried first. The result is the
    first authorization server for which `is_suitable` is True, else the first one with metadata.
    `configured_resource` is the operator's `oauth.resource`, which may differ from the server's URL. Raises
    DiscoveryFailed, ClientRefused, IssuerMismatch, MalformedResponse, UnsafeUrl or a NetworkError.
    """
    # The operator trusts an issuer by configuring it.
    trusted = frozenset(trusted_issuers) | {configured_issuer or ""}
    refusal: ClientRefused | None = None
    try:
        resource = yield from discover_protected_resource(
            server_url,
            challenge,
            configured_resource=configured_resource,
            requires_issuers=configured_issuer is None,
        )
    except ClientRefused as error:
        # A server of MCP 2025-03-26 may publish only authorization server metadata.
        resource, refusal = None, error
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
        if found_server is None and refusal is not None:
            # A refusal does not prove that there is no metadata, so do not guess endpoints (quirk 56).
            raise refusal
        return Discovery(found_server or default_authorization_server(server_url), None)
    return Discovery((yield from _discover_first_suitable(issuers, trusted, is_suitable)), resource)


def _discover_first_suitable(
    issuers: tuple[str, ...],
    trusted_issuers: frozenset[str],
    is_suitable: Callable[[AuthorizationServer], bool] | None,
) -> Exchange[AuthorizationServer]:
    first_error: McpAuthError | None = None
    unsuitable_server: AuthorizationServer | None = None
    for issuer in issuers:
        try:
            found_server = yield from discover_authorization_server(issuer, trusted_issuers)
        except (ServerError, NetworkError) as error:
            first_error = first_error or error
            continue
        if found_server is not None and (is_suitable is None or is_suitable(found_server)):
            return found_server
        unsuitable_server = unsuitable_server or found_server
    if unsuitable_server is not None:
        return unsuitable_server
    raise first_error or DiscoveryFailed(
        f"The authorization server {host_of(issuers[0])} publishes no metadata at its standard addresses."
    )


def discover_protected_resource(
    server_url: str,
    challenge: Challenge,
    *,
    configured_resource: str | None = None,
    requires_issuers: bool = True,
) -> Exchange[ProtectedResource | None]:
    """Fetch protected resource metadata: from the challenge's URLs, else by path, else at the root.

    Returns None if the server publishes none (MCP 2025-03-26). Raises ClientRefused if each URL responds with
    a status of REFUSING_STATUSES. Raises another ServerError or a NetworkError if a request fails, because a
    fallback after a failure would be a downgrade.
    """
    first_error: McpAuthError | None = None
    refusals: list[bool] = []
    # Sentry sends two URLs and the first does not work (quirk 8), so try all, then the well-known URLs.
    urls = (*challenge.resource_metadata, *protected_resource_urls(server_url))
    for url in dict.fromkeys(urls):
        try:
            response = yield get_json(
                safe_url(url, f"address of the {PROTECTED_RESOURCE_STEP}"), PROTECTED_RESOURCE_STEP
            )
            if response.ok and not is_html_page(response):
                return read_protected_resource_response(
                    response,
                    server_url,
                    configured_resource=configured_resource,
                    requires_issuers=requires_issuers,
                )
            refusals.append(_is_refused(response, PROTECTED_RESOURCE_STEP))
        except AddressRefused:
            raise
        except (ServerError, NetworkError) as error:
            first_error = first_error or error
    if first_error is not None:
        raise first_error
    if all(refusals):
        raise _client_refused_error(server_url, PROTECTED_RESOURCE_STEP)
    return None


def read_protected_resource_response(
    response: Response,
    server_url: str,
    *,
    configured_resource: str | None = None,
    requires_issuers: bool = True,
) -> ProtectedResource:
    """Read protected resource metadata and check that it is for this server (RFC 9728 section 3.3).

    `configured_resource` is the operator's `oauth.resource`; metadata for exactly that value is accepted.
    `requires_issuers` is False if the operator configured the authorization server. Raises DiscoveryFailed,
    MalformedResponse or UnsafeUrl.
    """
    document = read_json_object(response.body, PROTECTED_RESOURCE_STEP)
    resource = string_member(document, "resource")
    if resource is None:
        # RFC 9728 section 2 makes it REQUIRED; without it the document may be for any server.
        raise MalformedResponse(f"The {PROTECTED_RESOURCE_STEP} names no `resource`.")
    if resource.strip() != configured_resource:
        _check_resource(resource, server_url)
    issuers = string_list(document, "authorization_servers", MAX_ISSUERS_READ) or ()
    if issuers:
        # Drop unsafe URLs if at least one URL is safe.
        issuers = tuple(issuer for issuer in issuers if is_safe_url(issuer)) or issuers
        safe_url(issuers[0], "issuer in the protected resource metadata")
    elif requires_issuers:
        raise DiscoveryFailed(
            f"The {PROTECTED_RESOURCE_STEP} lists no authorization server.",
            "Set `oauth.authorization_server` for this server to the issuer of its authorization server; the "
            "server's operator knows it.",
        )
    # `dpop_signing_alg_values_supported` alone does not require proofs (RFC 9728 section 2).
    requires_dpop = document.get("dpop_bound_access_tokens_required") is True
    return ProtectedResource(resource, issuers, string_list(document, "scopes_supported"), requires_dpop)


def _check_resource(resource: str, server_url: str) -> None:
    """Raise DiscoveryFailed or UnsafeUrl if a `resource` is not this server (RFC 9728 section 3.3)."""
    server_parts = urlsplit(safe_url(server_url, "server address"))
    try:
        parts = split_url(resource)
        is_web_address = parts.scheme.lower() in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        raise UnsafeUrl("The `resource` of the protected resource metadata is not a URL.") from None
    is_downgrade = (parts.scheme.lower(), server_parts.scheme) == ("http", "https")
    if resource != resource.strip():
        difference = "an identifier with blanks around it"
    elif is_web_address and is_downgrade and parts.netloc.lower() == server_parts.netloc:
        difference = "plain http instead of https"
    elif is_web_address:
        safe_url(resource, "`resource` of the protected resource metadata")
        if covers_url(resource, server_url):
            return
        if origin_of(resource) != origin_of(server_url):
            raise DiscoveryFailed(
                f"The {PROTECTED_RESOURCE_STEP} is for {host_of(resource)}, not for the requested server.",
                "Do not log in there; check the server's address and report it to its operator.",
            )
        is_same_path = parts.path.rstrip("/") == server_parts.path.rstrip("/")
        difference = (
            "this server's address with another query" if is_same_path else "another path of this host"
        )
    elif parts.scheme.lower() in {"http", "https", "file", "data", "javascript"}:
        raise UnsafeUrl("The `resource` of the protected resource metadata is not an https URL.")
    else:
        difference = "an identifier that is not an https URL"
    raise DiscoveryFailed(
        f"The {PROTECTED_RESOURCE_STEP} is for {difference}, not for the requested server.",
        f"If you trust {host_of(server_url)}, copy the `resource` in the server's message exactly into "
        "`oauth.resource` of this server.",
        server_message=resource,
    )


def discover_authorization_server(
    issuer: str, trusted_issuers: frozenset[str] = frozenset()
) -> Exchange[AuthorizationServer | None]:
    """Fetch an issuer's metadata from its well-known URLs; None if it publishes none.

    Raises ClientRefused if each URL responds with a status of REFUSING_STATUSES. Raises another ServerError
    or a NetworkError if a request fails.
    """
    first_error: McpAuthError | None = None
    refusals: list[bool] = []
    for url in authorization_server_urls(safe_url(issuer, "issuer")):
        try:
            response = yield get_json(url, AUTHORIZATION_SERVER_STEP)
            if response.ok and not is_html_page(response):
                return read_authorization_server_response(response, issuer, trusted_issuers)
            refusals.append(_is_refused(response, AUTHORIZATION_SERVER_STEP))
        except (ServerError, NetworkError) as error:
            if isinstance(error, NetworkError):
                # The other well-known URLs are on the same host, so they would only make the user wait.
                raise
            first_error = first_error or error
    if first_error is not None:
        raise first_error
    if all(refusals):
        raise _client_refused_error(issuer, AUTHORIZATION_SERVER_STEP)
    return None


def is_html_page(response: Response) -> bool:
    """True if a response is an HTML page and not a JSON object: a single-page app sends a page for any path.

    Such a page means that the document is absent (quirk 54). Some servers send JSON as text/html.
    """
    return is_html_response(response) and response.body.lstrip()[:1] != b"{"


def _is_refused(response: Response, label: str) -> bool:
    """True if a status refuses the request, False if it means that the document is absent.

    Raises DiscoveryFailed for a temporary failure: 429, 5xx.
    """
    if response.status >= 500 or response.status == 429:
        raise DiscoveryFailed(
            f"The {label} could not be read: the server responded with status {response.status}.",
            f"Try again {retry_after_text(response) or 'later'}; if it fails again, the server's operator "
            "must fix it.",
        )
    return response.status in REFUSING_STATUSES


# The statuses of firewalls. A 401 counts as absent, because some servers send it for all unknown paths.
REFUSING_STATUSES = frozenset({403, 406, 451})


def _client_refused_error(url: str, label: str) -> ClientRefused:
    return ClientRefused(
        f"{host_of(url)} refuses this program: it answers each request for {label} with 403, 406 or 451."
    )


def read_authorization_server_response(
    response: Response, issuer: str, trusted_issuers: frozenset[str] = frozenset()
) -> AuthorizationServer:
    """Read authorization server metadata; raises IssuerMismatch, MalformedResponse or UnsafeUrl.

    RFC 8414 section 3.3: the `issuer` "MUST be identical" to the issuer from which the URL was built. Two
    differences are accepted: a trailing slash if the issuer has no path (quirk 1), and an issuer that
    `is_trusted_issuer` accepts (quirks 2, 3).
    """
    document = read_json_object(response.body, AUTHORIZATION_SERVER_STEP)
    published = string_member(document, "issuer")
    if published is None:
        raise MalformedResponse(f"The {AUTHORIZATION_SERVER_STEP} names no `issuer`.")
    requested_url = safe_url(issuer, "issuer")
    if _differs_only_by_scheme(published, requested_url):
        raise IssuerMismatch(
            f"The metadata of {origin_of(requested_url)} names the same issuer with http instead of https.",
            "The server's operator must configure its public https address; a TLS proxy may be in front.",
            server_message=published,
        )
    published_url = safe_url(published, "issuer")
    if (
        published != issuer
        # Equal by RFC 3986 section 6.2: only the default port, or the case of the host, differs.
        and published_url != requested_url
        and not _differs_only_by_slash(published, issuer)
        and not is_trusted_issuer(published, issuer, trusted_issuers)
    ):
        # The message contains only the checked origins, because a path may contain any text.
        is_same_origin = origin_of(published_url) == origin_of(requested_url)
        issuers_text = (
            "that issuer, as it is quoted" if is_same_origin else "both issuers, as they are quoted"
        )
        difference = (
            "another issuer with another path"
            if is_same_origin
            else _describe_difference(published_url, requested_url)
        )
        raise IssuerMismatch(
            f"The metadata of {origin_of(requested_url)} names {difference}, at {origin_of(published_url)}.",
            f"If you trust that, add exactly {issuers_text}, to `oauth.trusted_issuers` of this server.",
            server_message=published_url if is_same_origin else f"{published_url} and {requested_url}",
        )
    return authorization_server_from_document(document)


def _differs_only_by_scheme(published_issuer: str, requested_url: str) -> bool:
    try:
        published, requested = split_url(published_issuer), urlsplit(requested_url)
    except ValueError:
        return False
    is_downgrade = (published.scheme.lower(), requested.scheme) == ("http", "https")
    return is_downgrade and published.hostname == requested.hostname


def _describe_difference(published_url: str, requested_url: str) -> str:
    published, requested = urlsplit(published_url), urlsplit(requested_url)
    if published.hostname != requested.hostname or published.netloc == requested.netloc:
        return "another issuer"
    return f"another issuer, with another {'port' if published.scheme == requested.scheme else 'scheme'}"


def _differs_only_by_slash(published_issuer: str, requested_issuer: str) -> bool:
    published, requested = urlsplit(published_issuer), urlsplit(requested_issuer)
    have_no_path = all(p.path in {"", "/"} and not p.query and not p.fragment for p in (published, requested))
    return have_no_path and origin_of(published_issuer) == origin_of(requested_issuer)


def authorization_server_from_document(document: Document) -> AuthorizationServer:
    """Parse a metadata document and check all its URLs; raises MalformedResponse or UnsafeUrl.

    To save memory, returns the value of an earlier call if it is equal and still in use: thousands of logins
    may wait for one server.
    """
    document = select_members(document, _KEPT_MEMBERS)
    issuer = string_member(document, "issuer")
    known_server = _servers_in_use.get(issuer or "")
    if known_server is not None and known_server.document == document:
        return known_server

    def read_endpoint(name: str) -> str | None:
        value = string_member(document, name)
        if value is None:
            return None
        if "://" not in value and value.startswith(("/", "./", "../", "?")):
            # RFC 8414 section 2 requires a URL. The standards define no base for a relative one.
            raise UnsafeUrl(
                f"The `{name}` of the {AUTHORIZATION_SERVER_STEP} is a relative address, without a host.",
                "The server's operator must publish the whole https address; report it to them.",
            )
        return endpoint_url(value, f"`{name}`", issuer or "")

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
