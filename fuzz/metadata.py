"""Fuzz metadata of protected resources and authorization servers: the result has no unsafe URL."""

import json
from contextlib import suppress

from fuzz.inputs import ISSUER, OK_JSON, check, make_authorization_server, make_response, read_sample
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.oauth.metadata import (
    read_authorization_server_response,
    read_protected_resource_response,
)
from hermes_mcp_auth_remote.oauth.urls import is_safe_url, origin_of

URL = "https://mcp.stripe.example/mcp"
SEEDS = (
    OK_JSON + read_sample("stripe/prm.json"),
    OK_JSON + json.dumps(make_authorization_server().document).encode(),
    OK_JSON
    + b'{"resource":"https://mcp.stripe.example","authorization_servers":["https://\\u0430.example/"]}',
    OK_JSON + b"<!doctype html>",
)


def fuzz_one_input(data: bytes) -> None:
    """Read the input as both kinds of metadata."""
    response = make_response(data)
    with suppress(McpAuthError):
        resource = read_protected_resource_response(response, URL)
        check(is_safe_url(resource.authorization_servers[0]), "an unsafe issuer")
    with suppress(McpAuthError):
        server = read_authorization_server_response(response, ISSUER)
        for url in (
            server.authorization_endpoint,
            server.token_endpoint,
            server.device_authorization_endpoint,
        ):
            check(url is None or is_safe_url(url), "an unsafe endpoint")
        check(origin_of(server.issuer) == ISSUER, "a different issuer")
