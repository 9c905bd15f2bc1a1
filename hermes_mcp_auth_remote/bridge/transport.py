"""What the two HTTP transports of MCP share: their errors, and the delivery of server messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from hermes_mcp_auth_remote.bridge.buffers import MessageBuffer
from hermes_mcp_auth_remote.bridge.json_rpc import MalformedMessage, Message, parse_messages, read_envelope

# The number of bytes that the stream parser handles before other tasks run.
SLICE_BYTES = 16_384

Deliver = Callable[[bytes | MessageBuffer], Awaitable[None]]
"""Passes one message of the server to the client."""


class TransportError(Exception):
    """The server could not be reached, or its response is no MCP message. The text is for the client."""


class SessionLost(Exception):
    """The server no longer knows the session."""


class LegacyServer(Exception):
    """The server does not accept POST requests at its URL: it may speak HTTP+SSE (2024-11-05)."""


class Transport(Protocol):
    """Sends the client's messages to one server."""

    async def send(self, message: Message) -> None:
        """Send a message. For a request, return when its response was delivered.

        Raises TransportError, or the McpAuthError of a login or refresh.
        """
        ...

    async def open_session(self, initialize: Message, initialized: Message | None) -> None:
        """Open a session with messages whose responses the client must not get. Raises as `send` does."""
        ...

    async def close(self) -> None:
        """End the session at the server; do not wait longer than two seconds."""
        ...


async def deliver_text(buffer: MessageBuffer, deliver: Deliver) -> list[Message]:
    """Deliver the message or batch in a buffer, and close the buffer.

    Return its messages. Of a message that is too large to parse, return the kind and the id, or nothing if
    they cannot be read. Raises MalformedMessage.
    """
    with buffer:
        if not buffer.is_small:
            envelope = read_envelope(*buffer.read_ends())
            await deliver(buffer)
            return [] if envelope is None else [envelope]
        messages = parse_messages(buffer.read_all())
    for message in messages:
        await deliver(message.line)
    return messages


__all__ = [
    "SLICE_BYTES",
    "Deliver",
    "LegacyServer",
    "MalformedMessage",
    "SessionLost",
    "Transport",
    "TransportError",
    "deliver_text",
]
