"""Parsers for `parse_mode` MarkdownV2 and the legacy Markdown."""

from __future__ import annotations

import re

from tests.parts.bot_api.markup import OpenMark, Output, bytes_before, cannot_parse
from tests.parts.bot_api.values import Entity

RESERVED = "_*[]()~`>#+-=|{}.!"
CLOSING_MARKS = {
    "Bold": ("*", "bold"),
    "Italic": ("_", "italic"),
    "Underline": ("__", "underline"),
    "Strikethrough": ("~", "strikethrough"),
    "Spoiler": ("||", "spoiler"),
    "Code": ("`", "code"),
    "Pre": ("```", "pre"),
    "PreCode": ("```", "pre"),
    "TextUrl": ("]", "text_link"),
    "CustomEmoji": ("]", "custom_emoji"),
}
VERBATIM = frozenset({"Code", "Pre", "PreCode"})
# Longer marks first.
OPENING_MARKS = (
    ("```", "Pre"),
    ("__", "Underline"),
    ("||", "Spoiler"),
    ("![", "CustomEmoji"),
    ("`", "Code"),
    ("*", "Bold"),
    ("_", "Italic"),
    ("~", "Strikethrough"),
    ("[", "TextUrl"),
)
LEGACY_MARKS = {"*": "bold", "_": "italic", "`": "code", "[": "text_link"}


class _MarkdownV2Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.output = Output()
        self.open_marks: list[OpenMark] = []

    def parse(self) -> tuple[str, tuple[Entity, ...]]:
        while self.at < len(self.text):
            self._parse_next()
        self._end_quote()
        if self.open_marks:
            raise self._missing_end_error(self.open_marks[-1])
        return self.output.result()

    def _missing_end_error(self, opened: OpenMark) -> Exception:
        return cannot_parse(f"Can't find end of {opened.kind} entity at byte offset {opened.byte_offset}")

    def _parse_next(self) -> None:
        text, at = self.text, self.at
        top = self.open_marks[-1].kind if self.open_marks else ""
        if top not in VERBATIM and (at == 0 or text[at - 1] in "\r\n") and self._parse_line_start():
            return
        if text[at] == "\\" and at + 1 < len(text) and 0 < ord(text[at + 1]) < 127:
            self.output.write(text[at + 1])
            self.at += 2
        elif text[at] not in ("`" if top in VERBATIM else RESERVED):
            self.output.write(text[at])
            self.at += 1
        elif self._is_end(top):
            self._close_mark(self.open_marks.pop())
        elif not self._try_make_quote_expandable():
            self._begin_mark(top)

    def _parse_line_start(self) -> bool:
        """Continue, begin or end a quote at the start of a line. Return True if a mark was read."""
        text, is_in_quote = self.text, any(opened.kind == "BlockQuote" for opened in self.open_marks)
        if text.startswith("**>", self.at):
            self._end_quote()
            self._open_mark("BlockQuote", 3)
            return True
        if text[self.at] == ">":
            if is_in_quote:
                self.at += 1
            else:
                self._open_mark("BlockQuote", 1)
            return True
        if is_in_quote:
            self._end_quote()
        return False

    def _end_quote(self) -> None:
        if not any(opened.kind == "BlockQuote" for opened in self.open_marks):
            return
        opened = self.open_marks.pop()
        if opened.kind != "BlockQuote":
            raise self._missing_end_error(opened)
        self.output.add_entity(f"{opened.argument}blockquote", opened.start)

    def _try_make_quote_expandable(self) -> bool:
        is_in_quote = bool(self.open_marks) and self.open_marks[-1].kind == "BlockQuote"
        if is_in_quote and re.compile(r"\|\|(?:\r?\n(?!>)|\Z)").match(self.text, self.at):
            self.open_marks[-1].argument = "expandable_"
            self.at += 2
            return True
        return False

    def _is_end(self, top: str) -> bool:
        if not top or top == "BlockQuote":
            return False
        mark = CLOSING_MARKS[top][0]
        is_underline = top == "Italic" and self.text.startswith("__", self.at)
        return self.text.startswith(mark, self.at) and not is_underline

    def _open_mark(self, kind: str, length: int, argument: str = "") -> None:
        begin = bytes_before(self.text, self.at)
        self.open_marks.append(OpenMark(kind, begin, self.output.size, argument))
        self.at += length

    def _begin_mark(self, top: str) -> None:
        for mark, kind in OPENING_MARKS:
            if self.text.startswith(mark, self.at) and (top not in VERBATIM or kind == "Code"):
                if kind == "Pre":
                    self._begin_pre()
                else:
                    self._open_mark(kind, len(mark))
                return
        character = self.text[self.at]
        raise cannot_parse(f"Character '{character}' is reserved and must be escaped with the preceding '\\'")

    def _begin_pre(self) -> None:
        language = re.compile(r"[^\s`]+(?=\s)").match(self.text, self.at + 3)
        self._open_mark("PreCode" if language else "Pre", 3, language[0] if language else "")
        self.at += len(language[0]) if language else 0
        newline = re.compile(r"\r\n|\n\r|\n|\r").match(self.text, self.at)
        self.at += len(newline[0]) if newline else 0

    def _close_mark(self, opened: OpenMark) -> None:
        mark, kind = CLOSING_MARKS[opened.kind]
        self.at += len(mark)
        if kind == "text_link":
            url = self._read_url("a URL")
            self.output.add_link(opened.start, self.output.text_from(opened.start) if url is None else url)
        elif kind == "custom_emoji":
            self._close_emoji(opened)
        elif opened.argument:
            self.output.add_entity(kind, opened.start, language=opened.argument)
        else:
            self.output.add_entity(kind, opened.start)

    def _close_emoji(self, opened: OpenMark) -> None:
        url = self._read_url("a custom emoji URL")
        if url is None:
            raise cannot_parse("Custom emoji entity must contain a tg://emoji URL")
        emoji_link = re.fullmatch(r"tg:(?://)?emoji/?\?(?:.*&)?id=([1-9]\d*)(?:[&#].*)?", url, re.IGNORECASE)
        if emoji_link is None:
            raise cannot_parse("Custom emoji URL must have an emoji identifier")
        self.output.add_entity("custom_emoji", opened.start, custom_emoji_id=emoji_link[1])

    def _read_url(self, what: str) -> str | None:
        if not self.text.startswith("(", self.at):
            return None
        begin = self.at + 1
        url = re.compile(r"\(((?:\\.|[^\\)])*)\)", re.DOTALL).match(self.text, self.at)
        if url is None:
            raise cannot_parse(f"Can't find end of {what} at byte offset {bytes_before(self.text, begin)}")
        self.at = url.end()
        return re.sub(r"\\([\x01-\x7e])", r"\1", url[1])


def read_markdown_v2(text: str) -> tuple[str, tuple[Entity, ...]]:
    """Return the text without markup, and its entities; raise ApiError."""
    return _MarkdownV2Parser(text).parse()


def read_legacy_markdown(text: str) -> tuple[str, tuple[Entity, ...]]:
    """Parse legacy Markdown, which cannot nest; return text and entities. Raise ApiError."""
    output, at = Output(), 0
    while at < len(text):
        character = text[at]
        if character == "\\" and at + 1 < len(text) and text[at + 1] in "_*`[":
            output.write(text[at + 1])
            at += 2
        elif character not in LEGACY_MARKS:
            output.write(character)
            at += 1
        else:
            at = _read_legacy_entity(text, at, output)
    return output.result()


def _read_legacy_entity(text: str, begin: int, output: Output) -> int:
    mark = "```" if text.startswith("```", begin) else text[begin]
    end = text.find("]" if mark == "[" else mark, begin + len(mark))
    if end < 0:
        raise cannot_parse(
            f"Can't find end of the entity starting at byte offset {bytes_before(text, begin)}"
        )
    at = output.size
    inner = text[begin + len(mark) : end]
    language = re.match(r"(\w+)\n", inner) if mark == "```" else None
    if mark == "```":
        inner = inner[len(language[0]) :] if language else inner.removeprefix("\n")
    output.write(inner)
    after = end + (1 if mark == "[" else len(mark))
    if mark != "[":
        extra: dict[str, object] = {"language": language[1]} if language else {}
        output.add_entity("pre" if mark == "```" else LEGACY_MARKS[mark], at, **extra)
    elif text.startswith("(", after) and (close := text.find(")", after)) > 0:
        output.add_link(at, text[after + 1 : close])
        return close + 1
    return after
