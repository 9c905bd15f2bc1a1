"""Device codes and user codes in memory, with their decisions and polls. RFC 8628 §3.2, §3.5."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from hermes_mcp_auth_remote.demo.behaviour import Behaviour
from hermes_mcp_auth_remote.demo.ledger import DemoClient, Ledger, OAuthError, TokenFamily

Decision = Literal["approved", "denied"]

# RFC 8628: section 3.2 sets the default interval, section 3.5 the increase after slow_down.
DEFAULT_INTERVAL_SECONDS = 5.0
SLOW_DOWN_SECONDS = 5.0
# A client's timer may fire this much too early.
TIMER_SLACK_SECONDS = 0.05
# RFC 8628 section 6.1: use no vowels, so that no code is a word.
USER_CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"


@dataclass(slots=True)
class Device:
    """A device code. Every poll that comes too early increases `interval_seconds`."""

    client: DemoClient
    scope: frozenset[str]
    resource: str | None
    user_code: str
    expires_at: float
    interval_seconds: float
    decision: Decision | None = None
    polled_at: float | None = None
    family: TokenFamily | None = None


class DeviceLedger:
    """Issues and stores device codes and user codes. A device code is a secret, a user code is not."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.by_device_code: dict[str, Device] = {}

    def issue(
        self, client: DemoClient, scope: frozenset[str], resource: str | None, behaviour: Behaviour
    ) -> tuple[str, Device]:
        """Issue a device code and a user code."""
        interval = behaviour.device_interval_seconds
        device = Device(
            client,
            scope,
            resource,
            self._new_user_code(),
            self._ledger.clock() + behaviour.device_seconds,
            DEFAULT_INTERVAL_SECONDS if interval is None else interval,
        )
        device_code = self._ledger.mint("dc")
        self.by_device_code[device_code] = device
        return device_code, device

    def _new_user_code(self) -> str:
        number = int.from_bytes(hashlib.sha256(self._ledger.entropy(16).encode()).digest())
        letters = "".join(USER_CODE_LETTERS[number // 20**position % 20] for position in range(8))
        return f"{letters[:4]}-{letters[4:]}"

    def find(self, user_code: str) -> Device | None:
        """Find the waiting device for a user code. Ignore case and separators (RFC 8628 section 6.1)."""
        normalized_code = "".join(c for c in user_code.upper() if c in USER_CODE_LETTERS)
        devices = list(self.by_device_code.values())
        return next(
            (d for d in devices if d.user_code.replace("-", "") == normalized_code and self._is_waiting(d)),
            None,
        )

    def decide(self, device: Device, decision: Decision) -> bool:
        """Store the user's decision. Return False if it is late or repeated."""
        if not self._is_waiting(device):
            return False
        device.decision = decision
        return True

    def _is_waiting(self, device: Device) -> bool:
        return device.decision is None and self._ledger.clock() < device.expires_at

    def poll(self, client: DemoClient, device_code: str) -> Device:
        """Return an approved device. Raises OAuthError for any other (RFC 8628 section 3.5)."""
        device, now = self.by_device_code.get(device_code), self._ledger.clock()
        if device is None or device.client.client_id != client.client_id:
            raise OAuthError("invalid_grant", "The device code is unknown, or another client's.")
        if device.family is not None:
            device.family.revoked = True
            raise OAuthError("invalid_grant", "The device code was used before; its tokens are revoked.")
        last_poll_at, device.polled_at = device.polled_at, now
        if now >= device.expires_at:
            raise OAuthError("expired_token", "The device code has expired.")
        if last_poll_at is not None and now < last_poll_at + device.interval_seconds - TIMER_SLACK_SECONDS:
            device.interval_seconds += SLOW_DOWN_SECONDS
            raise OAuthError("slow_down", "The poll came before its time.")
        if device.decision is None:
            raise OAuthError("authorization_pending", "The user has not decided yet.")
        if device.decision == "denied":
            raise OAuthError("access_denied", "The user denied access.")
        return device

    def redeem(self, device: Device, behaviour: Behaviour) -> TokenFamily:
        """Mark the code of an approved device as used and return its token family."""
        scope = device.scope if behaviour.grant_scopes is None else device.scope & behaviour.grant_scopes
        device.family = TokenFamily(device.client.client_id, scope, device.resource)
        return device.family
