"""A card as Discord shows it: embeds, buttons, and a window for an answer. Values in; nothing is sent.

Limits: https://docs.discord.com/developers/resources/message#embed-object-embed-limits and
https://docs.discord.com/developers/components/reference. Text of others stands in inline code, where Discord
reads neither links nor mentions nor markup.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import discord
from discord import ui

from gateway_hooks.dialog.cards import Button, Card, truncate
from gateway_hooks.dialog.messages import Messages

MAX_TITLE_CHARS = 256
MAX_DESCRIPTION_CHARS = 4096
MAX_EMBED_CHARS = 6000
MAX_LABEL_CHARS = 80
MAX_BUTTON_URL_CHARS = 512
# Beside all that a prompt says, within the 6000; a longer address comes as a file.
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
# What would be markup, a mention, an emoji or a masked link.
_MARKDOWN_ESCAPES = str.maketrans({mark: f"\\{mark}" for mark in "\\*_~|[]<>"})
# Nothing but a Link is a link: what a server says might look like one.
_UNLINKED_SCHEME_SEPARATOR = ":\u2060//"


@dataclass(frozen=True, slots=True)
class RenderedMessage:
    """What a message is made of; `view` is None where there is nothing to press.."""

    embeds: list[discord.Embed]
    view: ui.View | None
    files: list[discord.File] = field(default_factory=list[discord.File])


def render_card(card: Card, png: bytes | None = None) -> RenderedMessage:
    """Draw a card, with a picture below it."""
    opens = card.link is not None and len(card.link.url) <= MAX_BUTTON_URL_CHARS
    embeds = _embeds(card, with_link=not opens)
    files: list[discord.File] = []
    if png is not None:
        embeds[-1].set_image(url=f"attachment://{QR_FILE_NAME}")
        files.append(discord.File(io.BytesIO(png), QR_FILE_NAME))
    if card.link is not None and len(card.link.url) > MAX_URL_IN_TEXT_CHARS:
        files.append(discord.File(io.BytesIO(card.link.url.encode()), URL_FILE_NAME))
    return RenderedMessage(embeds, _view(card, with_link=opens), files)


def make_answer_modal(custom_id: str, messages: Messages) -> ui.Modal:
    """Return the window in which an answer is typed; what is sent off comes back under `action`.

    Nothing waits for it in this process: whichever runs then takes it.
    """
    modal = ui.Modal(title=truncate(messages.form_title, MAX_MODAL_TEXT_CHARS), custom_id=custom_id)
    answer = ui.TextInput[ui.Modal](custom_id="answer", max_length=MAX_INPUT_CHARS)
    modal.add_item(
        ui.Label[ui.Modal](text=truncate(messages.form_label, MAX_MODAL_TEXT_CHARS), component=answer)
    )
    modal.stop()
    return modal


def read_typed_answer(components: object) -> str:
    """Return what was typed into a window that comes back; "" where there is nothing of ours in it."""
    if isinstance(components, list):
        return next(
            (text for each in cast("list[object]", components) if (text := read_typed_answer(each))), ""
        )
    if not isinstance(components, dict):
        return ""
    held = cast("dict[str, object]", components)
    if held.get("custom_id") == "answer" and isinstance(held.get("value"), str):
        return str(held["value"])
    return read_typed_answer(held.get("component")) or read_typed_answer(held.get("components"))


def _embeds(card: Card, *, with_link: bool) -> list[discord.Embed]:
    colour = _COLOURS[card.tone]
    title = truncate(_escape_markdown(card.title), MAX_TITLE_CHARS)
    embeds = [discord.Embed(title=title, colour=colour)]
    room = MAX_EMBED_CHARS - len(title)
    text = ""
    for block in _blocks(card, with_link=with_link):
        room -= len(block)
        if room < 0:
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
    for row in card.rows:
        value = _inline_code(row.value) if row.is_quoted else _escape_markdown(row.value)
        yield f"\n**{_escape_markdown(row.label)}:** {value}"
    if with_link and card.link is not None:
        # In angle brackets it is still a link, and no punctuation beside it becomes part of it.
        is_short = len(card.link.url) <= MAX_URL_IN_TEXT_CHARS
        target = f"<{card.link.url}>" if is_short else f"`{URL_FILE_NAME}`"
        yield f"\n\n**{_escape_markdown(card.link.label)}:**\n{target}"
    for paragraph in card.paragraphs:
        yield f"\n\n{_escape_markdown(paragraph)}"
    if card.code:
        yield f"\n```\n{_replace_backticks(card.code)}\n```"
    for paragraph in card.after_code:
        yield f"\n{_escape_markdown(paragraph)}\n"


def _view(card: Card, *, with_link: bool) -> ui.View | None:
    rows: list[list[ui.Button[ui.View]]] = [
        [_button(button) for button in row if button.action] for row in card.buttons
    ]
    if with_link and card.link is not None:
        rows.insert(0, [ui.Button(label=truncate(card.link.label, MAX_LABEL_CHARS), url=card.link.url)])
    rows = [row for row in rows if row]
    if len(rows) > MAX_ROWS:
        everything = [button for row in rows for button in row][: MAX_ROWS * MAX_BUTTONS_PER_ROW]
        rows = [
            everything[at : at + MAX_BUTTONS_PER_ROW] for at in range(0, len(everything), MAX_BUTTONS_PER_ROW)
        ]
    if not rows:
        return None
    view = ui.View(timeout=None)
    for number, row in enumerate(rows):
        for button in row:
            button.row = number
            view.add_item(button)
    # The library keeps nothing of it: presses are heard whichever process drew the button.
    view.stop()
    return view


def _button(button: Button) -> ui.Button[ui.View]:
    label = truncate(button.label, MAX_LABEL_CHARS)
    return ui.Button(label=label, custom_id=button.action, style=_STYLES[button.tone])


def _escape_markdown(text: str) -> str:
    return _replace_backticks(text).translate(_MARKDOWN_ESCAPES).replace("://", _UNLINKED_SCHEME_SEPARATOR)


def _inline_code(text: str) -> str:
    return f"`{_replace_backticks(text)}`" if text.strip() else "–"


def _replace_backticks(text: str) -> str:
    # A modifier letter that looks the same, and ends no code.
    return text.replace("`", "\u02cb")
