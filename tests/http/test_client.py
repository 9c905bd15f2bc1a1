from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from socket import AF_INET, SOCK_STREAM, socket

import httpx
import pytest

from hermes_mcp_auth_remote.errors import ConfigError, NetworkError, Unreachable
from hermes_mcp_auth_remote.http.addresses import Address
from hermes_mcp_auth_remote.http.client import run_exchange, user_agent
from hermes_mcp_auth_remote.http.log_suppression import mute_httpcore_logs
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, get_json, post_form
from hermes_mcp_auth_remote.values import Server, ServerOptions
from tests.http.peers import Answer, Heard, always, configured, fetch, leading, listening, reply, serving
from tests.requirements import covers
from tests.tripwire import guard


def sent(*requests: Request, host: str = "127.0.0.1", **options: str) -> list[Heard]:
    """Send requests to a server and return what it received. "{port}" in a URL is its port."""

    async def main() -> list[Heard]:
        async with serving(always(reply()), host=host) as peer:
            server = Server("s", peer.url("/mcp"), ServerOptions(**options))  # type: ignore[arg-type]
            filled = [replace(each, url=each.url.replace("{port}", str(peer.port))) for each in requests]
            await fetch(server, *filled)
            return peer.heard

    return asyncio.run(main())


def test_we_name_ourselves_unless_told_otherwise() -> None:
    request = get_json("http://127.0.0.1:{port}/", "step")
    own = replace(request, headers=(*request.headers, ("User-Agent", "Third/3")))
    assert user_agent().startswith("hermes-mcp-auth-remote/")
    assert [h.headers["user-agent"] for h in sent(request)] == [user_agent()]
    assert [h.headers["user-agent"] for h in sent(request, own, user_agent="Ours/2")] == ["Ours/2", "Third/3"]


def test_nothing_goes_out_that_the_request_does_not_say() -> None:
    heard = sent(get_json("http://127.0.0.1:{port}/a?b=c", "step"))[0]
    assert set(heard.headers) == {"host", "user-agent", "accept-encoding", "accept"}
    assert heard.headers["accept-encoding"] == "identity"
    form = sent(post_form("http://127.0.0.1:{port}/", "step", {"a": "b"}))[0]
    assert (form.method, form.body, form.headers["content-length"]) == ("POST", b"a=b", "3")
    empty = sent(Request("POST", "http://127.0.0.1:{port}/", "step"))[0]
    assert empty.headers["content-length"] == "0"


def test_a_target_is_sent_as_it_is_written() -> None:
    paths = ["/a;v=1", "/a%2Fb/;x?y=%20&z", "/?a=b?c"]
    heard = sent(*(get_json(f"http://127.0.0.1:{{port}}{path}", "step") for path in paths))
    assert [h.target for h in heard] == paths


def test_an_ipv6_literal_keeps_its_brackets() -> None:
    heard = sent(get_json("http://[::1]:{port}/", "step"), host="::1")[0]
    assert heard.headers["host"].startswith("[::1]:")


def test_a_host_of_another_alphabet_is_asked_for_in_ascii() -> None:
    asked: list[str] = []

    async def main() -> None:
        async with listening() as peer:
            url = peer.url("/mcp", "xn--bcher-kva.example", "https")
            server = Server("s", peer.url("/mcp", "bücher.example", "https"), configured(url).options)
            with pytest.raises(NetworkError, match=r"^xn--bcher-kva\.example"):
                await fetch(
                    server,
                    get_json(url, "step"),
                    resolve=leading("127.0.0.1", asked=asked),
                    response_seconds=0.1,
                )

    asyncio.run(main())
    assert asked == ["xn--bcher-kva.example"]


def test_headers_beyond_ascii_are_sent_as_utf_8() -> None:
    request = Request("GET", "http://127.0.0.1:{port}/", "step", (("x-name", " Grüße "),))
    assert sent(request)[0].headers["x-name"] == "Grüße"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-key", "secret-value\r\nx-evil: 1"),
        ("x-key", "secret-value\0"),
        ("x key", "secret-value"),
        ("", "secret-value"),
        ("x-kéy", "secret-value"),
        ("x-key:", "secret-value"),
    ],
)
def test_a_header_that_cannot_be_sent_is_a_mistake_that_is_not_shown(name: str, value: str) -> None:
    guard({"secret-value"})
    with pytest.raises(ConfigError, match="A configured header of this server cannot be sent"):
        sent(Request("GET", "http://127.0.0.1:{port}/", "step", ((name, value),)))


@covers("post-once")
@pytest.mark.parametrize("how", ["closed", "reset", "half a response", "silence"])
def test_a_post_whose_answer_was_lost_is_not_sent_again(how: str) -> None:
    async def lose(heard: Heard, writer: asyncio.StreamWriter) -> None:
        if how == "half a response":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
            await writer.drain()
        if how == "reset":
            writer.transport.abort()
        elif how != "silence":
            writer.close()

    async def main() -> int:
        async with serving(lose) as peer:
            request = post_form(peer.url("/token"), "token request", {"code": "x"})
            with pytest.raises(NetworkError):
                await fetch(peer, request, response_seconds=0.3 if how == "silence" else 10)
            return len(peer.heard)

    assert asyncio.run(main()) == 1


@covers("post-once")
def test_a_post_over_a_kept_connection_that_the_server_ends_is_sent_once() -> None:
    async def first_only(heard: Heard, writer: asyncio.StreamWriter) -> None:
        if heard.method == "GET":
            writer.write(reply())
        else:
            writer.close()

    async def main() -> tuple[list[str], int]:
        async with serving(first_only) as peer:
            first, second = get_json(peer.url("/a"), "step"), post_form(peer.url("/b"), "step", {})
            with pytest.raises(Unreachable):
                await fetch(peer, first, second)
            return [h.target for h in peer.heard], peer.connections

    assert asyncio.run(main()) == (["/a", "/b"], 1)


@covers("post-once")
def test_a_refused_connection_is_tried_once_more() -> None:
    """The name resolves at the second attempt, as after a network wakes from sleep."""
    attempts: list[str] = []

    async def main() -> list[Heard]:
        async with serving(always(reply())) as peer:

            async def waking(host: str, port: int) -> list[Address]:
                attempts.append(host)
                if len(attempts) == 1:
                    raise OSError(-3, "Temporary failure in name resolution")
                return await leading("127.0.0.1")(host, port)

            server = Server("s", peer.url("/mcp", "mcp.localhost"))
            await fetch(server, post_form(peer.url("/token", "mcp.localhost"), "step", {}), resolve=waking)
            return peer.heard

    assert [heard.target for heard in asyncio.run(main())] == ["/token"]
    assert attempts == ["mcp.localhost"] * 2


def test_a_connection_that_is_refused_twice_is_unreachable() -> None:
    with closing(socket(AF_INET, SOCK_STREAM)) as bound:
        bound.bind(("127.0.0.1", 0))
        server = Server("s", f"http://127.0.0.1:{bound.getsockname()[1]}/mcp")
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1 refused the connection"):
            asyncio.run(fetch(server))


def test_one_connection_serves_an_exchange_and_closes_with_it() -> None:
    async def main() -> tuple[int, int]:
        async with serving(always(reply())) as peer:
            await fetch(peer, *[get_json(peer.url(f"/{n}"), "step") for n in range(5)])
            await asyncio.wait_for(peer.left.wait(), 5)
            return len(peer.heard), peer.connections

    assert asyncio.run(main()) == (5, 1)


@pytest.mark.parametrize("when", ["before the response", "during the response"])
def test_a_cancelled_exchange_closes_its_connection(when: str) -> None:
    async def half(heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx" if when == "during the response" else b""
        )

    async def main() -> None:
        async with serving(half) as peer:
            fetching = asyncio.create_task(fetch(peer))
            await peer.asked.wait()
            await asyncio.sleep(0.02)
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            await asyncio.wait_for(peer.left.wait(), 5)

    asyncio.run(main())
    gc.collect()


def test_an_exchange_that_fails_by_itself_closes_its_connection() -> None:
    class Own(Exception):
        pass

    async def main() -> None:
        async with serving(always(reply())) as peer:

            def exchange() -> Exchange[None]:
                yield get_json(peer.url("/"), "step")
                raise Own

            with pytest.raises(Own):
                await run_exchange(exchange(), Server("s", peer.url("/mcp")), environ={})
            await asyncio.wait_for(peer.left.wait(), 5)

    asyncio.run(main())


def test_an_exchange_without_requests_returns_at_once() -> None:
    def nothing() -> Exchange[int]:
        if False:
            yield get_json("https://mcp.example/", "step")
        return 7

    assert asyncio.run(run_exchange(nothing(), Server("s", "https://mcp.example/mcp"), environ={})) == 7


def test_exchanges_run_in_several_loops_and_threads_at_once() -> None:
    statuses: list[int] = []

    def once(port: int) -> None:
        async def main() -> int:
            server = Server("s", f"http://127.0.0.1:{port}/mcp")
            return (await fetch(server, get_json(f"http://127.0.0.1:{port}/", "step")))[0].status

        statuses.append(asyncio.run(main()))

    async def main() -> int:
        async with serving(always(reply())) as peer:
            await asyncio.gather(*(asyncio.to_thread(once, peer.port) for _ in range(8)))
            await asyncio.gather(*(fetch(peer) for _ in range(8)))
            return len(peer.heard)

    assert asyncio.run(main()) == 16
    assert statuses == [200] * 8


def test_a_run_inside_a_thread_without_a_loop_of_its_own_is_no_different() -> None:
    outcome: list[int] = []

    async def main() -> None:
        async with serving(always(reply())) as peer:
            thread = threading.Thread(target=lambda: outcome.append(len(asyncio.run(fetch(peer)))))
            thread.start()
            await asyncio.to_thread(thread.join)

    asyncio.run(main())
    assert outcome == [1]


SECRETS = {
    "code-of-a-login",
    "state-of-a-login",
    "token-of-a-user",
    "cookie-of-a-session",
    "words-of-a-server",
}


async def _leaky(peer_url: str, ask: Callable[..., Awaitable[object]]) -> None:
    own = (("authorization", "Bearer token-of-a-user"),)
    url = f"{peer_url}?code=code-of-a-login&state=state-of-a-login"
    await ask(replace(get_json(url, "step"), headers=own, follow_redirects=False))


def leaky() -> Answer:
    headers = {
        "location": "https://x.example/?code=code-of-a-login&state=state-of-a-login",
        "set-cookie": "s=cookie-of-a-session",
    }
    return always(reply(302, b"", headers))


@covers("debug-log")
def test_a_library_s_debug_log_shows_no_header_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    guard(SECRETS)

    async def main() -> None:
        async with serving(leaky()) as peer:
            await _leaky(peer.url("/"), lambda request: fetch(peer, request))

    asyncio.run(main())
    # The log is on, and shows the connection.
    assert any("connect_tcp" in record.getMessage() for record in caplog.records)
    assert not any(secret in record.getMessage() for record in caplog.records for secret in SECRETS)


@covers("debug-log")
@pytest.mark.parametrize(
    "said",
    [
        b"words-of-a-server\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nwords-of-a-server\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nwords-of-a-server\r\n",
    ],
)
def test_neither_log_nor_error_repeats_what_could_not_be_read(said: bytes) -> None:
    guard(SECRETS)

    async def main() -> None:
        async with serving(always(said, hang_up=True)) as peer:
            await _leaky(peer.url("/"), lambda request: fetch(peer, request))

    with pytest.raises(Unreachable) as caught:
        asyncio.run(main())
    assert not any(secret in f"{caught.value!r}{caught.value.advice}" for secret in SECRETS)


@covers("debug-log")
def test_the_caller_s_own_debug_log_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(always(reply(200, b"{}", {"x-seen": "by-the-caller"}))) as peer:

            async def own() -> None:
                async with httpx.AsyncClient() as caller:
                    await caller.get(peer.url("/caller"))

            # Run both at the same time.
            await asyncio.gather(own(), fetch(peer), own())

    caplog.set_level(logging.DEBUG, "httpcore")
    asyncio.run(main())
    assert sum("by-the-caller" in record.getMessage() for record in caplog.records) == 2


def test_quiet_ends_with_its_block(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("httpcore.http11")
    with mute_httpcore_logs():
        log.debug("inside")
    log.debug("outside")
    assert [record.getMessage() for record in caplog.records] == ["outside"]


def test_the_environment_s_proxies_are_the_process_s_own_where_none_is_handed_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://proxy.example")

    def exchange() -> Exchange[int]:
        return (yield get_json("https://mcp.example/", "step")).status

    with pytest.raises(ConfigError, match="proxy in the environment"):
        asyncio.run(run_exchange(exchange(), Server("s", "https://mcp.example/mcp")))


@covers("dns-rebinding")
def test_within_an_exchange_a_name_leads_to_one_place() -> None:
    async def main() -> tuple[list[str], int]:
        asked: list[str] = []
        async with serving(always(reply(), hang_up=True)) as peer:
            url = peer.url("/mcp", "mcp.localhost")
            moving = leading("127.0.0.1", "10.0.0.1", asked=asked)
            await fetch(Server("s", url), get_json(url, "step"), get_json(url, "step"), resolve=moving)
            return asked, peer.connections

    assert asyncio.run(main()) == (["mcp.localhost"], 2)
