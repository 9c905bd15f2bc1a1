"""What the three markup readers share: text that grows, and entities that open and close in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.parts.bot_api.keyboards import WrongUrl, checked_url
from tests.parts.bot_api.values import Entity, Refused, bad_request, utf16


def cannot_parse(reason: str) -> Refused:
    """Make the refusal of a text whose marks are wrong."""
    return bad_request(f"can't parse entities: {reason}")


def bytes_before(text: str, at: int) -> int:
    """Return a position as the real server counts it, in bytes of UTF-8."""
    return len(text[:at].encode("utf-8", "surrogatepass"))


@dataclass(slots=True)
class Open:
    """A mark that waits for its end. `begin` is the byte offset of the mark, `at` the place in the output."""

    kind: str
    begin: int
    at: int
    argument: str = ""


@dataclass(slots=True)
class Output:
    """The text without marks, and its entities; `size` is in UTF-16 code units."""

    text: list[str] = field(default_factory=list[str])
    size: int = 0
    entities: list[Entity] = field(default_factory=list[Entity])

    def write(self, text: str) -> None:
        self.text.append(text)
        self.size += utf16(text)

    def since(self, at: int) -> str:
        """Return what was written from a place on."""
        whole = "".join(self.text).encode("utf-16-le", "surrogatepass")
        return whole[2 * at :].decode("utf-16-le", "surrogatepass")

    def close(self, kind: str, at: int, **extra: object) -> None:
        """Add an entity from a place to here; an empty one is dropped."""
        if self.size > at:
            self.entities.append(Entity(kind, at, self.size - at, extra))

    def link(self, at: int, url: str) -> None:
        """Add a link; one that is no good is dropped, the text stays, as the real server does."""
        mention = url.lower().removeprefix("tg://").removeprefix("tg:")
        if mention.startswith("user?id=") and mention[8:].isdigit():
            self.close("text_mention", at, user={"id": int(mention[8:]), "is_bot": False, "first_name": ""})
            return
        try:
            self.close("text_link", at, url=checked_url(url))
        except WrongUrl:
            return

    def result(self) -> tuple[str, tuple[Entity, ...]]:
        return "".join(self.text), tuple(self.entities)
