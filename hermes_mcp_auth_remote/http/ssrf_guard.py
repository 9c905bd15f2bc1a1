"""A network backend for httpcore that resolves a name once, checks its addresses and connects to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_address
from typing import cast

import httpcore

from hermes_mcp_auth_remote.errors import AddressRefused, HostNotChecked, TimedOut, Unreachable
from hermes_mcp_auth_remote.http.addresses import (
    Address,
    AddressPolicy,
    find_fake_addresses,
    is_cloud_metadata,
    is_intranet,
    parse_ip_literal,
)
from hermes_mcp_auth_remote.http.dns import threaded_resolver
from hermes_mcp_auth_remote.http.happy_eyeballs import (
    ConnectionHistory,
    connect_to_first,
    connection_history,
    order_addresses,
)
from hermes_mcp_auth_remote.oauth.host_names import ends_in_number, is_listed_host
from hermes_mcp_auth_remote.oauth.urls import is_loopback_host

Resolver = Callable[[str, int], Awaitable[list[Address]]]
"""Takes a host name and a port, returns its addresses in the order to try; raises OSError."""

_PROXY_ADVICE = "Check HTTPS_PROXY and ALL_PROXY in the environment, and try again; nothing was lost."


async def resolve_host(host: str, port: int) -> list[Address]:
    """Return a host's addresses from the system's resolver, without blocking the event loop."""
    return await resolver_for(host)(host, port)


def resolver_for(quota_key: str) -> Resolver:
    """Return a resolver that uses the system's resolver within one server's share of the threads.

    `quota_key` is any text that identifies the server, such as its URL.
    """

    async def resolve_for_quota(host: str, port: int) -> list[Address]:
        if is_loopback_host(host) and parse_ip_literal(host) is None:
            # RFC 6761 section 6.3: localhost is always loopback.
            return [ip_address("127.0.0.1"), ip_address("::1")]
        return await threaded_resolver.resolve(host, port, quota_key)

    return resolve_for_quota


def make_caching_resolver(resolve: Resolver) -> Resolver:
    """Return a resolver that looks up each name once, against DNS rebinding.

    DNS rebinding passes a check by changing the addresses of a name between the check and the connection.
    """
    addresses_by_host: dict[str, list[Address]] = {}

    async def resolve_once(host: str, port: int) -> list[Address]:
        if host not in addresses_by_host:
            addresses_by_host[host] = await resolve(host, port)
        return addresses_by_host[host]

    return resolve_once


class SsrfGuard(httpcore.AsyncNetworkBackend):
    """Allows connections to the addresses of a policy, and to the operator's proxy.

    `server_host` is the host of the configured MCP server. If it is on the intranet, its authorization server
    may be there too. It is None if a chat user named the server: then the policy alone decides.
    `trusted_hosts` are the host names in the operator's configuration, as `http.trusted_hosts` returns them:
    fake-IP DNS may answer for these.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        server_host: str | None,
        *,
        trusted_hosts: frozenset[str] = frozenset(),
        proxy_host: str | None = None,
        resolve: Resolver = resolve_host,
        history: ConnectionHistory = connection_history,
    ) -> None:
        self._policy = policy
        self._server_host = server_host
        self._trusted_hosts = trusted_hosts
        self._proxy_host = proxy_host
        self._resolve = resolve
        self._history = history
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
        advice = None
        if host == self._proxy_host:
            # The operator chose the proxy, and it is usually on the intranet.
            name, advice = f"The proxy {host}:{port}", _PROXY_ADVICE
            addresses = await self._resolve_addresses(host, port, f"The name of the proxy {host}", advice)
        else:
            addresses, name = await self.resolve_allowed(host, port), host
        if not addresses:
            raise Unreachable(f"{name} has no address.", advice)

        async def connect(address: Address) -> httpcore.AsyncNetworkStream:
            # No timeout: `connect_to_first` ends the attempt.
            stream = await self._inner.connect_tcp(str(address), port, None, local_address, socket_options)
            self._streams.append(stream)
            return stream

        ordered = order_addresses(addresses, self._history.last_address(host, port))
        try:
            stream, address = await connect_to_first(ordered, connect, timeout)
        except TimeoutError:
            raise TimedOut(f"{name} did not accept a connection in time.", advice) from None
        except OSError:
            raise Unreachable(
                f"{name} refused the connection, or the network cannot reach it.", advice
            ) from None
        self._history.remember(host, port, address)
        return stream

    async def aclose(self) -> None:
        """Close every connection; httpcore does not close one that is cancelled during its TLS handshake."""
        while self._streams:
            await self._streams.pop().aclose()

    async def resolve_allowed(self, host: str, port: int) -> list[Address]:
        """Return a host's addresses if all are allowed.

        Raises AddressRefused, HostNotChecked or Unreachable.
        """
        addresses = await self._resolve_addresses(host, port)
        # Fake-IP DNS answers only for names. An IP literal in a fake-IP range is an internal address.
        is_name = parse_ip_literal(host) is None and not ends_in_number(host)
        fake_addresses = find_fake_addresses(addresses) if is_name else []
        has_unchecked_address = False
        # Refuse the name for one forbidden address: a mix of public and internal addresses is an attack.
        for address in addresses:
            if self._policy.allows(address):
                continue
            if address in fake_addresses:
                has_unchecked_address = True
            elif self._server_host is None:
                raise AddressRefused(
                    f"{host} has an internal address, and a chat user may name public addresses only.",
                    "The operator can add the server to config.yaml.",
                )
            elif not await self._is_on_server_network(address, port):
                raise AddressRefused(
                    f"{host} has an internal address, and no public server may refer to one."
                )
        if has_unchecked_address and not self._is_trusted_host(host):
            raise HostNotChecked(
                f"The addresses of {host} cannot be checked: the DNS here answers with fake addresses "
                "(198.18.0.0/15), and a proxy or VPN program resolves the name.",
                f"If you trust that host, add {host} to `oauth.allow_hosts` of this server in config.yaml.",
            )
        return addresses

    def _is_trusted_host(self, host: str) -> bool:
        return host == self._server_host or is_listed_host(host, self._trusted_hosts)

    async def _resolve_addresses(
        self, host: str, port: int, subject: str | None = None, advice: str | None = None
    ) -> list[Address]:
        literal = parse_ip_literal(host)
        if literal is not None:
            return [literal]
        try:
            return await self._resolve(host, port)
        except (OSError, UnicodeError):
            subject = subject or f"The name {host}"
            raise Unreachable(f"{subject} could not be resolved.", advice) from None

    async def _is_on_server_network(self, address: Address, port: int) -> bool:
        if self._server_host is None:
            return False
        if address == parse_ip_literal(self._server_host):
            # The operator configured this address.
            return not is_cloud_metadata(address)
        if not is_intranet(address):
            return False
        try:
            server_addresses = await self._resolve_addresses(self._server_host, port)
        except Unreachable:
            return False
        return bool(server_addresses) and all(map(is_intranet, server_addresses))
