"""What a person meant: one thing heard, held against the logins that wait, read as one intent. Pure.

A message is ours only if it answers a login, or carries a code that must not go on to anybody else (`codes`
finds those); everything else belongs to the application around us.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from gateway_hooks.dialog.cards import read_action
from gateway_hooks.dialog.code_detection import (
    PLACEHOLDER,
    Redirects,
    carries_parameters,
    carries_redirect,
    has_state,
    is_query_alone,
    line_with,
    login_by_state,
    may_carry_code,
    redirects_of,
)
from gateway_hooks.dialog.platform import Heard
from hermes_mcp_auth_remote.login import Login, is_from
from hermes_mcp_auth_remote.oauth.paste import MAX_PASTE_CHARS, cleaned
from hermes_mcp_auth_remote.values import Origin

# A start command's text that is ours: it continues the login of that id; alone, it lists connections.
START = "mcp_"
# Codes are long and mixed; a word that somebody types is not.
MIN_CODE_CHARS = 20
_CODE, _STATE = (
    re.compile(rf"(?i)(?:^|[?&#\s]|%3f|%26)(?:{names})(?:=|%3d)(?!{PLACEHOLDER})")
    for names in ("code|error", "state")
)


@dataclass(frozen=True, slots=True)
class NotOurs:
    """Somebody else's business."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Log in to a server, by name or by the tag in a button; without either, choose one."""

    server: str = ""
    tag: str = ""


@dataclass(frozen=True, slots=True)
class ListConnections:
    """Say what is connected."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Disconnect a server; `is_sure` once the person has confirmed it, None where they keep it."""

    server: str = ""
    tag: str = ""
    is_sure: bool | None = False


@dataclass(frozen=True, slots=True)
class Continue:
    """Show a login that was begun where the bot could not write."""

    login_id: str


@dataclass(frozen=True, slots=True)
class OnLogin:
    """Something to do with a login: "qr", "device", "paste", "new" or "cancel"."""

    login: Login
    verb: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What may finish this login."""

    login: Login


@dataclass(frozen=True, slots=True)
class Stray:
    """An answer to no login of this person, here."""


@dataclass(frozen=True, slots=True)
class Exposed:
    """An answer where others read it; `login` is the one whose code that was, None where it is not known."""

    login: Login | None


@dataclass(frozen=True, slots=True)
class Over:
    """A button of a login that waits no more, or is not this person's."""


Intent = (
    NotOurs | Connect | ListConnections | Disconnect | Continue | OnLogin | Answer | Stray | Exposed | Over
)

LOGIN_VERBS = frozenset({"qr", "device", "paste", "new", "cancel"})
# What is typed instead of a button, after the platform's prefix of commands.
_TYPED = {"qr": "qr", "code": "device", "new": "new", "paste": "paste", "cancel": "cancel"}
# Typed on every platform; none of them is about a login that waits.
COMMANDS = frozenset({"start", "connect", "connections", "disconnect"})


def meaning(
    heard: Heard,
    here: Origin,
    logins: Sequence[Login],
    *,
    is_private: bool,
    has_forms: bool = False,
    configured: Collection[str] = (),
) -> Intent:
    """Read what a person meant. `logins` are all of this platform, oldest first; those that wait count.

    Where there are forms for an answer, a message with one is exposed as in a group: it stays. `configured`
    are redirect URIs of ours that no login may have used yet.
    """
    waiting = [each for each in logins if each.status == "waiting"]
    if heard.pressed:
        return _pressed(heard, here, waiting)
    redirects = redirects_of(logins, configured)
    heard = with_code_as_text(heard, logins, redirects)
    # "/connect http://127.0.0.1/?code=..." is an answer.
    if heard.command and not concerns_us(heard.text, logins, redirects) and not carries_answer(heard.text):
        meant = _command(heard, here, waiting)
    else:
        meant = _message(heard, here, logins, redirects, is_private=is_private, has_forms=has_forms)
        if heard.command and is_private and isinstance(meant, NotOurs):
            meant = Stray()
    # An application reads that along with the message.
    beside = without_links(heard.beside, logins)
    if isinstance(meant, NotOurs) and concerns_us(beside, logins, redirects):
        return Stray() if is_private else Exposed(None)
    return meant


def with_code_as_text(heard: Heard, logins: Sequence[Login], redirects: Redirects | None = None) -> Heard:
    """Return a message with the part that carries a code as its text, if its own text carries none.

    `beside_message` is left out if what stands beside carries no code: that message stays.
    """
    known = redirects_of(logins) if redirects is None else redirects
    if heard.beside_message and not concerns_us(without_links(heard.beside, logins), logins, known):
        heard = replace(heard, beside_message="")
    if heard.pressed or not heard.parts or concerns_us(heard.text, logins, known):
        return heard
    for part in heard.parts:
        if concerns_us(part, logins, known):
            login = login_by_state(part, logins)
            return replace(heard, command="", text=part if login is None else line_with(part, login))
    return heard


def without_links(text: str, logins: Sequence[Login]) -> str:
    """Return a text without the links that open a login: people reply to messages with one, or quote them.

    Who quotes may take only a part of a link: such a part goes, too, and holds no code.
    """
    for login in logins:
        if has_state(text, login):
            text = _without_link(text, login)
    return text


def _without_link(text: str, login: Login) -> str:
    def kept(word: re.Match[str]) -> str:
        is_part = has_state(word[0], login) and word[0] in login.authorization_url
        return "" if is_part else word[0]

    return re.sub(r"\S+", kept, text.replace(login.authorization_url, ""))


def needs_configuration(heard: Heard) -> bool:
    """True if it depends on the configured redirect URIs whether an address is ours."""
    return any(carries_parameters(text) for text in (heard.text, heard.beside, *heard.parts) if text)


def stands_alone(heard: Heard) -> bool:
    """True where what was typed means the same whatever logins there are: they need not be read."""
    if heard.pressed or heard.command.lower() not in COMMANDS:
        return False
    for text in (heard.text, heard.beside):
        if carries_answer(text) or carries_parameters(text, needs_state=False):
            return False
    return not any(may_carry_code(part) for part in heard.parts)


def _pressed(heard: Heard, here: Origin, waiting: Sequence[Login]) -> Intent:
    found = read_action(heard.pressed)
    if found is None:
        return NotOurs()
    verb, argument = found
    if verb in LOGIN_VERBS or verb == "form":
        login = next((each for each in waiting if each.id == argument), None)
        if login is None or not is_from(login, here):
            return Over()
        return Answer(login) if verb == "form" else OnLogin(login, verb)
    choices: dict[str, Intent] = {
        "connect": Connect(tag=argument),
        "off": Disconnect(tag=argument),
        "yes": Disconnect(tag=argument, is_sure=True),
        "no": Disconnect(tag=argument, is_sure=None),
        "list": ListConnections(),
        "open": Continue(argument),
    }
    return choices.get(verb, Over())


def _command(heard: Heard, here: Origin, waiting: Sequence[Login]) -> Intent:
    name, rest = heard.command.lower(), heard.text.strip()
    if name == "start":
        return _started(rest)
    if name in _TYPED:
        # Without a login, "/cancel" is somebody else's word.
        latest = _latest(here, waiting)
        return NotOurs() if latest is None else OnLogin(latest, _TYPED[name])
    choices: dict[str, Intent] = {
        "connect": Connect(rest),
        "connections": ListConnections(),
        "disconnect": Disconnect(rest),
    }
    return choices.get(name, NotOurs())


def _started(payload: str) -> Intent:
    if not payload.startswith(START):
        return NotOurs()
    login_id = payload.removeprefix(START)
    return Continue(login_id) if login_id else ListConnections()


def _message(
    heard: Heard,
    here: Origin,
    logins: Sequence[Login],
    redirects: Redirects,
    *,
    is_private: bool,
    has_forms: bool,
) -> Intent:
    by_code = [each for each in logins if each.device is None and each.status == "waiting"]
    if not is_private:
        meant = _in_public(heard.text, here, by_code)
        # An answer that came too late, or again, or to nobody's login, is still nothing for others.
        is_code = isinstance(meant, NotOurs) and concerns_us(heard.text, logins, redirects)
        return Exposed(None) if is_code else meant
    theirs = [each for each in by_code if is_from(each, here)]
    kind = _kind(heard.text, theirs)
    login = login_by_state(heard.text, theirs)
    if login is not None or (theirs and kind):
        login = login or theirs[-1]
        return Exposed(login) if has_forms else Answer(login)
    is_code = concerns_us(heard.text, logins, redirects) or is_query_alone(heard.text)
    return Stray() if is_code else NotOurs()


def concerns_us(text: str, logins: Sequence[Login], redirects: Redirects) -> bool:
    """True if a text is for no other program: it has a login's state, or is an address of a redirect."""
    if not text:
        return False
    by_code = [each for each in logins if each.device is None]
    return carries_redirect(text, redirects) or login_by_state(text, by_code) is not None


def _in_public(text: str, here: Origin, by_code: Sequence[Login]) -> Intent:
    by_sender = [each for each in by_code if each.origin.user == here.user]
    whose = login_by_state(text, by_code)
    if whose is not None:
        return Exposed(whose if whose in by_sender else None)
    kind = _kind(text, by_sender) if by_sender else ""
    if kind == "code":
        # A code alone says nothing of whose it is, but for who wrote it when.
        return Exposed(by_sender[-1])
    return Exposed(None) if kind == "address" else NotOurs()


def carries_answer(text: str) -> bool:
    """True where a text holds an authorization response, whosever it is. Never raises."""
    return _kind(text, ()) == "address"


def _kind(text: str, theirs: Iterable[Login]) -> str:
    """Return "address" for what carries an authorization response, "code" for what may be one, or "".

    `theirs` are the sender's logins: a mangled answer still shows where one of them ends.
    """
    # Read as far as it counts; nobody's code is behind that.
    known = cleaned(text[:MAX_PASTE_CHARS])
    # A window broke it into lines, at any place.
    for whole in (known, "".join(known.split())):
        if _CODE.search(whole) and _STATE.search(whole):
            return "address"
        if _ends_at(whole, theirs):
            return "address"
    word = known.strip("<>()[]{}\"'`“”‘’")
    is_code = re.fullmatch(rf"[!-~]{{{MIN_CODE_CHARS},}}", word) and re.search(r"\d", word)
    return "code" if is_code and "://" not in word else ""


def _ends_at(text: str, logins: Iterable[Login]) -> bool:
    """True where the text names the place at which one of these logins ends."""
    return any(each.request.redirect_uri.partition("://")[2] in text for each in logins)


def _latest(here: Origin, waiting: Sequence[Login]) -> Login | None:
    return next((each for each in reversed(waiting) if is_from(each, here)), None)
