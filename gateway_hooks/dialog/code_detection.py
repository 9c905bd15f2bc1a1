"""Find authorization codes in texts of a platform: addresses of a redirect, and states of logins. Pure.

The work for each text is linear in its length, and bounded by MAX_SEARCHED_CHARS. Nothing is trusted and
nothing is parsed for use here: `oauth.redirect` reads the address that finishes a login.
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

# Updates of Telegram and events of Discord are far smaller; so is what Hermes takes into a message.
MAX_SEARCHED_CHARS = 500_000
# Stands between texts that are searched together: no address goes on across it.
SEPARATOR = "\n<>\n"
# An address may lie in the query of another one, which may lie in a third.
MAX_PERCENT_DECODINGS = 2
# Half of a state: what is shorter holds none.
MIN_STATE_CHARS = 20

# RFC 8252 section 7.3 and 8.3, RFC 6761 section 6.3, and other ways to write the same hosts.
_LOOPBACK = re.compile(
    r"(?i)(?<![\w-])(?:localhost|127(?:\.\d{1,3}){1,3}|0\.0\.0\.0|2130706433"
    r"|\[(?:[0:]{1,14}:0{0,3}1|::ffff:(?:127(?:\.\d{1,3}){3}|7f[0-9a-f]{2}:[0-9a-f]{1,4}))\])"
    r"\.?(?::\d{0,5})?(?=/|$)"
)
_WORD = re.compile(r"[^\s<>\"`“”]+")
# JSON, and HTML's references to characters of ASCII.
_JSON_ESCAPE = re.compile(r"\\u00([2-7][0-9a-fA-F])")
_HTML_REFERENCE = re.compile(r"&#(?:0{0,4}(\d{2,3})|[xX]0{0,4}([2-7][0-9a-fA-F]));?")
# What programs and manuals write in place of a value: {code}, ${CODE}, $CODE, %s, [code], :code.
PLACEHOLDER = r"(?:\$?\{[^&#?]{0,64}\}|\[[^&#?\]]{0,64}\]|[$:][a-z_]{1,32}|%[sd])(?![\w%.~-])"
# RFC 6749 section 4.1.2. A value that has no letter and no digit stands for none ("code=...").
_PARAMETER_VALUE = rf"(?==(?!{PLACEHOLDER})[^&#?]{{0,64}}?\w)"
_CODE_PARAMETER = re.compile(rf"(?i)(?<=[?&#])(?:code|error){_PARAMETER_VALUE}")
_STATE_PARAMETER = re.compile(rf"(?i)(?<=[?&#])state{_PARAMETER_VALUE}")
_QUERY_START = re.compile(r"[?#]")
# Where another address begins; one that is the value of a parameter does not end the address around it.
_NEXT_URL = re.compile(r"(?i)(?<!=)https?://")
# The slashes of a scheme, which a phone may have damaged; others are a path's, of another host.
_SCHEME_SLASHES = re.compile(r"(?i)(?:^|https?:)/{1,3}$")
_CHARS_BEFORE_URL = "<([{\"'`*_~|“‘,;:"
# A query alone, as it may be copied from an address.
_BARE_QUERY = re.compile(r"(?:/[^\s?#]*[?#]|[?#&])?(?:code|state|iss|error|scope|session_state)=")
_STATE_VALUE = re.compile(rf"[\w-]{{{MIN_STATE_CHARS},}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class RedirectLocations:
    """Redirect URIs: `awaited` are those of logins that wait, `known` all that are ours."""

    all_locations: frozenset[tuple[str, str]] = frozenset()
    waiting_locations: frozenset[tuple[str, str]] = frozenset()


def collect_redirect_locations(
    logins: Iterable[Login], configured_uris: Collection[str] = ()
) -> RedirectLocations:
    """Return the redirect URIs of logins, and those that the configuration names."""
    awaited, known = set[tuple[str, str]](), {_location_of(uri) for uri in configured_uris}
    for login in logins:
        place = _location_of(login.request.redirect_uri)
        known.add(place)
        if login.status == "waiting" and login.poll_state is None:
            awaited.add(place)
    return RedirectLocations(frozenset(known), frozenset(awaited))


def may_contain_code(text: str) -> bool:
    """True if a text can hold a code or a state at all: cheap, and needs no login to be read."""
    whole = "".join(_undo_formatting(text).lower().split())
    return any(each in whole for each in ("code", "error", "%")) or _STATE_VALUE.search(whole) is not None


def contains_response_parameters(text: str, *, needs_state: bool = True) -> bool:
    """True if a text holds an address, of any host, with `code` (or `error`) and `state`."""
    return any(True for _ in _find_redirect_urls(text, needs_state=needs_state))


def contains_redirect(text: str, locations: RedirectLocations = RedirectLocations()) -> bool:
    """True if a text holds an address that authorization servers redirect to: on loopback, or one of ours.

    It has `code` (or `error`) and `state`; without `state` it counts if a login waits for that address.
    """
    return any(
        (address.has_state and (address.is_on_loopback or address.location in locations.all_locations))
        or address.location in locations.waiting_locations
        for address in _find_redirect_urls(text, needs_state=not locations.waiting_locations)
    )


def is_bare_query(text: str) -> bool:
    """True if a text is nothing but the query of a redirect, with `code` (or `error`) and `state`."""
    whole = "".join(_undo_formatting(text).split())
    if _BARE_QUERY.match(whole) is None:
        return False
    query = f"?{whole.lstrip('?#&')}"
    return _CODE_PARAMETER.search(query) is not None and _STATE_PARAMETER.search(query) is not None


def login_by_state(text: str, logins: Iterable[Login]) -> Login | None:
    """Return the login whose state a text carries: first one whose whole answer it is."""
    # Searching a text is fast; reading it closely for each of a thousand logins takes seconds.
    known = _undo_formatting(text)
    texts = ("".join(known.split()), unquote(known)) if "%" in known else ("".join(known.split()),)
    likely = [each for each in logins if any(has_state(one, each) for one in texts)]
    return next((each for each in likely if matches_state(text, each.request)), likely[0] if likely else None)


def has_state(text: str, login: Login) -> bool:
    """True if a text has a login's state in it; the record of a login that is over keeps none."""
    state = login.request.state.reveal()
    return len(state) >= MIN_STATE_CHARS and state in text


def line_with_state(text: str, login: Login) -> str:
    """Return the line of a text in which a login's state stands whole; the text if there is none."""
    at = text.find(login.request.state.reveal())
    if at < 0:
        return text
    end = text.find("\n", at)
    return text[text.rfind("\n", 0, at) + 1 : end if end >= 0 else len(text)]


@dataclass(frozen=True, slots=True)
class _RedirectUrl:
    location: tuple[str, str]
    is_on_loopback: bool
    has_state: bool


def _find_redirect_urls(text: str, *, needs_state: bool = True) -> Iterator[_RedirectUrl]:
    """Yield each address with a code in its query or fragment, in every way to read the text."""
    for reading in _decodings(text):
        for match in _WORD.finditer(reading):
            word = match[0]
            codes = [each.start() for each in _CODE_PARAMETER.finditer(word)]
            states = [each.start() for each in _STATE_PARAMETER.finditer(word)]
            if codes and (states or not needs_state):
                yield from _find_in_word(word, codes, states)


def _find_in_word(word: str, codes: list[int], states: list[int]) -> Iterator[_RedirectUrl]:
    """Yield what stands before each "?" or "#" of a word, if codes follow."""
    begins = [each.start() for each in _NEXT_URL.finditer(word)]
    start = 0
    for query in _QUERY_START.finditer(word):
        head, at, start = word[start : query.start()], query.start(), query.end()
        later = bisect_right(begins, at)
        end = begins[later] if later < len(begins) else len(word)
        if not _has_between(codes, at, end):
            continue
        # A host before another address is not that address's.
        head = head.rpartition("://")[2]
        yield _RedirectUrl(_location_of(head), _is_on_loopback(head), _has_between(states, at, end))


def _is_on_loopback(head: str) -> bool:
    found = _LOOPBACK.search(head)
    if found is None:
        return False
    before = head[: found.start()]
    return "/" not in before or _SCHEME_SLASHES.search(before) is not None


def _has_between(positions: list[int], after: int, before: int) -> bool:
    found = bisect_right(positions, after)
    return found < len(positions) and positions[found] < before


def _decodings(text: str) -> Iterator[str]:
    """Yield a text as it is, with its line breaks undone, and both percent-decoded."""
    known = _undo_formatting(text)
    joined = "".join(line.strip().lstrip("> \t") for line in known.splitlines())
    for reading in (known, joined) if joined != known else (known,):
        one = reading
        yield one
        for _ in range(MAX_PERCENT_DECODINGS):
            decoded = unquote(one)
            if decoded == one:
                break
            one = decoded
            yield one


def _undo_formatting(text: str) -> str:
    """Undo what chats, Markdown, JSON and HTML do to an address."""
    text = text[:MAX_SEARCHED_CHARS]
    if "&#" in text:
        text = _HTML_REFERENCE.sub(_unescape_character, text)
    if "\\" in text:
        text = _JSON_ESCAPE.sub(lambda found: chr(int(found[1], 16)), text).replace("\\", "")
    return clean_text(text).replace("*", "")


def _unescape_character(match: re.Match[str]) -> str:
    code = int(match[1]) if match[1] else int(match[2], 16)
    return chr(code) if " " <= chr(code) <= "~" else match[0]


def _location_of(url: str) -> tuple[str, str]:
    """Return host (with its port) and path, as they are compared; `address` may lack its scheme."""
    rest = url.rpartition("://")[2] if "://" in url else url
    host, _, path = rest.lstrip(_CHARS_BEFORE_URL).partition("/")
    return host.lower(), f"/{_QUERY_START.split(path, maxsplit=1)[0]}"
