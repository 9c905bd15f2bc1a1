"""Resolve once, check, connect to what was checked: httpcore's network backend under an address policy."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_address
from typing import cast

import httpcore

from hermes_mcp_auth_remote.errors import AddressRefused, NetworkError, TimedOut, Unreachable
from hermes_mcp_auth_remote.http.addresses import Address, AddressPolicy, is_intranet, literal
from hermes_mcp_auth_remote.oauth.urls import is_loopback_host

Resolve = Callable[[str, int], Awaitable[list[Address]]]
"""Takes a host name and a port, returns its addresses in the order to try; raises OSError."""

# Where a name has several addresses, a dead one must not use up the whole time.
FIRST_ADDRESS_SECONDS = 3.0


async def resolve(host: str, port: int) -> list[Address]:
    """Ask the system's resolver (without blocking the event loop) for a host's addresses."""
    if is_loopback_host(host) and literal(host) is None:
        # RFC 6761 section 6.3: localhost is loopback, whatever a resolver says.
        return [ip_address("127.0.0.1"), ip_address("::1")]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found))


class Guard(httpcore.AsyncNetworkBackend):
    """Lets connections through to addresses that the policy allows, and to the operator's proxy.

    `server_host` is the host of the MCP server that the operator configured: where it stands on the
    intranet, the intranet is open to its authorization server too.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        server_host: str,
        *,
        proxy_host: str | None = None,
        resolve: Resolve = resolve,
    ) -> None:
        self._policy = policy
        self._server_host = server_host
        self._proxy_host = proxy_host
        self._resolve = resolve
        self._inner = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's own signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a checked address of a host; raises AddressRefused, TimedOut or Unreachable."""
        addresses = await self.addresses(host, port)
        trouble: NetworkError = Unreachable(f"{host} has no address.")
        for position, address in enumerate(addresses):
            last = position == len(addresses) - 1
            limit = timeout if last or timeout is None else min(timeout, FIRST_ADDRESS_SECONDS)
            try:
                return await self._inner.connect_tcp(str(address), port, limit, local_address, socket_options)
            except httpcore.ConnectTimeout:
                trouble = TimedOut(f"{host} did not answer a connection in time.")
            except (httpcore.ConnectError, OSError):
                trouble = Unreachable(f"{host} refused the connection, or there is no way to it.")
        raise trouble

    async def addresses(self, host: str, port: int) -> list[Address]:
        """Return a host's addresses, every one allowed; raises AddressRefused or Unreachable."""
        known = literal(host)
        try:
            addresses = [known] if known is not None else await self._resolve(host, port)
        except (OSError, UnicodeError):
            raise Unreachable(f"The name {host} could not be resolved.") from None
        if host == self._proxy_host:
            return addresses
        # One bad address is enough: a name that leads both outside and inside is a trap.
        for address in addresses:
            if not self._policy.allows(address) and not await self._stands_with_server(address, port):
                raise AddressRefused(
                    f"{host} leads to an internal address, where no public server should send us."
                )
        return addresses

    async def _stands_with_server(self, address: Address, port: int) -> bool:
        known = literal(self._server_host)
        if known is not None:
            # The operator wrote this very address down.
            return address == known or (is_intranet(known) and is_intranet(address))
        if not is_intranet(address):
            return False
        try:
            own = await self._resolve(self._server_host, port)
        except (OSError, UnicodeError):
            return False
        return bool(own) and all(is_intranet(each) for each in own)
