"""Shared by the three markup parsers: output text, and entities that open and close in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.parts.bot_api.keyboards import InvalidUrl, normalize_url
from tests.parts.bot_api.values import ApiError, Entity, bad_request, utf16_length


def cannot_parse(reason: str) -> ApiError:
    """Return the error for invalid markup."""
    return bad_request(f"can't parse entities: {reason}")


def bytes_before(text: str, at: int) -> int:
    """Return a position in UTF-8 bytes, as the real server counts it."""
    return len(text[:at].encode("utf-8", "surrogatepass"))


@dataclass(slots=True)
class OpenMark:
    """An open mark. `byte_offset` is its position in the input, `start` the position in the output."""

    kind: str
    byte_offset: int
    start: int
    argument: str = ""


@dataclass(slots=True)
class Output:
    """The text without markup, and its entities; `size` is in UTF-16 code units."""

    text: list[str] = field(default_factory=list[str])
    size: int = 0
    entities: list[Entity] = field(default_factory=list[Entity])

    def write(self, text: str) -> None:
        self.text.append(text)
        self.size += utf16_length(text)

    def text_from(self, start: int) -> str:
        """Return the text from a position to the end."""
        whole = "".join(self.text).encode("utf-16-le", "surrogatepass")
        return whole[2 * start :].decode("utf-16-le", "surrogatepass")

    def add_entity(self, kind: str, start: int, **extra: object) -> None:
        """Add an entity from a position to the end, unless it is empty."""
        if self.size > start:
            self.entities.append(Entity(kind, start, self.size - start, extra))

    def add_link(self, start: int, url: str) -> None:
        """Add a link. As the real server does, drop an invalid link but keep its text."""
        mention = url.lower().removeprefix("tg://").removeprefix("tg:")
        if mention.startswith("user?id=") and mention[8:].isdigit():
            self.add_entity(
                "text_mention", start, user={"id": int(mention[8:]), "is_bot": False, "first_name": ""}
            )
            return
        try:
            self.add_entity("text_link", start, url=normalize_url(url))
        except InvalidUrl:
            return

    def result(self) -> tuple[str, tuple[Entity, ...]]:
        return "".join(self.text), tuple(self.entities)
