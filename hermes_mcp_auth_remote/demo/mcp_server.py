"""Protected resources: an MCP server with two tools, and a plain JSON endpoint. RFC 9728, RFC 6750, MCP."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from hermes_mcp_auth_remote.demo.ledger import AccessToken
from hermes_mcp_auth_remote.demo.state import Controls, absent

MCP_PATH = "/mcp"
PING_PATH = "/api/ping"
WELL_KNOWN = "/.well-known/oauth-protected-resource"

_NUMBERS = {
    "type": "object",
    "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
    "required": ["a", "b"],
}
_TOOLS = [
    Tool(name="whoami", description="Says as whom you are logged in.", input_schema={"type": "object"}),
    Tool(name="add", description="Adds two numbers.", input_schema=_NUMBERS),
]


class ProtectedResources:
    """MCP servers at `paths`, and the plain endpoint, all of one origin; each path is a resource of its own.

    `Behaviour.resource_identifier` "origin" makes them one resource together.
    """

    def __init__(self, origin: str, controls: Controls, paths: tuple[str, ...] = (MCP_PATH,)) -> None:
        self.origin = origin
        self._controls = controls
        self._paths = paths
        server: Server[Any] = Server("demo", version="1", on_list_tools=_list_tools, on_call_tool=self._call)
        self._manager = StreamableHTTPSessionManager(server, stateless=True, json_response=True)
        controls.resources |= {origin, *(origin + path for path in (*paths, PING_PATH))}
        self.routes: list[BaseRoute] = [
            Route(WELL_KNOWN + "{path:path}", self._metadata),
            Route(PING_PATH, self._ping, methods=["GET", "POST"]),
            *(Route(path, _Endpoint(self)) for path in paths),
        ]

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncGenerator[None]:
        """Run the MCP server's sessions; once per instance."""
        async with self._manager.run():
            yield

    def identifier(self, path: str) -> str:
        """Return the resource identifier of a path."""
        return self.origin + ("" if self._controls.behaviour.resource_identifier == "origin" else path)

    async def _metadata(self, request: Request) -> Response:
        how, path = self._controls.behaviour, request.path_params["path"]
        places = {*self._paths, PING_PATH} if "path" in how.resource_metadata_at else set[str]()
        if "root" in how.resource_metadata_at:
            places.add("")
        if path not in places:
            return absent()
        document: dict[str, object | None] = {
            "resource": self.identifier(path),
            "authorization_servers": [self._controls.issuer],
            "scopes_supported": sorted(how.required_scope),
            "bearer_methods_supported": ["header"],
            **how.resource_overrides,
        }
        return JSONResponse({name: value for name, value in document.items() if value is not None})

    async def _ping(self, request: Request) -> Response:
        token = self.check(request)
        if isinstance(token, Response):
            return token
        if self._controls.behaviour.ping_delay_seconds:
            await anyio.sleep(self._controls.behaviour.ping_delay_seconds)
        return JSONResponse({"pong": True, "account": self._controls.behaviour.account})

    def check(self, request: Request, needed: frozenset[str] = frozenset()) -> AccessToken | Response:
        """Check the bearer token (RFC 6750): return it, or the 401 or 403 that says what is wrong."""
        how, path = self._controls.behaviour, request.url.path
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        known = scheme == "Bearer" if how.exact_bearer else scheme.lower() == "bearer"
        needed |= how.required_scope
        if not known or not text:
            # RFC 6750 section 3.1: without credentials the answer "SHOULD NOT include an error code".
            return self._challenge(path, needed, 401)
        token = self._controls.ledger.live(text)
        # A token for another resource is no token here (MCP: "MUST validate that [it was] issued for them").
        if token is None or token.family.resource not in self._audiences(path):
            return self._challenge(path, needed, 401, "invalid_token")
        if not needed <= token.scope:
            return self._challenge(path, needed, 403, "insufficient_scope")
        return token

    def _audiences(self, path: str) -> set[object]:
        how = self._controls.behaviour
        audiences: set[object] = {self.identifier(path), how.resource_overrides.get("resource", "")}
        if "root" in how.resource_metadata_at:
            audiences.add(self.origin)
        # Where the authorization server asks for no resource, its tokens are for everything here.
        if not (how.require_resource and how.accepts_resource):
            audiences.add(None)
        return audiences

    def _challenge(
        self, path: str, needed: frozenset[str], status: int, error: str | None = None
    ) -> Response:
        how = self._controls.behaviour
        by_path = path if "path" in how.resource_metadata_at else ""
        metadata, scope = f"{self.origin}{WELL_KNOWN}{by_path}", " ".join(sorted(needed))
        parameters = {
            "error": error,
            "resource_metadata": metadata if how.challenge_metadata else None,
            "scope": scope if how.challenge_scope or error == "insufficient_scope" else None,
        }
        said = ", ".join(f'{name}="{value}"' for name, value in parameters.items() if value)
        lines = how.challenge_lines if how.challenge_lines is not None else (f"Bearer {said}".rstrip(),)
        answer = JSONResponse({"error": error or "unauthorized"}, status)
        for line in lines:
            filled = line.replace("{metadata}", metadata).replace("{scope}", scope)
            answer.headers.append("WWW-Authenticate", filled)
        return answer

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one MCP request, once its token is found good."""
        how, (method, tool) = self._controls.behaviour, _called(scope.get("body", b""))
        if method not in how.open_methods:
            token = self.check(Request(scope), how.tool_scope.get(tool, frozenset()))
            if isinstance(token, Response):
                await token(scope, receive, send)
                return
        await self._manager.handle_request(scope, receive, send)

    async def _call(self, _context: object, params: CallToolRequestParams) -> CallToolResult:
        arguments = cast("Mapping[str, object]", params.arguments or {})
        if params.name == "whoami":
            return _text(self._controls.behaviour.account)
        numbers = [arguments.get(name) for name in ("a", "b")]
        if params.name == "add" and all(isinstance(n, int | float) for n in numbers):
            return _text(str(sum(cast("list[float]", numbers))))
        return _text("There is no such tool, or its arguments are wrong.", is_error=True)


class _Endpoint:
    """An ASGI application for Route, which takes a plain function for something else."""

    def __init__(self, resources: ProtectedResources) -> None:
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._resources.serve(scope, receive, send)


async def _list_tools(_context: object, _params: PaginatedRequestParams | None) -> ListToolsResult:
    return ListToolsResult(tools=_TOOLS)


def _text(text: str, *, is_error: bool = False) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=is_error)


def _called(body: bytes) -> tuple[str, str]:
    """Return the JSON-RPC method of a body, and the tool that it calls."""
    try:
        message: object = json.loads(body)
    except ValueError:
        return "", ""
    if not isinstance(message, dict):
        return "", ""
    members = cast("Mapping[str, object]", message)
    method, params = str(members.get("method", "")), members.get("params")
    if method != "tools/call" or not isinstance(params, dict):
        return method, ""
    return method, str(cast("Mapping[str, object]", params).get("name", ""))
