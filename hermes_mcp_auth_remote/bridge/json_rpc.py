"""JSON-RPC 2.0 messages as the bridge needs them: their kind, id and method. Pure; no I/O."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard, cast

# JSON-RPC 2.0 section 5.1.
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INTERNAL_ERROR = -32603
# MCP leaves -32000 to -32099 to implementations.
SERVER_ERROR = -32000
# MCP 2025-11-25, URL mode elicitation.
URL_ELICITATION_REQUIRED = -32042

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A member with a short scalar value, and its comma. An id with escapes is not read.
_SCALAR = rb'"[^"\\]{0,1024}"|-?[0-9][0-9.eE+-]{0,40}|null|true|false'
_SMALL_MEMBER = re.compile(rb'\s*"([a-z]{1,16})"\s*:\s*(' + _SCALAR + rb")\s*,")
_MEMBER_NAME = re.compile(rb'\s*"([a-z]{1,16})"\s*:')
# The members after the large member, up to the end.
_LAST_MEMBERS = re.compile(rb'[\]}"](?:\s*,\s*"[a-z]{1,16}"\s*:\s*(?:' + _SCALAR + rb"))+\s*\}\s*$")
_ID_MEMBER = re.compile(rb'"id"\s*:\s*(' + _SCALAR + rb")")

RequestId = str | int | float
"""An id of a request. JSON-RPC also allows fractions, which servers must not use."""


class MalformedMessage(Exception):
    """A text is not a JSON-RPC message. `code` is the error code of the response.

    `request_id` is the id of the response: that of a malformed request, None if it cannot be read.
    """

    def __init__(self, code: int, message: str, request_id: RequestId | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id


@dataclass(frozen=True, slots=True)
class Message:
    """One JSON-RPC message: its members, and its text on one line, without a line feed."""

    members: Mapping[str, Any] = field(repr=False)
    line: bytes = field(repr=False)

    @property
    def method(self) -> str:
        """The method of a request or notification; empty for a response."""
        method = self.members.get("method")
        return method if isinstance(method, str) else ""

    @property
    def id(self) -> RequestId | None:
        """The id of a request or response; None for a notification."""
        message_id = self.members.get("id")
        return message_id if is_valid_id(message_id) else None

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters by name; empty if there are none."""
        params = self.members.get("params")
        return cast("Mapping[str, Any]", params) if isinstance(params, Mapping) else {}

    @property
    def meta(self) -> Mapping[str, Any]:
        """The `_meta` member of the parameters; empty if there is none."""
        meta = self.params.get("_meta")
        return cast("Mapping[str, Any]", meta) if isinstance(meta, Mapping) else {}

    @property
    def result(self) -> Mapping[str, Any]:
        """The result of a response; empty for an error, a request or a notification."""
        result = self.members.get("result")
        return cast("Mapping[str, Any]", result) if isinstance(result, Mapping) else {}

    @property
    def error_code(self) -> int | None:
        """The code of an error; None for another message."""
        error = self.members.get("error")
        code: object = cast("Mapping[str, Any]", error).get("code") if isinstance(error, Mapping) else None
        return code if isinstance(code, int) else None

    @property
    def is_request(self) -> bool:
        """True if the sender expects a response."""
        return bool(self.method) and self.id is not None

    @property
    def is_response(self) -> bool:
        """True for a result or an error."""
        return not self.method


def parse_messages(text: bytes) -> list[Message]:
    """Parse one message, or a batch of messages (MCP 2025-03-26). Raises MalformedMessage."""
    messages = list[Message]()
    for item in parse_items(text):
        if isinstance(item, MalformedMessage):
            raise item
        messages.append(item)
    return messages


def parse_items(text: bytes) -> list[Message | MalformedMessage]:
    """Parse one message or a batch; of a batch, a malformed message does not affect the others.

    Raises MalformedMessage if the text is not JSON or an empty batch.
    """
    try:
        # `json.loads` would accept UTF-16 and UTF-32 too. MCP messages are UTF-8.
        value: object = _DECODER.decode(text.removeprefix(BYTE_ORDER_MARK).decode("utf-8"))
    except (ValueError, RecursionError):
        raise MalformedMessage(PARSE_ERROR, "The message is not valid JSON.") from None
    if not isinstance(value, list):
        return [_read_message(value, text)]
    if not value:
        raise MalformedMessage(INVALID_REQUEST, "The batch is empty.")
    return [_read_message(item, None) for item in cast("list[object]", value)]


def _read_message(value: object, text: bytes | None) -> Message | MalformedMessage:
    if not isinstance(value, dict):
        return MalformedMessage(INVALID_REQUEST, "The message is not a JSON object.")
    members = cast("dict[str, Any]", value)
    message_id = members.get("id")
    if message_id is not None and not is_valid_id(message_id):
        return MalformedMessage(INVALID_REQUEST, "The id of a message must be a string or a number.")
    has_method = "method" in members
    if has_method and "id" in members and message_id is None:
        return MalformedMessage(INVALID_REQUEST, "The id of a request must not be null.")
    is_response = "result" in members or "error" in members
    if (isinstance(members.get("method"), str) and bool(members["method"])) == is_response:
        text_of_error = "The message is neither a request nor a response."
        return MalformedMessage(INVALID_REQUEST, text_of_error, message_id if has_method else None)
    try:
        return Message(members, encode(members) if text is None else to_line(text))
    except ValueError:
        text_of_error = "The message is too deep, or a number is too large."
        return MalformedMessage(INVALID_REQUEST, text_of_error, message_id)


def is_valid_id(value: object) -> TypeGuard[RequestId]:
    """True for an id of JSON-RPC: a string or a number. In Python, True and False are numbers too."""
    if isinstance(value, bool):
        return False
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


# Python's parser accepts NaN and Infinity. Other parsers do not, and the message is passed on as it is.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def read_envelope(head: bytes, tail: bytes) -> Message | None:
    """Return the kind and the id of a message that is too large to parse; None if they cannot be read.

    `head` and `tail` are the first and last kilobytes. The id comes before or after the one large member.
    The returned message has no other members and no text.
    """
    start = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    if not start.startswith(b"{"):
        return None
    position, members = 1, dict[str, Any]()
    while (member := _SMALL_MEMBER.match(start, position)) is not None:
        if member[1] == b"id":
            members["id"] = _read_id(member[2])
        position = member.end()
    large_member = _MEMBER_NAME.match(start, position)
    if large_member is None or large_member[1] not in {b"result", b"error", b"params"}:
        return None
    if "id" not in members and (last := _LAST_MEMBERS.search(tail)) is not None:
        id_member = _ID_MEMBER.search(last[0])
        members["id"] = None if id_member is None else _read_id(id_member[1])
    if large_member[1] == b"params":
        # Any name that is not empty makes the message a request or notification.
        members["method"] = "unknown"
    else:
        members[large_member[1].decode()] = {}
    return Message(members, b"")


def _read_id(text: bytes) -> RequestId | None:
    with contextlib.suppress(ValueError):
        value = json.loads(text)
        return value if is_valid_id(value) else None
    return None


def encode(members: Mapping[str, Any]) -> bytes:
    """Encode a message on one line, without a line feed. ASCII only: a lone surrogate stays escaped.

    Raises ValueError if it contains a number that Python reads as infinite, such as 1e999, or is too deep.
    """
    try:
        return json.dumps(members, separators=(",", ":"), allow_nan=False).encode("ascii")
    except RecursionError:
        # The parser accepts a few levels more, because it runs with a shorter stack.
        raise ValueError("too deep") from None


def to_line(text: bytes) -> bytes:
    """Replace each line break of a JSON text with a blank.

    A JSON string contains no line break, so each line break is whitespace between tokens.
    """
    return text.removeprefix(BYTE_ORDER_MARK).replace(b"\r", b" ").replace(b"\n", b" ").strip()


def error_response(
    message_id: RequestId | None, code: int, message: str, data: Mapping[str, Any] | None = None
) -> bytes:
    """Encode an error response. `message_id` is None if the request's id is unknown."""
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return encode({"jsonrpc": "2.0", "id": message_id, "error": error})


def result_response(message_id: RequestId | None, result: Mapping[str, Any]) -> bytes:
    """Encode a response with a result."""
    return encode({"jsonrpc": "2.0", "id": message_id, "result": result})


def notification(method: str, params: Mapping[str, Any]) -> bytes:
    """Encode a notification."""
    return encode({"jsonrpc": "2.0", "method": method, "params": params})
