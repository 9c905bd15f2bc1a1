"""Fake-IP DNS (Clash, Surge, sing-box) answers for every name with an address of 198.18.0.0/15."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from hermes_mcp_auth_remote.errors import AddressRefused, HostNotChecked
from hermes_mcp_auth_remote.http.addresses import AddressPolicy, find_fake_addresses, read_networks
from hermes_mcp_auth_remote.http.client import HttpClient
from hermes_mcp_auth_remote.http.ssrf_guard import SsrfGuard
from hermes_mcp_auth_remote.oauth.wire import get_json
from hermes_mcp_auth_remote.values import IdentityProvider, Server
from tests.http.peers import (
    encode_response,
    make_sequence_resolver,
    make_server,
    make_table_resolver,
    respond_with,
    run_http_server,
    run_proxy,
    send_requests,
)
from tests.http.test_happy_eyeballs import FakeNetwork, run_in_virtual_time
from tests.http.test_proxies import server_tls_context
from tests.parts.certificates import issue_certificates
from tests.requirements import covers

FAKE = ["198.18.0.1", "198.18.255.255", "198.19.255.254", "::ffff:198.18.0.1", "64:ff9b::c612:1"]
SERVER_URL = "https://mcp.example/mcp"
RESOLVER = make_table_resolver(
    mcp_example="198.18.0.5", auth_example="198.18.0.6", sso_example="198.18.0.7", x_example="198.18.0.8"
)


def resolve(server: Server, host: str) -> list[str]:
    """Return the addresses that requests for a server may connect to."""

    async def main() -> list[str]:
        async with HttpClient(server, {}, RESOLVER, 20.0) as client:
            await client._pool_for(f"https://{host}/")
            guard = client._pools[f"https://{host}"]._network_backend._inner  # type: ignore[attr-defined]
            return [str(address) for address in await guard.resolve_allowed(host, 443)]

    return asyncio.run(main())


@covers("fake-dns")
@pytest.mark.parametrize(
    ("host", "options"),
    [
        ("mcp.example", {}),
        ("auth.example", {"authorization_server": "https://auth.example/realm"}),
        ("auth.example", {"allow_hosts": ("Auth.Example.",)}),
        ("sso.example", {"identity_provider": IdentityProvider("https://sso.example/token", "file", "c")}),
    ],
)
def test_fake_dns_may_answer_for_a_host_that_the_operator_names(host: str, options: dict[str, Any]) -> None:
    server = make_server(SERVER_URL, **{"allow_addresses": (), **options})
    assert resolve(server, host)[0].startswith("198.18.0.")


@covers("fake-dns", "unchecked-host")
@pytest.mark.parametrize("options", [{}, {"allow_hosts": ("auth.example", "sub.x.example", "example")}])
def test_fake_dns_makes_any_other_host_unchecked(options: dict[str, Any]) -> None:
    server = make_server(SERVER_URL, **{"allow_addresses": (), **options})
    with pytest.raises(HostNotChecked) as caught:
        resolve(server, "x.example")
    assert str(caught.value) == (
        "The addresses of x.example cannot be checked: the DNS here answers with fake addresses "
        "(198.18.0.0/15), and a proxy or VPN program resolves the name."
    )
    assert caught.value.advice == (
        "If you trust that host, add x.example to `oauth.allow_hosts` of this server in config.yaml."
    )


@covers("fake-dns", "address-policy")
@pytest.mark.parametrize("literal", [*FAKE, "[::ffff:198.18.0.1]"])
def test_an_address_of_the_range_stays_refused(literal: str) -> None:
    for server in ("mcp.example", "198.18.0.9"):
        guard = SsrfGuard(AddressPolicy(), server, trusted_hosts=frozenset({literal}))
        with pytest.raises(AddressRefused) as caught:
            asyncio.run(guard.resolve_allowed(literal, 443))
        assert type(caught.value) is AddressRefused


@covers("fake-dns", "address-policy")
@pytest.mark.parametrize("number", ["3323068417", "0xc6120001", "198.18.1", "0306.022.0.1"])
def test_a_number_that_is_an_address_of_the_range_stays_refused(number: str) -> None:
    guard = SsrfGuard(AddressPolicy(), "mcp.example", resolve=make_sequence_resolver("198.18.0.1"))
    with pytest.raises(AddressRefused) as caught:
        asyncio.run(guard.resolve_allowed(number, 443))
    assert type(caught.value) is AddressRefused


@covers("fake-dns", "address-policy")
@pytest.mark.parametrize("other", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "fd00::1", "0.0.0.0"])
def test_an_internal_address_beside_a_fake_one_is_refused(other: str) -> None:
    for host in ("mcp.example", "auth.example"):
        guard = SsrfGuard(
            AddressPolicy(),
            "mcp.example",
            trusted_hosts=frozenset({"mcp.example", "auth.example"}),
            resolve=make_sequence_resolver(["198.18.0.1", other]),
        )
        with pytest.raises(AddressRefused) as caught:
            asyncio.run(guard.resolve_allowed(host, 443))
        assert type(caught.value) is AddressRefused


@covers("fake-dns")
def test_the_connection_of_a_trusted_host_uses_the_fake_address() -> None:
    network = FakeNetwork({"198.18.0.1": 0.0})
    guard = network.guard("198.18.0.1", "fc00::1")
    run_in_virtual_time(guard.connect_tcp("mcp.example", 443, 5))
    assert network.streams[0].address == "198.18.0.1"


@covers("fake-dns")
def test_ipv6_counts_as_fake_only_beside_a_fake_ipv4_address() -> None:
    guard = FakeNetwork().guard("198.18.0.1", "fc00::1")
    assert len(asyncio.run(guard.resolve_allowed("mcp.example", 443))) == 2
    for answers in (["fc00::1", "1.1.1.1"], ["198.18.0.1", "fd00::1"], ["198.18.0.1", "fc01::1"]):
        with pytest.raises(AddressRefused):
            asyncio.run(FakeNetwork().guard(*answers).resolve_allowed("mcp.example", 443))


@covers("fake-dns")
def test_a_network_that_the_operator_allows_needs_no_host_name() -> None:
    policy = AddressPolicy(allowed_networks=read_networks(["198.18.0.0/15"]))
    guard = SsrfGuard(policy, "mcp.example", resolve=make_sequence_resolver("198.18.0.1"))
    for host in ("x.example", "198.18.0.2"):
        assert asyncio.run(guard.resolve_allowed(host, 443))


def test_neighbours_of_the_range_are_no_fake_addresses() -> None:
    outside = [ip_address(text) for text in ("198.17.255.255", "198.20.0.0", "1.1.1.1", "fc00::1")]
    assert find_fake_addresses(outside) == []
    inside = [ip_address(text) for text in FAKE]
    assert find_fake_addresses(inside) == inside


@covers("fake-dns", "proxies")
def test_behind_a_proxy_the_same_hosts_are_allowed(tmp_path: Path) -> None:
    issued = issue_certificates(tmp_path, "mcp.example", "x.example")
    server = make_server(SERVER_URL, ca_file=str(issued.ca_file), allow_addresses=())

    async def main() -> list[str]:
        tls = server_tls_context(issued)
        async with (
            run_http_server(respond_with(encode_response()), tls=tls) as peer,
            run_proxy(peer) as proxy,
        ):
            async with HttpClient(server, {"HTTPS_PROXY": proxy.url()}, RESOLVER, 20.0) as client:
                await client.run_exchange(send_requests(get_json(SERVER_URL, "step")))
                with pytest.raises(HostNotChecked):
                    await client.run_exchange(send_requests(get_json("https://x.example/", "step")))
            return [request.target for request in proxy.requests]

    assert asyncio.run(main()) == ["mcp.example:443"]
