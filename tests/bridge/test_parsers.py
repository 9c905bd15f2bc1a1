"""The pure parsers: JSON-RPC, server-sent events, lines, request headers."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_mcp_auth_remote.bridge import buffers
from hermes_mcp_auth_remote.bridge.json_rpc import (
    INVALID_REQUEST,
    PARSE_ERROR,
    MalformedMessage,
    Message,
    encode,
    parse_items,
    parse_messages,
    read_envelope,
)
from hermes_mcp_auth_remote.bridge.request_headers import ToolHeaders, encode_header_value, request_headers
from hermes_mcp_auth_remote.bridge.sse import SseParser
from hermes_mcp_auth_remote.bridge.stdio import LineSplitter, TooLongLine
from hermes_mcp_auth_remote.errors import ResponseTooLarge
from tests.bridge.client import meta
from tests.requirements import covers


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", PARSE_ERROR),
        (b"{", PARSE_ERROR),
        (b"\xff\xfe{}", PARSE_ERROR),
        ('{"method": "ping"}'.encode("utf-16"), PARSE_ERROR),
        (b"[" * 100_000, PARSE_ERROR),
        (b'{"id": ' + b"9" * 5000 + b"}", PARSE_ERROR),
        (b"[]", INVALID_REQUEST),
        (b"7", INVALID_REQUEST),
        (b"[7]", INVALID_REQUEST),
        (b"{}", INVALID_REQUEST),
        (b'{"method": "ping", "result": {}}', INVALID_REQUEST),
        (b'{"method": 7, "id": 1}', INVALID_REQUEST),
        (b'{"method": "ping", "id": null}', INVALID_REQUEST),
        (b'{"method": "ping", "id": {}}', INVALID_REQUEST),
        (b'{"method": "ping", "id": 1e999}', INVALID_REQUEST),
        (b'{"method": "ping", "id": true}', INVALID_REQUEST),
        (b'{"result": {}, "id": false}', INVALID_REQUEST),
        (b'{"method": "", "id": 1}', INVALID_REQUEST),
        (b'[{"method": "ping", "id": 1, "params": {"a": 1e999}}]', INVALID_REQUEST),
        (b'{"method": "ping", "id": 1, "params": {"a": NaN}}', PARSE_ERROR),
        (b'{"id": 1, "result": {"a": -Infinity}}', PARSE_ERROR),
    ],
)
@covers("bridge-bad-input")
def test_malformed_messages_have_a_json_rpc_error_code(text: bytes, code: int) -> None:
    with pytest.raises(MalformedMessage) as raised:
        parse_messages(text)
    assert raised.value.code == code


def test_a_message_is_passed_on_as_it_came_but_on_one_line() -> None:
    text = b'\xef\xbb\xbf {"method":\r\n"x", "id": 1.0, "big": 12345678901234567890, "\\ud83d": "\xc3\xa9"}\n'
    [message] = parse_messages(text)
    assert message.line == b'{"method":  "x", "id": 1.0, "big": 12345678901234567890, "\\ud83d": "\xc3\xa9"}'
    assert parse_messages(encode(message.members))[0].members == message.members


@covers("bridge-bad-input")
def test_a_malformed_message_of_a_batch_does_not_affect_the_others() -> None:
    text = b'[{"method": "ping", "id": 1}, {"id": 2, "method": 7}, 3, {"id": 4}, {"id": true, "method": "x"}]'
    [good, *bad] = parse_items(text)
    assert isinstance(good, Message)
    assert good.line == b'{"method":"ping","id":1}'
    # The id of a response is not that of a request of its sender.
    assert [item.request_id for item in bad if isinstance(item, MalformedMessage)] == [2, None, None, None]


@covers("bridge-bad-input")
def test_a_message_of_a_batch_that_is_too_deep_to_encode_is_malformed() -> None:
    deepest, limit = 1, 100_000
    while limit - deepest > 1:
        depth = (deepest + limit) // 2
        try:
            json.loads("[" * depth + "]" * depth)
        except RecursionError:
            limit = depth
        else:
            deepest = depth
    # Near the limit, the text can be parsed, but not always encoded.
    for depth in range(deepest - 30, deepest + 1):
        nested = b"[" * depth + b"]" * depth
        try:
            items = parse_items(b'[{"method": "ping", "id": 1, "params": {"a": ' + nested + b"}}]")
        except MalformedMessage as error:
            items = [error]
        assert isinstance(items[0], Message) or items[0].request_id in {1, None}


def test_an_error_without_an_id_is_a_response() -> None:
    [message] = parse_messages(b'{"jsonrpc": "2.0", "id": null, "error": {"code": 1, "message": ""}}')
    assert (message.is_response, message.id) == (True, None)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"jsonrpc": "2.0", "id": 7, "result": "x"}, (True, 7)),
        ({"result": {"a": ["x"]}, "jsonrpc": "2.0", "id": "a-1"}, (True, "a-1")),
        ({"id": 7, "error": {"data": "x"}, "jsonrpc": "2.0"}, (True, 7)),
        ({"jsonrpc": "2.0", "id": 7, "method": "sampling/createMessage", "params": {"x": "x"}}, (False, 7)),
        ({"params": {"x": "x"}, "id": 8, "method": "a/b", "jsonrpc": "2.0"}, (False, 8)),
        ({"jsonrpc": "2.0", "method": "notifications/message", "params": {"x": "x"}}, (False, None)),
        ({"result": {"id": 9, "x": "x"}, "jsonrpc": "2.0"}, (True, None)),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_kind_and_id_of_a_large_message_are_read_from_its_ends(
    members: dict[str, Any], expected: tuple[bool, object], indent: int | None
) -> None:
    text = json.dumps(members, indent=indent).replace('"x"', '"' + "x" * 20_000 + '"').encode()
    message = read_envelope(text[:4096], text[-4096:])
    assert message is not None
    assert (message.is_response, message.id) == expected


@pytest.mark.parametrize("text", [b"", b"[1", b"{", b'{"a": {', b'{"id": 1, "id": 2', b"\xff" * 4096])
def test_ends_that_tell_nothing_have_no_envelope(text: bytes) -> None:
    assert read_envelope(text, text) is None


def parse_events(chunks: list[bytes], parser: SseParser | None = None) -> list[tuple[str, bytes]]:
    parser = parser or SseParser()
    events = []
    for chunk in chunks:
        for event in parser.feed(chunk):
            events.append((event.name, event.data.read_all()))
            event.data.close()
    parser.close()
    return events


STREAM = (
    "\ufeff: a comment\nretry: 1500\nid: 1\nevent: endpoint\ndata: /x?y\n\n"
    "data\ndata:  two\ndata: lines é\nx: y\nid: 2\n\nid: 3\n\n: a comment\n\ndata:{}\n\ndata: lost"
).encode()
EVENTS = [("endpoint", b"/x?y"), ("message", "  two lines é".encode()), ("message", b"{}")]


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_do_not_depend_on_chunks_and_line_ends(line_end: bytes, size: int) -> None:
    text = STREAM.replace(b"\n", line_end)
    parser = SseParser()
    events = parse_events([text[i : i + size] for i in range(0, len(text), size)], parser)
    # A line feed between two lines of data becomes a blank.
    assert [(name, data.replace(b"  two", b"  two")) for name, data in events] == EVENTS
    assert (parser.last_event_id, parser.retry_seconds) == ("3", 1.5)


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_events_do_not_depend_on_where_a_stream_is_cut(cut: int) -> None:
    assert parse_events([STREAM[:cut], STREAM[cut:]]) == EVENTS


def test_the_id_of_an_incomplete_event_does_not_count() -> None:
    parser = SseParser()
    assert len(parse_events([b"id: 1\ndata: {}\n\nid: 2\ndata: {"], parser)) == 1
    assert parser.last_event_id == "1"
    assert parser.successor().last_event_id == "1"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.1),
        (b"1", 0.1),
        (b"1500", 1.5),
        (b"99999999999999999999", 60.0),
        (b"-5", None),
        (b"1.5", None),
        ("٣".encode(), None),
    ],
)
def test_the_time_before_a_stream_is_opened_again_has_limits(value: bytes, seconds: float | None) -> None:
    parser = SseParser()
    parse_events([b"retry: " + value + b"\n\n"], parser)
    assert parser.retry_seconds == seconds


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"id", None),
        (b"id:", None),
        (b"id: a\0b", "1"),
        (b"id: \xc3", "1"),
        (b"id:  a", "1"),
        ("id: é".encode(), "é"),
    ],
)
def test_ids_that_cannot_be_sent_back(line: bytes, expected: str | None) -> None:
    parser = SseParser()
    parse_events([b"id: 1\n\n" + line + b"\n\n"], parser)
    assert parser.last_event_id == expected


@covers("linear")
@pytest.mark.parametrize(
    ("text", "size"),
    # A parser that searches the whole rest of the chunk for each line is slow only with a large chunk.
    [(b"a\n", 300_000), (b"\n", 100_000), (b"data:\n\n", 100_000), (b"id: 1\n\n", 100_000)],
)
def test_a_stream_of_tiny_lines_is_parsed_in_linear_time(text: bytes, size: int) -> None:
    def seconds(size: int) -> float:
        stream = text * (size // len(text))
        started_at = time.process_time()
        parse_events([stream])
        return time.process_time() - started_at

    small = max(min(seconds(size // 16) for _ in range(3)), 0.0005)
    assert seconds(size) < 16 * 5 * small


@pytest.mark.parametrize("name", [b"data", b"id", b"event", b"retry", b"x" * 50])
def test_a_huge_line_needs_constant_memory(name: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "MAX_MEMORY_BYTES", 1000)
    parser = SseParser()
    for part in (name + b": ", *[b"9" * 1000] * 99):
        assert list(parser.feed(part)) == []
    assert len(parser._name) < 100
    assert parser._value is None or len(parser._value) < 10_000
    events = list(parser.feed(b"\n\n"))
    assert [event.data.size for event in events] == ([99_000] if name == b"data" else [])
    for event in events:
        event.data.close()
    assert parser.last_event_id is None


def test_a_message_above_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "MAX_MESSAGE_BYTES", 1000)
    with pytest.raises(ResponseTooLarge):
        list(SseParser().feed(b"data: " + b"x" * 1001))


@given(st.binary(max_size=200), st.integers(1, 20))
def test_any_bytes_are_parsed_the_same_in_any_chunks(text: bytes, size: int) -> None:
    assert parse_events([text]) == parse_events([text[i : i + size] for i in range(0, len(text), size)])


def test_a_large_message_goes_through_a_file_and_keeps_its_ends() -> None:
    with buffers.MessageBuffer() as buffer:
        for _ in range(40):
            buffer.write(b"a\r\n" + b"x" * 50_000)
        assert not buffer.is_small
        head, tail = buffer.read_ends()
        assert (head[:4], len(tail)) == (b"a  x", 4096)
        assert sum(map(len, buffer.read_chunks())) == buffer.size


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_lines_do_not_depend_on_chunks(size: int) -> None:
    text = b'{"a":1}\r\n\n  \n' + b"x" * 30 + b'\n{"id":2}\nhalf'
    splitter, lines = LineSplitter(20), list[Any]()
    for start in range(0, len(text), size):
        lines += splitter.feed(text[start : start + size])
    lines += splitter.feed(b"")
    assert lines == [b'{"a":1}', TooLongLine(b"x" * 30, b"x" * 30), b'{"id":2}', b"half"] or size < 30
    assert [line for line in lines if isinstance(line, bytes)] == [b'{"a":1}', b'{"id":2}', b"half"]


def test_both_ends_of_a_line_that_is_too_long_are_kept() -> None:
    splitter = LineSplitter(100_000)
    lines = list[Any]()
    for part in (b'{"id":1,', b"x" * 200_000, b"y" * 60_000, b"z}\n"):
        lines += splitter.feed(part)
    [line] = lines
    assert isinstance(line, TooLongLine)
    assert line.head.startswith(b'{"id":1,x')
    assert line.tail.endswith(b"yz}")
    assert len(line.head) == len(line.tail) == 4096


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("add", "add"),
        ("", ""),
        (" padded", "=?base64?IHBhZGRlZA==?="),
        ("é", "=?base64?w6k=?="),
        ("a\r\nX: y", "=?base64?YQ0KWDogeQ==?="),
        ("=?base64?YQ==?=", "=?base64?PT9iYXNlNjQ/WVE9PT89?="),
    ],
)
def test_header_values_are_plain_ascii_or_base64(value: str, expected: str) -> None:
    assert encode_header_value(value) == expected


def test_request_headers_of_each_revision() -> None:
    headers = ToolHeaders()
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "arguments": {}}}
    [old] = parse_messages(encode(call))
    assert request_headers(old, None, headers) == {}
    assert request_headers(old, "2025-06-18", headers) == {"MCP-Protocol-Version": "2025-06-18"}
    assert request_headers(old, "2025\r\nX: y", headers) == {}
    schema = {
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {
                "properties": {
                    "on": {"type": "boolean", "x-mcp-header": "On"},
                    "half": {"type": "integer", "x-mcp-header": "Half"},
                    "x-mcp-header": {"type": "string", "default": {"x-mcp-header": "no annotation"}},
                }
            },
        }
    }
    tools = {"tools": [{"name": "add", "inputSchema": schema}, {"name": 7}, None]}
    [listing] = parse_messages(encode({"id": 1, "result": tools}))
    assert headers.learn(listing) is listing
    arguments = {"region": "eu", "deep": {"on": True, "half": 42.0, "x-mcp-header": "x"}}
    call["params"] = {"name": "add", "arguments": arguments, "_meta": meta()}
    [new] = parse_messages(encode(call))
    assert request_headers(new, "2025-06-18", headers) == {
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "add",
        "Mcp-Param-Region": "eu",
        "Mcp-Param-On": "true",
        "Mcp-Param-Half": "42.0",
    }


INVALID_SCHEMAS: dict[str, dict[str, Any]] = {
    "empty": {"properties": {"a": {"type": "string", "x-mcp-header": ""}}},
    "no token": {"properties": {"a": {"type": "string", "x-mcp-header": "a b"}}},
    "line break": {"properties": {"a": {"type": "string", "x-mcp-header": "a\r\nX: y"}}},
    "not a string": {"properties": {"a": {"type": "string", "x-mcp-header": 7}}},
    "number": {"properties": {"a": {"type": "number", "x-mcp-header": "A"}}},
    "two types": {"properties": {"a": {"type": ["string", "null"], "x-mcp-header": "A"}}},
    "twice": {
        "properties": {
            "a": {"type": "string", "x-mcp-header": "A"},
            "b": {"properties": {"c": {"type": "string", "x-mcp-header": "a"}}},
        }
    },
    "root": {"type": "string", "x-mcp-header": "A"},
    "items": {"properties": {"a": {"items": {"type": "string", "x-mcp-header": "A"}}}},
    "choice": {"anyOf": [{"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}]},
    "definition": {"$defs": {"a": {"type": "string", "x-mcp-header": "A"}}},
}


@covers("bridge-transports")
@pytest.mark.parametrize("name", INVALID_SCHEMAS)
def test_a_tool_with_an_invalid_annotation_is_left_out(name: str) -> None:
    tools = [{"name": "bad", "inputSchema": INVALID_SCHEMAS[name]}, {"name": "good", "inputSchema": {}}]
    [listing] = parse_messages(encode({"id": 1, "result": {"tools": tools, "nextCursor": "é"}}))
    kept = ToolHeaders().learn(listing)
    assert parse_messages(kept.line)[0].result == {"tools": tools[1:], "nextCursor": "é"}


def test_a_deep_schema_takes_no_time() -> None:
    schema: dict[str, Any] = {"properties": {f"p{n}": {} for n in range(20_000)}}
    for _ in range(400):
        schema = {"properties": {"a": schema}}
    listing = Message({"id": 1, "result": {"tools": [{"name": "deep", "inputSchema": schema}]}}, b"")
    started_at = time.process_time()
    assert ToolHeaders().learn(listing) is listing
    assert time.process_time() - started_at < 1
