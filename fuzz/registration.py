"""Fuzz responses to a client registration: an accepted client can authenticate and be stored."""

from contextlib import suppress
from urllib.parse import urlsplit

from fuzz.inputs import (
    ISSUER,
    OK_JSON,
    REDIRECT_URI,
    check,
    make_authorization_server,
    make_response,
    read_sample,
)
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.oauth.client import authenticate_client, read_registration_response
from hermes_mcp_auth_remote.store.codec import client_document, encode_document

SEEDS = (
    b"\x01\x00" + b'{"client_id":"c","client_secret":"s","client_secret_expires_at":0,"redirect_uris":["x"]}',
    OK_JSON
    + b'{"client_id":"c","token_endpoint_auth_method":"client_secret_basic","client_secret":"\\u00e4"}',
    b"\x02\x00" + b'{"error":"invalid_redirect_uri","error_description":"no"}',
    OK_JSON
    + b'{"client_id":"c","redirect_uris":["http://127.0.0.1:8765/callback","http://[","a://b:99999"]}',
    b"\x04\x02" + read_sample("figma/registration.txt"),
)


def fuzz_one_input(data: bytes) -> None:
    """Read the response, store the client and authenticate with it."""
    with suppress(McpAuthError):
        client = read_registration_response(make_response(data), make_authorization_server(), REDIRECT_URI)
        check(client.client_id and client.is_registered, "no client")
        check(all(urlsplit(uri).port != -1 for uri in client.redirect_uris), "an invalid redirect URI")
        encode_document(client_document(client))
        authenticate_client(client, ISSUER, {"grant_type": "authorization_code"})
