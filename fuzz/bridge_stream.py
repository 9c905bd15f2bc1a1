"""Fuzz an event stream: its chunks may end anywhere, and the events and the resumption stay the same."""

from fuzz.inputs import check
from hermes_mcp_auth_remote.bridge.sse import SseParser

SEEDS = (
    b"\xef\xbb\xbf: x\r\rretry: 10\revent: endpoint\rdata: /a\r\r",
    b'id: 1\ndata: {"a":\ndata: 1}\n\nid: \xc3\xa9\n\nid\n\ndata\n\n',
    b"data: a\r\n\r\n\r\nretry: -1\nretry: 99999999999999\nid: a\0b\n\ndata:b\n\n",
)


def parse(chunks: list[bytes]) -> tuple[object, ...]:
    """Return the events, and what a resumption needs."""
    parser, events = SseParser(), list[tuple[str, bytes]]()
    for chunk in chunks:
        for event in parser.feed(chunk):
            events.append((event.name, event.data.read_all()))
            event.data.close()
    parser.close()
    return events, parser.last_event_id, parser.retry_seconds


def fuzz_one_input(data: bytes) -> None:
    """Parse the stream whole, and in chunks of the size that the first byte names."""
    size = 1 + (data[0] % 7 if data else 0)
    whole = parse([data])
    parts = parse([data[start : start + size] for start in range(0, len(data), size)])
    check(whole == parts, "the chunks matter")
    _, last_event_id, retry_seconds = whole
    check(not isinstance(last_event_id, str) or last_event_id.isprintable(), "an id that is no header")
    check(not isinstance(retry_seconds, float) or 0.1 <= retry_seconds <= 60, "a pause without limit")
