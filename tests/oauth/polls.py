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
from tests.oauth.parties import GRANTED, HTML, ISSUER, NOW, client, server
from tests.playbook import answer

DEVICE_CODE = "d3vice-code-that-was-minted"
PENDING = answer(400, {"error": "authorization_pending"})
SLOW = answer(400, {"error": "slow_down"})
LOST = TimedOut("as.example did not answer the device poll in time.")
BROKEN = answer(502, HTML)
TAKEN = answer(200, GRANTED)


def waiting(
    *, interval: float = 5, lifetime: float = 600, who: Client | None = None, resource: str | None = None
) -> PollState:
    device = DeviceAuthorization(
        Secret(DEVICE_CODE), "WDJB-MJHT", f"{ISSUER}/device", None, lifetime, interval
    )
    scope = frozenset({"mcp:tools"})
    return start_polling(server(), who or client(), device, NOW, scope=scope, resource=resource)


def still(pending: PollState, outcome: Response | NetworkError | None, now: float) -> PollState:
    after = advance_poll(pending, outcome, now)
    assert isinstance(after, PollState), after
    return after


def ended(pending: PollState, outcome: Response | NetworkError | None, now: float = NOW + 5) -> McpAuthError:
    after = advance_poll(pending, outcome, now)
    assert isinstance(after, PollFailure), after
    return after.error
