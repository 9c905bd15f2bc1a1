"""What a person meant: one thing heard, held against the logins that wait, read as one intent. Pure.

A message is ours only if it answers a login, or carries a code that must not go on to anybody else (`codes`
finds those); everything else belongs to the application around us.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from gateway_hooks.dialog.cards import decode_action
from gateway_hooks.dialog.code_detection import (
    PLACEHOLDER,
    RedirectLocations,
    collect_redirect_locations,
    contains_redirect,
    contains_response_parameters,
    has_state,
    is_bare_query,
    line_with_state,
    login_by_state,
    may_contain_code,
)
from gateway_hooks.dialog.platform import IncomingEvent
from hermes_mcp_auth_remote.login import Login, matches_origin
from hermes_mcp_auth_remote.oauth.paste import MAX_PASTE_CHARS, clean_text
from hermes_mcp_auth_remote.values import Origin

# A start command's text that is ours: it continues the login of that id; alone, it lists connections.
START_PAYLOAD_PREFIX = "mcp_"
# Codes are long and mixed; a word that somebody types is not.
MIN_CODE_CHARS = 20
_CODE_PARAMETER, _STATE_PARAMETER = (
    re.compile(rf"(?i)(?:^|[?&#\s]|%3f|%26)(?:{names})(?:=|%3d)(?!{PLACEHOLDER})")
    for names in ("code|error", "state")
)


@dataclass(frozen=True, slots=True)
class UnrelatedEvent:
    """Somebody else's business."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Log in to a server, by name or by the tag in a button; without either, choose one."""

    server_name: str = ""
    server_tag: str = ""


@dataclass(frozen=True, slots=True)
class ListConnections:
    """Say what is connected."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Disconnect a server; `is_sure` once the person has confirmed it, None where they keep it."""

    server_name: str = ""
    server_tag: str = ""
    is_confirmed: bool | None = False


@dataclass(frozen=True, slots=True)
class ContinueLogin:
    """Show a login that was begun where the bot could not write."""

    login_id: str


@dataclass(frozen=True, slots=True)
class LoginCommand:
    """Something to do with a login: "qr", "device", "paste", "new" or "cancel"."""

    login: Login
    verb: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What may finish this login."""

    login: Login


@dataclass(frozen=True, slots=True)
class UnmatchedAnswer:
    """An answer to no login of this person, here."""


@dataclass(frozen=True, slots=True)
class ExposedAnswer:
    """An answer where others read it; `login` is the one whose code that was, None where it is not known."""

    login: Login | None


@dataclass(frozen=True, slots=True)
class StaleButton:
    """A button of a login that waits no more, or is not this person's."""


Intent = (
    UnrelatedEvent
    | Connect
    | ListConnections
    | Disconnect
    | ContinueLogin
    | LoginCommand
    | Answer
    | UnmatchedAnswer
    | ExposedAnswer
    | StaleButton
)

LOGIN_VERBS = frozenset({"qr", "device", "paste", "new", "cancel"})
# What is typed instead of a button, after the platform's prefix of commands.
_VERBS_BY_COMMAND = {"qr": "qr", "code": "device", "new": "new", "paste": "paste", "cancel": "cancel"}
# Typed on every platform; none of them is about a login that waits.
COMMANDS = frozenset({"start", "connect", "connections", "disconnect"})


def parse_intent(
    event: IncomingEvent,
    origin: Origin,
    logins: Sequence[Login],
    *,
    is_private: bool,
    has_forms: bool = False,
    configured_uris: Collection[str] = (),
) -> Intent:
    """Read what a person meant. `logins` are all of this platform, oldest first; those that wait count.

    Where there are forms for an answer, a message with one is exposed as in a group: it stays. `configured`
    are redirect URIs of ours that no login may have used yet.
    """
    waiting = [each for each in logins if each.status == "waiting"]
    if event.callback_data:
        return _parse_press(event, origin, waiting)
    redirects = collect_redirect_locations(logins, configured_uris)
    event = with_code_as_text(event, logins, redirects)
    # "/connect http://127.0.0.1/?code=..." is an answer.
    if (
        event.command
        and not contains_our_code(event.text, logins, redirects)
        and not contains_authorization_response(event.text)
    ):
        meant = _parse_command(event, origin, waiting)
    else:
        meant = _parse_message(event, origin, logins, redirects, is_private=is_private, has_forms=has_forms)
        if event.command and is_private and isinstance(meant, UnrelatedEvent):
            meant = UnmatchedAnswer()
    # An application reads that along with the message.
    beside = without_links(event.quoted_text, logins)
    if isinstance(meant, UnrelatedEvent) and contains_our_code(beside, logins, redirects):
        return UnmatchedAnswer() if is_private else ExposedAnswer(None)
    return meant


def with_code_as_text(
    event: IncomingEvent, logins: Sequence[Login], locations: RedirectLocations | None = None
) -> IncomingEvent:
    """Return a message with the part that carries a code as its text, if its own text carries none.

    `beside_message` is left out if what stands beside carries no code: that message stays.
    """
    known = collect_redirect_locations(logins) if locations is None else locations
    if event.quoted_message_id and not contains_our_code(
        without_links(event.quoted_text, logins), logins, known
    ):
        event = replace(event, quoted_message_id="")
    if event.callback_data or not event.extra_texts or contains_our_code(event.text, logins, known):
        return event
    for part in event.extra_texts:
        if contains_our_code(part, logins, known):
            login = login_by_state(part, logins)
            return replace(event, command="", text=part if login is None else line_with_state(part, login))
    return event


def without_links(text: str, logins: Sequence[Login]) -> str:
    """Return a text without the links that open a login: people reply to messages with one, or quote them.

    Who quotes may take only a part of a link: such a part goes, too, and holds no code.
    """
    for login in logins:
        if has_state(text, login):
            text = _without_link(text, login)
    return text


def _without_link(text: str, login: Login) -> str:
    def replace_word(match: re.Match[str]) -> str:
        is_part = has_state(match[0], login) and match[0] in login.authorization_url
        return "" if is_part else match[0]

    return re.sub(r"\S+", replace_word, text.replace(login.authorization_url, ""))


def depends_on_redirect_uris(event: IncomingEvent) -> bool:
    """True if it depends on the configured redirect URIs whether an address is ours."""
    return any(
        contains_response_parameters(text)
        for text in (event.text, event.quoted_text, *event.extra_texts)
        if text
    )


def is_independent_of_logins(event: IncomingEvent) -> bool:
    """True where what was typed means the same whatever logins there are: they need not be read."""
    if event.callback_data or event.command.lower() not in COMMANDS:
        return False
    for text in (event.text, event.quoted_text):
        if contains_authorization_response(text) or contains_response_parameters(text, needs_state=False):
            return False
    return not any(may_contain_code(part) for part in event.extra_texts)


def _parse_press(event: IncomingEvent, origin: Origin, waiting_logins: Sequence[Login]) -> Intent:
    found = decode_action(event.callback_data)
    if found is None:
        return UnrelatedEvent()
    verb, argument = found
    if verb in LOGIN_VERBS or verb == "form":
        login = next((each for each in waiting_logins if each.id == argument), None)
        if login is None or not matches_origin(login, origin):
            return StaleButton()
        return Answer(login) if verb == "form" else LoginCommand(login, verb)
    choices: dict[str, Intent] = {
        "connect": Connect(server_tag=argument),
        "off": Disconnect(server_tag=argument),
        "yes": Disconnect(server_tag=argument, is_confirmed=True),
        "no": Disconnect(server_tag=argument, is_confirmed=None),
        "list": ListConnections(),
        "open": ContinueLogin(argument),
    }
    return choices.get(verb, StaleButton())


def _parse_command(event: IncomingEvent, origin: Origin, waiting_logins: Sequence[Login]) -> Intent:
    name, rest = event.command.lower(), event.text.strip()
    if name == "start":
        return _parse_start_payload(rest)
    if name in _VERBS_BY_COMMAND:
        # Without a login, "/cancel" is somebody else's word.
        latest = _latest_login(origin, waiting_logins)
        return UnrelatedEvent() if latest is None else LoginCommand(latest, _VERBS_BY_COMMAND[name])
    choices: dict[str, Intent] = {
        "connect": Connect(rest),
        "connections": ListConnections(),
        "disconnect": Disconnect(rest),
    }
    return choices.get(name, UnrelatedEvent())


def _parse_start_payload(payload: str) -> Intent:
    if not payload.startswith(START_PAYLOAD_PREFIX):
        return UnrelatedEvent()
    login_id = payload.removeprefix(START_PAYLOAD_PREFIX)
    return ContinueLogin(login_id) if login_id else ListConnections()


def _parse_message(
    event: IncomingEvent,
    origin: Origin,
    logins: Sequence[Login],
    locations: RedirectLocations,
    *,
    is_private: bool,
    has_forms: bool,
) -> Intent:
    by_code = [each for each in logins if each.poll_state is None and each.status == "waiting"]
    if not is_private:
        meant = _parse_public_message(event.text, origin, by_code)
        # An answer that came too late, or again, or to nobody's login, is still nothing for others.
        is_code = isinstance(meant, UnrelatedEvent) and contains_our_code(event.text, logins, locations)
        return ExposedAnswer(None) if is_code else meant
    theirs = [each for each in by_code if matches_origin(each, origin)]
    kind = _classify_answer(event.text, theirs)
    login = login_by_state(event.text, theirs)
    if login is not None or (theirs and kind):
        login = login or theirs[-1]
        return ExposedAnswer(login) if has_forms else Answer(login)
    is_code = contains_our_code(event.text, logins, locations) or is_bare_query(event.text)
    return UnmatchedAnswer() if is_code else UnrelatedEvent()


def contains_our_code(text: str, logins: Sequence[Login], locations: RedirectLocations) -> bool:
    """True if a text is for no other program: it has a login's state, or is an address of a redirect."""
    if not text:
        return False
    by_code = [each for each in logins if each.poll_state is None]
    return contains_redirect(text, locations) or login_by_state(text, by_code) is not None


def _parse_public_message(text: str, origin: Origin, paste_logins: Sequence[Login]) -> Intent:
    by_sender = [each for each in paste_logins if each.origin.user_id == origin.user_id]
    whose = login_by_state(text, paste_logins)
    if whose is not None:
        return ExposedAnswer(whose if whose in by_sender else None)
    kind = _classify_answer(text, by_sender) if by_sender else ""
    if kind == "code":
        # A code alone says nothing of whose it is, but for who wrote it when.
        return ExposedAnswer(by_sender[-1])
    return ExposedAnswer(None) if kind == "address" else UnrelatedEvent()


def contains_authorization_response(text: str) -> bool:
    """True where a text holds an authorization response, whosever it is. Never raises."""
    return _classify_answer(text, ()) == "address"


def _classify_answer(text: str, sender_logins: Iterable[Login]) -> str:
    """Return "address" for what carries an authorization response, "code" for what may be one, or "".

    `theirs` are the sender's logins: a mangled answer still shows where one of them ends.
    """
    # Read as far as it counts; nobody's code is behind that.
    known = clean_text(text[:MAX_PASTE_CHARS])
    # A window broke it into lines, at any place.
    for whole in (known, "".join(known.split())):
        if _CODE_PARAMETER.search(whole) and _STATE_PARAMETER.search(whole):
            return "address"
        if _contains_redirect_uri_of(whole, sender_logins):
            return "address"
    word = known.strip("<>()[]{}\"'`“”‘’")
    is_code = re.fullmatch(rf"[!-~]{{{MIN_CODE_CHARS},}}", word) and re.search(r"\d", word)
    return "code" if is_code and "://" not in word else ""


def _contains_redirect_uri_of(text: str, logins: Iterable[Login]) -> bool:
    """True where the text names the place at which one of these logins ends."""
    return any(each.request.redirect_uri.partition("://")[2] in text for each in logins)


def _latest_login(origin: Origin, waiting_logins: Sequence[Login]) -> Login | None:
    return next((each for each in reversed(waiting_logins) if matches_origin(each, origin)), None)
