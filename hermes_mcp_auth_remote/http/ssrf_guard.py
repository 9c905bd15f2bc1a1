"""Resolve once, check, connect to what was checked: httpcore's network backend under an address policy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_address
from typing import cast

import httpcore

from hermes_mcp_auth_remote.errors import AddressRefused, NetworkError, TimedOut, Unreachable
from hermes_mcp_auth_remote.http.addresses import (
    Address,
    AddressPolicy,
    is_cloud_metadata,
    is_intranet,
    parse_ip_literal,
)
from hermes_mcp_auth_remote.http.dns import threaded_resolver
from hermes_mcp_auth_remote.oauth.urls import is_loopback_host

Resolver = Callable[[str, int], Awaitable[list[Address]]]
"""Takes a host name and a port, returns its addresses in the order to try; raises OSError."""

# Where a name has several addresses, a dead one must not use up the whole time.
CONNECT_ATTEMPT_SECONDS = 3.0


async def resolve_host(host: str, port: int) -> list[Address]:
    """Ask the system's resolver (without blocking the event loop) for a host's addresses."""
    return await resolver_for(host)(host, port)


def resolver_for(quota_key: str) -> Resolver:
    """Return a resolver that asks the system on behalf of one server, within its share of the threads.

    `server` is any text that tells servers apart, such as a server's URL.
    """

    async def resolve_for_quota(host: str, port: int) -> list[Address]:
        if is_loopback_host(host) and parse_ip_literal(host) is None:
            # RFC 6761 section 6.3: localhost is loopback, whatever a resolver says.
            return [ip_address("127.0.0.1"), ip_address("::1")]
        return await threaded_resolver.resolve(host, port, quota_key)

    return resolve_for_quota


def make_caching_resolver(resolve: Resolver) -> Resolver:
    """Return a resolver that asks once for each name, so that within an exchange a name leads to one place.

    An answer that changes between two questions is how DNS rebinding gets past a check.
    """
    known: dict[str, list[Address]] = {}

    async def resolve_once(host: str, port: int) -> list[Address]:
        if host not in known:
            known[host] = await resolve(host, port)
        return known[host]

    return resolve_once


class SsrfGuard(httpcore.AsyncNetworkBackend):
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
        resolve: Resolver = resolve_host,
    ) -> None:
        self._policy = policy
        self._server_host = server_host
        self._proxy_host = proxy_host
        self._resolve = resolve
        self._inner = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())
        self._streams: list[httpcore.AsyncNetworkStream] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's own signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a checked address of a host; raises AddressRefused, TimedOut or Unreachable."""
        if host == self._proxy_host:
            # The operator's own choice, and most often on the intranet.
            addresses, name = await self._resolve_addresses(host, port), f"The proxy {host}"
        else:
            addresses, name = await self.resolve_allowed(host, port), host
        trouble: NetworkError = Unreachable(f"{name} has no address.")
        for position, address in enumerate(addresses):
            last = position == len(addresses) - 1
            limit = timeout if last or timeout is None else min(timeout, CONNECT_ATTEMPT_SECONDS)
            try:
                stream = await self._inner.connect_tcp(
                    str(address), port, limit, local_address, socket_options
                )
            except httpcore.ConnectTimeout:
                trouble = TimedOut(f"{name} did not answer a connection in time.")
            except (httpcore.ConnectError, OSError):
                trouble = Unreachable(f"{name} refused the connection, or there is no way to it.")
            else:
                self._streams.append(stream)
                return stream
        raise trouble

    async def aclose(self) -> None:
        """Close every connection; httpcore itself forgets one that is cancelled amid its TLS handshake."""
        while self._streams:
            await self._streams.pop().aclose()

    async def resolve_allowed(self, host: str, port: int) -> list[Address]:
        """Return a host's addresses, every one allowed; raises AddressRefused or Unreachable."""
        addresses = await self._resolve_addresses(host, port)
        # One bad address is enough: a name that leads both outside and inside is a trap.
        for address in addresses:
            if not self._policy.allows(address) and not await self._is_on_server_network(address, port):
                raise AddressRefused(
                    f"{host} leads to an internal address, where no public server should send us."
                )
        return addresses

    async def _resolve_addresses(self, host: str, port: int) -> list[Address]:
        known = parse_ip_literal(host)
        if known is not None:
            return [known]
        try:
            return await self._resolve(host, port)
        except (OSError, UnicodeError):
            raise Unreachable(f"The name {host} could not be resolved.") from None

    async def _is_on_server_network(self, address: Address, port: int) -> bool:
        if address == parse_ip_literal(self._server_host):
            # The operator wrote this very address down.
            return not is_cloud_metadata(address)
        if not is_intranet(address):
            return False
        try:
            own = await self._resolve_addresses(self._server_host, port)
        except Unreachable:
            return False
        return bool(own) and all(is_intranet(each) for each in own)
