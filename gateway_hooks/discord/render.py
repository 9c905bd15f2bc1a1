"""Render a card for Discord: embeds, buttons, and a form for an answer. Pure.

Limits: https://docs.discord.com/developers/resources/message#embed-object-embed-limits and
https://docs.discord.com/developers/components/reference. Quoted text is inline code, in which Discord
creates no links, mentions or markup.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import discord
from discord import ui

from gateway_hooks.dialog.cards import Button, Card, replace_time_marks, truncate
from gateway_hooks.dialog.messages import Messages

MAX_TITLE_CHARS = 256
MAX_DESCRIPTION_CHARS = 4096
MAX_EMBED_CHARS = 6000
MAX_LABEL_CHARS = 80
MAX_BUTTON_URL_CHARS = 512
# With this limit, the rest of a prompt fits into MAX_EMBED_CHARS. A longer URL is sent as a file.
MAX_URL_IN_TEXT_CHARS = 3000
MAX_MODAL_TEXT_CHARS = 45
MAX_INPUT_CHARS = 4000
MAX_ROWS, MAX_BUTTONS_PER_ROW = 5, 5

QR_FILE_NAME, URL_FILE_NAME = "qr.png", "address.txt"
NO_MENTIONS = discord.AllowedMentions.none()

_COLOURS = {"plain": 0x5865F2, "good": 0x248046, "bad": 0xDA373C}
_STYLES = {
    "plain": discord.ButtonStyle.secondary,
    "good": discord.ButtonStyle.success,
    "bad": discord.ButtonStyle.danger,
}
# Characters of markup, mentions, emoji and masked links.
_MARKDOWN_ESCAPES = str.maketrans({mark: f"\\{mark}" for mark in "\\*_~|[]<>"})
# Only a card's Link may become a link: a server's text can look like one.
_UNLINKED_SCHEME_SEPARATOR = ":\u2060//"


@dataclass(frozen=True, slots=True)
class RenderedMessage:
    """The parts of a message. `view` is None if it has no buttons."""

    embeds: list[discord.Embed]
    view: ui.View | None
    files: list[discord.File] = field(default_factory=list[discord.File])


def render_card(card: Card, png: bytes | None = None) -> RenderedMessage:
    """Render a card. If `png` is given, the picture is below the text."""
    has_link_button = card.link is not None and len(card.link.url) <= MAX_BUTTON_URL_CHARS
    embeds = _embeds(card, with_link=not has_link_button)
    files: list[discord.File] = []
    if png is not None:
        embeds[-1].set_image(url=f"attachment://{QR_FILE_NAME}")
        files.append(discord.File(io.BytesIO(png), QR_FILE_NAME))
    if card.link is not None and len(card.link.url) > MAX_URL_IN_TEXT_CHARS:
        files.append(discord.File(io.BytesIO(card.link.url.encode()), URL_FILE_NAME))
    return RenderedMessage(embeds, _view(card, with_link=has_link_button), files)


def make_answer_modal(custom_id: str, messages: Messages) -> ui.Modal:
    """Return the form for an answer. Its submission carries `custom_id`.

    The form needs no state of this process, so any process can handle the submission.
    """
    modal = ui.Modal(title=truncate(messages.form_title, MAX_MODAL_TEXT_CHARS), custom_id=custom_id)
    answer = ui.TextInput[ui.Modal](custom_id="answer", max_length=MAX_INPUT_CHARS)
    modal.add_item(
        ui.Label[ui.Modal](text=truncate(messages.form_label, MAX_MODAL_TEXT_CHARS), component=answer)
    )
    modal.stop()
    return modal


def read_typed_answer(components: object) -> str:
    """Return the answer typed into a submitted form; "" if it has no answer field."""
    if isinstance(components, list):
        return next(
            (
                text
                for component in cast("list[object]", components)
                if (text := read_typed_answer(component))
            ),
            "",
        )
    if not isinstance(components, dict):
        return ""
    members = cast("dict[str, object]", components)
    if members.get("custom_id") == "answer" and isinstance(members.get("value"), str):
        return str(members["value"])
    return read_typed_answer(members.get("component")) or read_typed_answer(members.get("components"))


def _embeds(card: Card, *, with_link: bool) -> list[discord.Embed]:
    colour = _COLOURS[card.tone]
    title = truncate(_escape_markdown(card.title), MAX_TITLE_CHARS)
    embeds = [discord.Embed(title=title, colour=colour)]
    remaining_chars = MAX_EMBED_CHARS - len(title)
    text = ""
    for block in _blocks(card, with_link=with_link):
        remaining_chars -= len(block)
        if remaining_chars < 0:
            break
        if len(text) + len(block) > MAX_DESCRIPTION_CHARS:
            embeds[-1].description = text.strip("\n")
            embeds.append(discord.Embed(colour=colour))
            text = ""
        text += block
    embeds[-1].description = text.strip("\n") or None
    return embeds


def _blocks(card: Card, *, with_link: bool) -> Iterator[str]:
    """Yield a card's parts as Discord's Markdown, each with the line break before it."""
    if card.intro:
        yield f"\n{_escape_markdown(card.intro)}"
    for row in card.rows:
        value = _inline_code(row.value) if row.is_quoted else _escape_markdown(row.value)
        yield f"\n**{_escape_markdown(row.label)}:** {_escape_markdown(row.lead)}{value}"
    if with_link and card.link is not None:
        # In angle brackets, punctuation beside the link does not become part of it.
        is_short = len(card.link.url) <= MAX_URL_IN_TEXT_CHARS
        target = f"<{card.link.url}>" if is_short else f"`{URL_FILE_NAME}`"
        yield f"\n**{_escape_markdown(card.link.label)}:**\n{target}"
    for step in card.steps:
        yield f"\n{_escape_step(step)}"
    if card.code:
        yield f"\n```\n{_replace_backticks(card.code)}\n```"
    for step in card.after_code:
        yield f"\n{_escape_step(step)}"
    for paragraph in card.paragraphs:
        yield f"\n\n{_escape_markdown(paragraph)}"


def _view(card: Card, *, with_link: bool) -> ui.View | None:
    rows: list[list[ui.Button[ui.View]]] = [
        [_button(button) for button in row if button.action] for row in card.buttons
    ]
    if with_link and card.link is not None:
        rows.insert(0, [ui.Button(label=truncate(card.link.label, MAX_LABEL_CHARS), url=card.link.url)])
    rows = [row for row in rows if row]
    if len(rows) > MAX_ROWS:
        all_buttons = [button for row in rows for button in row][: MAX_ROWS * MAX_BUTTONS_PER_ROW]
        rows = [
            all_buttons[start : start + MAX_BUTTONS_PER_ROW]
            for start in range(0, len(all_buttons), MAX_BUTTONS_PER_ROW)
        ]
    if not rows:
        return None
    view = ui.View(timeout=None)
    for number, row in enumerate(rows):
        for button in row:
            button.row = number
            view.add_item(button)
    # The library must not track the view, because any process may handle the presses.
    view.stop()
    return view


def _button(button: Button) -> ui.Button[ui.View]:
    label = truncate(button.label, MAX_LABEL_CHARS)
    return ui.Button(label=label, custom_id=button.action, style=_STYLES[button.tone])


def _escape_markdown(text: str) -> str:
    escaped = _replace_backticks(text).translate(_MARKDOWN_ESCAPES).replace("://", _UNLINKED_SCHEME_SEPARATOR)
    # https://docs.discord.com/developers/reference#message-formatting
    return replace_time_marks(escaped, r"<t:\1:\2>")


def _escape_step(step: str) -> str:
    """Escape a numbered step. Discord would show it as an indented list, which needs more lines."""
    return _escape_markdown(step).replace(".", "\\.", 1)


def _inline_code(text: str) -> str:
    return f"`{_replace_backticks(text)}`" if text.strip() else "–"


def _replace_backticks(text: str) -> str:
    # Use a modifier letter: it looks like a backtick, but does not end the code.
    return text.replace("`", "\u02cb")
