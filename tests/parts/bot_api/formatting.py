"""Texts and captions: `parse_mode` or explicit entities, detected entities, and length limits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.parts.bot_api.entities import detect_entities, read_entities, validate_entity
from tests.parts.bot_api.html_markup import read_html
from tests.parts.bot_api.limits import CAPTION_CHARACTERS, TEXT_CHARACTERS
from tests.parts.bot_api.markdown_markup import read_legacy_markdown, read_markdown_v2
from tests.parts.bot_api.parameters import Parameters
from tests.parts.bot_api.values import Entity, bad_request, utf16_length

PARSERS = {"html": read_html, "markdown": read_legacy_markdown, "markdownv2": read_markdown_v2}


@dataclass(frozen=True, slots=True)
class FormattedText:
    """A parsed text. Like the real server, check its limits (`resolve`) only after the chat is found."""

    text: str
    entities: tuple[Entity, ...]
    is_caption: bool

    def resolve(self) -> tuple[str, tuple[Entity, ...]]:
        """Return the trimmed text with explicit and detected entities; raise ApiError."""
        entities = tuple(validate_entity(entity, self.text) for entity in self.entities)
        text, entities = _trim(self.text, entities)
        if not text and not self.is_caption:
            raise bad_request("text must be non-empty")
        if utf16_length(text) > (CAPTION_CHARACTERS if self.is_caption else TEXT_CHARACTERS):
            raise bad_request("message caption is too long" if self.is_caption else "message is too long")
        return text, detect_entities(text, entities)


def read_text(parameters: Parameters) -> FormattedText:
    """Read `text` with `parse_mode` or `entities`; raise ApiError."""
    if not parameters.text("text"):
        raise bad_request("message text is empty")
    return _read_formatted(parameters, "text", "entities")


def read_caption(parameters: Parameters) -> FormattedText:
    """Read `caption` (may be empty) with `parse_mode` or `caption_entities`; raise ApiError."""
    return _read_formatted(parameters, "caption", "caption_entities")


def _read_formatted(parameters: Parameters, name: str, entities: str) -> FormattedText:
    text, mode = parameters.text(name), parameters.text("parse_mode").lower()
    parsed_entities = tuple[Entity, ...]()
    if mode and mode != "none":
        if mode not in PARSERS:
            raise bad_request("unsupported parse_mode")
        text, parsed_entities = PARSERS[mode](text)
    elif parameters.text(entities):
        # The real server ignores explicit entities if there is a parse_mode.
        parsed_entities = read_entities(parameters.text(entities))
    return FormattedText(text, parsed_entities, is_caption=name == "caption")


def _trim(text: str, entities: tuple[Entity, ...]) -> tuple[str, tuple[Entity, ...]]:
    """Strip a text, as the server does, and shift its entities."""
    stripped = text.strip()
    leading_units = utf16_length(text[: len(text) - len(text.lstrip())])
    size = utf16_length(stripped)
    moved = list[Entity]()
    for entity in entities:
        start = max(entity.offset - leading_units, 0)
        end = min(entity.offset + entity.length - leading_units, size)
        if end > start:
            moved.append(replace(entity, offset=start, length=end - start))
    return stripped, tuple(moved)
