"""HTTP+SSE, the transport of MCP 2024-11-05: one GET stream for all responses, a POST for each message."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urljoin

import httpx2

from hermes_mcp_auth_remote.bridge.buffers import MAX_MEMORY_BYTES, MessageBuffer
from hermes_mcp_auth_remote.bridge.json_rpc import Message, RequestId, parse_messages
from hermes_mcp_auth_remote.bridge.session import SessionMessages
from hermes_mcp_auth_remote.bridge.sse import Event, SseParser
from hermes_mcp_auth_remote.bridge.transport import (
    EVENT_STREAM,
    JSON,
    Deliver,
    HttpConnection,
    MalformedMessage,
    SessionLost,
    TransportError,
    deliver_text,
    media_type,
    read_events,
)
from hermes_mcp_auth_remote.errors import ResponseTooLarge

_ENDPOINT_SECONDS = 30.0


class HttpWithSse:
    """The connection to one server over HTTP+SSE. A broken stream is opened again, with a new session."""

    def __init__(self, http_client: httpx2.AsyncClient, url: str, name: str, deliver: Deliver) -> None:
        self._connection = HttpConnection(http_client)
        self._url = httpx2.URL(url)
        self._name = name
        self._deliver = deliver
        self._endpoint: asyncio.Future[httpx2.URL] | None = None
        self._stream_task: asyncio.Task[None] | None = None
        self._open_lock = asyncio.Lock()
        # By the id of the request. A client may use an id again before it has the response.
        self._responses: dict[RequestId, list[asyncio.Future[None]]] = {}
        self._messages = SessionMessages()
        # The ids of our own requests, whose responses the client must not get.
        self._own_ids: set[RequestId] = set()

    async def send(self, message: Message) -> None:
        """Send a message; for a request, return when its response was delivered. Raises TransportError."""
        is_initialize = message.method == "initialize"
        if is_initialize:
            self._messages.restart(message, None)
        endpoint = await self._open(is_initialize=is_initialize)
        stream_task = self._stream_task
        try:
            await self._send(endpoint, message)
        except SessionLost:
            if self._stream_task is stream_task:
                # No other request has opened the next session yet.
                await self._close_stream()
            try:
                await self._send(await self._open(is_initialize=is_initialize), message)
            except SessionLost:
                raise self._refusal(message, 404) from None
        if not is_initialize:
            self._messages.remember(message)

    async def open_session(self, initialize: Message, initialized: Message | None) -> None:
        """Open a session with messages whose responses the client must not get. Raises as `send` does."""
        self._messages.restart(initialize, initialized)
        await self._open(is_initialize=False)

    async def close(self) -> None:
        """Close the stream."""
        await self._close_stream()
        await self._connection.close()

    async def _close_stream(self) -> None:
        if self._stream_task is not None:
            self._stream_task.cancel()
            await asyncio.gather(self._stream_task, return_exceptions=True)

    async def _send(self, endpoint: httpx2.URL, message: Message) -> None:
        """Send a message; for a request, wait for its response. Raises SessionLost, TransportError."""
        message_id = message.id if message.is_request else None
        if message_id is None:
            await self._post(endpoint, message)
            return
        response: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._responses.setdefault(message_id, []).append(response)
        try:
            await self._post(endpoint, message)
            await response
        finally:
            waiting = self._responses[message_id]
            waiting.remove(response)
            if not waiting:
                del self._responses[message_id]

    async def _open(self, *, is_initialize: bool) -> httpx2.URL:
        """Return the address for POST requests; open the stream first if it is not open."""
        async with self._open_lock:
            is_open = self._stream_task is not None and not self._stream_task.done()
            if is_open and self._endpoint is not None:
                return await self._wait_for_endpoint(self._endpoint)
            self._endpoint = asyncio.get_running_loop().create_future()
            self._stream_task = asyncio.create_task(self._read_stream(self._endpoint))
            endpoint = await self._wait_for_endpoint(self._endpoint)
            if not is_initialize:
                await self._initialize_again(endpoint)
            return endpoint

    async def _wait_for_endpoint(self, endpoint: asyncio.Future[httpx2.URL]) -> httpx2.URL:
        try:
            async with asyncio.timeout(_ENDPOINT_SECONDS):
                return await asyncio.shield(endpoint)
        except TimeoutError:
            raise TransportError(
                f"{self._name} is not an MCP server: it sent neither a response nor an endpoint."
            ) from None

    async def _initialize_again(self, endpoint: httpx2.URL) -> None:
        try:
            async with asyncio.timeout(_ENDPOINT_SECONDS):
                for message in self._messages.handshake():
                    await self._send_own(endpoint, message)
                for message in self._messages.settings():
                    await self._send_own(endpoint, message)
        except (TimeoutError, SessionLost):
            raise TransportError(f"{self._name} does not open the session again.") from None

    async def _send_own(self, endpoint: httpx2.URL, message: Message) -> None:
        """Send a message whose response the client must not get. Raises SessionLost, TransportError."""
        if message.id is None:
            await self._post(endpoint, message)
            return
        self._own_ids.add(message.id)
        try:
            await self._send(endpoint, message)
        finally:
            self._own_ids.discard(message.id)

    async def _post(self, endpoint: httpx2.URL, message: Message) -> None:
        try:
            # The response to the message comes on the stream. This body does not matter and may never end.
            async with self._connection.stream("POST", endpoint, {"Content-Type": JSON}, message.line) as (
                response,
                _,
            ):
                status = response.status_code
        except httpx2.HTTPError:
            raise TransportError(f"{self._name} cannot be reached.") from None
        if status == 404:
            raise SessionLost
        if status >= 400:
            raise self._refusal(message, status)

    def _refusal(self, message: Message, status: int) -> TransportError:
        return TransportError(f"{self._name} refused {message.method or 'a response'} with status {status}.")

    async def _read_stream(self, endpoint: asyncio.Future[httpx2.URL]) -> None:
        parser = SseParser()
        error: Exception = TransportError(
            f"The connection to {self._name} broke before its response arrived."
        )
        try:
            headers = {"Accept": EVENT_STREAM}
            async with self._connection.stream("GET", self._url, headers) as (response, body):
                if response.status_code != 200 or media_type(response) != EVENT_STREAM:
                    error = TransportError(
                        f"{self._name} is not an MCP server: it responds with status {response.status_code}. "
                        "Check its address."
                    )
                    return
                await read_events(body, parser, lambda event: self._handle_event(event, endpoint))
        except (httpx2.HTTPError, ResponseTooLarge):
            pass
        except Exception as refusal:  # noqa: BLE001  the callers raise it: a TransportError, or that of a login
            error = refusal
        finally:
            parser.close()
            waiting = [response for responses in self._responses.values() for response in responses]
            _fail_all([endpoint, *waiting], error)

    async def _handle_event(self, event: Event, endpoint: asyncio.Future[httpx2.URL]) -> bool:
        """Handle one event; return False, because the stream goes on."""
        if event.name == "endpoint":
            with event.data:
                text = event.data.read_all() if event.data.size < MAX_MEMORY_BYTES else b""
            address = self._read_endpoint(text)
            if not endpoint.done():
                endpoint.set_result(address)
        elif event.name != "message" or not event.data.size:
            event.data.close()
        else:
            with contextlib.suppress(MalformedMessage):
                for message in await deliver_text(event.data, self._deliver_unless_own):
                    self._resolve(message)
        return False

    def _read_endpoint(self, text: bytes) -> httpx2.URL:
        """Return the address of an `endpoint` event; raises TransportError."""
        try:
            address = httpx2.URL(urljoin(str(self._url), text.decode("utf-8", "replace").strip()))
        except (ValueError, httpx2.InvalidURL):
            raise TransportError(f"{self._name} names an endpoint that is not an address.") from None
        origins = [(url.scheme, url.host, url.port) for url in (address, self._url)]
        if origins[0] != origins[1]:
            # The token goes only to the server that the operator configured.
            raise TransportError(f"{self._name} names an endpoint at another host.")
        return address

    def _resolve(self, message: Message) -> None:
        """End the wait of the oldest request with the id of a response."""
        if message.is_response and message.id is not None:
            waiting = (item for item in self._responses.get(message.id, ()) if not item.done())
            oldest = next(waiting, None)
            if oldest is not None:
                oldest.set_result(None)

    async def _deliver_unless_own(self, text: bytes | MessageBuffer) -> None:
        if isinstance(text, bytes) and self._own_ids and parse_messages(text)[0].id in self._own_ids:
            return
        await self._deliver(text)


def _fail_all(futures: list[asyncio.Future[httpx2.URL] | asyncio.Future[None]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
            # Retrieve the exception, so that asyncio logs nothing if no caller waits.
            future.exception()
