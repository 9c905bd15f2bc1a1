"""Describe what `doctor` found: requests, supported features, and notes, without I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import cast

from hermes_mcp_auth_remote.errors import MalformedResponse, McpAuthError
from hermes_mcp_auth_remote.flows.discovery import PROBE_STEP, TOKEN_PROBE_STEP
from hermes_mcp_auth_remote.flows.dry_run import Findings
from hermes_mcp_auth_remote.http.traced_exchange import TracedRequest
from hermes_mcp_auth_remote.oauth.authorization import PUSHED_REQUEST_STEP
from hermes_mcp_auth_remote.oauth.challenge import read_challenge
from hermes_mcp_auth_remote.oauth.client import CONFIGURED_CLIENT_PORT
from hermes_mcp_auth_remote.oauth.dpop import DPOP_ALGORITHM, supports_dpop
from hermes_mcp_auth_remote.oauth.metadata import (
    AUTHORIZATION_SERVER_STEP,
    MAX_ISSUERS_TRIED,
    PROTECTED_RESOURCE_STEP,
    REFUSING_STATUSES,
    Discovery,
)
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import (
    Response,
    format_scope,
    read_json_object,
    sanitize,
    string_list,
    string_member,
)
from hermes_mcp_auth_remote.phrases import display_url
from hermes_mcp_auth_remote.values import Server, ServerOptions

# Options whose key in config.yaml is not `oauth.<option name>`.
_CONFIG_KEYS = {
    "verify_tls": "ssl_verify",
    "ca_file": "ssl_verify",
    "client_cert": "client_cert",
    "client_key": "client_key",
    "login_seconds": "oauth.timeout",
}
_DOCUMENT_STEPS = frozenset({PROTECTED_RESOURCE_STEP, AUTHORIZATION_SERVER_STEP})
# Metadata members that only Microsoft Entra publishes. Its host names vary.
_ENTRA_MEMBERS = frozenset({"tenant_region_scope", "cloud_instance_name", "msgraph_host"})


def request_event(traced_request: TracedRequest) -> dict[str, object]:
    """Return a request and its response as a JSON event, without headers and bodies."""
    outcome = traced_request.outcome
    return {
        "step": traced_request.request.step,
        "method": traced_request.request.method,
        "url": display_url(traced_request.request.url),
        "status": outcome.status if isinstance(outcome, Response) else None,
        "milliseconds": round(1000 * traced_request.seconds),
        "proxy": traced_request.proxy,
        "error": None if isinstance(outcome, Response) else outcome.code,
        "result": describe_response(traced_request),
    }


def describe_response(traced_request: TracedRequest) -> str:
    """Describe a response in a few words."""
    response = traced_request.outcome
    if isinstance(response, McpAuthError):
        return str(response).removesuffix(".")
    location = response.header("location")
    if 300 <= response.status < 400 and location is not None:
        # The query may repeat a key of the request, or hold a code of a server that approves by itself.
        return f"redirects to {sanitize(display_url(location))}"
    return _describe_step(response, traced_request.request.step)


def _describe_token_probe(response: Response) -> str:
    if response.status in {401, 403}:
        return "refuses the stored token"
    # Without a session, a server may answer an accepted token with 400 or 404.
    return "accepts the stored token" if response.ok else "does not refuse the stored token"


def _describe_step(response: Response, step: str) -> str:
    if step == PROBE_STEP:
        return _describe_probe(response)
    if step in _DOCUMENT_STEPS and response.ok:
        return _describe_document(response, step)
    if response.status >= 500 or response.status == 429:
        return "server error"
    if step == TOKEN_PROBE_STEP:
        return _describe_token_probe(response)
    if not response.ok:
        is_refused = response.status in REFUSING_STATUSES or step not in _DOCUMENT_STEPS
        return "refused" if is_refused else "not found"
    return "accepts the request" if step == PUSHED_REQUEST_STEP else "shows a page"


def _describe_document(response: Response, document_name: str) -> str:
    try:
        document = read_json_object(response.body, document_name)
    except MalformedResponse as error:
        return str(error).removesuffix(".").removeprefix(f"The {document_name} is ")
    if document_name == PROTECTED_RESOURCE_STEP:
        issuers = string_list(document, "authorization_servers") or ()
        issuer_list = (
            ", ".join(sanitize(issuer) for issuer in issuers[:MAX_ISSUERS_TRIED]) or "no authorization server"
        )
        return f"{document_name}, names {issuer_list}"
    return f"{document_name}, issuer {sanitize(string_member(document, 'issuer')) or 'missing'}"


def _describe_probe(response: Response) -> str:
    lines = response.header_all("www-authenticate")
    if not lines and response.status not in {401, 403}:
        return "needs no token" if response.ok else "responds with an error, but asks for no token"
    challenge = read_challenge(lines)
    count = len(challenge.resource_metadata)
    metadata = {0: "no metadata", 1: "its metadata"}.get(count, f"{count} metadata addresses")
    scope = f", scope {sanitize(format_scope(challenge.scope))}" if challenge.scope else ""
    return f"asks for a token, names {metadata}{scope}"


def describe_support(findings: Findings, server: Server) -> dict[str, object]:
    """Return the features of both servers as JSON members, or {} if no authorization server was found."""
    discovery = findings.discovery
    if discovery is None or (
        discovery.authorization_server.uses_default_endpoints and findings.challenge is None
    ):
        return {}
    authorization_server, protected_resource = discovery.authorization_server, discovery.protected_resource
    methods = authorization_server.code_challenge_methods_supported
    has_pkce = server.options.allow_missing_pkce or "S256" in (methods or ())
    code_flows = ["browser", "paste"] if has_pkce else []
    supports_cimd = authorization_server.client_id_metadata_document_supported
    scopes = authorization_server.scopes_supported
    return {
        "issuer": authorization_server.issuer,
        "metadata": not authorization_server.uses_default_endpoints,
        "flows": [
            *code_flows,
            *(["device"] if findings.device_flow_issuer and server.options.device else []),
        ],
        "device_issuer": findings.device_flow_issuer,
        "registration": [
            "pre_registered",
            *(["client_id_metadata_document"] if supports_cimd else []),
            *(["dynamic"] if authorization_server.registration_endpoint is not None else []),
        ],
        "pkce": None if methods is None else list(methods),
        "par": authorization_server.pushed_authorization_request_endpoint is not None,
        "par_required": authorization_server.require_pushed_authorization_requests,
        "dpop": list(string_list(authorization_server.document, "dpop_signing_alg_values_supported") or ()),
        "iss": authorization_server.authorization_response_iss_parameter_supported,
        "revocation": authorization_server.revocation_endpoint is not None,
        "scopes": None if protected_resource is None else _optional_list(protected_resource.scopes_supported),
        "challenged_scope": None
        if findings.challenge is None or findings.challenge.scope is None
        else sorted(findings.challenge.scope),
        "offline_access": "offline_access" in (scopes or ()),
        "grants": _optional_list(authorization_server.grant_types_supported),
        "authentication": _optional_list(authorization_server.token_endpoint_auth_methods_supported),
    }


def _optional_list(texts: tuple[str, ...] | None) -> list[str] | None:
    return None if texts is None else list(texts)


def support_rows(support: Mapping[str, object]) -> list[tuple[str, str]]:
    """Format the result of `describe_support` for people."""
    if not support:
        return []
    flows, registration = _sanitized_list(support["flows"]), _sanitized_list(support["registration"])
    client_texts = {
        "dynamic": "register themselves",
        "client_id_metadata_document": "identify themselves by the address of their metadata (CIMD)",
    }
    accepted_clients = [client_texts[kind] for kind in registration if kind in client_texts]
    pkce, has_par, requires_par = support["pkce"], support["par"], support["par_required"]
    par = "required" if requires_par else "yes" if has_par else "no"
    scopes = format_scope(
        {*_sanitized_list(support["scopes"]), *_sanitized_list(support["challenged_scope"])}
    )
    # Without metadata, the endpoints and what they support are guesses.
    assumed = "" if support["metadata"] else " (assumed)"
    pkce_text = "not stated" if pkce is None else ", ".join(_sanitized_list(pkce)) or "none"
    clients_text = ", ".join(accepted_clients) or "only those that were registered by hand"
    return [
        ("Log in at", f"{support['issuer']}{assumed}"),
        ("Flows", f"{', '.join(flows) or 'none'}{assumed}"),
        ("Clients", f"{clients_text}{assumed}"),
        ("PKCE", f"{pkce_text}{assumed}"),
        ("PAR", par),
        ("DPoP", ", ".join(_sanitized_list(support["dpop"])) or "no"),
        ("iss", "in each response" if support["iss"] else "no"),
        ("Revocation", "yes" if support["revocation"] else "no"),
        ("Scope", sanitize(scopes) or "not stated"),
        (
            "Offline",
            "with scope offline_access" if support["offline_access"] else "offline_access is not listed",
        ),
        ("Grants", ", ".join(_sanitized_list(support["grants"])) or "not stated"),
    ]


def _sanitized_list(value: object) -> list[str]:
    return [sanitize(item) for item in cast("list[object]", value)] if isinstance(value, list) else []


def configured_keys(options: ServerOptions) -> list[str]:
    """List the keys of config.yaml that differ from their defaults, never their values."""
    defaults = ServerOptions()
    changed_names = [option.name for option in fields(options)]
    changed_names = [name for name in changed_names if getattr(options, name) != getattr(defaults, name)]
    return list(dict.fromkeys(_CONFIG_KEYS.get(name, f"oauth.{name}") for name in changed_names))


def notes(findings: Findings, server: Server, stored_issuer: str | None) -> Iterator[str]:
    """Yield notes: facts that do not prevent a login but may explain a failure."""
    options, discovery = server.options, findings.discovery
    if not options.verify_tls:
        yield "This program does not check the TLS certificates of this server (`ssl_verify: false`)."
    if discovery is None:
        return
    authorization_server = discovery.authorization_server
    if authorization_server.uses_default_endpoints:
        if findings.challenge is not None:
            yield "The server publishes no metadata: the default endpoints of MCP 2025-03-26 are used."
        return
    if findings.challenge is None:
        yield "The server does not ask for a token in its first response. A login works in any case."
    if stored_issuer is not None and stored_issuer.rstrip("/") != authorization_server.issuer.rstrip("/"):
        yield f"The stored tokens come from another provider, {host_of(stored_issuer)}. Log in again."
    has_port = options.redirect_port or options.redirect_uri is not None
    if options.client_id and not has_port and options.grant == "authorization_code":
        yield (
            f"Logins with `oauth.client_id` use the port {CONFIGURED_CLIENT_PORT}. If you registered "
            "another, set `oauth.redirect_port` to the one that you registered."
        )
    if options.resource is None and authorization_server.document.keys() & _ENTRA_MEMBERS:
        yield (
            "This is Microsoft Entra. If it refuses a login with AADSTS9010010 or AADSTS901002, set "
            "`oauth.resource: false`."
        )
    yield from _ineffective_option_notes(options, discovery)


def _ineffective_option_notes(options: ServerOptions, discovery: Discovery) -> Iterator[str]:
    """Yield notes on options that have no effect here or that request an unsupported feature."""
    authorization_server, protected_resource = discovery.authorization_server, discovery.protected_resource
    if options.allow_missing_pkce and "S256" in (authorization_server.code_challenge_methods_supported or ()):
        yield "The provider advertises PKCE: `oauth.allow_missing_pkce` is no longer needed."
    if options.client_metadata_url and not authorization_server.client_id_metadata_document_supported:
        yield "`oauth.client_metadata_url` is not used: the provider does not support such clients."
    if options.dpop and not supports_dpop(authorization_server.document):
        yield f"`oauth.dpop` requires DPoP proofs, but the provider does not list {DPOP_ALGORITHM}."
    listed_scopes = {
        *((protected_resource and protected_resource.scopes_supported) or ()),
        *(authorization_server.scopes_supported or ()),
    }
    unlisted_scopes = (options.scope or frozenset()) - listed_scopes
    if unlisted_scopes and listed_scopes:
        yield f"`oauth.scope` requests scopes that no server lists: {format_scope(unlisted_scopes)}."
