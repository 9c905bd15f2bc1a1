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
from tests.http.peers import (
    ReceivedRequest,
    RequestHandler,
    encode_response,
    fetch,
    make_sequence_resolver,
    make_server,
    respond_with,
    run_http_server,
    run_raw_server,
)
from tests.leak_check import watch_secrets
from tests.requirements import covers


def send_to_server(*requests: Request, host: str = "127.0.0.1", **options: str) -> list[ReceivedRequest]:
    """Send requests to a server and return what it received. "{port}" in a URL stands for its port."""

    async def main() -> list[ReceivedRequest]:
        async with run_http_server(respond_with(encode_response()), host=host) as peer:
            server = Server("s", peer.url("/mcp"), ServerOptions(**options))  # type: ignore[arg-type]
            filled = [
                replace(request, url=request.url.replace("{port}", str(peer.port))) for request in requests
            ]
            await fetch(server, *filled)
            return peer.requests

    return asyncio.run(main())


def test_the_user_agent_is_the_packages_own_unless_configured() -> None:
    request = get_json("http://127.0.0.1:{port}/", "step")
    with_own_header = replace(request, headers=(*request.headers, ("User-Agent", "Third/3")))
    assert user_agent().startswith("hermes-mcp-auth-remote/")
    assert [h.headers["user-agent"] for h in send_to_server(request)] == [user_agent()]
    assert [
        h.headers["user-agent"] for h in send_to_server(request, with_own_header, user_agent="Ours/2")
    ] == ["Ours/2", "Third/3"]


def test_only_the_headers_of_the_request_are_sent() -> None:
    received = send_to_server(get_json("http://127.0.0.1:{port}/a?b=c", "step"))[0]
    assert set(received.headers) == {"host", "user-agent", "accept-encoding", "accept"}
    assert received.headers["accept-encoding"] == "identity"
    form = send_to_server(post_form("http://127.0.0.1:{port}/", "step", {"a": "b"}))[0]
    assert (form.method, form.body, form.headers["content-length"]) == ("POST", b"a=b", "3")
    empty = send_to_server(Request("POST", "http://127.0.0.1:{port}/", "step"))[0]
    assert empty.headers["content-length"] == "0"


def test_a_request_target_is_sent_unchanged() -> None:
    paths = ["/a;v=1", "/a%2Fb/;x?y=%20&z", "/?a=b?c"]
    received = send_to_server(*(get_json(f"http://127.0.0.1:{{port}}{path}", "step") for path in paths))
    assert [h.target for h in received] == paths


def test_an_ipv6_literal_keeps_its_brackets() -> None:
    received = send_to_server(get_json("http://[::1]:{port}/", "step"), host="::1")[0]
    assert received.headers["host"].startswith("[::1]:")


def test_a_non_ascii_host_is_resolved_in_its_ascii_form() -> None:
    queries: list[str] = []

    async def main() -> None:
        async with run_raw_server() as peer:
            url = peer.url("/mcp", "xn--bcher-kva.example", "https")
            server = Server("s", peer.url("/mcp", "bücher.example", "https"), make_server(url).options)
            with pytest.raises(NetworkError, match=r"^xn--bcher-kva\.example"):
                await fetch(
                    server,
                    get_json(url, "step"),
                    resolve=make_sequence_resolver("127.0.0.1", queries=queries),
                    response_seconds=0.1,
                )

    asyncio.run(main())
    assert queries == ["xn--bcher-kva.example"]


def test_non_ascii_headers_are_sent_as_utf_8() -> None:
    request = Request("GET", "http://127.0.0.1:{port}/", "step", (("x-name", " Grüße "),))
    assert send_to_server(request)[0].headers["x-name"] == "Grüße"


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
def test_an_invalid_header_is_a_config_error_that_hides_its_value(name: str, value: str) -> None:
    watch_secrets({"secret-value"})
    with pytest.raises(ConfigError, match="A configured header of this server cannot be sent"):
        send_to_server(Request("GET", "http://127.0.0.1:{port}/", "step", ((name, value),)))


@covers("post-once")
@pytest.mark.parametrize("how", ["closed", "reset", "half a response", "silence"])
def test_a_post_with_a_lost_response_is_not_sent_again(how: str) -> None:
    async def lose_response(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if how == "half a response":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
            await writer.drain()
        if how == "reset":
            writer.transport.abort()
        elif how != "silence":
            writer.close()

    async def main() -> int:
        async with run_http_server(lose_response) as peer:
            request = post_form(peer.url("/token"), "token request", {"code": "x"})
            with pytest.raises(NetworkError):
                await fetch(peer, request, response_seconds=0.3 if how == "silence" else 20)
            return len(peer.requests)

    assert asyncio.run(main()) == 1


@covers("post-once")
def test_a_post_on_a_reused_connection_that_closes_is_sent_once() -> None:
    async def answer_get_only(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if request.method == "GET":
            writer.write(encode_response())
        else:
            writer.close()

    async def main() -> tuple[list[str], int]:
        async with run_http_server(answer_get_only) as peer:
            first, second = get_json(peer.url("/a"), "step"), post_form(peer.url("/b"), "step", {})
            with pytest.raises(Unreachable):
                await fetch(peer, first, second)
            return [h.target for h in peer.requests], peer.connections

    assert asyncio.run(main()) == (["/a", "/b"], 1)


@covers("post-once")
def test_a_failed_connection_is_retried_once() -> None:
    """The name resolves only at the second attempt, as after a computer wakes from sleep."""
    attempts: list[str] = []

    async def main() -> list[ReceivedRequest]:
        async with run_http_server(respond_with(encode_response())) as peer:

            async def fail_then_resolve(host: str, port: int) -> list[Address]:
                attempts.append(host)
                if len(attempts) == 1:
                    raise OSError(-3, "Temporary failure in name resolution")
                return await make_sequence_resolver("127.0.0.1")(host, port)

            server = Server("s", peer.url("/mcp", "mcp.localhost"))
            await fetch(
                server, post_form(peer.url("/token", "mcp.localhost"), "step", {}), resolve=fail_then_resolve
            )
            return peer.requests

    assert [heard.target for heard in asyncio.run(main())] == ["/token"]
    assert attempts == ["mcp.localhost"] * 2


def test_a_connection_that_is_refused_twice_is_unreachable() -> None:
    with closing(socket(AF_INET, SOCK_STREAM)) as bound:
        bound.bind(("127.0.0.1", 0))
        server = Server("s", f"http://127.0.0.1:{bound.getsockname()[1]}/mcp")
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1 refused the connection"):
            asyncio.run(fetch(server))


def test_an_exchange_uses_one_connection_and_closes_it() -> None:
    async def main() -> tuple[int, int]:
        async with run_http_server(respond_with(encode_response())) as peer:
            await fetch(peer, *[get_json(peer.url(f"/{n}"), "step") for n in range(5)])
            await asyncio.wait_for(peer.disconnected.wait(), 20)
            return len(peer.requests), peer.connections

    assert asyncio.run(main()) == (5, 1)


@pytest.mark.parametrize("when", ["before the response", "during the response"])
def test_a_cancelled_exchange_closes_its_connection(when: str) -> None:
    async def send_partial_response(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx" if when == "during the response" else b""
        )

    async def main() -> None:
        async with run_http_server(send_partial_response) as peer:
            fetching = asyncio.create_task(fetch(peer))
            await peer.request_received.wait()
            await asyncio.sleep(0.02)
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            await asyncio.wait_for(peer.disconnected.wait(), 20)

    asyncio.run(main())
    gc.collect()


def test_an_exchange_that_raises_closes_its_connection() -> None:
    class CustomError(Exception):
        pass

    async def main() -> None:
        async with run_http_server(respond_with(encode_response())) as peer:

            def exchange() -> Exchange[None]:
                yield get_json(peer.url("/"), "step")
                raise CustomError

            with pytest.raises(CustomError):
                await run_exchange(exchange(), Server("s", peer.url("/mcp")), environ={})
            await asyncio.wait_for(peer.disconnected.wait(), 20)

    asyncio.run(main())


def test_an_exchange_without_requests_returns_at_once() -> None:
    def exchange_without_requests() -> Exchange[int]:
        if False:
            yield get_json("https://mcp.example/", "step")
        return 7

    assert (
        asyncio.run(
            run_exchange(exchange_without_requests(), Server("s", "https://mcp.example/mcp"), environ={})
        )
        == 7
    )


def test_exchanges_run_in_several_loops_and_threads_at_once() -> None:
    statuses: list[int] = []

    def run_once(port: int) -> None:
        async def main() -> int:
            server = Server("s", f"http://127.0.0.1:{port}/mcp")
            return (await fetch(server, get_json(f"http://127.0.0.1:{port}/", "step")))[0].status

        statuses.append(asyncio.run(main()))

    async def main() -> int:
        async with run_http_server(respond_with(encode_response())) as peer:
            await asyncio.gather(*(asyncio.to_thread(run_once, peer.port) for _ in range(8)))
            await asyncio.gather(*(fetch(peer) for _ in range(8)))
            return len(peer.requests)

    assert asyncio.run(main()) == 16
    assert statuses == [200] * 8


def test_an_exchange_runs_in_a_thread_with_its_own_event_loop() -> None:
    outcome: list[int] = []

    async def main() -> None:
        async with run_http_server(respond_with(encode_response())) as peer:
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


async def _send_secrets(peer_url: str, send: Callable[..., Awaitable[object]]) -> None:
    headers = (("authorization", "Bearer token-of-a-user"),)
    url = f"{peer_url}?code=code-of-a-login&state=state-of-a-login"
    await send(replace(get_json(url, "step"), headers=headers, follow_redirects=False))


def respond_with_secrets() -> RequestHandler:
    headers = {
        "location": "https://x.example/?code=code-of-a-login&state=state-of-a-login",
        "set-cookie": "s=cookie-of-a-session",
    }
    return respond_with(encode_response(302, b"", headers))


@covers("debug-log")
def test_debug_logs_of_httpcore_show_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    watch_secrets(SECRETS)

    async def main() -> None:
        async with run_http_server(respond_with_secrets()) as peer:
            await _send_secrets(peer.url("/"), lambda request: fetch(peer, request))

    asyncio.run(main())
    # Logging is enabled: the log shows the connection.
    assert any("connect_tcp" in record.getMessage() for record in caplog.records)
    assert not any(secret in record.getMessage() for record in caplog.records for secret in SECRETS)


@covers("debug-log")
@pytest.mark.parametrize(
    "raw",
    [
        b"words-of-a-server\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nwords-of-a-server\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nwords-of-a-server\r\n",
    ],
)
def test_logs_and_errors_do_not_repeat_an_invalid_response(raw: bytes) -> None:
    watch_secrets(SECRETS)

    async def main() -> None:
        async with run_http_server(respond_with(raw, hang_up=True)) as peer:
            await _send_secrets(peer.url("/"), lambda request: fetch(peer, request))

    with pytest.raises(Unreachable) as caught:
        asyncio.run(main())
    assert not any(secret in f"{caught.value!r}{caught.value.advice}" for secret in SECRETS)


@covers("debug-log")
def test_the_callers_debug_log_is_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with run_http_server(
            respond_with(encode_response(200, b"{}", {"x-seen": "by-the-caller"}))
        ) as peer:

            async def request_as_caller() -> None:
                async with httpx.AsyncClient() as caller:
                    await caller.get(peer.url("/caller"))

            # Run both at the same time.
            await asyncio.gather(request_as_caller(), fetch(peer), request_as_caller())

    caplog.set_level(logging.DEBUG, "httpcore")
    asyncio.run(main())
    assert sum("by-the-caller" in record.getMessage() for record in caplog.records) == 2


def test_muting_httpcore_logs_ends_with_the_block(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("httpcore.http11")
    with mute_httpcore_logs():
        log.debug("inside")
    log.debug("outside")
    assert [record.getMessage() for record in caplog.records] == ["outside"]


def test_the_default_environment_is_that_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://proxy.example")

    def exchange() -> Exchange[int]:
        return (yield get_json("https://mcp.example/", "step")).status

    with pytest.raises(ConfigError, match="proxy in the environment"):
        asyncio.run(run_exchange(exchange(), Server("s", "https://mcp.example/mcp")))


@covers("dns-rebinding")
def test_an_exchange_resolves_a_host_once() -> None:
    async def main() -> tuple[list[str], int]:
        queries: list[str] = []
        async with run_http_server(respond_with(encode_response(), hang_up=True)) as peer:
            url = peer.url("/mcp", "mcp.localhost")
            resolver = make_sequence_resolver("127.0.0.1", "10.0.0.1", queries=queries)
            await fetch(Server("s", url), get_json(url, "step"), get_json(url, "step"), resolve=resolver)
            return queries, peer.connections

    assert asyncio.run(main()) == (["mcp.localhost"], 2)
