"""The token and revocation endpoints. RFC 6749 §4.1.3, §5, §6; RFC 8628 §3.4; RFC 7009; RFC 8707 §2.2."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hermes_mcp_auth_remote.demo.ledger import DemoClient, IssuedTokens, OAuthError
from hermes_mcp_auth_remote.demo.state import (
    NO_STORE,
    ServerState,
    error_response,
    not_found_response,
    require_parameter,
    without_none,
)
from hermes_mcp_auth_remote.demo.validation import check_resource, check_verifier, read_form
from hermes_mcp_auth_remote.oauth.client import DEVICE_GRANT


class TokenEndpoints:
    """The token endpoint and the revocation endpoint."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def token(self, request: Request) -> Response:
        """Exchange a code, a device code or a refresh token for tokens."""
        try:
            form = read_form(request.headers.get("content-type", ""), await request.body())
            client = self._state.authenticate(form, request)
            tokens = self._grant(client, form)
        except OAuthError as refusal:
            return error_response(refusal)
        document: dict[str, object | None] = {
            "access_token": tokens.access_token,
            "token_type": "Bearer",
            "expires_in": int(self._state.behaviour.access_token_seconds),
            "refresh_token": tokens.refresh_token,
            "scope": " ".join(sorted(tokens.scope)),
            "id_token": self._id_token(client) if self._state.behaviour.with_id_token else None,
            **self._state.behaviour.token_overrides,
        }
        if self._state.behaviour.form_encoded_tokens:
            media_type = "application/x-www-form-urlencoded"
            return Response(urlencode(without_none(document)), 200, NO_STORE, media_type)
        return JSONResponse(without_none(document), 200, NO_STORE)

    def _grant(self, client: DemoClient, form: Mapping[str, str]) -> IssuedTokens:
        grant_type = form.get("grant_type")
        devices = [DEVICE_GRANT] if self._state.behaviour.with_device else []
        if grant_type not in {"authorization_code", "refresh_token", *devices}:
            raise OAuthError("unsupported_grant_type", "That grant type is not offered here.")
        if grant_type not in client.grant_types:
            raise OAuthError("unauthorized_client", "The client did not register for that grant.")
        if grant_type == "refresh_token":
            return self._refresh(client, form)
        if grant_type == DEVICE_GRANT:
            device = self._state.devices.poll(client, require_parameter(form, "device_code"))
            check_resource(form.get("resource"), device.resource, self._state.behaviour)
            family = self._state.devices.redeem(device, self._state.behaviour)
            return self._state.ledger.issue_tokens(family, family.scope, self._state.behaviour)
        validated_request, family = self._state.ledger.redeem_code(
            client, require_parameter(form, "code"), self._state.behaviour
        )
        # RFC 6749 section 4.1.3: "their values MUST be identical".
        if require_parameter(form, "redirect_uri") != validated_request.redirect_uri:
            raise OAuthError("invalid_grant", "The redirect_uri is not the one of the request.")
        check_verifier(form.get("code_verifier"), validated_request.code_challenge)
        check_resource(form.get("resource"), family.resource, self._state.behaviour)
        return self._state.ledger.issue_tokens(family, family.scope, self._state.behaviour)

    def _refresh(self, client: DemoClient, form: Mapping[str, str]) -> IssuedTokens:
        previous = self._state.ledger.redeem_refresh_token(
            client, require_parameter(form, "refresh_token"), self._state.behaviour
        )
        family = previous.family
        check_resource(form.get("resource"), family.resource, self._state.behaviour)
        scope = frozenset(form.get("scope", "").split()) or family.scope
        # RFC 6749 section 6: the scope "MUST NOT include any scope not originally granted".
        if not scope <= family.scope:
            raise OAuthError("invalid_scope", "The scope goes beyond what was granted.")
        return self._state.ledger.issue_tokens(family, scope, self._state.behaviour, previous)

    def _id_token(self, client: DemoClient) -> str:
        # The ID token is unsigned: the client only displays its account, and reads it from this response.
        now = int(self._state.ledger.clock())
        claims = {
            "iss": self._state.issuer,
            "aud": client.client_id,
            "sub": "user-1",
            "email": self._state.behaviour.account,
            "iat": now,
            "exp": now + 3600,
        }
        parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
        token = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."
        self._state.minted_secrets.add(token)
        return token

    async def revoke(self, request: Request) -> Response:
        """Revoke a token (RFC 7009 section 2.1)."""
        if not self._state.behaviour.with_revocation:
            return not_found_response()
        try:
            form = read_form(request.headers.get("content-type", ""), await request.body())
            client = self._state.authenticate(form, request)
            self._state.ledger.revoke(client, require_parameter(form, "token"))
        except OAuthError as refusal:
            return error_response(refusal)
        return Response(status_code=200, headers=NO_STORE)
