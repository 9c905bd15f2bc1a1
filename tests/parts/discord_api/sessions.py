"""Gateway sessions and connections, opcodes, intents and close codes."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from .entities import Json

GUILDS, GUILD_MEMBERS, PRESENCES = 1 << 0, 1 << 1, 1 << 8
GUILD_MESSAGES, DIRECT_MESSAGES, MESSAGE_CONTENT = 1 << 9, 1 << 12, 1 << 15
PRIVILEGED_INTENTS = GUILD_MEMBERS | PRESENCES | MESSAGE_CONTENT
KNOWN_INTENTS = (1 << 17) - 1 | 1 << 20 | 1 << 21 | 1 << 24 | 1 << 25
# Opcodes.
HEARTBEAT, IDENTIFY, RESUME, RECONNECT, REQUEST_MEMBERS = 1, 2, 6, 7, 8
INVALID_SESSION, HELLO, HEARTBEAT_ACK = 9, 10, 11
# Presence, voice and soundboard: accepted and ignored.
IGNORED_OPCODES = (3, 4, 31, 43)
# Frames that a client may send in a minute, and the maximum size of one.
FRAMES_PER_MINUTE, FRAME_BYTES = 120, 4096
# https://docs.discord.com/developers/topics/opcodes-and-status-codes#gateway-gateway-close-event-codes
UNKNOWN_OPCODE, DECODE_ERROR, NOT_AUTHENTICATED, AUTHENTICATION_FAILED, ALREADY_AUTHENTICATED = (
    4001,
    4002,
    4003,
    4004,
    4005,
)
BAD_SEQUENCE, RATE_LIMITED, SESSION_TIMED_OUT, BAD_VERSION, BAD_INTENTS, DISALLOWED_INTENTS = (
    4007,
    4008,
    4009,
    4012,
    4013,
    4014,
)


@dataclass(slots=True)
class Session:
    """The numbered events of a client. The session outlives a connection, so a client can resume it."""

    id: str
    intents: int
    events: list[Json] = field(default_factory=list[Json])
    connection: Connection | None = None


class Connection:
    """One websocket. Sends frames in order, compressed if the client requested zlib-stream."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.socket = socket
        self.request = request
        self.session: Session | None = None
        # A client that requests another compression accepts plain frames as well.
        self.compressor = zlib.compressobj() if request.query.get("compress") == "zlib-stream" else None
        self.queue: asyncio.Queue[Json] = asyncio.Queue()
        self.last_heartbeat_at = asyncio.get_running_loop().time()
        self.frame_times: deque[float] = deque()

    async def send_queued(self) -> None:
        """Send queued frames until cancelled."""
        while True:
            text = json.dumps(await self.queue.get())
            if self.compressor is None:
                await self.socket.send_str(text)
                continue
            data = self.compressor.compress(text.encode()) + self.compressor.flush(zlib.Z_SYNC_FLUSH)
            await self.socket.send_bytes(data)

    def send(self, op: int, data: Any = None) -> None:
        self.queue.put_nowait({"op": op, "d": data, "s": None, "t": None})

    def abort(self) -> None:
        """Abort the connection without a close frame, like a network failure."""
        if self.request.transport is not None:
            self.request.transport.abort()
