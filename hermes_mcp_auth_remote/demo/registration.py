"""Client registration and client ID metadata documents. RFC 7591, CIMD."""

from __future__ import annotations

import json
from typing import cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hermes_mcp_auth_remote.demo.behaviour import Behaviour
from hermes_mcp_auth_remote.demo.ledger import DemoClient, OAuthError
from hermes_mcp_auth_remote.demo.state import (
    NO_STORE,
    ServerState,
    error_response,
    not_found_response,
    without_none,
)
from hermes_mcp_auth_remote.demo.validation import check_redirect_uri
from hermes_mcp_auth_remote.oauth.client import DEVICE_GRANT


class Registration:
    """The registration endpoint and the lookup of clients."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def register(self, request: Request) -> Response:
        """Register a client (RFC 7591 section 3)."""
        if not self._state.behaviour.with_registration:
            return not_found_response()
        try:
            client = self._register_document(await request.body(), request.headers.get("content-type", ""))
        except OAuthError as refusal:
            return error_response(refusal)
        document: dict[str, object | None] = {
            "client_id": client.client_id,
            "client_id_issued_at": int(self._state.ledger.clock()),
            "client_secret": client.secret,
            "client_secret_expires_at": None if client.secret is None else 0,
            "client_name": client.name,
            "redirect_uris": list(client.redirect_uris),
            "grant_types": list(client.grant_types),
            "response_types": ["code"],
            "token_endpoint_auth_method": client.auth_method,
            **self._state.behaviour.registration_overrides,
        }
        return JSONResponse(without_none(document), 201, NO_STORE)

    def _register_document(self, body: bytes, content_type: str) -> DemoClient:
        if content_type.partition(";")[0].strip().lower() != "application/json":
            raise OAuthError("invalid_client_metadata", "The body must be application/json.")
        try:
            document: object = json.loads(body)
        except ValueError:
            document = None
        return self._state.ledger.add_client(read_client("", document, self._state.behaviour))

    def find_client(self, client_id: str | None) -> DemoClient | None:
        """Find a client by its id. If CIMD is supported, an id that is a URL names a metadata document."""
        client = self._state.ledger.clients.get(client_id or "")
        document = self._state.client_documents.get(client_id or "")
        if client is not None or document is None or not self._state.behaviour.cimd_supported:
            return client
        # CIMD: the document's client_id "MUST match the URL of the document". It must contain no secret.
        if document.get("client_id") != client_id or "client_secret" in document:
            return None
        try:
            return self._state.ledger.add_client(
                read_client(client_id or "", document, self._state.behaviour)
            )
        except OAuthError:
            return None


def read_client(client_id: str, document: object, behaviour: Behaviour) -> DemoClient:
    """Read client metadata (RFC 7591 section 2). Raises OAuthError."""
    if not isinstance(document, dict):
        raise OAuthError("invalid_client_metadata", "The body is not a JSON object.")
    members = cast("dict[str, object]", document)
    uris, application_type = members.get("redirect_uris"), members.get("application_type")
    if not isinstance(uris, list) or not uris:
        raise OAuthError("invalid_redirect_uri", "At least one redirect URI is needed.")
    if application_type not in (None, "native", "web"):
        raise OAuthError("invalid_client_metadata", "The application_type is neither native nor web.")
    redirect_uris = tuple(
        check_redirect_uri(uri, behaviour, application_type) for uri in cast("list[object]", uris)
    )
    method = members.get("token_endpoint_auth_method", "client_secret_basic")
    if method not in behaviour.auth_methods or (client_id and method != "none"):
        raise OAuthError("invalid_client_metadata", "The token_endpoint_auth_method is not offered here.")
    grant_types = members.get("grant_types", ["authorization_code"])
    offered_grant_types = {
        "authorization_code",
        "refresh_token",
        *([DEVICE_GRANT] if behaviour.with_device else []),
    }
    if not isinstance(grant_types, list) or not offered_grant_types.issuperset(
        cast("list[str]", grant_types)
    ):
        raise OAuthError("invalid_client_metadata", "A grant type is not offered here.")
    # RFC 7591 section 2.1: a client without the code grant has no response type.
    accepted_response_types = [["code"]] if "authorization_code" in grant_types else [["code"], []]
    if members.get("response_types", ["code"]) not in accepted_response_types:
        raise OAuthError("invalid_client_metadata", "Only the response type code is offered here.")
    name = members.get("client_name")
    return DemoClient(
        client_id,
        name if isinstance(name, str) and name else "An application without a name",
        redirect_uris,
        str(method),
        grant_types=tuple(cast("list[str]", grant_types)),
    )
