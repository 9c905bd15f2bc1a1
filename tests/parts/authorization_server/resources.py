"""The protected resources with the tests' settings: challenges, open methods and scopes of tools."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hermes_mcp_auth_remote.demo.ledger import AccessToken
from hermes_mcp_auth_remote.demo.mcp_server import ProtectedResources
from hermes_mcp_auth_remote.demo.state import without_none
from tests.parts.authorization_server.behaviour import Behaviour


class FaultyProtectedResources(ProtectedResources):
    """Protected resources that deviate as the tests' `Behaviour` says."""

    @property
    def behaviour(self) -> Behaviour:
        """The settings of both servers."""
        return cast("Behaviour", self._state.behaviour)

    def metadata(self, path: str) -> dict[str, object]:
        """Return the metadata document, changed by `resource_overrides`."""
        return without_none({**super().metadata(path), **self.behaviour.resource_overrides})

    def accepted_audiences(self, path: str) -> set[object]:
        """Return the resources whose tokens are valid at a path, including an overridden identifier."""
        return super().accepted_audiences(path) | {self.behaviour.resource_overrides.get("resource", "")}

    def check_token(
        self, request: Request, required_scope: frozenset[str] = frozenset()
    ) -> AccessToken | Response:
        """Check the bearer token. If `exact_bearer` is set, also check the spelling of the scheme."""
        scheme, _, _ = request.headers.get("authorization", "").partition(" ")
        if self.behaviour.exact_bearer and scheme != "Bearer":
            required_scope |= self.behaviour.required_scope
            return self.challenge_response(request.url.path, required_scope, 401)
        return super().check_token(request, required_scope)

    def challenge_response(
        self, path: str, required_scope: frozenset[str], status: int, error: str | None = None
    ) -> Response:
        """Return a response with a challenge, or with `challenge_lines`."""
        response = super().challenge_response(path, required_scope, status, error)
        if self.behaviour.challenge_lines is None:
            return response
        del response.headers["WWW-Authenticate"]
        metadata, scope = self.metadata_url(path), " ".join(sorted(required_scope))
        for line in self.behaviour.challenge_lines:
            header = line.replace("{metadata}", metadata).replace("{scope}", scope)
            response.headers.append("WWW-Authenticate", header)
        return response

    async def serve_mcp(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an MCP request. Obey `open_methods` and `tool_scope`."""
        method, tool = _parse_call(scope["body"])
        if method in self.behaviour.open_methods:
            await self.session_manager.handle_request(scope, receive, send)
            return
        token = self.check_token(Request(scope), self.behaviour.tool_scope.get(tool, frozenset()))
        if isinstance(token, Response):
            await token(scope, receive, send)
            return
        await super().serve_mcp(scope, receive, send)


def _parse_call(body: bytes) -> tuple[str, str]:
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
