"""The token and revocation endpoints. RFC 6749 §4.1.3, §5, §6; RFC 8628 §3.4; RFC 7009; RFC 8707 §2.2."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hermes_mcp_auth_remote.demo.ledger import DemoClient, Granted, OAuthError
from hermes_mcp_auth_remote.demo.state import NO_STORE, Controls, absent, needed, present, refused
from hermes_mcp_auth_remote.demo.validation import check_resource, check_verifier, read_form
from hermes_mcp_auth_remote.oauth.client import DEVICE_GRANT


class Tokens:
    """Both endpoints."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls

    async def token(self, request: Request) -> Response:
        """Exchange a code or a device code, or refresh."""
        try:
            form = read_form(request.headers.get("content-type", ""), await request.body())
            client = self._controls.authenticated(form, request)
            granted = self._granted(client, form)
        except OAuthError as refusal:
            return refused(refusal)
        answer: dict[str, object | None] = {
            "access_token": granted.access_token,
            "token_type": "Bearer",
            "expires_in": int(self._controls.behaviour.access_token_seconds),
            "refresh_token": granted.refresh_token,
            "scope": " ".join(sorted(granted.scope)),
            "id_token": self._id_token(client) if self._controls.behaviour.id_token else None,
            **self._controls.behaviour.token_overrides,
        }
        if self._controls.behaviour.form_encoded_tokens:
            media_type = "application/x-www-form-urlencoded"
            return Response(urlencode(present(answer)), 200, NO_STORE, media_type)
        return JSONResponse(present(answer), 200, NO_STORE)

    def _granted(self, client: DemoClient, form: Mapping[str, str]) -> Granted:
        grant_type = form.get("grant_type")
        devices = [DEVICE_GRANT] if self._controls.behaviour.with_device else []
        if grant_type not in {"authorization_code", "refresh_token", *devices}:
            raise OAuthError("unsupported_grant_type", "That grant type is not offered here.")
        if grant_type not in client.grant_types:
            raise OAuthError("unauthorized_client", "The client did not register for that grant.")
        if grant_type == "refresh_token":
            return self._refreshed(client, form)
        if grant_type == DEVICE_GRANT:
            device = self._controls.devices.poll(client, needed(form, "device_code"))
            check_resource(form.get("resource"), device.resource, self._controls.behaviour)
            family = self._controls.devices.redeem(device, self._controls.behaviour)
            return self._controls.ledger.issue_tokens(family, family.scope, self._controls.behaviour)
        asked, family = self._controls.ledger.redeem_code(
            client, needed(form, "code"), self._controls.behaviour
        )
        # RFC 6749 section 4.1.3: "their values MUST be identical".
        if needed(form, "redirect_uri") != asked.redirect_uri:
            raise OAuthError("invalid_grant", "The redirect_uri is not the one of the request.")
        check_verifier(form.get("code_verifier"), asked.code_challenge)
        check_resource(form.get("resource"), family.resource, self._controls.behaviour)
        return self._controls.ledger.issue_tokens(family, family.scope, self._controls.behaviour)

    def _refreshed(self, client: DemoClient, form: Mapping[str, str]) -> Granted:
        old = self._controls.ledger.redeem_refresh_token(
            client, needed(form, "refresh_token"), self._controls.behaviour
        )
        family = old.family
        check_resource(form.get("resource"), family.resource, self._controls.behaviour)
        scope = frozenset(form.get("scope", "").split()) or family.scope
        # RFC 6749 section 6: it "MUST NOT include any scope not originally granted".
        if not scope <= family.scope:
            raise OAuthError("invalid_scope", "The scope goes beyond what was granted.")
        return self._controls.ledger.issue_tokens(family, scope, self._controls.behaviour, old)

    def _id_token(self, client: DemoClient) -> str:
        # Unsigned: it only tells a person who they are, over the connection that the tokens came by.
        now = int(self._controls.ledger.clock())
        claims = {
            "iss": self._controls.issuer,
            "aud": client.client_id,
            "sub": "user-1",
            "email": self._controls.behaviour.account,
            "iat": now,
            "exp": now + 3600,
        }
        parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
        token = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."
        self._controls.minted.add(token)
        return token

    async def revoke(self, request: Request) -> Response:
        """Revoke a token."""
        if not self._controls.behaviour.with_revocation:
            return absent()
        try:
            form = read_form(request.headers.get("content-type", ""), await request.body())
            client = self._controls.authenticated(form, request)
            self._controls.ledger.revoke(client, needed(form, "token"))
        except OAuthError as refusal:
            return refused(refusal)
        return Response(status_code=200, headers=NO_STORE)
