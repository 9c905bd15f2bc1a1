"""Turn bytes from a terminal into lines: editing keys, bracketed paste, control sequences (ECMA-48 §5.4)."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from typing import Literal

# Four times the length that the service accepts for an authorization response.
MAX_LINE_CHARS = 65_536
_PASTE_START, _PASTE_END = "200~", "201~"
_MAX_SEQUENCE_CHARS = 32

ParserState = Literal["text", "escape", "sequence", "third", "string"]
# The characters after ESC: CSI, SS3, and OSC, DCS, PM, APC, SOS (ECMA-48 section 8.3).
_STATE_AFTER_ESCAPE: Mapping[str, ParserState] = {
    "[": "sequence",
    "O": "third",
    **dict.fromkeys("]P^_X", "string"),
}


class LineEditor:
    """Assembles lines from bytes. Drops characters beyond `max_chars` in a line."""

    def __init__(self, max_chars: int = MAX_LINE_CHARS) -> None:
        self._max_chars = max_chars
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text: list[str] = []
        self._state: ParserState = "text"
        self._sequence = ""
        self._in_paste = False
        self._after_return = False
        self._is_ended = False

    @property
    def character_count(self) -> int:
        """The number of characters in the current line."""
        return len(self._text)

    def feed(self, data: bytes) -> list[str | None]:
        """Add bytes and return the lines that they end. None stands for Ctrl-D and is the last item."""
        lines: list[str | None] = []
        for character in self._decoder.decode(data):
            if self._is_ended:
                break
            if character == "\n" and self._after_return:
                self._after_return = False
                continue
            self._after_return = character == "\r"
            if self._state == "text" or character in "\r\n":
                self._state = "text"
                self._process_character(character, lines)
            else:
                self._skip_sequence(character, lines)
        return lines

    def finish(self) -> list[str | None]:
        """Return the unfinished line, if any, and None. Call it at the end of the input."""
        return [self._take_line(), None] if self._text else [None]

    def _process_character(self, character: str, lines: list[str | None]) -> None:
        if character == "\x1b":
            self._state = "escape"
        elif character in "\r\n" and not self._in_paste:
            lines.append(self._take_line())
        elif character in "\r\n":
            self._append("\n")
        elif character == "\t" or (character >= " " and not "\x7f" <= character <= "\x9f"):
            self._append(character)
        elif not self._in_paste:
            self._apply_editing_key(character, lines)

    def _apply_editing_key(self, character: str, lines: list[str | None]) -> None:
        if character in "\x7f\b":
            del self._text[-1:]
        elif character == "\x15":  # Ctrl-U
            self._text.clear()
        elif character == "\x04":  # Ctrl-D
            self._is_ended = True
            lines.append(None)

    def _skip_sequence(self, character: str, lines: list[str | None]) -> None:
        """Drop one character of a control sequence and update the state."""
        if character == "\x1b":
            self._state = "escape"
        elif self._state == "escape":
            self._sequence = ""
            self._state = _STATE_AFTER_ESCAPE.get(character, "text")
            # The user pressed Escape, then another key: process that key. ESC and a backslash end a string.
            if self._state == "text" and character != "\\":
                self._process_character(character, lines)
        elif self._state == "sequence":
            self._sequence += character
            if "@" <= character <= "~" or len(self._sequence) > _MAX_SEQUENCE_CHARS:
                self._state = "text"
                if self._sequence in {_PASTE_START, _PASTE_END}:
                    self._in_paste = self._sequence == _PASTE_START
        elif self._state == "third" or character == "\a":
            self._state = "text"

    def _append(self, character: str) -> None:
        if len(self._text) < self._max_chars:
            self._text.append(character)

    def _take_line(self) -> str:
        text = "".join(self._text)
        self._text.clear()
        return text
