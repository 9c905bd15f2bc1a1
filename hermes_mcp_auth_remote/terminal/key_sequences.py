"""Bytes from a terminal -> lines: editing keys, bracketed paste, control sequences (ECMA-48 §5.4). Pure."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from typing import Literal

# Four times what any authorization response has; the reader of the text refuses it long before.
MAX_CHARS = 65_536
_PASTE_BEGINS, _PASTE_ENDS = "200~", "201~"
_LONGEST_SEQUENCE = 32

Mode = Literal["text", "escape", "sequence", "third", "string"]
# What comes after ESC: CSI, SS3, and OSC, DCS, PM, APC, SOS (ECMA-48 section 8.3).
_INTRODUCERS: Mapping[str, Mode] = {"[": "sequence", "O": "third", **dict.fromkeys("]P^_X", "string")}


class Typing:
    """Takes bytes as they come and gives out whole lines; what does not fit into a line is dropped."""

    def __init__(self, most_characters: int = MAX_CHARS) -> None:
        self._most = most_characters
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text: list[str] = []
        self._mode: Mode = "text"
        self._sequence = ""
        self._in_paste = False
        self._after_return = False
        self._ended = False

    @property
    def characters(self) -> int:
        """How many characters the line has so far."""
        return len(self._text)

    def feed(self, data: bytes) -> list[str | None]:
        """Return the lines that these bytes end; None for Ctrl-D, after which nothing more comes."""
        lines: list[str | None] = []
        for character in self._decoder.decode(data):
            if self._ended:
                break
            if character == "\n" and self._after_return:
                self._after_return = False
                continue
            self._after_return = character == "\r"
            if self._mode == "text" or character in "\r\n":
                self._mode = "text"
                self._take(character, lines)
            else:
                self._skip(character, lines)
        return lines

    def end(self) -> list[str | None]:
        """Return what is left when no more bytes come: the line without an end, if any, and None."""
        return [self._line(), None] if self._text else [None]

    def _take(self, character: str, lines: list[str | None]) -> None:
        if character == "\x1b":
            self._mode = "escape"
        elif character in "\r\n" and not self._in_paste:
            lines.append(self._line())
        elif character in "\r\n":
            self._add("\n")
        elif character == "\t" or (character >= " " and not "\x7f" <= character <= "\x9f"):
            self._add(character)
        elif not self._in_paste:
            self._edit(character, lines)

    def _edit(self, character: str, lines: list[str | None]) -> None:
        if character in "\x7f\b":
            del self._text[-1:]
        elif character == "\x15":  # Ctrl-U
            self._text.clear()
        elif character == "\x04":  # Ctrl-D
            self._ended = True
            lines.append(None)

    def _skip(self, character: str, lines: list[str | None]) -> None:
        """Follow a control sequence to its end, dropping it."""
        if character == "\x1b":
            self._mode = "escape"
        elif self._mode == "escape":
            self._sequence = ""
            self._mode = _INTRODUCERS.get(character, "text")
            # Any other key after a lone Escape is meant; the backslash ends a string.
            if self._mode == "text" and character != "\\":
                self._take(character, lines)
        elif self._mode == "sequence":
            self._sequence += character
            if "@" <= character <= "~" or len(self._sequence) > _LONGEST_SEQUENCE:
                self._mode = "text"
                if self._sequence in {_PASTE_BEGINS, _PASTE_ENDS}:
                    self._in_paste = self._sequence == _PASTE_BEGINS
        elif self._mode == "third" or character == "\a":
            self._mode = "text"

    def _add(self, character: str) -> None:
        if len(self._text) < self._most:
            self._text.append(character)

    def _line(self) -> str:
        text = "".join(self._text)
        self._text.clear()
        return text
