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


def said(
    words: str, chat: dict[str, Any] = PRIVATE, kind: str = "message", **members: Any
) -> ParsedUpdate | None:
    message = {"message_id": 5, "date": 1, "chat": chat, "from": ANNA, "text": words, **members}
    if words.startswith("/"):
        length = len(words.split(maxsplit=1)[0])
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
def test_a_message(text: str, command: str, rest: str) -> None:
    found = said(text)
    assert found is not None
    assert found.event == IncomingEvent(Sender("7"), command, rest, message_id="5")
    assert found.origin == Origin("telegram", "7", "", "7", "900")
    assert found.is_private


@covers("telegram-untouched")
def test_an_edited_command_is_no_second_one() -> None:
    found = said("/connect notes", kind="edited_message")
    assert found is not None
    assert (found.event.command, found.event.text) == ("", "/connect notes")


@covers("telegram-sender")
def test_a_topic_is_a_place_of_its_own_and_a_thread_of_replies_is_none() -> None:
    topic = said("hello", GROUP, message_thread_id=3, is_topic_message=True)
    replies = said("hello", GROUP, message_thread_id=3)
    assert topic is not None
    assert replies is not None
    assert (topic.origin.thread_id, replies.origin.thread_id) == ("3", "")
    assert not topic.is_private


@covers("telegram-people")
@pytest.mark.parametrize(
    "members",
    [
        {"from": None},
        {"from": {**ANNA, "is_bot": True}},
        {"sender_chat": GROUP},
        {"text": None},
    ],
    ids=["no sender", "a bot", "a group", "no text"],
)
def test_what_no_person_wrote_is_nothing(members: dict[str, Any]) -> None:
    assert said("hello", GROUP, **members) is None


def pressed(**members: Any) -> ParsedUpdate | None:
    message = {"message_id": 5, "date": 1, "chat": PRIVATE, "message_thread_id": 3, "is_topic_message": True}
    query = {"id": "1", "from": ANNA, "chat_instance": "1", "data": "mcp:qr:x", "message": message, **members}
    return parse_update(Update.de_json({"update_id": 1, "callback_query": query}), "900", "hermes_bot")


def test_a_press() -> None:
    found = pressed()
    assert found is not None
    assert found.event == IncomingEvent(Sender("7"), callback_data="mcp:qr:x", pressed_message_id="5")
    assert found.origin == Origin("telegram", "7", "3", "7", "900")
    assert found.query is not None


def test_a_press_at_a_message_too_old_to_be_read() -> None:
    found = pressed(message={"message_id": 5, "date": 0, "chat": PRIVATE})
    assert found is not None
    assert (found.event.pressed_message_id, found.origin.thread_id, found.is_private) == ("5", "", True)


@pytest.mark.parametrize("members", [{"message": None}, {"data": None}, {"from": {**ANNA, "is_bot": True}}])
def test_a_press_that_is_not_ours(members: dict[str, Any]) -> None:
    assert pressed(**members) is None


def test_whoever_sends_a_picture_says_nothing_but_can_be_asked() -> None:
    message = {"message_id": 5, "date": 1, "chat": PRIVATE, "from": ANNA}
    update = Update.de_json({"update_id": 1, "message": message})
    assert parse_update(update, "900", "hermes_bot") is None
    found = parse_user_update(update, "900", "hermes_bot")
    assert found is not None
    assert (found.event.sender, found.origin.chat_id) == (Sender("7"), "7")


def test_other_updates() -> None:
    assert parse_update(Update.de_json({"update_id": 1}), "900", "hermes_bot") is None
    assert said("/connect", kind="channel_post") is None
    assert said("/connect", kind="business_message") is None
