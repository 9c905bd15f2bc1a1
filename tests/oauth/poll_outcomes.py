"""The poll state of a device login, and the possible outcomes of its polls."""

from __future__ import annotations

from hermes_mcp_auth_remote.errors import (
    McpAuthError,
    NetworkError,
    TimedOut,
)
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.oauth.device_polling import PollFailure, PollState, advance_poll, start_polling
from hermes_mcp_auth_remote.oauth.wire import Response
from hermes_mcp_auth_remote.values import Secret
from tests.exchange_script import make_response
from tests.oauth.builders import HTML, ISSUER, NOW, TOKEN_RESPONSE, client, server

DEVICE_CODE = "d3vice-code-that-was-minted"
PENDING = make_response(400, {"error": "authorization_pending"})
SLOW_DOWN = make_response(400, {"error": "slow_down"})
TIMED_OUT = TimedOut("as.example did not respond to the device poll in time.")
BAD_GATEWAY = make_response(502, HTML)
TOKENS_GRANTED = make_response(200, TOKEN_RESPONSE)


def make_poll_state(
    *,
    interval: float = 5,
    lifetime: float = 600,
    poll_client: Client | None = None,
    resource: str | None = None,
) -> PollState:
    device = DeviceAuthorization(
        Secret(DEVICE_CODE), "WDJB-MJHT", f"{ISSUER}/device", None, lifetime, interval
    )
    scope = frozenset({"mcp:tools"})
    return start_polling(server(), poll_client or client(), device, NOW, scope=scope, resource=resource)


def expect_pending(poll_state: PollState, outcome: Response | NetworkError | None, now: float) -> PollState:
    after = advance_poll(poll_state, outcome, now)
    assert isinstance(after, PollState), after
    return after


def expect_failure(
    poll_state: PollState, outcome: Response | NetworkError | None, now: float = NOW + 5
) -> McpAuthError:
    after = advance_poll(poll_state, outcome, now)
    assert isinstance(after, PollFailure), after
    return after.error
