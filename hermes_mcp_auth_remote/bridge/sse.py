"""Parse server-sent events (WHATWG HTML, section 9.2.6) from chunks of any size. No I/O but the buffers."""

from __future__ import annotations

from dataclasses import dataclass, field

from hermes_mcp_auth_remote.bridge.buffers import MessageBuffer

# The field names are shorter; a longer name belongs to an unknown field.
_MAX_NAME_BYTES = 16
# An id or event name that is longer is ignored: nobody needs it, and it would be sent back to the server.
_MAX_VALUE_BYTES = 4096


@dataclass(slots=True)
class Event:
    """One event. `data` is the JSON text of a message; the receiver closes it."""

    data: MessageBuffer = field(default_factory=MessageBuffer)
    name: str = "message"
    has_data: bool = False


class SseParser:
    """Parses one stream. `last_event_id` and `retry_seconds` are for its resumption."""

    def __init__(self) -> None:
        self.last_event_id: str | None = None
        self.retry_seconds: float | None = None
        self._event = Event()
        # The name of the field on the current line, until its colon; then the value.
        self._name = bytearray()
        self._value: bytearray | None = None
        self._skips_blank = False
        self._was_carriage_return = False
        self._is_start = True

    def feed(self, chunk: bytes) -> list[Event]:
        """Parse the next chunk and return the events that it completes. Raises ResponseTooLarge."""
        events: list[Event] = []
        if self._is_start:
            chunk, self._is_start = chunk.removeprefix(b"\xef\xbb\xbf"), False
        position = 0
        while position < len(chunk):
            if self._was_carriage_return:
                self._was_carriage_return = False
                if chunk[position : position + 1] == b"\n":
                    position += 1
                    continue
            end = _line_end(chunk, position)
            self._add(chunk[position : len(chunk) if end < 0 else end])
            if end < 0:
                break
            self._was_carriage_return = chunk[end : end + 1] == b"\r"
            position = end + 1
            if (event := self._end_line()) is not None:
                events.append(event)
        return events

    def close(self) -> None:
        """Discard an incomplete event."""
        self._event.data.close()

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
        name, value = bytes(self._name), bytes(self._value or b"")
        is_blank = not name and self._value is None
        if name == b"data" and self._value is None:
            self._start_value()
        self._name, self._value, self._skips_blank = bytearray(), None, False
        if is_blank:
            event, self._event = self._event, Event()
            if event.has_data:
                return event
            event.data.close()
        elif len(value) <= _MAX_VALUE_BYTES:
            self._set_field(name, value.decode("utf-8", "replace"))
        return None

    def _set_field(self, name: bytes, value: str) -> None:
        if name == b"event":
            self._event.name = value or "message"
        elif name == b"id" and "\0" not in value:
            # An id that is no header value cannot be sent back.
            self.last_event_id = value if value.isascii() and value.isprintable() else self.last_event_id
        elif name == b"retry" and value.isascii() and value.isdigit():
            self.retry_seconds = min(int(value[:9]) / 1000, 60.0)


def _line_end(chunk: bytes, start: int) -> int:
    """Return the position of the first CR or LF, -1 if there is none."""
    line_feed, carriage_return = chunk.find(b"\n", start), chunk.find(b"\r", start)
    if line_feed < 0 or carriage_return < 0:
        return max(line_feed, carriage_return)
    return min(line_feed, carriage_return)
