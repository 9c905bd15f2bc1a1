"""Token requests with a late or missing response: read to the end, and never reported as lossless."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from hermes_mcp_auth_remote.errors import NetworkError, TimedOut, Unreachable
from hermes_mcp_auth_remote.http.client import run_exchange
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response, get_json, post_form
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS
from tests.http.peers import Heard, Peer, always, configured, fetch, leading, reply, serving
from tests.jumping import Jumping, jump
from tests.requirements import covers

__all__ = ["jump"]

STEP = "token request"


def token_request(peer: Peer, path: str = "/token") -> Request:
    return post_form(peer.url(path), STEP, {"code": "x"}, is_token_request=True)


def registration(peer: Peer) -> Request:
    return post_form(peer.url(), "registration", {})


def answering(go: asyncio.Event) -> Callable[[Heard, asyncio.StreamWriter], Awaitable[None]]:
    async def answer(heard: Heard, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(reply())

    return answer


@covers("late-tokens")
def test_the_response_to_a_token_request_is_read_after_the_limit_of_other_requests(jump: Jumping) -> None:
    async def main() -> Response:
        go = asyncio.Event()
        async with serving(answering(go)) as peer:
            asking = asyncio.create_task(fetch(peer, token_request(peer)))
            await peer.asked.wait()
            await jump.pass_time(TIME_LIMITS.exchange_seconds - 5)
            assert not asking.done()
            go.set()
            return (await asking)[0]

    assert asyncio.run(main()).status == 200


@covers("late-tokens")
@pytest.mark.parametrize(
    ("request_of", "seconds", "said"),
    [
        (token_request, TIME_LIMITS.exchange_seconds, "got the token request but did not answer"),
        (
            lambda peer: post_form(peer.url(), "registration", {}),
            20,
            "got the registration but did not answer",
        ),
        (lambda peer: get_json(peer.url(), "registration"), 20, "did not answer the registration"),
    ],
    ids=["token request", "POST", "GET"],
)
def test_every_request_has_a_limit_and_a_post_that_was_sent_has_its_own_sentence(
    jump: Jumping, request_of: Callable[[Peer], Request], seconds: float, said: str
) -> None:
    async def main() -> None:
        async with serving() as peer:
            request = request_of(peer)
            asking = asyncio.create_task(fetch(peer, request))
            await peer.asked.wait()
            await jump.pass_time(seconds - 2)
            assert not asking.done()
            await jump.pass_time(3)
            with pytest.raises(TimedOut) as late:
                await asking
            assert str(late.value) == f"127.0.0.1 {said} in time."
            assert ("nothing was lost" in late.value.advice) != request.is_token_request
            assert len(peer.heard) == 1

    asyncio.run(main())


@covers("late-tokens")
def test_a_proxy_that_makes_no_connection_did_not_get_the_token_request(jump: Jumping) -> None:
    async def main() -> None:
        async with serving() as proxy:
            server = configured("https://as.example/mcp")
            request = post_form("https://as.example/token", STEP, {}, is_token_request=True)
            asking = asyncio.create_task(
                fetch(server, request, environ={"https_proxy": proxy.url()}, resolve=leading("1.1.1.1"))
            )
            await proxy.asked.wait()
            await jump.pass_time(21)
            with pytest.raises(TimedOut) as late:
                await asking
            assert [heard.method for heard in proxy.heard] == ["CONNECT"]
            assert str(late.value) == "as.example did not answer the token request in time."
            assert late.value.advice == NetworkError.advice

    asyncio.run(main())


@covers("late-tokens")
def test_a_connection_that_dies_after_a_token_request_was_sent_may_have_lost_something() -> None:
    async def main() -> None:
        async with serving(always(b"", hang_up=True)) as peer:
            with pytest.raises(Unreachable) as lost:
                await fetch(peer, token_request(peer))
            assert "nothing was lost" not in lost.value.advice
            with pytest.raises(Unreachable) as other:
                await fetch(peer, get_json(peer.url(), "step"))
            assert "nothing was lost" in other.value.advice

    asyncio.run(main())


@covers("late-tokens")
def test_no_request_is_sent_once_those_before_it_took_too_long(jump: Jumping) -> None:
    def exchange(first: Request, second: Request) -> Exchange[str]:
        yield first
        try:
            yield second
        except TimedOut as late:
            return str(late)
        return "sent"

    async def answer(heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(reply())
        jump(TIME_LIMITS.send_seconds + 1)

    async def main() -> None:
        async with serving(answer) as peer:
            asking = exchange(get_json(peer.url("/a"), "step"), token_request(peer))
            said = await run_exchange(asking, configured(peer.url("/mcp")), environ={})
            assert said.startswith("The token request was not sent")
            assert [heard.target for heard in peer.heard] == ["/a"]

    asyncio.run(main())


@covers("late-tokens")
@pytest.mark.parametrize("brings_tokens", [True, False])
def test_at_the_limit_the_socket_is_read_once_more(jump: Jumping, *, brings_tokens: bool) -> None:
    async def answer(heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(200, b"x" * 200_000))
        # As after SIGCONT: the limit has passed, and the response is in the socket's buffer.
        jump(100)

    async def main() -> Response:
        async with serving(answer) as peer:
            request = post_form(peer.url("/token"), STEP, {}, is_token_request=brings_tokens)
            return (await fetch(peer, request))[0]

    assert asyncio.run(main()).status == 200
