"""Each card is complete, harmless and short enough for each platform, in any language."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from string import Formatter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gateway_hooks
from gateway_hooks.dialog.cards import Button, Card, Link, Row, decode_action, encode_action, spans, truncate
from gateway_hooks.dialog.connection_rendering import ConnectionRenderer, ServerStatus
from gateway_hooks.dialog.messages import ENGLISH, Messages
from gateway_hooks.dialog.platform import Capabilities
from gateway_hooks.dialog.policy import Refusal
from gateway_hooks.dialog.rendering import Renderer, next_countdown_at
from hermes_mcp_auth_remote.errors import LoginError, PasteRefused, StoreCorrupt
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.values import CredentialKey
from tests.gateway_hooks.given import MAX_ACTION_BYTES, check, plain, utf16
from tests.gateway_hooks.made import TEXTS, USER_CODE, connected, connections, logins, made, with_code
from tests.oauth.parties import NOW
from tests.requirements import covers

pytestmark = pytest.mark.slow

SENTENCES = {field.name: field.default for field in fields(Messages) if isinstance(field.default, str)}
SOURCES = sorted(Path(gateway_hooks.__file__).parent.rglob("*.py"))
ABILITIES = [
    Capabilities(),
    Capabilities(has_forms=True, can_delete=False),
    Capabilities(has_buttons=False, can_delete=False, can_copy=False, command_prefix="/mcpauth "),
]


def all_of(card: Card) -> Iterator[str]:
    """Yield each text of a card except its URL."""
    yield plain(card, with_link=False)
    for row in card.buttons:
        for button in row:
            yield button.label
            yield button.copy
    if card.link is not None:
        yield card.link.label


def cards_of(
    login: Login, found: Connection, conversation: Renderer, now: float, wild: str
) -> Iterator[Card]:
    """Yield each card that can show the login, the connection or the text."""
    lists, trouble = ConnectionRenderer(conversation), LoginError(wild, wild)
    if login.status in {"waiting", "exchanging"}:
        yield conversation.prompt_card(login, now)
        yield conversation.prompt_card(login, now, may_use_device=False)
        yield conversation.qr_text_and_caption(login)[1]
        yield conversation.qr_too_large_card(login)
    else:
        yield conversation.outcome_card(login, found, now, "0123456789abcdef")
        yield conversation.outcome_card(login, None, now, "0123456789abcdef")
    yield conversation.connected_card(found, now)
    yield conversation.error_card(conversation.messages.connections_title, trouble)
    yield lists.server_choice_card([wild, login.key.server_name])
    yield lists.server_choice_card([f"{wild}{number}" for number in range(30)])
    yield lists.server_choice_card([])
    standings = [
        ServerStatus("notes", found),
        ServerStatus(wild, replace(found, login_needed=None)),
        ServerStatus(wild, error=StoreCorrupt(wild)),
        ServerStatus(wild, has_waiting_login=True),
        ServerStatus(wild),
    ]
    yield lists.connections_card(standings, login.key.owner, now, may_change=True)
    many = [ServerStatus(f"{wild}{number}", found) for number in range(30)]
    yield lists.connections_card(many, login.key.owner, now, may_change=True)
    yield lists.connections_card([], login.key.owner, now, may_change=True)
    yield lists.disconnect_confirmation_card(wild, login.key.owner)
    yield lists.still_connected_card(wild)
    yield lists.disconnected_card(wild, is_revoked=True)
    yield lists.disconnected_card(wild, is_revoked=False)
    refusals: tuple[Refusal, ...] = ("too_many", "too_often", "too_busy")
    yield from (lists.refusal_card(why, 3) for why in refusals)
    yield lists.unknown_user_card(wild)
    yield lists.help_card()
    yield lists.reminder_card(found, now)


@covers("chat-harmless", "no-crash")
@pytest.mark.parametrize("can", ABILITIES, ids=["chat", "forms", "plain"])
@settings(deadline=None)
@given(login=logins(), found=connections(), wild=TEXTS, later=st.floats(-1000, 2000))
def test_no_card_is_steered_overfull_or_unfilled_whatever_servers_call_things(
    can: Capabilities, login: Login, found: Connection, wild: str, later: float
) -> None:
    conversation = Renderer(can)
    now = login.started_at + later
    for card in cards_of(login, found, conversation, now, wild):
        for text in all_of(card):
            assert all(each.isprintable() or each == "\n" for each in text), text
        assert utf16(plain(card, with_link=False)) <= 4096
        for button in (each for row in card.buttons for each in row):
            assert button.label
            assert len(button.label) <= 80
            assert len(button.action.encode()) <= MAX_ACTION_BYTES


@covers("chat-harmless")
@pytest.mark.parametrize("can", ABILITIES, ids=["chat", "forms", "plain"])
def test_the_fullest_card_fits(can: Capabilities) -> None:
    wild, host = "\U0001f600" * 400, "long." * 200
    asked = replace(
        made().request,
        scope=frozenset({wild}),
        authorization_endpoint=f"https://{host}/authorize",
        token_endpoint=f"https://x{host}/token",
    )
    login = made(server_url=wild, request=asked, added_scope=frozenset({wild}), key=CredentialKey(wild))
    found = connected(
        key=CredentialKey(wild), account=wild, scope=frozenset({wild}), missing_scope=frozenset({wild})
    )
    for each in (login, with_code(login, "W" * 64)):
        for card in cards_of(each, found, Renderer(can), NOW, wild):
            assert utf16(plain(card, with_link=False)) <= 4096


@covers("chat-harmless")
@pytest.mark.parametrize(
    "wild", ["\u202eevil", "a\x1b[2Jb", "zero\u200bwidth", "line\nbreak", "\u2066\ud800"]
)
@pytest.mark.parametrize("can", ABILITIES, ids=["chat", "forms", "plain"])
def test_what_would_turn_round_or_hide_text_is_replaced(wild: str, can: Capabilities) -> None:
    found = connected(account=wild, scope=frozenset({wild}))
    for card in cards_of(made(), found, Renderer(can), NOW, wild):
        for text in all_of(card):
            assert wild not in text, card.title


@covers("chat-harmless")
def test_what_others_wrote_is_marked_as_quoted() -> None:
    login = made(added_scope=frozenset({"write"}))
    prompt = Renderer().prompt_card(login, NOW)
    quoted = {row.value for row in prompt.rows if row.is_quoted}
    assert {"https://mcp.example/mcp", "as.example", "read", "write"} <= quoted
    found = connected(account="https://evil.example/@everyone", missing_scope=frozenset({"write"}))
    card = Renderer().connected_card(found, NOW, "tag")
    assert {row.value for row in card.rows if row.is_quoted} == {found.account, "read", "write"}
    listed = ConnectionRenderer(Renderer()).connections_card(
        [ServerStatus("notes", found)], None, NOW, may_change=True
    )
    assert [row.is_quoted for row in listed.rows if "evil.example" in row.value] == [True]


@covers("chat-words")
def test_every_sentence_is_used_and_no_other_is_asked_for() -> None:
    asked: set[str] = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and _is_words(node.value):
                asked.add(node.attr)
    assert asked - {"errors"} == set(SENTENCES)


def _is_words(node: ast.expr) -> bool:
    return ast.unparse(node).rpartition(".")[2] in {"messages", "ENGLISH"}


@covers("chat-words")
@pytest.mark.parametrize("name", SENTENCES)
def test_a_sentence_is_a_thought_with_known_blanks(name: str) -> None:
    sentence = SENTENCES[name]
    assert sentence == sentence.strip()
    assert "  " not in sentence
    blanks = {field for _, field, _, _ in Formatter().parse(sentence) if field is not None}
    known = {"server", "clock", "span", "button", "words", "host", "command", "reason", "account", "count"}
    assert blanks <= known | {"user", "connect", "connections"}


@covers("chat-words")
@pytest.mark.parametrize("can", ABILITIES, ids=["chat", "forms", "plain"])
def test_in_a_translation_nothing_english_is_left(can: Capabilities) -> None:
    """Translate each sentence to capitals. A text in small letters does not come from `Messages`."""
    sentences = {name: _translated(text) for name, text in SENTENCES.items()}
    capitals = replace(ENGLISH, **sentences)  # type: ignore[arg-type]
    known = made(server_url="HTTPS://MCP.EXAMPLE/")
    login = replace(known, request=replace(known.request, scope=frozenset({"READ"})))
    shown: list[Card] = []
    everything = replace(login, request=replace(login.request, scope=None))
    for each in (
        login,
        everything,
        with_code(login),
        replace(login, status="expired"),
        replace(login, status="failed"),
    ):
        found = connected(account="ADA", scope=frozenset({"READ"}))
        shown += cards_of(each, found, Renderer(can, capitals), NOW, "WILD")
    for card in shown:
        for text in all_of(card):
            left = re.sub(r"as\.example|notes|/mcpauth |/|connections|connect|disconnect", "", text)
            left = re.sub(r"\b(?:qr|code|new|paste|cancel|yes)\b", "", left)
            assert left == left.upper(), text


def _translated(sentence: str) -> str:
    return "".join(
        part.upper() + (f"{{{blank}}}" if blank is not None else "")
        for part, blank, _, _ in Formatter().parse(sentence)
    )


@covers("chat-words")
def test_what_errors_say_can_be_translated_by_their_code() -> None:
    words = replace(ENGLISH, errors={"paste_refused": ("Falsch.", "Noch einmal.")})
    card = Renderer(messages=words).error_card("!", PasteRefused("That is not it."))
    assert card.paragraphs == ("Falsch.", "Noch einmal.")
    login = made(status="failed", failure=("That is not it.", "Again."), failure_code="paste_refused")
    assert Renderer(messages=words).outcome_card(login, None, NOW, "t").paragraphs == (
        "Falsch.",
        "Noch einmal.",
    )
    assert Renderer().outcome_card(login, None, NOW, "t").paragraphs == ("That is not it.", "Again.")


@covers("device-screen")
def test_a_device_prompt_shows_the_code_alone_and_says_to_compare_it_and_to_whom_it_belongs() -> None:
    card = Renderer().prompt_card(with_code(made(), complete="https://as.example/device?user_code=X"), NOW)
    assert card.code == USER_CODE
    assert (USER_CODE, "code") in list(spans(card, with_link=False))
    assert card.after_code == (ENGLISH.compare_code, ENGLISH.device_login_ends_itself)
    assert card.link == Link("Open the page", "https://as.example/device?user_code=X")
    copies = [button.copy for row in card.buttons for button in row if button.copy]
    assert copies == [USER_CODE]
    assert not any(USER_CODE in each for each in (repr(card), repr(card.buttons)))


def test_what_is_secret_or_for_one_person_is_in_no_repr() -> None:
    card = Renderer().prompt_card(made(), NOW)
    assert card.link is not None
    assert card.link.url not in repr(card)
    assert "hidden" not in repr(Button("Copy", copy="hidden"))


@covers("chat-countdown")
@pytest.mark.parametrize(
    ("left", "said", "next_left"),
    [
        (600, "10 minutes", 300),
        (599, "10 minutes", 300),
        (301, "10 minutes", 300),
        (300, "5 minutes", 120),
        (121, "5 minutes", 120),
        (120, "2 minutes", 60),
        (61, "2 minutes", 60),
        (60, "1 minute", 0),
        (1, "1 minute", 0),
        (1800, "30 minutes", 1500),
    ],
)
def test_a_prompt_counts_down_at_few_moments(left: float, said: str, next_left: float) -> None:
    login = made()
    now = login.expires_at - left
    (row,) = [row for row in Renderer().prompt_card(login, now).rows if row.label == ENGLISH.expiry_label]
    assert f"({said})" in row.value
    assert next_countdown_at(login, now) == login.expires_at - next_left


@settings(deadline=None)
@given(left=st.floats(0.001, 5000))
def test_between_two_marks_a_prompt_stays_the_same(left: float) -> None:
    login = made(started_at=NOW - 86_400 * 3)
    now = login.expires_at - left
    mark, conversation = next_countdown_at(login, now), Renderer()
    assert now < mark <= login.expires_at
    # Skip the date: the prompt shows it only if it is another day than now.
    before = conversation.prompt_card(login, now).rows[-1].value.partition("(")[2]
    assert conversation.prompt_card(login, now + (mark - now) / 2).rows[-1].value.partition("(")[2] == before


def test_the_other_hosts_that_take_part_are_named() -> None:
    login = made(request=replace(made().request, token_endpoint="https://tokens.example/token"))
    (row,) = [
        row for row in Renderer().prompt_card(login, NOW).rows if row.label == ENGLISH.token_hosts_label
    ]
    assert row == Row("Tokens come from", "tokens.example", is_quoted=True)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (connected(), "it renews itself"),
        (connected(can_refresh=False), "until 09:00 UTC"),
        (connected(can_refresh=False, expires_at=NOW + 86_400), "until 2027-01-16 08:00 UTC"),
        (connected(can_refresh=False, expires_at=1e300), "until ? UTC"),
        (connected(can_refresh=False, expires_at=None), "until the provider ends it"),
    ],
)
def test_how_long_a_connection_lasts(found: Connection, said: str) -> None:
    assert Renderer().connection_lifetime(found, NOW) == said


@settings(deadline=None)
@given(verb=st.from_regex(r"[a-z]+", fullmatch=True), argument=st.text(max_size=40))
def test_what_a_button_brings_back_is_read_as_it_was_written(verb: str, argument: str) -> None:
    assert decode_action(encode_action(verb, argument)) == (verb, argument)


def test_a_long_value_is_cut_visibly() -> None:
    assert truncate("x" * 301) == "x" * 299 + "…"
    assert truncate("x" * 300) == "x" * 300
    # Do not split a surrogate pair.
    assert truncate("\U0001f600" * 151) == "\U0001f600" * 149 + "…"


def test_the_checks_of_the_platform_for_tests_bite() -> None:
    with pytest.raises(AssertionError):
        check(Card("{server}"), is_private=True)
    with pytest.raises(AssertionError):
        check(Card("x" * 4097), is_private=True)
    with pytest.raises(AssertionError):
        check(Card("", link=Link("Open", "https://as.example/authorize")), is_private=False)
