"""Messages, interactions and modals."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from .components import walk_components
from .entities import Json, User
from .limits import EPHEMERAL, LOADING

ACKNOWLEDGE_SECONDS = 3
TOKEN_SECONDS = 15 * 60


@dataclass(slots=True, eq=False)
class Message:
    """A message. If it is ephemeral, only the user `visible_to` sees it. Tests get copies."""

    id: str
    channel_id: str
    author: User
    content: str
    created_at: float
    embeds: list[Json] = field(default_factory=list[Json])
    components: list[Json] = field(default_factory=list[Json])
    attachments: list[Json] = field(default_factory=list[Json])
    flags: int = 0
    visible_to: str | None = None
    interaction: Interaction | None = None
    allowed_mentions: Json | None = None
    mentioned_user_ids: list[str] = field(default_factory=list[str])
    reply_to: str | None = None
    # Other members of the message object, such as "poll" or "message_snapshots".
    extra_fields: Json = field(default_factory=dict[str, Any])
    edited_at: float | None = None
    deleted: bool = False
    dismissed: bool = False
    kind: int = 0
    reactions: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def __repr__(self) -> str:
        # Do not show the content: it may contain a secret of a test.
        return f"<Message {self.id} of {self.author.name}, {len(self.content)} characters, {self.labels}>"

    @property
    def ephemeral(self) -> bool:
        return bool(self.flags & EPHEMERAL)

    @property
    def loading(self) -> bool:
        """True while a deferred response shows "is thinking"."""
        return bool(self.flags & LOADING)

    @property
    def buttons(self) -> list[Json]:
        """Every button, including link buttons."""
        return [part for part in walk_components(self.components) if part["type"] == 2]

    @property
    def labels(self) -> list[str]:
        return [button.get("label", "") for button in self.buttons]

    @property
    def text(self) -> str:
        """All visible text, for searching: content, embeds, text displays, labels."""
        parts: list[str | None] = [self.content]
        for embed in self.embeds:
            parts += [embed.get("title"), embed.get("description"), embed.get("url")]
            parts += [text for one in embed.get("fields") or [] for text in (one["name"], one["value"])]
            parts += [(embed.get("footer") or {}).get("text"), (embed.get("author") or {}).get("name")]
        for part in walk_components(self.components):
            parts += [part.get("content"), part.get("label"), part.get("url")]
        parts += [
            str(self.extra_fields) if self.extra_fields else None,
            *(one["filename"] for one in self.attachments),
        ]
        return "\n".join(text for text in parts if text)


@dataclass(slots=True, eq=False)
class Interaction:
    """One action of a user. `acknowledged_at` is the time of the bot's first response, or None."""

    id: str
    token: str
    kind: int
    user: User
    channel_id: str
    guild_id: str | None
    created_at: float
    data: Json
    # Set for a component, and for a modal that a component opened.
    message: Message | None = None
    # Set for a submitted modal: the interaction that opened it.
    opened_by: Interaction | None = None
    acknowledged_at: float | None = None
    response_type: int | None = None
    original: Message | None = None
    modal: Modal | None = None
    choices: list[Json] | None = None
    followups: list[str] = field(default_factory=list[str])

    def __repr__(self) -> str:
        # Do not show the token: it authorizes responses.
        return f"<Interaction {self.id} of {self.user.name}, response type {self.response_type}>"


@dataclass(slots=True, eq=False)
class Modal:
    """A modal that one user has open, until `submitted` is true."""

    title: str
    custom_id: str
    components: list[Json]
    user: User
    interaction: Interaction
    submitted: bool = False

    @property
    def inputs(self) -> list[Json]:
        """The input fields, each with "shown_label" added."""
        inputs: list[Json] = []
        for component in self.components:
            if component["type"] == 18:
                inputs.append({**component["component"], "shown_label": component["label"]})
            elif component["type"] == 1:
                text_input = component["components"][0]
                inputs.append({**text_input, "shown_label": text_input["label"]})
        return inputs


def pinged_user_ids(content: str, allowed: Json | None, users: dict[str, User]) -> list[str]:
    """Return the ids of the users that a text mentions and `allowed_mentions` lets it ping."""
    mentioned_ids = [one for one in dict.fromkeys(re.findall(r"<@!?(\d+)>", content)) if one in users]
    if allowed is None or "users" in (allowed.get("parse") or []):
        return mentioned_ids
    return [one for one in mentioned_ids if one in {str(user) for user in allowed.get("users") or []}]
