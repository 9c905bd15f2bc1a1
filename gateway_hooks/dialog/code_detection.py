"""Detect authorization codes in chat texts: redirect URLs and the states of logins. Pure functions.

The work per text is linear in its length and bounded by MAX_SEARCHED_CHARS. This module only detects codes:
`oauth.redirect` parses and validates the URL that completes a login.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.paste import clean_text
from hermes_mcp_auth_remote.oauth.redirect import matches_state

# Telegram updates, Discord events and Hermes messages are far smaller.
MAX_SEARCHED_CHARS = 500_000
# Separates texts that are searched together: no URL continues across this separator.
SEPARATOR = "\n<>\n"
# A URL can be a query parameter of a second URL, which can be a query parameter of a third.
MAX_PERCENT_DECODINGS = 2
# About half the length of the states that this package creates. A shorter word cannot be a state.
MIN_STATE_CHARS = 20

# RFC 8252 sections 7.3 and 8.3, RFC 6761 section 6.3, and other spellings of the same hosts.
_LOOPBACK = re.compile(
    r"(?i)(?<![\w-])(?:localhost|127(?:\.\d{1,3}){1,3}|0\.0\.0\.0|2130706433"
    r"|\[(?:[0:]{1,14}:0{0,3}1|::ffff:(?:127(?:\.\d{1,3}){3}|7f[0-9a-f]{2}:[0-9a-f]{1,4}))\])"
    r"\.?(?::\d{0,5})?(?=/|$)"
)
_WORD = re.compile(r"[^\s<>\"`“”]+")
# JSON escapes and HTML character references of ASCII characters.
_JSON_ESCAPE = re.compile(r"\\u00([2-7][0-9a-fA-F])")
_HTML_REFERENCE = re.compile(r"&#(?:0{0,4}(\d{2,3})|[xX]0{0,4}([2-7][0-9a-fA-F]));?")
# Placeholders in programs and manuals: {code}, ${CODE}, $CODE, %s, [code], :code.
PLACEHOLDER = r"(?:\$?\{[^&#?]{0,64}\}|\[[^&#?\]]{0,64}\]|[$:][a-z_]{1,32}|%[sd])(?![\w%.~-])"
# RFC 6749 section 4.1.2. If a value has no letter and no digit, it is a placeholder ("code=...").
_PARAMETER_VALUE = rf"(?==(?!{PLACEHOLDER})[^&#?]{{0,64}}?\w)"
_CODE_PARAMETER = re.compile(rf"(?i)(?<=[?&#])(?:code|error){_PARAMETER_VALUE}")
_STATE_PARAMETER = re.compile(rf"(?i)(?<=[?&#])state{_PARAMETER_VALUE}")
_QUERY_START = re.compile(r"[?#]")
# The start of another URL. A URL that is the value of a parameter does not end the URL that contains it.
_NEXT_URL = re.compile(r"(?i)(?<!=)https?://")
# The slashes after a scheme, which a phone may have damaged. Other slashes belong to a path.
_SCHEME_SLASHES = re.compile(r"(?i)(?:^|https?:)/{1,3}$")
_CHARS_BEFORE_URL = "<([{\"'`*_~|“‘,;:"
# A query without a host, as a user may copy it from a URL.
_BARE_QUERY = re.compile(r"(?:/[^\s?#]*[?#]|[?#&])?(?:code|state|iss|error|scope|session_state)=")
_STATE_VALUE = re.compile(rf"[\w-]{{{MIN_STATE_CHARS},}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class RedirectLocations:
    """Hosts and paths of redirect URIs: all known ones, and those of waiting paste logins."""

    all_locations: frozenset[tuple[str, str]] = frozenset()
    waiting_locations: frozenset[tuple[str, str]] = frozenset()


def collect_redirect_locations(
    logins: Iterable[Login], configured_uris: Collection[str] = ()
) -> RedirectLocations:
    """Return the redirect URIs of the logins and of the configuration."""
    waiting_locations, all_locations = set[tuple[str, str]](), {_location_of(uri) for uri in configured_uris}
    for login in logins:
        location = _location_of(login.request.redirect_uri)
        all_locations.add(location)
        if login.status == "waiting" and login.poll_state is None:
            waiting_locations.add(location)
    return RedirectLocations(frozenset(all_locations), frozenset(waiting_locations))


def may_contain_code(text: str) -> bool:
    """Return True if a text could contain a code or a state. This check is fast and needs no logins."""
    compact_text = "".join(_undo_formatting(text).lower().split())
    return (
        any(marker in compact_text for marker in ("code", "error", "%"))
        or _STATE_VALUE.search(compact_text) is not None
    )


def contains_response_parameters(text: str, *, needs_state: bool = True) -> bool:
    """Return True if a text contains a URL of any host with `code` (or `error`) and `state`."""
    return any(True for _ in _find_redirect_urls(text, needs_state=needs_state))


def contains_redirect(text: str, locations: RedirectLocations = RedirectLocations()) -> bool:
    """Return True if a text contains a redirect URL: one on loopback, or one of `locations`.

    The URL must have `code` (or `error`) and `state`. If a login waits for the URL, `state` may be absent.
    """
    return any(
        (url.has_state and (url.is_on_loopback or url.location in locations.all_locations))
        or url.location in locations.waiting_locations
        for url in _find_redirect_urls(text, needs_state=not locations.waiting_locations)
    )


def is_bare_query(text: str) -> bool:
    """Return True if the whole text is a redirect's query with `code` (or `error`) and `state`."""
    compact_text = "".join(_undo_formatting(text).split())
    if _BARE_QUERY.match(compact_text) is None:
        return False
    query = f"?{compact_text.lstrip('?#&')}"
    return _CODE_PARAMETER.search(query) is not None and _STATE_PARAMETER.search(query) is not None


def login_by_state(text: str, logins: Iterable[Login]) -> Login | None:
    """Return the login whose state a text contains.

    If there are several, prefer the login whose redirect URL is the whole text.
    """
    # A substring search is fast. To parse the text for each of a thousand logins would take seconds.
    clean = _undo_formatting(text)
    readings = ("".join(clean.split()), unquote(clean)) if "%" in clean else ("".join(clean.split()),)
    candidates = [login for login in logins if any(has_state(reading, login) for reading in readings)]
    return next(
        (login for login in candidates if matches_state(text, login.request)),
        candidates[0] if candidates else None,
    )


def has_state(text: str, login: Login) -> bool:
    """Return True if a text contains a login's state. The record of a finished login has no state."""
    state = login.request.state.reveal()
    return len(state) >= MIN_STATE_CHARS and state in text


def line_with_state(text: str, login: Login) -> str:
    """Return the line that contains a login's state; the whole text if no line does."""
    start = text.find(login.request.state.reveal())
    if start < 0:
        return text
    end = text.find("\n", start)
    return text[text.rfind("\n", 0, start) + 1 : end if end >= 0 else len(text)]


@dataclass(frozen=True, slots=True)
class _RedirectUrl:
    location: tuple[str, str]
    is_on_loopback: bool
    has_state: bool


def _find_redirect_urls(text: str, *, needs_state: bool = True) -> Iterator[_RedirectUrl]:
    """Yield each URL with a code in its query or fragment, in every decoding of the text."""
    for reading in _decodings(text):
        for match in _WORD.finditer(reading):
            word = match[0]
            code_positions = [parameter.start() for parameter in _CODE_PARAMETER.finditer(word)]
            state_positions = [parameter.start() for parameter in _STATE_PARAMETER.finditer(word)]
            if code_positions and (state_positions or not needs_state):
                yield from _find_in_word(word, code_positions, state_positions)


def _find_in_word(word: str, codes: list[int], states: list[int]) -> Iterator[_RedirectUrl]:
    """Yield the URL before each "?" or "#" of a word if a code follows."""
    url_starts = [url.start() for url in _NEXT_URL.finditer(word)]
    start = 0
    for query in _QUERY_START.finditer(word):
        head, at, start = word[start : query.start()], query.start(), query.end()
        next_url = bisect_right(url_starts, at)
        end = url_starts[next_url] if next_url < len(url_starts) else len(word)
        if not _has_between(codes, at, end):
            continue
        # Keep only the last URL in the head: the head may contain another URL before the last one.
        head = head.rpartition("://")[2]
        yield _RedirectUrl(_location_of(head), _is_on_loopback(head), _has_between(states, at, end))


def _is_on_loopback(head: str) -> bool:
    host = _LOOPBACK.search(head)
    if host is None:
        return False
    prefix = head[: host.start()]
    return "/" not in prefix or _SCHEME_SLASHES.search(prefix) is not None


def _has_between(positions: list[int], after: int, before: int) -> bool:
    index = bisect_right(positions, after)
    return index < len(positions) and positions[index] < before


def _decodings(text: str) -> Iterator[str]:
    """Yield the text, the text without line breaks, and the percent-decoded forms of both."""
    clean = _undo_formatting(text)
    joined = "".join(line.strip().lstrip("> \t") for line in clean.splitlines())
    for start in (clean, joined) if joined != clean else (clean,):
        reading = start
        yield reading
        for _ in range(MAX_PERCENT_DECODINGS):
            decoded = unquote(reading)
            if decoded == reading:
                break
            reading = decoded
            yield reading


def _undo_formatting(text: str) -> str:
    """Undo the changes that chats, Markdown, JSON and HTML make to a URL."""
    text = text[:MAX_SEARCHED_CHARS]
    if "&#" in text:
        text = _HTML_REFERENCE.sub(_unescape_character, text)
    if "\\" in text:
        text = _JSON_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text).replace("\\", "")
    return clean_text(text).replace("*", "")


def _unescape_character(match: re.Match[str]) -> str:
    code = int(match[1]) if match[1] else int(match[2], 16)
    return chr(code) if " " <= chr(code) <= "~" else match[0]


def _location_of(url: str) -> tuple[str, str]:
    """Return host (with port) and path, normalized for comparison. `url` may lack its scheme."""
    rest = url.rpartition("://")[2] if "://" in url else url
    host, _, path = rest.lstrip(_CHARS_BEFORE_URL).partition("/")
    return host.lower(), f"/{_QUERY_START.split(path, maxsplit=1)[0]}"
