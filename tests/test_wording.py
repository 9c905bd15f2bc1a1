"""Phrases that the terminal and the chats share."""

from __future__ import annotations

import pytest

from gateway_hooks.dialog.rendering import Renderer
from hermes_mcp_auth_remote.phrases import display_url
from hermes_mcp_auth_remote.terminal.text import connection_summary, login_summary
from tests.gateway_hooks import made
from tests.gateway_hooks.test_cards import all_of, cards_of
from tests.oauth.parties import NOW
from tests.requirements import covers

KEY = "k3y-of-the-operator"
WITH_KEY = f"https://mcp.example/mcp?api_key={KEY}"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://mcp.example/mcp", "https://mcp.example/mcp"),
        (WITH_KEY, "https://mcp.example/mcp?…"),
        ("https://mcp.example/mcp?", "https://mcp.example/mcp?…"),
        (f"https://mcp.example/mcp#{KEY}", "https://mcp.example/mcp"),
        (f"https://mcp.example/mcp#a?{KEY}", "https://mcp.example/mcp"),
        (f"https://mcp.example/?a=1#{KEY}", "https://mcp.example/?…"),
    ],
)
def test_an_address_is_said_without_what_may_be_a_key(url: str, said: str) -> None:
    assert display_url(url) == said


@covers("address-key")
def test_a_key_in_a_servers_address_is_shown_in_no_chat_and_on_no_screen() -> None:
    login, found = made.made(server_url=WITH_KEY), made.connected(server_url=WITH_KEY)
    screens = [login_summary(login, NOW), connection_summary(found, NOW)]
    for each in (login, made.with_code(login)):
        for card in cards_of(each, found, Renderer(), NOW, "words"):
            screens += all_of(card)
    said = "\n".join(screens)
    assert KEY not in said
    assert said.count("https://mcp.example/mcp?…") >= 4
