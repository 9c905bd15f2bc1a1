"""The faults that the tests' servers play, and the requests that they record."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

Step = Literal[
    "protected_resource_metadata",
    "authorization_server_metadata",
    "registration",
    "pushed_request",
    "authorization",
    "consent",
    "token",
    "refresh",
    "device_authorization",
    "device_page",
    "device_poll",
    "revocation",
    "mcp",
    "ping",
    "other",
]
"""The purpose of a request. "token" exchanges a code, "refresh" exchanges a refresh token.

"device_page" is a request to the page for user codes, "device_poll" exchanges a device code.
"""


class Gate:
    """Holds requests until `open`. The first request sets `arrived`, so that a test need not sleep."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.opened = threading.Event()

    def open(self) -> None:
        """Release all waiting and all later requests."""
        self.opened.set()


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that replaces or delays a response. Times are in seconds.

    With `after_processing`, the server processes the request (uses the code or rotates the refresh token),
    and then replaces only the response. Without status, body and `hang_up`, the server sends the normal
    response after the delay.
    """

    status: int | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    delay_seconds: float = 0
    gate: Gate | None = None
    hang_up: bool = False
    after_processing: bool = False


@dataclass(slots=True)
class RecordedRequest:
    """A received request. `status` is None until the response is sent. Header names are lower case."""

    step: Step
    method: str
    target: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    status: int | None = None

    @property
    def path(self) -> str:
        """The path, without the query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters. If a name is repeated, the last value counts."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def form(self) -> dict[str, str]:
        """The form's fields; empty if the body is no form. If a name is repeated, the last value counts."""
        if not self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return {}
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))


def step_of(method: str, path: str, body: bytes) -> Step:
    """Return the purpose of a request."""
    if "/.well-known/oauth-protected-resource" in path:
        return "protected_resource_metadata"
    if "/.well-known/" in path:
        return "authorization_server_metadata"
    if path == "/token":
        return _token_step(body)
    if path == "/authorize":
        return "authorization" if method == "GET" else "other"
    if path.endswith("/ping"):
        return "ping"
    return _STEP_BY_PATH.get(path, "mcp" if "mcp" in path else "other")


def _token_step(body: bytes) -> Step:
    for grant, step in _STEP_BY_GRANT.items():
        if b"grant_type=" + grant in body:
            return step
    return "token"


_STEP_BY_GRANT: Mapping[bytes, Step] = {
    b"refresh_token": "refresh",
    b"urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code": "device_poll",
}
_STEP_BY_PATH: Mapping[str, Step] = {
    "/register": "registration",
    "/par": "pushed_request",
    "/consent": "consent",
    "/device_authorization": "device_authorization",
    "/device": "device_page",
    "/revoke": "revocation",
}
