"""Which messages, buttons and entities the Bot API endpoint accepts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parts.bot_api import BotApi, User
from tests.parts.bot_api.limits import BUTTON_URL_CHARACTERS
from tests.parts.bot_api.people import Impossible
from tests.parts_test.asking import Asking, keyboard

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
def test_a_message_is_refused(anna: User, ask: Asking, parameters: dict[str, Any], description: str) -> None:
    assert ask.refused("sendMessage", **({"chat_id": 7} | parameters)) == description


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
def test_a_button_is_refused(anna: User, ask: Asking, button: dict[str, Any], description: str) -> None:
    said = ask.refused("sendMessage", chat_id=7, text="x", reply_markup=keyboard([button]))
    assert said == description


def test_buttons_up_to_the_limits_pass(api: BotApi, anna: User, ask: Asking) -> None:
    row = [{"text": str(n), "callback_data": "é" * 32} for n in range(8)]
    urls = [{"text": "a", "url": "HTTPS://A.Example/Path"}, {"text": "b", "url": "http://127.0.0.1:8/x"}]
    copied: list[dict[str, object]] = [
        {"text": "c", "copy_text": {"text": "x" * 256}},
        {"text": "d", "url": "tg://resolve?domain=a"},
    ]
    assert ask("sendMessage", chat_id=7, text="x", reply_markup=keyboard(row, urls, copied))["ok"]
    shown = api.messages(anna)[-1]
    assert [button.url for button in shown.keyboard[1]] == ["https://a.example/Path", "http://127.0.0.1:8/x"]
    assert api.copied_from(shown, "c") == "x" * 256
    too_wide = keyboard([*row, row[0]])
    too_many = keyboard(*[row] * 13)
    for markup in (too_wide, too_many):
        said = ask.refused("sendMessage", chat_id=7, text="x", reply_markup=markup)
        assert said == "reply markup is too long"


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
def test_an_entity_is_refused(anna: User, ask: Asking, entity: dict[str, Any], description: str) -> None:
    assert ask.refused("sendMessage", chat_id=7, text="😀!", entities=[entity]) == description


def test_entities_are_kept_and_others_found(api: BotApi, anna: User, ask: Asking) -> None:
    bold = {"type": "bold", "offset": 0, "length": 2}
    ask("sendMessage", chat_id=7, text="😀 see https://a.example/x, /help", entities=[bold])
    shown = api.messages(anna)[-1]
    assert [(entity.type, shown.part(entity)) for entity in shown.entities] == [
        ("bold", "😀"),
        ("url", "https://a.example/x"),
        ("bot_command", "/help"),
    ]


def test_previews_and_what_the_bot_carried_can_be_asked_for(api: BotApi, anna: User, ask: Asking) -> None:
    ask("sendMessage", chat_id=7, text="on https://a.example")
    ask("sendMessage", chat_id=7, text="off", link_preview_options={"is_disabled": True})
    ask("sendMessage", chat_id=7, text="off", disable_web_page_preview=True)
    assert [message.previews_disabled for message in api.messages(anna)[1:]] == [False, True, True]
    assert [call.method for call in api.sent("https://a.example")] == ["sendMessage"]
    assert [message.text for message in api.visible("a.example")] == ["on https://a.example"]
    assert api.anywhere("a.example")
    assert not api.anywhere("b.example")


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
def test_what_people_write_has_entities_too(
    api: BotApi, anna: User, text: str, entities: list[tuple[str, str]]
) -> None:
    said = api.say(anna, text)
    assert [(entity.type, said.part(entity)) for entity in said.entities][: len(entities) or 1] == entities


def test_what_a_person_writes_is_trimmed_and_split(api: BotApi, anna: User) -> None:
    first = api.say(anna, "  " + "x" * 4096 + "y \n")
    assert [message.text for message in api.messages(anna)][1:] == ["x" * 4096, "y"]
    assert first.text == "x" * 4096


def test_nobody_does_what_telegram_does_not_let_them(api: BotApi, anna: User, ask: Asking) -> None:
    ben = api.user(8, "Ben")
    group = api.group(-1001, "Team", [anna])
    said = api.say(anna, "x", group)
    ask("sendMessage", chat_id=7, text="x", reply_markup=keyboard([{"text": "Go", "callback_data": "go"}]))
    shown = api.messages(anna)[-1]
    for impossible in (
        lambda: api.say(ben, "not started"),
        lambda: api.say(ben, "not a member", group),
        lambda: api.say(anna, " "),
        lambda: api.say(anna, "no topic", group, thread=5),
        lambda: api.edit(ben, said, "y"),
        lambda: api.delete(ben, said),
        lambda: api.press(ben, shown, "Go"),
        lambda: api.press(anna, shown, "Stop"),
        lambda: api.url_of(shown, "Go"),
        lambda: api.copied_from(shown, "Go"),
        lambda: api.start(anna, "no spaces"),
        lambda: api.open_deep_link(anna, "https://t.me/another_bot?start=x"),
        lambda: api.topic(group, "x"),
        lambda: api.group(5, "x"),
    ):
        with pytest.raises(Impossible):
            impossible()
    api.delete(anna, shown)
    with pytest.raises(Impossible):
        api.press(anna, shown, "Go")
