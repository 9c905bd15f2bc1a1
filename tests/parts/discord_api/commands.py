"""Application commands: validation, registration, and a count of the changes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .form import Form, Path, Refused, refused

# Lower-case letters and digits of any script, `-`, `_` and `'`.
NAME = re.compile(r"^[-_'\w]{1,32}$")
SUBCOMMAND, GROUP, STRING, INTEGER, NUMBER = 1, 2, 3, 4, 10
PLAIN_OPTIONS = (3, 4, 5, 6, 7, 8, 9, 10, 11)


@dataclass(slots=True)
class Commands:
    """The commands of one scope: global or a guild. `change_count` counts successful changes."""

    application_id: str
    guild_id: str | None = None
    listed: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    writes: int = 0
    # The number of times the whole list was overwritten.
    syncs: int = 0

    def overwrite(self, bodies: object, new_id: Callable[[], str]) -> list[dict[str, Any]]:
        """Replace all commands. A command of the same name and type keeps its id. Raises ApiError."""
        if not isinstance(bodies, list):
            raise refused(50109)
        form = Form()
        for index, body in enumerate(bodies):
            check_command(form, (index,), body)
        form.check()
        if len([body for body in bodies if body.get("type", 1) == 1]) > 100:
            raise refused(30032)
        keys = [(body["name"], body.get("type", 1)) for body in bodies]
        if len(set(keys)) < len(keys):
            form.add((), "APPLICATION_COMMANDS_DUPLICATE_NAME", "Application command names must be unique")
            form.check()
        self.listed = [self._stored(body, new_id()) for body in bodies]
        self.syncs += 1
        self.writes += 1
        return self.listed

    def upsert(self, body: dict[str, Any], new_id: str) -> tuple[int, dict[str, Any]]:
        """Add a command (201), or replace the one of its name (200). Raises ApiError."""
        form = Form()
        check_command(form, (), body)
        form.check()
        stored = self._stored(body, new_id)
        others = [command for command in self.listed if command["id"] != stored["id"]]
        if len(others) >= 100:
            raise refused(30032)
        status = 201 if len(others) == len(self.listed) else 200
        self.listed = [*others, stored]
        self.writes += 1
        return status, stored

    def get(self, command_id: str) -> dict[str, Any]:
        for command in self.listed:
            if command["id"] == command_id:
                return command
        raise refused(10063)

    def edit(self, command_id: str, body: dict[str, Any], new_id: str) -> dict[str, Any]:
        old = self.get(command_id)
        merged = {**old, **body}
        form = Form()
        check_command(form, (), merged)
        form.check()
        new = {**self._stored(merged, new_id), "id": command_id}
        self.listed = [new if command is old else command for command in self.listed]
        self.writes += 1
        return new

    def delete(self, command_id: str) -> None:
        gone = self.get(command_id)
        self.listed = [command for command in self.listed if command is not gone]
        self.writes += 1

    def _stored(self, body: dict[str, Any], new_id: str) -> dict[str, Any]:
        same = [
            old["id"]
            for old in self.listed
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
            "id": same[0] if same else new_id,
            "application_id": self.application_id,
            **({"guild_id": self.guild_id} if self.guild_id else {}),
            "version": new_id,
        }


def check_command(form: Form, path: Path, body: object) -> None:
    """Check the body of a command that the bot registers."""
    if not isinstance(body, dict):
        raise Refused(400, {"message": "Invalid Form Body", "code": 50035})
    kind = body.get("type", 1)
    form.choice((*path, "type"), kind, (1, 2, 3, 4))
    if kind == 1:
        _check_name(form, (*path, "name"), body.get("name"))
        form.text((*path, "description"), body.get("description"), 1, 100, required=True)
        _check_options(form, (*path, "options"), body.get("options") or [], depth=0)
    else:
        form.text((*path, "name"), body.get("name"), 1, 32, required=True)
    for name, allowed in (("contexts", (0, 1, 2)), ("integration_types", (0, 1))):
        for index, value in enumerate(form.items((*path, name), body.get(name) or [], 0, len(allowed))):
            form.choice((*path, name, index), value, allowed)
    permissions = body.get("default_member_permissions")
    if permissions is not None and not str(permissions).isdigit():
        form.add((*path, "default_member_permissions"), "STRING_TYPE_REGEX", "String value did not match.")
    # The texts of a command in one language may have 8000 characters in total.
    if _characters(body) > 8000:
        text = "Command exceeds maximum size (8000)"
        form.add(path, "APPLICATION_COMMAND_TOO_LARGE", text)


def _check_name(form: Form, path: Path, name: object) -> None:
    if not form.text(path, name, 1, 32, required=True) or not isinstance(name, str):
        return
    if not NAME.match(name) or name != name.lower():
        text = f'Command name is invalid: "{name}"'
        form.add(path, "APPLICATION_COMMAND_INVALID_NAME", text)


def _check_options(form: Form, path: Path, options: object, depth: int) -> None:
    names: set[str] = set()
    optional = False
    allowed = ((SUBCOMMAND, GROUP, *PLAIN_OPTIONS), (SUBCOMMAND,), PLAIN_OPTIONS)[depth]
    for index, option in enumerate(form.items(path, options, 0, 25)):
        here = (*path, index)
        kind = option.get("type")
        form.choice((*here, "type"), kind, allowed)
        _check_name(form, (*here, "name"), option.get("name"))
        form.text((*here, "description"), option.get("description"), 1, 100, required=True)
        if option.get("name") in names:
            text = "Option names must be unique"
            form.add((*here, "name"), "APPLICATION_COMMAND_OPTIONS_NAME_DUPLICATE", text)
        names.add(option.get("name"))
        if kind in {SUBCOMMAND, GROUP}:
            below = 1 if kind == GROUP else 2
            _check_options(form, (*here, "options"), option.get("options") or [], below)
            continue
        if option.get("required") and optional:
            text = "Required options must be placed before non-required options"
            form.add((*here, "required"), "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID", text)
        optional = optional or not option.get("required")
        _check_choices(form, here, option)


def _check_choices(form: Form, here: Path, option: dict[str, Any]) -> None:
    kind, choices = option.get("type"), option.get("choices") or []
    if option.get("autocomplete") and (choices or kind not in {STRING, INTEGER, NUMBER}):
        text = "Autocomplete cannot be set here"
        form.add((*here, "autocomplete"), "APPLICATION_COMMAND_AUTOCOMPLETE_INVALID", text)
    check_choices(form, (*here, "choices"), choices, kind)


def check_choices(form: Form, path: Path, choices: object, kind: object) -> None:
    """Check the choices of an option or of an autocomplete response: at most 25."""
    for index, choice in enumerate(form.items(path, choices, 0, 25)):
        form.text((*path, index, "name"), choice.get("name"), 1, 100, required=True)
        if kind == STRING:
            form.text((*path, index, "value"), choice.get("value"), 0, 100, required=True)
        elif not isinstance(choice.get("value"), int | float):
            form.add((*path, index, "value"), "NUMBER_TYPE_COERCE", "Value is not a number.")


def _characters(body: dict[str, Any]) -> int:
    own = sum(len(body[name]) for name in ("name", "description") if isinstance(body.get(name), str))
    choices = sum(
        len(str(choice.get("name", ""))) + len(str(choice.get("value", "")))
        for choice in body.get("choices") or []
    )
    return own + choices + sum(_characters(option) for option in body.get("options") or [])
