"""The settings of the demo's servers. The defaults follow the standards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

WellKnown = Literal["rfc8414", "openid_inserted", "openid_appended"]
"""A location of authorization server metadata: RFC 8414, or OpenID Connect (path inserted or appended)."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The settings of both servers. Change them at run time with `ServerState.change_behaviour`.

    In `..._overrides` a value of None removes the member from the response. Lifetimes are in seconds.
    """

    # Metadata (RFC 8414): the issuer's path and the published locations.
    issuer_path: str = ""
    metadata_locations: tuple[WellKnown, ...] = ("rfc8414",)
    pkce_advertised: bool = True
    scopes_supported: tuple[str, ...] | None = ("mcp:tools", "mcp:write", "offline_access")
    auth_methods: tuple[str, ...] = ("none", "client_secret_basic", "client_secret_post")

    # Clients (RFC 7591). Client ID metadata documents come from `AuthorizationServer.client_documents`.
    with_registration: bool = True
    registration_overrides: Mapping[str, object] = field(default_factory=dict[str, object])
    redirect_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "::1")
    allows_https_redirects: bool = True
    cimd_supported: bool = False

    # The authorization endpoint.
    with_par: bool = False
    require_par: bool = False
    par_seconds: float = 300
    allows_any_loopback_port: bool = False
    require_resource: bool = True
    accepts_resource: bool = True
    require_scope: bool = False
    auto_approve: bool = False
    code_seconds: float = 60
    # RFC 9207.
    iss_supported: bool = True

    # The device flow (RFC 8628). If the interval is None, the response omits it: clients use 5 seconds.
    with_device: bool = False
    device_interval_seconds: float | None = 5
    device_seconds: float = 600
    with_verification_uri_complete: bool = True
    # True omits the endpoint from the RFC 8414 document. The OpenID Connect documents name it.
    device_only_in_openid: bool = False
    # The scope that the device flow can grant, None for all. Google's device flow excludes Gmail.
    device_scopes: frozenset[str] | None = None
    device_overrides: Mapping[str, object] = field(default_factory=dict[str, object])

    # Tokens. `grant_scopes` limits the granted scope. Within `reuse_grace_seconds` the server accepts a
    # refresh token again.
    grant_scopes: frozenset[str] | None = None
    access_token_seconds: float = 3600
    issue_refresh_token: bool = True
    rotates_refresh_tokens: bool = True
    reuse_grace_seconds: float = 0
    refresh_revokes_access: bool = False
    with_id_token: bool = True
    account: str = "ada@example.com"
    token_overrides: Mapping[str, object] = field(default_factory=dict[str, object])
    form_encoded_tokens: bool = False
    with_revocation: bool = True

    # Protected resources (RFC 9728, RFC 6750): the locations of their metadata, and the challenge of a 401.
    resource_metadata_locations: tuple[Literal["path", "root"], ...] = ("path",)
    resource_identifier: Literal["path", "origin"] = "path"
    challenge_names_metadata: bool = True
    challenge_names_scope: bool = True
    required_scope: frozenset[str] = frozenset({"mcp:tools"})
