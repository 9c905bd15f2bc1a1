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
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import TypeVar

import httpx2

from hermes_mcp_auth_remote.bridge.buffers import MAX_MEMORY_BYTES, MessageBuffer
from hermes_mcp_auth_remote.bridge.json_rpc import (
    INTERNAL_ERROR,
    METHOD_NOT_FOUND,
    MalformedMessage,
    Message,
    encode,
    parse_messages,
)
from hermes_mcp_auth_remote.bridge.request_headers import (
    HEADER_MISMATCH,
    ToolHeaders,
    is_version,
    request_headers,
    stateless_version,
)
from hermes_mcp_auth_remote.bridge.session import SessionMessages
from hermes_mcp_auth_remote.bridge.sse import Event, SseParser
from hermes_mcp_auth_remote.bridge.transport import (
    EVENT_STREAM,
    JSON,
    Deliver,
    HttpConnection,
    LegacyServer,
    SessionLost,
    TransportError,
    deliver_text,
    media_type,
    read_events,
)
from hermes_mcp_auth_remote.errors import McpAuthError, ResponseTooLarge

T = TypeVar("T")
_log = logging.getLogger(__name__)

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
# How long a message that opens a session waits for its response. It waits longer if a login is needed.
_SESSION_SECONDS = 30.0
# More pages of a list of tools are not read to find the headers of one call.
_MAX_TOOL_PAGES = 100
# These requests may be sent twice: they change nothing, or the second one changes nothing more.
_REPEATABLE_METHODS = frozenset(
    {
        "completion/complete",
        "initialize",
        "logging/setLevel",
        "ping",
        "prompts/get",
        "prompts/list",
        "resources/list",
        "resources/read",
        "resources/subscribe",
        "resources/templates/list",
        "resources/unsubscribe",
        "server/discover",
        "subscriptions/listen",
        "tools/list",
    }
)
_BUSY_STATUSES = frozenset({502, 503, 504})


class _NotSent(Exception):
    """The server cannot have received the request."""


class _HeadersRefused(Exception):
    """The server refused the headers of a tool call (MCP 2026-07-28). `response` is its error response."""

    def __init__(self, response: bytes) -> None:
        super().__init__()
        self.response = response


class StreamableHttp:
    """The connection to one server over Streamable HTTP."""

    def __init__(
        self,
        http_client: httpx2.AsyncClient,
        url: str,
        name: str,
        deliver: Deliver,
        is_login_waiting: Callable[[], Awaitable[bool]],
    ) -> None:
        """`name` is the server's name in the texts of errors.

        `is_login_waiting` returns True while a login of this server waits for its user.
        """
        self._connection = HttpConnection(http_client)
        self._url = httpx2.URL(url)
        self._name = name
        self._deliver = deliver
        self._is_login_waiting = is_login_waiting
        self._tool_headers = ToolHeaders()
        self._session_id: str | None = None
        self._version: str | None = None
        self._messages = SessionMessages()
        self._generation = 0
        self._reopen_task: asyncio.Task[None] | None = None
        self._listen_task: asyncio.Task[None] | None = None
        # True if the server has sent a GET stream in this session.
        self._has_listened = False
        self._has_answered = False

    async def send(self, message: Message) -> None:
        """Send a message; for a request, return when its response was delivered.

        Raises TransportError, or the McpAuthError of a login or refresh. Raises LegacyServer if the server
        accepts no POST as the first request.
        """
        loop = asyncio.get_running_loop()
        ends_at, pause_seconds = loop.time() + RETRY_SECONDS, _FIRST_PAUSE_SECONDS
        lost_sessions, has_new_headers = 0, True
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
            except _HeadersRefused as refusal:
                has_new_headers = has_new_headers and await self._learn_tools(message)
                if not has_new_headers:
                    await self._deliver(refusal.response)
                    return
                # The next refusal is passed on.
                has_new_headers = False
            except _NotSent as error:
                if loop.time() + pause_seconds > ends_at:
                    raise TransportError(f"{self._name} cannot be reached: {error}.") from None
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _MAX_PAUSE_SECONDS)
            else:
                break
        self._messages.remember(message)
        if message.method == "notifications/initialized" and stateless_version(message) is None:
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
        await self._connection.close()

    async def _delete_session(self) -> None:
        async with self._connection.stream("DELETE", self._url, self._session_headers()):
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

        Raises SessionLost if `may_be_lost`, _NotSent, _HeadersRefused, LegacyServer, TransportError.
        """
        headers, has_response = self._headers(message), False
        try:
            async with self._connection.stream("POST", self._url, headers, message.line) as (response, body):
                has_response = True
                if response.status_code >= 400:
                    may_be_lost = may_be_lost and "Mcp-Session-Id" in headers
                    await self._read_refusal(message, response, body, deliver, may_be_lost=may_be_lost)
                else:
                    await self._read_response(message, response, body, deliver)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
            raise _NotSent("the connection failed") from None
        except httpx2.TooManyRedirects:
            raise TransportError(f"{self._name} redirects without end. Check its address.") from None
        except httpx2.HTTPError:
            if not has_response and message.method in _REPEATABLE_METHODS:
                raise _NotSent("the connection broke") from None
            raise TransportError(
                f"The connection to {self._name} broke before its response arrived. "
                "The server may have carried out the request."
            ) from None
        except (MalformedMessage, ResponseTooLarge):
            raise TransportError(f"{self._name} sent a response that is not a JSON-RPC message.") from None

    async def _read_response(
        self, message: Message, response: httpx2.Response, body: AsyncIterator[bytes], deliver: Deliver
    ) -> None:
        self._has_answered = True
        if message.method == "initialize":
            self._session_id = _read_session_id(response)
        if not message.is_request:
            return
        content_type = media_type(response)
        if content_type == JSON:
            buffer = MessageBuffer()
            try:
                async for chunk in body:
                    buffer.write(chunk)
            except BaseException:
                buffer.close()
                raise
            is_large = not buffer.is_small
            delivered = await deliver_text(buffer, deliver, lambda answer: self._learn(message, answer))
            if not (is_large or any(item.is_response and item.id == message.id for item in delivered)):
                # The client would wait for the response forever.
                raise TransportError(f"{self._name} sent no response to {message.method}.")
        elif content_type == EVENT_STREAM:
            await self._read_stream(message, body, deliver)
        else:
            raise TransportError(
                f"{self._name} responded to {message.method} with status {response.status_code} and no "
                "JSON-RPC message. Check that its address is that of an MCP server."
            )

    async def _read_refusal(
        self,
        message: Message,
        response: httpx2.Response,
        body: AsyncIterator[bytes],
        deliver: Deliver,
        *,
        may_be_lost: bool,
    ) -> None:
        """Handle a status of 400 or higher: pass on a JSON-RPC error of the server, else raise."""
        status, text = response.status_code, bytearray()
        # A body that breaks or never ends is no JSON-RPC error: only the status counts then.
        with contextlib.suppress(TimeoutError, httpx2.HTTPError):
            async with asyncio.timeout(_REFUSAL_SECONDS):
                async for chunk in body:
                    text += chunk[: MAX_MEMORY_BYTES - len(text)]
                    if len(text) >= MAX_MEMORY_BYTES:
                        break
        error = _read_error(bytes(text))
        # Some servers answer 400 instead of 404. If a 400 has another cause, the repeated request gets it
        # again.
        names_session = b"session" in bytes(text).lower()
        # From 2026-07-28 on, the status of an unknown method is 404, too.
        is_unknown_method = error is not None and error.error_code == METHOD_NOT_FOUND
        if may_be_lost and ((status == 404 and not is_unknown_method) or (status == 400 and names_session)):
            raise SessionLost
        if error is not None and message.is_request:
            line = encode({**error.members, "id": message.id})
            if error.error_code == HEADER_MISMATCH and message.method == "tools/call":
                raise _HeadersRefused(line)
            await deliver(line)
            return
        if not self._has_answered and status in {400, 404, 405} and message.is_request:
            raise LegacyServer
        if status in _BUSY_STATUSES and message.method in _REPEATABLE_METHODS:
            raise _NotSent(f"it responds with status {status}")
        raise TransportError(f"{self._name} refused {message.method or 'a response'} with status {status}.")

    def _learn(self, message: Message, response: Message) -> Message:
        """Remember what later requests need from a response; return what the client gets in its place.

        That is the negotiated version, and the annotations of tools. An error without an id gets that of the
        request: a server sends it if it could not read the request.
        """
        if response.is_response and response.id is None and "error" in response.members:
            members = {**response.members, "id": message.id}
            try:
                return Message(members, encode(members))
            except ValueError:
                # The error was parsed, but its data cannot be encoded.
                text = f"{self._name} sent an error that cannot be passed on."
                members["error"] = {"code": response.error_code or INTERNAL_ERROR, "message": text}
                return Message(members, encode(members))
        if response.id != message.id or not response.is_response:
            return response
        if message.method == "initialize":
            version = response.result.get("protocolVersion")
            self._version = version if is_version(version) else None
        elif message.method == "tools/list" and stateless_version(message) is not None:
            return self._tool_headers.learn(response)
        return response

    async def _learn_tools(self, call: Message) -> bool:
        """List the tools again; return True if a tool call now has other headers.

        A client may know its tools from an earlier bridge, and the server may have changed them. Raises the
        McpAuthError of a login or refresh.
        """
        headers, cursor = self._tool_headers.headers_for(call), None
        pages = list[bytes]()

        async def keep(text: bytes | MessageBuffer) -> None:
            if isinstance(text, bytes):
                pages.append(text)

        meta = {name: value for name, value in call.meta.items() if name != "progressToken"}
        for _ in range(_MAX_TOOL_PAGES):
            params = {"_meta": meta} if cursor is None else {"_meta": meta, "cursor": cursor}
            members = {"jsonrpc": "2.0", "method": "tools/list", "params": params}
            request = self._messages.with_own_id(Message(members, b""))
            pages.clear()
            try:
                await self._post(request, keep)
            except (TransportError, _NotSent):
                break
            cursor = None
            for page in pages:
                message = parse_messages(page)[0]
                cursor = message.result.get("nextCursor") if message.id == request.id else cursor
            if not isinstance(cursor, str):
                break
        return self._tool_headers.headers_for(call) != headers

    async def _read_stream(self, message: Message, body: AsyncIterator[bytes], deliver: Deliver) -> None:
        """Deliver the events of a stream up to the JSON-RPC response; resume the stream if it breaks."""
        parser = SseParser()
        try:
            if await self._read_events(body, parser, message, deliver):
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
                async with self._open_stream(last_event_id) as (response, body):
                    if 400 <= response.status_code < 500:
                        raise broken
                    if await self._read_events(body, parser, message, deliver):
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
    async def _open_stream(
        self, last_event_id: str | None
    ) -> AsyncGenerator[tuple[httpx2.Response, AsyncIterator[bytes]]]:
        headers = {"Accept": EVENT_STREAM, **self._session_headers()}
        if last_event_id is not None:
            # The server gets the bytes that it sent.
            headers["Last-Event-ID"] = last_event_id.encode().decode("latin-1")
        async with self._connection.stream("GET", self._url, headers) as opened:
            yield opened

    async def _read_events(
        self, body: AsyncIterator[bytes], parser: SseParser, message: Message | None, deliver: Deliver
    ) -> bool:
        """Deliver events; return True after the response to `message`, False at the end of the stream."""
        return await read_events(body, parser, lambda event: self._deliver_event(event, message, deliver))

    async def _deliver_event(self, event: Event, message: Message | None, deliver: Deliver) -> bool:
        """Deliver one event; return True if it is the response to `message`."""
        if event.name != "message" or not event.data.size:
            # The first event of a resumable stream has an id and no data.
            event.data.close()
            return False
        try:
            messages = await deliver_text(
                event.data, deliver, None if message is None else lambda answer: self._learn(message, answer)
            )
        except MalformedMessage:
            _log.warning("%s sent an event that is not a JSON-RPC message.", self._name)
            return False
        if message is None:
            return False
        # If a message is so large that its kind cannot be read, it is the response: no other is so large.
        return not messages or any(item.is_response and item.id == message.id for item in messages)

    async def _reopen(self, generation: int) -> None:
        """Open the session again with the client's own messages, once for all requests that wait.

        Raises TransportError, or the McpAuthError of a login or refresh.
        """
        if self._generation != generation:
            return
        if self._reopen_task is None or self._reopen_task.done():
            if self._messages.initialize is None:
                raise TransportError(f"{self._name} does not keep a session.")
            _log.warning("%s has lost the session. It is opened again.", self._name)
            # A task of its own: a client that cancels one request must not leave a half-open session.
            self._reopen_task = asyncio.create_task(self._open_session())
            self._reopen_task.add_done_callback(_retrieve_exception)
        await asyncio.shield(self._reopen_task)

    async def open_session(self, initialize: Message, initialized: Message | None) -> None:
        """Open a session with messages whose responses the client must not get. Raises as `send` does."""
        self._messages.restart(initialize, initialized)
        await self._open_session()

    async def _open_session(self) -> None:
        async def discard(text: bytes | MessageBuffer) -> None:
            """Drop the text: the client has a response to its own message already."""

        try:
            for message in self._messages.handshake():
                # A server may never respond to `initialized`.
                if not await self._post_in_time(message, discard) and message.is_request:
                    raise TransportError(f"{self._name} does not open the session again.")
            for message in self._messages.settings():
                # A server that has lost this, too, still has a session.
                with contextlib.suppress(TransportError):
                    if not await self._post_in_time(message, discard):
                        break
        except _NotSent as error:
            raise TransportError(f"{self._name} cannot be reached: {error}.") from None
        self._generation += 1
        if self._messages.initialized is not None:
            self._start_listening()

    async def _post_in_time(self, message: Message, deliver: Deliver) -> bool:
        """POST a message as `_post` does; return False if the server does not respond.

        All calls wait for the session, so a response that was lost must not keep them waiting forever.
        """
        task, was_login_waiting = asyncio.create_task(self._post(message, deliver)), False
        try:
            while not (await asyncio.wait({task}, timeout=_SESSION_SECONDS))[0]:
                is_login_waiting = False
                with contextlib.suppress(McpAuthError):
                    is_login_waiting = await self._is_login_waiting()
                # After a login, the server has the whole time to respond.
                if not (is_login_waiting or was_login_waiting):
                    return False
                was_login_waiting = is_login_waiting
            task.result()
            return True
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _start_listening(self) -> None:
        if self._listen_task is not None:
            self._listen_task.cancel()
        self._listen_task = _create_background_task(self._listen())
        self._listen_task.add_done_callback(_retrieve_exception)

    async def _listen(self) -> None:
        """Deliver the messages that the server sends on its own, if it offers a GET stream."""
        parser, pause_seconds = SseParser(), 0.0
        while True:
            generation, last_event_id = self._generation, parser.last_event_id
            opened_at, has_message, is_lost = asyncio.get_running_loop().time(), False, False

            async def deliver(text: bytes | MessageBuffer) -> None:
                nonlocal has_message
                has_message = True
                await self._deliver(text)

            try:
                async with self._open_stream(last_event_id) as (response, body):
                    is_lost = response.status_code == 404 and self._session_id is not None
                    if not (is_lost and self._has_listened) and not _may_become_stream(response):
                        # The server offers no GET stream (405; some servers respond with 404).
                        return
                    if response.status_code < 400:
                        self._has_listened = True
                        await self._read_events(body, parser, None, deliver)
                if is_lost:
                    self._has_listened = False
                    # This starts another listening task, which ends this one.
                    await self._reopen(generation)
            except (httpx2.HTTPError, ResponseTooLarge, TransportError, LegacyServer):
                pass
            except McpAuthError:
                # A login is needed. The next request of the client asks the user to log in; a stream in the
                # background does not.
                pass
            lasted_seconds = asyncio.get_running_loop().time() - opened_at
            is_useful = has_message or parser.last_event_id != last_event_id
            if is_useful or lasted_seconds >= _MAX_STREAM_PAUSE_SECONDS:
                pause_seconds = 0.0
            # A server that closes each stream at once must not get requests without end.
            pause_seconds = min(2 * pause_seconds, _MAX_STREAM_PAUSE_SECONDS)
            pause_seconds = max(pause_seconds, parser.retry_seconds or _STREAM_PAUSE_SECONDS)
            parser = parser.successor()
            await asyncio.sleep(pause_seconds)


def _create_background_task(work: Coroutine[object, object, T]) -> asyncio.Task[T]:
    """Create a task that asks no user for a login.

    Its context is empty, so the context variable with the target of prompts is not set.
    """
    return asyncio.create_task(work, context=contextvars.Context())


def _retrieve_exception(task: asyncio.Task[None]) -> None:
    """Keep asyncio from logging an exception that no caller waits for."""
    if not task.cancelled():
        task.exception()


def _may_become_stream(response: httpx2.Response) -> bool:
    """True for a stream, and for a server error that may be temporary."""
    return response.status_code >= 500 or media_type(response) == EVENT_STREAM


def _read_session_id(response: httpx2.Response) -> str | None:
    """Return the session's id as the Latin-1 text of its bytes, so that any id can be sent back.

    Return None if there is none.
    """
    for name, value in response.headers.raw:
        if name.lower() == b"mcp-session-id" and value.strip():
            return value.strip().decode("latin-1")
    return None


def _read_error(body: bytes) -> Message | None:
    """Return a JSON-RPC error response, or None for any other body."""
    try:
        [message] = parse_messages(body)
        encode(message.members)
    except (MalformedMessage, ValueError):
        return None
    return message if isinstance(message.members.get("error"), Mapping) else None
