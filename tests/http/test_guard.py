from __future__ import annotations

import asyncio
from contextlib import closing
from socket import AF_INET, SOCK_STREAM, socket

import pytest

from hermes_mcp_auth_remote.errors import AddressRefused, TimedOut, Unreachable
from hermes_mcp_auth_remote.http.addresses import AddressPolicy, read_networks
from hermes_mcp_auth_remote.http.ssrf_guard import SsrfGuard, make_caching_resolver, resolve_host
from tests.http.peers import leading, leading_by_name, listening
from tests.requirements import covers

HERE = AddressPolicy(allowed_networks=read_networks(["127.0.0.1/32"]))


def refused(guard: SsrfGuard, host: str) -> bool:
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
def test_loopback_in_any_spelling_is_refused_for_a_server_that_is_not_there(host: str) -> None:
    assert refused(SsrfGuard(AddressPolicy(), "mcp.example"), host)


@covers("address-policy")
@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "0xa9fea9fe", "[::ffff:a9fe:a9fe]", "0"])
def test_cloud_metadata_in_any_spelling_is_refused(host: str) -> None:
    for server in ("mcp.example", "10.0.0.1", "169.254.169.254", "169.254.7.7"):
        assert refused(SsrfGuard(AddressPolicy(allows_loopback=True), server), host)


def test_cloud_metadata_is_reached_where_the_operator_lists_it() -> None:
    policy = AddressPolicy(allowed_networks=read_networks(["169.254.169.254"]))
    assert not refused(SsrfGuard(policy, "mcp.example"), "169.254.169.254")


def test_a_server_that_the_operator_wrote_as_a_link_local_address_is_reached_and_nothing_beside_it() -> None:
    guard = SsrfGuard(AddressPolicy(), "169.254.7.7")
    assert not refused(guard, "169.254.7.7")
    assert refused(guard, "169.254.7.8")


@covers("dns-rebinding")
def test_a_name_that_leads_both_outside_and_inside_is_refused() -> None:
    for mixed in (["1.1.1.1", "10.0.0.1"], ["10.0.0.1", "1.1.1.1"], ["1.1.1.1", "::1"]):
        assert refused(SsrfGuard(AddressPolicy(), "mcp.example", resolve=leading(mixed)), "auth.example")


@covers("address-policy")
def test_the_intranet_is_open_to_a_server_that_stands_there_and_to_no_other() -> None:
    names = leading_by_name(
        inside_example=["10.1.1.1", "fd00::1"],
        outside_example="1.1.1.1",
        both_example=["10.1.1.1", "1.1.1.1"],
        metadata_example="100.100.100.200",
        auth_example="192.168.7.7",
        link_example="169.254.3.3",
    )
    assert not refused(SsrfGuard(AddressPolicy(), "inside.example", resolve=names), "auth.example")
    assert not refused(SsrfGuard(AddressPolicy(), "10.9.9.9", resolve=names), "auth.example")
    assert not refused(SsrfGuard(AddressPolicy(), "inside.example", resolve=names), "inside.example")
    for outsider in ("outside.example", "both.example", "unknown.example", "metadata.example", "1.1.1.1"):
        assert refused(SsrfGuard(AddressPolicy(), outsider, resolve=names), "auth.example")
    for never in ("metadata.example", "link.example", "169.254.3.3", "127.0.0.1"):
        assert refused(SsrfGuard(AddressPolicy(), "inside.example", resolve=names), never)


@covers("dns-rebinding")
def test_a_server_s_name_cannot_move_to_the_intranet_between_two_questions() -> None:
    asked: list[str] = []
    memory = make_caching_resolver(leading("1.1.1.1", "10.0.0.1", asked=asked))
    guard = SsrfGuard(AddressPolicy(), "mcp.example", resolve=memory)
    assert not refused(guard, "mcp.example")
    assert refused(guard, "10.0.0.1")
    assert asked == ["mcp.example"]


@covers("dns-rebinding")
def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    async def main() -> tuple[list[str], int]:
        asked: list[str] = []
        async with listening() as peer:
            guard = SsrfGuard(HERE, "mcp.example", resolve=leading("127.0.0.1", "10.0.0.1", asked=asked))
            await guard.connect_tcp("auth.example", peer.port, 5)
            await peer.connected.wait()
            await guard.aclose()
            await peer.left.wait()
            return asked, peer.connections

    assert asyncio.run(main()) == (["auth.example"], 1)


def test_of_several_addresses_a_dead_one_is_passed_over() -> None:
    async def main() -> int:
        async with listening() as peer:
            here = AddressPolicy(allows_loopback=True)
            guard = SsrfGuard(here, "mcp.example", resolve=leading(["127.0.0.2", "127.0.0.1"]))
            await guard.connect_tcp("auth.example", peer.port, 5)
            await guard.aclose()
            await peer.left.wait()
            return peer.connections

    assert asyncio.run(main()) == 1


def test_a_refused_connection_and_a_name_without_address_are_unreachable() -> None:
    with closing(socket(AF_INET, SOCK_STREAM)) as bound:
        bound.bind(("127.0.0.1", 0))
        nobody: int = bound.getsockname()[1]
        with pytest.raises(Unreachable, match="auth\\.example refused the connection"):
            asyncio.run(
                SsrfGuard(HERE, "m", resolve=leading("127.0.0.1")).connect_tcp("auth.example", nobody, 5)
            )
    with pytest.raises(Unreachable, match="no address"):
        asyncio.run(SsrfGuard(HERE, "m", resolve=leading([])).connect_tcp("auth.example", 443, 5))


def test_a_connection_that_nobody_takes_is_timed_out() -> None:
    async def main() -> None:
        with closing(socket(AF_INET, SOCK_STREAM)) as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            guard = SsrfGuard(HERE, "m", resolve=leading("127.0.0.1"))
            try:
                # Linux queues a connection or two beyond the backlog.
                for _ in range(4):
                    await guard.connect_tcp("auth.example", port, 0.05)
            finally:
                await guard.aclose()

    with pytest.raises(TimedOut, match="did not accept a connection"):
        asyncio.run(main())


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "nobody.invalid", "a" * 300])
def test_a_name_that_no_resolver_knows_or_takes_is_unreachable(host: str) -> None:
    with pytest.raises(Unreachable, match="could not be resolved"):
        asyncio.run(SsrfGuard(AddressPolicy(), "mcp.example").resolve_allowed(host, 443))


def test_localhost_is_loopback_whatever_a_resolver_says() -> None:
    for name in ("localhost", "LOCALHOST", "deep.localhost", "localhost."):
        assert [str(address) for address in asyncio.run(resolve_host(name, 1))] == ["127.0.0.1", "::1"]
