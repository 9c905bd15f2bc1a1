"""The device authorization endpoint, and the page for user codes. RFC 8628 §3.1 to §3.3."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from hermes_mcp_auth_remote.demo.consent import PendingConsents, refusal_page, stale_page
from hermes_mcp_auth_remote.demo.device_ledger import Device
from hermes_mcp_auth_remote.demo.ledger import OAuthError
from hermes_mcp_auth_remote.demo.pages import consent_page, decided_page, page_headers, user_code_page
from hermes_mcp_auth_remote.demo.registration import Registration
from hermes_mcp_auth_remote.demo.state import (
    NO_STORE,
    ServerState,
    error_response,
    not_found_response,
    without_none,
)
from hermes_mcp_auth_remote.demo.validation import check_device_authorization_request, read_form


class DeviceEndpoints:
    """The device authorization endpoint and the two endpoints of the page. Polls use the token endpoint."""

    def __init__(self, state: ServerState, registration: Registration) -> None:
        self._state = state
        self._registration = registration
        self._consents = PendingConsents[Device](state.ledger, "/device")

    async def authorize(self, request: Request) -> Response:
        """Issue a device code and a user code (RFC 8628 section 3.2)."""
        behaviour = self._state.behaviour
        if not behaviour.with_device:
            return not_found_response()
        try:
            form = read_form(request.headers.get("content-type", ""), await request.body())
            self._registration.find_client(form.get("client_id"))
            client = self._state.authenticate(form, request)
            scope, resource = check_device_authorization_request(
                client, form, self._state.accepted_resources, behaviour
            )
        except OAuthError as refusal:
            return error_response(refusal)
        device_code, device = self._state.devices.issue(client, scope, resource, behaviour)
        uri, interval = f"{self._state.origin}/device", behaviour.device_interval_seconds
        complete_uri = f"{uri}?{urlencode({'user_code': device.user_code})}"
        document: dict[str, object | None] = {
            "device_code": device_code,
            "user_code": device.user_code,
            "verification_uri": uri,
            "verification_uri_complete": complete_uri if behaviour.with_verification_uri_complete else None,
            "expires_in": int(behaviour.device_seconds),
            "interval": interval if interval is None or interval % 1 else int(interval),
            **behaviour.device_overrides,
        }
        return JSONResponse(without_none(document), 200, NO_STORE)

    async def show_page(self, request: Request) -> Response:
        """Ask for the user code, or for consent if the URL contains it (RFC 8628 section 3.3)."""
        if not self._state.behaviour.with_device:
            return not_found_response()
        user_code = request.query_params.get("user_code")
        if user_code is None:
            return HTMLResponse(user_code_page(), headers=page_headers(has_form=True))
        device = self._state.devices.find(user_code)
        if device is None:
            text = "No device waits with that code. Compare it with the code that your device shows now."
            return HTMLResponse(user_code_page(text), 400, page_headers(has_form=True))
        if self._state.behaviour.auto_approve:
            return self._apply_decision(device, approves=True)
        consent_request = self._consents.create(device)
        page = consent_page(
            client=device.client.name,
            account=self._state.behaviour.account,
            scope=device.scope,
            resource=device.resource,
            request_id=consent_request.request_id,
            csrf_token=consent_request.csrf_token,
            user_code=device.user_code,
        )
        response = HTMLResponse(page, headers=page_headers(has_form=True))
        return self._consents.set_cookie(
            consent_request, response, secure=self._state.origin.startswith("https:")
        )

    async def decide(self, request: Request) -> Response:
        """Apply the user's decision."""
        try:
            form = read_form(request.headers.get("content-type", ""), await request.body())
        except OAuthError as refusal:
            return refusal_page(refusal.description)
        device = self._consents.take_subject(form, request)
        if device is None:
            return stale_page()
        return self._apply_decision(device, approves=form.get("decision") == "approve")

    def _apply_decision(self, device: Device, *, approves: bool) -> Response:
        if not self._state.devices.decide(device, "approved" if approves else "denied"):
            return stale_page()
        text = "Your device is connected" if approves else "Your device was not connected"
        return HTMLResponse(decided_page(text), headers=page_headers())
