"""Application commands: validation, registration, and a count of the changes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .form_errors import ApiError, FormErrors, Path, api_error

# Lower-case letters and digits of any script, `-`, `_` and `'`.
NAME_PATTERN = re.compile(r"^[-_'\w]{1,32}$")
SUBCOMMAND, GROUP, STRING, INTEGER, NUMBER = 1, 2, 3, 4, 10
PLAIN_OPTIONS = (3, 4, 5, 6, 7, 8, 9, 10, 11)


@dataclass(slots=True)
class CommandScope:
    """The commands of one scope: global or a guild. `change_count` counts successful changes."""

    application_id: str
    guild_id: str | None = None
    commands: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    change_count: int = 0
    # The number of times the whole list was overwritten.
    overwrite_count: int = 0

    def overwrite(self, bodies: object, new_id: Callable[[], str]) -> list[dict[str, Any]]:
        """Replace all commands. A command of the same name and type keeps its id. Raises ApiError."""
        if not isinstance(bodies, list):
            raise api_error(50109)
        form = FormErrors()
        for index, body in enumerate(bodies):
            check_command(form, (index,), body)
        form.raise_errors()
        if len([body for body in bodies if body.get("type", 1) == 1]) > 100:
            raise api_error(30032)
        keys = [(body["name"], body.get("type", 1)) for body in bodies]
        if len(set(keys)) < len(keys):
            form.add((), "APPLICATION_COMMANDS_DUPLICATE_NAME", "Application command names must be unique")
            form.raise_errors()
        self.commands = [self._to_stored(body, new_id()) for body in bodies]
        self.overwrite_count += 1
        self.change_count += 1
        return self.commands

    def upsert(self, body: dict[str, Any], new_id: str) -> tuple[int, dict[str, Any]]:
        """Add a command (201), or replace the command with the same name (200). Raises ApiError."""
        form = FormErrors()
        check_command(form, (), body)
        form.raise_errors()
        stored = self._to_stored(body, new_id)
        others = [command for command in self.commands if command["id"] != stored["id"]]
        if len(others) >= 100:
            raise api_error(30032)
        status = 201 if len(others) == len(self.commands) else 200
        self.commands = [*others, stored]
        self.change_count += 1
        return status, stored

    def get(self, command_id: str) -> dict[str, Any]:
        for command in self.commands:
            if command["id"] == command_id:
                return command
        raise api_error(10063)

    def edit(self, command_id: str, body: dict[str, Any], new_id: str) -> dict[str, Any]:
        old = self.get(command_id)
        merged = {**old, **body}
        form = FormErrors()
        check_command(form, (), merged)
        form.raise_errors()
        new = {**self._to_stored(merged, new_id), "id": command_id}
        self.commands = [new if command is old else command for command in self.commands]
        self.change_count += 1
        return new

    def delete(self, command_id: str) -> None:
        deleted = self.get(command_id)
        self.commands = [command for command in self.commands if command is not deleted]
        self.change_count += 1

    def _to_stored(self, body: dict[str, Any], new_id: str) -> dict[str, Any]:
        existing_ids = [
            old["id"]
            for old in self.commands
            if (old["name"], old["type"]) == (body["name"], body.get("type", 1))
        ]
        return {
            "description": "",
            "options": [],
            "default_member_permissions": None,
            "dm_permission": True,
            "nsfw": False,
            "contexts": None,
            "integration_types": [0],
            "type": 1,
            **{name: value for name, value in body.items() if value is not None},
            "id": existing_ids[0] if existing_ids else new_id,
            "application_id": self.application_id,
            **({"guild_id": self.guild_id} if self.guild_id else {}),
            "version": new_id,
        }


def check_command(form: FormErrors, path: Path, body: object) -> None:
    """Check the body of a command that the bot registers."""
    if not isinstance(body, dict):
        raise ApiError(400, {"message": "Invalid Form Body", "code": 50035})
    kind = body.get("type", 1)
    form.check_choice((*path, "type"), kind, (1, 2, 3, 4))
    if kind == 1:
        _check_name(form, (*path, "name"), body.get("name"))
        form.check_text((*path, "description"), body.get("description"), 1, 100, required=True)
        _check_options(form, (*path, "options"), body.get("options") or [], depth=0)
    else:
        form.check_text((*path, "name"), body.get("name"), 1, 32, required=True)
    for name, allowed in (("contexts", (0, 1, 2)), ("integration_types", (0, 1))):
        for index, value in enumerate(form.check_list((*path, name), body.get(name) or [], 0, len(allowed))):
            form.check_choice((*path, name, index), value, allowed)
    permissions = body.get("default_member_permissions")
    if permissions is not None and not str(permissions).isdigit():
        form.add((*path, "default_member_permissions"), "STRING_TYPE_REGEX", "String value did not match.")
    # The texts of a command in one language may have 8000 characters in total.
    if _count_characters(body) > 8000:
        text = "Command exceeds maximum size (8000)"
        form.add(path, "APPLICATION_COMMAND_TOO_LARGE", text)


def _check_name(form: FormErrors, path: Path, name: object) -> None:
    if not form.check_text(path, name, 1, 32, required=True) or not isinstance(name, str):
        return
    if not NAME_PATTERN.match(name) or name != name.lower():
        text = f'Command name is invalid: "{name}"'
        form.add(path, "APPLICATION_COMMAND_INVALID_NAME", text)


def _check_options(form: FormErrors, path: Path, options: object, depth: int) -> None:
    names: set[str] = set()
    has_optional = False
    allowed = ((SUBCOMMAND, GROUP, *PLAIN_OPTIONS), (SUBCOMMAND,), PLAIN_OPTIONS)[depth]
    for index, option in enumerate(form.check_list(path, options, 0, 25)):
        option_path = (*path, index)
        kind = option.get("type")
        form.check_choice((*option_path, "type"), kind, allowed)
        _check_name(form, (*option_path, "name"), option.get("name"))
        form.check_text((*option_path, "description"), option.get("description"), 1, 100, required=True)
        if option.get("name") in names:
            text = "Option names must be unique"
            form.add((*option_path, "name"), "APPLICATION_COMMAND_OPTIONS_NAME_DUPLICATE", text)
        names.add(option.get("name"))
        if kind in {SUBCOMMAND, GROUP}:
            inner_depth = 1 if kind == GROUP else 2
            _check_options(form, (*option_path, "options"), option.get("options") or [], inner_depth)
            continue
        if option.get("required") and has_optional:
            text = "Required options must be placed before non-required options"
            form.add((*option_path, "required"), "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID", text)
        has_optional = has_optional or not option.get("required")
        _check_option_choices(form, option_path, option)


def _check_option_choices(form: FormErrors, path: Path, option: dict[str, Any]) -> None:
    kind, choices = option.get("type"), option.get("choices") or []
    if option.get("autocomplete") and (choices or kind not in {STRING, INTEGER, NUMBER}):
        text = "Autocomplete cannot be set here"
        form.add((*path, "autocomplete"), "APPLICATION_COMMAND_AUTOCOMPLETE_INVALID", text)
    check_choices(form, (*path, "choices"), choices, kind)


def check_choices(form: FormErrors, path: Path, choices: object, kind: object) -> None:
    """Check the choices of an option or of an autocomplete response: at most 25."""
    for index, choice in enumerate(form.check_list(path, choices, 0, 25)):
        form.check_text((*path, index, "name"), choice.get("name"), 1, 100, required=True)
        if kind == STRING:
            form.check_text((*path, index, "value"), choice.get("value"), 0, 100, required=True)
        elif not isinstance(choice.get("value"), int | float):
            form.add((*path, index, "value"), "NUMBER_TYPE_COERCE", "Value is not a number.")


def _count_characters(body: dict[str, Any]) -> int:
    own_count = sum(len(body[name]) for name in ("name", "description") if isinstance(body.get(name), str))
    choice_count = sum(
        len(str(choice.get("name", ""))) + len(str(choice.get("value", "")))
        for choice in body.get("choices") or []
    )
    return own_count + choice_count + sum(_count_characters(option) for option in body.get("options") or [])
