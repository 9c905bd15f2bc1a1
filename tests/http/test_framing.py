"""The framing around a body is limited too: informational responses, header lines, chunks, trailers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import httpcore
import pytest

from hermes_mcp_auth_remote.errors import ResponseTooLarge
from hermes_mcp_auth_remote.http.framing import (
    MAX_FRAMING_BYTES,
    MAX_FRAMING_LINES,
    MAX_READ_BYTES,
    LimitedStream,
    TooMuchFraming,
)
from hermes_mcp_auth_remote.oauth.wire import Response
from tests.http.peers import RequestHandler, encode_response, fetch, respond_with, run_http_server
from tests.http.test_limits import respond_slowly
from tests.requirements import covers

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"


def fetch_response(handler: RequestHandler | bytes) -> Response:
    async def main() -> Response:
        async with run_http_server(handler if callable(handler) else respond_with(handler)) as peer:
            response: Response = (await fetch(peer))[0]
            return response

    return asyncio.run(main())


def encode_chunked(*parts: bytes) -> bytes:
    return CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@covers("bounded-work")
@pytest.mark.parametrize(
    "handler",
    [
        respond_slowly(EARLY_HINTS * 100),
        respond_slowly(b"HTTP/1.1 103 \r\n\r\n" * 1000),
        respond_slowly(b"HTTP/1.1 103 \r\nlink: %b\r\n\r\n" % (b"x" * 60_000)),
        respond_with(b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * 20_000 + b"content-length: 2\r\n\r\n{}"),
        respond_with(CHUNKED + b"2\r\n{}\r\n0\r\n" + b"a:\r\n" * 20_000 + b"\r\n"),
    ],
    ids=["hints", "short hints", "long hints", "header lines", "trailers"],
)
def test_endless_header_lines_are_refused(handler: RequestHandler) -> None:
    with pytest.raises(ResponseTooLarge, match="responded to the step with too many header lines"):
        fetch_response(handler)


@covers("bounded-work")
def test_a_body_of_many_chunks_of_one_byte_is_refused() -> None:
    with pytest.raises(ResponseTooLarge, match="too many parts of a few bytes"):
        fetch_response(encode_chunked(*[b"x"] * 3000))


@covers("bounded-work")
@pytest.mark.parametrize("size", [1, 7])
def test_a_document_in_short_chunks_is_read(size: int) -> None:
    body = json.dumps({"issuer": "https://as.example", "more": "x" * 1500}).encode()
    parts = (body[start : start + size] for start in range(0, len(body), size))
    assert fetch_response(encode_chunked(*parts)).body == body


def test_a_large_document_of_short_lines_is_read_in_one_piece_and_in_chunks() -> None:
    body = b"[1,\n2]\n" * 140_000
    assert fetch_response(encode_response(200, body)).body == body
    parts = (body[start : start + 5000] for start in range(0, len(body), 5000))
    assert fetch_response(encode_chunked(*parts)).body == body


def test_a_few_hints_and_a_hundred_header_lines_are_accepted() -> None:
    headers = b"".join(b"x-%d: %b\r\n" % (number, b"y" * 200) for number in range(100))
    raw = EARLY_HINTS * 20 + b"HTTP/1.1 200 OK\r\n" + headers + b"content-length: 2\r\n\r\n{}"
    response = fetch_response(raw)
    assert response.body == b"{}"
    assert response.header("x-99") == "y" * 200


@covers("bounded-work")
@pytest.mark.parametrize(
    ("raw", "turns"),
    [
        (encode_response(200, b"x" * 1_000_000), 1_000_000 // MAX_READ_BYTES),
        (encode_chunked(*[b"x"] * 2000), 2000 // 64),
    ],
    ids=["large", "short chunks"],
)
def test_other_tasks_run_while_a_response_is_read(raw: bytes, turns: int) -> None:
    """The event loop runs other tasks after each short read and every few chunks."""

    async def main() -> int:
        rounds = 0

        async def count() -> None:
            nonlocal rounds
            while True:
                rounds += 1
                await asyncio.sleep(0)

        async with run_http_server(respond_with(raw)) as peer:
            counting = asyncio.create_task(count())
            await fetch(peer)
            counting.cancel()
        return rounds

    assert asyncio.run(main()) >= turns


class FakeStream(httpcore.AsyncNetworkStream):
    """Returns the same bytes forever, and records how many were requested."""

    def __init__(self, unit: bytes) -> None:
        self._unit = unit
        self.requested_sizes: list[int] = []

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  httpcore's
        self.requested_sizes.append(max_bytes)
        return (self._unit * max_bytes)[:max_bytes]

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  httpcore's
        return


def read_forever(stream: LimitedStream) -> Iterator[bytes]:
    while True:
        yield asyncio.run(stream.read(65_536))


@covers("bounded-work")
@pytest.mark.parametrize(
    ("unit", "most"),
    [
        (b"x", MAX_FRAMING_BYTES // MAX_READ_BYTES + 1),
        (b"a:\r\n", 1),
        (b"x" * 99 + b"\n", MAX_FRAMING_LINES // 40 + 1),
    ],
)
def test_reads_are_short_and_limited_until_the_counters_reset(unit: bytes, most: int) -> None:
    inner = FakeStream(unit)
    stream = LimitedStream(inner)
    with pytest.raises(TooMuchFraming):
        for _ in read_forever(stream):
            pass
    assert len(inner.requested_sizes) <= most
    assert set(inner.requested_sizes) == {MAX_READ_BYTES}
    # The client resets the counters after a part of a body, and before the next request.
    stream.reset_counters()
    assert asyncio.run(stream.read(10)) == (unit * 10)[:10]


def test_the_counters_reset_for_each_request_of_a_connection() -> None:
    async def main() -> None:
        stream = LimitedStream(FakeStream(b"a:\r\n"))
        for _ in range(5):
            await stream.write(b"GET / HTTP/1.1\r\n\r\n")
            await stream.read(4 * MAX_FRAMING_LINES)

    asyncio.run(main())
