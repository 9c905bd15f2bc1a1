"""Token requests with a late or missing response: the client reads to the end and reports a possible loss."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from hermes_mcp_auth_remote.errors import NetworkError, TimedOut, Unreachable
from hermes_mcp_auth_remote.http.client import run_exchange
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response, get_json, post_form
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS
from tests.http.peers import (
    Peer,
    ReceivedRequest,
    encode_response,
    fetch,
    make_sequence_resolver,
    make_server,
    respond_with,
    run_http_server,
)
from tests.loop_clock import LoopClock, loop_clock
from tests.requirements import covers

__all__ = ["loop_clock"]

STEP = "token request"


def token_request(peer: Peer, path: str = "/token") -> Request:
    return post_form(peer.url(path), STEP, {"code": "x"}, is_token_request=True)


def registration_request(peer: Peer) -> Request:
    return post_form(peer.url(), "registration", {})


def respond_after(
    release: asyncio.Event,
) -> Callable[[ReceivedRequest, asyncio.StreamWriter], Awaitable[None]]:
    async def respond(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(encode_response())

    return respond


@covers("late-tokens")
def test_a_token_response_is_read_after_the_limit_of_other_requests(loop_clock: LoopClock) -> None:
    async def main() -> Response:
        release = asyncio.Event()
        async with run_http_server(respond_after(release)) as peer:
            fetching = asyncio.create_task(fetch(peer, token_request(peer)))
            await peer.request_received.wait()
            await loop_clock.pass_time(TIME_LIMITS.exchange_seconds - 5)
            assert not fetching.done()
            release.set()
            return (await fetching)[0]

    assert asyncio.run(main()).status == 200


@covers("late-tokens")
@pytest.mark.parametrize(
    ("request_of", "seconds", "message"),
    [
        (token_request, TIME_LIMITS.exchange_seconds, "got the token request but did not respond"),
        (
            lambda peer: post_form(peer.url(), "registration", {}),
            20,
            "got the registration but did not respond",
        ),
        (lambda peer: get_json(peer.url(), "registration"), 20, "did not respond to the registration"),
    ],
    ids=["token request", "POST", "GET"],
)
def test_every_request_has_a_limit_and_a_sent_post_has_its_own_message(
    loop_clock: LoopClock, request_of: Callable[[Peer], Request], seconds: float, message: str
) -> None:
    async def main() -> None:
        async with run_http_server() as peer:
            request = request_of(peer)
            fetching = asyncio.create_task(fetch(peer, request))
            await peer.request_received.wait()
            await loop_clock.pass_time(seconds - 2)
            assert not fetching.done()
            await loop_clock.pass_time(3)
            with pytest.raises(TimedOut) as late:
                await fetching
            assert str(late.value) == f"127.0.0.1 {message} in time."
            assert ("nothing was lost" in late.value.advice) != request.is_token_request
            assert len(peer.requests) == 1

    asyncio.run(main())


@covers("late-tokens")
def test_a_proxy_that_does_not_connect_gets_no_token_request(loop_clock: LoopClock) -> None:
    async def main() -> None:
        async with run_http_server() as proxy:
            server = make_server("https://as.example/mcp")
            request = post_form("https://as.example/token", STEP, {}, is_token_request=True)
            fetching = asyncio.create_task(
                fetch(
                    server,
                    request,
                    environ={"https_proxy": proxy.url()},
                    resolve=make_sequence_resolver("1.1.1.1"),
                )
            )
            await proxy.request_received.wait()
            await loop_clock.pass_time(21)
            with pytest.raises(TimedOut) as late:
                await fetching
            assert [received.method for received in proxy.requests] == ["CONNECT"]
            assert str(late.value) == "as.example did not respond to the token request in time."
            assert late.value.advice == NetworkError.advice

    asyncio.run(main())


@covers("late-tokens")
def test_a_closed_connection_may_lose_the_response_to_a_token_request() -> None:
    async def main() -> None:
        async with run_http_server(respond_with(b"", hang_up=True)) as peer:
            with pytest.raises(Unreachable) as lost:
                await fetch(peer, token_request(peer))
            assert "nothing was lost" not in lost.value.advice
            with pytest.raises(Unreachable) as other:
                await fetch(peer, get_json(peer.url(), "step"))
            assert "nothing was lost" in other.value.advice

    asyncio.run(main())


@covers("late-tokens")
def test_no_token_request_is_sent_after_the_send_limit(loop_clock: LoopClock) -> None:
    def exchange(first: Request, second: Request) -> Exchange[str]:
        yield first
        try:
            yield second
        except TimedOut as late:
            return str(late)
        return "sent"

    async def respond_late(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(encode_response())
        loop_clock(TIME_LIMITS.send_seconds + 1)

    async def main() -> None:
        async with run_http_server(respond_late) as peer:
            steps = exchange(get_json(peer.url("/a"), "step"), token_request(peer))
            message = await run_exchange(steps, make_server(peer.url("/mcp")), environ={})
            assert message.startswith("The token request was not sent")
            assert [received.target for received in peer.requests] == ["/a"]

    asyncio.run(main())


@covers("late-tokens")
@pytest.mark.parametrize("brings_tokens", [True, False])
def test_the_socket_is_read_once_more_at_the_limit(loop_clock: LoopClock, *, brings_tokens: bool) -> None:
    async def respond_and_jump(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(encode_response(200, b"x" * 200_000))
        # This is the state after SIGCONT: the limit has passed, and the response is in the socket's buffer.
        loop_clock(100)

    async def main() -> Response:
        async with run_http_server(respond_and_jump) as peer:
            request = post_form(peer.url("/token"), STEP, {}, is_token_request=brings_tokens)
            return (await fetch(peer, request))[0]

    assert asyncio.run(main()).status == 200
