"""MCP servers in the later Hermes: one thread connects to all of them, and pauses after a failure."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx2
import yaml
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from tests.parts.hermes_stand_in.scopes import get_hermes_home

TOOL_PREFIX = "mcp__"
RETRY_BASE_SECONDS = 30.0
CONNECT_SECONDS = 20.0
STOP_SECONDS = 0.5
DEFAULT_CALL_SECONDS = 300.0

log = logging.getLogger("tools.mcp_tool")

ServerKey = str | tuple[str, str]

lock = threading.Lock()
servers: dict[ServerKey, ServerTask] = {}
connect_failures: dict[ServerKey, int] = {}
connect_retry_after: dict[ServerKey, float] = {}


def sanitize_mcp_name_component(value: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", value)


class Registry:
    """The model's tools: their schemas and handlers."""

    def __init__(self) -> None:
        self._tools: dict[str, tuple[Mapping[str, Any], Callable[..., str], str]] = {}

    def register(
        self, name: str, schema: Mapping[str, Any], handler: Callable[..., str], owner: str = ""
    ) -> None:
        self._tools[name] = (schema, handler, owner)

    def deregister(self, owner: str) -> None:
        for name in [name for name, (_, _, its_owner) in self._tools.items() if its_owner == owner]:
            del self._tools[name]

    def dispatch(self, name: str, arguments: Mapping[str, Any], **_: object) -> str:
        if name not in self._tools:
            return json.dumps({"error": f"Unknown tool: {name}"})
        return self._tools[name][1](arguments)

    def definitions(self) -> list[dict[str, Any]]:
        return [
            {"type": "function", "function": {**schema, "name": name}}
            for name, (schema, _, _) in list(self._tools.items())
        ]


registry = Registry()


class TokenFileAuth(httpx2.Auth):
    """Reads the access token from a file before each request, and sends it. Remembers a 401."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.is_refused = False

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response]:
        request.headers["Authorization"] = f"Bearer {json.loads(self._path.read_text())['access_token']}"
        response = yield request
        self.is_refused = response.status_code == 401


@dataclass(eq=False)
class ServerTask:
    """A server's connection. `session` is None while it is parked."""

    name: str
    config: Mapping[str, Any]
    home: Path
    session: Any = None
    auth: TokenFileAuth | None = None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    runner: asyncio.Task[None] | None = None

    @property
    def owner(self) -> str:
        return f"mcp-{self.name}-{id(self)}"

    async def run(self, ready: asyncio.Future[None]) -> None:
        """Connect, register the tools, and stay until `stopped`."""
        path = self.home / "mcp-tokens" / f"{self.name}.json"
        try:
            self.auth = TokenFileAuth(path)
            if not path.exists():
                raise ConnectionError("no token is stored")  # noqa: TRY301
            async with (
                httpx2.AsyncClient(auth=self.auth, timeout=CONNECT_SECONDS) as http_client,
                Client(streamable_http_client(self.config["url"], http_client=http_client)) as client,
            ):
                tools = (await client.list_tools()).tools
                self.session = client
                for tool in tools:
                    name = f"{TOOL_PREFIX}{sanitize_mcp_name_component(self.name)}__{tool.name}"
                    schema = {"description": tool.description or "", "parameters": tool.input_schema}
                    registry.register(name, schema, self._handler(tool.name), self.owner)
                ready.set_result(None)
                await self.stopped.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(ConnectionError(type(error).__name__))
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self.park()

    async def stop(self) -> None:
        """Disconnect. If a call was refused, the SDK's client may not end by itself."""
        self.stopped.set()
        if self.runner is not None:
            await asyncio.wait({self.runner}, timeout=STOP_SECONDS)
            self.runner.cancel()

    def park(self) -> None:
        self.session = None
        registry.deregister(self.owner)

    def _handler(self, tool: str) -> Callable[[Mapping[str, Any]], str]:
        def call(arguments: Mapping[str, Any]) -> str:
            seconds = float(self.config.get("timeout", DEFAULT_CALL_SECONDS))
            try:
                result = run_on_mcp_loop(self._call(tool, dict(arguments)), seconds)
            except Exception as error:  # noqa: BLE001
                if self.auth is not None and self.auth.is_refused:
                    self.park()
                    text = f"MCP server '{self.name}' needs a login. Run `hermes mcp login {self.name}`."
                    return json.dumps({"error": text, "needs_reauth": True, "server": self.name})
                return json.dumps({"error": f"The call failed: {type(error).__name__}"})
            return json.dumps({"result": result})

        return call

    async def _call(self, tool: str, arguments: dict[str, Any]) -> str:
        result = await self.session.call_tool(tool, arguments)
        return " ".join(getattr(block, "text", "") for block in result.content)


_loop: asyncio.AbstractEventLoop | None = None


def run_on_mcp_loop(coroutine: Any, seconds: float) -> Any:
    global _loop  # noqa: PLW0603
    if _loop is None:
        _loop = asyncio.new_event_loop()
        threading.Thread(target=_loop.run_forever, name="mcp-loop", daemon=True).start()
    future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, _loop)
    try:
        return future.result(seconds)
    except TimeoutError:
        future.cancel()
        raise


def server_key(name: str) -> ServerKey:
    """Return the key of a server. If a profile's scope is set, the key is (scope, name)."""
    scope = mcp_registry_scope()
    return name if scope is None else (scope, name)


def mcp_registry_scope() -> str | None:
    from tests.parts.hermes_stand_in.scopes import home_override

    return home_override()


def current_mcp_servers() -> dict[str, ServerTask]:
    scope = mcp_registry_scope()
    with lock:
        return {
            key if isinstance(key, str) else key[1]: task
            for key, task in servers.items()
            if (None if isinstance(key, str) else key[0]) == scope
        }


def configured_servers() -> dict[str, Mapping[str, Any]]:
    path = get_hermes_home() / "config.yaml"
    settings = yaml.safe_load(path.read_text()) if path.exists() else {}
    return cast("dict[str, Mapping[str, Any]]", (settings or {}).get("mcp_servers") or {})


def discover_mcp_tools(allowed_mcp_names: list[str] | None = None) -> list[str]:
    """Connect the configured servers that are neither connected nor in their pause."""
    now, home = time.monotonic(), get_hermes_home()
    with lock:
        names = {
            name: config
            for name, config in configured_servers().items()
            if (allowed_mcp_names is None or name in allowed_mcp_names)
            and server_key(name) not in servers
            and connect_retry_after.get(server_key(name), 0.0) <= now
        }
    keys = {name: server_key(name) for name in names}

    async def connect(name: str) -> None:
        task = ServerTask(name, names[name], home)
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task.runner = asyncio.create_task(task.run(ready))
        try:
            await asyncio.wait_for(ready, CONNECT_SECONDS)
        except (ConnectionError, TimeoutError) as error:
            task.runner.cancel()
            with lock:
                count = connect_failures[keys[name]] = connect_failures.get(keys[name], 0) + 1
                connect_retry_after[keys[name]] = time.monotonic() + RETRY_BASE_SECONDS * 2 ** (count - 1)
            log.warning("Failed to connect to MCP server '%s': %s", name, error)
            return
        with lock:
            servers[keys[name]] = task
            connect_failures.pop(keys[name], None)
            connect_retry_after.pop(keys[name], None)

    async def connect_all() -> None:
        await asyncio.gather(*(connect(name) for name in names))

    if names:
        run_on_mcp_loop(connect_all(), 120.0)
    return [definition["function"]["name"] for definition in registry.definitions()]


def shutdown_mcp_servers(*, scope: str | None = None, names: set[str] | None = None) -> None:
    """Disconnect the servers of a scope with these names, and end their pauses."""

    def is_selected(key: ServerKey) -> bool:
        its_scope, name = key if isinstance(key, tuple) else (None, key)
        return (scope is None or its_scope == scope) and (names is None or name in names)

    with lock:
        selected = [servers.pop(key) for key in list(servers) if is_selected(key)]
        for by_key in (connect_failures, connect_retry_after):
            for key in [key for key in by_key if is_selected(key)]:
                cast("dict[ServerKey, Any]", by_key).pop(key)

    async def stop_all(tasks: Iterable[ServerTask]) -> None:
        await asyncio.gather(*(task.stop() for task in tasks))

    if selected:
        run_on_mcp_loop(stop_all(selected), 15.0)


def get_mcp_status() -> list[dict[str, Any]]:
    connected = current_mcp_servers()
    return [
        {"name": name, "connected": name in connected and connected[name].session is not None}
        for name in configured_servers()
    ]
