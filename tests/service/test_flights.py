"""SingleFlight: a full lane delays only its own flights."""

from __future__ import annotations

import asyncio
import threading

from hermes_mcp_auth_remote.service.single_flight import MAX_THREADS_PER_LANE, SingleFlight


def test_a_server_that_is_slow_for_many_holds_up_nobody_at_another_one() -> None:
    flights: SingleFlight[str] = SingleFlight("test")
    go_on, lock, inside = threading.Event(), threading.Lock(), 0
    most = 0

    async def slow() -> str:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        await asyncio.to_thread(go_on.wait, 20)
        with lock:
            inside -= 1
        return "slow"

    async def quick() -> str:
        return "quick"

    held = [flights.submit(number, slow, "slow") for number in range(2 * MAX_THREADS_PER_LANE)]
    try:
        assert flights.submit("other", quick, "quick").result(10) == "quick"
        assert not any(flight.done() for flight in held)
    finally:
        go_on.set()
    assert {flight.result(20) for flight in held} == {"slow"}
    assert most <= MAX_THREADS_PER_LANE
    assert flights.submit("again", quick, "slow").result(10) == "quick"
