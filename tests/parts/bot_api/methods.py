"""The methods of the Bot API: each changes the state and returns a result."""

from __future__ import annotations

from collections.abc import Callable

from tests.parts.bot_api.edit_methods import EDIT_METHODS
from tests.parts.bot_api.limits import COMMANDS
from tests.parts.bot_api.lookups import chat_of
from tests.parts.bot_api.parameters import Parameters
from tests.parts.bot_api.send_methods import SEND_METHODS
from tests.parts.bot_api.state import BotApiState
from tests.parts.bot_api.values import ApiError, Chat, Json, User, bad_request

Method = Callable[[BotApiState, Parameters], object]

# https://core.telegram.org/bots/api#close
CLOSE_SECONDS = 600


def get_me(state: BotApiState, parameters: Parameters) -> object:
    return state.bot.json() | {
        "can_join_groups": True,
        "can_read_all_group_messages": not state.privacy_mode,
        "supports_inline_queries": False,
        "can_connect_to_business": False,
        "has_main_web_app": False,
    }


def get_chat(state: BotApiState, parameters: Parameters) -> object:
    chat = chat_of(state, parameters)
    return chat.json() | {"accent_color_id": 0, "max_reaction_count": 11, "accepted_gift_types": GIFTS}


GIFTS: Json = {
    "unlimited_gifts": True,
    "limited_gifts": True,
    "unique_gifts": True,
    "premium_subscription": True,
    "gifts_from_channels": True,
}


def get_chat_member(state: BotApiState, parameters: Parameters) -> object:
    chat = chat_of(state, parameters)
    return member_json(state, chat, parameters.integer("user_id"))


def member_json(state: BotApiState, chat: Chat, user_id: int) -> Json:
    """Return a ChatMember; raise ApiError for an unknown user."""
    user = state.bot if user_id == state.bot.id else chat.members.get(user_id)
    if user is None:
        private_chat = state.chats.get(user_id)
        if private_chat is None or private_chat.type != "private":
            raise bad_request("member not found")
        return {"user": private_chat.user.json(), "status": "left"}
    if user is state.bot and chat.bot_can_delete:
        return administrator_json(user)
    return {"user": user.json(), "status": "member"}


def administrator_json(user: User) -> Json:
    rights = dict.fromkeys(
        (
            "can_be_edited",
            "is_anonymous",
            "can_manage_video_chats",
            "can_restrict_members",
            "can_promote_members",
            "can_change_info",
            "can_invite_users",
            "can_post_stories",
            "can_edit_stories",
            "can_delete_stories",
            "can_pin_messages",
            "can_manage_topics",
        ),
        False,
    )
    document: Json = {"user": user.json(), "status": "administrator", **rights}
    return document | {"can_manage_chat": True, "can_delete_messages": True}


def get_chat_administrators(state: BotApiState, parameters: Parameters) -> object:
    chat = chat_of(state, parameters)
    return [administrator_json(state.bot)] if chat.bot_can_delete else []


def get_file(state: BotApiState, parameters: Parameters) -> object:
    file = state.files.get(parameters.text("file_id"))
    if file is None:
        raise bad_request("wrong file_id or the file is temporarily unavailable")
    return {
        "file_id": file.id,
        "file_unique_id": file.unique_id,
        "file_size": len(file.data),
        "file_path": file.path,
    }


def _scope_key(parameters: Parameters) -> str:
    scope = parameters.json_object("scope") or {"type": "default"}
    scope_name = ":".join(str(scope[name]) for name in ("type", "chat_id", "user_id") if name in scope)
    return f"{scope_name}/{parameters.text('language_code')}"


def set_my_commands(state: BotApiState, parameters: Parameters) -> object:
    commands = parameters.json_array("commands") or []
    if len(commands) > COMMANDS:
        raise bad_request("BOT_COMMANDS_TOO_MUCH")
    for command in commands:
        if not isinstance(command, dict) or not isinstance(command.get("command"), str):
            raise bad_request("can't parse BotCommand: expected an Object")
        name = command["command"].removeprefix("/")
        if not (1 <= len(name) <= 32 and name.isascii() and name.replace("_", "a").isalnum()):
            raise bad_request("BOT_COMMAND_INVALID")
        if name != name.lower():
            raise bad_request("BOT_COMMAND_INVALID")
        if not 1 <= len(str(command.get("description", ""))) <= 256:
            raise bad_request("BOT_COMMAND_DESCRIPTION_INVALID")
    state.commands[_scope_key(parameters)] = commands
    return True


def get_my_commands(state: BotApiState, parameters: Parameters) -> object:
    return state.commands.get(_scope_key(parameters), [])


def delete_my_commands(state: BotApiState, parameters: Parameters) -> object:
    state.commands.pop(_scope_key(parameters), None)
    return True


def accept_without_effect(state: BotApiState, parameters: Parameters) -> object:
    """Accept a call that changes nothing visible in a chat."""
    return True


def log_out(state: BotApiState, parameters: Parameters) -> object:
    state.is_logged_out = True
    return True


def close(state: BotApiState, parameters: Parameters) -> object:
    seconds_left = state.started_at + CLOSE_SECONDS - state.clock()
    if seconds_left > 0:
        raise ApiError(
            429, f"Too Many Requests: retry after {int(seconds_left) + 1}", retry_after=int(seconds_left) + 1
        )
    return True


METHODS: dict[str, Method] = {
    "getMe": get_me,
    "getChat": get_chat,
    "getChatMember": get_chat_member,
    "getChatAdministrators": get_chat_administrators,
    "getFile": get_file,
    "setMyCommands": set_my_commands,
    "getMyCommands": get_my_commands,
    "deleteMyCommands": delete_my_commands,
    "setMyDescription": accept_without_effect,
    "setMyShortDescription": accept_without_effect,
    "setMyName": accept_without_effect,
    "setChatMenuButton": accept_without_effect,
    "logOut": log_out,
    "close": close,
    **SEND_METHODS,
    **EDIT_METHODS,
}
