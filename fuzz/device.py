"""Fuzz responses of a device authorization endpoint and of polls: what the user sees is safe and short."""

from contextlib import suppress

from fuzz.inputs import BAD_JSON, NOW, OK_JSON, check, make_authorization_server, make_client, make_response
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization, read_device_authorization_response
from hermes_mcp_auth_remote.oauth.device_polling import PollState, advance_poll, start_polling
from hermes_mcp_auth_remote.oauth.urls import is_safe_url
from hermes_mcp_auth_remote.values import Secret

SEEDS = (
    OK_JSON
    + b'{"device_code":"d","user_code":"WDJB-MJHT","verification_uri":"https://as.example/device",'
    + b'"verification_uri_complete":"https://as.example/device?code=WDJB-MJHT","expires_in":900,"interval":5}',
    BAD_JSON + b'{"error":"slow_down","interval":10}',
    BAD_JSON + b'{"error":"authorization_pending"}',
    OK_JSON + b'{"access_token":"t","token_type":"Bearer"}',
)
_DEVICE_AUTHORIZATION = DeviceAuthorization(Secret("d"), "WDJB-MJHT", "https://as.example/device")


def fuzz_one_input(data: bytes) -> None:
    """Read the input as a device authorization response, and as the response to a poll."""
    response = make_response(data)
    with suppress(McpAuthError):
        authorization = read_device_authorization_response(response, "https://as.example")
        check(is_safe_url(authorization.verification_uri), "an unsafe URL")
        check(
            authorization.user_code.isascii() and authorization.user_code.isprintable(),
            "a code that cannot be typed",
        )
        check(authorization.interval_seconds >= 1, "polled without a pause")
    pending = start_polling(make_authorization_server(), make_client(), _DEVICE_AUTHORIZATION, NOW)
    next_state = advance_poll(pending, response, pending.next_at)
    if isinstance(next_state, PollState):
        check(next_state.next_at >= pending.next_at + 5, "polled too early")
