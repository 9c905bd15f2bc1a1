"""Parse an event into one intent, given the logins that wait. Pure functions.

This package handles a message only if the message answers a login, or contains a code that no other program
may receive (see `code_detection`). All other messages belong to the embedding application.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from gateway_hooks.dialog.answer_text import is_address_at_provider
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

# `/start mcp_ID` continues the login with this id. `/start mcp_` lists the connections.
START_PAYLOAD_PREFIX = "mcp_"
# A text counts as a code only if it has at least this length and contains a digit. Few typed words do both.
MIN_CODE_CHARS = 20
_CODE_PARAMETER, _STATE_PARAMETER = (
    re.compile(rf"(?i)(?:^|[?&#\s]|%3f|%26)(?:{names})(?:=|%3d)(?!{PLACEHOLDER})")
    for names in ("code|error", "state")
)


@dataclass(frozen=True, slots=True)
class UnrelatedEvent:
    """An event that this package does not handle."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Log in to a server, by name or button tag. If both are empty, let the user choose one."""

    server_name: str = ""
    server_tag: str = ""


@dataclass(frozen=True, slots=True)
class ListConnections:
    """Show the connections."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Disconnect a server. `is_confirmed`: True once the user confirms, None if they decline."""

    server_name: str = ""
    server_tag: str = ""
    is_confirmed: bool | None = False


@dataclass(frozen=True, slots=True)
class ContinueLogin:
    """Show a login that started in a chat where the bot could not show it."""

    login_id: str


@dataclass(frozen=True, slots=True)
class LoginCommand:
    """A command on a waiting login: "qr", "device", "paste", "new" or "cancel"."""

    login: Login
    verb: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A text that may complete this login."""

    login: Login


@dataclass(frozen=True, slots=True)
class WrongAddress:
    """An address at the provider, not the one that the browser ended on. It contains no code."""

    login: Login


@dataclass(frozen=True, slots=True)
class UnmatchedAnswer:
    """An answer that matches no login of this user in this chat."""


@dataclass(frozen=True, slots=True)
class ExposedAnswer:
    """An answer that other users can read. It belongs to `login`; None if that login is not known."""

    login: Login | None


@dataclass(frozen=True, slots=True)
class RevokePerson:
    """Remove a user that an administrator has admitted, by the tag of the user's id."""

    user_tag: str


@dataclass(frozen=True, slots=True)
class StaleButton:
    """A button of a login that no longer waits, or of another user's login."""


Intent = (
    UnrelatedEvent
    | Connect
    | ListConnections
    | Disconnect
    | ContinueLogin
    | LoginCommand
    | Answer
    | WrongAddress
    | UnmatchedAnswer
    | ExposedAnswer
    | RevokePerson
    | StaleButton
)

# The verbs of a waiting login's buttons, and the commands that a user can type instead of pressing them.
COMMANDS_BY_VERB = {"qr": "qr", "device": "code", "new": "new", "paste": "paste", "cancel": "cancel"}
_VERBS_BY_COMMAND = {command: verb for verb, command in COMMANDS_BY_VERB.items()}
# The commands of every platform. None of them acts on a waiting login.
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
    """Return the intent of an event. `logins` are all logins of this platform, oldest first.

    On a platform with forms, the bot cannot delete a user's message in a private chat. So an answer in such a
    message counts as exposed, as it does in a group. `configured_uris` are the redirect URIs of the
    configuration.
    """
    waiting_logins = [login for login in logins if login.status == "waiting"]
    if event.callback_data:
        return _parse_press(event, origin, waiting_logins, is_private=is_private)
    locations = collect_redirect_locations(logins, configured_uris)
    event = with_code_as_text(event, logins, locations)
    # "/connect http://127.0.0.1/?code=..." is an answer.
    if (
        event.command
        and not contains_our_code(event.text, logins, locations)
        and not contains_authorization_response(event.text)
    ):
        intent = _parse_command(event, origin, waiting_logins, is_private=is_private)
    else:
        intent = _parse_message(event, origin, logins, locations, is_private=is_private, has_forms=has_forms)
        if event.command and is_private and isinstance(intent, UnrelatedEvent):
            intent = UnmatchedAnswer()
    # The embedding application would read the quoted text along with the message.
    quoted_text = without_links(event.quoted_text, logins)
    if isinstance(intent, UnrelatedEvent) and contains_our_code(quoted_text, logins, locations):
        return UnmatchedAnswer() if is_private else ExposedAnswer(None)
    return intent


def with_code_as_text(
    event: IncomingEvent, logins: Sequence[Login], locations: RedirectLocations | None = None
) -> IncomingEvent:
    """Return the event with its code in `text`, if it contains one.

    If `text` contains no code, replace it with the first extra text that does. Clear `quoted_message_id` if
    the quoted text contains no code: the bot must not delete that message.
    """
    all_locations = collect_redirect_locations(logins) if locations is None else locations
    if event.quoted_message_id and not contains_our_code(
        without_links(event.quoted_text, logins), logins, all_locations
    ):
        event = replace(event, quoted_message_id="")
    if event.callback_data or not event.extra_texts or contains_our_code(event.text, logins, all_locations):
        return event
    for text in event.extra_texts:
        if contains_our_code(text, logins, all_locations):
            login = login_by_state(text, logins)
            return replace(event, command="", text=text if login is None else line_with_state(text, login))
    return event


def without_links(text: str, logins: Sequence[Login]) -> str:
    """Remove the logins' authorization URLs from a text: users quote them when they reply to the bot.

    If a quote contains only a part of such a URL, remove that part. No such URL contains a code.
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
    """Return True if `parse_intent` needs the configured redirect URIs for this event."""
    return any(
        contains_response_parameters(text)
        for text in (event.text, event.quoted_text, *event.extra_texts)
        if text
    )


def is_independent_of_logins(event: IncomingEvent) -> bool:
    """Return True if the intent of this event does not depend on the logins."""
    if event.callback_data or event.command.lower() not in COMMANDS:
        return False
    for text in (event.text, event.quoted_text):
        if contains_authorization_response(text) or contains_response_parameters(text, needs_state=False):
            return False
    return not any(may_contain_code(text) for text in event.extra_texts)


def matches_sender(login: Login, origin: Origin, *, is_private: bool) -> bool:
    """Return True if `origin` may answer the login.

    In a private chat the topic does not matter: all topics belong to the same user (security 4).
    """
    if is_private:
        origin = replace(origin, thread_id=login.origin.thread_id)
    return matches_origin(login, origin)


def _parse_press(
    event: IncomingEvent, origin: Origin, waiting_logins: Sequence[Login], *, is_private: bool
) -> Intent:
    action = decode_action(event.callback_data)
    if action is None:
        return UnrelatedEvent()
    verb, argument = action
    if verb in COMMANDS_BY_VERB or verb == "form":
        login = next((login for login in waiting_logins if login.id == argument), None)
        if login is None or not matches_sender(login, origin, is_private=is_private):
            return StaleButton()
        return Answer(login) if verb == "form" else LoginCommand(login, verb)
    intents_by_verb: dict[str, Intent] = {
        "connect": Connect(server_tag=argument),
        "off": Disconnect(server_tag=argument),
        "yes": Disconnect(server_tag=argument, is_confirmed=True),
        "no": Disconnect(server_tag=argument, is_confirmed=None),
        "list": ListConnections(),
        "open": ContinueLogin(argument),
        "revoke": RevokePerson(argument),
    }
    return intents_by_verb.get(verb, StaleButton())


def _parse_command(
    event: IncomingEvent, origin: Origin, waiting_logins: Sequence[Login], *, is_private: bool
) -> Intent:
    name, rest = event.command.lower(), event.text.strip()
    if name == "start":
        return _parse_start_payload(rest)
    if name in _VERBS_BY_COMMAND:
        # If no login of the sender waits, "/cancel" belongs to another program.
        latest = next(
            (
                login
                for login in reversed(waiting_logins)
                if matches_sender(login, origin, is_private=is_private)
            ),
            None,
        )
        return UnrelatedEvent() if latest is None else LoginCommand(latest, _VERBS_BY_COMMAND[name])
    intents_by_name: dict[str, Intent] = {
        "connect": Connect(rest),
        "connections": ListConnections(),
        "disconnect": Disconnect(rest),
    }
    return intents_by_name.get(name, UnrelatedEvent())


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
    paste_logins = [login for login in logins if login.poll_state is None and login.status == "waiting"]
    if not is_private:
        intent = _parse_public_message(event.text, origin, paste_logins)
        # No other program may receive an answer, even a late or repeated one or one that matches no login.
        is_code = isinstance(intent, UnrelatedEvent) and contains_our_code(event.text, logins, locations)
        return ExposedAnswer(None) if is_code else intent
    sender_logins = [login for login in paste_logins if matches_sender(login, origin, is_private=True)]
    answer_kind = _classify_answer(event.text, sender_logins)
    login = login_by_state(event.text, sender_logins)
    if login is not None and is_address_at_provider(event.text, login.request):
        # The user sent the login's own link, which contains the state.
        return WrongAddress(login)
    if login is not None or (sender_logins and answer_kind):
        login = login or sender_logins[-1]
        return ExposedAnswer(login) if has_forms else Answer(login)
    wrong_page_login = next(
        (login for login in sender_logins if is_address_at_provider(event.text, login.request)), None
    )
    if wrong_page_login is not None:
        return WrongAddress(wrong_page_login)
    is_code = contains_our_code(event.text, logins, locations) or is_bare_query(event.text)
    return UnmatchedAnswer() if is_code else UnrelatedEvent()


def contains_our_code(text: str, logins: Sequence[Login], locations: RedirectLocations) -> bool:
    """Return True if a text contains a login's state or a redirect URL: no other program may get it."""
    if not text:
        return False
    paste_logins = [login for login in logins if login.poll_state is None]
    return contains_redirect(text, locations) or login_by_state(text, paste_logins) is not None


def _parse_public_message(text: str, origin: Origin, paste_logins: Sequence[Login]) -> Intent:
    sender_logins = [login for login in paste_logins if login.origin.user_id == origin.user_id]
    exposed_login = login_by_state(text, paste_logins)
    if exposed_login is not None:
        return ExposedAnswer(exposed_login if exposed_login in sender_logins else None)
    answer_kind = _classify_answer(text, sender_logins) if sender_logins else ""
    if answer_kind == "code":
        # A bare code names no login: assume the sender's newest one.
        return ExposedAnswer(sender_logins[-1])
    return ExposedAnswer(None) if answer_kind == "address" else UnrelatedEvent()


def contains_authorization_response(text: str) -> bool:
    """Return True if a text contains an authorization response to any login. Never raises."""
    return _classify_answer(text, ()) == "address"


def _classify_answer(text: str, sender_logins: Iterable[Login]) -> str:
    """Return "address" for an authorization response, "code" for a possible bare code, else "".

    A damaged answer may still contain the redirect URI of one of the `sender_logins`: it is an "address".
    """
    # No answer is longer than this limit: ignore the rest of the text.
    clean = clean_text(text[:MAX_PASTE_CHARS])
    # The terminal or chat may have broken the URL into lines at any position.
    for reading in (clean, "".join(clean.split())):
        if _CODE_PARAMETER.search(reading) and _STATE_PARAMETER.search(reading):
            return "address"
        if _contains_redirect_uri_of(reading, sender_logins):
            return "address"
    word = clean.strip("<>()[]{}\"'`“”‘’")
    is_code = re.fullmatch(rf"[!-~]{{{MIN_CODE_CHARS},}}", word) and re.search(r"\d", word)
    return "code" if is_code and "://" not in word else ""


def _contains_redirect_uri_of(text: str, logins: Iterable[Login]) -> bool:
    """Return True if the text contains the redirect URI of one of these logins."""
    return any(login.request.redirect_uri.partition("://")[2] in text for login in logins)
