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
from tests.gateway_hooks.login_factories import make_login
from tests.gateway_hooks.telegram.test_codes_in_updates import UNMATCHED_ANSWER_URL
from tests.requirements import covers

BOT = {"id": 900, "is_bot": True, "first_name": "Bot", "username": "our_bot"}
ANNA = {"id": 7, "is_bot": False, "first_name": "Anna"}
PRIVATE = {"id": 7, "type": "private"}


def make_update(text: str, command: str = "", **members: Any) -> Update:
    message: dict[str, Any] = {"message_id": 5, "date": 1, "chat": PRIVATE, "from": ANNA, "text": text}
    if command:
        message["entities"] = [{"type": "bot_command", "offset": 0, "length": len(command)}]
    return Update.de_json({"update_id": 1, "message": message | members})


def parse(update: Update) -> ParsedUpdate:
    parsed_update = parse_update(update, "900", "our_bot")
    assert parsed_update is not None
    return parsed_update


@covers("telegram-agent-blind")
@pytest.mark.parametrize("between", [" ", "\n", "\t", "\u00a0", "\u3000", ",", ":", "-", "\u200b", "\u2026"])
@pytest.mark.parametrize("command", ["/start", "/connect", "/connections@our_bot", "/disconnect"])
def test_code_after_command_is_found_with_any_separator(command: str, between: str) -> None:
    parsed_update = parse(make_update(f"{command}{between}{UNMATCHED_ANSWER_URL}", command))
    assert not is_independent_of_logins(parsed_update.event)
    assert isinstance(
        parse_intent(parsed_update.event, parsed_update.origin, (), is_private=True), UnmatchedAnswer
    )


@covers("telegram-untouched")
@pytest.mark.parametrize("start", [0, 10])
def test_quote_of_login_link_is_unrelated(start: int) -> None:
    login = make_login(Origin("telegram", "7", "", "7", "900"))
    link = login.authorization_url
    bot_message = {"message_id": 4, "date": 1, "chat": PRIVATE, "from": BOT, "text": link}
    quote = {"text": link[start:], "position": start}
    parsed_update = parse(make_update("what is that?", reply_to_message=bot_message, quote=quote))
    assert isinstance(
        parse_intent(parsed_update.event, parsed_update.origin, [login], is_private=True), UnrelatedEvent
    )
    # The bot searches quotes of other messages.
    user_message = {**bot_message, "from": ANNA}
    assert collect_texts(make_update("?", reply_to_message=user_message, quote=quote), "900").quoted_texts
