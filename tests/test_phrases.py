"""Phrases that the terminal and the chats share."""

from __future__ import annotations

import pytest

from gateway_hooks.dialog.rendering import Renderer
from hermes_mcp_auth_remote.phrases import display_url
from hermes_mcp_auth_remote.terminal.text import connection_summary, login_summary
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
