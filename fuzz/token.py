"""Fuzz responses of a token endpoint (JSON, form): the result is an error, or a token that fits a header."""

from contextlib import suppress

from fuzz.inputs import BAD_JSON, NOW, OK_FORM, OK_JSON, check, make_response, read_sample
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.oauth.token import read_token_response

SEEDS = (
    OK_JSON
    + b'{"access_token":"t","token_type":"bearer","expires_in":"3600","refresh_token":"r","scope":"a b"}',
    OK_JSON + b'{"access_token":"t","token_type":"DPoP","id_token":"e30.eyJlbWFpbCI6ImFAYiJ9.c2ln"}',
    OK_FORM + read_sample("github/token.txt"),
    OK_JSON + read_sample("slack/token.json"),
    OK_JSON + read_sample("slack/refused.json"),
    BAD_JSON + b'{"error":"invalid_grant","error_description":"spent"}',
)


def fuzz_one_input(data: bytes) -> None:
    """Read the response as the response to a plain request and to a request with a DPoP proof."""
    for has_proof in (False, True):
        with suppress(McpAuthError):
            tokens = read_token_response(make_response(data), NOW, "as.example", has_proof=has_proof)
            token = tokens.access_token.reveal()
            check(token.isascii() and token.isprintable() and token, "a token that does not fit a header")
            check(tokens.expires_at is None or tokens.expires_at > NOW, "an expired token")
