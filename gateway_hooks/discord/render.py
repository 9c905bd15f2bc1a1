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

from gateway_hooks.dialog.cards import Button, Card, short
from gateway_hooks.dialog.messages import Words

MAX_TITLE_CHARS = 256
MAX_DESCRIPTION_CHARS = 4096
MAX_EMBED_CHARS = 6000
MAX_LABEL_CHARS = 80
MAX_LINK_CHARS = 512
# Beside all that a prompt says, within the 6000; a longer address comes as a file.
MAX_ADDRESS_CHARS = 3000
MAX_WINDOW_CHARS = 45
MAX_INPUT_CHARS = 4000
MAX_ROWS, MAX_IN_ROW = 5, 5

PICTURE, ADDRESS = "qr.png", "address.txt"
NOBODY = discord.AllowedMentions.none()

_COLOURS = {"plain": 0x5865F2, "good": 0x248046, "bad": 0xDA373C}
_STYLES = {
    "plain": discord.ButtonStyle.secondary,
    "good": discord.ButtonStyle.success,
    "bad": discord.ButtonStyle.danger,
}
# What would be markup, a mention, an emoji or a masked link.
_MARKS = str.maketrans({mark: f"\\{mark}" for mark in "\\*_~|[]<>"})
# Nothing but a Link is a link: what a server says might look like one.
_NO_LINK = ":\u2060//"


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a message is made of; `view` is None where there is nothing to press.."""

    embeds: list[discord.Embed]
    view: ui.View | None
    files: list[discord.File] = field(default_factory=list[discord.File])


def drawn(card: Card, png: bytes | None = None) -> Drawn:
    """Draw a card, with a picture below it."""
    opens = card.link is not None and len(card.link.url) <= MAX_LINK_CHARS
    embeds = _embeds(card, with_link=not opens)
    files: list[discord.File] = []
    if png is not None:
        embeds[-1].set_image(url=f"attachment://{PICTURE}")
        files.append(discord.File(io.BytesIO(png), PICTURE))
    if card.link is not None and len(card.link.url) > MAX_ADDRESS_CHARS:
        files.append(discord.File(io.BytesIO(card.link.url.encode()), ADDRESS))
    return Drawn(embeds, _view(card, with_link=opens), files)


def window(action: str, words: Words) -> ui.Modal:
    """Return the window in which an answer is typed; what is sent off comes back under `action`.

    Nothing waits for it in this process: whichever runs then takes it.
    """
    modal = ui.Modal(title=short(words.form_title, MAX_WINDOW_CHARS), custom_id=action)
    answer = ui.TextInput[ui.Modal](custom_id="answer", max_length=MAX_INPUT_CHARS)
    modal.add_item(ui.Label[ui.Modal](text=short(words.form_label, MAX_WINDOW_CHARS), component=answer))
    modal.stop()
    return modal


def typed(components: object) -> str:
    """Return what was typed into a window that comes back; "" where there is nothing of ours in it."""
    if isinstance(components, list):
        return next((text for each in cast("list[object]", components) if (text := typed(each))), "")
    if not isinstance(components, dict):
        return ""
    held = cast("dict[str, object]", components)
    if held.get("custom_id") == "answer" and isinstance(held.get("value"), str):
        return str(held["value"])
    return typed(held.get("component")) or typed(held.get("components"))


def _embeds(card: Card, *, with_link: bool) -> list[discord.Embed]:
    colour = _COLOURS[card.tone]
    title = short(_plain(card.title), MAX_TITLE_CHARS)
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
        yield f"\n**{_plain(row.label)}:** {_code(row.value) if row.quoted else _plain(row.value)}"
    if with_link and card.link is not None:
        # In angle brackets it is still a link, and no punctuation beside it becomes part of it.
        is_short = len(card.link.url) <= MAX_ADDRESS_CHARS
        yield f"\n\n**{_plain(card.link.label)}:**\n{f'<{card.link.url}>' if is_short else f'`{ADDRESS}`'}"
    for paragraph in card.paragraphs:
        yield f"\n\n{_plain(paragraph)}"
    if card.code:
        yield f"\n```\n{_without_ticks(card.code)}\n```"
    for paragraph in card.after_code:
        yield f"\n{_plain(paragraph)}\n"


def _view(card: Card, *, with_link: bool) -> ui.View | None:
    rows: list[list[ui.Button[ui.View]]] = [
        [_button(button) for button in row if button.action] for row in card.buttons
    ]
    if with_link and card.link is not None:
        rows.insert(0, [ui.Button(label=short(card.link.label, MAX_LABEL_CHARS), url=card.link.url)])
    rows = [row for row in rows if row]
    if len(rows) > MAX_ROWS:
        everything = [button for row in rows for button in row][: MAX_ROWS * MAX_IN_ROW]
        rows = [everything[at : at + MAX_IN_ROW] for at in range(0, len(everything), MAX_IN_ROW)]
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
    label = short(button.label, MAX_LABEL_CHARS)
    return ui.Button(label=label, custom_id=button.action, style=_STYLES[button.tone])


def _plain(text: str) -> str:
    return _without_ticks(text).translate(_MARKS).replace("://", _NO_LINK)


def _code(text: str) -> str:
    return f"`{_without_ticks(text)}`" if text.strip() else "–"


def _without_ticks(text: str) -> str:
    # A modifier letter that looks the same, and ends no code.
    return text.replace("`", "\u02cb")
