"""Each card is complete, harmless and short enough for each platform, in any language."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from string import Formatter
from typing import get_args

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
from hermes_mcp_auth_remote.login import Connection, Login, LoginStatus, PromptReason
from hermes_mcp_auth_remote.values import CredentialKey
from tests.gateway_hooks.fake_platform import MAX_ACTION_BYTES, check_card, count_utf16_units, plain_text
from tests.gateway_hooks.login_factories import (
    TEXTS,
    USER_CODE,
    connections,
    logins,
    make_connection,
    make_login,
    with_device_code,
)
from tests.oauth.builders import NOW
from tests.requirements import covers

pytestmark = pytest.mark.slow

SENTENCES = {field.name: field.default for field in fields(Messages) if isinstance(field.default, str)}
SOURCES = sorted(Path(gateway_hooks.__file__).parent.rglob("*.py"))
CAPABILITIES = [
    Capabilities(),
    Capabilities(has_forms=True, can_delete=False),
    Capabilities(has_buttons=False, can_delete=False, can_copy=False, command_prefix="/mcpauth "),
]


def card_texts(card: Card) -> Iterator[str]:
    """Yield each text of a card except its URL."""
    yield plain_text(card, with_link=False)
    for row in card.buttons:
        for button in row:
            yield button.label
            yield button.copy
    if card.link is not None:
        yield card.link.label


def possible_cards(
    login: Login, connection: Connection, renderer: Renderer, now: float, hostile_text: str
) -> Iterator[Card]:
    """Yield each card that can show the login, the connection or the text."""
    connection_renderer, error = ConnectionRenderer(renderer), LoginError(hostile_text, hostile_text)
    if login.status in {"waiting", "exchanging"}:
        yield renderer.prompt_card(login, now)
        yield renderer.prompt_card(login, now, may_use_device=False)
        for reason in get_args(PromptReason):
            yield renderer.prompt_card(login, now, reason=reason)
        yield renderer.qr_text_and_caption(login)[1]
        yield renderer.qr_too_large_card(login)
    else:
        yield renderer.outcome_card(login, connection, now, "0123456789abcdef")
        yield renderer.outcome_card(login, None, now, "0123456789abcdef")
    yield renderer.connected_card(connection, now)
    yield renderer.error_card(renderer.messages.connections_title, error)
    yield connection_renderer.server_choice_card([hostile_text, login.key.server_name])
    yield connection_renderer.server_choice_card([f"{hostile_text}{number}" for number in range(30)])
    yield connection_renderer.server_choice_card([])
    yield connection_renderer.unknown_server_card(["notes"], hostile_text, "notes")
    yield connection_renderer.unknown_server_card([hostile_text], hostile_text, None)
    yield connection_renderer.hint_card()
    yield connection_renderer.hint_card(hostile_text)
    statuses = [
        ServerStatus("notes", connection),
        ServerStatus(hostile_text, replace(connection, login_needed=None)),
        ServerStatus(hostile_text, error=StoreCorrupt(hostile_text)),
        ServerStatus(hostile_text, has_waiting_login=True),
        ServerStatus(hostile_text),
    ]
    yield connection_renderer.connections_card(statuses, login.key.owner, now, may_change=True)
    many_statuses = [ServerStatus(f"{hostile_text}{number}", connection) for number in range(30)]
    yield connection_renderer.connections_card(many_statuses, login.key.owner, now, may_change=True)
    yield connection_renderer.connections_card([], login.key.owner, now, may_change=True)
    yield connection_renderer.disconnect_confirmation_card(hostile_text, login.key.owner)
    yield connection_renderer.still_connected_card(hostile_text)
    yield connection_renderer.disconnected_card(hostile_text, is_revoked=True)
    yield connection_renderer.disconnected_card(hostile_text, is_revoked=False)
    refusals: tuple[Refusal, ...] = ("too_many", "too_often", "too_busy")
    yield from (connection_renderer.refusal_card(refusal, 3) for refusal in refusals)
    yield connection_renderer.unknown_user_card(hostile_text)
    yield connection_renderer.help_card()
    yield connection_renderer.reminder_card(connection, now)


@covers("chat-harmless", "no-crash")
@pytest.mark.parametrize("capabilities", CAPABILITIES, ids=["chat", "forms", "plain"])
@settings(deadline=None)
@given(login=logins(), connection=connections(), hostile_text=TEXTS, elapsed_seconds=st.floats(-1000, 2000))
def test_cards_are_printable_short_and_complete_for_any_names(
    capabilities: Capabilities,
    login: Login,
    connection: Connection,
    hostile_text: str,
    elapsed_seconds: float,
) -> None:
    renderer = Renderer(capabilities)
    now = login.started_at + elapsed_seconds
    for card in possible_cards(login, connection, renderer, now, hostile_text):
        for text in card_texts(card):
            assert all(character.isprintable() or character == "\n" for character in text), text
        assert count_utf16_units(plain_text(card, with_link=False)) <= 4096
        for button in (row_button for row in card.buttons for row_button in row):
            assert button.label
            assert len(button.label) <= 80
            assert len(button.action.encode()) <= MAX_ACTION_BYTES


@covers("platform-table")
@pytest.mark.parametrize("status", ["waiting", "failed"])
@pytest.mark.parametrize("fields", [{}, {"login_needed": "it is over"}, {"can_refresh": False}])
def test_a_card_without_buttons_names_a_command_instead(
    status: LoginStatus, fields: dict[str, object]
) -> None:
    login, connection = replace(make_login(), status=status), make_connection(**fields)
    with_buttons, without_buttons = (
        list(possible_cards(login, connection, Renderer(capabilities), NOW + 3000, "my notes"))
        for capabilities in (CAPABILITIES[0], CAPABILITIES[2])
    )
    for card, plain_card in zip(with_buttons, without_buttons, strict=True):
        assert not card.buttons or "/mcpauth " in plain_text(plain_card), plain_card.title


def test_a_reminder_and_a_failed_login_name_the_whole_command() -> None:
    renderer = Renderer(CAPABILITIES[2])
    card = ConnectionRenderer(renderer).reminder_card(make_connection(login_needed="it is over"), NOW)
    assert plain_text(card).endswith("To answer, type: /mcpauth connect notes.")
    card = renderer.outcome_card(replace(make_login(), status="expired"), None, NOW, "0123456789abcdef")
    assert plain_text(card).endswith("To answer, type: /mcpauth connect notes.")


@covers("chat-harmless")
@pytest.mark.parametrize("capabilities", CAPABILITIES, ids=["chat", "forms", "plain"])
def test_longest_card_fits(capabilities: Capabilities) -> None:
    hostile_text, host = "\U0001f600" * 400, "long." * 200
    authorization_request = replace(
        make_login().request,
        scope=frozenset({hostile_text}),
        authorization_endpoint=f"https://{host}/authorize",
        token_endpoint=f"https://x{host}/token",
    )
    login = make_login(
        server_url=hostile_text,
        request=authorization_request,
        added_scope=frozenset({hostile_text}),
        key=CredentialKey(hostile_text),
    )
    connection = make_connection(
        key=CredentialKey(hostile_text),
        account=hostile_text,
        scope=frozenset({hostile_text}),
        missing_scope=frozenset({hostile_text}),
    )
    for shown_login in (login, with_device_code(login, "W" * 64)):
        for card in possible_cards(shown_login, connection, Renderer(capabilities), NOW, hostile_text):
            assert count_utf16_units(plain_text(card, with_link=False)) <= 4096


@covers("chat-harmless")
@pytest.mark.parametrize(
    "hostile_text", ["\u202eevil", "a\x1b[2Jb", "zero\u200bwidth", "line\nbreak", "\u2066\ud800"]
)
@pytest.mark.parametrize("capabilities", CAPABILITIES, ids=["chat", "forms", "plain"])
def test_control_characters_are_replaced(hostile_text: str, capabilities: Capabilities) -> None:
    connection = make_connection(account=hostile_text, scope=frozenset({hostile_text}))
    for card in possible_cards(make_login(), connection, Renderer(capabilities), NOW, hostile_text):
        for text in card_texts(card):
            assert hostile_text not in text, card.title


@covers("chat-harmless")
def test_foreign_text_is_marked_as_quoted() -> None:
    login = make_login(added_scope=frozenset({"write"}))
    prompt = Renderer().prompt_card(login, NOW)
    quoted = {row.value for row in prompt.rows if row.is_quoted}
    assert {"https://mcp.example/mcp", "as.example", "read", "write"} <= quoted
    connection = make_connection(account="https://evil.example/@everyone", missing_scope=frozenset({"write"}))
    card = Renderer().connected_card(connection, NOW, "tag")
    assert {row.value for row in card.rows if row.is_quoted} == {connection.account, "read", "write"}
    connections_card = ConnectionRenderer(Renderer()).connections_card(
        [ServerStatus("notes", connection)], None, NOW, may_change=True
    )
    assert [row.is_quoted for row in connections_card.rows if "evil.example" in row.value] == [True]


@covers("chat-words")
def test_code_uses_exactly_the_sentences_of_messages() -> None:
    used_names: set[str] = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and is_messages_object(node.value):
                used_names.add(node.attr)
    assert used_names - {"errors"} == set(SENTENCES)


def is_messages_object(node: ast.expr) -> bool:
    return ast.unparse(node).rpartition(".")[2] in {"messages", "ENGLISH"}


@covers("chat-words")
@pytest.mark.parametrize("name", SENTENCES)
def test_sentence_is_trimmed_and_has_known_placeholders(name: str) -> None:
    sentence = SENTENCES[name]
    assert sentence == sentence.strip()
    assert "  " not in sentence
    placeholders = {field for _, field, _, _ in Formatter().parse(sentence) if field is not None}
    known_placeholders = {
        "server",
        "clock",
        "span",
        "button",
        "words",
        "host",
        "command",
        "reason",
        "account",
        "count",
    }
    known_placeholders |= {
        "user",
        "connect",
        "connections",
        "start",
        "name",
        "code",
        "approve",
        "people",
        "disconnect",
        "remove",
    }
    assert placeholders <= known_placeholders


@covers("chat-words")
@pytest.mark.parametrize("capabilities", CAPABILITIES, ids=["chat", "forms", "plain"])
def test_translated_cards_contain_no_english(capabilities: Capabilities) -> None:
    """Translate each sentence to capitals. If a card has small letters, their text is not from `Messages`."""
    sentences = {name: to_capitals(text) for name, text in SENTENCES.items()}
    translation = replace(ENGLISH, **sentences)  # type: ignore[arg-type]
    lowercase_login = make_login(server_url="HTTPS://MCP.EXAMPLE/")
    login = replace(lowercase_login, request=replace(lowercase_login.request, scope=frozenset({"READ"})))
    cards: list[Card] = []
    full_scope_login = replace(login, request=replace(login.request, scope=None))
    for shown_login in (
        login,
        full_scope_login,
        with_device_code(login),
        replace(login, status="expired"),
        replace(login, status="failed"),
    ):
        connection = make_connection(account="ADA", scope=frozenset({"READ"}))
        cards += possible_cards(shown_login, connection, Renderer(capabilities, translation), NOW, "WILD")
    for card in cards:
        for text in card_texts(card):
            remaining_text = re.sub(r"as\.example|notes|/mcpauth |/|connections|connect|disconnect", "", text)
            remaining_text = re.sub(r"\b(?:qr|code|new|paste|cancel|yes)\b", "", remaining_text)
            assert remaining_text == remaining_text.upper(), text


def to_capitals(sentence: str) -> str:
    return "".join(
        part.upper() + (f"{{{blank}}}" if blank is not None else "")
        for part, blank, _, _ in Formatter().parse(sentence)
    )


@covers("chat-words")
def test_error_texts_can_be_translated_by_code() -> None:
    messages = replace(ENGLISH, errors={"paste_refused": ("Falsch.", "Noch einmal.")})
    card = Renderer(messages=messages).error_card("!", PasteRefused("That is not it."))
    assert card.paragraphs == ("Falsch.", "Noch einmal.")
    login = make_login(status="failed", failure=("That is not it.", "Again."), failure_code="paste_refused")
    assert Renderer(messages=messages).outcome_card(login, None, NOW, "t").paragraphs == (
        "Falsch.",
        "Noch einmal.",
    )
    assert Renderer().outcome_card(login, None, NOW, "t").paragraphs == ("That is not it.", "Again.")


@covers("device-screen")
def test_device_prompt_shows_code_and_asks_to_compare_it() -> None:
    card = Renderer().prompt_card(
        with_device_code(make_login(), complete_uri="https://as.example/device?user_code=X"), NOW
    )
    assert card.code == USER_CODE
    assert (USER_CODE, "code") in list(spans(card, with_link=False))
    assert card.steps == (ENGLISH.device_open_for_all_step, ENGLISH.device_code_step)
    assert card.after_code == (ENGLISH.device_approve_step,)
    assert card.link == Link("Open the page", "https://as.example/device?user_code=X")
    copied_texts = [button.copy for row in card.buttons for button in row if button.copy]
    assert copied_texts == [USER_CODE]
    assert not any(USER_CODE in representation for representation in (repr(card), repr(card.buttons)))


def test_repr_contains_no_url_and_no_copied_text() -> None:
    card = Renderer().prompt_card(make_login(), NOW)
    assert card.link is not None
    assert card.link.url not in repr(card)
    assert "hidden" not in repr(Button("Copy", copy="hidden"))


@covers("chat-countdown")
@pytest.mark.parametrize(
    ("remaining_seconds", "expected_text", "next_remaining_seconds"),
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
def test_prompt_countdown_has_few_steps(
    remaining_seconds: float, expected_text: str, next_remaining_seconds: float
) -> None:
    login = make_login()
    now = login.expires_at - remaining_seconds
    (row,) = [row for row in Renderer().prompt_card(login, now).rows if row.label == ENGLISH.expiry_label]
    assert f"({expected_text})" in row.value
    assert next_countdown_at(login, now) == login.expires_at - next_remaining_seconds


@settings(deadline=None)
@given(remaining_seconds=st.floats(0.001, 5000))
def test_prompt_is_the_same_between_two_countdown_steps(remaining_seconds: float) -> None:
    login = make_login(started_at=NOW - 86_400 * 3)
    now = login.expires_at - remaining_seconds
    next_step_at, renderer = next_countdown_at(login, now), Renderer()
    assert now < next_step_at <= login.expires_at
    # Skip the date: the prompt shows it only if the login ends on another day.
    countdown_text = renderer.prompt_card(login, now).rows[-1].value.partition("(")[2]
    assert (
        renderer.prompt_card(login, now + (next_step_at - now) / 2).rows[-1].value.partition("(")[2]
        == countdown_text
    )


def test_prompt_names_other_token_hosts() -> None:
    login = make_login(request=replace(make_login().request, token_endpoint="https://tokens.example/token"))
    (row,) = [
        row for row in Renderer().prompt_card(login, NOW).rows if row.label == ENGLISH.token_hosts_label
    ]
    assert row == Row("Tokens come from", "tokens.example", is_quoted=True)


@pytest.mark.parametrize(
    ("connection", "expected_text"),
    [
        (make_connection(), "until the provider ends it (refreshes itself)"),
        (make_connection(can_refresh=False), "until 09:00 UTC, then log in again"),
        (
            make_connection(can_refresh=False, expires_at=NOW + 86_400),
            "until 2027-01-16 08:00 UTC, then log in again",
        ),
        (make_connection(can_refresh=False, expires_at=1e300), "until ? UTC, then log in again"),
        (make_connection(can_refresh=False, expires_at=None), "until the provider ends it"),
    ],
)
def test_connection_lifetime_text(connection: Connection, expected_text: str) -> None:
    assert Renderer().connection_lifetime(connection, NOW) == expected_text


@settings(deadline=None)
@given(verb=st.from_regex(r"[a-z]+", fullmatch=True), argument=st.text(max_size=40))
def test_button_action_round_trips(verb: str, argument: str) -> None:
    assert decode_action(encode_action(verb, argument)) == (verb, argument)


def test_long_value_is_truncated_with_ellipsis() -> None:
    assert truncate("x" * 301) == "x" * 299 + "…"
    assert truncate("x" * 300) == "x" * 300
    # Do not split a surrogate pair.
    assert truncate("\U0001f600" * 151) == "\U0001f600" * 149 + "…"


def test_check_card_rejects_invalid_cards() -> None:
    with pytest.raises(AssertionError):
        check_card(Card("{server}"), is_private=True)
    with pytest.raises(AssertionError):
        check_card(Card("x" * 4097), is_private=True)
    with pytest.raises(AssertionError):
        check_card(Card("", link=Link("Open", "https://as.example/authorize")), is_private=False)
