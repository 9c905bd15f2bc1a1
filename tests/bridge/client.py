"""A client of the bridge in this process, over pipes, and a server handler that can be extended."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

import httpx2

from hermes_mcp_auth_remote.bridge.connections import open_http_client
from hermes_mcp_auth_remote.bridge.relay import Options, Relay
from hermes_mcp_auth_remote.bridge.stdio import LineWriter
from tests.bridge.raw_server import Reply, Request

TEST_SECONDS = 30.0
STATELESS = "2026-07-28"
SSL_CONTEXT = ssl.create_default_context()


def run_in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test in an event loop, for at most TEST_SECONDS."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def run_with_timeout() -> None:
            async with asyncio.timeout(TEST_SECONDS):
                await test(*args, **kwargs)

        asyncio.run(run_with_timeout())

    return run


class BridgeClient:
    """A JSON-RPC client at the other end of the bridge's pipes."""

    def __init__(self, reader: asyncio.StreamReader, input_descriptor: int) -> None:
        self._reader = reader
        self._input_descriptor = input_descriptor
        self._next_id = 0
        self._responses = dict[Any, asyncio.Future[dict[str, Any]]]()
        # Requests, notifications, and responses with an id that no request of this client has.
        self.others: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._read_task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while line := await self._reader.readline():
            message = json.loads(line)
            response = self._responses.pop(message.get("id"), None) if "method" not in message else None
            if response is None:
                self.others.put_nowait(message)
            else:
                response.set_result(message)

    async def write(self, data: bytes) -> None:
        await asyncio.to_thread(os.write, self._input_descriptor, data)

    async def send(self, message: Mapping[str, Any]) -> None:
        await self.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def notify(self, method: str, **params: Any) -> None:
        await self.send({"method": method, "params": params})

    async def start_request(self, method: str, **params: Any) -> tuple[int, asyncio.Future[dict[str, Any]]]:
        """Send a request; return its id, and a future of the response."""
        self._next_id += 1
        response: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._responses[self._next_id] = response
        await self.send({"id": self._next_id, "method": method, "params": params})
        return self._next_id, response

    async def request(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a request and return the response."""
        _, response = await self.start_request(method, **params)
        return await response

    async def initialize(self, version: str = "2025-11-25", **capabilities: Any) -> dict[str, Any]:
        response = await self.request(
            "initialize",
            protocolVersion=version,
            capabilities=capabilities,
            clientInfo={"name": "test", "version": "1"},
        )
        await self.notify("notifications/initialized")
        return response

    def close_input(self) -> None:
        if self._input_descriptor >= 0:
            os.close(self._input_descriptor)
            self._input_descriptor = -1

    async def close(self) -> None:
        self.close_input()
        self._read_task.cancel()
        await asyncio.gather(self._read_task, return_exceptions=True)


@contextlib.asynccontextmanager
async def run_bridge(
    url: str, *, auth: httpx2.Auth | None = None, **options: Any
) -> AsyncGenerator[BridgeClient]:
    """Run a bridge to a server until the block ends."""

    async def no_token() -> str:
        return ""

    input_read, input_write = os.pipe()
    output_read, output_write = os.pipe()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**27)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(output_read, "rb", 0)
    )
    client = BridgeClient(reader, input_write)
    defaults: dict[str, Any] = {
        "login_command": "hermes-mcp-auth login demo",
        "client_login": None,
        "is_login_waiting": lambda: asyncio.sleep(0, result=False),
        "authorization": no_token,
    }
    async with open_http_client(SSL_CONTEXT, auth=auth, headers={}, can_use_proxy=False) as http_client:
        relay = Relay(Options("demo", url, **{**defaults, **options}), http_client, LineWriter(output_write))
        task = asyncio.create_task(relay.run(input_read))
        try:
            yield client
        finally:
            await client.close()
            await task
            transport.close()
            for descriptor in (input_read, output_write):
                os.close(descriptor)


class McpHandler:
    """A server with sessions. A test replaces or extends `methods`, and reads `requests`."""

    def __init__(self, version: str = "2025-11-25", *, session_id: str | None = "s1") -> None:
        self.version = version
        self.session_id = session_id
        self.requests: list[Request] = []
        self.methods: dict[str, Callable[[Request, Reply], Awaitable[None]]] = {}

    async def __call__(self, request: Request, reply: Reply) -> None:
        self.requests.append(request)
        method = request.rpc_method
        if method in self.methods:
            await self.methods[method](request, reply)
        elif method == "initialize":
            session = {} if self.session_id is None else {"Mcp_Session_Id": self.session_id}
            await reply.result(request, {"protocolVersion": self.version, "capabilities": {}}, **session)
        elif self.session_id is not None and request.headers.get("mcp-session-id") != self.session_id:
            await reply.send(404)
        elif method == "GET":
            await reply.send(405)
        elif request.method == "DELETE":
            await reply.send(200)
        elif "id" not in request.message or "method" not in request.message:
            await reply.send(202)
        else:
            await reply.result(request, {"echo": request.message.get("params", {})})

    def received(self, method: str) -> list[Request]:
        return [request for request in self.requests if request.rpc_method == method]


def meta(version: str = STATELESS, **capabilities: Any) -> dict[str, Any]:
    """Return the `_meta` of a request of 2026-07-28."""
    return {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    }
