from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest

from hermes_mcp_auth_remote.errors import NetworkError, ResponseTooLarge, TimedOut, Unreachable
from hermes_mcp_auth_remote.http.client import run_exchange
from hermes_mcp_auth_remote.oauth.wire import MAX_BODY_BYTES, Exchange, Response, get_json
from hermes_mcp_auth_remote.values import Server
from tests.http.peers import (
    ReceivedRequest,
    RequestHandler,
    encode_response,
    fetch,
    respond_with,
    run_http_server,
    run_raw_server,
)
from tests.requirements import covers

pytestmark = pytest.mark.slow

MIB = b"x" * 1_048_576


def fetch_response(
    handler: RequestHandler | bytes, *, seconds: float = 10.0, hang_up: bool = False
) -> Response:
    """Return the response that the client reads from these bytes of a server, or raise the client's error."""

    async def main() -> Response:
        request_handler = handler if callable(handler) else respond_with(handler, hang_up=hang_up)
        async with run_http_server(request_handler) as peer:
            response: Response = (await fetch(peer, response_seconds=seconds))[0]
            await peer.disconnected.wait()
            return response

    return asyncio.run(main())


def respond_slowly(part: bytes, head: bytes = b"", pause: float = 0.0) -> RequestHandler:
    """Send the head, then repeat the part until the client disconnects."""

    async def handle(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return handle


@covers("answer-limits")
def test_a_response_of_exactly_the_limit_is_read_completely() -> None:
    assert fetch_response(encode_response(200, MIB)).body == MIB


@covers("answer-limits")
@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 10_000_000])
def test_a_larger_response_is_refused(size: int) -> None:
    with pytest.raises(ResponseTooLarge, match="127\\.0\\.0\\.1 responded to the step with more than 1 MiB"):
        fetch_response(encode_response(200, b"x" * size))


@covers("answer-limits")
def test_an_endless_response_is_refused() -> None:
    with pytest.raises(ResponseTooLarge):
        fetch_response(respond_slowly(b"x" * 65536, b"HTTP/1.1 200 OK\r\n\r\n"))
    with pytest.raises(ResponseTooLarge):
        fetch_response(
            respond_slowly(
                b"8000\r\n%b\r\n" % (b"x" * 32768), b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            )
        )


@covers("answer-limits")
def test_endless_headers_are_refused() -> None:
    with pytest.raises(Unreachable, match="broke off its response"):
        fetch_response(respond_slowly(b"x-more: %b\r\n" % (b"y" * 1000), b"HTTP/1.1 200 OK\r\n"))


@covers("answer-limits")
@pytest.mark.parametrize(
    "raw",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"],
    ids=["nothing", "half a head", "half a body"],
)
def test_a_silent_server_times_out(raw: bytes) -> None:
    with pytest.raises(TimedOut, match="127\\.0\\.0\\.1 did not respond to the step in time"):
        fetch_response(raw, seconds=0.2)


@covers("answer-limits")
@pytest.mark.parametrize(
    "handler",
    [
        respond_slowly(b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"),
        respond_slowly(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", pause=0.01),
    ],
    ids=["a body that never comes", "informational responses"],
)
def test_the_time_limit_is_for_the_whole_response(handler: RequestHandler) -> None:
    with pytest.raises(TimedOut):
        fetch_response(handler, seconds=0.3)


@covers("answer-limits")
def test_the_time_limit_includes_all_redirects() -> None:
    async def redirect_slowly(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.25)
        writer.write(encode_response(302, b"", {"location": request.target + "x"}))

    with pytest.raises(TimedOut):
        fetch_response(redirect_slowly, seconds=0.4)


@covers("answer-limits")
@pytest.mark.parametrize("name", ["gzip", "GZIP", "x-gzip", "deflate"])
def test_a_compressed_response_is_read(name: str) -> None:
    packed = zlib.compress(b'{"a":1}') if name == "deflate" else gzip.compress(b'{"a":1}', mtime=0)
    assert fetch_response(encode_response(200, packed, {"content-encoding": name})).body == b'{"a":1}'


def test_identity_and_an_empty_body_are_not_decompressed() -> None:
    assert fetch_response(encode_response(200, b"{}", {"content-encoding": " Identity "})).body == b"{}"
    assert fetch_response(encode_response(401, b"", {"content-encoding": "br"})).status == 401


@covers("answer-limits")
def test_a_gzip_bomb_is_refused() -> None:
    bomb = gzip.compress(b"\0" * 200_000_000, 1, mtime=0)
    assert len(bomb) < MAX_BODY_BYTES
    with pytest.raises(ResponseTooLarge, match="more than 1 MiB when decompressed"):
        fetch_response(encode_response(200, bomb, {"content-encoding": "gzip"}))


def test_a_compressed_response_of_exactly_the_limit_is_read() -> None:
    assert (
        fetch_response(encode_response(200, gzip.compress(MIB, mtime=0), {"content-encoding": "gzip"})).body
        == MIB
    )


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"not gzip at all"),
        ("br", b"\x0b\x02\x80hello\x03"),
        ("gzip, gzip", gzip.compress(b"x", mtime=0)[:9]),
        ("gzip", gzip.compress(b'{"a":1}', mtime=0)[:-4]),
    ],
)
def test_an_invalid_compressed_response_is_unreachable(encoding: str, body: bytes) -> None:
    with pytest.raises(Unreachable, match=r"cannot be decompressed|cut off"):
        fetch_response(encode_response(200, body, {"content-encoding": encoding}))


@covers("answer-limits")
@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\x00\x02\x02\x28",
        b"<html>502</html>\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 99999 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"",
    ],
)
def test_a_truncated_response_or_one_that_is_not_http_is_unreachable(raw: bytes) -> None:
    with pytest.raises(
        Unreachable, match=r"^127\.0\.0\.1 broke off its response to the step, or the response is not HTTP"
    ):
        fetch_response(raw, hang_up=True)


def test_a_reset_connection_is_unreachable() -> None:
    async def reset(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    with pytest.raises(Unreachable, match="127\\.0\\.0\\.1"):
        fetch_response(reset)


def test_a_banner_before_any_request_is_not_a_response() -> None:
    async def main() -> None:
        async with run_raw_server(b"220 mail.example ESMTP\r\n") as peer:
            await fetch(peer, response_seconds=0.2)

    with pytest.raises(NetworkError):
        asyncio.run(main())


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;a=1\r\n}\r\n0\r\nt: x\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200\r\nConnection: close\r\n\r\n{}",
    ],
    ids=["HTTP/1.0", "chunked", "100 first", "until close"],
)
def test_every_standard_end_of_a_body_is_supported(raw: bytes) -> None:
    response = fetch_response(raw, hang_up=True)
    assert (response.status, response.body) == (200, b"{}")


@covers("answer-limits")
@pytest.mark.parametrize("kind", ["text/event-stream", "Text/Event-Stream; charset=utf-8"])
def test_the_client_does_not_wait_for_an_event_stream(kind: str) -> None:
    raw = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nX-A: 1\r\nX-A: 2\r\n\r\ndata: 1\n\n"
    response = fetch_response(raw.encode())
    assert (response.status, response.body, response.header_all("x-a")) == (200, b"", ("1", "2"))


def test_an_exchange_uses_a_new_connection_after_a_failed_request() -> None:
    async def break_first_response(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if request.target == "/broken":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
            await writer.drain()
            writer.close()
        else:
            writer.write(encode_response())

    async def main() -> list[object]:
        async with run_http_server(break_first_response) as peer:

            def exchange() -> Exchange[list[object]]:
                outcomes: list[object] = []
                for path in ("/broken", "/whole", "/again"):
                    try:
                        outcomes.append((yield get_json(peer.url(path), "step")).status)
                    except NetworkError as error:
                        outcomes.append(error.code)
                return outcomes

            seen = await run_exchange(exchange(), Server("s", peer.url("/mcp")), environ={})
            return [*seen, peer.connections]

    assert asyncio.run(main()) == ["unreachable", 200, 200, 2]
