"""Decide if a message is only one part of an answer, or is the address of a wrong page. Pure functions.

`oauth.paste` repairs an answer, and refuses it if the end of its code is in doubt.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest
from hermes_mcp_auth_remote.oauth.paste import clean_text
from hermes_mcp_auth_remote.oauth.redirect import read_authorization_response

# Telegram's client splits a longer message (Bot API, MessageLimit.MAX_TEXT_LENGTH).
MAX_MESSAGE_UNITS = 4096

_PARAMETER = r"(?:^|[?&#]|%3f|%26)(?:{names})(?:=|%3d)"
_CODE_PARAMETER = re.compile(_PARAMETER.format(names="code|error"), re.IGNORECASE)
_STATE_PARAMETER = re.compile(_PARAMETER.format(names="state"), re.IGNORECASE)


def is_full_message(text: str) -> bool:
    """Return True if the text fills one or more messages completely: its end may then be missing."""
    units = len(text.encode("utf-16-le", "surrogatepass")) // 2
    return units > 0 and units % MAX_MESSAGE_UNITS == 0


def may_have_another_part(text: str, request: AuthorizationRequest) -> bool:
    """Return True if the text is the start of an address whose rest may come in the next message."""
    if is_full_message(text):
        return True
    clean = clean_text(text)
    if not _redirect_pattern(request).search(clean):
        return False
    last_parameter = re.split(r"[?&#]", clean)[-1]
    if last_parameter.startswith("state="):
        pasted_state, state = last_parameter.removeprefix("state="), request.state.reveal()
        return pasted_state != state and state.startswith(pasted_state)
    return not (_CODE_PARAMETER.search(clean) and _STATE_PARAMETER.search(clean))


def is_continuation(text: str) -> bool:
    """Return True if a message can be the rest of an address: it is one word and starts no new address."""
    clean = text.strip()
    return bool(re.fullmatch(r"[!-~]+", clean)) and not re.match(r"(?i)https?:|/\w+$", clean)


def is_address_at_provider(text: str, request: AuthorizationRequest) -> bool:
    """Return True if the text is only an address without a code, at the host of this login's page."""
    clean = clean_text(text).strip("<>")
    if not re.fullmatch(r"(?i)https?://\S+", clean):
        return False
    try:
        parts = urlsplit(clean)
        expected_host = urlsplit(request.authorization_endpoint).netloc
        fields = parse_qs(parts.query, max_num_fields=100)
    except ValueError:
        return False
    return parts.netloc.lower() == expected_host.lower() and "code" not in fields


def refuse_wrong_address(text: str, request: AuthorizationRequest) -> None:
    """Raise PasteRefused, with the reason why this text does not complete the login."""
    read_authorization_response(text, request)


def _redirect_pattern(request: AuthorizationRequest) -> re.Pattern[str]:
    parts = urlsplit(request.redirect_uri)
    return re.compile(rf"(?i)https?://{re.escape(parts.netloc)}(?={re.escape(parts.path or '')}[/?#])")
