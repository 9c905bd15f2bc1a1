"""A code after a bot command with any separator, and quotes of the bot's messages."""

from __future__ import annotations

from typing import Any

import pytest
from telegram import Update

from gateway_hooks.dialog.intents import (
    UnmatchedAnswer,
    UnrelatedEvent,
    is_independent_of_logins,
    parse_intent,
)
from gateway_hooks.telegram.texts import collect_texts
from gateway_hooks.telegram.updates import ParsedUpdate, parse_update
from hermes_mcp_auth_remote.values import Origin
from tests.gateway_hooks.made import made
from tests.gateway_hooks.telegram.test_codes import LOOSE
from tests.requirements import covers

BOT = {"id": 900, "is_bot": True, "first_name": "Bot", "username": "our_bot"}
ANNA = {"id": 7, "is_bot": False, "first_name": "Anna"}
PRIVATE = {"id": 7, "type": "private"}


def update(text: str, command: str = "", **members: Any) -> Update:
    message: dict[str, Any] = {"message_id": 5, "date": 1, "chat": PRIVATE, "from": ANNA, "text": text}
    if command:
        message["entities"] = [{"type": "bot_command", "offset": 0, "length": len(command)}]
    return Update.de_json({"update_id": 1, "message": message | members})


def read_update(update: Update) -> ParsedUpdate:
    found = parse_update(update, "900", "our_bot")
    assert found is not None
    return found


@covers("telegram-agent-blind")
@pytest.mark.parametrize("between", [" ", "\n", "\t", "\u00a0", "\u3000", ",", ":", "-", "\u200b", "\u2026"])
@pytest.mark.parametrize("command", ["/start", "/connect", "/connections@our_bot", "/disconnect"])
def test_a_code_after_a_command_is_found_whatever_stands_between_them(command: str, between: str) -> None:
    found = read_update(update(f"{command}{between}{LOOSE}", command))
    assert not is_independent_of_logins(found.event)
    assert isinstance(parse_intent(found.event, found.origin, (), is_private=True), UnmatchedAnswer)


@covers("telegram-untouched")
@pytest.mark.parametrize("start", [0, 10])
def test_a_quote_of_our_own_link_belongs_to_a_message_for_others(start: int) -> None:
    login = made(Origin("telegram", "7", "", "7", "900"))
    link = login.authorization_url
    ours = {"message_id": 4, "date": 1, "chat": PRIVATE, "from": BOT, "text": link}
    quote = {"text": link[start:], "position": start}
    found = read_update(update("what is that?", reply_to_message=ours, quote=quote))
    assert isinstance(parse_intent(found.event, found.origin, [login], is_private=True), UnrelatedEvent)
    # The bot searches quotes of other messages.
    theirs = {**ours, "from": ANNA}
    assert collect_texts(update("?", reply_to_message=theirs, quote=quote), "900").quoted_texts
