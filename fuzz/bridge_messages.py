"""Fuzz JSON-RPC text: it is malformed, or each message is one line that reads as the same message again."""

import json

from fuzz.inputs import check
from hermes_mcp_auth_remote.bridge.json_rpc import (
    MalformedMessage,
    Message,
    encode,
    parse_items,
    parse_messages,
    read_envelope,
)
from hermes_mcp_auth_remote.bridge.request_headers import ToolHeaders, request_headers

_SCHEMA = {"properties": {"a": {"type": "string", "x-mcp-header": "A"}, "b": {"items": [{"type": "number"}]}}}
_META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
SEEDS = (
    encode({"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "x", "inputSchema": _SCHEMA}]}}),
    encode(
        {"id": "1", "method": "tools/call", "params": {"name": "x", "arguments": {"a": "é"}, "_meta": _META}}
    ),
    b'[{"method":"ping","id":1.5},\r\n{"id":null,"error":{"code":1}},{"id":true,"method":"x"},7]',
    b'{"result":{"a":"xxxx"},"jsonrpc":"2.0","id":7}',
)


def fuzz_one_input(data: bytes) -> None:
    """Parse the text, and learn and make the headers of its messages."""
    read_envelope(data[:4096], data[-4096:])
    headers = ToolHeaders()
    try:
        items = parse_items(data)
    except MalformedMessage:
        return
    for item in items:
        if isinstance(item, Message):
            check(b"\n" not in item.line and b"\r" not in item.line, "more than one line")
            [again] = parse_messages(item.line)
            check(json.dumps(again.members) == json.dumps(item.members), "another message")
            check(item.is_response or bool(item.method), "neither a request nor a response")
            headers.learn(item)
            for name, value in request_headers(item, "2025-11-25", headers).items():
                check(name.isascii() and value.isascii() and value.isprintable(), "no header")
