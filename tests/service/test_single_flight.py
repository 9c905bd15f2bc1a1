"""SingleFlight: a full lane delays only its own flights."""

from __future__ import annotations

import asyncio
import threading

from hermes_mcp_auth_remote.service.single_flight import MAX_THREADS_PER_LANE, SingleFlight


def test_a_slow_server_with_many_flights_does_not_delay_another_server() -> None:
    flights: SingleFlight[str] = SingleFlight("test")
    go_on, lock, running = threading.Event(), threading.Lock(), 0
    most_running = 0

    async def slow() -> str:
        nonlocal running, most_running
        with lock:
            running += 1
            most_running = max(most_running, running)
        await asyncio.to_thread(go_on.wait, 20)
        with lock:
            running -= 1
        return "slow"

    async def quick() -> str:
        return "quick"

    slow_flights = [flights.submit(number, slow, "slow") for number in range(2 * MAX_THREADS_PER_LANE)]
    try:
        assert flights.submit("other", quick, "quick").result(20) == "quick"
        assert not any(flight.done() for flight in slow_flights)
    finally:
        go_on.set()
    assert {flight.result(20) for flight in slow_flights} == {"slow"}
    assert most_running <= MAX_THREADS_PER_LANE
    assert flights.submit("again", quick, "slow").result(20) == "quick"
