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
from tests.gateway_hooks.made import ADA, BOB, GROUP, made, with_code
from tests.oauth.parties import ISSUER, REDIRECT_URI, STATE, request
from tests.oauth.test_hostile_pastes import CODES, MANGLINGS, PROSE
from tests.requirements import covers

MINE, HIS = made(), made(BOB, "login-2", request=request(state=Secret("another-state-of-bobs-login-1234")))
LATER = made(ADA, "login-3", request=request(state=Secret("a-later-state-of-ada-s-login-01234")))
ELSEWHERE = made(Origin("parlour", user_id="ada"), "login-4")
DEVICE = with_code(made(login_id="login-5"))
URL = f"{REDIRECT_URI}?code=a-code-that-was-minted&state={STATE}"
FOREIGN = "https://another.example/done?code=abcdef&state=uvwxyz"
CODE = "4/0AeanS0ZmX-y_3kQ"


def read(heard: IncomingEvent, *waiting: Login, here: Origin = ADA, has_forms: bool = False) -> Intent:
    return parse_intent(heard, here, waiting, is_private=here != GROUP, has_forms=has_forms)


def said(text: str) -> IncomingEvent:
    return IncomingEvent(Sender("ada"), text=text, message_id="7")


def command(name: str, text: str = "") -> IncomingEvent:
    return IncomingEvent(Sender("ada"), command=name, text=text)


def pressed(action: str) -> IncomingEvent:
    return IncomingEvent(Sender("ada"), callback_data=action, pressed_message_id="7")


def named(value: object) -> str:
    """Return the id of a test case from its event."""
    return (
        f"{value.command} {value.callback_data}{value.text}".strip()
        if isinstance(value, IncomingEvent)
        else ""
    )


@pytest.mark.parametrize(
    ("heard", "intent"),
    [
        (command("connect"), Connect()),
        (command("connect", " notes"), Connect("notes")),
        (command("Connect", "notes"), Connect("notes")),
        (command("connect", URL), Answer(MINE)),
        (command("connections"), ListConnections()),
        (command("disconnect", "notes"), Disconnect("notes")),
        (command("disconnect", "notes yes"), Disconnect("notes yes")),
        (command("start"), UnrelatedEvent()),
        (command("start", "theirs"), UnrelatedEvent()),
        (command("start", "mcp_"), ListConnections()),
        (command("start", "mcp_login-1"), ContinueLogin("login-1")),
        (command("cancel"), LoginCommand(MINE, "cancel")),
        (command("code"), LoginCommand(MINE, "device")),
        (command("weather"), UnrelatedEvent()),
        (pressed("mcp:connect:0123"), Connect(server_tag="0123")),
        (pressed("mcp:off:0123"), Disconnect(server_tag="0123")),
        (pressed("mcp:yes:0123"), Disconnect(server_tag="0123", is_confirmed=True)),
        (pressed("mcp:no:0123"), Disconnect(server_tag="0123", is_confirmed=None)),
        (pressed("mcp:list:"), ListConnections()),
        (pressed("mcp:open:login-1"), ContinueLogin("login-1")),
        (pressed("mcp:qr:login-1"), LoginCommand(MINE, "qr")),
        (pressed("mcp:form:login-1"), Answer(MINE)),
        (pressed("mcp:cancel:login-2"), StaleButton()),
        (pressed("mcp:form:login-2"), StaleButton()),
        (pressed("mcp:cancel:login-9"), StaleButton()),
        (pressed("mcp:something:else"), StaleButton()),
        (pressed("mcp:broken"), UnrelatedEvent()),
        (pressed("theirs:cancel:login-1"), UnrelatedEvent()),
        (said("hello"), UnrelatedEvent()),
        (said(URL), Answer(MINE)),
        (said(f"{REDIRECT_URI}?co"), Answer(MINE)),
        (said(f"{REDIRECT_URI[:9]}\n{REDIRECT_URI[9:]}?code=a-code&sta\nte={STATE}"), Answer(MINE)),
        (said(f"error=access_denied&state={STATE}"), Answer(MINE)),
        (said("a-long-word-without-a-figure"), UnrelatedEvent()),
        (said(f"{CODE}{CODE}"), Answer(MINE)),
        (said(f"`{CODE}{CODE}`"), Answer(MINE)),
        (said(f"my code is {CODE}{CODE}"), UnrelatedEvent()),
        (said("https://example.com/a/page/with/numbers/12345"), UnrelatedEvent()),
        (said("code=1 but no more"), UnrelatedEvent()),
    ],
    ids=named,
)
def test_what_is_meant_in_private_while_a_login_waits(heard: IncomingEvent, intent: Intent) -> None:
    assert read(heard, HIS, MINE) == intent


@covers("chat-ours")
@pytest.mark.parametrize(
    ("heard", "intent"),
    [
        (said(URL), UnmatchedAnswer()),
        (said(FOREIGN), UnrelatedEvent()),
        (said("?code=abcdef&state=uvwxyz"), UnmatchedAnswer()),
        (command("connect", FOREIGN), UnmatchedAnswer()),
        (said(f"{REDIRECT_URI} is where it ends?"), UnrelatedEvent()),
        (said(f"{CODE}{CODE}"), UnrelatedEvent()),
        (command("cancel"), UnrelatedEvent()),
        (command("qr"), UnrelatedEvent()),
        (command("new"), UnrelatedEvent()),
        (pressed("mcp:cancel:login-1"), StaleButton()),
    ],
    ids=named,
)
@pytest.mark.parametrize("waiting", [(), (HIS,)], ids=["no login waits", "a login of another user waits"])
def test_what_is_meant_in_private_without_a_login_of_ones_own(
    heard: IncomingEvent, intent: Intent, waiting: tuple[Login, ...]
) -> None:
    assert read(heard, *waiting) == intent


@covers("chat-exposed")
@pytest.mark.parametrize(
    ("text", "waiting", "intent"),
    [
        (URL, (HIS, MINE), ExposedAnswer(MINE)),
        (URL, (ELSEWHERE,), ExposedAnswer(ELSEWHERE)),
        (URL.replace(STATE, HIS.request.state.reveal()), (HIS, MINE), ExposedAnswer(None)),
        (URL.replace(STATE, HIS.request.state.reveal()), (HIS,), ExposedAnswer(None)),
        (FOREIGN, (MINE,), ExposedAnswer(None)),
        (FOREIGN, (HIS,), UnrelatedEvent()),
        (FOREIGN, (), UnrelatedEvent()),
        (URL, (), ExposedAnswer(None)),
        ("?code=abcdef&state=uvwxyz", (), UnrelatedEvent()),
        (f"{CODE}{CODE}", (MINE,), ExposedAnswer(MINE)),
        (f"{CODE}{CODE}", (HIS,), UnrelatedEvent()),
        ("hello", (MINE,), UnrelatedEvent()),
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
def test_what_is_meant_in_a_group(text: str, waiting: tuple[Login, ...], intent: Intent) -> None:
    assert read(said(text), *waiting, here=GROUP) == intent


@covers("chat-ours", "chat-exposed")
def test_an_address_that_a_message_replies_to_goes_on_to_nobody() -> None:
    reply = replace(said("is that right?"), quoted_text=f"I wrote {URL}")
    assert read(reply) == UnmatchedAnswer()
    assert read(reply, MINE) == UnmatchedAnswer()
    assert read(reply, MINE, here=GROUP) == ExposedAnswer(None)
    assert read(reply, HIS, here=GROUP) == ExposedAnswer(None)
    assert read(replace(reply, quoted_text=FOREIGN), HIS, here=GROUP) == UnrelatedEvent()
    assert read(replace(reply, quoted_text=f"It begins with {REDIRECT_URI}."), MINE) == UnrelatedEvent()


@covers("linear")
def test_a_strangers_text_is_read_closely_for_no_login_whose_state_it_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closely = MagicMock(return_value=False)
    monkeypatch.setattr(gateway_hooks.dialog.code_detection, "matches_state", closely)
    many = [made(Origin("parlour", user_id=f"{number}"), f"login-{number}") for number in range(1000)]
    many = [
        replace(each, request=replace(each.request, state=Secret(f"the-state-of-{each.id}"))) for each in many
    ]
    assert read(said("http://x?code=a&state=b\n" * 160), *many, here=GROUP) == UnrelatedEvent()
    closely.assert_not_called()


def test_where_there_are_forms_a_written_answer_is_exposed() -> None:
    assert read(said(URL), MINE, has_forms=True) == ExposedAnswer(MINE)
    assert read(said(URL), HIS, has_forms=True) == UnmatchedAnswer()
    assert read(pressed("mcp:form:login-1"), MINE, has_forms=True) == Answer(MINE)


def test_of_two_logins_the_one_whose_state_it_carries_is_meant_else_the_later() -> None:
    assert read(said(URL), MINE, LATER) == Answer(MINE)
    assert read(said(URL.replace(STATE, LATER.request.state.reveal())), MINE, LATER) == Answer(LATER)
    assert read(said(FOREIGN), MINE, LATER) == Answer(LATER)
    assert read(command("cancel"), MINE, LATER) == LoginCommand(LATER, "cancel")


def test_a_login_by_a_code_takes_no_paste() -> None:
    assert read(said(f"{CODE}{CODE}"), DEVICE) == UnrelatedEvent()
    assert read(said(URL), DEVICE) == UnmatchedAnswer()
    assert read(pressed("mcp:paste:login-5"), DEVICE) == LoginCommand(DEVICE, "paste")


@covers("sender-binding")
@pytest.mark.parametrize(
    "here",
    [
        Origin("parlour", chat_id="private-ada", user_id="bob", bot_id="900"),
        Origin("parlour", chat_id="elsewhere", user_id="ada", bot_id="900"),
        Origin("parlour", chat_id="private-ada", thread_id="2", user_id="ada", bot_id="900"),
        Origin("parlour", chat_id="private-ada", user_id="ada", bot_id="901"),
    ],
    ids=["user", "chat", "thread", "bot"],
)
def test_a_login_is_answered_and_steered_only_where_it_was_begun(here: Origin) -> None:
    assert read(said(URL), MINE, here=here) == UnmatchedAnswer()
    for verb in ("cancel", "qr", "form", "device", "paste", "new"):
        assert read(pressed(f"mcp:{verb}:login-1"), MINE, here=here) == StaleButton()


@covers("chat-ours", "paste-mangled")
@settings(deadline=None)
@given(
    CODES, st.permutations(["code", "state", "iss", "scope"]), st.sampled_from(list(MANGLINGS)), PROSE, PROSE
)
@pytest.mark.parametrize("here", [ADA, GROUP], ids=["private", "group"])
def test_an_answer_is_known_whatever_a_phone_made_of_it(
    here: Origin, code: str, order: list[str], mangling: str, before: str, after: str
) -> None:
    values = {"code": code, "state": STATE, "iss": ISSUER, "scope": "a b"}
    text = MANGLINGS[mangling](f"{REDIRECT_URI}?{urlencode([(name, values[name]) for name in order])}")
    if "wrapped" not in mangling:
        text = f"{before} {text} {after}"
    expected = Answer(MINE) if here == ADA else ExposedAnswer(MINE)
    assert read(said(text), HIS, MINE, here=here) == expected


@covers("chat-ours", "no-crash")
@settings(deadline=None)
@given(
    text=st.text(max_size=300)
    | st.sampled_from(["mcp:", "mcp_", "code=", "state=", "?", "&", "%3f", "%3d", REDIRECT_URI, "://"])
    | st.lists(st.sampled_from(["code=", "state", "=", "&", "?", " ", "%26", "a1" * 12, "://", "\n"])).map(
        "".join
    ),
    waits=st.booleans(),
    is_private=st.booleans(),
    has_forms=st.booleans(),
)
def test_nothing_is_taken_without_a_login_or_a_code_and_nothing_raises(
    text: str, *, waits: bool, is_private: bool, has_forms: bool
) -> None:
    waiting = [HIS, MINE] if waits else [HIS]
    found = parse_intent(said(text), ADA, waiting, is_private=is_private, has_forms=has_forms)
    if not isinstance(found, UnrelatedEvent):
        carries = any(name in text.lower() for name in ("code", "error")) and "state" in text.lower()
        assert carries or waits
    for heard in (pressed(text), command(text), command("start", text), command("connect", text)):
        parse_intent(heard, ADA, waiting, is_private=is_private, has_forms=has_forms)


@settings(deadline=None)
@given(
    name=st.sampled_from(["connect", "Connections", "disconnect", "start", "cancel", "code", "help", ""]),
    text=st.sampled_from(["", "notes", "mcp-login-1", "mcp-", "see ?code=", URL, URL[:40], CODE, FOREIGN]),
    beside=st.sampled_from(["", URL, FOREIGN]),
    is_private=st.booleans(),
)
def test_what_stands_alone_means_the_same_whatever_logins_there_are(
    name: str, text: str, beside: str, *, is_private: bool
) -> None:
    heard = replace(command(name, text), quoted_text=beside)
    without, along = (
        parse_intent(heard, ADA, logins, is_private=is_private) for logins in ((), (HIS, MINE, DEVICE))
    )
    if is_independent_of_logins(heard):
        assert without == along
    else:
        is_other = name.lower() not in {"connect", "connections", "disconnect", "start"}
        assert is_other or beside or text in {URL, URL[:40], FOREIGN}


@covers("linear")
def test_a_megabyte_is_read_at_once() -> None:
    for unit in ("code=", "&state=", "%3f", "a1", " ", "\n", "(", f"{REDIRECT_URI} "):
        read(said(unit * (1_000_000 // len(unit))), HIS, MINE)
