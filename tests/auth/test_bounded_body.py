"""A 401 or 403 with an endless, slow, compressed or broken body: the caller gets a bounded part of it."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import httpx
import httpx2
import pytest
import trustme

import hermes_mcp_auth_remote.auth.bounded_body
import hermes_mcp_auth_remote.auth.httpx
import hermes_mcp_auth_remote.auth.httpx2
from hermes_mcp_auth_remote.auth.bounded_body import BodyLimits
from tests.requirements import covers

pytestmark = pytest.mark.slow

LIMITS = BodyLimits(timeout_seconds=0.1)
# 20 MB, compressed to 20 KB; these 20 KB are compressed again.
GZIP_BOMB = gzip.compress(b"\0" * 20_000_000)
NESTED_GZIP_BOMB = gzip.compress(GZIP_BOMB)
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

Script = Callable[[socket.socket], None]
"""Writes one response. Raises OSError after the client has closed the connection."""


def refusal_response(tail: bytes, status: int = 401) -> bytes:
    return b"HTTP/1.1 %d Refused\r\nwww-authenticate: Bearer\r\n%b" % (status, tail)


def send_once(raw: bytes) -> Script:
    return lambda connection: connection.sendall(raw)


def send_repeatedly(head: bytes, part: bytes, pause: float = 0.0) -> Script:
    def script(connection: socket.socket) -> None:
        # A client that reads the head has a part of the body then, however busy the machine is.
        connection.sendall(head + part)
        while True:
            connection.sendall(part)
            time.sleep(pause)

    return script


def send_and_close(raw: bytes) -> Script:
    def script(connection: socket.socket) -> None:
        connection.sendall(raw)
        connection.close()

    return script


def send_and_wait(raw: bytes) -> Script:
    def script(connection: socket.socket) -> None:
        connection.sendall(raw)
        while connection.recv(65536):
            pass

    return script


ENDLESS = send_repeatedly(refusal_response(CHUNKED), b"8000\r\n%b\r\n" % (b"x" * 0x8000))
# Responses of a hostile server. Each must end in a bounded body and a closed connection.
HOSTILE: dict[str, Script] = {
    "endless chunks": ENDLESS,
    "endless until the end of the connection": send_repeatedly(refusal_response(b"\r\n"), b"x" * 65536),
    "chunks of one byte": send_repeatedly(refusal_response(CHUNKED), b"1\r\nx\r\n" * 1000),
    "a byte now and then": send_repeatedly(refusal_response(CHUNKED), b"1\r\nx\r\n", 0.02),
    "a chunk's extension, a byte now and then": send_repeatedly(
        refusal_response(CHUNKED + b"1;"), b"x", 0.02
    ),
    "trailers, a byte now and then": send_repeatedly(
        refusal_response(CHUNKED + b"1\r\nx\r\n0\r\nx: "), b"x", 0.02
    ),
    "less than it promised": send_and_wait(refusal_response(b"content-length: 5000\r\n\r\nshort")),
    "nothing at all": send_and_wait(refusal_response(b"content-length: 5000\r\n\r\n")),
    "broken chunks": send_once(refusal_response(CHUNKED + b"2\r\nxx\r\nzz\r\n")),
    "hung up in the middle": send_and_close(refusal_response(b"content-length: 5000\r\n\r\nshort")),
    "endless gzip": send_repeatedly(
        refusal_response(b"content-encoding: gzip\r\n" + CHUNKED), b"8000\r\n%b\r\n" % (b"x" * 0x8000)
    ),
}


@dataclass
class Peer:
    """A server in threads. Each response follows the next script; `heads` records the requests."""

    scripts: list[Script]
    heads: list[tuple[int, bytes]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def connections(self) -> list[int]:
        return [number for number, _ in self.heads]

    @property
    def tokens(self) -> list[str]:
        return [
            head.lower().partition(b"authorization: bearer ")[2].partition(b"\r")[0].decode()
            for _, head in self.heads
        ]


@contextmanager
def run_server(*scripts: Script, tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    peer = Peer(list(scripts))
    connections: list[socket.socket] = []

    def serve_connection(number: int, plain: socket.socket) -> None:
        with suppress(OSError), plain, wrap_tls(tls, plain) as connection:
            while True:
                head = b""
                while b"\r\n\r\n" not in head:
                    part = connection.recv(65536)
                    if not part:
                        return
                    head += part
                peer.heads.append((number, head))
                peer.scripts.pop(0)(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threading.Thread(
                    target=serve_connection, args=(len(connections), connection), daemon=True
                ).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer.port = listener.getsockname()[1]
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield peer
        finally:
            for connection in (listener, *connections):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def wrap_tls(tls: ssl.SSLContext | None, plain: socket.socket) -> socket.socket:
    return plain if tls is None else tls.wrap_socket(plain, server_side=True)


class FakeSession:
    """A session whose token is refused. After the refusal it returns `new_header`."""

    prover = None

    def __init__(self, url: str, new_header: str | None = "Bearer new") -> None:
        self.server = SimpleNamespace(url=url)
        self.new_header = new_header

    def header_now(self) -> str:
        return "Bearer old"

    header_blocking = header_now

    async def header(self) -> str:
        return "Bearer old"

    def report_retry(self, header: str, *, is_accepted: bool) -> None:
        pass

    async def handle_challenge(self, refused: str, status: int, lines: list[str]) -> str | None:
        return self.new_header

    def handle_challenge_blocking(self, refused: str, status: int, lines: list[str]) -> str | None:
        return self.new_header


ReceivedResponse = tuple[int, bytes]
Ask = Callable[..., list[ReceivedResponse]]
"""Takes a session and the number of requests. Returns the status and body of each response."""


def ask_async(library: Any, ours: Any, session: Any, times: int, *, streamed: bool) -> list[ReceivedResponse]:
    async def main() -> list[ReceivedResponse]:
        async with library.AsyncClient(auth=ours.McpAuth(session), **client_options(library)) as client:
            return [await send_one(client) for _ in range(times)]

    async def send_one(client: Any) -> ReceivedResponse:
        url = session.server.url
        if not streamed:
            response = await client.post(url)
            return response.status_code, response.content
        async with client.stream("POST", url) as response:
            parts = [part async for part in response.aiter_bytes()]
            return response.status_code, b"".join(parts)

    return asyncio.run(main())


def ask_sync(library: Any, ours: Any, session: Any, times: int, *, streamed: bool) -> list[ReceivedResponse]:
    def send_one(client: Any) -> ReceivedResponse:
        url = session.server.url
        if not streamed:
            response = client.post(url)
            return response.status_code, response.content
        with client.stream("POST", url) as response:
            return response.status_code, b"".join(response.iter_bytes())

    with library.Client(auth=ours.McpAuth(session), **client_options(library)) as client:
        return [send_one(client) for _ in range(times)]


# Created once, because it reads all authorities of the system. The TLS test replaces it.
VERIFY = ssl.create_default_context()


def client_options(library: Any) -> dict[str, Any]:
    # A pool of one: a connection that is not released blocks the next request.
    limits = library.Limits(max_connections=1)
    return {"limits": limits, "timeout": library.Timeout(20), "trust_env": False, "verify": VERIFY}


AUTH_MODULES = {httpx: hermes_mcp_auth_remote.auth.httpx, httpx2: hermes_mcp_auth_remote.auth.httpx2}
ASK_VARIANTS = [
    (how, library, streamed)
    for how in (ask_async, ask_sync)
    for library in AUTH_MODULES
    for streamed in (True, False)
]


def variant_id(variant: Any) -> str:
    ask_function, library, streamed = variant
    return f"{ask_function.__name__}-{library.__name__}-{'streamed' if streamed else 'plain'}"


@pytest.fixture(params=ASK_VARIANTS, ids=variant_id)
def ask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ask:
    ask_function, library, streamed = request.param
    monkeypatch.setattr(hermes_mcp_auth_remote.auth.bounded_body, "BODY_LIMITS", LIMITS)

    def call(session: FakeSession, times: int = 1) -> list[ReceivedResponse]:
        responses: list[ReceivedResponse] = ask_function(
            library, AUTH_MODULES[library], session, times, streamed=streamed
        )
        return responses

    return call


@pytest.fixture
def without_time_limit(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine take its time: these bodies end."""
    limits = replace(LIMITS, timeout_seconds=20)
    monkeypatch.setattr(hermes_mcp_auth_remote.auth.bounded_body, "BODY_LIMITS", limits)


# Use each library, each kind of client and each kind of call at least once. The faults do not depend on the
# combination.
with_some_variants = pytest.mark.parametrize(
    "ask", [ASK_VARIANTS[0], ASK_VARIANTS[3], ASK_VARIANTS[5], ASK_VARIANTS[6]], ids=variant_id, indirect=True
)


@covers("refusal-bounded")
def test_an_endless_refusal_is_cut_and_the_request_is_repeated(ask: Ask) -> None:
    with run_server(ENDLESS, send_once(OK)) as peer:
        assert ask(FakeSession(peer.url)) == [(200, b"ok")]


@with_some_variants
@covers("refusal-bounded")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_refusal_is_cut_and_the_request_is_repeated(ask: Ask, name: str) -> None:
    with run_server(HOSTILE[name], send_once(OK)) as peer:
        assert ask(FakeSession(peer.url)) == [(200, b"ok")]
        assert peer.tokens == ["old", "new"]
        # The first connection is closed, because the server would continue the cut body.
        assert peer.connections == [1, 2]


@with_some_variants
@covers("refusal-bounded")
@pytest.mark.parametrize("name", ["endless chunks", "a byte now and then", "less than it promised"])
@pytest.mark.parametrize("status", [401, 403])
def test_a_hostile_refusal_that_goes_to_the_caller_has_a_bounded_body(
    ask: Ask, name: str, status: int
) -> None:
    def script(connection: socket.socket) -> None:
        response = refusal_response(b"", status)
        HOSTILE[name](ReplacingSocket(connection, refusal_response(b""), response))  # type: ignore[arg-type]

    with run_server(script, send_once(OK)) as peer:
        # The pool's only connection is free for the second request.
        refused, accepted = ask(FakeSession(peer.url, new_header=None), 2)
        assert refused[0] == status
        assert 0 < len(refused[1]) <= LIMITS.max_bytes
        assert accepted == (200, b"ok")


class ReplacingSocket:
    """A socket that replaces a part of the data that the script sends."""

    def __init__(self, connection: socket.socket, old: bytes, new: bytes) -> None:
        self._connection, self._old, self._new = connection, old, new
        self.recv = connection.recv

    def sendall(self, data: bytes) -> None:
        self._connection.sendall(data.replace(self._old, self._new))


@with_some_variants
@covers("refusal-bounded")
@pytest.mark.parametrize("name", ["endless chunks", "a byte now and then"])
def test_the_refusal_of_the_second_attempt_is_bounded_too(ask: Ask, name: str) -> None:
    with run_server(
        send_once(refusal_response(b"content-length: 0\r\n\r\n")), HOSTILE[name], send_once(OK)
    ) as peer:
        refused, accepted = ask(FakeSession(peer.url), 2)
        assert refused[0] == 401
        assert 0 < len(refused[1]) <= LIMITS.max_bytes
        assert accepted == (200, b"ok")


class FakeProver:
    """Reports that a retry is needed for each response with a nonce."""

    def create_proof(self, method: str, url: str, access_token: str | None = None) -> str:
        return "a-proof"

    def remember_nonce(self, url: str, nonce: str | None) -> bool:
        return nonce is not None


@with_some_variants
@covers("refusal-bounded")
@pytest.mark.parametrize("name", ["endless chunks", "a byte now and then"])
def test_a_refusal_that_requests_a_nonce_is_bounded_too(ask: Ask, name: str) -> None:
    nonce_headers = b'www-authenticate: DPoP error="use_dpop_nonce"\r\ndpop-nonce: n\r\n'

    def script(connection: socket.socket) -> None:
        HOSTILE[name](ReplacingSocket(connection, refusal_response(b""), refusal_response(nonce_headers)))  # type: ignore[arg-type]

    with run_server(script, script, send_once(OK)) as peer:
        session = FakeSession(peer.url, new_header=None)
        session.prover = FakeProver()  # type: ignore[assignment]
        (refused, accepted) = ask(session, 2)
        assert refused[0] == 401
        assert 0 < len(refused[1]) <= LIMITS.max_bytes
        assert accepted == (200, b"ok")


def gzip_refusal(plain: bytes) -> bytes:
    body = gzip.compress(plain)
    return refusal_response(b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


@pytest.mark.usefixtures("without_time_limit")
@covers("refusal-bounded")
def test_a_gzip_bomb_in_a_refusal_is_not_decompressed_whole(ask: Ask) -> None:
    assert len(GZIP_BOMB) < LIMITS.max_bytes
    bomb = refusal_response(
        b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(GZIP_BOMB), GZIP_BOMB)
    )
    with run_server(send_once(bomb), send_once(bomb), send_once(OK)) as peer:
        assert ask(FakeSession(peer.url, new_header=None)) == [(401, b"\0" * LIMITS.max_bytes)]
        assert ask(FakeSession(peer.url)) == [(200, b"ok")]


@pytest.mark.usefixtures("without_time_limit")
@covers("refusal-bounded")
def test_nested_gzip_bombs_are_not_decompressed(ask: Ask) -> None:
    head = b"content-encoding: gzip, gzip\r\ncontent-length: %d\r\n\r\n" % len(NESTED_GZIP_BOMB)
    with run_server(send_once(refusal_response(head + NESTED_GZIP_BOMB))) as peer:
        assert ask(FakeSession(peer.url, new_header=None)) == [(401, NESTED_GZIP_BOMB)]


@pytest.mark.usefixtures("without_time_limit")
@with_some_variants
@pytest.mark.parametrize(
    ("response", "body"),
    [
        (refusal_response(b"content-length: 9\r\n\r\nnot today"), b"not today"),
        (refusal_response(CHUNKED + b"4\r\nnot \r\n5\r\ntoday\r\n0\r\n\r\n"), b"not today"),
        (refusal_response(b"content-length: 0\r\n\r\n"), b""),
        (gzip_refusal(b"not today"), b"not today"),
        (
            refusal_response(b"content-length: %d\r\n\r\n%b" % (LIMITS.max_bytes, b"x" * LIMITS.max_bytes)),
            b"x" * LIMITS.max_bytes,
        ),
    ],
    ids=["plain", "chunked", "empty", "gzip", "as long as the limit"],
)
def test_an_honest_refusal_reaches_the_caller_whole_and_its_connection_is_reused(
    ask: Ask, response: bytes, body: bytes
) -> None:
    with run_server(send_once(response), send_once(OK)) as peer:
        assert ask(FakeSession(peer.url, new_header=None), 2) == [(401, body), (200, b"ok")]
        assert peer.connections == [1, 1]


def test_a_response_that_is_no_refusal_is_not_read(ask: Ask) -> None:
    body = b"x" * (2 * LIMITS.max_bytes)
    response = b"HTTP/1.1 500 Oh\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    with run_server(send_once(response)) as peer:
        assert ask(FakeSession(peer.url)) == [(500, body)]


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize(
    "read",
    [
        lambda response: response.aread(),
        lambda response: join_parts(response.aiter_raw()),
        lambda response: join_parts(response.aiter_bytes(3)),
        lambda response: join_parts(response.aiter_text(), ""),
        lambda response: join_parts(response.aiter_lines(), "\n"),
    ],
    ids=["aread", "aiter_raw", "aiter_bytes", "aiter_text", "aiter_lines"],
)
def test_the_caller_can_read_a_refusal_with_every_method_of_the_library(library: Any, read: Any) -> None:
    async def main(url: str) -> None:
        auth = AUTH_MODULES[library].McpAuth(FakeSession(url, new_header=None))
        async with library.AsyncClient(auth=auth, trust_env=False) as client:  # noqa: SIM117
            async with client.stream("POST", url) as response:
                assert await read(response) in {b"not today", "not today"}
                assert response.elapsed.total_seconds() > 0
                assert response.headers["content-length"] == "9"
                assert response.is_stream_consumed

    with run_server(send_once(refusal_response(b"content-length: 9\r\n\r\nnot today"))) as peer:
        asyncio.run(main(peer.url))


async def join_parts(parts: Any, separator: Any = b"") -> Any:
    return separator.join([part async for part in parts])


def test_a_refusal_that_a_hook_has_already_read_is_not_bounded() -> None:
    async def read(response: Any) -> None:
        await response.aread()

    async def main(url: str) -> bytes:
        auth = hermes_mcp_auth_remote.auth.httpx.McpAuth(FakeSession(url, new_header=None))
        hooks: dict[str, Any] = {"response": [read]}
        async with httpx.AsyncClient(auth=auth, event_hooks=hooks, trust_env=False) as client:
            return (await client.post(url)).content

    with run_server(send_once(refusal_response(b"content-length: 9\r\n\r\nnot today"))) as peer:
        assert asyncio.run(main(peer.url)) == b"not today"


def test_a_call_that_is_cancelled_during_a_refusal_frees_its_connection() -> None:
    async def main(url: str) -> None:
        auth = hermes_mcp_auth_remote.auth.httpx.McpAuth(FakeSession(url))
        async with httpx.AsyncClient(auth=auth, **client_options(httpx)) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.post(url)
            assert (await client.post(url)).content == b"ok"

    # The body arrives later than the caller's timeout.
    with run_server(HOSTILE["nothing at all"], send_once(OK)) as peer:
        asyncio.run(main(peer.url))


@covers("refusal-bounded")
@with_some_variants
@pytest.mark.parametrize("name", ["nothing at all", "a chunk's extension, a byte now and then"])
def test_a_refusal_over_tls_is_cut_too(ask: Ask, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    server_context, client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server_context)
    authority.configure_trust(client_context)
    monkeypatch.setattr(sys.modules[__name__], "VERIFY", client_context)
    with run_server(HOSTILE[name], send_once(OK), tls=server_context) as peer:
        assert ask(FakeSession(f"https://localhost:{peer.port}/mcp")) == [(200, b"ok")]
        assert peer.connections == [1, 2]


def test_a_transport_without_a_socket_is_bounded_between_its_parts() -> None:
    def parts() -> Generator[bytes]:
        while True:
            yield b"x" * 1000

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, content=parts())

    auth = hermes_mcp_auth_remote.auth.httpx.McpAuth(FakeSession("http://h/", new_header=None))
    with httpx.Client(auth=auth, transport=httpx.MockTransport(answer)) as client:
        response = client.get("http://h/")
    assert response.content == b"x" * LIMITS.max_bytes
