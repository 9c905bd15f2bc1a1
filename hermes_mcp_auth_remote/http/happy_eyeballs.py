"""Connect to the first of several addresses that accepts a connection (Happy Eyeballs, RFC 8305).

Some networks announce IPv6 but drop its packets, so a connection attempt there waits until it times out.
Therefore the next attempt starts while the earlier ones still wait.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from itertools import chain, zip_longest

import httpcore

from hermes_mcp_auth_remote.deadline import Deadline
from hermes_mcp_auth_remote.fork import reset_after_fork
from hermes_mcp_auth_remote.http.addresses import Address

Connect = Callable[[Address], Awaitable[httpcore.AsyncNetworkStream]]
"""Connects to one address; raises OSError or an exception of httpcore."""

# RFC 8305 section 5: the recommended time between the starts of two attempts.
ATTEMPT_DELAY_SECONDS = 0.25
# The owner of a host name decides how many addresses it has. These limits bound the attempts and the sockets.
MAX_ADDRESSES = 16
# If this many attempts wait, the next one replaces the oldest, which has waited for about a second.
MAX_PARALLEL_ATTEMPTS = 4
MAX_REMEMBERED_HOSTS = 512


class ConnectionHistory:
    """The address that last accepted a connection, by host and port; any thread may use it."""

    def __init__(self) -> None:
        self.reset_in_child()
        reset_after_fork(self)

    def reset_in_child(self) -> None:
        """Start empty in a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.Lock()
        self._addresses: dict[tuple[str, int], Address] = {}

    def last_address(self, host: str, port: int) -> Address | None:
        """Return the address that last accepted a connection to this host and port."""
        with self._lock:
            return self._addresses.get((host, port))

    def remember(self, host: str, port: int, address: Address) -> None:
        """Remember that an address accepted a connection; forget the least recently used hosts."""
        with self._lock:
            self._addresses.pop((host, port), None)
            self._addresses[host, port] = address
            if len(self._addresses) > MAX_REMEMBERED_HOSTS:
                del self._addresses[next(iter(self._addresses))]


connection_history = ConnectionHistory()


def order_addresses(addresses: Iterable[Address], last_address: Address | None = None) -> list[Address]:
    """Return the addresses to try: the two families in turn (RFC 8305 section 4), at most MAX_ADDRESSES.

    `last_address` comes first if it is one of the addresses. If it is not, the resolver's order decides
    which family comes first. This order also applies within each family.
    """
    ordered = sorted(dict.fromkeys(addresses), key=lambda address: address != last_address)
    first_family = [address for address in ordered if address.version == ordered[0].version]
    other_family = [address for address in ordered if address.version != ordered[0].version]
    in_turn = chain.from_iterable(zip_longest(first_family, other_family))
    return [address for address in in_turn if address is not None][:MAX_ADDRESSES]


async def connect_to_first(
    addresses: Iterable[Address], connect: Connect, timeout_seconds: float | None
) -> tuple[httpcore.AsyncNetworkStream, Address]:
    """Return the first connection and its address; end all other attempts.

    An attempt starts ATTEMPT_DELAY_SECONDS after the one before, or as soon as an attempt fails. Raises
    TimeoutError if at least one address did not respond, and ConnectionError if all refused.
    """
    # In the order of their starts.
    attempts: dict[asyncio.Task[httpcore.AsyncNetworkStream], Address] = {}
    replaced_attempts: list[asyncio.Task[httpcore.AsyncNetworkStream]] = []
    try:
        async with Deadline(math.inf if timeout_seconds is None else timeout_seconds):
            remaining = deque(addresses)
            has_timed_out = False
            while remaining or attempts:
                if remaining:
                    if len(attempts) == MAX_PARALLEL_ATTEMPTS:
                        oldest = next(iter(attempts))
                        del attempts[oldest]
                        oldest.cancel()
                        replaced_attempts.append(oldest)
                        has_timed_out = True
                    address = remaining.popleft()
                    attempts[asyncio.ensure_future(connect(address))] = address
                done, _ = await asyncio.wait(
                    attempts,
                    timeout=ATTEMPT_DELAY_SECONDS if remaining else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for attempt in [attempt for attempt in attempts if attempt in done]:
                    error = attempt.exception()
                    if error is None:
                        # The other attempts are closed below, even those that succeeded.
                        return attempt.result(), attempts.pop(attempt)
                    if not isinstance(error, OSError | httpcore.NetworkError | httpcore.TimeoutException):
                        raise error
                    has_timed_out |= isinstance(error, TimeoutError | httpcore.TimeoutException)
                    del attempts[attempt]
            raise TimeoutError if has_timed_out else ConnectionError
    finally:
        await _end_attempts([*attempts, *replaced_attempts])


async def _end_attempts(attempts: list[asyncio.Task[httpcore.AsyncNetworkStream]]) -> None:
    for attempt in attempts:
        attempt.cancel()
    for outcome in await asyncio.gather(*attempts, return_exceptions=True):
        if not isinstance(outcome, BaseException):
            await outcome.aclose()
