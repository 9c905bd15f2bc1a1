"""The demo's authorization server: metadata, PAR, consent. RFC 6749 §4.1, RFC 8414, RFC 9126, RFC 9207."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from hermes_mcp_auth_remote.demo.behaviour import WellKnown
from hermes_mcp_auth_remote.demo.consent import PendingConsents, refusal_page, stale_page
from hermes_mcp_auth_remote.demo.device import DeviceEndpoints
from hermes_mcp_auth_remote.demo.ledger import OAuthError, ValidatedRequest
from hermes_mcp_auth_remote.demo.pages import consent_page, page_headers
from hermes_mcp_auth_remote.demo.registration import Registration
from hermes_mcp_auth_remote.demo.state import (
    NO_STORE,
    ServerState,
    error_response,
    not_found_response,
    without_none,
)
from hermes_mcp_auth_remote.demo.tokens import TokenEndpoints
from hermes_mcp_auth_remote.demo.validation import (
    RedirectableError,
    UnredirectableRequest,
    check_authorization_request,
    read_form,
    reject_duplicates,
)
from hermes_mcp_auth_remote.oauth.client import DEVICE_GRANT

MAX_PARAMETERS = 100


@dataclass(slots=True)
class _PushedRequest:
    client_id: str
    parameters: Mapping[str, str]
    expires_at: float


class AuthorizationServer(ServerState):
    """An authorization server. `routes` are its Starlette routes."""

    @cached_property
    def _consents(self) -> PendingConsents[ValidatedRequest]:
        return PendingConsents[ValidatedRequest](self.ledger, "/consent")

    @cached_property
    def _pushed_requests(self) -> dict[str, _PushedRequest]:
        return {}

    @cached_property
    def _registration(self) -> Registration:
        return Registration(self)

    @cached_property
    def routes(self) -> list[Route]:
        """The routes of all endpoints."""
        tokens, devices = TokenEndpoints(self), DeviceEndpoints(self, self._registration)
        return [
            Route("/.well-known/{document:path}", self._serve_metadata),
            Route("/{prefix:path}/.well-known/openid-configuration", self._serve_metadata),
            Route("/register", self._registration.register, methods=["POST"]),
            Route("/par", self._push_request, methods=["POST"]),
            Route("/authorize", self._authorize, methods=["GET"]),
            Route("/consent", self._decide_consent, methods=["POST"]),
            Route("/token", tokens.token, methods=["POST"]),
            Route("/device_authorization", devices.authorize, methods=["POST"]),
            Route("/device", devices.show_page, methods=["GET"]),
            Route("/device", devices.decide, methods=["POST"]),
            Route("/revoke", tokens.revoke, methods=["POST"]),
        ]

    def metadata(self, *, openid: bool = False) -> dict[str, object]:
        """Return the published metadata document: of RFC 8414, or of OpenID Connect if `openid`."""
        behaviour, origin = self.behaviour, self.origin
        has_device_flow = behaviour.with_device and (openid or not behaviour.device_only_in_openid)
        document: dict[str, object | None] = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{origin}/authorize",
            "token_endpoint": f"{origin}/token",
            "registration_endpoint": f"{origin}/register" if behaviour.with_registration else None,
            "revocation_endpoint": f"{origin}/revoke" if behaviour.with_revocation else None,
            "pushed_authorization_request_endpoint": f"{origin}/par" if behaviour.with_par else None,
            "device_authorization_endpoint": f"{origin}/device_authorization" if has_device_flow else None,
            "require_pushed_authorization_requests": True if behaviour.require_par else None,
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"]
            + ([DEVICE_GRANT] if has_device_flow else []),
            "code_challenge_methods_supported": ["S256"] if behaviour.pkce_advertised else None,
            "token_endpoint_auth_methods_supported": list(behaviour.auth_methods),
            "scopes_supported": None
            if behaviour.scopes_supported is None
            else list(behaviour.scopes_supported),
            "authorization_response_iss_parameter_supported": True if behaviour.iss_supported else None,
            "client_id_metadata_document_supported": True if behaviour.cimd_supported else None,
        }
        return without_none(document)

    async def _serve_metadata(self, request: Request) -> Response:
        path = self.behaviour.issuer_path
        paths: Mapping[WellKnown, str] = {
            "rfc8414": f"/.well-known/oauth-authorization-server{path}",
            "openid_inserted": f"/.well-known/openid-configuration{path}",
            "openid_appended": f"{path}/.well-known/openid-configuration",
        }
        if request.url.path not in {paths[location] for location in self.behaviour.metadata_locations}:
            return not_found_response()
        return JSONResponse(self.metadata(openid="openid" in request.url.path))

    # Authorization (RFC 6749 section 4.1, RFC 9126)

    async def _push_request(self, request: Request) -> Response:
        if not self.behaviour.with_par:
            return not_found_response()
        try:
            form = read_form(request.headers.get("content-type", ""), await request.body())
            self._registration.find_client(form.get("client_id"))
            client = self.authenticate(form, request)
            check_authorization_request(client, form, self.accepted_resources, self.behaviour)
        except OAuthError as refusal:
            return error_response(refusal)
        except UnredirectableRequest as refusal:
            return error_response(OAuthError("invalid_request", str(refusal)))
        except RedirectableError as refusal:
            return error_response(OAuthError(refusal.error, refusal.description))
        uri = f"urn:ietf:params:oauth:request_uri:{self.ledger.entropy(24)}"
        seconds = self.behaviour.par_seconds
        self._pushed_requests[uri] = _PushedRequest(client.client_id, form, self.ledger.clock() + seconds)
        return JSONResponse({"request_uri": uri, "expires_in": int(seconds)}, 201, NO_STORE)

    async def _authorize(self, request: Request) -> Response:
        try:
            pairs = parse_qsl(request.url.query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
            parameters = self._resolve_request_uri(reject_duplicates(pairs))
            client = self._registration.find_client(parameters.get("client_id"))
            validated_request = check_authorization_request(
                client, parameters, self.accepted_resources, self.behaviour
            )
        except (OAuthError, UnredirectableRequest, ValueError) as refusal:
            text = refusal.description if isinstance(refusal, OAuthError) else str(refusal)
            return refusal_page(text)
        except RedirectableError as refusal:
            response_parameters = {"error": refusal.error, "error_description": refusal.description}
            return self._redirect(refusal.redirect_uri, refusal.state, response_parameters)
        if self.behaviour.auto_approve:
            return self._approve(validated_request)
        return self._ask_consent(validated_request)

    def _resolve_request_uri(self, parameters: Mapping[str, str]) -> Mapping[str, str]:
        uri = parameters.get("request_uri")
        if uri is None:
            if self.behaviour.require_par:
                raise OAuthError("invalid_request", "The request must be pushed first.")
            return parameters
        # RFC 9126 section 4: a request URI is for one use by the client that pushed it.
        pushed = self._pushed_requests.pop(uri, None)
        is_own = pushed is not None and pushed.client_id == parameters.get("client_id")
        if pushed is None or not is_own or self.ledger.clock() >= pushed.expires_at:
            raise OAuthError("invalid_request", "The pushed request is unknown, used or expired.")
        return {**pushed.parameters, "client_id": pushed.client_id}

    def _ask_consent(self, validated_request: ValidatedRequest) -> Response:
        consent_request = self._consents.create(validated_request)
        page = consent_page(
            client=validated_request.client.name,
            account=self.behaviour.account,
            scope=validated_request.scope,
            resource=validated_request.resource,
            redirect_uri=validated_request.redirect_uri,
            request_id=consent_request.request_id,
            csrf_token=consent_request.csrf_token,
        )
        response = HTMLResponse(page, headers=page_headers(validated_request.redirect_uri))
        return self._consents.set_cookie(consent_request, response, secure=self.origin.startswith("https:"))

    async def _decide_consent(self, request: Request) -> Response:
        try:
            form = read_form(request.headers.get("content-type", ""), await request.body())
        except OAuthError as refusal:
            return refusal_page(refusal.description)
        validated_request = self._consents.take_subject(form, request)
        if validated_request is None:
            return stale_page()
        if form.get("decision") != "approve":
            response_parameters = {"error": "access_denied", "error_description": "The user denied access."}
            return self._redirect(
                validated_request.redirect_uri, validated_request.state, response_parameters
            )
        return self._approve(validated_request)

    def response_issuer(self) -> str | None:
        """Return the `iss` parameter of authorization responses (RFC 9207), None to omit it."""
        return str(self.metadata()["issuer"]) if self.behaviour.iss_supported else None

    def _approve(self, validated_request: ValidatedRequest) -> Response:
        code = self.ledger.issue_code(validated_request, self.behaviour)
        return self._redirect(validated_request.redirect_uri, validated_request.state, {"code": code})

    def _redirect(
        self, redirect_uri: str, state: str | None, response_parameters: Mapping[str, str]
    ) -> Response:
        parameters = dict(response_parameters)
        if state is not None:
            parameters["state"] = state
        issuer = self.response_issuer()
        if issuer is not None:
            parameters["iss"] = issuer
        parts = urlsplit(redirect_uri)
        query = "&".join(part for part in (parts.query, urlencode(parameters)) if part)
        # RFC 9700 section 4.12: use 303, so that no browser repeats the POST at the client.
        return RedirectResponse(
            urlunsplit(parts._replace(query=query)), 303, {**NO_STORE, "Referrer-Policy": "no-referrer"}
        )
