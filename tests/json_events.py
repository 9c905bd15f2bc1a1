"""The events of docs/json.md as JSON Schema, made from the page's tables."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]

PAGE = Path(__file__).parents[1] / "docs" / "json.md"
# These sections of the page describe no event.
_OTHER_SECTIONS = {"Members that many events share"}
_SIMPLE_TYPES = {"string", "number", "integer", "boolean", "null"}


def check_event(event: dict[str, Any]) -> None:
    """Fail if an event is not one of docs/json.md, or has other members."""
    name = event.get("event")
    assert name in event_names(), f"docs/json.md does not have the event {name!r}"
    errors = [error.message for error in _validator(str(name)).iter_errors(event)]
    assert errors == [], f"{name}: {errors}"


@cache
def event_names() -> frozenset[str]:
    """Return the names of all events."""
    return frozenset(_read_page()[0])


@cache
def _validator(name: str) -> Any:
    events, definitions = _read_page()
    envelope: dict[str, dict[str, object]] = {"version": {"const": 1}, "event": {"const": name}}
    schema = _object_schema(events[name], envelope)
    schema["$defs"] = {inner: _object_schema(members) for inner, members in definitions.items()}
    return jsonschema.Draft202012Validator(schema)


@cache
def _read_page() -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Return the members and types of each event, and of each object inside an event."""
    events: dict[str, dict[str, str]] = {}
    definitions: dict[str, dict[str, str]] = {}
    for mark, title, text in re.findall(
        r"^(###?) (.+)\n((?:(?!##).*\n?)*)", PAGE.read_text("utf-8"), re.MULTILINE
    ):
        if title in _OTHER_SECTIONS:
            continue
        rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE)
        members = {name: type_text.strip() for name, type_text in rows}
        (events if mark == "##" else definitions)[title] = members
    return events, definitions


def _object_schema(
    members: dict[str, str], envelope: dict[str, dict[str, object]] | None = None
) -> dict[str, Any]:
    properties = {**(envelope or {}), **{name: _type_schema(text) for name, text in members.items()}}
    optional = {name for name, text in members.items() if text.endswith(", optional")}
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties.keys() - optional),
        "additionalProperties": False,
    }


def _type_schema(text: str) -> dict[str, Any]:
    """Return the schema of a type such as "string or null" or "list of `step`"."""
    alternatives = re.split(r",? or ", text.removesuffix(", optional"))
    return {"anyOf": [_alternative_schema(alternative) for alternative in alternatives]}


def _alternative_schema(text: str) -> dict[str, Any]:
    if text in _SIMPLE_TYPES:
        return {"type": text}
    if text == "list of strings":
        return {"type": "array", "items": {"type": "string"}}
    match = re.fullmatch(r"(list of )?`(\w+)`", text)
    assert match is not None, f"docs/json.md has an unknown type: {text}"
    reference = {"$ref": f"#/$defs/{match[2]}"}
    return {"type": "array", "items": reference} if match[1] else reference
