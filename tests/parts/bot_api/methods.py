"""The methods of the Bot API: each changes the state and returns a result."""

from __future__ import annotations

from collections.abc import Callable

from tests.parts.bot_api.limits import COMMANDS
from tests.parts.bot_api.messages import EDITING
from tests.parts.bot_api.parameters import Parameters
from tests.parts.bot_api.reading import chat_of
from tests.parts.bot_api.sending import SENDING
from tests.parts.bot_api.values import Chat, Json, Refused, User, bad_request
from tests.parts.bot_api.world import World

Method = Callable[[World, Parameters], object]

# https://core.telegram.org/bots/api#close
CLOSE_SECONDS = 600


def get_me(world: World, parameters: Parameters) -> object:
    return world.bot.json() | {
        "can_join_groups": True,
        "can_read_all_group_messages": not world.privacy_mode,
        "supports_inline_queries": False,
        "can_connect_to_business": False,
        "has_main_web_app": False,
    }


def get_chat(world: World, parameters: Parameters) -> object:
    chat = chat_of(world, parameters)
    return chat.json() | {"accent_color_id": 0, "max_reaction_count": 11, "accepted_gift_types": GIFTS}


GIFTS: Json = {
    "unlimited_gifts": True,
    "limited_gifts": True,
    "unique_gifts": True,
    "premium_subscription": True,
    "gifts_from_channels": True,
}


def get_chat_member(world: World, parameters: Parameters) -> object:
    chat = chat_of(world, parameters)
    return member_json(world, chat, parameters.integer("user_id"))


def member_json(world: World, chat: Chat, user_id: int) -> Json:
    """Return a ChatMember; raise ApiError for an unknown user."""
    user = world.bot if user_id == world.bot.id else chat.members.get(user_id)
    if user is None:
        known = world.chats.get(user_id)
        if known is None or known.type != "private":
            raise bad_request("member not found")
        return {"user": known.person.json(), "status": "left"}
    if user is world.bot and chat.bot_can_delete:
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
    shown: Json = {"user": user.json(), "status": "administrator", **rights}
    return shown | {"can_manage_chat": True, "can_delete_messages": True}


def get_chat_administrators(world: World, parameters: Parameters) -> object:
    chat = chat_of(world, parameters)
    return [administrator_json(world.bot)] if chat.bot_can_delete else []


def get_file(world: World, parameters: Parameters) -> object:
    file = world.files.get(parameters.text("file_id"))
    if file is None:
        raise bad_request("wrong file_id or the file is temporarily unavailable")
    return {
        "file_id": file.id,
        "file_unique_id": file.unique_id,
        "file_size": len(file.data),
        "file_path": file.path,
    }


def _scope(parameters: Parameters) -> str:
    scope = parameters.json_object("scope") or {"type": "default"}
    named = ":".join(str(scope[name]) for name in ("type", "chat_id", "user_id") if name in scope)
    return f"{named}/{parameters.text('language_code')}"


def set_my_commands(world: World, parameters: Parameters) -> object:
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
    world.commands[_scope(parameters)] = commands
    return True


def get_my_commands(world: World, parameters: Parameters) -> object:
    return world.commands.get(_scope(parameters), [])


def delete_my_commands(world: World, parameters: Parameters) -> object:
    world.commands.pop(_scope(parameters), None)
    return True


def nothing(world: World, parameters: Parameters) -> object:
    """Accept a call that changes nothing visible in a chat."""
    return True


def log_out(world: World, parameters: Parameters) -> object:
    world.logged_out = True
    return True


def close(world: World, parameters: Parameters) -> object:
    left = world.started_at + CLOSE_SECONDS - world.clock()
    if left > 0:
        raise Refused(429, f"Too Many Requests: retry after {int(left) + 1}", retry_after=int(left) + 1)
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
    "setMyDescription": nothing,
    "setMyShortDescription": nothing,
    "setMyName": nothing,
    "setChatMenuButton": nothing,
    "logOut": log_out,
    "close": close,
    **SENDING,
    **EDITING,
}
