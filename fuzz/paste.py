"""Fuzz pasted text: only a response to this login passes, or a bare code if it is allowed."""

from contextlib import suppress

from fuzz.inputs import ISSUER, REDIRECT_URI, STATE, check, make_authorization_request
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.oauth.redirect import read_authorization_response

PASTED_URL = f"{REDIRECT_URI}?code=c0de&state={STATE}&iss={ISSUER}"
SEEDS = (
    PASTED_URL.encode(),
    f"Here: <{PASTED_URL.replace('&', '&amp;')}>, thanks!".encode(),
    PASTED_URL.replace("?", "?\n").encode(),
    f"[link]({PASTED_URL})".encode(),
    f"127.0.0.1:8765/callback?error=access_denied&state={STATE}&iss={ISSUER}".encode(),
    b"4/0AbCdEfGhIjKlMnOpQrStUv",
    "\u201c\u200bcode=c0de\u201d".encode("utf-16"),
)
_REQUEST = make_authorization_request()


def fuzz_one_input(data: bytes) -> None:
    """Read the input with and without bare codes allowed."""
    text = data.decode("utf-8", "surrogateescape")
    for accept in (False, True):
        with suppress(McpAuthError):
            response = read_authorization_response(text, _REQUEST, accept_bare_code=accept)
            check(response.code.reveal(), "an empty code")
            check(response.is_bare <= accept, "a bare code that is not allowed")
