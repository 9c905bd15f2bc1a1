"""Which messages, buttons and entities the Bot API endpoint accepts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parts.bot_api import BotApi, User
from tests.parts.bot_api.limits import BUTTON_URL_CHARACTERS
from tests.parts.bot_api.user_actions import ImpossibleAction
from tests.parts_test.method_caller import MethodCaller, keyboard

HOUR = 3600.0


NO_ACTION = "can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard"


@pytest.mark.parametrize(
    ("parameters", "description"),
    [
        ({"text": ""}, "message text is empty"),
        ({"text": " \n"}, "text must be non-empty"),
        ({"text": "😀" * 2049}, "message is too long"),
        ({"text": "x", "chat_id": ""}, "chat_id is empty"),
        ({"text": "x", "chat_id": 8}, "chat not found"),
        ({"text": " ", "chat_id": 8}, "chat not found"),
        ({"text": "x", "chat_id": "@nobody"}, "chat not found"),
        ({"text": "x", "message_thread_id": 3}, "message thread not found"),
        ({"text": "x", "message_thread_id": "a"}, 'parameter "message_thread_id" must be of type Number'),
        ({"text": "x", "protect_content": "maybe"}, 'parameter "protect_content" must be of type Boolean'),
        ({"text": "x", "reply_parameters": {"message_id": 9}}, "message to be replied not found"),
        (
            {"text": "x", "link_preview_options": []},
            'parameter "link_preview_options" must be of type Object',
        ),
        ({"text": "x", "parse_mode": "rtf"}, "unsupported parse_mode"),
        ({"text": "x", "reply_markup": "{"}, "can't parse reply keyboard markup JSON object"),
        ({"text": "x", "reply_markup": []}, "object expected as reply markup"),
    ],
)
def test_invalid_message_is_refused(
    anna: User, call_api: MethodCaller, parameters: dict[str, Any], description: str
) -> None:
    assert call_api.expect_error("sendMessage", **({"chat_id": 7} | parameters)) == description


@pytest.mark.parametrize(
    ("button", "description"),
    [
        ({"text": "x"}, NO_ACTION),
        ({"callback_data": "x"}, "can't parse inline keyboard button: Can't find field \"text\""),
        ({"text": " ", "callback_data": "x"}, "inline keyboard button text must be non-empty"),
        ({"text": "x", "callback_data": "é" * 32 + "x"}, "BUTTON_DATA_INVALID"),
        ({"text": "x", "callback_data": ""}, NO_ACTION),
        ({"text": "x", "copy_text": {"text": "x" * 257}}, "BUTTON_COPY_TEXT_INVALID"),
        ({"text": "x", "copy_text": {"text": ""}}, "BUTTON_COPY_TEXT_INVALID"),
        (
            {"text": "x", "url": "https://a.example", "callback_data": "y"},
            "inline keyboard button has more than one action: url, callback_data",
        ),
        (
            {"text": "x", "url": "http://localhost:8765/callback"},
            "inline keyboard button URL 'http://localhost:8765/callback' is invalid: Wrong HTTP URL",
        ),
        (
            {"text": "x", "url": "ftp://a.example"},
            "inline keyboard button URL 'ftp://a.example' is invalid: Unsupported URL protocol",
        ),
        (
            {"text": "x", "url": "tg://resolve:80?domain=a"},
            "inline keyboard button URL 'tg://resolve:80?domain=a' is invalid: Wrong tg URL",
        ),
        ({"text": "x", "url": "https://a.example/" + "x" * BUTTON_URL_CHARACTERS}, "BUTTON_URL_INVALID"),
    ],
)
def test_invalid_button_is_refused(
    anna: User, call_api: MethodCaller, button: dict[str, Any], description: str
) -> None:
    error = call_api.expect_error("sendMessage", chat_id=7, text="x", reply_markup=keyboard([button]))
    assert error == description


def test_buttons_at_the_limits_are_accepted(api: BotApi, anna: User, call_api: MethodCaller) -> None:
    row = [{"text": str(n), "callback_data": "é" * 32} for n in range(8)]
    urls = [{"text": "a", "url": "HTTPS://A.Example/Path"}, {"text": "b", "url": "http://127.0.0.1:8/x"}]
    other_row: list[dict[str, object]] = [
        {"text": "c", "copy_text": {"text": "x" * 256}},
        {"text": "d", "url": "tg://resolve?domain=a"},
    ]
    assert call_api("sendMessage", chat_id=7, text="x", reply_markup=keyboard(row, urls, other_row))["ok"]
    message = api.messages(anna)[-1]
    assert [button.url for button in message.keyboard[1]] == [
        "https://a.example/Path",
        "http://127.0.0.1:8/x",
    ]
    assert api.copied_text(message, "c") == "x" * 256
    too_wide = keyboard([*row, row[0]])
    too_many = keyboard(*[row] * 13)
    for markup in (too_wide, too_many):
        error = call_api.expect_error("sendMessage", chat_id=7, text="x", reply_markup=markup)
        assert error == "reply markup is too long"


@pytest.mark.parametrize(
    ("entity", "description"),
    [
        ({"type": "bold", "offset": 0}, 'can\'t parse MessageEntity: Field "length" must be of type Number'),
        ({"offset": 0, "length": 1}, "can't parse MessageEntity: Can't find field \"type\""),
        (
            {"type": "loud", "offset": 0, "length": 1},
            "can't parse MessageEntity: Unsupported type specified",
        ),
        (
            {"type": "bold", "offset": 1, "length": 3},
            "entity beginning at UTF-16 offset 1 ends after the end of the text at UTF-16 offset 4",
        ),
        (
            {"type": "bold", "offset": 1, "length": 1},
            "entity begins in a middle of a UTF-16 symbol at UTF-16 offset 1",
        ),
        (
            {"type": "text_link", "offset": 0, "length": 3, "url": "localhost"},
            "entity URL 'localhost' is invalid: Wrong HTTP URL",
        ),
    ],
)
def test_invalid_entity_is_refused(
    anna: User, call_api: MethodCaller, entity: dict[str, Any], description: str
) -> None:
    assert call_api.expect_error("sendMessage", chat_id=7, text="😀!", entities=[entity]) == description


def test_server_adds_detected_entities_to_those_of_the_bot(
    api: BotApi, anna: User, call_api: MethodCaller
) -> None:
    bold = {"type": "bold", "offset": 0, "length": 2}
    call_api("sendMessage", chat_id=7, text="😀 see https://a.example/x, /help", entities=[bold])
    message = api.messages(anna)[-1]
    assert [(entity.type, message.entity_text(entity)) for entity in message.entities] == [
        ("bold", "😀"),
        ("url", "https://a.example/x"),
        ("bot_command", "/help"),
    ]


def test_previews_are_recorded_and_sent_texts_can_be_searched(
    api: BotApi, anna: User, call_api: MethodCaller
) -> None:
    call_api("sendMessage", chat_id=7, text="on https://a.example")
    call_api("sendMessage", chat_id=7, text="off", link_preview_options={"is_disabled": True})
    call_api("sendMessage", chat_id=7, text="off", disable_web_page_preview=True)
    assert [message.previews_disabled for message in api.messages(anna)[1:]] == [False, True, True]
    assert [call.method for call in api.calls_containing("https://a.example")] == ["sendMessage"]
    assert [message.text for message in api.messages_containing("a.example")] == ["on https://a.example"]
    assert api.find_everywhere("a.example")
    assert not api.find_everywhere("b.example")


@pytest.mark.parametrize(
    ("text", "entities"),
    [
        ("http://127.0.0.1:8765/callback?code=a.", [("url", "http://127.0.0.1:8765/callback?code=a")]),
        ("127.0.0.1:8765/callback?code=a", [("url", "127.0.0.1:8765/callback?code=a")]),
        ("see linear.app/x or mail a@b.example", [("url", "linear.app/x"), ("email", "a@b.example")]),
        ("http://localhost:8765/callback?code=a", []),
        ("/connect@my_bot #now @anna_k", [("bot_command", "/connect@my_bot"), ("hashtag", "#now")]),
    ],
)
def test_entities_are_detected_in_messages_of_users(
    api: BotApi, anna: User, text: str, entities: list[tuple[str, str]]
) -> None:
    message = api.say(anna, text)
    assert [(entity.type, message.entity_text(entity)) for entity in message.entities][
        : len(entities) or 1
    ] == entities


def test_messages_of_users_are_trimmed_and_split(api: BotApi, anna: User) -> None:
    first = api.say(anna, "  " + "x" * 4096 + "y \n")
    assert [message.text for message in api.messages(anna)][1:] == ["x" * 4096, "y"]
    assert first.text == "x" * 4096


def test_actions_that_telegram_clients_do_not_offer_raise(
    api: BotApi, anna: User, call_api: MethodCaller
) -> None:
    ben = api.add_user(8, "Ben")
    group = api.add_group(-1001, "Team", [anna])
    message = api.say(anna, "x", group)
    call_api(
        "sendMessage", chat_id=7, text="x", reply_markup=keyboard([{"text": "Go", "callback_data": "go"}])
    )
    bot_message = api.messages(anna)[-1]
    for action in (
        lambda: api.say(ben, "not started"),
        lambda: api.say(ben, "not a member", group),
        lambda: api.say(anna, " "),
        lambda: api.say(anna, "no topic", group, thread=5),
        lambda: api.edit(ben, message, "y"),
        lambda: api.delete(ben, message),
        lambda: api.press(ben, bot_message, "Go"),
        lambda: api.press(anna, bot_message, "Stop"),
        lambda: api.button_url(bot_message, "Go"),
        lambda: api.copied_text(bot_message, "Go"),
        lambda: api.start(anna, "no spaces"),
        lambda: api.open_deep_link(anna, "https://t.me/another_bot?start=x"),
        lambda: api.add_topic(group, "x"),
        lambda: api.add_group(5, "x"),
    ):
        with pytest.raises(ImpossibleAction):
            action()
    api.delete(anna, bot_message)
    with pytest.raises(ImpossibleAction):
        api.press(anna, bot_message, "Go")
