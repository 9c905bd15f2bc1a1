"""The Bot API endpoint refuses the same calls as the real one, with the same descriptions."""

from __future__ import annotations

import json

import httpx

from tests.parts.bot_api import BotApi, Message, User
from tests.parts_test.method_caller import Clock, MethodCaller, keyboard

HOUR = 3600.0


def test_wrong_token_is_unauthorized_and_malformed_token_is_not_found(
    api: BotApi, http: httpx.Client
) -> None:
    wrong = http.get(f"{api.base_url}{api.token[:-1]}-/getMe")
    assert (wrong.status_code, wrong.json()["description"]) == (401, "Unauthorized")
    malformed = http.get(f"{api.base_url}token/getMe")
    assert (malformed.status_code, malformed.json()["description"]) == (404, "Not Found")


def test_method_names_ignore_case_and_unknown_methods_are_not_found(call_api: MethodCaller) -> None:
    assert call_api("GETME")["result"]["is_bot"] is True
    assert call_api("sendRichMessage")["error_code"] == 404


def test_parameters_are_read_from_query_form_multipart_and_json(
    api: BotApi, anna: User, http: httpx.Client
) -> None:
    url = f"{api.base_url}{api.token}/sendMessage"
    http.get(url, params={"chat_id": 7, "text": "query"})
    http.post(url, data={"chat_id": 7, "text": "form"})
    http.post(url, json={"chat_id": 7, "text": "json"})
    http.post(url, data={"chat_id": "7", "text": "multipart"}, files={"odd": b"x"})
    assert [m.text for m in api.messages(anna)][1:] == ["query", "form", "json", "multipart"]
    assert api.unknown_parameters == ["sendMessage.odd"]


def test_bot_cannot_write_to_users_who_did_not_start_or_have_blocked_it(
    api: BotApi, anna: User, call_api: MethodCaller
) -> None:
    api.add_user(8, "Ben")
    not_started = call_api("sendMessage", chat_id=8, text="x")
    assert not_started["description"] == "Forbidden: bot can't initiate conversation with a user"
    api.block(anna)
    blocked = call_api("sendMessage", chat_id=7, text="x")
    assert (blocked["error_code"], blocked["description"]) == (403, "Forbidden: bot was blocked by the user")
    api.start(anna)
    assert call_api("sendMessage", chat_id=7, text="x")["ok"]


def test_edit_must_change_an_existing_message_of_the_bot(
    api: BotApi, anna: User, call_api: MethodCaller
) -> None:
    bot_message_id = call_api("sendMessage", chat_id=7, text="x", parse_mode="HTML")["result"]["message_id"]
    user_message = api.say(anna, "y")
    error = call_api.expect_error(
        "editMessageText", chat_id=7, message_id=bot_message_id, text="<b></b>x ", parse_mode="HTML"
    )
    assert error.startswith("message is not modified: specified new message content and reply markup")
    assert call_api.expect_error("editMessageText", chat_id=7, message_id=999, text="z").endswith(
        "message to edit not found"
    )
    assert call_api.expect_error("editMessageText", chat_id=7, text="z").endswith(
        "message identifier is not specified"
    )
    error = call_api.expect_error("editMessageText", chat_id=7, message_id=user_message.id, text="z")
    assert error == "message can't be edited"
    error = call_api.expect_error("editMessageCaption", chat_id=7, message_id=bot_message_id, caption="z")
    assert error == "there is no caption in the message to edit"
    markup = keyboard([{"text": "x", "callback_data": "x"}])
    assert call_api("editMessageReplyMarkup", chat_id=7, message_id=bot_message_id, reply_markup=markup)["ok"]
    # An edit without a keyboard removes the keyboard.
    assert call_api("editMessageText", chat_id=7, message_id=bot_message_id, text="z")["ok"]
    current = next(message for message in api.messages(anna) if message.id == bot_message_id)
    assert (current.text, current.buttons) == ("z", ())
    assert [version.text for version in api.versions(current)] == ["x", "x", "z"]


def test_messages_older_than_48_hours_cannot_be_deleted(
    api: BotApi, anna: User, clock: Clock, call_api: MethodCaller
) -> None:
    early, late = api.say(anna, "early"), api.say(anna, "late")
    clock.now += 48 * HOUR - 1
    assert call_api("deleteMessage", chat_id=7, message_id=late.id)["ok"]
    clock.now += 1
    error = call_api.expect_error("deleteMessage", chat_id=7, message_id=early.id)
    assert error == "message can't be deleted for everyone"
    error = call_api.expect_error("deleteMessage", chat_id=7, message_id=late.id)
    assert error == "message to delete not found"
    assert [message.text for message in api.deleted_messages(anna)] == ["late"]


def test_only_an_administrator_deletes_messages_of_others_in_a_group(
    api: BotApi, anna: User, clock: Clock, call_api: MethodCaller
) -> None:
    group = api.add_group(-1001, "Team", [anna])
    message = api.say(anna, "x", group)
    assert (
        call_api.expect_error("deleteMessage", chat_id=-1001, message_id=message.id)
        == "message can't be deleted"
    )
    api.set_bot_admin(group, bot_can_delete=True)
    assert call_api("deleteMessages", chat_id=-1001, message_ids=[message.id, 99])["ok"]
    assert api.messages(group) == []
    old = api.say(anna, "y", group)
    clock.now += 48 * HOUR
    assert (
        call_api.expect_error("deleteMessage", chat_id=-1001, message_id=old.id) == "message can't be deleted"
    )
    error = call_api.expect_error("deleteMessages", chat_id=-1001, message_ids=list(range(1, 102)))
    assert error == "too many message identifiers specified"


def test_callback_query_takes_one_short_answer_within_a_minute(
    api: BotApi, anna: User, clock: Clock, call_api: MethodCaller
) -> None:
    call_api(
        "sendMessage", chat_id=7, text="x", reply_markup=keyboard([{"text": "Go", "callback_data": "go"}])
    )
    message = api.messages(anna)[-1]
    first, second = api.press(anna, message, "Go"), api.press(anna, message, "go")
    too_long = call_api.expect_error("answerCallbackQuery", callback_query_id=first.id, text="x" * 201)
    assert too_long == "MESSAGE_TOO_LONG"
    assert call_api.expect_error(
        "answerCallbackQuery", callback_query_id=first.id, url="https://a.example"
    ).endswith("URL_INVALID")
    assert call_api("answerCallbackQuery", callback_query_id=first.id, text="x" * 200, show_alert=True)["ok"]
    assert first.wait_for_answer().show_alert
    too_old = "query is too old and response timeout expired or query ID is invalid"
    assert call_api.expect_error("answerCallbackQuery", callback_query_id=first.id) == f"{too_old}"
    clock.now += 61
    assert call_api.expect_error("answerCallbackQuery", callback_query_id=second.id) == f"{too_old}"


def test_topic_must_exist_and_general_topic_has_no_id(
    api: BotApi, anna: User, call_api: MethodCaller
) -> None:
    forum = api.add_group(-1002, "Forum", [anna], forum=True)
    topic = api.add_topic(forum, "Logins")
    assert call_api("sendMessage", chat_id=-1002, text="here", message_thread_id=topic)["ok"]
    assert call_api("sendMessage", chat_id=-1002, text="general")["ok"]
    assert [(m.text, m.thread) for m in api.messages(forum)][1:] == [("here", topic), ("general", None)]
    error = call_api.expect_error("sendMessage", chat_id=-1002, text="x", message_thread_id=1 + topic)
    assert error == "message thread not found"


def test_commands_are_validated_and_stored_per_scope(call_api: MethodCaller) -> None:
    connect = {"command": "connect", "description": "Connect a server"}
    private = {"type": "all_private_chats"}
    assert call_api("setMyCommands", commands=[connect], scope=private)["ok"]
    assert call_api("getMyCommands", scope=private)["result"] == [connect]
    assert call_api("getMyCommands")["result"] == []
    error = call_api.expect_error("setMyCommands", commands=[{"command": "Con-nect", "description": "x"}])
    assert error == "BOT_COMMAND_INVALID"
    assert call_api.expect_error("setMyCommands", commands=[connect] * 101) == "BOT_COMMANDS_TOO_MUCH"


def test_calls_after_logout_are_refused(call_api: MethodCaller, clock: Clock) -> None:
    assert call_api("close")["parameters"] == {"retry_after": 601}
    clock.now += 600
    assert call_api("close")["ok"]
    assert call_api("logOut")["ok"]
    assert call_api.expect_error("getMe") == "Logged out"


def test_deep_link_starts_the_bot(api: BotApi, anna: User) -> None:
    message: Message = api.open_deep_link(anna, f"https://t.me/{api.bot.username}?start=login_abc-1")
    assert message.text == "/start login_abc-1"
    assert json.loads(json.dumps([entity.json() for entity in message.entities])) == [
        {"type": "bot_command", "offset": 0, "length": 6}
    ]
