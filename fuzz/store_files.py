"""Fuzz files of the store: a file that can be read can be written and read again."""

import json
from collections.abc import Callable, Mapping

from fuzz.inputs import ISSUER, NOW, check, make_authorization_server, make_client
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.store.codec import (
    binding_document,
    client_document,
    decode_document,
    encode_document,
    metadata_document,
    read_binding,
    read_client,
    read_metadata,
    read_tokens,
    tokens_document,
)
from hermes_mcp_auth_remote.store.login_codec import login_document, read_login
from hermes_mcp_auth_remote.values import Secret

Document = Mapping[str, object]
_TOKENS = Tokens(Secret("t"))


def _round_trip_tokens(document: Document) -> Document:
    return tokens_document(read_tokens(document, NOW, "a.json"))


def _round_trip_client(document: Document) -> Document:
    return client_document(read_client(document, "a.client.json"))


def _round_trip_metadata(document: Document) -> Document:
    return metadata_document(read_metadata(document, "a.meta.json"))


def _round_trip_binding(document: Document) -> Document:
    return binding_document(read_binding(document, _TOKENS, "a.binding.json"), _TOKENS)


def _round_trip_login(document: Document) -> Document:
    return login_document(read_login(document, "a.json"))


_ROUND_TRIPS: tuple[Callable[[Document], Document], ...] = (
    _round_trip_tokens,
    _round_trip_client,
    _round_trip_metadata,
    _round_trip_binding,
    _round_trip_login,
)
_LOGIN_DOCUMENT = {
    "version": 1,
    "id": "a-login-that-nobody-guesses",
    "server": "demo",
    "owner": None,
    "server_url": "https://a.example/mcp",
    "origin": {"platform": "terminal", "chat": "", "thread": "", "user": ""},
    "begun_at": NOW,
    "expires_at": NOW + 600,
    "status": "waiting",
    "added_scope": [],
    "pastes": 0,
    "failure": None,
    "failure_code": None,
    "authorization_server": metadata_document(make_authorization_server()),
    "request": {
        "url": f"{ISSUER}/authorize",
        "state": "s",
        "code_verifier": "v",
        "redirect_uri": "http://127.0.0.1:1/callback",
        "issuer": ISSUER,
        "iss_required": True,
        "token_endpoint": f"{ISSUER}/token",
        "authorization_endpoint": f"{ISSUER}/authorize",
        "resource": None,
        "scope": ["a"],
        "trusted_issuers": [],
        "lifetime_seconds": None,
        "dpop": False,
    },
    "client": {
        "client_id": "c",
        "client_secret": None,
        "method": "none",
        "redirect_uris": [],
        "secret_expires_at": None,
        "registered": True,
        "document": {},
    },
}
SEEDS = (
    b"\x00" + b'{"access_token":"t","token_type":"Bearer","expires_in":3600,"expires_at":1.8e9,"scope":"a"}',
    b"\x01" + json.dumps(client_document(make_client())).encode(),
    b"\x01" + b'{"client_id":"c","redirect_uris":["http://127.0[.0.1:8765/callback","http://a:99999/"]}',
    b"\x02" + json.dumps(metadata_document(make_authorization_server())).encode(),
    b"\x03" + b'{"version":1,"server":"demo","server_url":"https://a.example","issuer":"https://as.example",'
    b'"client_id":"c","resource":null,"requested_scope":["a"],"connected_at":1.8e9,"login_needed":null}',
    b"\x04" + json.dumps(_LOGIN_DOCUMENT).encode(),
)


def fuzz_one_input(data: bytes) -> None:
    """Read the kind of file that the first byte selects, write it, and read it again."""
    read_and_write = _ROUND_TRIPS[(data[0] if data else 0) % len(_ROUND_TRIPS)]
    try:
        written = encode_document(read_and_write(decode_document(data[1:], "a.json")))
    except McpAuthError:
        return
    rewritten = encode_document(read_and_write(decode_document(written, "a.json")))
    # If a lifetime is longer than a century, each read shortens it a little. All other members are stable.
    check(
        rewritten == written or read_and_write is _round_trip_tokens,
        "the file changed after it was written and read",
    )
