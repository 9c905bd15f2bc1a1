"""The Bot API endpoint refuses the same calls as the real one, with the same descriptions."""

from __future__ import annotations

import json

import httpx

from tests.parts.bot_api import BotApi, Message, User
from tests.parts_test.asking import Asking, Clock, keyboard

HOUR = 3600.0


def test_a_wrong_token_is_unauthorized_and_a_malformed_one_is_not_found(
    api: BotApi, http: httpx.Client
) -> None:
    wrong = http.get(f"{api.base_url}{api.token[:-1]}-/getMe")
    assert (wrong.status_code, wrong.json()["description"]) == (401, "Unauthorized")
    malformed = http.get(f"{api.base_url}token/getMe")
    assert (malformed.status_code, malformed.json()["description"]) == (404, "Not Found")


def test_a_method_is_found_in_any_case_and_an_unknown_one_is_not(ask: Asking) -> None:
    assert ask("GETME")["result"]["is_bot"] is True
    assert ask("sendRichMessage")["error_code"] == 404


def test_parameters_come_by_query_form_multipart_or_json(api: BotApi, anna: User, http: httpx.Client) -> None:
    url = f"{api.base_url}{api.token}/sendMessage"
    http.get(url, params={"chat_id": 7, "text": "query"})
    http.post(url, data={"chat_id": 7, "text": "form"})
    http.post(url, json={"chat_id": 7, "text": "json"})
    http.post(url, data={"chat_id": "7", "text": "multipart"}, files={"odd": b"x"})
    assert [m.text for m in api.messages(anna)][1:] == ["query", "form", "json", "multipart"]
    assert api.unknown_parameters == ["sendMessage.odd"]


def test_nobody_hears_from_a_bot_whom_they_did_not_start_or_have_blocked(
    api: BotApi, anna: User, ask: Asking
) -> None:
    api.user(8, "Ben")
    never = ask("sendMessage", chat_id=8, text="x")
    assert never["description"] == "Forbidden: bot can't initiate conversation with a user"
    api.block(anna)
    blocked = ask("sendMessage", chat_id=7, text="x")
    assert (blocked["error_code"], blocked["description"]) == (403, "Forbidden: bot was blocked by the user")
    api.start(anna)
    assert ask("sendMessage", chat_id=7, text="x")["ok"]


def test_an_edit_must_change_an_own_message_that_is_there(api: BotApi, anna: User, ask: Asking) -> None:
    mine = ask("sendMessage", chat_id=7, text="x", parse_mode="HTML")["result"]["message_id"]
    theirs = api.say(anna, "y")
    said = ask.refused("editMessageText", chat_id=7, message_id=mine, text="<b></b>x ", parse_mode="HTML")
    assert said.startswith("message is not modified: specified new message content and reply markup")
    assert ask.refused("editMessageText", chat_id=7, message_id=999, text="z").endswith(
        "message to edit not found"
    )
    assert ask.refused("editMessageText", chat_id=7, text="z").endswith("message identifier is not specified")
    said = ask.refused("editMessageText", chat_id=7, message_id=theirs.id, text="z")
    assert said == "message can't be edited"
    said = ask.refused("editMessageCaption", chat_id=7, message_id=mine, caption="z")
    assert said == "there is no caption in the message to edit"
    markup = keyboard([{"text": "x", "callback_data": "x"}])
    assert ask("editMessageReplyMarkup", chat_id=7, message_id=mine, reply_markup=markup)["ok"]
    # An edit without a keyboard removes the keyboard.
    assert ask("editMessageText", chat_id=7, message_id=mine, text="z")["ok"]
    standing = next(message for message in api.messages(anna) if message.id == mine)
    assert (standing.text, standing.buttons) == ("z", ())
    assert [version.text for version in api.versions(standing)] == ["x", "x", "z"]


def test_what_is_48_hours_old_stays(api: BotApi, anna: User, clock: Clock, ask: Asking) -> None:
    early, late = api.say(anna, "early"), api.say(anna, "late")
    clock.now += 48 * HOUR - 1
    assert ask("deleteMessage", chat_id=7, message_id=late.id)["ok"]
    clock.now += 1
    said = ask.refused("deleteMessage", chat_id=7, message_id=early.id)
    assert said == "message can't be deleted for everyone"
    said = ask.refused("deleteMessage", chat_id=7, message_id=late.id)
    assert said == "message to delete not found"
    assert [message.text for message in api.deleted(anna)] == ["late"]


def test_in_a_group_only_an_administrator_deletes_what_others_wrote(
    api: BotApi, anna: User, clock: Clock, ask: Asking
) -> None:
    group = api.group(-1001, "Team", [anna])
    said = api.say(anna, "x", group)
    assert ask.refused("deleteMessage", chat_id=-1001, message_id=said.id) == "message can't be deleted"
    api.promote(group, bot_can_delete=True)
    assert ask("deleteMessages", chat_id=-1001, message_ids=[said.id, 99])["ok"]
    assert api.messages(group) == []
    old = api.say(anna, "y", group)
    clock.now += 48 * HOUR
    assert ask.refused("deleteMessage", chat_id=-1001, message_id=old.id) == "message can't be deleted"
    said_of_many = ask.refused("deleteMessages", chat_id=-1001, message_ids=list(range(1, 102)))
    assert said_of_many == "too many message identifiers specified"


def test_a_callback_query_is_answered_once_soon_and_shortly(
    api: BotApi, anna: User, clock: Clock, ask: Asking
) -> None:
    ask("sendMessage", chat_id=7, text="x", reply_markup=keyboard([{"text": "Go", "callback_data": "go"}]))
    shown = api.messages(anna)[-1]
    first, second = api.press(anna, shown, "Go"), api.press(anna, shown, "go")
    too_long = ask.refused("answerCallbackQuery", callback_query_id=first.id, text="x" * 201)
    assert too_long == "MESSAGE_TOO_LONG"
    assert ask.refused("answerCallbackQuery", callback_query_id=first.id, url="https://a.example").endswith(
        "URL_INVALID"
    )
    assert ask("answerCallbackQuery", callback_query_id=first.id, text="x" * 200, show_alert=True)["ok"]
    assert first.answered().show_alert
    too_old = "query is too old and response timeout expired or query ID is invalid"
    assert ask.refused("answerCallbackQuery", callback_query_id=first.id) == f"{too_old}"
    clock.now += 61
    assert ask.refused("answerCallbackQuery", callback_query_id=second.id) == f"{too_old}"


def test_a_topic_must_exist_and_the_general_one_has_no_number(api: BotApi, anna: User, ask: Asking) -> None:
    forum = api.group(-1002, "Forum", [anna], forum=True)
    topic = api.topic(forum, "Logins")
    assert ask("sendMessage", chat_id=-1002, text="here", message_thread_id=topic)["ok"]
    assert ask("sendMessage", chat_id=-1002, text="general")["ok"]
    assert [(m.text, m.thread) for m in api.messages(forum)][1:] == [("here", topic), ("general", None)]
    said = ask.refused("sendMessage", chat_id=-1002, text="x", message_thread_id=1 + topic)
    assert said == "message thread not found"


def test_commands_are_checked_and_kept_per_scope(ask: Asking) -> None:
    connect = {"command": "connect", "description": "Connect a server"}
    private = {"type": "all_private_chats"}
    assert ask("setMyCommands", commands=[connect], scope=private)["ok"]
    assert ask("getMyCommands", scope=private)["result"] == [connect]
    assert ask("getMyCommands")["result"] == []
    said = ask.refused("setMyCommands", commands=[{"command": "Con-nect", "description": "x"}])
    assert said == "BOT_COMMAND_INVALID"
    assert ask.refused("setMyCommands", commands=[connect] * 101) == "BOT_COMMANDS_TOO_MUCH"


def test_a_bot_that_logged_out_is_gone(ask: Asking, clock: Clock) -> None:
    assert ask("close")["parameters"] == {"retry_after": 601}
    clock.now += 600
    assert ask("close")["ok"]
    assert ask("logOut")["ok"]
    assert ask.refused("getMe") == "Logged out"


def test_a_deep_link_starts_the_bot(api: BotApi, anna: User) -> None:
    message: Message = api.open_deep_link(anna, f"https://t.me/{api.bot.username}?start=login_abc-1")
    assert message.text == "/start login_abc-1"
    assert json.loads(json.dumps([entity.json() for entity in message.entities])) == [
        {"type": "bot_command", "offset": 0, "length": 6}
    ]
