"""Parsers for `parse_mode` MarkdownV2 and the legacy Markdown."""

from __future__ import annotations

import re

from tests.parts.bot_api.marks import Open, Output, bytes_before, cannot_parse
from tests.parts.bot_api.values import Entity

RESERVED = "_*[]()~`>#+-=|{}.!"
SIMPLE = {
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
BEGINNINGS = (
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
OLD_MARKS = {"*": "bold", "_": "italic", "`": "code", "[": "text_link"}


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.output = Output()
        self.nested: list[Open] = []

    def read(self) -> tuple[str, tuple[Entity, ...]]:
        while self.at < len(self.text):
            self._step()
        self._end_quote()
        if self.nested:
            raise self._unended(self.nested[-1])
        return self.output.result()

    def _unended(self, opened: Open) -> Exception:
        return cannot_parse(f"Can't find end of {opened.kind} entity at byte offset {opened.begin}")

    def _step(self) -> None:
        text, at = self.text, self.at
        top = self.nested[-1].kind if self.nested else ""
        if top not in VERBATIM and (at == 0 or text[at - 1] in "\r\n") and self._line():
            return
        if text[at] == "\\" and at + 1 < len(text) and 0 < ord(text[at + 1]) < 127:
            self.output.write(text[at + 1])
            self.at += 2
        elif text[at] not in ("`" if top in VERBATIM else RESERVED):
            self.output.write(text[at])
            self.at += 1
        elif self._ends(top):
            self._close(self.nested.pop())
        elif not self._quote_becomes_expandable():
            self._begin(top)

    def _line(self) -> bool:
        """Continue, begin or end a quote at the start of a line. Return True if this read a mark."""
        text, quoted = self.text, any(opened.kind == "BlockQuote" for opened in self.nested)
        if text.startswith("**>", self.at):
            self._end_quote()
            self._open("BlockQuote", 3)
            return True
        if text[self.at] == ">":
            if quoted:
                self.at += 1
            else:
                self._open("BlockQuote", 1)
            return True
        if quoted:
            self._end_quote()
        return False

    def _end_quote(self) -> None:
        if not any(opened.kind == "BlockQuote" for opened in self.nested):
            return
        opened = self.nested.pop()
        if opened.kind != "BlockQuote":
            raise self._unended(opened)
        self.output.close(f"{opened.argument}blockquote", opened.at)

    def _quote_becomes_expandable(self) -> bool:
        last = bool(self.nested) and self.nested[-1].kind == "BlockQuote"
        if last and re.compile(r"\|\|(?:\r?\n(?!>)|\Z)").match(self.text, self.at):
            self.nested[-1].argument = "expandable_"
            self.at += 2
            return True
        return False

    def _ends(self, top: str) -> bool:
        if not top or top == "BlockQuote":
            return False
        mark = SIMPLE[top][0]
        doubled = top == "Italic" and self.text.startswith("__", self.at)
        return self.text.startswith(mark, self.at) and not doubled

    def _open(self, kind: str, length: int, argument: str = "") -> None:
        begin = bytes_before(self.text, self.at)
        self.nested.append(Open(kind, begin, self.output.size, argument))
        self.at += length

    def _begin(self, top: str) -> None:
        for mark, kind in BEGINNINGS:
            if self.text.startswith(mark, self.at) and (top not in VERBATIM or kind == "Code"):
                if kind == "Pre":
                    self._begin_pre()
                else:
                    self._open(kind, len(mark))
                return
        character = self.text[self.at]
        raise cannot_parse(f"Character '{character}' is reserved and must be escaped with the preceding '\\'")

    def _begin_pre(self) -> None:
        language = re.compile(r"[^\s`]+(?=\s)").match(self.text, self.at + 3)
        self._open("PreCode" if language else "Pre", 3, language[0] if language else "")
        self.at += len(language[0]) if language else 0
        newline = re.compile(r"\r\n|\n\r|\n|\r").match(self.text, self.at)
        self.at += len(newline[0]) if newline else 0

    def _close(self, opened: Open) -> None:
        mark, kind = SIMPLE[opened.kind]
        self.at += len(mark)
        if kind == "text_link":
            url = self._url("a URL")
            self.output.link(opened.at, self.output.since(opened.at) if url is None else url)
        elif kind == "custom_emoji":
            self._close_emoji(opened)
        elif opened.argument:
            self.output.close(kind, opened.at, language=opened.argument)
        else:
            self.output.close(kind, opened.at)

    def _close_emoji(self, opened: Open) -> None:
        url = self._url("a custom emoji URL")
        if url is None:
            raise cannot_parse("Custom emoji entity must contain a tg://emoji URL")
        found = re.fullmatch(r"tg:(?://)?emoji/?\?(?:.*&)?id=([1-9]\d*)(?:[&#].*)?", url, re.IGNORECASE)
        if found is None:
            raise cannot_parse("Custom emoji URL must have an emoji identifier")
        self.output.close("custom_emoji", opened.at, custom_emoji_id=found[1])

    def _url(self, what: str) -> str | None:
        if not self.text.startswith("(", self.at):
            return None
        begin = self.at + 1
        found = re.compile(r"\(((?:\\.|[^\\)])*)\)", re.DOTALL).match(self.text, self.at)
        if found is None:
            raise cannot_parse(f"Can't find end of {what} at byte offset {bytes_before(self.text, begin)}")
        self.at = found.end()
        return re.sub(r"\\([\x01-\x7e])", r"\1", found[1])


def read_markdown_v2(text: str) -> tuple[str, tuple[Entity, ...]]:
    """Return the text without markup, and its entities; raise ApiError."""
    return _Reader(text).read()


def read_markdown(text: str) -> tuple[str, tuple[Entity, ...]]:
    """Parse legacy Markdown, which cannot nest; return text and entities. Raise ApiError."""
    output, at = Output(), 0
    while at < len(text):
        character = text[at]
        if character == "\\" and at + 1 < len(text) and text[at + 1] in "_*`[":
            output.write(text[at + 1])
            at += 2
        elif character not in OLD_MARKS:
            output.write(character)
            at += 1
        else:
            at = _old_entity(text, at, output)
    return output.result()


def _old_entity(text: str, begin: int, output: Output) -> int:
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
        output.close("pre" if mark == "```" else OLD_MARKS[mark], at, **extra)
    elif text.startswith("(", after) and (close := text.find(")", after)) > 0:
        output.link(at, text[after + 1 : close])
        return close + 1
    return after
