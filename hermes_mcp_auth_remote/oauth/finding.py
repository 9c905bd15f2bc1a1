"""From a server's URL to its authorization server: the probe, and discovery.

The probe is RFC 9728 §5.1: a protected resource answers 401 and says where to go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hermes_mcp_auth_remote.errors import DiscoveryFailed
from hermes_mcp_auth_remote.oauth.challenge import Challenge, read_challenge
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.flows import DEVICE_FLOWS, with_device
from hermes_mcp_auth_remote.oauth.metadata import Discovery, discover
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import Exchange, own_headers, post_json
from hermes_mcp_auth_remote.values import Flow, Server

PROBE = "first request"
# The least that makes every MCP server of any revision look at the request's authorization.
_INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "hermes-mcp-auth-remote", "version": "0"},
    },
}


@dataclass(frozen=True, slots=True)
class Found:
    """Where a server's logins go, and what it asked for meanwhile.

    `client` is one that has registered there just now, for all who begin meanwhile and have none.
    """

    discovery: Discovery
    challenge: Challenge
    client: Client | None = None


def find(server: Server, issuer: str | None, challenge: Challenge | None, flow: Flow) -> Exchange[Found]:
    """Take a login from a server's URL to its authorization server, `issuer` before others where it is one.

    Raises any ServerError or NetworkError.
    """
    options, answered = server.options, challenge
    if answered is None:
        answered = yield from probe(server)
    found = yield from discover(
        server.url,
        answered or Challenge(),
        trusted_issuers=options.trusted_issuers,
        authorization_server=options.authorization_server,
        prefer_issuer=issuer,
    )
    if found.authorization_server.is_guessed and answered is None:
        raise DiscoveryFailed(
            f"{host_of(server.url)} asks for no authorization and names no authorization server.",
            "It may need no login at all; if it does, set `oauth.authorization_server` for it.",
        )
    if flow in DEVICE_FLOWS:
        found = yield from with_device(server, found, flow)
    return Found(found, answered or Challenge())


def probe(server: Server) -> Exchange[Challenge | None]:
    """Ask the MCP server without a token; returns its challenge, None where it asks for no token."""
    request = post_json(server.url, PROBE, _INITIALIZE)
    accept = ("accept", "application/json, text/event-stream")
    headers = (accept, *request.headers[1:], *own_headers(server.headers))
    response = yield replace(request, headers=headers)
    lines = response.header_all("www-authenticate")
    return read_challenge(lines) if lines or response.status in {401, 403} else None
