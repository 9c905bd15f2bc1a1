"""Texts and captions: `parse_mode` or given entities, what the server finds by itself, and the length."""

from __future__ import annotations

from dataclasses import replace

from tests.parts.bot_api.entities import found, read_entities
from tests.parts.bot_api.html_marks import read_html
from tests.parts.bot_api.markdown_marks import read_markdown, read_markdown_v2
from tests.parts.bot_api.parameters import Parameters
from tests.parts.bot_api.values import Entity, bad_request, utf16

PARSERS = {"html": read_html, "markdown": read_markdown, "markdownv2": read_markdown_v2}


def read_text(
    parameters: Parameters, name: str, entities: str, most: int, *, required: bool
) -> tuple[str, tuple[Entity, ...]]:
    """Read a text or caption with its entities; raises Refused. `most` counts UTF-16 units after parsing."""
    text, mode = parameters.text(name), parameters.text("parse_mode").lower()
    if required and not text:
        raise bad_request("message text is empty")
    marked = tuple[Entity, ...]()
    if mode and mode != "none":
        if mode not in PARSERS:
            raise bad_request("unsupported parse_mode")
        text, marked = PARSERS[mode](text)
    elif parameters.text(entities):
        # With a parse_mode the real server does not look at them.
        marked = read_entities(parameters.text(entities), text)
    text, marked = _trimmed(text, marked)
    if required and not text:
        raise bad_request("text must be non-empty")
    if utf16(text) > most:
        raise bad_request("message caption is too long" if name == "caption" else "message is too long")
    return text, found(text, marked)


def _trimmed(text: str, entities: tuple[Entity, ...]) -> tuple[str, tuple[Entity, ...]]:
    """Take away the white space around a text, as the server does, and move its entities along."""
    stripped = text.strip()
    lead = utf16(text[: len(text) - len(text.lstrip())])
    size = utf16(stripped)
    moved = list[Entity]()
    for entity in entities:
        start = max(entity.offset - lead, 0)
        end = min(entity.offset + entity.length - lead, size)
        if end > start:
            moved.append(replace(entity, offset=start, length=end - start))
    return stripped, tuple(moved)
