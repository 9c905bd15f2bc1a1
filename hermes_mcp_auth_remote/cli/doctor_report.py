"""What `doctor` saw, in words: each request, what the servers support, what deserves a remark. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import cast
from urllib.parse import urlsplit

from hermes_mcp_auth_remote.errors import ClientIdRequired, MalformedResponse, McpAuthError
from hermes_mcp_auth_remote.flows.discovery import PROBE_STEP
from hermes_mcp_auth_remote.flows.dry_run import Findings
from hermes_mcp_auth_remote.http.traced import TracedRequest
from hermes_mcp_auth_remote.oauth.challenge import read_challenge
from hermes_mcp_auth_remote.oauth.dpop import DPOP_ALGORITHM, supports_dpop
from hermes_mcp_auth_remote.oauth.metadata import MAX_ISSUERS_TRIED, PROTECTED_RESOURCE_STEP, Discovery
from hermes_mcp_auth_remote.oauth.urls import host_of, is_loopback_host
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

# Where an option stands under another name in config.yaml, or beside `oauth:`.
_CONFIG_KEYS = {
    "verify_tls": "ssl_verify",
    "ca_file": "ssl_verify",
    "client_cert": "client_cert",
    "client_key": "client_key",
    "login_seconds": "oauth.timeout",
}
# Members that only Microsoft Entra publishes; its host has many names.
_ENTRA_MEMBERS = frozenset({"tenant_region_scope", "cloud_instance_name", "msgraph_host"})


def request_event(traced_request: TracedRequest) -> dict[str, object]:
    """Write one request and its answer for programs; no header and no body of it."""
    outcome = traced_request.outcome
    return {
        "step": traced_request.request.step,
        "method": traced_request.request.method,
        "url": display_url(traced_request.request.url),
        "status": outcome.status if isinstance(outcome, Response) else None,
        "milliseconds": round(1000 * traced_request.seconds),
        "proxy": traced_request.proxy,
        "error": None if isinstance(outcome, Response) else outcome.code,
        "was": describe_response(traced_request),
    }


def describe_response(traced_request: TracedRequest) -> str:
    """Say in a few words what an answer was."""
    answer = traced_request.outcome
    if isinstance(answer, McpAuthError):
        return str(answer).removesuffix(".")
    location = answer.header("location")
    if 300 <= answer.status < 400 and location is not None:
        return f"sends us to {sanitize(location)}"
    if traced_request.request.step == PROBE_STEP:
        return _describe_probe(answer)
    if not answer.ok:
        return "the server fails" if answer.status >= 500 or answer.status == 429 else "nothing there"
    return _describe_document(answer, traced_request.request.step)


def _describe_document(response: Response, document_name: str) -> str:
    try:
        document = read_json_object(response.body, document_name)
    except MalformedResponse as trouble:
        return str(trouble).removesuffix(".").removeprefix(f"The {document_name} is ")
    if document_name == PROTECTED_RESOURCE_STEP:
        issuers = string_list(document, "authorization_servers") or ()
        named = (
            ", ".join(sanitize(issuer) for issuer in issuers[:MAX_ISSUERS_TRIED]) or "no authorization server"
        )
        return f"{document_name}, names {named}"
    return f"{document_name}, issuer {sanitize(string_member(document, 'issuer')) or 'missing'}"


def _describe_probe(response: Response) -> str:
    lines = response.header_all("www-authenticate")
    if not lines and response.status not in {401, 403}:
        return "answers without a token" if response.ok else "neither answers nor asks for a token"
    challenge = read_challenge(lines)
    count = len(challenge.resource_metadata)
    named = {0: "no metadata", 1: "its metadata"}.get(count, f"{count} places of metadata")
    scope = f", scope {sanitize(format_scope(challenge.scope))}" if challenge.scope else ""
    return f"asks for a token, names {named}{scope}"


def describe_support(findings: Findings, server: Server) -> dict[str, object]:
    """Say what both servers can do, for programs; empty where no authorization server was found."""
    discovery = findings.discovery
    if discovery is None or (
        discovery.authorization_server.uses_default_endpoints and findings.challenge is None
    ):
        return {}
    issuer, resource = discovery.authorization_server, discovery.protected_resource
    methods = issuer.code_challenge_methods_supported
    has_pkce = server.options.allow_missing_pkce or "S256" in (methods or ())
    by_code = ["browser", "paste"] if has_pkce else []
    by_document = issuer.client_id_metadata_document_supported
    scopes = issuer.scopes_supported
    return {
        "issuer": issuer.issuer,
        "metadata": not issuer.uses_default_endpoints,
        "flows": [*by_code, *(["device"] if findings.device_flow_issuer and server.options.device else [])],
        "device_issuer": findings.device_flow_issuer,
        "registration": [
            "pre_registered",
            *(["client_id_metadata_document"] if by_document else []),
            *(["dynamic"] if issuer.registration_endpoint is not None else []),
        ],
        "pkce": None if methods is None else list(methods),
        "par": issuer.pushed_authorization_request_endpoint is not None,
        "par_required": issuer.require_pushed_authorization_requests,
        "dpop": list(string_list(issuer.document, "dpop_signing_alg_values_supported") or ()),
        "iss": issuer.authorization_response_iss_parameter_supported,
        "revocation": issuer.revocation_endpoint is not None,
        "scopes": None if resource is None else _optional_list(resource.scopes_supported),
        "challenged_scope": None
        if findings.challenge is None or findings.challenge.scope is None
        else sorted(findings.challenge.scope),
        "offline_access": "offline_access" in (scopes or ()),
        "grants": _optional_list(issuer.grant_types_supported),
        "authentication": _optional_list(issuer.token_endpoint_auth_methods_supported),
    }


def _optional_list(texts: tuple[str, ...] | None) -> list[str] | None:
    return None if texts is None else list(texts)


def support_rows(support: Mapping[str, object]) -> list[tuple[str, str]]:
    """Write what `supports` said for people."""
    if not support:
        return []
    flows, registration = _quoted_list(support["flows"]), _quoted_list(support["registration"])
    clients = {
        "dynamic": "register themselves",
        "client_id_metadata_document": "are known by the address of their metadata (CIMD)",
    }
    ways = [clients[each] for each in registration if each in clients]
    pkce, offered, required = support["pkce"], support["par"], support["par_required"]
    pushed = "required" if required else "yes" if offered else "no"
    scopes = format_scope({*_quoted_list(support["scopes"]), *_quoted_list(support["challenged_scope"])})
    return [
        ("Log in at", str(support["issuer"])),
        ("Ways in", ", ".join(flows) or "none"),
        ("Clients", ", ".join(ways) or "only those that were registered by hand"),
        ("PKCE", "it does not say" if pkce is None else ", ".join(_quoted_list(pkce)) or "none"),
        ("PAR", pushed),
        ("DPoP", ", ".join(_quoted_list(support["dpop"])) or "no"),
        ("iss", "in each answer" if support["iss"] else "no"),
        ("Revocation", "yes" if support["revocation"] else "no"),
        ("Scope", sanitize(scopes) or "it names none"),
        (
            "Offline",
            "yes, by offline_access" if support["offline_access"] else "it does not list offline_access",
        ),
        ("Grants", ", ".join(_quoted_list(support["grants"])) or "it does not say"),
    ]


def _quoted_list(value: object) -> list[str]:
    return [sanitize(each) for each in cast("list[object]", value)] if isinstance(value, list) else []


def configured_keys(options: ServerOptions) -> list[str]:
    """Name the keys of config.yaml that differ from what they are by default; never a value."""
    usual = ServerOptions()
    changed = [each.name for each in fields(options)]
    changed = [name for name in changed if getattr(options, name) != getattr(usual, name)]
    return list(dict.fromkeys(_CONFIG_KEYS.get(name, f"oauth.{name}") for name in changed))


def notes(findings: Findings, server: Server, stored_issuer: str | None) -> Iterator[str]:
    """Say what stands in nobody's way, and may still be why something goes wrong."""
    options, discovery = server.options, findings.discovery
    if not options.verify_tls:
        yield "TLS certificates of this server are not checked (`ssl_verify: false`)."
    if discovery is None:
        return
    issuer = discovery.authorization_server
    if issuer.uses_default_endpoints:
        if findings.challenge is not None:
            yield "It publishes no metadata: the default endpoints of MCP 2025-03-26 are used."
        return
    if findings.challenge is None:
        yield "It asks for a token later than with its first answer, or never; a login works all the same."
    if stored_issuer is not None and stored_issuer.rstrip("/") != issuer.issuer.rstrip("/"):
        yield f"What is stored is of another authorization server, {host_of(stored_issuer)}: log in again."
    has_port = options.redirect_port or options.redirect_uri is not None
    if options.client_id and not has_port and options.grant == "authorization_code":
        yield (
            "Each login listens on another port; if the provider compares ports, set `oauth.redirect_port` "
            "to the one that you registered."
        )
    if options.resource is None and issuer.document.keys() & _ENTRA_MEMBERS:
        yield (
            "This is Microsoft Entra; if it refuses a login with AADSTS9010010 or AADSTS901002, set "
            "`oauth.resource: false`."
        )
    yield from _ineffective_option_notes(options, discovery)


def _ineffective_option_notes(options: ServerOptions, discovery: Discovery) -> Iterator[str]:
    """Name the options that do nothing here, or ask for what there is not."""
    issuer, resource = discovery.authorization_server, discovery.protected_resource
    if options.allow_missing_pkce and "S256" in (issuer.code_challenge_methods_supported or ()):
        yield "PKCE is advertised: `oauth.allow_missing_pkce` is not needed any more."
    if options.client_metadata_url and not issuer.client_id_metadata_document_supported:
        yield "`oauth.client_metadata_url` is not used: the provider does not take such clients."
    if options.dpop and not supports_dpop(issuer.document):
        yield f"`oauth.dpop` asks for proofs, and the provider does not list {DPOP_ALGORITHM}."
    listed = {*((resource and resource.scopes_supported) or ()), *(issuer.scopes_supported or ())}
    unknown = (options.scope or frozenset()) - listed
    if unknown and listed:
        yield f"`oauth.scope` asks for what nobody lists: {format_scope(unknown)}."


def describe_problem(error: McpAuthError, server: Server, redirect_uri: str) -> dict[str, str]:
    """Write what stands in the way of a login, with what to do about it."""
    advice = error.advice
    where = urlsplit(redirect_uri)
    if (
        isinstance(error, ClientIdRequired)
        and is_loopback_host(where.hostname or "")
        and not server.options.redirect_port
    ):
        # Else the next login would come from another port than the one that was registered (quirk 18).
        advice = (
            f"Register a client there by hand with the redirect URI {redirect_uri}, then set "
            "`oauth.client_id` (and `oauth.client_secret`, if you are given one) and "
            f"`oauth.redirect_port: {where.port}` for this server."
        )
    return {"code": error.code, "message": str(error), "advice": advice}
