"""Parse server-sent events (WHATWG HTML, section 9.2.6) from chunks of any size. Only the buffers do I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from hermes_mcp_auth_remote.bridge.buffers import MessageBuffer
from hermes_mcp_auth_remote.bridge.json_rpc import BYTE_ORDER_MARK

# The field names are shorter; a longer name belongs to an unknown field.
_MAX_NAME_BYTES = 16
# A longer id or event name is ignored: no server needs one, and an id is sent back to the server.
_MAX_VALUE_BYTES = 4096
# A server that names less would get so many requests that it, or this machine, has no time for others.
_MIN_RETRY_SECONDS = 0.1
_MAX_RETRY_SECONDS = 60.0
_BLANK_LINES = re.compile(rb"[\r\n]+")
_LINE_BREAK = re.compile(rb"[\r\n]")


@dataclass(slots=True)
class Event:
    """One event. `data` is the JSON text of a message; the receiver closes it."""

    data: MessageBuffer = field(default_factory=MessageBuffer)
    name: str = "message"
    has_data: bool = False


class SseParser:
    """Parses one stream. `last_event_id` and `retry_seconds` are for its resumption."""

    def __init__(self, last_event_id: str | None = None, retry_seconds: float | None = None) -> None:
        self.last_event_id = last_event_id
        self.retry_seconds = retry_seconds
        self._event = Event()
        # The name of the field on the current line, until its colon; then the value.
        self._name = bytearray()
        self._value: bytearray | None = None
        self._skips_blank = False
        self._was_carriage_return = False
        # The first bytes, until it is clear whether they are a byte order mark; then None.
        self._start: bytes | None = b""
        # The id of the incomplete event. After a break, the server must send that event again, so the id does
        # not count before the event is complete.
        self._pending_id = last_event_id

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Parse the next chunk and yield the events that it completes. Raises ResponseTooLarge."""
        if self._start is not None:
            chunk, self._start = self._start + chunk, None
            if chunk != BYTE_ORDER_MARK and BYTE_ORDER_MARK.startswith(chunk):
                self._start = chunk
                return
            chunk = chunk.removeprefix(BYTE_ORDER_MARK)
        position = 0
        while position < len(chunk):
            if self._was_carriage_return:
                self._was_carriage_return = False
                if chunk[position : position + 1] == b"\n":
                    position += 1
                    continue
            if not (self._name or self._event.has_data) and self._value is None:
                # Skip a run of blank lines, which a hostile server may send without end.
                blank_lines = _BLANK_LINES.match(chunk, position)
                if blank_lines is not None:
                    position = blank_lines.end()
                    self._was_carriage_return = chunk[position - 1 : position] == b"\r"
                    self._end_line()
                    continue
            # Search for both characters at once: two `find` calls would search the whole chunk for each line.
            line_break = _LINE_BREAK.search(chunk, position)
            end = len(chunk) if line_break is None else line_break.start()
            self._add(chunk[position:end])
            if line_break is None:
                break
            self._was_carriage_return = chunk[end : end + 1] == b"\r"
            position = end + 1
            if (event := self._end_line()) is not None:
                yield event

    def close(self) -> None:
        """Discard an incomplete event."""
        self._event.data.close()

    def successor(self) -> SseParser:
        """Close this parser, and return one for the stream that continues where this one ended."""
        self.close()
        return SseParser(self.last_event_id, self.retry_seconds)

    def _add(self, part: bytes) -> None:
        if self._value is None:
            name, colon, rest = part.partition(b":")
            if len(self._name) <= _MAX_NAME_BYTES:
                self._name += name[: _MAX_NAME_BYTES + 1]
            if not colon:
                return
            self._start_value()
            part = rest
        if part and self._skips_blank:
            part, self._skips_blank = part.removeprefix(b" "), False
        if bytes(self._name) == b"data":
            self._event.data.write(part)
        elif self._value is not None and len(self._value) <= _MAX_VALUE_BYTES:
            self._value += part[: _MAX_VALUE_BYTES + 1]

    def _start_value(self) -> None:
        self._value, self._skips_blank = bytearray(), True
        if bytes(self._name) == b"data":
            if self._event.has_data:
                # Lines of data are joined by a line feed; in JSON text that is whitespace.
                self._event.data.write(b"\n")
            self._event.has_data = True

    def _end_line(self) -> Event | None:
        is_blank = not self._name and self._value is None
        name, value = bytes(self._name), bytes(self._value or b"")
        if name == b"data" and self._value is None:
            self._start_value()
        self._name, self._value, self._skips_blank = bytearray(), None, False
        if is_blank:
            self.last_event_id = self._pending_id
            if self._event.has_data:
                event, self._event = self._event, Event()
                return event
            self._event.name = "message"
        elif len(value) <= _MAX_VALUE_BYTES:
            self._set_field(name, value.decode("utf-8", "replace"))
        return None

    def _set_field(self, name: bytes, value: str) -> None:
        if name == b"event":
            self._event.name = value or "message"
        elif name == b"id" and "\0" not in value:
            # An id that is no header value cannot be sent back.
            is_sendable = value.isprintable() and value == value.strip() and "\ufffd" not in value
            self._pending_id = (value or None) if is_sendable else self._pending_id
        elif name == b"retry" and value.isascii() and value.isdigit():
            # More than nine digits exceed the limit anyway.
            seconds = int(value[:9]) / 1000
            self.retry_seconds = min(max(seconds, _MIN_RETRY_SECONDS), _MAX_RETRY_SECONDS)
