"""The knobs: how the demo's servers behave. The defaults are what the standards ask for."""

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
"""What a request is for. "token" is the exchange of a code, "refresh" that of a refresh token.

"device_page" is what a person does with a user code, "device_poll" the exchange of a device code.
"""

WellKnown = Literal["rfc8414", "openid_inserted", "openid_appended"]
"""A place of authorization server metadata: RFC 8414, or OpenID Connect inserted or appended."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Every knob of both servers; change one at run time with `AuthorizationServer.change`.

    In `..._overrides` a member of None is left out of the answer. Lifetimes are in seconds.
    """

    # Metadata (RFC 8414): the issuer's path, where it is published, and how its `issuer` is spelt.
    issuer_path: str = ""
    metadata_locations: tuple[WellKnown, ...] = ("rfc8414",)
    metadata_issuer: str | None = None
    metadata_overrides: Mapping[str, object] = field(default_factory=dict[str, object])
    pkce_advertised: bool = True
    scopes_supported: tuple[str, ...] | None = ("mcp:tools", "mcp:write", "offline_access")
    auth_methods: tuple[str, ...] = ("none", "client_secret_basic", "client_secret_post")

    # Clients (RFC 7591; client ID metadata documents are taken from `AuthorizationServer.client_documents`).
    with_registration: bool = True
    registration_overrides: Mapping[str, object] = field(default_factory=dict[str, object])
    redirect_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "::1")
    https_redirects: bool = True
    cimd_supported: bool = False

    # The authorization endpoint.
    with_par: bool = False
    require_par: bool = False
    par_seconds: float = 300
    any_loopback_port: bool = False
    require_resource: bool = True
    accepts_resource: bool = True
    require_scope: bool = False
    auto_approve: bool = False
    code_seconds: float = 60
    # RFC 9207. `iss_value` replaces the issuer in the redirect: a mix-up.
    iss_supported: bool = True
    iss_value: str | None = None

    # The device flow (RFC 8628). An interval of None is left out of the answer, and is 5 seconds then.
    with_device: bool = False
    device_interval_seconds: float | None = 5
    device_seconds: float = 600
    with_verification_uri_complete: bool = True
    # True leaves the endpoint out of the RFC 8414 document: only those of OpenID Connect name it.
    device_only_in_openid: bool = False
    # Scope that the device flow gives, None for all: as Google keeps Gmail out of its own.
    device_scopes: frozenset[str] | None = None
    device_overrides: Mapping[str, object] = field(default_factory=dict[str, object])

    # Tokens. `grant_scopes` caps what is granted; `reuse_grace_seconds` forgives a refresh token's reuse.
    grant_scopes: frozenset[str] | None = None
    access_token_seconds: float = 3600
    issue_refresh_token: bool = True
    rotate: bool = True
    reuse_grace_seconds: float = 0
    refresh_revokes_access: bool = False
    with_id_token: bool = True
    account: str = "ada@example.com"
    token_overrides: Mapping[str, object] = field(default_factory=dict[str, object])
    form_encoded_tokens: bool = False
    with_revocation: bool = True

    # Protected resources (RFC 9728, RFC 6750): where their metadata is, and what a 401 says of it.
    resource_metadata_locations: tuple[Literal["path", "root"], ...] = ("path",)
    resource_identifier: Literal["path", "origin"] = "path"
    resource_overrides: Mapping[str, object] = field(default_factory=dict[str, object])
    challenge_names_metadata: bool = True
    challenge_names_scope: bool = True
    # Raw header lines in place of the challenge; "{metadata}" and "{scope}" are filled in.
    challenge_lines: tuple[str, ...] | None = None
    required_scope: frozenset[str] = frozenset({"mcp:tools"})
    # Scope that one tool needs beyond `required_scope`: 403 insufficient_scope without it.
    tool_scope: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    # JSON-RPC methods that are served without a token.
    open_methods: frozenset[str] = frozenset()
    # True plays a server that knows "Bearer" only in this spelling, although RFC 9110 section 11.1 says: any.
    exact_bearer: bool = False
    ping_delay_seconds: float = 0


class Gate:
    """Holds requests until `open`: `arrived` is set by the first that comes, so a test need not sleep."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.opened = threading.Event()

    def open(self) -> None:
        """Let everything through that waits, and everything that comes."""
        self.opened.set()


@dataclass(frozen=True, slots=True)
class Fault:
    """What to do instead of answering properly. Times are in seconds.

    With `after` the step's work is done first and only its answer is lost: a code is then used up, a refresh
    token rotated. With neither status, body nor `hang_up`, the proper answer comes, only later.
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
    """One request as it came in; `status` follows once it is answered. Header names are lower case."""

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
        """The query's parameters; the last one counts."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def form(self) -> dict[str, str]:
        """The form's fields where the body is a form; the last one counts."""
        if not self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return {}
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))


def step_of(method: str, path: str, body: bytes) -> Step:
    """Tell what a request is for."""
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
