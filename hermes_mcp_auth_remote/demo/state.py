"""The settings and state of a server, and helpers for the responses of its endpoints."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hermes_mcp_auth_remote.demo.behaviour import Behaviour
from hermes_mcp_auth_remote.demo.device_ledger import DeviceLedger
from hermes_mcp_auth_remote.demo.ledger import DemoClient, Ledger, OAuthError
from hermes_mcp_auth_remote.demo.validation import authenticate_client
from hermes_mcp_auth_remote.values import Clock, Entropy

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class ServerState:
    """Settings and state of an authorization server and its resources. Thread-safe."""

    def __init__(
        self,
        origin: str,
        behaviour: Behaviour | None = None,
        *,
        resources: frozenset[str] = frozenset(),
        clock: Clock = time.time,
        entropy: Entropy = secrets.token_urlsafe,
    ) -> None:
        self.origin = origin
        self.behaviour = behaviour or Behaviour()
        # The resource identifiers that a client may request tokens for (RFC 8707).
        self.resources = resources
        self.ledger = Ledger(clock, entropy)
        self.devices = DeviceLedger(self.ledger)
        # Client ID metadata documents by URL. The server uses them instead of fetching documents.
        self.client_documents: dict[str, Mapping[str, object]] = {}

    @property
    def issuer(self) -> str:
        """The issuer identifier."""
        return self.origin + self.behaviour.issuer_path

    @property
    def accepted_resources(self) -> frozenset[str]:
        """The resources that a client may request tokens for."""
        return self.resources

    @property
    def minted_secrets(self) -> set[str]:
        """Every issued secret: codes, tokens and client secrets."""
        return self.ledger.minted_secrets

    def change_behaviour(self, **settings: object) -> None:
        """Replace some settings of `behaviour`."""
        self.behaviour = replace(self.behaviour, **settings)  # type: ignore[arg-type]

    def authenticate(self, form: Mapping[str, str], request: Request) -> DemoClient:
        """Authenticate the client of a back-channel request. Raises OAuthError."""
        authorization = request.headers.get("authorization")
        return authenticate_client(self.ledger.clients, form, authorization, self.behaviour)


def require_parameter(form: Mapping[str, str], name: str) -> str:
    """Return a parameter. Raises OAuthError if it is missing."""
    if name not in form:
        raise OAuthError("invalid_request", f"The {name} parameter is missing.")
    return form[name]


def without_none(document: Mapping[str, object | None]) -> dict[str, object]:
    """Return a document without the members that are None."""
    return {name: value for name, value in document.items() if value is not None}


def error_response(error: OAuthError) -> Response:
    """Return an error response (RFC 6749 section 5.2)."""
    headers = dict(NO_STORE)
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="authorization server"'
    document = {"error": error.error, "error_description": error.description}
    return JSONResponse(document, error.status, headers)


def not_found_response() -> Response:
    """Return the 404 response of a server without this endpoint."""
    return Response("Not Found", 404, media_type="text/plain")
