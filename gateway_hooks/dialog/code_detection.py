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
from hermes_mcp_auth_remote.oauth.paste import cleaned
from hermes_mcp_auth_remote.oauth.redirect import answers

# Updates of Telegram and events of Discord are far smaller; so is what Hermes takes into a message.
MAX_SEARCHED_CHARS = 500_000
# Stands between texts that are searched together: no address goes on across it.
SEPARATOR = "\n<>\n"
# An address may lie in the query of another one, which may lie in a third.
MAX_ENCODINGS = 2
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
_ESCAPED = re.compile(r"\\u00([2-7][0-9a-fA-F])")
_REFERENCE = re.compile(r"&#(?:0{0,4}(\d{2,3})|[xX]0{0,4}([2-7][0-9a-fA-F]));?")
# What programs and manuals write in place of a value: {code}, ${CODE}, $CODE, %s, [code], :code.
PLACEHOLDER = r"(?:\$?\{[^&#?]{0,64}\}|\[[^&#?\]]{0,64}\]|[$:][a-z_]{1,32}|%[sd])(?![\w%.~-])"
# RFC 6749 section 4.1.2. A value that has no letter and no digit stands for none ("code=...").
_VALUE = rf"(?==(?!{PLACEHOLDER})[^&#?]{{0,64}}?\w)"
_CODE = re.compile(rf"(?i)(?<=[?&#])(?:code|error){_VALUE}")
_STATE = re.compile(rf"(?i)(?<=[?&#])state{_VALUE}")
_QUERY_START = re.compile(r"[?#]")
# Where another address begins; one that is the value of a parameter does not end the address around it.
_NEXT_ADDRESS = re.compile(r"(?i)(?<!=)https?://")
# The slashes of a scheme, which a phone may have damaged; others are a path's, of another host.
_SLASHES = re.compile(r"(?i)(?:^|https?:)/{1,3}$")
_BEFORE_ADDRESS = "<([{\"'`*_~|“‘,;:"
# A query alone, as it may be copied from an address.
_QUERY_ALONE = re.compile(r"(?:/[^\s?#]*[?#]|[?#&])?(?:code|state|iss|error|scope|session_state)=")
_STATE_ALONE = re.compile(rf"[\w-]{{{MIN_STATE_CHARS},}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Redirects:
    """Redirect URIs: `awaited` are those of logins that wait, `known` all that are ours."""

    known: frozenset[tuple[str, str]] = frozenset()
    awaited: frozenset[tuple[str, str]] = frozenset()


def redirects_of(logins: Iterable[Login], configured: Collection[str] = ()) -> Redirects:
    """Return the redirect URIs of logins, and those that the configuration names."""
    awaited, known = set[tuple[str, str]](), {_place(uri) for uri in configured}
    for login in logins:
        place = _place(login.request.redirect_uri)
        known.add(place)
        if login.status == "waiting" and login.device is None:
            awaited.add(place)
    return Redirects(frozenset(known), frozenset(awaited))


def may_carry_code(text: str) -> bool:
    """True if a text can hold a code or a state at all: cheap, and needs no login to be read."""
    whole = "".join(_cleaned(text).lower().split())
    return any(each in whole for each in ("code", "error", "%")) or _STATE_ALONE.search(whole) is not None


def carries_parameters(text: str, *, needs_state: bool = True) -> bool:
    """True if a text holds an address, of any host, with `code` (or `error`) and `state`."""
    return any(True for _ in _addresses(text, needs_state=needs_state))


def carries_redirect(text: str, redirects: Redirects = Redirects()) -> bool:
    """True if a text holds an address that authorization servers redirect to: on loopback, or one of ours.

    It has `code` (or `error`) and `state`; without `state` it counts if a login waits for that address.
    """
    return any(
        (address.has_state and (address.is_on_loopback or address.place in redirects.known))
        or address.place in redirects.awaited
        for address in _addresses(text, needs_state=not redirects.awaited)
    )


def is_query_alone(text: str) -> bool:
    """True if a text is nothing but the query of a redirect, with `code` (or `error`) and `state`."""
    whole = "".join(_cleaned(text).split())
    if _QUERY_ALONE.match(whole) is None:
        return False
    query = f"?{whole.lstrip('?#&')}"
    return _CODE.search(query) is not None and _STATE.search(query) is not None


def login_by_state(text: str, logins: Iterable[Login]) -> Login | None:
    """Return the login whose state a text carries: first one whose whole answer it is."""
    # Searching a text is fast; reading it closely for each of a thousand logins takes seconds.
    known = _cleaned(text)
    texts = ("".join(known.split()), unquote(known)) if "%" in known else ("".join(known.split()),)
    likely = [each for each in logins if any(has_state(one, each) for one in texts)]
    return next((each for each in likely if answers(text, each.request)), likely[0] if likely else None)


def has_state(text: str, login: Login) -> bool:
    """True if a text has a login's state in it; the record of a login that is over keeps none."""
    state = login.request.state.reveal()
    return len(state) >= MIN_STATE_CHARS and state in text


def line_with(text: str, login: Login) -> str:
    """Return the line of a text in which a login's state stands whole; the text if there is none."""
    at = text.find(login.request.state.reveal())
    if at < 0:
        return text
    end = text.find("\n", at)
    return text[text.rfind("\n", 0, at) + 1 : end if end >= 0 else len(text)]


@dataclass(frozen=True, slots=True)
class _Address:
    place: tuple[str, str]
    is_on_loopback: bool
    has_state: bool


def _addresses(text: str, *, needs_state: bool = True) -> Iterator[_Address]:
    """Yield each address with a code in its query or fragment, in every way to read the text."""
    for reading in _readings(text):
        for match in _WORD.finditer(reading):
            word = match[0]
            codes = [each.start() for each in _CODE.finditer(word)]
            states = [each.start() for each in _STATE.finditer(word)]
            if codes and (states or not needs_state):
                yield from _in_word(word, codes, states)


def _in_word(word: str, codes: list[int], states: list[int]) -> Iterator[_Address]:
    """Yield what stands before each "?" or "#" of a word, if codes follow."""
    begins = [each.start() for each in _NEXT_ADDRESS.finditer(word)]
    start = 0
    for query in _QUERY_START.finditer(word):
        head, at, start = word[start : query.start()], query.start(), query.end()
        later = bisect_right(begins, at)
        end = begins[later] if later < len(begins) else len(word)
        if not _has_between(codes, at, end):
            continue
        # A host before another address is not that address's.
        head = head.rpartition("://")[2]
        yield _Address(_place(head), _is_on_loopback(head), _has_between(states, at, end))


def _is_on_loopback(head: str) -> bool:
    found = _LOOPBACK.search(head)
    if found is None:
        return False
    before = head[: found.start()]
    return "/" not in before or _SLASHES.search(before) is not None


def _has_between(positions: list[int], after: int, before: int) -> bool:
    found = bisect_right(positions, after)
    return found < len(positions) and positions[found] < before


def _readings(text: str) -> Iterator[str]:
    """Yield a text as it is, with its line breaks undone, and both percent-decoded."""
    known = _cleaned(text)
    joined = "".join(line.strip().lstrip("> \t") for line in known.splitlines())
    for reading in (known, joined) if joined != known else (known,):
        one = reading
        yield one
        for _ in range(MAX_ENCODINGS):
            decoded = unquote(one)
            if decoded == one:
                break
            one = decoded
            yield one


def _cleaned(text: str) -> str:
    """Undo what chats, Markdown, JSON and HTML do to an address."""
    text = text[:MAX_SEARCHED_CHARS]
    if "&#" in text:
        text = _REFERENCE.sub(_character, text)
    if "\\" in text:
        text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text).replace("\\", "")
    return cleaned(text).replace("*", "")


def _character(found: re.Match[str]) -> str:
    code = int(found[1]) if found[1] else int(found[2], 16)
    return chr(code) if " " <= chr(code) <= "~" else found[0]


def _place(address: str) -> tuple[str, str]:
    """Return host (with its port) and path, as they are compared; `address` may lack its scheme."""
    rest = address.rpartition("://")[2] if "://" in address else address
    host, _, path = rest.lstrip(_BEFORE_ADDRESS).partition("/")
    return host.lower(), f"/{_QUERY_START.split(path, maxsplit=1)[0]}"
