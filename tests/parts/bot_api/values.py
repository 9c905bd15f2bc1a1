"""The values of the endpoint: users, chats, messages, calls and errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Literal

Json = dict[str, object]
ChatType = Literal["private", "supergroup", "channel"]


class ApiError(Exception):
    """An error response: the HTTP status, the real server's description, and optional `parameters`."""

    def __init__(self, error_code: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.error_code = error_code
        self.description = description
        self.parameters = parameters


def bad_request(description: str) -> ApiError:
    """Return an error with status 400."""
    return ApiError(400, f"Bad Request: {description}")


def utf16_length(text: str) -> int:
    """Count UTF-16 code units, the unit of every length and offset of the Bot API."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


@lru_cache(maxsize=16)
def utf16_offsets(text: str) -> tuple[int, ...]:
    """Return the offset of each character, and of the end, in UTF-16 code units."""
    return (0, *accumulate(2 if character > "\uffff" else 1 for character in text))


@dataclass(frozen=True, slots=True)
class User:
    """A user or the bot."""

    id: int
    first_name: str
    username: str = ""
    is_bot: bool = False

    def json(self) -> Json:
        document: Json = {"id": self.id, "is_bot": self.is_bot, "first_name": self.first_name}
        if self.username:
            document["username"] = self.username
        return document if self.is_bot else document | {"language_code": "en"}


@dataclass(slots=True)
class Chat:
    """A private chat (its id is the user's), a supergroup or a channel. `topics` maps thread ids to names."""

    id: int
    type: ChatType
    title: str
    members: dict[int, User] = field(default_factory=dict[int, User])
    is_forum: bool = False
    topics: dict[int, str] = field(default_factory=dict[int, str])
    bot_can_delete: bool = False
    bot_is_member: bool = True
    is_started: bool = False
    has_blocked_bot: bool = False

    @property
    def user(self) -> User:
        """Return the user of a private chat."""
        return self.members[self.id]

    def json(self) -> Json:
        if self.type == "private":
            document: Json = {"id": self.id, "type": "private", "first_name": self.user.first_name}
            return document | ({"username": self.user.username} if self.user.username else {})
        document_of_group: Json = {"id": self.id, "type": self.type, "title": self.title}
        return document_of_group | ({"is_forum": True} if self.is_forum else {})


@dataclass(frozen=True, slots=True)
class Entity:
    """A marked range of a text; offset and length are in UTF-16 code units."""

    type: str
    offset: int
    length: int
    extra: Mapping[str, object] = field(default_factory=dict[str, object])

    def json(self) -> Json:
        return {"type": self.type, "offset": self.offset, "length": self.length, **self.extra}


@dataclass(frozen=True, slots=True)
class Button:
    """An inline button: its label and its action."""

    text: str
    url: str | None = None
    callback_data: str | None = None
    copy_text: str | None = None
    other_actions: Mapping[str, object] = field(default_factory=dict[str, object])

    def json(self) -> Json:
        document: Json = {"text": self.text, **self.other_actions}
        if self.url is not None:
            document["url"] = self.url
        if self.callback_data is not None:
            document["callback_data"] = self.callback_data
        if self.copy_text is not None:
            document["copy_text"] = {"text": self.copy_text}
        return document


Keyboard = tuple[tuple[Button, ...], ...]


@dataclass(frozen=True, slots=True)
class File:
    """An uploaded file. `width` and `height` are in pixels, 0 if it is not a picture."""

    id: str
    unique_id: str
    name: str
    data: bytes = field(repr=False)
    width: int = 0
    height: int = 0

    @property
    def path(self) -> str:
        return f"{'photos' if self.width else 'documents'}/{self.unique_id}_{self.name}"

    def json(self) -> Json:
        document: Json = {"file_id": self.id, "file_unique_id": self.unique_id, "file_size": len(self.data)}
        return document | ({"width": self.width, "height": self.height} if self.width else {})


@dataclass(frozen=True, slots=True)
class Message:
    """One version of a message; an edit creates a new value. `date` is in epoch seconds.

    If there is a photo or a document, `text` is its caption.
    """

    chat_id: int
    id: int
    sender: User
    date: float
    text: str = ""
    entities: tuple[Entity, ...] = ()
    keyboard: Keyboard = ()
    photo: File | None = None
    document: File | None = None
    thread: int | None = None
    reply_to: int | None = None
    edited_at: float | None = None
    previews_disabled: bool = False
    protected: bool = False
    silent: bool = False
    topic_created: str | None = None
    reactions: tuple[str, ...] = ()
    # Other members of the Message object, such as "contact" or "poll".
    extra_members: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def buttons(self) -> tuple[Button, ...]:
        """Return all inline buttons in reading order."""
        return tuple(button for row in self.keyboard for button in row)

    def entity_text(self, entity: Entity) -> str:
        """Return the text of an entity."""
        units = self.text.encode("utf-16-le", "surrogatepass")
        return units[2 * entity.offset : 2 * (entity.offset + entity.length)].decode("utf-16-le")

    @property
    def is_from_bot(self) -> bool:
        return self.sender.is_bot

    @property
    def has_media(self) -> bool:
        return self.photo is not None or self.document is not None

    def editable_content(self) -> tuple[object, ...]:
        """Return the content of a message. If an edit changes none of it, the error is "is not modified"."""
        return self.text, self.entities, self.keyboard, self.photo, self.document


@dataclass(frozen=True, slots=True)
class Call:
    """One request of the bot. `unknown_parameters` are parameters that the method does not have.

    `response` is the JSON of the response, even if the connection was cut before the server sent it. It is
    None if the server did not execute the call.
    """

    method: str
    parameters: Mapping[str, str]
    files: Mapping[str, File]
    response: Json | None
    time: float
    unknown_parameters: tuple[str, ...] = ()
    fault_kind: str = ""

    @property
    def ok(self) -> bool:
        return self.response is not None and self.response.get("ok") is True

    @property
    def description(self) -> str:
        """Return the error's text; empty for a successful call."""
        return str((self.response or {}).get("description", ""))
