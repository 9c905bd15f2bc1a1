"""The settings of the tests' servers: the demo's settings, and deviations that the demo does not need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hermes_mcp_auth_remote.demo import behaviour


@dataclass(frozen=True, slots=True)
class Behaviour(behaviour.Behaviour):
    """The demo's settings and more. In `..._overrides` a value of None removes the member."""

    # The value of `issuer` in the metadata.
    metadata_issuer: str | None = None
    metadata_overrides: Mapping[str, object] = field(default_factory=dict[str, object])
    # Replaces the issuer in the redirect, as in a mix-up attack (RFC 9207).
    iss_value: str | None = None

    resource_overrides: Mapping[str, object] = field(default_factory=dict[str, object])
    # Header lines that replace the challenge. The server fills in "{metadata}" and "{scope}".
    challenge_lines: tuple[str, ...] | None = None
    # The scope that a tool needs in addition to `required_scope`. A token without it gets 403
    # insufficient_scope.
    tool_scope: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    # JSON-RPC methods that need no token.
    open_methods: frozenset[str] = frozenset()
    # If True, accept only the spelling "Bearer". By RFC 9110 section 11.1 the scheme is case-insensitive.
    exact_bearer: bool = False
