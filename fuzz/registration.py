"""The answer to a client registration: what is taken can authenticate."""

from contextlib import suppress

from fuzz.given import ISSUER, OK_JSON, REDIRECT_URI, answer, check, sample, server
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.oauth.client import authenticate, read_registration_response

SEEDS = (
    b"\x01\x00" + b'{"client_id":"c","client_secret":"s","client_secret_expires_at":0,"redirect_uris":["x"]}',
    OK_JSON
    + b'{"client_id":"c","token_endpoint_auth_method":"client_secret_basic","client_secret":"\\u00e4"}',
    b"\x02\x00" + b'{"error":"invalid_redirect_uri","error_description":"no"}',
    b"\x04\x02" + sample("figma/registration.txt"),
)


def one_input(data: bytes) -> None:
    """Read it, and authenticate."""
    with suppress(McpAuthError):
        client = read_registration_response(answer(data), server(), REDIRECT_URI)
        check(client.client_id and client.registered, "no client")
        authenticate(client, ISSUER, {"grant_type": "authorization_code"})
