"""The protected resources: an MCP server with two tools, and a JSON endpoint. RFC 9728, RFC 6750, MCP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

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
from hermes_mcp_auth_remote.demo.state import ServerState, not_found_response

MCP_PATH = "/mcp"
PING_PATH = "/api/ping"
METADATA_PATH = "/.well-known/oauth-protected-resource"

_ADD_SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
    "required": ["a", "b"],
}
_TOOLS = [
    # Some clients fail if a schema has no properties member.
    Tool(
        name="whoami",
        description="Returns the account that you are logged in as.",
        input_schema={"type": "object", "properties": {}},
    ),
    Tool(name="add", description="Adds two numbers.", input_schema=_ADD_SCHEMA),
]


class ProtectedResources:
    """MCP servers at `paths` and a JSON endpoint, on one origin. Each path is its own resource.

    If `Behaviour.resource_identifier` is "origin", all paths are one resource.
    """

    def __init__(self, origin: str, state: ServerState, paths: tuple[str, ...] = (MCP_PATH,)) -> None:
        self.origin = origin
        self._state = state
        self._paths = paths
        server: Server[Any] = Server(
            "demo", version="1", on_list_tools=_list_tools, on_call_tool=self._call_tool
        )
        self.session_manager = StreamableHTTPSessionManager(server, stateless=True, json_response=True)
        state.resources |= {origin, *(origin + path for path in (*paths, PING_PATH))}
        self.routes: list[BaseRoute] = [
            Route(METADATA_PATH + "{path:path}", self._serve_metadata),
            Route(PING_PATH, self._ping, methods=["GET", "POST"]),
            *(Route(path, _Endpoint(self)) for path in paths),
        ]

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncGenerator[None]:
        """Run the MCP server's sessions. Can be entered once per instance."""
        async with self.session_manager.run():
            yield

    def resource_identifier(self, path: str) -> str:
        """Return the resource identifier of a path."""
        return self.origin + ("" if self._state.behaviour.resource_identifier == "origin" else path)

    async def _serve_metadata(self, request: Request) -> Response:
        behaviour, path = self._state.behaviour, request.path_params["path"]
        served_paths = (
            {*self._paths, PING_PATH} if "path" in behaviour.resource_metadata_locations else set[str]()
        )
        if "root" in behaviour.resource_metadata_locations:
            served_paths.add("")
        if path not in served_paths:
            return not_found_response()
        return JSONResponse(self.metadata(path))

    def metadata(self, path: str) -> dict[str, object]:
        """Return the metadata document of a path (RFC 9728 section 2)."""
        return {
            "resource": self.resource_identifier(path),
            "authorization_servers": [self._state.issuer],
            "scopes_supported": sorted(self._state.behaviour.required_scope),
            "bearer_methods_supported": ["header"],
        }

    async def _ping(self, request: Request) -> Response:
        token = self.check_token(request)
        if isinstance(token, Response):
            return token
        return JSONResponse({"pong": True, "account": self._state.behaviour.account})

    def check_token(
        self, request: Request, required_scope: frozenset[str] = frozenset()
    ) -> AccessToken | Response:
        """Check the bearer token (RFC 6750). Return it, or the 401 or 403 response if it is not valid."""
        behaviour, path = self._state.behaviour, request.url.path
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        required_scope |= behaviour.required_scope
        if scheme.lower() != "bearer" or not text:
            # RFC 6750 section 3.1: without credentials the response "SHOULD NOT include an error code".
            return self.challenge_response(path, required_scope, 401)
        token = self._state.ledger.find_live_token(text)
        # Refuse a token for another resource (MCP: "MUST validate that [it was] issued for them").
        if token is None or token.family.resource not in self.accepted_audiences(path):
            return self.challenge_response(path, required_scope, 401, "invalid_token")
        if not required_scope <= token.scope:
            return self.challenge_response(path, required_scope, 403, "insufficient_scope")
        return token

    def accepted_audiences(self, path: str) -> set[object]:
        """Return the resources whose tokens are valid at a path; None means tokens without a resource."""
        behaviour = self._state.behaviour
        audiences: set[object] = {self.resource_identifier(path)}
        if "root" in behaviour.resource_metadata_locations:
            audiences.add(self.origin)
        # If the authorization server does not require a resource, its tokens are valid for all resources.
        if not (behaviour.require_resource and behaviour.accepts_resource):
            audiences.add(None)
        return audiences

    def metadata_url(self, path: str) -> str:
        """Return the URL of the metadata document that a challenge at a path names."""
        has_own_document = "path" in self._state.behaviour.resource_metadata_locations
        return f"{self.origin}{METADATA_PATH}{path if has_own_document else ''}"

    def challenge_response(
        self, path: str, required_scope: frozenset[str], status: int, error: str | None = None
    ) -> Response:
        """Return a response with a challenge (RFC 6750 section 3, RFC 9728 section 5.1)."""
        behaviour, scope = self._state.behaviour, " ".join(sorted(required_scope))
        parameters = {
            "error": error,
            "resource_metadata": self.metadata_url(path) if behaviour.challenge_names_metadata else None,
            "scope": scope if behaviour.challenge_names_scope or error == "insufficient_scope" else None,
        }
        challenge_parameters = ", ".join(f'{name}="{value}"' for name, value in parameters.items() if value)
        headers = {"WWW-Authenticate": f"Bearer {challenge_parameters}".rstrip()}
        return JSONResponse({"error": error or "unauthorized"}, status, headers)

    async def serve_mcp(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an MCP request if its token is valid."""
        token = self.check_token(Request(scope))
        if isinstance(token, Response):
            await token(scope, receive, send)
            return
        await self.session_manager.handle_request(scope, receive, send)

    async def _call_tool(self, _context: object, params: CallToolRequestParams) -> CallToolResult:
        arguments = cast("Mapping[str, object]", params.arguments or {})
        if params.name == "whoami":
            return _text_result(self._state.behaviour.account)
        numbers = [arguments.get(name) for name in ("a", "b")]
        if params.name == "add" and all(isinstance(n, int | float) for n in numbers):
            return _text_result(str(sum(cast("list[float]", numbers))))
        return _text_result("There is no such tool, or its arguments are wrong.", is_error=True)


class _Endpoint:
    """An ASGI application for Route, which treats a function as a request handler."""

    def __init__(self, resources: ProtectedResources) -> None:
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._resources.serve_mcp(scope, receive, send)


async def _list_tools(_context: object, _params: PaginatedRequestParams | None) -> ListToolsResult:
    return ListToolsResult(tools=_TOOLS)


def _text_result(text: str, *, is_error: bool = False) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=is_error)
