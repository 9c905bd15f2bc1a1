"""The intent of each event, as tables. Other events are unrelated."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import MagicMock
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gateway_hooks.dialog.code_detection
from gateway_hooks.dialog.intents import (
    Answer,
    Connect,
    ContinueLogin,
    Disconnect,
    ExposedAnswer,
    Intent,
    ListConnections,
    LoginCommand,
    StaleButton,
    UnmatchedAnswer,
    UnrelatedEvent,
    is_independent_of_logins,
    parse_intent,
)
from gateway_hooks.dialog.platform import IncomingEvent, Sender
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.values import Origin, Secret
from tests.gateway_hooks.login_factories import ADA, BOB, GROUP, make_login, with_device_code
from tests.oauth.builders import ISSUER, REDIRECT_URI, STATE, request
from tests.oauth.test_hostile_pastes import CODES, MANGLINGS, PROSE
from tests.requirements import covers

ADA_LOGIN, BOB_LOGIN = (
    make_login(),
    make_login(BOB, "login-2", request=request(state=Secret("another-state-of-bobs-login-1234"))),
)
LATER_ADA_LOGIN = make_login(
    ADA, "login-3", request=request(state=Secret("a-later-state-of-ada-s-login-01234"))
)
OTHER_PROCESS_LOGIN = make_login(Origin("parlour", user_id="ada"), "login-4")
DEVICE_LOGIN = with_device_code(make_login(login_id="login-5"))
ANSWER_URL = f"{REDIRECT_URI}?code=a-code-that-was-minted&state={STATE}"
OTHER_SITE_URL = "https://another.example/done?code=abcdef&state=uvwxyz"
CODE = "4/0AeanS0ZmX-y_3kQ"


def parse(
    event: IncomingEvent, *waiting_logins: Login, origin: Origin = ADA, has_forms: bool = False
) -> Intent:
    return parse_intent(event, origin, waiting_logins, is_private=origin != GROUP, has_forms=has_forms)


def message_event(text: str) -> IncomingEvent:
    return IncomingEvent(Sender("ada"), text=text, message_id="7")


def command_event(name: str, text: str = "") -> IncomingEvent:
    return IncomingEvent(Sender("ada"), command=name, text=text)


def press_event(action: str) -> IncomingEvent:
    return IncomingEvent(Sender("ada"), callback_data=action, pressed_message_id="7")


def case_id(value: object) -> str:
    """Return the id of a test case from its event."""
    return (
        f"{value.command} {value.callback_data}{value.text}".strip()
        if isinstance(value, IncomingEvent)
        else ""
    )


@pytest.mark.parametrize(
    ("event", "intent"),
    [
        (command_event("connect"), Connect()),
        (command_event("connect", " notes"), Connect("notes")),
        (command_event("Connect", "notes"), Connect("notes")),
        (command_event("connect", ANSWER_URL), Answer(ADA_LOGIN)),
        (command_event("connections"), ListConnections()),
        (command_event("disconnect", "notes"), Disconnect("notes")),
        (command_event("disconnect", "notes yes"), Disconnect("notes yes")),
        (command_event("start"), UnrelatedEvent()),
        (command_event("start", "theirs"), UnrelatedEvent()),
        (command_event("start", "mcp_"), ListConnections()),
        (command_event("start", "mcp_login-1"), ContinueLogin("login-1")),
        (command_event("cancel"), LoginCommand(ADA_LOGIN, "cancel")),
        (command_event("code"), LoginCommand(ADA_LOGIN, "device")),
        (command_event("weather"), UnrelatedEvent()),
        (press_event("mcp:connect:0123"), Connect(server_tag="0123")),
        (press_event("mcp:off:0123"), Disconnect(server_tag="0123")),
        (press_event("mcp:yes:0123"), Disconnect(server_tag="0123", is_confirmed=True)),
        (press_event("mcp:no:0123"), Disconnect(server_tag="0123", is_confirmed=None)),
        (press_event("mcp:list:"), ListConnections()),
        (press_event("mcp:open:login-1"), ContinueLogin("login-1")),
        (press_event("mcp:qr:login-1"), LoginCommand(ADA_LOGIN, "qr")),
        (press_event("mcp:form:login-1"), Answer(ADA_LOGIN)),
        (press_event("mcp:cancel:login-2"), StaleButton()),
        (press_event("mcp:form:login-2"), StaleButton()),
        (press_event("mcp:cancel:login-9"), StaleButton()),
        (press_event("mcp:something:else"), StaleButton()),
        (press_event("mcp:broken"), UnrelatedEvent()),
        (press_event("theirs:cancel:login-1"), UnrelatedEvent()),
        (message_event("hello"), UnrelatedEvent()),
        (message_event(ANSWER_URL), Answer(ADA_LOGIN)),
        (message_event(f"{REDIRECT_URI}?co"), Answer(ADA_LOGIN)),
        (
            message_event(f"{REDIRECT_URI[:9]}\n{REDIRECT_URI[9:]}?code=a-code&sta\nte={STATE}"),
            Answer(ADA_LOGIN),
        ),
        (message_event(f"error=access_denied&state={STATE}"), Answer(ADA_LOGIN)),
        (message_event("a-long-word-without-a-figure"), UnrelatedEvent()),
        (message_event(f"{CODE}{CODE}"), Answer(ADA_LOGIN)),
        (message_event(f"`{CODE}{CODE}`"), Answer(ADA_LOGIN)),
        (message_event(f"my code is {CODE}{CODE}"), UnrelatedEvent()),
        (message_event("https://example.com/a/page/with/numbers/12345"), UnrelatedEvent()),
        (message_event("code=1 but no more"), UnrelatedEvent()),
    ],
    ids=case_id,
)
def test_intent_in_private_while_login_waits(event: IncomingEvent, intent: Intent) -> None:
    assert parse(event, BOB_LOGIN, ADA_LOGIN) == intent


@covers("chat-ours")
@pytest.mark.parametrize(
    ("event", "intent"),
    [
        (message_event(ANSWER_URL), UnmatchedAnswer()),
        (message_event(OTHER_SITE_URL), UnrelatedEvent()),
        (message_event("?code=abcdef&state=uvwxyz"), UnmatchedAnswer()),
        (command_event("connect", OTHER_SITE_URL), UnmatchedAnswer()),
        (message_event(f"{REDIRECT_URI} is where it ends?"), UnrelatedEvent()),
        (message_event(f"{CODE}{CODE}"), UnrelatedEvent()),
        (command_event("cancel"), UnrelatedEvent()),
        (command_event("qr"), UnrelatedEvent()),
        (command_event("new"), UnrelatedEvent()),
        (press_event("mcp:cancel:login-1"), StaleButton()),
    ],
    ids=case_id,
)
@pytest.mark.parametrize(
    "waiting_logins", [(), (BOB_LOGIN,)], ids=["no login waits", "a login of another user waits"]
)
def test_intent_in_private_without_own_login(
    event: IncomingEvent, intent: Intent, waiting_logins: tuple[Login, ...]
) -> None:
    assert parse(event, *waiting_logins) == intent


@covers("chat-exposed")
@pytest.mark.parametrize(
    ("text", "waiting_logins", "intent"),
    [
        (ANSWER_URL, (BOB_LOGIN, ADA_LOGIN), ExposedAnswer(ADA_LOGIN)),
        (ANSWER_URL, (OTHER_PROCESS_LOGIN,), ExposedAnswer(OTHER_PROCESS_LOGIN)),
        (
            ANSWER_URL.replace(STATE, BOB_LOGIN.request.state.reveal()),
            (BOB_LOGIN, ADA_LOGIN),
            ExposedAnswer(None),
        ),
        (ANSWER_URL.replace(STATE, BOB_LOGIN.request.state.reveal()), (BOB_LOGIN,), ExposedAnswer(None)),
        (OTHER_SITE_URL, (ADA_LOGIN,), ExposedAnswer(None)),
        (OTHER_SITE_URL, (BOB_LOGIN,), UnrelatedEvent()),
        (OTHER_SITE_URL, (), UnrelatedEvent()),
        (ANSWER_URL, (), ExposedAnswer(None)),
        ("?code=abcdef&state=uvwxyz", (), UnrelatedEvent()),
        (f"{CODE}{CODE}", (ADA_LOGIN,), ExposedAnswer(ADA_LOGIN)),
        (f"{CODE}{CODE}", (BOB_LOGIN,), UnrelatedEvent()),
        ("hello", (ADA_LOGIN,), UnrelatedEvent()),
    ],
    ids=[
        "own",
        "own by --via",
        "another's",
        "only another's",
        "none",
        "no login",
        "no login, another site",
        "no login, but on loopback",
        "a query alone",
        "code",
        "another's code",
        "talk",
    ],
)
def test_intent_in_group(text: str, waiting_logins: tuple[Login, ...], intent: Intent) -> None:
    assert parse(message_event(text), *waiting_logins, origin=GROUP) == intent


@covers("chat-ours", "chat-exposed")
def test_reply_to_answer_is_claimed() -> None:
    reply = replace(message_event("is that right?"), quoted_text=f"I wrote {ANSWER_URL}")
    assert parse(reply) == UnmatchedAnswer()
    assert parse(reply, ADA_LOGIN) == UnmatchedAnswer()
    assert parse(reply, ADA_LOGIN, origin=GROUP) == ExposedAnswer(None)
    assert parse(reply, BOB_LOGIN, origin=GROUP) == ExposedAnswer(None)
    assert parse(replace(reply, quoted_text=OTHER_SITE_URL), BOB_LOGIN, origin=GROUP) == UnrelatedEvent()
    assert parse(replace(reply, quoted_text=f"It begins with {REDIRECT_URI}."), ADA_LOGIN) == UnrelatedEvent()


@covers("linear")
def test_text_without_state_is_not_compared_with_each_login(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matches_state = MagicMock(return_value=False)
    monkeypatch.setattr(gateway_hooks.dialog.code_detection, "matches_state", matches_state)
    logins = [make_login(Origin("parlour", user_id=f"{number}"), f"login-{number}") for number in range(1000)]
    logins = [
        replace(login, request=replace(login.request, state=Secret(f"the-state-of-{login.id}")))
        for login in logins
    ]
    assert parse(message_event("http://x?code=a&state=b\n" * 160), *logins, origin=GROUP) == UnrelatedEvent()
    matches_state.assert_not_called()


def test_answer_as_message_is_exposed_on_platform_with_forms() -> None:
    assert parse(message_event(ANSWER_URL), ADA_LOGIN, has_forms=True) == ExposedAnswer(ADA_LOGIN)
    assert parse(message_event(ANSWER_URL), BOB_LOGIN, has_forms=True) == UnmatchedAnswer()
    assert parse(press_event("mcp:form:login-1"), ADA_LOGIN, has_forms=True) == Answer(ADA_LOGIN)


def test_answer_selects_login_by_state_or_latest() -> None:
    assert parse(message_event(ANSWER_URL), ADA_LOGIN, LATER_ADA_LOGIN) == Answer(ADA_LOGIN)
    assert parse(
        message_event(ANSWER_URL.replace(STATE, LATER_ADA_LOGIN.request.state.reveal())),
        ADA_LOGIN,
        LATER_ADA_LOGIN,
    ) == Answer(LATER_ADA_LOGIN)
    assert parse(message_event(OTHER_SITE_URL), ADA_LOGIN, LATER_ADA_LOGIN) == Answer(LATER_ADA_LOGIN)
    assert parse(command_event("cancel"), ADA_LOGIN, LATER_ADA_LOGIN) == LoginCommand(
        LATER_ADA_LOGIN, "cancel"
    )


def test_device_login_accepts_no_pasted_answer() -> None:
    assert parse(message_event(f"{CODE}{CODE}"), DEVICE_LOGIN) == UnrelatedEvent()
    assert parse(message_event(ANSWER_URL), DEVICE_LOGIN) == UnmatchedAnswer()
    assert parse(press_event("mcp:paste:login-5"), DEVICE_LOGIN) == LoginCommand(DEVICE_LOGIN, "paste")


@covers("private-topics")
def test_answer_in_any_topic_of_private_chat_counts() -> None:
    topic = Origin("parlour", chat_id="private-ada", thread_id="2", user_id="ada", bot_id="900")
    in_topic = make_login(origin=topic)
    for login, origin in ((ADA_LOGIN, topic), (in_topic, ADA_LOGIN.origin)):
        assert parse(message_event(ANSWER_URL), login, origin=origin) == Answer(login)
        assert parse(press_event("mcp:cancel:login-1"), login, origin=origin) == LoginCommand(login, "cancel")


@covers("sender-binding")
@pytest.mark.parametrize(
    "origin",
    [
        Origin("parlour", chat_id="private-ada", user_id="bob", bot_id="900"),
        Origin("parlour", chat_id="elsewhere", user_id="ada", bot_id="900"),
        Origin("parlour", chat_id="private-ada", user_id="ada", bot_id="901"),
    ],
    ids=["user", "chat", "bot"],
)
def test_login_is_answered_only_from_its_origin(origin: Origin) -> None:
    assert parse(message_event(ANSWER_URL), ADA_LOGIN, origin=origin) == UnmatchedAnswer()
    for verb in ("cancel", "qr", "form", "device", "paste", "new"):
        assert parse(press_event(f"mcp:{verb}:login-1"), ADA_LOGIN, origin=origin) == StaleButton()


@covers("chat-ours", "paste-mangled")
@settings(deadline=None)
@given(
    CODES, st.permutations(["code", "state", "iss", "scope"]), st.sampled_from(list(MANGLINGS)), PROSE, PROSE
)
@pytest.mark.parametrize("origin", [ADA, GROUP], ids=["private", "group"])
def test_mangled_answer_is_recognized(
    origin: Origin, code: str, order: list[str], mangling: str, before: str, after: str
) -> None:
    values = {"code": code, "state": STATE, "iss": ISSUER, "scope": "a b"}
    text = MANGLINGS[mangling](f"{REDIRECT_URI}?{urlencode([(name, values[name]) for name in order])}")
    if "wrapped" not in mangling:
        text = f"{before} {text} {after}"
    expected = Answer(ADA_LOGIN) if origin == ADA else ExposedAnswer(ADA_LOGIN)
    assert parse(message_event(text), BOB_LOGIN, ADA_LOGIN, origin=origin) == expected


@covers("chat-ours", "no-crash")
@settings(deadline=None)
@given(
    text=st.text(max_size=300)
    | st.sampled_from(["mcp:", "mcp_", "code=", "state=", "?", "&", "%3f", "%3d", REDIRECT_URI, "://"])
    | st.lists(st.sampled_from(["code=", "state", "=", "&", "?", " ", "%26", "a1" * 12, "://", "\n"])).map(
        "".join
    ),
    has_login=st.booleans(),
    is_private=st.booleans(),
    has_forms=st.booleans(),
)
def test_only_logins_and_codes_are_claimed_and_parser_never_raises(
    text: str, *, has_login: bool, is_private: bool, has_forms: bool
) -> None:
    waiting = [BOB_LOGIN, ADA_LOGIN] if has_login else [BOB_LOGIN]
    intent = parse_intent(message_event(text), ADA, waiting, is_private=is_private, has_forms=has_forms)
    if not isinstance(intent, UnrelatedEvent):
        has_response_parameters = (
            any(name in text.lower() for name in ("code", "error")) and "state" in text.lower()
        )
        assert has_response_parameters or has_login
    for event in (
        press_event(text),
        command_event(text),
        command_event("start", text),
        command_event("connect", text),
    ):
        parse_intent(event, ADA, waiting, is_private=is_private, has_forms=has_forms)


@settings(deadline=None)
@given(
    name=st.sampled_from(["connect", "Connections", "disconnect", "start", "cancel", "code", "help", ""]),
    text=st.sampled_from(
        ["", "notes", "mcp-login-1", "mcp-", "see ?code=", ANSWER_URL, ANSWER_URL[:40], CODE, OTHER_SITE_URL]
    ),
    quoted_text=st.sampled_from(["", ANSWER_URL, OTHER_SITE_URL]),
    is_private=st.booleans(),
)
def test_independent_events_have_same_intent_for_any_logins(
    name: str, text: str, quoted_text: str, *, is_private: bool
) -> None:
    event = replace(command_event(name, text), quoted_text=quoted_text)
    intent_without_logins, intent_with_logins = (
        parse_intent(event, ADA, logins, is_private=is_private)
        for logins in ((), (BOB_LOGIN, ADA_LOGIN, DEVICE_LOGIN))
    )
    if is_independent_of_logins(event):
        assert intent_without_logins == intent_with_logins
    else:
        is_other = name.lower() not in {"connect", "connections", "disconnect", "start"}
        assert is_other or quoted_text or text in {ANSWER_URL, ANSWER_URL[:40], OTHER_SITE_URL}


@covers("linear")
def test_megabyte_is_parsed_quickly() -> None:
    for unit in ("code=", "&state=", "%3f", "a1", " ", "\n", "(", f"{REDIRECT_URI} "):
        parse(message_event(unit * (1_000_000 // len(unit))), BOB_LOGIN, ADA_LOGIN)
