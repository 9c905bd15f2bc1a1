"""Entities: explicit entities from a bot, and entities that the server detects in every text."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import replace
from typing import cast

from tests.parts.bot_api.keyboards import InvalidUrl, normalize_url
from tests.parts.bot_api.limits import ENTITIES
from tests.parts.bot_api.values import Entity, bad_request, utf16_offsets

DETECTED_TYPES = frozenset(
    {"mention", "hashtag", "cashtag", "bot_command", "url", "email", "phone_number", "bank_card_number"}
)
STYLE_TYPES = frozenset(
    {"bold", "italic", "underline", "strikethrough", "spoiler", "blockquote", "expandable_blockquote", "code"}
)
TYPES_WITH_MEMBERS = frozenset({"pre", "text_link", "text_mention", "custom_emoji", "date_time"})
# A URL with a scheme may have any host with a dot. Without a scheme, the host must be an IPv4 address or
# have a common top-level domain.
HOST = r"(?:[\w-]+\.)+[\w-]+"
COMMON_DOMAIN = (
    r"(?:[\w-]+\.)+(?:com|org|net|io|dev|app|me|ai|de|eu|uk|info|cloud)\b|\d{1,3}(?:\.\d{1,3}){3}\b"
)
DETECTABLE = re.compile(
    rf"(?P<email>\b[\w.+-]+@{HOST}\b)"
    rf"|(?P<url>\bhttps?://{HOST}(?::\d+)?(?:[/?#][^\s<>\"]*)?"
    rf"|(?<![\w@/:])(?:{COMMON_DOMAIN})(?::\d+)?(?:[/?#][^\s<>\"]*)?)"
    r"|(?<![\w/<])(?P<bot_command>/[A-Za-z0-9_]{1,64}(?:@\w{3,32})?)(?![\w/])"
    r"|(?<!\w)(?P<mention>@[A-Za-z]\w{3,31})\b"
    r"|(?<!\w)(?P<hashtag>#\w*[^\W\d]\w*)",
    re.IGNORECASE,
)
OPAQUE_TYPES = frozenset({"code", "pre", "text_link", "text_mention"})
TRAILING_PUNCTUATION = ".,:;!?)'\"»"


def detect_entities(text: str, explicit: tuple[Entity, ...] = ()) -> tuple[Entity, ...]:
    """Return the explicit entities and those that the server detects outside code and links."""
    ends = utf16_offsets(text)
    opaque_ranges = [(e.offset, e.offset + e.length) for e in explicit if e.type in OPAQUE_TYPES]
    entities = list(explicit)
    for match in DETECTABLE.finditer(text):
        kind = str(match.lastgroup)
        start, end = match.span()
        if kind == "url":
            end -= len(match[0]) - len(match[0].rstrip(TRAILING_PUNCTUATION))
        offset, length = ends[start], ends[end] - ends[start]
        if not any(first < offset + length and offset < last for first, last in opaque_ranges):
            entities.append(Entity(kind, offset, length))
    return tuple(sorted(entities, key=lambda entity: (entity.offset, -entity.length)))


def read_entities(entities_json: str) -> tuple[Entity, ...]:
    """Read an `entities` parameter; raise ApiError for an invalid entity."""
    try:
        entities = json.loads(entities_json)
    except ValueError:
        raise bad_request("can't parse entities JSON object") from None
    if not isinstance(entities, list):
        raise bad_request("expected an Array of MessageEntity")
    parsed = (_read_entity(entity) for entity in entities[:ENTITIES])
    return tuple(entity for entity in parsed if entity is not None)


def _read_entity(document: object) -> Entity | None:
    if not isinstance(document, dict):
        raise bad_request("can't parse MessageEntity: expected an Object")
    kind, offset, length = (document.get(name) for name in ("type", "offset", "length"))
    if not isinstance(kind, str):
        raise bad_request("can't parse MessageEntity: Can't find field \"type\"")
    for name, value in (("offset", offset), ("length", length)):
        if type(value) is not int:
            raise bad_request(f'can\'t parse MessageEntity: Field "{name}" must be of type Number')
    if kind in DETECTED_TYPES:
        return None
    if kind not in STYLE_TYPES | TYPES_WITH_MEMBERS:
        raise bad_request("can't parse MessageEntity: Unsupported type specified")
    return Entity(kind, cast("int", offset), cast("int", length), _read_members(kind, document))


def _read_members(kind: str, document: dict[str, object]) -> dict[str, object]:
    if kind == "pre":
        return {"language": document["language"]} if document.get("language") else {}
    if kind == "text_link":
        return {"url": str(document.get("url", ""))}
    if kind == "custom_emoji":
        return {"custom_emoji_id": document.get("custom_emoji_id")}
    return {"user": document.get("user")} if kind == "text_mention" else {}


def validate_entity(entity: Entity, text: str) -> Entity:
    """Return an entity that fits into a text, with a normalized URL; raise ApiError if it does not fit."""
    start, end = entity.offset, entity.offset + entity.length
    size = utf16_offsets(text)[-1]
    if start < 0 or entity.length < 0 or start > size:
        raise bad_request(f"entity begins after the end of the text at UTF-16 offset {start}")
    if end > size:
        raise bad_request(
            f"entity beginning at UTF-16 offset {start} ends after the end of the text at UTF-16 offset {end}"
        )
    starts = utf16_offsets(text)
    for boundary, at in (("begins", start), ("ends", end)):
        if starts[bisect_right(starts, at) - 1] != at:
            raise bad_request(f"entity {boundary} in a middle of a UTF-16 symbol at UTF-16 offset {at}")
    if entity.type == "text_link":
        url = str(entity.extra["url"])
        try:
            return replace(entity, extra={"url": normalize_url(url)})
        except InvalidUrl as reason:
            raise bad_request(f"entity URL '{url}' is invalid: {reason}") from None
    return entity
