"""Phrases that the terminal and the chats share."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import gateway_hooks
from gateway_hooks.dialog.rendering import Renderer
from hermes_mcp_auth_remote import cli, phrases, terminal
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.phrases import MAX_SCOPE_CHARS, connection_rows, display_scope, display_url
from hermes_mcp_auth_remote.status import session_status
from hermes_mcp_auth_remote.terminal.text import connection_summary, login_summary, session_end
from hermes_mcp_auth_remote.values import CredentialKey
from tests.docstrings import docstring_ids
from tests.gateway_hooks import login_factories
from tests.gateway_hooks.test_cards import card_texts, possible_cards
from tests.oauth.builders import NOW
from tests.requirements import covers

KEY = "k3y-of-the-operator"
URL_WITH_KEY = f"https://mcp.example/mcp?api_key={KEY}"


@pytest.mark.parametrize(
    ("url", "displayed"),
    [
        ("https://mcp.example/mcp", "https://mcp.example/mcp"),
        (URL_WITH_KEY, "https://mcp.example/mcp?…"),
        ("https://mcp.example/mcp?", "https://mcp.example/mcp?…"),
        (f"https://mcp.example/mcp#{KEY}", "https://mcp.example/mcp"),
        (f"https://mcp.example/mcp#a?{KEY}", "https://mcp.example/mcp"),
        (f"https://mcp.example/?a=1#{KEY}", "https://mcp.example/?…"),
    ],
)
def test_a_displayed_url_has_no_query_and_no_fragment(url: str, displayed: str) -> None:
    assert display_url(url) == displayed


@covers("address-key")
def test_no_chat_and_no_screen_shows_a_key_in_a_servers_url() -> None:
    login, connection = (
        login_factories.make_login(server_url=URL_WITH_KEY),
        login_factories.make_connection(server_url=URL_WITH_KEY),
    )
    screens = [login_summary(login, NOW), connection_summary(connection, NOW)]
    for shown_login in (login, login_factories.with_device_code(login)):
        for card in possible_cards(shown_login, connection, Renderer(), NOW, "words"):
            screens += card_texts(card)
    shown = "\n".join(screens)
    assert KEY not in shown
    assert shown.count("https://mcp.example/mcp?…") >= 4


def test_a_long_scope_and_account_are_cut_with_the_number_of_the_rest() -> None:
    names = [f"scope-{number:06}" for number in range(60_000)]
    text = display_scope(names)
    assert len(text) < MAX_SCOPE_CHARS + 40
    assert text.startswith("scope-000000 scope-000001 ")
    shown, _, rest = text.partition(" … and ")
    assert rest == f"{len(names) - len(shown.split())} more"
    assert display_scope(["x" * 900_000]) == f"{'x' * MAX_SCOPE_CHARS}…"
    assert display_scope(["x" * 900_000, "y"]) == f"{'x' * MAX_SCOPE_CHARS}… … and 1 more"
    assert display_scope(["b", "a"]) == "a b"
    connection = Connection(
        CredentialKey("a"), "https://a.example", "", "x" * 900_000, frozenset(names), None, can_refresh=False
    )
    assert sum(len(value) for _, value in connection_rows(connection)) < 2 * MAX_SCOPE_CHARS


PHRASES = {name: value for name, value in vars(phrases).items() if name.isupper() and isinstance(value, str)}
# These modules show connections and logins. In other modules, a word such as "Server" has many meanings.
SCREEN_MODULES = {"messages.py", "rendering.py", "connection_rendering.py", "text.py", "connection_status.py"}


def source_literals() -> list[tuple[Path, str]]:
    """Return each string of the code that writes to users, without docstrings, with its file."""
    literals: list[tuple[Path, str]] = []
    for package in (gateway_hooks, cli, terminal):
        for path in Path(package.__file__ or "").parent.rglob("*.py"):
            tree = ast.parse(path.read_text("utf-8"))
            docstrings = docstring_ids(tree)
            literals += [
                (path, node.value)
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in docstrings
            ]
    return literals


@covers("shared-phrases")
def test_a_shared_phrase_stands_in_no_other_file() -> None:
    literals = source_literals()
    assert any("Continue" in literal for _, literal in literals), "The search finds no sentence."
    repeated = [
        f"{path.name}: {literal}"
        for path, literal in literals
        for phrase in PHRASES.values()
        if (phrase in literal and phrase.count(" ") > 1)
        or (phrase in literal.split(": ") and path.name in SCREEN_MODULES)
    ]
    assert repeated == []


@covers("shared-phrases")
def test_the_end_of_a_connection_has_the_same_words_in_terminal_and_chat() -> None:
    connection = login_factories.make_connection()
    end = session_end(session_status(connection, NOW), NOW)
    assert Renderer().connection_lifetime(connection, NOW) == f"{end} ({phrases.REFRESHES_ITSELF})"
