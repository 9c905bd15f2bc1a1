"""The loopback listener, with requests of browsers and with arbitrary other input."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
import socket
from collections.abc import Awaitable, Callable

import pytest

from hermes_mcp_auth_remote.errors import ConfigError, NetworkError, PasteRefused
from hermes_mcp_auth_remote.terminal import loopback
from hermes_mcp_auth_remote.terminal.loopback import Listener
from hermes_mcp_auth_remote.terminal.loopback_page import Page
from hermes_mcp_auth_remote.values import Secret
from tests.parts.ports import free_port
from tests.requirements import covers

pytestmark = pytest.mark.slow

CODE = "c0de-that-nobody-may-see"


class RecordingHandler:
    """Records the redirect URLs, and returns or raises what the test sets."""

    def __init__(self, page: Page | Exception | None = None) -> None:
        self.urls: list[str] = []
        self.page = page or Page(ok=True, title="Connected", text="You can close this tab.")

    async def __call__(self, url: Secret) -> Page:
        self.urls.append(url.reveal())
        if isinstance(self.page, Exception):
            raise self.page
        return self.page


def listener_port(listener: Listener) -> int:
    return int(listener.redirect_uri.split(":")[-1].split("/")[0])


async def send(listener: Listener, data: bytes, host: str = "127.0.0.1") -> str:
    """Send bytes, and return the response up to the end of the connection."""
    reader, writer = await asyncio.open_connection(host, listener_port(listener))
    try:
        writer.write(data)
        return (await reader.read()).decode()
    finally:
        writer.close()
        await writer.wait_closed()


def make_request(
    listener: Listener, target: str = "/callback?code=c&state=s", method: str = "GET", **headers: str
) -> bytes:
    host = headers.pop("host", listener.redirect_uri.split("/")[2])
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{k}: {v}" for k, v in headers.items())]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def run_with_listener(
    use_listener: Callable[[Listener, RecordingHandler], Awaitable[None]],
    handler: RecordingHandler | None = None,
    *,
    host: str = "127.0.0.1",
    head_seconds: float = 30,
) -> RecordingHandler:
    handler = handler or RecordingHandler()

    async def main() -> None:
        async with await Listener.open(handler, host=host, head_seconds=head_seconds) as listener:
            await use_listener(listener, handler)

    asyncio.run(main(), debug=True)
    return handler


async def check_listener(listener: Listener, handler: RecordingHandler) -> None:
    before = len(handler.urls)
    assert (await send(listener, make_request(listener))).startswith("HTTP/1.1 200 ")
    assert len(handler.urls) == before + 1


def test_the_handler_gets_the_exact_redirect_url_and_sets_the_page() -> None:
    async def test(listener: Listener, handler: RecordingHandler) -> None:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/callback", listener.redirect_uri)
        target = "/callback?code=%22a%26b&state=s&x=<script>'"
        answer = await send(listener, make_request(listener, target))
        assert handler.urls == [f"{listener.redirect_uri}{target.removeprefix('/callback')}"]
        head, _, body = answer.partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 ")
        assert "<h1>Connected</h1><p>You can close this tab.</p>" in body
        assert "script" not in body

    run_with_listener(test)


def test_the_page_is_not_cached_and_loads_nothing() -> None:
    async def test(listener: Listener, handler: RecordingHandler) -> None:
        head, _, body = (await send(listener, make_request(listener))).partition("\r\n\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["connection"] == "close"
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
        style = body.partition("<style>")[2].partition("</style>")[0]
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in head
        assert not re.search(r"src=|href=|https?://", body)

    run_with_listener(test)


def test_every_text_on_the_page_is_escaped() -> None:
    async def test(listener: Listener, handler: RecordingHandler) -> None:
        answer = await send(listener, make_request(listener))
        assert "<img" not in answer
        assert answer.count("&lt;img onerror=&quot;x&quot;&gt;&amp;&#x27;") == 3

    hostile = '<img onerror="x">&\''
    run_with_listener(test, RecordingHandler(Page(ok=True, title=hostile, text=hostile)))


def test_a_refused_redirect_gets_a_400_and_the_listener_continues() -> None:
    async def test(listener: Listener, handler: RecordingHandler) -> None:
        answer = await send(listener, make_request(listener))
        assert answer.startswith("HTTP/1.1 400 ")
        assert "That address belongs to another login. Open the newer link." in answer
        handler.page = Page(ok=False, title="Not connected", text="Still waiting.")
        answer = await send(listener, make_request(listener))
        assert answer.startswith("HTTP/1.1 400 ")
        assert "Still waiting." in answer
        handler.page = Page(ok=True, title="Connected", text="Done.")
        await check_listener(listener, handler)

    run_with_listener(
        test, RecordingHandler(PasteRefused("That address belongs to another login.", "Open the newer link."))
    )


def test_an_internal_error_is_reported_without_the_url() -> None:
    reported: list[dict[str, object]] = []

    async def test(listener: Listener, handler: RecordingHandler) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        assert not await send(listener, make_request(listener, f"/callback?code={CODE}"))
        handler.page = Page(ok=True, title="Connected", text="Done.")
        await check_listener(listener, handler)

    run_with_listener(test, RecordingHandler(ZeroDivisionError("a mistake")))
    assert [str(context["exception"]) for context in reported] == ["a mistake"]
    assert CODE not in repr(reported)


@pytest.mark.parametrize(
    ("target", "method", "status"),
    [
        ("/", "GET", 404),
        ("/favicon.ico", "GET", 404),
        ("/callback/", "GET", 404),
        ("/callbackx?code=c", "GET", 404),
        ("/Callback?code=c", "GET", 404),
        ("//callback?code=c", "GET", 404),
        ("/x/../callback?code=c", "GET", 404),
        ("/%63allback?code=c", "GET", 404),
        ("http://127.0.0.1/callback?code=c", "GET", 404),
        ("/callback?code=c", "POST", 405),
        ("/callback?code=c", "HEAD", 405),
        ("/callback?code=c", "OPTIONS", 405),
        ("/callback?code=c", "get", 405),
    ],
)
def test_another_path_or_method_is_refused(target: str, method: str, status: int) -> None:
    async def test(listener: Listener, handler: RecordingHandler) -> None:
        answer = await send(listener, make_request(listener, target, method))
        assert answer.startswith(f"HTTP/1.1 {status} ")
        assert ("Allow: GET" in answer) == (status == 405)
        assert answer.endswith("\r\n\r\n") == (method == "HEAD")
        assert not handler.urls
        await check_listener(listener, handler)

    run_with_listener(test)


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "127.0.0.1", "127.0.0.1:1", "localhost:{port}", "127.0.0.1:{port}.evil.example"],
)
def test_another_host_header_is_refused(host: str) -> None:
    async def test(listener: Listener, handler: RecordingHandler) -> None:
        name = host.format(port=listener_port(listener))
        answer = await send(listener, make_request(listener, host=name))
        assert answer.startswith("HTTP/1.1 400 ")
        assert not handler.urls
        await check_listener(listener, handler)

    run_with_listener(test)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"GET /callback?code=c HTTP/1.1\r\n\r\n", 400),
        (b"GET /callback?code=c HTTP/1.0\r\n\r\n", 400),
        (b"GET /callback?code=c HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /call back HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /callback?code=\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /callback HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET /callback?code=" + b"c" * 80_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000, 431),
    ],
)
def test_garbage_gets_an_error_status_and_the_listener_continues(data: bytes, status: int) -> None:
    async def test(listener: Listener, handler: RecordingHandler) -> None:
        assert (await send(listener, data)).startswith(f"HTTP/1.1 {status} ")
        assert not handler.urls
        await check_listener(listener, handler)

    run_with_listener(test)


def test_empty_and_aborted_connections_do_no_harm() -> None:
    async def test(listener: Listener, handler: RecordingHandler) -> None:
        for data in (b"", b"GET /callb"):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener_port(listener))
            writer.write(data)
            writer.write_eof()
            await reader.read()
            writer.close()
        _, writer = await asyncio.open_connection("127.0.0.1", listener_port(listener))
        writer.transport.abort()
        await check_listener(listener, handler)

    run_with_listener(test)


def test_a_slow_request_is_closed_after_a_timeout() -> None:
    async def test(listener: Listener, handler: RecordingHandler) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener_port(listener))
        writer.write(b"GET /callback?code=c HTT")
        await check_listener(listener, handler)
        assert not await reader.read(), "the listener sent a response to an incomplete request"
        writer.close()
        await check_listener(listener, handler)

    run_with_listener(test, head_seconds=1)


def test_a_hundred_idle_connections_do_not_block_a_browser() -> None:
    async def test(listener: Listener, handler: RecordingHandler) -> None:
        idle = [await asyncio.open_connection("127.0.0.1", listener_port(listener)) for _ in range(100)]
        await check_listener(listener, handler)
        for _, writer in idle:
            writer.close()

    run_with_listener(test)


@covers("listener-collapse")
def test_a_young_connection_is_not_closed_for_newer_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopback, "IDLE_SECONDS", 3600.0)

    async def test(listener: Listener, handler: RecordingHandler) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener_port(listener))
        request = make_request(listener)
        writer.write(request[:10])
        idle = [await asyncio.open_connection("127.0.0.1", listener_port(listener)) for _ in range(100)]
        await check_listener(listener, handler)
        writer.write(request[10:])
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        for _, idle_writer in [*idle, (reader, writer)]:
            idle_writer.close()

    run_with_listener(test)


def test_idle_connections_beyond_the_limit_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopback, "IDLE_SECONDS", 0.0)

    async def test(listener: Listener, handler: RecordingHandler) -> None:
        connections = [
            await asyncio.open_connection("127.0.0.1", listener_port(listener))
            for _ in range(loopback.MAX_CONNECTIONS + 8)
        ]
        await check_listener(listener, handler)
        # The listener has closed the eight oldest connections, and a ninth for the request of
        # `check_listener`.
        results = await asyncio.gather(
            *(reader.read() for reader, _ in connections[:9]), return_exceptions=True
        )
        assert all(result == b"" or isinstance(result, ConnectionError) for result in results)
        assert not connections[-1][0].at_eof()
        for _, writer in connections:
            writer.close()

    run_with_listener(test)


def test_a_hundred_redirects_at_once_are_all_answered() -> None:
    async def test(listener: Listener, handler: RecordingHandler) -> None:
        async def one(number: int) -> str:
            return await send(listener, make_request(listener, f"/callback?code={number}"))

        # Send twenty at a time: more than a browser opens, and fewer than the listener's limit.
        for first in range(0, 100, 20):
            answers = await asyncio.gather(*map(one, range(first, first + 20)))
            assert all(answer.startswith("HTTP/1.1 200 ") for answer in answers)
        assert len(set(handler.urls)) == 100

    run_with_listener(test)


def test_localhost_listens_on_ipv4_and_ipv6_on_one_port() -> None:
    async def test(listener: Listener, handler: RecordingHandler) -> None:
        assert listener.redirect_uri.startswith("http://localhost:")
        for address in ("127.0.0.1", "::1"):
            assert (await send(listener, make_request(listener), address)).startswith("HTTP/1.1 200 ")
            numeric = f"{f'[{address}]' if ':' in address else address}:{listener_port(listener)}"
            answer = await send(listener, make_request(listener, host=numeric), address)
            assert answer.startswith("HTTP/1.1 400 ")

    run_with_listener(test, host="localhost")


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6_loopback_is_written_in_brackets(host: str) -> None:
    async def test(listener: Listener, handler: RecordingHandler) -> None:
        assert listener.redirect_uri == f"http://[::1]:{listener_port(listener)}/callback"
        answer = await send(listener, make_request(listener), "::1")
        assert answer.startswith("HTTP/1.1 200 ")
        assert handler.urls == [f"{listener.redirect_uri}?code=c&state=s"]

    run_with_listener(test, host=host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.1.1", "evil.example", "localhost.evil.example"]
)
def test_only_loopback_hosts_are_allowed(host: str) -> None:
    with pytest.raises(ConfigError):
        asyncio.run(Listener.open(RecordingHandler(), host=host))


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_busy_port_in_either_family_is_a_network_error(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family) as busy_socket:
        busy_socket.bind((address, 0))
        busy_socket.listen()
        port = busy_socket.getsockname()[1]
        with pytest.raises(NetworkError, match=f"cannot use port {port} on localhost"):
            asyncio.run(Listener.open(RecordingHandler(), host="localhost", port=port))
    other = (socket.AF_INET6, "::1") if family == socket.AF_INET else (socket.AF_INET, "127.0.0.1")
    with socket.socket(other[0]) as free_socket:
        free_socket.bind((other[1], port))


def test_the_requested_port_and_path_are_used_and_freed_after_closing() -> None:
    port = free_port()

    async def main() -> None:
        for _ in range(2):
            handler = RecordingHandler()
            async with await Listener.open(handler, port=port, path="/oauth/cb") as listener:
                assert listener.redirect_uri == f"http://127.0.0.1:{port}/oauth/cb"
                await send(listener, make_request(listener, "/oauth/cb?code=c"))
                assert handler.urls == [f"http://127.0.0.1:{port}/oauth/cb?code=c"]
            with pytest.raises(OSError, match=r"refused|failed"):
                await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(main())


@pytest.mark.parametrize("steps", range(5))
def test_if_the_caller_of_open_is_cancelled_the_port_is_free(steps: int) -> None:
    async def main() -> None:
        port = free_port()
        opening = asyncio.create_task(Listener.open(RecordingHandler(), host="localhost", port=port))
        for _ in range(steps):
            await asyncio.sleep(0)
        if opening.cancel():
            with pytest.raises(asyncio.CancelledError):
                await opening
        else:
            await opening.result().close()
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family) as probe:
                assert probe.connect_ex((address, port)) != 0

    asyncio.run(main())


def test_closing_waits_for_a_response_in_progress() -> None:
    async def main() -> None:
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def decide(url: Secret) -> Page:
            arrived.set()
            await go_on.wait()
            return Page(ok=True, title="Connected", text="Done.")

        listener = await Listener.open(decide)
        answer = asyncio.create_task(send(listener, make_request(listener)))
        await arrived.wait()
        closing = asyncio.create_task(listener.close())
        await asyncio.sleep(0)
        go_on.set()
        assert "Connected" in await answer
        await closing

    asyncio.run(main())


def test_closing_does_not_wait_forever_for_the_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopback, "CLOSE_SECONDS", 0.05)

    async def main() -> None:
        arrived = asyncio.Event()
        cancelled = False

        async def decide(url: Secret) -> Page:
            nonlocal cancelled
            arrived.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled = True
                raise
            raise AssertionError

        listener = await Listener.open(decide)
        answer = asyncio.create_task(send(listener, make_request(listener)))
        await arrived.wait()
        await listener.close()
        assert cancelled
        await asyncio.gather(answer, return_exceptions=True)

    asyncio.run(main())


def test_nothing_of_the_url_is_logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def test(listener: Listener, handler: RecordingHandler) -> None:
        await send(listener, make_request(listener, f"/callback?code={CODE}&state={CODE}"))
        await send(listener, make_request(listener, f"/wrong?code={CODE}"))
        await send(listener, f"GET /callback?code={CODE} garbage\r\n\r\n".encode())

    with caplog.at_level(logging.DEBUG):
        run_with_listener(test)
    assert CODE not in caplog.text
    assert CODE not in "".join(capfd.readouterr())
