"""`parse_mode`: text with marks in it -> text and entities."""

from __future__ import annotations

from tests.parts.bot_api.entities import found, read_entities
from tests.parts.bot_api.parameters import Parameters
from tests.parts.bot_api.values import Entity, bad_request, utf16


def read_text(
    parameters: Parameters, name: str, entities: str, most: int, *, required: bool
) -> tuple[str, tuple[Entity, ...]]:
    """Read a text or caption with its entities; raises Refused. `most` counts UTF-16 units after parsing."""
    given = parameters.text(name)
    what = "message caption" if name == "caption" else "message"
    mode = parameters.text("parse_mode").lower()
    text, marked = given, tuple[Entity, ...]()
    if mode and mode != "none":
        raise bad_request("unsupported parse_mode")
    if not mode and parameters.text(entities):
        marked = read_entities(parameters.text(entities), given)
    if required and not given:
        raise bad_request("message text is empty")
    if required and not text.strip():
        raise bad_request("text must be non-empty")
    if utf16(text) > most:
        raise bad_request(f"{what} is too long")
    return text, found(text, marked)
