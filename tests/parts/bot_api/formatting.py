"""Texts and captions: `parse_mode` or explicit entities, detected entities, and length limits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.parts.bot_api.entities import found, placed, read_entities
from tests.parts.bot_api.html_marks import read_html
from tests.parts.bot_api.limits import CAPTION_CHARACTERS, TEXT_CHARACTERS
from tests.parts.bot_api.markdown_marks import read_markdown, read_markdown_v2
from tests.parts.bot_api.parameters import Parameters
from tests.parts.bot_api.values import Entity, bad_request, utf16

PARSERS = {"html": read_html, "markdown": read_markdown, "markdownv2": read_markdown_v2}


@dataclass(frozen=True, slots=True)
class Marked:
    """A parsed text. `resolve` checks its limits later: like the real server, after the chat is found."""

    text: str
    entities: tuple[Entity, ...]
    caption: bool

    def settled(self) -> tuple[str, tuple[Entity, ...]]:
        """Return the trimmed text with explicit and detected entities; raise ApiError."""
        entities = tuple(placed(entity, self.text) for entity in self.entities)
        text, entities = _trimmed(self.text, entities)
        if not text and not self.caption:
            raise bad_request("text must be non-empty")
        if utf16(text) > (CAPTION_CHARACTERS if self.caption else TEXT_CHARACTERS):
            raise bad_request("message caption is too long" if self.caption else "message is too long")
        return text, found(text, entities)


def read_text(parameters: Parameters) -> Marked:
    """Read `text` with `parse_mode` or `entities`; raise ApiError."""
    if not parameters.text("text"):
        raise bad_request("message text is empty")
    return _read(parameters, "text", "entities")


def read_caption(parameters: Parameters) -> Marked:
    """Read `caption` (may be empty) with `parse_mode` or `caption_entities`; raise ApiError."""
    return _read(parameters, "caption", "caption_entities")


def _read(parameters: Parameters, name: str, entities: str) -> Marked:
    text, mode = parameters.text(name), parameters.text("parse_mode").lower()
    marked = tuple[Entity, ...]()
    if mode and mode != "none":
        if mode not in PARSERS:
            raise bad_request("unsupported parse_mode")
        text, marked = PARSERS[mode](text)
    elif parameters.text(entities):
        # The real server ignores explicit entities if there is a parse_mode.
        marked = read_entities(parameters.text(entities))
    return Marked(text, marked, caption=name == "caption")


def _trimmed(text: str, entities: tuple[Entity, ...]) -> tuple[str, tuple[Entity, ...]]:
    """Strip a text, as the server does, and shift its entities."""
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
