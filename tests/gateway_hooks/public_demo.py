"""The demo's servers at public https addresses: a test translates them to loopback and back."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar
from urllib.parse import quote

from hermes_mcp_auth_remote.errors import NetworkError
from hermes_mcp_auth_remote.http.client import run_exchange
from hermes_mcp_auth_remote.oauth.urls import origin_of
from hermes_mcp_auth_remote.oauth.wire import Exchange, Response
from hermes_mcp_auth_remote.values import Server
from tests.parts.authorization_server import Demo

T = TypeVar("T")

MCP_ORIGIN, LOGIN_ORIGIN = "https://mcp.example.com", "https://login.example.net"


class PublicDemo:
    """Translates the addresses of requests and responses. `servers` are those on whose behalf they ran."""

    def __init__(self, demo: Demo) -> None:
        origins = {
            MCP_ORIGIN: origin_of(demo.ping_url),
            LOGIN_ORIGIN: origin_of(demo.authorization_server.issuer),
        }
        self._local_by_public = {
            form(public): form(local)
            for public, local in origins.items()
            for form in (str, lambda text: quote(text, safe=""))
        }
        self.mcp_url = self.to_public(demo.ping_url)
        self.servers: list[Server] = []

    def to_local(self, text: str) -> str:
        for public, local in self._local_by_public.items():
            text = text.replace(public, local)
        return text

    def to_public(self, text: str) -> str:
        for public, local in self._local_by_public.items():
            text = text.replace(local, public)
        return text

    async def run_exchange(self, exchange: Exchange[T], server: Server) -> T:
        """Run an exchange at the demo, whose servers it sees at their public addresses."""
        self.servers.append(server)
        local_server = Server(server.name, self.to_local(server.url), server.options)
        return await run_exchange(self._translate(exchange), local_server)

    def _translate(self, exchange: Exchange[T]) -> Exchange[T]:
        try:
            request = next(exchange)
            while True:
                local_request = replace(
                    request,
                    url=self.to_local(request.url),
                    body=self.to_local(request.body.decode()).encode(),
                )
                try:
                    response = yield local_request
                except NetworkError as error:
                    request = exchange.throw(error)
                else:
                    request = exchange.send(
                        Response(
                            response.status,
                            tuple((name, self.to_public(value)) for name, value in response.headers),
                            self.to_public(response.body.decode()).encode(),
                        )
                    )
        except StopIteration as stop:
            result: T = stop.value
            return result
