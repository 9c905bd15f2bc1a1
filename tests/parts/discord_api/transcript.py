"""A channel as text, as a user sees it: embeds as boxes, buttons as [Label], links as [Label ↗]."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from .components import walk_components
from .entities import Json, User
from .messages import Interaction, Message, Modal
from .state import State

WIDTH = 78


def channel_text(state: State, channel_id: str, seen_by: str | None) -> str:
    """Return a channel as text: messages, failed interactions and open modals, oldest first."""
    entries: list[tuple[int, Iterable[str]]] = [
        (int(message.id), message_lines(state, message))
        for message in state.visible_messages(channel_id, seen_by)
    ]
    for interaction in state.interactions.values():
        is_visible = interaction.channel_id == channel_id and seen_by in {None, interaction.user.id}
        if is_visible and interaction.acknowledged_at is None and state.has_failed(interaction):
            entries.append((int(interaction.id), [_failure_line(interaction)]))
    entries += [
        (int(modal.interaction.id), modal_lines(modal))
        for modal in state.modals
        if not modal.submitted and seen_by == modal.user.id and modal.interaction.channel_id == channel_id
    ]
    blocks = ["\n".join(lines) for _, lines in sorted(entries, key=lambda entry: entry[0])]
    return "\n\n".join(blocks) + "\n" if blocks else ""


def _failure_line(interaction: Interaction) -> str:
    return "! This interaction failed" if interaction.kind == 3 else "! The application did not respond"


def message_lines(state: State, message: Message) -> Iterator[str]:
    """Yield the lines of one message: author, content and components."""
    interaction = message.interaction
    if interaction is not None and interaction.kind == 2:
        yield f"{interaction.user.name} used /{_command_text(interaction.data)}"
    edited = " (edited)" if message.edited_at is not None and not message.ephemeral else ""
    app = " APP" if message.author.bot else ""
    yield f"{message.author.name}{app}{edited}"
    if message.loading:
        has_failed = interaction is not None and state.has_failed(interaction)
        yield (
            "  ! The application did not respond" if has_failed else f"  {message.author.name} is thinking..."
        )
    yield from _content_lines(message, state.users)
    for embed in message.embeds:
        yield from _embed_lines(embed)
    for row in message.components:
        components = [_component_text(part) for part in row.get("components") or [] if part["type"] in {2, 3}]
        if components:
            yield "  " + " ".join(components)
    if message.ephemeral:
        yield "  Only you can see this · Dismiss message"


def _content_lines(message: Message, users: dict[str, User]) -> Iterator[str]:
    displays = [part["content"] for part in walk_components(message.components) if part["type"] == 10]
    for text in (_replace_mentions(message.content, users), *displays):
        for line in text.splitlines():
            yield from _wrap(line, "  ")
    for attachment in message.attachments:
        if attachment["url"] not in str(message.embeds):
            yield f"  ({attachment['filename']})"


def _command_text(data: Json) -> str:
    command_parts, options = [data["name"]], data.get("options") or []
    while options and options[0]["type"] in {1, 2}:
        command_parts.append(options[0]["name"])
        options = options[0].get("options") or []
    return " ".join([*command_parts, *(f"{option['name']}:{option['value']}" for option in options)])


def _replace_mentions(text: str, users: dict[str, User]) -> str:
    for user in users.values():
        text = text.replace(f"<@{user.id}>", f"@{user.name}")
    return text


def _wrap(line: str, indent: str, width: int = WIDTH) -> list[str]:
    parts = textwrap.wrap(line, width - len(indent), break_on_hyphens=False) or [""]
    return [indent + part for part in parts]


def _component_text(part: Json) -> str:
    if part["type"] != 2:
        return f"[{part.get('placeholder') or 'Make a selection'} ▾]"
    name = " ".join(text for text in ((part.get("emoji") or {}).get("name"), part.get("label")) if text)
    name += " ↗" if part.get("style") == 5 else ""
    return f"({name})" if part.get("disabled") else f"[{name}]"


def _embed_lines(embed: Json) -> Iterator[str]:
    inner_width = WIDTH - 6
    lines: list[str] = []
    if (embed.get("author") or {}).get("name"):
        lines.append(embed["author"]["name"])
    if embed.get("title"):
        lines.append(f"{embed['title']} ↗" if embed.get("url") else embed["title"])
    lines += (embed.get("description") or "").splitlines()
    for field in embed.get("fields") or []:
        value = field["value"].splitlines()
        lines += [f"{field['name']}: {value[0]}"] if len(value) == 1 else [f"{field['name']}:", *value]
    for name in ("image", "thumbnail"):
        if embed.get(name):
            lines.append(f"({embed[name]['url'].rpartition('/')[2]})")
    if (embed.get("footer") or {}).get("text"):
        lines.append(embed["footer"]["text"])
    wrapped = [part for line in lines for part in _wrap(line, "", inner_width)]
    yield f"  ┌{'─' * (inner_width + 2)}┐"
    for line in wrapped:
        yield f"  │ {line.ljust(inner_width)} │"
    yield f"  └{'─' * (inner_width + 2)}┘"


def modal_lines(modal: Modal) -> Iterator[str]:
    """Yield the lines of an open modal."""
    yield f"╔═ {modal.title} ".ljust(WIDTH, "═")
    for part in modal.components:
        if part["type"] == 10:
            yield from _wrap(part["content"], "║ ")
        elif part["type"] == 18 and part.get("description"):
            yield from _wrap(part["description"], "║ ")
    for field in modal.inputs:
        star = " *" if field.get("required", True) else ""
        yield f"║ {field['shown_label']}{star}"
        value = field.get("value") or (f"‹{field['placeholder']}›" if field.get("placeholder") else "")
        yield f"║   [{value.ljust(40)}]"
    yield "╚ [Cancel] [Submit]"
