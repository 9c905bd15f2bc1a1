"""Turn bytes from a terminal into text: editing keys, bracketed paste, control sequences (ECMA-48 §5.4).

Many terminals do not mark a paste, and send each of its line breaks as Enter. So a line break ends the text
only if no other bytes follow for a moment: bytes that arrive together are one paste.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Mapping
from typing import Literal

# Four times the length that the service accepts for an authorization response.
MAX_LINE_CHARS = 65_536
_PASTE_START, _PASTE_END = "200~", "201~"
_MAX_SEQUENCE_CHARS = 32
# Without paste marks, Enter ends the text if nothing follows for this time. The longer time is for long
# texts: a slow connection delivers a long paste in parts.
PASTE_PAUSE_SECONDS, TYPING_PAUSE_SECONDS = 0.5, 0.05
_MAX_TYPED_CHARS = 20
# If the end mark of a paste was lost, an Enter key that comes alone after this time ends the paste.
LOST_MARK_SECONDS = 1.0

# Ctrl and a key, as kitty (CSI u) and xterm (modifyOtherKeys) send it. The modifier is 1 + a bit mask:
# shift 1, alt 2, ctrl 4, super, hyper, meta, caps lock 64, num lock 128. Event type 3 is a release.
# https://sw.kovidgoyal.net/kitty/keyboard-protocol/
_CSI_U = re.compile(r"(\d{1,7})(?::\d*)*(?:;(\d{0,3})(?::(\d))?)?(?:;([\d:]+))?u")
_MODIFY_OTHER_KEYS = re.compile(r"27;(\d{1,3});(\d{1,7})~")
_CTRL_BIT, _LOCK_BITS, _SHIFT_BIT, _KEY_RELEASE = 4, 64 | 128, 1, "3"
_EDITING_KEYS = "\r\t\x7f\b"
_KEYPAD_ENTER = 57414

ParserState = Literal["text", "escape", "sequence", "third", "string"]
# The characters after ESC: CSI, SS3, and OSC, DCS, PM, APC, SOS (ECMA-48 section 8.3).
_STATE_AFTER_ESCAPE: Mapping[str, ParserState] = {
    "[": "sequence",
    "O": "third",
    **dict.fromkeys("]P^_X", "string"),
}


class LineEditor:
    """Assembles text from bytes. Drops characters beyond `max_chars`.

    `feed` returns the texts that are complete. If `is_complete` is then True, and no byte follows for
    `pause_seconds`, the rest is complete too: call `take_text`.
    """

    def __init__(self, max_chars: int = MAX_LINE_CHARS) -> None:
        self._max_chars = max_chars
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text: list[str] = []
        self._state: ParserState = "text"
        self._sequence = ""
        self._in_paste = False
        # True if the end mark of a paste came last: the Enter key after it ends the text at once.
        self._is_paste_ended = False
        self._after_return = False
        self._finished: list[str] = []
        # True if Enter was the last key, and may be a line break of a paste.
        self.is_complete = False
        # True after Ctrl-D.
        self.is_ended = False
        # Ctrl-C, Ctrl-Z and Ctrl-\\ that arrived as control sequences: the terminal sends no signal for them.
        self.signal_keys: list[str] = []

    @property
    def character_count(self) -> int:
        """The number of characters in the current text."""
        return len(self._text) - (self.is_complete and self._text[-1:] == ["\n"])

    @property
    def pause_seconds(self) -> float:
        """The text counts as complete after this time without another byte."""
        return TYPING_PAUSE_SECONDS if len(self._text) <= _MAX_TYPED_CHARS else PASTE_PAUSE_SECONDS

    def feed(self, data: bytes, *, idle_seconds: float = 0.0) -> list[str]:
        """Add bytes that arrived `idle_seconds` after the previous ones. Return the complete texts."""
        if self._in_paste and idle_seconds >= LOST_MARK_SECONDS and data in {b"\r", b"\n"}:
            self._in_paste, self._is_paste_ended = False, True
        for character in self._decoder.decode(data):
            if self.is_ended:
                break
            if character == "\n" and self._after_return:
                self._after_return = False
                continue
            self._after_return = character == "\r"
            if self._state == "text" or character in "\r\n":
                self._state = "text"
                self._process_character(character)
            else:
                self._skip_sequence(character)
        finished, self._finished = self._finished, []
        return finished

    def take_text(self) -> str | None:
        """Remove and return the text without its last line break, None if there is none."""
        if not self._text and not self.is_complete:
            return None
        text = "".join(self._text)
        self._text.clear()
        if self.is_complete:
            self.is_complete = False
            text = text.removesuffix("\n")
        return text

    def _process_character(self, character: str) -> None:
        if character == "\x1b":
            self._state = "escape"
        elif character in "\r\n":
            if self._is_paste_ended:
                self._is_paste_ended = False
                self._finished.append("".join(self._text))
                self._text.clear()
            else:
                self._append("\n")
                self.is_complete = not self._in_paste
        elif character == "\t" or (character >= " " and not "\x7f" <= character <= "\x9f"):
            self._append(character)
        elif not self._in_paste:
            self._apply_editing_key(character)

    def _apply_editing_key(self, character: str) -> None:
        if character in "\x7f\b":
            del self._text[-1:]
        elif character in "\x15\x17":  # Ctrl-U, Ctrl-W: an address has no words
            self._text.clear()
        elif character == "\x04":  # Ctrl-D: unfinished text does not count
            self.is_ended = True
            if not self.is_complete:
                self._text.clear()
            return
        elif character in "\x03\x1a\x1c":
            self.signal_keys.append(character)
            return
        else:
            return
        self.is_complete = False

    def _skip_sequence(self, character: str) -> None:
        """Drop one character of a control sequence and update the state."""
        if character == "\x1b":
            self._state = "escape"
        elif self._state == "escape":
            self._sequence = ""
            self._state = _STATE_AFTER_ESCAPE.get(character, "text")
            # The user pressed Escape, then another key: process that key. ESC and a backslash end a string.
            if self._state == "text" and character != "\\":
                self._process_character(character)
        elif self._state == "sequence":
            self._sequence += character
            if "@" <= character <= "~" or len(self._sequence) > _MAX_SEQUENCE_CHARS:
                self._state = "text"
                self._apply_sequence(self._sequence)
        elif self._state == "third" or character == "\a":
            self._state = "text"

    def _apply_sequence(self, sequence: str) -> None:
        if sequence in {_PASTE_START, _PASTE_END}:
            self._in_paste = sequence == _PASTE_START
            self._is_paste_ended = not self._in_paste
        elif not self._in_paste:
            for key in _read_key(sequence):
                self._process_character(key)

    def _append(self, character: str) -> None:
        self.is_complete = self._is_paste_ended = False
        if len(self._text) < self._max_chars:
            self._text.append(character)


def _read_key(sequence: str) -> str:
    """Return the text of a key that a terminal sent as a control sequence, "" for any other sequence."""
    if match := _CSI_U.fullmatch(sequence):
        code, modifiers, event, text = match.groups()
    elif match := _MODIFY_OTHER_KEYS.fullmatch(sequence):
        (modifiers, code), event, text = match.groups(), None, None
    else:
        return ""
    mask = (int(modifiers or 1) - 1) & ~_LOCK_BITS
    points = [int(point) for point in (text or code).split(":") if point]
    if event == _KEY_RELEASE or any(point > sys.maxunicode for point in points):
        return ""
    key = "\r" if int(code) == _KEYPAD_ENTER else "".join(map(chr, points))
    if mask & _CTRL_BIT:
        return chr(ord(key.upper()) & 0x1F) if re.fullmatch(r"[@-_a-z]", key) else ""
    if mask & ~_SHIFT_BIT:
        return ""
    return key if key in _EDITING_KEYS or key.isprintable() else ""
