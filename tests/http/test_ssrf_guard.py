from __future__ import annotations

import asyncio
from contextlib import closing
from socket import AF_INET, SOCK_STREAM, socket

import pytest

from hermes_mcp_auth_remote.errors import AddressRefused, TimedOut, Unreachable
from hermes_mcp_auth_remote.http.addresses import AddressPolicy, read_networks
from hermes_mcp_auth_remote.http.ssrf_guard import SsrfGuard, make_caching_resolver, resolve_host
from hermes_mcp_auth_remote.values import Server
from tests.http.peers import fetch, make_sequence_resolver, make_table_resolver, run_raw_server
from tests.requirements import covers

LOOPBACK_POLICY = AddressPolicy(allowed_networks=read_networks(["127.0.0.1/32"]))


def is_refused(guard: SsrfGuard, host: str) -> bool:
    """Return whether the guard refuses a host."""
    try:
        asyncio.run(guard.resolve_allowed(host, 443))
    except AddressRefused:
        return True
    return False


@covers("address-policy")
@pytest.mark.parametrize(
    "host", ["127.1", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1.", "localhost", "[::1]"]
)
def test_loopback_in_any_notation_is_refused_for_a_remote_server(host: str) -> None:
    assert is_refused(SsrfGuard(AddressPolicy(), "mcp.example"), host)


@covers("address-policy")
@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "0xa9fea9fe", "[::ffff:a9fe:a9fe]", "0"])
def test_cloud_metadata_in_any_notation_is_refused(host: str) -> None:
    for server in ("mcp.example", "10.0.0.1", "169.254.169.254", "169.254.7.7"):
        assert is_refused(SsrfGuard(AddressPolicy(allows_loopback=True), server), host)


def test_cloud_metadata_is_allowed_if_the_operator_lists_it() -> None:
    policy = AddressPolicy(allowed_networks=read_networks(["169.254.169.254"]))
    assert not is_refused(SsrfGuard(policy, "mcp.example"), "169.254.169.254")


def test_a_configured_link_local_server_is_allowed_and_no_other_address() -> None:
    guard = SsrfGuard(AddressPolicy(), "169.254.7.7")
    assert not is_refused(guard, "169.254.7.7")
    assert is_refused(guard, "169.254.7.8")


@covers("dns-rebinding")
def test_a_host_with_public_and_internal_addresses_is_refused() -> None:
    for mixed in (["1.1.1.1", "10.0.0.1"], ["10.0.0.1", "1.1.1.1"], ["1.1.1.1", "::1"]):
        assert is_refused(
            SsrfGuard(AddressPolicy(), "mcp.example", resolve=make_sequence_resolver(mixed)), "auth.example"
        )


@covers("address-policy")
def test_only_a_server_on_the_intranet_may_reach_the_intranet() -> None:
    resolver = make_table_resolver(
        inside_example=["10.1.1.1", "fd00::1"],
        outside_example="1.1.1.1",
        both_example=["10.1.1.1", "1.1.1.1"],
        metadata_example="100.100.100.200",
        auth_example="192.168.7.7",
        link_example="169.254.3.3",
    )
    assert not is_refused(SsrfGuard(AddressPolicy(), "inside.example", resolve=resolver), "auth.example")
    assert not is_refused(SsrfGuard(AddressPolicy(), "10.9.9.9", resolve=resolver), "auth.example")
    assert not is_refused(SsrfGuard(AddressPolicy(), "inside.example", resolve=resolver), "inside.example")
    for outsider in ("outside.example", "both.example", "unknown.example", "metadata.example", "1.1.1.1"):
        assert is_refused(SsrfGuard(AddressPolicy(), outsider, resolve=resolver), "auth.example")
    for forbidden in ("metadata.example", "link.example", "169.254.3.3", "127.0.0.1"):
        assert is_refused(SsrfGuard(AddressPolicy(), "inside.example", resolve=resolver), forbidden)


@covers("dns-rebinding")
def test_a_servers_host_cannot_move_to_the_intranet_between_look_ups() -> None:
    queries: list[str] = []
    caching_resolver = make_caching_resolver(make_sequence_resolver("1.1.1.1", "10.0.0.1", queries=queries))
    guard = SsrfGuard(AddressPolicy(), "mcp.example", resolve=caching_resolver)
    assert not is_refused(guard, "mcp.example")
    assert is_refused(guard, "10.0.0.1")
    assert queries == ["mcp.example"]


@covers("dns-rebinding")
def test_the_connection_uses_the_address_that_was_checked() -> None:
    async def main() -> tuple[list[str], int]:
        queries: list[str] = []
        async with run_raw_server() as peer:
            guard = SsrfGuard(
                LOOPBACK_POLICY,
                "mcp.example",
                resolve=make_sequence_resolver("127.0.0.1", "10.0.0.1", queries=queries),
            )
            await guard.connect_tcp("auth.example", peer.port, 5)
            await peer.connected.wait()
            await guard.aclose()
            await peer.disconnected.wait()
            return queries, peer.connections

    assert asyncio.run(main()) == (["auth.example"], 1)


def test_an_unreachable_address_is_skipped_if_there_are_others() -> None:
    async def main() -> int:
        async with run_raw_server() as peer:
            policy = AddressPolicy(allows_loopback=True)
            guard = SsrfGuard(
                policy, "mcp.example", resolve=make_sequence_resolver(["127.0.0.2", "127.0.0.1"])
            )
            await guard.connect_tcp("auth.example", peer.port, 5)
            await guard.aclose()
            await peer.disconnected.wait()
            return peer.connections

    assert asyncio.run(main()) == 1


def test_a_refused_connection_and_a_host_without_address_are_unreachable() -> None:
    with closing(socket(AF_INET, SOCK_STREAM)) as bound:
        bound.bind(("127.0.0.1", 0))
        closed_port: int = bound.getsockname()[1]
        with pytest.raises(Unreachable, match="auth\\.example refused the connection"):
            asyncio.run(
                SsrfGuard(LOOPBACK_POLICY, "m", resolve=make_sequence_resolver("127.0.0.1")).connect_tcp(
                    "auth.example", closed_port, 5
                )
            )
    with pytest.raises(Unreachable, match="no address"):
        asyncio.run(
            SsrfGuard(LOOPBACK_POLICY, "m", resolve=make_sequence_resolver([])).connect_tcp(
                "auth.example", 443, 5
            )
        )


def test_a_connection_that_is_not_accepted_times_out() -> None:
    async def main() -> None:
        with closing(socket(AF_INET, SOCK_STREAM)) as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            guard = SsrfGuard(LOOPBACK_POLICY, "m", resolve=make_sequence_resolver("127.0.0.1"))
            try:
                # Linux queues a connection or two beyond the backlog.
                for _ in range(4):
                    await guard.connect_tcp("auth.example", port, 0.05)
            finally:
                await guard.aclose()

    with pytest.raises(TimedOut, match="did not accept a connection"):
        asyncio.run(main())


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "nobody.invalid", "a" * 300])
def test_an_unknown_or_invalid_host_is_unreachable(host: str) -> None:
    with pytest.raises(Unreachable, match="could not be resolved"):
        asyncio.run(SsrfGuard(AddressPolicy(), "mcp.example").resolve_allowed(host, 443))


def test_localhost_is_loopback_without_a_look_up() -> None:
    for name in ("localhost", "LOCALHOST", "deep.localhost", "localhost."):
        assert [str(address) for address in asyncio.run(resolve_host(name, 1))] == ["127.0.0.1", "::1"]


@covers("address-policy", "chat-url")
@pytest.mark.parametrize(
    "url", ["https://mcp.example/mcp", "https://localhost/mcp", "http://127.0.0.1:1/mcp"]
)
@pytest.mark.parametrize("answer", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "198.18.0.1", "fd00::1"])
def test_a_server_that_a_chat_user_has_named_is_reached_at_public_addresses_only(
    url: str, answer: str
) -> None:
    server = Server("s", url, is_public_only=True)
    with pytest.raises(AddressRefused):
        asyncio.run(fetch(server, resolve=make_sequence_resolver(answer)))


@covers("address-policy", "chat-url")
@pytest.mark.parametrize(
    "names", [{}, {"proxy_example": "10.0.0.1"}], ids=["unresolved", "the proxy's own name"]
)
def test_a_proxy_reaches_no_host_that_only_it_resolves_for_a_chat_user(names: dict[str, str]) -> None:
    server = Server("s", "https://proxy.example/mcp", is_public_only=True)
    environ = {"HTTPS_PROXY": "http://proxy.example:3128"}
    with pytest.raises(AddressRefused):
        asyncio.run(fetch(server, resolve=make_table_resolver(**names), environ=environ))
