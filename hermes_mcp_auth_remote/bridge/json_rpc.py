"""JSON-RPC 2.0 messages as the bridge needs them: their kind, id and method. Pure; no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

# JSON-RPC 2.0 section 5.1.
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
INTERNAL_ERROR = -32603
# MCP leaves -32000 to -32099 to implementations.
SERVER_ERROR = -32000
# MCP 2025-11-25, URL mode elicitation.
URL_ELICITATION_REQUIRED = -32042

RequestId = str | int | float
"""An id of a request. JSON-RPC also allows fractions, which servers must not use."""


class MalformedMessage(Exception):
    """A text is not a JSON-RPC message. `code` is the error code of the response."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


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
        return message_id if isinstance(message_id, str | int | float) else None

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
    def is_request(self) -> bool:
        """True if the sender expects a response."""
        return bool(self.method) and self.id is not None

    @property
    def is_response(self) -> bool:
        """True for a result or an error."""
        return not self.method


def parse_messages(text: bytes) -> list[Message]:
    """Parse one message, or a batch of messages (MCP 2025-03-26). Raises MalformedMessage."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedMessage(PARSE_ERROR, "The message is not valid JSON.") from None
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    if not values:
        raise MalformedMessage(INVALID_REQUEST, "The batch is empty.")
    return [_read_message(item, text if not isinstance(value, list) else None) for item in values]


def _read_message(value: object, text: bytes | None) -> Message:
    if not isinstance(value, dict):
        raise MalformedMessage(INVALID_REQUEST, "The message is not a JSON object.")
    members = cast("dict[str, Any]", value)
    is_response = "result" in members or "error" in members
    if isinstance(members.get("method"), str) == is_response:
        raise MalformedMessage(INVALID_REQUEST, "The message is neither a request nor a response.")
    return Message(members, encode(members) if text is None else to_line(text))


def encode(members: Mapping[str, Any]) -> bytes:
    """Encode a message on one line, without a line feed."""
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def to_line(text: bytes) -> bytes:
    """Replace the line breaks of a JSON text by blanks: JSON strings contain none, so they are whitespace."""
    return text.replace(b"\r", b" ").replace(b"\n", b" ").strip()


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
