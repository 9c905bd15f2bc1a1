"""Parsing of updates: the event, the sender and the origin."""

from __future__ import annotations

from typing import Any

import pytest
from telegram import Update

from gateway_hooks.dialog.platform import IncomingEvent, Sender
from gateway_hooks.telegram.updates import ParsedUpdate, parse_update, parse_user_update
from hermes_mcp_auth_remote.values import Origin
from tests.requirements import covers

ANNA = {"id": 7, "is_bot": False, "first_name": "Anna"}
PRIVATE = {"id": 7, "type": "private"}
GROUP = {"id": -1001, "type": "supergroup", "title": "Team"}


def parse_message(
    text: str, chat: dict[str, Any] = PRIVATE, kind: str = "message", /, **fields: Any
) -> ParsedUpdate | None:
    message = {"message_id": 5, "date": 1, "chat": chat, "from": ANNA, "text": text, **fields}
    if text.startswith("/"):
        length = len(text.split(maxsplit=1)[0])
        message["entities"] = [{"type": "bot_command", "offset": 0, "length": length}]
    update = Update.de_json({"update_id": 1, kind: message})
    return parse_update(update, "900", "Hermes_Bot")


@pytest.mark.parametrize(
    ("text", "command", "rest"),
    [
        ("/connect notes", "connect", "notes"),
        ("/connect", "connect", ""),
        ("/CONNECT@hermes_bot  notes", "connect", " notes"),
        ("/connect\nnotes", "connect", "notes"),
        ("/start mcp_abc", "start", "mcp_abc"),
        ("/disconnect notes yes", "disconnect", "notes yes"),
        ("/connect@other_bot notes", "", "/connect@other_bot notes"),
        ("/cancel", "", "/cancel"),
        ("hello", "", "hello"),
    ],
)
def test_message_is_parsed(text: str, command: str, rest: str) -> None:
    parsed_update = parse_message(text)
    assert parsed_update is not None
    assert parsed_update.event == IncomingEvent(Sender("7"), command, rest, message_id="5")
    assert parsed_update.origin == Origin("telegram", "7", "", "7", "900")
    assert parsed_update.is_private


@covers("telegram-untouched")
def test_edited_command_is_not_a_command() -> None:
    parsed_update = parse_message("/connect notes", PRIVATE, "edited_message")
    assert parsed_update is not None
    assert (parsed_update.event.command, parsed_update.event.text) == ("", "/connect notes")


@covers("telegram-untouched", "chat-url")
@pytest.mark.parametrize(
    "fields",
    [
        {"forward_origin": {"type": "user", "date": 1, "sender_user": {**ANNA, "id": 900, "is_bot": True}}},
        {"forward_origin": {"type": "hidden_user", "date": 1, "sender_user_name": "an agent"}},
        {"via_bot": {"id": 12, "is_bot": True, "first_name": "inline"}},
    ],
    ids=["forwarded from a bot", "forwarded", "composed by an inline bot"],
)
def test_a_command_that_another_one_wrote_is_not_a_command(fields: dict[str, Any]) -> None:
    parsed_update = parse_message("/connect https://evil.example/mcp", **fields)
    assert parsed_update is not None
    assert (parsed_update.event.command, parsed_update.event.text) == (
        "",
        "/connect https://evil.example/mcp",
    )


@covers("telegram-sender")
def test_topic_has_thread_id_but_reply_thread_has_none() -> None:
    topic = parse_message("hello", GROUP, message_thread_id=3, is_topic_message=True)
    replies = parse_message("hello", GROUP, message_thread_id=3)
    assert topic is not None
    assert replies is not None
    assert (topic.origin.thread_id, replies.origin.thread_id) == ("3", "")
    assert not topic.is_private


@covers("telegram-people")
@pytest.mark.parametrize(
    "fields",
    [
        {"from": None},
        {"from": {**ANNA, "is_bot": True}},
        {"sender_chat": GROUP},
        {"text": None},
    ],
    ids=["no sender", "a bot", "a group", "no text"],
)
def test_message_without_user_is_ignored(fields: dict[str, Any]) -> None:
    assert parse_message("hello", GROUP, **fields) is None


def parse_press(**fields: Any) -> ParsedUpdate | None:
    message = {"message_id": 5, "date": 1, "chat": PRIVATE, "message_thread_id": 3, "is_topic_message": True}
    query = {"id": "1", "from": ANNA, "chat_instance": "1", "data": "mcp:qr:x", "message": message, **fields}
    return parse_update(Update.de_json({"update_id": 1, "callback_query": query}), "900", "hermes_bot")


def test_press_is_parsed() -> None:
    parsed_update = parse_press()
    assert parsed_update is not None
    assert parsed_update.event == IncomingEvent(Sender("7"), callback_data="mcp:qr:x", pressed_message_id="5")
    assert parsed_update.origin == Origin("telegram", "7", "3", "7", "900")
    assert parsed_update.query is not None


def test_press_on_inaccessible_message_is_parsed() -> None:
    parsed_update = parse_press(message={"message_id": 5, "date": 0, "chat": PRIVATE})
    assert parsed_update is not None
    assert (
        parsed_update.event.pressed_message_id,
        parsed_update.origin.thread_id,
        parsed_update.is_private,
    ) == ("5", "", True)


@pytest.mark.parametrize("fields", [{"message": None}, {"data": None}, {"from": {**ANNA, "is_bot": True}}])
def test_other_press_is_ignored(fields: dict[str, Any]) -> None:
    assert parse_press(**fields) is None


def test_message_without_text_has_only_sender() -> None:
    message = {"message_id": 5, "date": 1, "chat": PRIVATE, "from": ANNA}
    update = Update.de_json({"update_id": 1, "message": message})
    assert parse_update(update, "900", "hermes_bot") is None
    parsed_update = parse_user_update(update, "900", "hermes_bot")
    assert parsed_update is not None
    assert (parsed_update.event.sender, parsed_update.origin.chat_id) == (Sender("7"), "7")


def test_other_updates_are_ignored() -> None:
    assert parse_update(Update.de_json({"update_id": 1}), "900", "hermes_bot") is None
    assert parse_message("/connect", PRIVATE, "channel_post") is None
    assert parse_message("/connect", PRIVATE, "business_message") is None
