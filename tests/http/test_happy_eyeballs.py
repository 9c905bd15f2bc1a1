"""Connections to hosts with several addresses, some of which never respond (RFC 8305), in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, TypeVar

import httpcore
import pytest

from hermes_mcp_auth_remote.errors import AddressRefused, TimedOut, Unreachable
from hermes_mcp_auth_remote.http.addresses import AddressPolicy
from hermes_mcp_auth_remote.http.happy_eyeballs import (
    MAX_ADDRESSES,
    MAX_PARALLEL_ATTEMPTS,
    MAX_REMEMBERED_HOSTS,
    ConnectionHistory,
    order_addresses,
)
from hermes_mcp_auth_remote.http.ssrf_guard import SsrfGuard
from tests.http.peers import make_sequence_resolver
from tests.requirements import covers

T = TypeVar("T")

DEAD_IPV6 = [f"2606:4700::{number:x}" for number in range(1, 9)]
IPV4 = "1.1.1.1"


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when nothing else is left to do."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        selector = self._selector  # type: ignore[attr-defined]
        real_select = selector.select

        def select(timeout: float | None) -> Any:
            assert timeout is not None, "nothing can happen any more"
            self.now += timeout
            return real_select(0)

        selector.select = select

    def time(self) -> float:
        return self.now


def run_in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


class FakeStream(httpcore.AsyncNetworkStream):
    def __init__(self, address: str) -> None:
        self.address = address
        self.is_closed = False

    async def aclose(self) -> None:
        self.is_closed = True


@dataclass
class FakeNetwork(httpcore.AsyncNetworkBackend):
    """Some addresses accept a connection after some seconds, or refuse it; all others never respond."""

    accept_after: dict[str, float] = field(default_factory=dict)
    refuse_after: dict[str, float] = field(default_factory=dict)
    starts: list[tuple[float, str]] = field(default_factory=list)
    streams: list[FakeStream] = field(default_factory=list)
    open_attempts: int = 0
    most_open_attempts: int = 0

    async def connect_tcp(self, host: str, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        self.starts.append((round(asyncio.get_running_loop().time(), 3), host))
        self.open_attempts += 1
        self.most_open_attempts = max(self.most_open_attempts, self.open_attempts)
        try:
            if host in self.refuse_after:
                await asyncio.sleep(self.refuse_after[host])
                raise httpcore.ConnectError
            await asyncio.sleep(self.accept_after.get(host, 1e6))
        finally:
            self.open_attempts -= 1
        self.streams.append(FakeStream(host))
        return self.streams[-1]

    def guard(self, *addresses: str, history: ConnectionHistory | None = None) -> SsrfGuard:
        guard = SsrfGuard(
            AddressPolicy(),
            "mcp.example",
            resolve=make_sequence_resolver(list(addresses)),
            history=history or ConnectionHistory(),
        )
        guard._inner = self
        return guard


async def connect(guard: SsrfGuard, seconds: float = 10.0) -> tuple[str, float]:
    """Connect; return the address and the time that it took."""
    started_at = asyncio.get_running_loop().time()
    stream = await guard.connect_tcp("auth.example", 443, seconds)
    assert isinstance(stream, FakeStream)
    return stream.address, round(asyncio.get_running_loop().time() - started_at, 3)


@covers("dead-ipv6")
@pytest.mark.parametrize("dead", [DEAD_IPV6[:1], DEAD_IPV6[:3], DEAD_IPV6])
def test_dead_ipv6_costs_a_quarter_of_a_second(dead: list[str]) -> None:
    network = FakeNetwork({IPV4: 0.05})
    assert run_in_virtual_time(connect(network.guard(*dead, IPV4))) == (IPV4, 0.3)
    assert network.starts == [(0.0, dead[0]), (0.25, IPV4)]
    assert network.open_attempts == 0


@covers("dead-ipv6")
def test_dead_ipv4_is_skipped_in_the_same_way() -> None:
    network = FakeNetwork({"2606:4700::1": 0.05})
    addresses = [*(f"1.1.1.{number}" for number in range(1, 9)), "2606:4700::1"]
    assert run_in_virtual_time(connect(network.guard(*addresses))) == ("2606:4700::1", 0.3)


@covers("dead-ipv6")
def test_the_address_that_accepted_is_tried_first_by_later_clients() -> None:
    network, history = FakeNetwork({IPV4: 0.05}), ConnectionHistory()

    async def main() -> list[tuple[str, float]]:
        return [await connect(network.guard(*DEAD_IPV6, IPV4, history=history)) for _ in range(3)]

    assert run_in_virtual_time(main()) == [(IPV4, 0.3), (IPV4, 0.05), (IPV4, 0.05)]
    assert [address for _, address in network.starts] == [DEAD_IPV6[0], IPV4, IPV4, IPV4]


@covers("dead-ipv6")
def test_a_remembered_address_that_died_costs_a_quarter_of_a_second() -> None:
    history = ConnectionHistory()
    history.remember("auth.example", 443, ip_address(IPV4))
    network = FakeNetwork({DEAD_IPV6[0]: 0.05})
    assert run_in_virtual_time(connect(network.guard(*DEAD_IPV6, IPV4, history=history))) == (
        DEAD_IPV6[0],
        0.3,
    )
    assert history.last_address("auth.example", 443) == ip_address(DEAD_IPV6[0])


@covers("dead-ipv6", "dns-rebinding")
def test_a_remembered_address_is_used_only_if_the_name_still_has_it() -> None:
    history = ConnectionHistory()
    history.remember("auth.example", 443, ip_address("10.0.0.1"))
    network = FakeNetwork({IPV4: 0.0, "10.0.0.1": 0.0})
    assert run_in_virtual_time(connect(network.guard(IPV4, history=history)))[0] == IPV4
    with pytest.raises(AddressRefused):
        run_in_virtual_time(connect(network.guard(IPV4, "10.0.0.1", history=history)))
    assert [address for _, address in network.starts] == [IPV4]


@covers("dead-ipv6")
def test_an_address_that_refuses_is_followed_at_once() -> None:
    network = FakeNetwork({IPV4: 0.01}, dict.fromkeys(DEAD_IPV6, 0.01))
    assert run_in_virtual_time(connect(network.guard(*DEAD_IPV6, IPV4))) == (IPV4, 0.02)
    assert network.starts == [(0.0, DEAD_IPV6[0]), (0.01, IPV4)]


@covers("dead-ipv6")
def test_a_slow_address_wins_if_the_later_ones_are_dead() -> None:
    network = FakeNetwork({DEAD_IPV6[0]: 0.9})
    assert run_in_virtual_time(connect(network.guard(*DEAD_IPV6, IPV4))) == (DEAD_IPV6[0], 0.9)
    assert network.open_attempts == 0


@covers("dead-ipv6")
def test_the_attempts_of_one_connection_are_bounded() -> None:
    addresses = [f"2606:4700::{number:x}" for number in range(1, 200)]
    network = FakeNetwork()
    with pytest.raises(TimedOut, match=r"auth\.example did not accept a connection in time"):
        run_in_virtual_time(connect(network.guard(*addresses)))
    assert len(network.starts) == MAX_ADDRESSES
    assert network.starts[-1][0] == 0.25 * (MAX_ADDRESSES - 1)
    assert network.most_open_attempts == MAX_PARALLEL_ATTEMPTS
    assert network.open_attempts == 0


@covers("dead-ipv6")
def test_the_error_says_whether_the_host_refused_or_did_not_respond() -> None:
    refused = FakeNetwork({}, dict.fromkeys([*DEAD_IPV6, IPV4], 0.01))
    with pytest.raises(Unreachable, match=r"auth\.example refused the connection"):
        run_in_virtual_time(connect(refused.guard(*DEAD_IPV6, IPV4)))
    assert len(refused.starts) == 9
    with pytest.raises(TimedOut):
        run_in_virtual_time(connect(FakeNetwork({}, {IPV4: 0.01}).guard(DEAD_IPV6[0], IPV4), 2.0))


def test_a_second_connection_at_the_same_moment_is_closed() -> None:
    network = FakeNetwork({DEAD_IPV6[0]: 0.5, IPV4: 0.25})
    assert run_in_virtual_time(connect(network.guard(DEAD_IPV6[0], IPV4))) == (DEAD_IPV6[0], 0.5)
    assert {stream.address: stream.is_closed for stream in network.streams} == {
        DEAD_IPV6[0]: False,
        IPV4: True,
    }


def test_a_cancelled_connection_leaves_no_attempt() -> None:
    network = FakeNetwork()

    async def main() -> None:
        task = asyncio.create_task(connect(network.guard(*DEAD_IPV6)))
        await asyncio.sleep(0.6)
        assert network.open_attempts == 3
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_in_virtual_time(main())
    assert network.open_attempts == 0


@covers("dead-ipv6")
def test_a_host_that_never_responds_delays_no_other_host() -> None:
    dead, alive = FakeNetwork(), FakeNetwork({IPV4: 0.05})

    async def main() -> tuple[str, float]:
        tasks = [asyncio.create_task(connect(dead.guard(*DEAD_IPV6))) for _ in range(64)]
        await asyncio.sleep(1)
        result = await connect(alive.guard(DEAD_IPV6[0], IPV4))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return result

    assert run_in_virtual_time(main()) == (IPV4, 0.3)


@covers("dead-ipv6")
@pytest.mark.parametrize(
    ("addresses", "last_address", "expected"),
    [
        (["::1", "::2", "::3", "1.0.0.1", "1.0.0.2"], None, ["::1", "1.0.0.1", "::2", "1.0.0.2", "::3"]),
        (["1.0.0.1", "::1", "::2"], None, ["1.0.0.1", "::1", "::2"]),
        (["::1", "::2", "1.0.0.1", "1.0.0.2"], "1.0.0.2", ["1.0.0.2", "::1", "1.0.0.1", "::2"]),
        (["::1", "1.0.0.1"], "1.0.0.9", ["::1", "1.0.0.1"]),
        (["::1", "::1", "1.0.0.1"], None, ["::1", "1.0.0.1"]),
        ([], None, []),
    ],
)
def test_the_families_take_turns(addresses: list[str], last_address: str | None, expected: list[str]) -> None:
    ordered = order_addresses(
        map(ip_address, addresses), None if last_address is None else ip_address(last_address)
    )
    assert [str(address) for address in ordered] == expected


def test_both_families_are_tried_of_a_host_with_many_addresses() -> None:
    addresses = [ip_address(number + 2**125) for number in range(100)] + [ip_address(IPV4)]
    assert order_addresses(addresses)[1] == ip_address(IPV4)


def test_the_history_is_bounded_and_keeps_the_latest_hosts() -> None:
    history = ConnectionHistory()
    for number in range(MAX_REMEMBERED_HOSTS + 1):
        history.remember(f"{number}.example", 443, ip_address(IPV4))
        history.remember("0.example", 443, ip_address(IPV4))
    assert history.last_address("0.example", 443) is not None
    assert history.last_address("1.example", 443) is None
    assert history.last_address("2.example", 443) is not None
    assert history.last_address("2.example", 8443) is None
