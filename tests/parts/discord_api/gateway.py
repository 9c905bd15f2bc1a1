"""The gateway, version 10: sessions, heartbeats, resuming, and events filtered by intent."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING

from aiohttp import WSCloseCode, WSMsgType, web

from . import payloads
from .entities import Json
from .messages import Interaction, Message
from .sessions import (
    ALREADY_AUTHENTICATED,
    AUTHENTICATION_FAILED,
    BAD_INTENTS,
    BAD_SEQUENCE,
    BAD_VERSION,
    DECODE_ERROR,
    DIRECT_MESSAGES,
    DISALLOWED_INTENTS,
    FRAME_BYTES,
    FRAMES_PER_MINUTE,
    GUILD_MEMBERS,
    GUILD_MESSAGES,
    GUILDS,
    HEARTBEAT,
    HEARTBEAT_ACK,
    HELLO,
    IDENTIFY,
    IGNORED_OPCODES,
    INVALID_SESSION,
    KNOWN_INTENTS,
    MESSAGE_CONTENT,
    NOT_AUTHENTICATED,
    PRIVILEGED_INTENTS,
    RATE_LIMITED,
    RECONNECT,
    REQUEST_MEMBERS,
    RESUME,
    SESSION_TIMED_OUT,
    UNKNOWN_OPCODE,
    Connection,
    Session,
)

if TYPE_CHECKING:
    from .state import State


class Gateway:
    """All sessions, with every frame sent to clients and every frame received from them."""

    def __init__(self, state: State, allowed_intents: int) -> None:
        self._state = state
        self.allowed_intents = allowed_intents
        self.sessions: dict[str, Session] = {}
        self.connections: set[Connection] = set()
        self.sent_frames: list[Json] = []
        self.received_frames: list[Json] = []
        self.url = self.resume_url = ""
        self.heartbeat_seconds = 41.25
        # If a heartbeat is late by more than this time, close the connection.
        self.heartbeat_grace_seconds = 10.0
        self.connections_to_refuse = 0
        self.attempt_count = 0
        self.identify_count = 0
        self.resume_count = 0
        # The number of sessions that received READY.
        self.ready_count = 0

    # Events. Each goes to the sessions that have the intent for it.

    def send_message_event(self, event: str, message: Message) -> None:
        in_guild = self._state.channels[message.channel_id].guild_id is not None
        for session in self.sessions.values():
            if session.intents & (GUILD_MESSAGES if in_guild else DIRECT_MESSAGES):
                content = bool(session.intents & MESSAGE_CONTENT)
                self._send_event(
                    session, event, payloads.message_event(self._state, message, content=content)
                )

    def send_message_deleted(self, message: Message) -> None:
        guild_id = self._state.channels[message.channel_id].guild_id
        data = {"id": message.id, "channel_id": message.channel_id}
        if guild_id is not None:
            data["guild_id"] = guild_id
        for session in self.sessions.values():
            if session.intents & (GUILD_MESSAGES if guild_id else DIRECT_MESSAGES):
                self._send_event(session, "MESSAGE_DELETE", data)

    def send_interaction(self, interaction: Interaction) -> None:
        for session in self.sessions.values():
            payload = payloads.interaction_payload(self._state, interaction)
            self._send_event(session, "INTERACTION_CREATE", payload)

    def send_guild_event(self, event: str, data: Json) -> None:
        for session in self.sessions.values():
            if session.intents & GUILDS:
                self._send_event(session, event, data)

    def _send_event(self, session: Session, event: str, data: Json) -> None:
        frame = {"op": 0, "d": data, "s": len(session.events) + 1, "t": event}
        session.events.append(frame)
        self.sent_frames.append(frame)
        if session.connection is not None:
            session.connection.queue.put_nowait(frame)

    # Faults that a test injects.

    def abort_connections(self) -> None:
        for connection in list(self.connections):
            if connection.session is not None:
                connection.session.connection = None
            connection.abort()

    def request_reconnects(self) -> None:
        for connection in self.connections:
            connection.send(RECONNECT)

    def invalidate_sessions(self, *, resumable: bool) -> None:
        if not resumable:
            self.sessions.clear()
        for connection in self.connections:
            connection.send(INVALID_SESSION, resumable)

    async def close_connections(self, code: int) -> None:
        for connection in list(self.connections):
            if connection.session is not None:
                # The session stays resumable, whatever close code the client sends back.
                connection.session.connection = None
            await connection.socket.close(code=code)

    # The protocol with one client.

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one connection attempt."""
        self.attempt_count += 1
        if self.connections_to_refuse > 0:
            self.connections_to_refuse -= 1
            return web.Response(status=503)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=400)
        socket = web.WebSocketResponse(max_msg_size=0, compress=False)
        await socket.prepare(request)
        if request.query.get("v", "10") not in {"9", "10"}:
            await socket.close(code=BAD_VERSION)
            return socket
        connection = Connection(socket, request)
        self.connections.add(connection)
        connection.send(HELLO, {"heartbeat_interval": int(self.heartbeat_seconds * 1000), "_trace": []})
        tasks = [
            asyncio.create_task(connection.send_queued()),
            asyncio.create_task(self._watch_heartbeats(connection)),
        ]
        try:
            await self._read_frames(connection)
        finally:
            self.connections.discard(connection)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._end_connection(connection)
        return socket

    def _end_connection(self, connection: Connection) -> None:
        session = connection.session
        if session is None or session.connection is not connection:
            return
        session.connection = None
        # A client ends its session with close code 1000 or 1001. After any other code it can resume the
        # session.
        if connection.socket.close_code in {WSCloseCode.OK, WSCloseCode.GOING_AWAY}:
            self.sessions.pop(session.id, None)

    async def _watch_heartbeats(self, connection: Connection) -> None:
        """Close a connection that sends no heartbeats."""
        loop, allowed_seconds = (
            asyncio.get_running_loop(),
            self.heartbeat_seconds + self.heartbeat_grace_seconds,
        )
        while (seconds_left := connection.last_heartbeat_at + allowed_seconds - loop.time()) > 0:  # noqa: ASYNC110 no event
            await asyncio.sleep(seconds_left)
        if connection.session is not None:
            self.sessions.pop(connection.session.id, None)
        await connection.socket.close(code=SESSION_TIMED_OUT, message=b"Session timed out.")

    async def _read_frames(self, connection: Connection) -> None:
        async for message in connection.socket:
            if message.type is not WSMsgType.TEXT:
                break
            code = self._handle_frame(connection, message.data)
            if code is not None:
                await connection.socket.close(code=code)
                break

    def _handle_frame(self, connection: Connection, text: str) -> int | None:
        """Handle one frame; return the close code if the frame is invalid."""
        now = asyncio.get_running_loop().time()
        connection.frame_times.append(now)
        while connection.frame_times[0] < now - 60:
            connection.frame_times.popleft()
        if len(connection.frame_times) > FRAMES_PER_MINUTE:
            return RATE_LIMITED
        try:
            frame = json.loads(text)
            op, data = frame["op"], frame["d"]
        except (ValueError, KeyError, TypeError):
            return DECODE_ERROR
        self.received_frames.append(frame)
        if len(text) > FRAME_BYTES:
            return DECODE_ERROR
        if op == HEARTBEAT:
            connection.last_heartbeat_at = now
            connection.send(HEARTBEAT_ACK)
            return None
        return self._handle_operation(connection, op, data)

    def _handle_operation(self, connection: Connection, op: object, data: Json) -> int | None:
        if op in {IDENTIFY, RESUME} and connection.session is not None:
            return ALREADY_AUTHENTICATED
        if op == IDENTIFY:
            return self._identify(connection, data)
        if op == RESUME:
            return self._resume(connection, data)
        if op not in {REQUEST_MEMBERS, *IGNORED_OPCODES}:
            return UNKNOWN_OPCODE
        if connection.session is None:
            return NOT_AUTHENTICATED
        if op == REQUEST_MEMBERS:
            self._send_members(connection.session, data)
        return None

    def _identify(self, connection: Connection, data: Json) -> int | None:
        self.identify_count += 1
        if data.get("token") != self._state.token:
            return AUTHENTICATION_FAILED
        intents = data.get("intents")
        if not isinstance(intents, int) or intents & ~KNOWN_INTENTS or "properties" not in data:
            return BAD_INTENTS
        if intents & PRIVILEGED_INTENTS & ~self.allowed_intents:
            return DISALLOWED_INTENTS
        session = Session(secrets.token_hex(16), intents, connection=connection)
        connection.session = session
        self.sessions[session.id] = session
        application = {"id": self._state.bot.id, "flags": 1 << 23}
        guilds = [{"id": guild_id, "unavailable": True} for guild_id in self._state.guilds]
        ready = {
            "v": 10,
            "user": {**self._state.bot.payload(), "verified": True, "mfa_enabled": False, "email": None},
            "guilds": guilds,
            "private_channels": [],
            "session_id": session.id,
            "resume_gateway_url": self.resume_url,
            "application": application,
        }
        if "shard" in data:
            ready["shard"] = data["shard"]
        self._send_event(session, "READY", ready)
        self.ready_count += 1
        if intents & GUILDS:
            for guild_id in self._state.guilds:
                self._send_event(session, "GUILD_CREATE", payloads.guild_payload(self._state, guild_id))
        return None

    def _resume(self, connection: Connection, data: Json) -> int | None:
        self.resume_count += 1
        if data.get("token") != self._state.token:
            return AUTHENTICATION_FAILED
        session = self.sessions.get(data.get("session_id", ""))
        if session is None:
            connection.send(INVALID_SESSION, data=False)
            return None
        last_sequence = data.get("seq")
        if not isinstance(last_sequence, int) or not 0 <= last_sequence <= len(session.events):
            return BAD_SEQUENCE
        if session.connection is not None:
            session.connection.abort()
        connection.session, session.connection = session, connection
        for frame in session.events[last_sequence:]:
            connection.queue.put_nowait(frame)
        self._send_event(session, "RESUMED", {"_trace": []})
        return None

    def _send_members(self, session: Session | None, data: Json) -> None:
        guild = self._state.guilds.get(str(data.get("guild_id")))
        if session is None or guild is None:
            return
        requested_ids = {str(user) for user in data.get("user_ids") or []}
        query = data.get("query")
        is_for_all = query == "" and session.intents & GUILD_MEMBERS
        members = [
            guild.member_payload(user)
            for user in guild.members.values()
            if is_for_all or user.id in requested_ids or (query and user.name.startswith(query))
        ]
        chunk: Json = {"guild_id": guild.id, "members": members, "chunk_index": 0, "chunk_count": 1}
        chunk["not_found"] = sorted(requested_ids - set(guild.members))
        if data.get("nonce"):
            chunk["nonce"] = data["nonce"]
        self._send_event(session, "GUILD_MEMBERS_CHUNK", chunk)
