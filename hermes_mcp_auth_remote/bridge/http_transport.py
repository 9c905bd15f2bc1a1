"""Streamable HTTP: each message of the client is a POST; the server responds with JSON or a stream of events.

MCP 2025-03-26 to 2025-11-25 have sessions, a GET stream and resumption. 2026-07-28 has none of them: each
message carries its version, and the bridge repeats parts of it in headers (`request_headers`).

If the server has lost the session (404), the bridge opens it again with the client's own `initialize`. If the
server cannot be reached, the bridge tries again for a while, because the server may be restarting. It sends a
tool call again only if the server cannot have received it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import logging
from collections.abc import AsyncGenerator, Coroutine, Mapping
from typing import TypeVar, cast

import httpx2

from hermes_mcp_auth_remote.bridge.buffers import MAX_MEMORY_BYTES, MessageBuffer
from hermes_mcp_auth_remote.bridge.json_rpc import MalformedMessage, Message, encode, parse_messages
from hermes_mcp_auth_remote.bridge.request_headers import ToolHeaders, request_headers, stateless_version
from hermes_mcp_auth_remote.bridge.sse import Event, SseParser
from hermes_mcp_auth_remote.bridge.transport import (
    SLICE_BYTES,
    Deliver,
    LegacyServer,
    SessionLost,
    TransportError,
    deliver_text,
)
from hermes_mcp_auth_remote.errors import McpAuthError, ResponseTooLarge

T = TypeVar("T")
_log = logging.getLogger(__name__)

JSON, EVENT_STREAM = "application/json", "text/event-stream"
# A server that restarts is back within this time.
RETRY_SECONDS = 15.0
_FIRST_PAUSE_SECONDS = 0.25
_MAX_PAUSE_SECONDS = 4.0
# The pause before the GET stream is opened again, if the server names no pause.
_STREAM_PAUSE_SECONDS = 1.0
_MAX_STREAM_PAUSE_SECONDS = 30.0
_CLOSE_SECONDS = 2.0
_REFUSAL_SECONDS = 5.0
# One request opens a lost session again at most this many times. A further 404 or 400 is passed on.
_MAX_LOST_SESSIONS = 2
# These requests change nothing, so they may be sent twice.
_REPEATABLE_METHODS = frozenset(
    {
        "completion/complete",
        "initialize",
        "ping",
        "prompts/get",
        "prompts/list",
        "resources/list",
        "resources/read",
        "resources/templates/list",
        "server/discover",
        "tools/list",
    }
)
_BUSY_STATUSES = frozenset({502, 503, 504})


class _NotSent(Exception):
    """The server cannot have received the request."""


class StreamableHttp:
    """The connection to one server over Streamable HTTP."""

    def __init__(self, http_client: httpx2.AsyncClient, url: str, name: str, deliver: Deliver) -> None:
        """`name` is the server's name in the texts of errors."""
        self._http_client = http_client
        self._url = url
        self._name = name
        self._deliver = deliver
        self._tool_headers = ToolHeaders()
        self._session_id: str | None = None
        self._version: str | None = None
        # The client's own messages, to open the session again.
        self._initialize: Message | None = None
        self._initialized: Message | None = None
        self._generation = 0
        self._reopen_task: asyncio.Task[None] | None = None
        self._reopen_ids = itertools.count(1)
        self._listen_task: asyncio.Task[None] | None = None
        self._has_answered = False

    async def send(self, message: Message) -> None:
        """Send a message; for a request, return when its response was delivered.

        Raises TransportError, or the McpAuthError of a login or refresh. Raises LegacyServer if the server
        accepts no POST as the first request.
        """
        loop = asyncio.get_running_loop()
        ends_at, pause_seconds = loop.time() + RETRY_SECONDS, _FIRST_PAUSE_SECONDS
        lost_sessions = 0
        while True:
            if self._reopen_task is not None and not self._reopen_task.done():
                # No request may be sent in the new session before `initialized` was sent.
                await asyncio.wait({self._reopen_task})
            generation = self._generation
            try:
                await self._post(message, self._deliver, may_be_lost=lost_sessions < _MAX_LOST_SESSIONS)
            except SessionLost:
                lost_sessions += 1
                await self._reopen(generation)
            except _NotSent as error:
                if loop.time() + pause_seconds > ends_at:
                    raise TransportError(f"{self._name} cannot be reached: {error}.") from None
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _MAX_PAUSE_SECONDS)
            else:
                break
        if message.method == "notifications/initialized" and stateless_version(message) is None:
            self._initialized = message
            self._start_listening()

    async def close(self) -> None:
        """End the session at the server, within two seconds."""
        if self._listen_task is not None:
            self._listen_task.cancel()
            await asyncio.gather(self._listen_task, return_exceptions=True)
        if self._session_id is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await _create_background_task(self._delete_session())

    async def _delete_session(self) -> None:
        async with self._http_client.stream("DELETE", self._url, headers=self._session_headers()):
            """The status does not matter: a server need not support this."""

    def _session_headers(self) -> dict[str, str]:
        headers = {} if self._version is None else {"MCP-Protocol-Version": self._version}
        return headers if self._session_id is None else {**headers, "Mcp-Session-Id": self._session_id}

    def _headers(self, message: Message) -> dict[str, str]:
        headers = {"Content-Type": JSON, "Accept": f"{JSON}, {EVENT_STREAM}"}
        headers.update(request_headers(message, self._version, self._tool_headers))
        if self._session_id is not None and message.method != "initialize" and not stateless_version(message):
            headers["Mcp-Session-Id"] = self._session_id
        return headers

    async def _post(self, message: Message, deliver: Deliver, *, may_be_lost: bool = False) -> None:
        """POST a message and deliver the response.

        Raises SessionLost if `may_be_lost`, _NotSent, LegacyServer, TransportError.
        """
        headers, has_response = self._headers(message), False
        try:
            async with self._http_client.stream(
                "POST", self._url, content=message.line, headers=headers
            ) as response:
                has_response = True
                if response.status_code >= 400:
                    may_be_lost = may_be_lost and "Mcp-Session-Id" in headers
                    await self._read_refusal(message, response, deliver, may_be_lost=may_be_lost)
                else:
                    await self._read_response(message, response, deliver)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
            raise _NotSent("the connection failed") from None
        except httpx2.HTTPError:
            if not has_response and message.method in _REPEATABLE_METHODS:
                raise _NotSent("the connection broke") from None
            raise TransportError(
                f"The connection to {self._name} broke before its response arrived. "
                "The server may have carried out the request."
            ) from None
        except (MalformedMessage, ResponseTooLarge):
            raise TransportError(f"{self._name} sent a response that is not a JSON-RPC message.") from None

    async def _read_response(self, message: Message, response: httpx2.Response, deliver: Deliver) -> None:
        status, content_type = response.status_code, _content_type(response)
        self._has_answered = True
        if message.method == "initialize":
            self._initialize, self._session_id = message, response.headers.get("mcp-session-id")
        if not message.is_request:
            return
        if content_type == JSON:
            buffer = MessageBuffer()
            try:
                async for chunk in response.aiter_bytes():
                    buffer.write(chunk)
            except BaseException:
                buffer.close()
                raise
            self._learn(message, await deliver_text(buffer, deliver))
        elif content_type == EVENT_STREAM:
            await self._read_stream(message, response, deliver)
        else:
            raise TransportError(
                f"{self._name} responded to {message.method} with status {status} and no JSON-RPC message. "
                "Check that its address is that of an MCP server."
            )

    async def _read_refusal(
        self, message: Message, response: httpx2.Response, deliver: Deliver, *, may_be_lost: bool
    ) -> None:
        """Handle a status of 400 or higher: pass on a JSON-RPC error of the server, else raise."""
        status, body = response.status_code, bytearray()
        # A body that breaks or never ends is no JSON-RPC error: only the status counts then.
        with contextlib.suppress(TimeoutError, httpx2.HTTPError):
            async with asyncio.timeout(_REFUSAL_SECONDS):
                async for chunk in response.aiter_bytes():
                    body += chunk[: MAX_MEMORY_BYTES - len(body)]
                    if len(body) >= MAX_MEMORY_BYTES:
                        break
        error = _read_error(bytes(body))
        # Some servers answer 400 instead of 404. If a 400 has another cause, the repeated request gets it
        # again.
        names_session = b"session" in bytes(body).lower()
        if may_be_lost and (status == 404 or (status == 400 and names_session)):
            raise SessionLost
        if error is not None and message.is_request:
            await deliver(encode({**error, "id": message.id}))
            return
        if not self._has_answered and status in {400, 404, 405} and message.is_request:
            raise LegacyServer
        if status in _BUSY_STATUSES and message.method in _REPEATABLE_METHODS:
            raise _NotSent(f"it responds with status {status}")
        raise TransportError(f"{self._name} refused {message.method or 'a response'} with status {status}.")

    def _learn(self, message: Message, responses: list[Message]) -> None:
        """Remember what later requests need: the negotiated version, and the annotations of tools."""
        for response in responses:
            if response.id != message.id or not response.is_response:
                continue
            if message.method == "initialize":
                version = response.result.get("protocolVersion")
                self._version = version if isinstance(version, str) else None
            elif message.method == "tools/list":
                self._tool_headers.learn(response)

    async def _read_stream(self, message: Message, response: httpx2.Response, deliver: Deliver) -> None:
        """Deliver the events of a stream up to the JSON-RPC response; resume the stream if it breaks."""
        parser = SseParser()
        try:
            if await self._read_events(response, parser, message, deliver):
                return
        except httpx2.HTTPError:
            if parser.last_event_id is None:
                raise
        finally:
            parser.close()
        await self._resume(message, parser, deliver)

    async def _resume(self, message: Message, parser: SseParser, deliver: Deliver) -> None:
        """Continue a broken stream with a GET (MCP 2025-11-25, Resumability). Raises TransportError."""
        broken = TransportError(
            f"The connection to {self._name} broke before its response arrived. "
            "The server may have carried out the request."
        )
        if parser.last_event_id is None or stateless_version(message) is not None:
            raise broken
        # The server will send the incomplete event again.
        parser = parser.successor()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + RETRY_SECONDS
        while loop.time() < ends_at:
            await asyncio.sleep(parser.retry_seconds or _STREAM_PAUSE_SECONDS)
            last_event_id = parser.last_event_id
            try:
                async with self._open_stream(last_event_id) as response:
                    if 400 <= response.status_code < 500:
                        raise broken
                    if await self._read_events(response, parser, message, deliver):
                        return
            except httpx2.HTTPError:
                pass
            finally:
                parser = parser.successor()
            if parser.last_event_id != last_event_id:
                # The stream goes on: the server is alive.
                ends_at = loop.time() + RETRY_SECONDS
        raise broken

    @contextlib.asynccontextmanager
    async def _open_stream(self, last_event_id: str | None) -> AsyncGenerator[httpx2.Response]:
        headers = {"Accept": EVENT_STREAM, **self._session_headers()}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        async with self._http_client.stream("GET", self._url, headers=headers) as response:
            yield response

    async def _read_events(
        self, response: httpx2.Response, parser: SseParser, message: Message | None, deliver: Deliver
    ) -> bool:
        """Deliver events; return True after the response to `message`, False at the end of the stream."""
        async for chunk in response.aiter_bytes():
            # A compressed body may expand to a chunk of any size.
            for start in range(0, len(chunk), SLICE_BYTES):
                for event in parser.feed(chunk[start : start + SLICE_BYTES]):
                    if await self._deliver_event(event, message, deliver):
                        return True
                if start:
                    await asyncio.sleep(0)
        return False

    async def _deliver_event(self, event: Event, message: Message | None, deliver: Deliver) -> bool:
        """Deliver one event; return True if it is the response to `message`."""
        if event.name != "message" or not event.data.size:
            # The first event of a resumable stream has an id and no data.
            event.data.close()
            return False
        try:
            messages = await deliver_text(event.data, deliver)
        except MalformedMessage:
            _log.warning("%s sent an event that is not a JSON-RPC message.", self._name)
            return False
        if message is None:
            return False
        self._learn(message, messages)
        # Only the response can be so large that its kind cannot be read.
        return not messages or any(item.is_response and item.id == message.id for item in messages)

    async def _reopen(self, generation: int) -> None:
        """Open the session again with the client's own messages, once for all requests that wait.

        Raises TransportError, or the McpAuthError of a login or refresh.
        """
        if self._generation != generation:
            return
        if self._reopen_task is None or self._reopen_task.done():
            if self._initialize is None:
                raise TransportError(f"{self._name} does not keep a session.")
            _log.warning("%s has lost the session. It is opened again.", self._name)
            # A task of its own: a client that cancels one request must not leave a half-open session.
            self._reopen_task = asyncio.create_task(self.open_session(self._initialize, self._initialized))
            self._reopen_task.add_done_callback(_retrieve_exception)
        await asyncio.shield(self._reopen_task)

    async def open_session(self, initialize: Message, initialized: Message | None) -> None:
        """Open a session with messages whose responses the client must not get. Raises as `send` does."""
        reopen_id = f"hermes-mcp-auth-{next(self._reopen_ids)}"
        members = {**initialize.members, "id": reopen_id}

        async def discard(text: bytes | MessageBuffer) -> None:
            """Drop the text: the client has a response to its own `initialize` already."""

        try:
            await self._post(Message(members, encode(members)), discard)
            self._initialize = initialize
            if initialized is not None:
                await self._post(initialized, discard)
                self._initialized = initialized
        except _NotSent as error:
            raise TransportError(f"{self._name} cannot be reached: {error}.") from None
        self._generation += 1
        if initialized is not None:
            self._start_listening()

    def _start_listening(self) -> None:
        if self._listen_task is not None:
            self._listen_task.cancel()
        self._listen_task = _create_background_task(self._listen())
        self._listen_task.add_done_callback(_retrieve_exception)

    async def _listen(self) -> None:
        """Deliver the messages that the server sends on its own, if it offers a GET stream."""
        parser, pause_seconds = SseParser(), _STREAM_PAUSE_SECONDS
        while True:
            generation, is_lost = self._generation, False
            try:
                async with self._open_stream(parser.last_event_id) as response:
                    is_lost = response.status_code == 404 and self._session_id is not None
                    if not is_lost and not _may_become_stream(response):
                        # The server offers no GET stream (405).
                        return
                    if response.status_code < 400:
                        pause_seconds = parser.retry_seconds or _STREAM_PAUSE_SECONDS
                        await self._read_events(response, parser, None, self._deliver)
                if is_lost:
                    # This starts another listening task, which ends this one.
                    await self._reopen(generation)
            except (httpx2.HTTPError, ResponseTooLarge, TransportError, LegacyServer):
                pass
            except McpAuthError:
                # A login is needed. The next request of the client asks the user to log in; a stream in the
                # background does not.
                pass
            parser = parser.successor()
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _MAX_STREAM_PAUSE_SECONDS)


def _create_background_task(work: Coroutine[object, object, T]) -> asyncio.Task[T]:
    """Create a task that asks no user for a login: the target of prompts is a context variable."""
    return asyncio.create_task(work, context=contextvars.Context())


def _retrieve_exception(task: asyncio.Task[None]) -> None:
    """Keep asyncio from logging an exception that no caller waits for."""
    if not task.cancelled():
        task.exception()


def _may_become_stream(response: httpx2.Response) -> bool:
    """True for a stream, and for a server error that may be temporary."""
    return response.status_code >= 500 or _content_type(response) == EVENT_STREAM


def _content_type(response: httpx2.Response) -> str:
    content_type: str = response.headers.get("content-type", "")
    return content_type.partition(";")[0].strip().lower()


def _read_error(body: bytes) -> Mapping[str, object] | None:
    """Return the members of a JSON-RPC error response, or None for any other body."""
    try:
        messages = parse_messages(body)
    except MalformedMessage:
        return None
    if len(messages) != 1 or not isinstance(messages[0].members.get("error"), Mapping):
        return None
    return cast("Mapping[str, object]", messages[0].members)
