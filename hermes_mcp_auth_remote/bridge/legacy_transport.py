"""HTTP+SSE, the transport of MCP 2024-11-05: one GET stream for all responses, a POST for each message."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

import httpx2

from hermes_mcp_auth_remote.bridge.buffers import MAX_MEMORY_BYTES, MessageBuffer
from hermes_mcp_auth_remote.bridge.json_rpc import Message, RequestId, encode, parse_messages
from hermes_mcp_auth_remote.bridge.sse import Event, SseParser
from hermes_mcp_auth_remote.bridge.transport import (
    SLICE_BYTES,
    Deliver,
    MalformedMessage,
    TransportError,
    deliver_text,
)
from hermes_mcp_auth_remote.errors import ResponseTooLarge

_ENDPOINT_SECONDS = 30.0


class HttpWithSse:
    """The connection to one server over HTTP+SSE. A broken stream is opened again, with a new session."""

    def __init__(self, http_client: httpx2.AsyncClient, url: str, name: str, deliver: Deliver) -> None:
        self._http_client = http_client
        self._url = url
        self._name = name
        self._deliver = deliver
        self._endpoint: asyncio.Future[str] | None = None
        self._stream_task: asyncio.Task[None] | None = None
        self._open_lock = asyncio.Lock()
        self._responses: dict[RequestId, asyncio.Future[None]] = {}
        self._initialize: Message | None = None
        self._initialized: Message | None = None
        # The ids of our own `initialize` requests, whose responses the client must not get.
        self._own_ids: set[RequestId] = set()
        self._reopen_ids = itertools.count(1)

    async def send(self, message: Message) -> None:
        """Send a message; for a request, return when its response was delivered. Raises TransportError."""
        if message.method == "initialize":
            self._initialize = message
        elif message.method == "notifications/initialized":
            self._initialized = message
        endpoint = await self._open(is_initialize=message.method == "initialize")
        message_id = message.id if message.is_request else None
        if message_id is None:
            await self._post(endpoint, message)
            return
        response: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._responses[message_id] = response
        try:
            await self._post(endpoint, message)
            await response
        finally:
            self._responses.pop(message_id, None)

    async def open_session(self, initialize: Message, initialized: Message | None) -> None:
        """Open a session with messages whose responses the client must not get. Raises as `send` does."""
        self._initialize, self._initialized = initialize, initialized
        await self._open(is_initialize=False)

    async def close(self) -> None:
        """Close the stream."""
        if self._stream_task is not None:
            self._stream_task.cancel()
            await asyncio.gather(self._stream_task, return_exceptions=True)

    async def _open(self, *, is_initialize: bool) -> str:
        """Return the address for POST requests; open the stream first if it is not open."""
        async with self._open_lock:
            is_open = self._stream_task is not None and not self._stream_task.done()
            if is_open and self._endpoint is not None:
                return await self._wait_for_endpoint(self._endpoint)
            self._endpoint = asyncio.get_running_loop().create_future()
            self._stream_task = asyncio.create_task(self._read_stream(self._endpoint))
            endpoint = await self._wait_for_endpoint(self._endpoint)
            if self._initialize is not None and not is_initialize:
                await self._initialize_again(endpoint, self._initialize)
            return endpoint

    async def _wait_for_endpoint(self, endpoint: asyncio.Future[str]) -> str:
        try:
            async with asyncio.timeout(_ENDPOINT_SECONDS):
                return await asyncio.shield(endpoint)
        except TimeoutError:
            raise TransportError(
                f"{self._name} is not an MCP server: it sent neither a response nor an endpoint."
            ) from None

    async def _initialize_again(self, endpoint: str, initialize: Message) -> None:
        reopen_id: RequestId = f"hermes-mcp-auth-{next(self._reopen_ids)}"
        members = {**initialize.members, "id": reopen_id}
        self._own_ids.add(reopen_id)
        response: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._responses[reopen_id] = response
        try:
            await self._post(endpoint, Message(members, encode(members)))
            async with asyncio.timeout(_ENDPOINT_SECONDS):
                await response
            if self._initialized is not None:
                await self._post(endpoint, self._initialized)
        except TimeoutError:
            raise TransportError(f"{self._name} does not open the session again.") from None
        finally:
            self._own_ids.discard(reopen_id)
            self._responses.pop(reopen_id, None)

    async def _post(self, endpoint: str, message: Message) -> None:
        try:
            # The response to the message comes on the stream. This body does not matter and may never end.
            async with self._http_client.stream(
                "POST", endpoint, content=message.line, headers={"Content-Type": "application/json"}
            ) as response:
                status = response.status_code
        except httpx2.HTTPError:
            raise TransportError(f"{self._name} cannot be reached.") from None
        if status >= 400:
            subject = message.method or "a response"
            raise TransportError(f"{self._name} refused {subject} with status {status}.")

    async def _read_stream(self, endpoint: asyncio.Future[str]) -> None:
        parser = SseParser()
        error = TransportError(f"The connection to {self._name} broke before its response arrived.")
        try:
            async with self._http_client.stream(
                "GET", self._url, headers={"Accept": "text/event-stream"}
            ) as response:
                content_type: str = response.headers.get("content-type", "")
                if response.status_code != 200 or not content_type.startswith("text/event-stream"):
                    error = TransportError(
                        f"{self._name} is not an MCP server: it responds with status {response.status_code}. "
                        "Check its address."
                    )
                    return
                async for chunk in response.aiter_bytes():
                    # A compressed body may expand to a chunk of any size.
                    for start in range(0, len(chunk), SLICE_BYTES):
                        for event in parser.feed(chunk[start : start + SLICE_BYTES]):
                            await self._handle_event(event, endpoint)
                        if start:
                            await asyncio.sleep(0)
        except (httpx2.HTTPError, ResponseTooLarge):
            pass
        except TransportError as refusal:
            error = refusal
        except Exception as login_error:  # noqa: BLE001  the callers raise it
            _fail_all([endpoint, *self._responses.values()], login_error)
        finally:
            parser.close()
            _fail_all([endpoint, *self._responses.values()], error)

    async def _handle_event(self, event: Event, endpoint: asyncio.Future[str]) -> None:
        if event.name == "endpoint":
            with event.data:
                text = event.data.read_all() if event.data.size < MAX_MEMORY_BYTES else b""
            address = urljoin(self._url, text.decode("utf-8", "replace").strip())
            if urlsplit(address)[:2] != urlsplit(self._url)[:2]:
                # The token goes only to the server that the operator configured.
                raise TransportError(f"{self._name} names an endpoint at another host.")
            if not endpoint.done():
                endpoint.set_result(address)
            return
        if event.name != "message" or not event.data.size:
            event.data.close()
            return
        with contextlib.suppress(MalformedMessage):
            for message in await deliver_text(event.data, self._deliver_unless_own):
                response = self._responses.get(message.id) if message.id is not None else None
                if message.is_response and response is not None and not response.done():
                    response.set_result(None)

    async def _deliver_unless_own(self, text: bytes | MessageBuffer) -> None:
        if isinstance(text, bytes) and self._own_ids:
            members: Mapping[str, object] = parse_messages(text)[0].members
            if members.get("id") in self._own_ids:
                return
        await self._deliver(text)


def _fail_all(futures: list[asyncio.Future[str] | asyncio.Future[None]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
            # Retrieve the exception, so that asyncio logs nothing if no caller waits.
            future.exception()
