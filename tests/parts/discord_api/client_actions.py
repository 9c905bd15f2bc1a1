"""Actions of a user in a Discord client. They raise NotOffered if the client would not allow the action."""

from __future__ import annotations

import re
from typing import Any

from .components import MENUS, walk_components
from .entities import SEND_MESSAGES, USE_APPLICATION_COMMANDS, Channel, Json, User
from .interactions import AUTOCOMPLETE, COMMAND, COMPONENT, SUBMIT
from .limits import CONTENT_CHARACTERS
from .messages import Interaction, Message, Modal
from .payloads import message_payload
from .state import State

MAX_FILES = 10
# Discord replaces all other characters with "_".
FILE_NAME = re.compile(r"[\w.()-]{1,255}", re.ASCII)


class NotOffered(AssertionError):
    """The Discord client does not show this element to the user, or the element is disabled."""


def find_command(state: State, user: User, channel: Channel, name: str) -> Json:
    """Return the command of a name; raise NotOffered if the client does not offer it in the channel."""
    scopes = [scope for key, scope in state.commands.items() if key in {None, channel.guild_id}]
    for scope in reversed(scopes):
        for command in scope.commands:
            if command["name"] == name and command["type"] == 1:
                _check_offered(state, user, channel, command)
                return command
    raise NotOffered(f"No command /{name} in #{channel.name}")


def _check_offered(state: State, user: User, channel: Channel, command: Json) -> None:
    context = 1 if channel.guild_id is None else 0
    contexts = command["contexts"]
    if contexts is None:
        contexts = [0, 1] if command["dm_permission"] else [0]
    if context not in contexts or (context == 1 and "guild_id" in command):
        raise NotOffered(f"/{command['name']} is not offered in this channel")
    if not state.can_see(user.id, channel):
        raise NotOffered(f"{user.name} is not in #{channel.name}")
    if channel.guild_id is not None:
        permissions = state.guilds[channel.guild_id].permissions(user.id)
        needed = int(command["default_member_permissions"] or 0)
        if not permissions & USE_APPLICATION_COMMANDS or permissions & needed != needed:
            raise NotOffered(f"/{command['name']} is not offered to {user.name}")


def command_data(
    state: State, channel: Channel, command: Json, subcommands: list[str], options: Json
) -> Json:
    """Return the interaction data of a command with its subcommands and filled options."""
    resolved: Json = {}
    filled_options = _fill_options(
        state, channel, command.get("options") or [], subcommands, options, resolved
    )
    data: Json = {"id": command["id"], "name": command["name"], "type": 1}
    if filled_options:
        data["options"] = filled_options
    if resolved:
        data["resolved"] = resolved
    if "guild_id" in command:
        data["guild_id"] = command["guild_id"]
    return data


def _fill_options(
    state: State,
    channel: Channel,
    definitions: list[Json],
    subcommands: list[str],
    values: Json,
    resolved: Json,
) -> list[Json]:
    if subcommands:
        for option in definitions:
            if option["name"] == subcommands[0] and option["type"] in {1, 2}:
                inner = _fill_options(
                    state, channel, option.get("options") or [], subcommands[1:], values, resolved
                )
                return [{"name": option["name"], "type": option["type"], "options": inner}]
        raise NotOffered(f"No subcommand {subcommands[0]}")
    names = {option["name"] for option in definitions}
    if unknown := set(values) - names:
        raise NotOffered(f"No option {sorted(unknown)}; there are {sorted(names)}")
    filled_options: list[Json] = []
    for option in definitions:
        if option["name"] not in values:
            if option.get("required"):
                raise NotOffered(f"{option['name']} must be filled in")
            continue
        value = values[option["name"]]
        if isinstance(value, User):
            resolved.setdefault("users", {})[value.id] = value.payload()
            if channel.guild_id is not None and value.id in state.guilds[channel.guild_id].members:
                member = state.guilds[channel.guild_id].member_payload(value, with_user=False)
                resolved.setdefault("members", {})[value.id] = {**member, "permissions": "0"}
            value = value.id
        _check_value(option, value)
        filled_options.append({"name": option["name"], "type": option["type"], "value": value})
    return filled_options


def _check_value(option: Json, value: object) -> None:
    kinds: dict[int, Any] = {3: str, 4: int, 5: bool, 10: int | float}
    if not isinstance(value, kinds.get(option["type"], str)):
        raise NotOffered(f"{option['name']} has the wrong type")
    choices = [choice["value"] for choice in option.get("choices") or []]
    if choices and value not in choices:
        raise NotOffered(f"{option['name']} is not one of {choices}")
    if isinstance(value, str):
        low, high = option.get("min_length") or 0, option.get("max_length") or 6000
        if not low <= len(value) <= high:
            raise NotOffered(f"{option['name']} is too short or too long")


def send_command(state: State, user: User, channel: Channel, name: str, options: Json) -> Interaction:
    """Send a slash command. The name may include subcommands, separated by spaces."""
    first, *subcommands = name.split()
    command = find_command(state, user, channel, first)
    data = command_data(state, channel, command, subcommands, options)
    return state.create_interaction(COMMAND, user, channel, data)


def type_option(
    state: State, user: User, channel: Channel, name: str, option: str, text: str, other_options: Json
) -> Interaction:
    """Type into an option that has autocomplete."""
    first, *subcommands = name.split()
    command = find_command(state, user, channel, first)
    optional_command = _with_optional_options(command)
    data = command_data(state, channel, optional_command, subcommands, {**other_options, option: text})
    innermost = data["options"]
    while innermost and innermost[0]["type"] in {1, 2}:
        innermost = innermost[0]["options"]
    for option_value in innermost:
        if option_value["name"] == option:
            option_value["focused"] = True
    definitions = command.get("options") or []
    for subcommand in subcommands:
        definitions = next(one for one in definitions if one["name"] == subcommand).get("options") or []
    if not next(one for one in definitions if one["name"] == option).get("autocomplete"):
        raise NotOffered(f"{option} has no autocomplete")
    return state.create_interaction(AUTOCOMPLETE, user, channel, data)


def _with_optional_options(command: Json) -> Json:
    options = [
        {**_with_optional_options(option), "required": False} for option in command.get("options") or []
    ]
    return {**command, "options": options}


def visible_message(state: State, user: User, message_id: str) -> Message:
    """Return the current message; raise NotOffered if the user does not see it."""
    message = state.messages[message_id]
    channel = state.channels[message.channel_id]
    if message not in state.visible_messages(channel.id, user.id):
        raise NotOffered(f"{user.name} does not see that message")
    return message


def find_button(message: Message, label_or_custom_id: str) -> Json:
    for button in message.buttons:
        if label_or_custom_id in {button.get("label"), button.get("custom_id")}:
            return button
    raise NotOffered(f"No button {label_or_custom_id!r}; there are {message.labels}")


def press(state: State, user: User, message_id: str, label_or_custom_id: str) -> Interaction:
    """Press a button. Every user who sees the message may press it."""
    message = visible_message(state, user, message_id)
    button = find_button(message, label_or_custom_id)
    if button.get("disabled") or "custom_id" not in button:
        raise NotOffered(f"{button.get('label')} is a link, or disabled")
    data = {"custom_id": button["custom_id"], "component_type": 2, "id": button["id"]}
    return state.create_interaction(
        COMPONENT, user, state.channels[message.channel_id], data, message=message
    )


def choose(state: State, user: User, message_id: str, custom_id: str, values: list[str]) -> Interaction:
    """Choose from a menu of a message, by values or labels."""
    message = visible_message(state, user, message_id)
    menus = [part for part in walk_components(message.components) if part["type"] in MENUS]
    menu = next((one for one in menus if one["custom_id"] == custom_id), None)
    if menu is None or menu.get("disabled"):
        raise NotOffered(f"No menu {custom_id}")
    options = menu.get("options") or []
    chosen = [one["value"] for one in options if {one["value"], one["label"]} & set(values)]
    if not menu.get("min_values", 1) <= len(chosen) <= menu.get("max_values", 1):
        raise NotOffered(f"{values} cannot be chosen")
    data: Json = {"custom_id": custom_id, "component_type": menu["type"], "id": menu["id"], "values": chosen}
    return state.create_interaction(
        COMPONENT, user, state.channels[message.channel_id], data, message=message
    )


def submit_modal(state: State, modal: Modal, texts: dict[str, str]) -> Interaction:
    """Fill in a modal, by labels or custom ids, and submit it. Other fields keep their values."""
    if modal.submitted or modal not in state.modals:
        raise NotOffered("That modal is closed")
    field_names = {one["shown_label"] for one in modal.inputs} | {one["custom_id"] for one in modal.inputs}
    if unknown := set(texts) - field_names:
        raise NotOffered(f"No field {sorted(unknown)}; there are {sorted(field_names)}")
    components: list[Json] = []
    for component in modal.components:
        base = {"type": component["type"], "id": component["id"]}
        if component["type"] == 18:
            field = {**component["component"], "shown_label": component["label"]}
            components.append({**base, "component": _fill_field(field, texts)})
        elif component["type"] == 1:
            text_input = component["components"][0]
            field = {**text_input, "shown_label": text_input["label"]}
            components.append({**base, "components": [_fill_field(field, texts)]})
        else:
            components.append(base)
    modal.submitted = True
    opener = modal.interaction
    data = {"custom_id": modal.custom_id, "components": components}
    channel = state.channels[opener.channel_id]
    return state.create_interaction(
        SUBMIT, modal.user, channel, data, message=opener.message, opened_by=opener
    )


def _fill_field(field: Json, texts: dict[str, str]) -> Json:
    value = texts.get(field["custom_id"], texts.get(field["shown_label"], field.get("value") or ""))
    filled = {"type": field["type"], "id": field["id"], "custom_id": field["custom_id"]}
    if field["type"] != 4:
        return {**filled, "values": [value] if value else []}
    low, high = field.get("min_length") or 0, field.get("max_length") or 4000
    needed = field.get("required", True)
    if (needed and not value) or len(value) > high or (value and len(value) < low):
        raise NotOffered(f"{field['shown_label']} is empty, too short or too long")
    return {**filled, "value": value}


def send_message(
    state: State,
    user: User,
    channel: Channel,
    text: str,
    *,
    reply_to: str | None = None,
    files: list[tuple[str, bytes]] | None = None,
    extra_fields: Json | None = None,
) -> Message:
    """Send a message, optionally as a reply, with files, or with fields such as a poll."""
    if not (text.strip() or files or extra_fields) or len(text) > CONTENT_CHARACTERS:
        raise NotOffered("The message is empty or too long")
    if len(files or []) > MAX_FILES or any(not FILE_NAME.fullmatch(name) for name, _ in files or []):
        raise NotOffered("There are too many files, or Discord would change a file name")
    if not state.can_see(user.id, channel):
        raise NotOffered(f"{user.name} is not in #{channel.name}")
    if (
        channel.guild_id is not None
        and not state.guilds[channel.guild_id].permissions(user.id) & SEND_MESSAGES
    ):
        raise NotOffered(f"{user.name} may not send messages to #{channel.name}")
    body: Json = {"content": text}
    if reply_to is not None:
        visible_message(state, user, reply_to)
        body["message_reference"] = {"message_id": reply_to}
    return state.create_message(channel, user, body, files or [], extra_fields=extra_fields)


def poll_fields(question: str, answers: list[str]) -> Json:
    """Return the fields of a poll: a question of up to 300 characters, answers of up to 55."""
    if not 1 <= len(question) <= 300 or not 1 <= len(answers) <= 10 or max(map(len, answers)) > 55:
        raise NotOffered("The client does not allow such a poll")
    listed = [
        {"answer_id": number, "poll_media": {"text": answer}} for number, answer in enumerate(answers, 1)
    ]
    results = {"is_finalized": False, "answer_counts": []}
    return {
        "poll": {
            "question": {"text": question},
            "answers": listed,
            "expiry": "2030-01-01T00:00:00+00:00",
            "allow_multiselect": False,
            "layout_type": 1,
            "results": results,
        }
    }


def forward_fields(state: State, user: User, message_id: str) -> Json:
    """Return the fields of a message that forwards a message visible to the user."""
    original = visible_message(state, user, message_id)
    field_names = (
        "type",
        "content",
        "embeds",
        "attachments",
        "timestamp",
        "edited_timestamp",
        "flags",
        "components",
    )
    payload = message_payload(state, original)
    return {
        "message_reference": {"type": 1, "channel_id": original.channel_id, "message_id": original.id},
        "message_snapshots": [{"message": {name: payload[name] for name in field_names} | {"mentions": []}}],
    }


def edit_message(state: State, user: User, message_id: str, text: str) -> Message:
    """Edit the text of the user's own message."""
    message = visible_message(state, user, message_id)
    if message.author != user or len(text) > CONTENT_CHARACTERS:
        raise NotOffered(f"{user.name} is not the author, or the text is too long")
    return state.edit_message(message, {"content": text})
