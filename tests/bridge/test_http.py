"""The bridge with servers that use everything that Streamable HTTP and HTTP+SSE allow, and break rules."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hermes_mcp_auth_remote.bridge import buffers, http_transport, relay, stdio
from hermes_mcp_auth_remote.bridge.connections import open_http_client
from hermes_mcp_auth_remote.bridge.json_rpc import parse_messages
from hermes_mcp_auth_remote.bridge.legacy_transport import HttpWithSse
from tests.bridge.client import SSL_CONTEXT, McpHandler, meta, run_bridge, run_in_loop
from tests.bridge.raw_server import Reply, Request, serve
from tests.requirements import covers

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the times that the bridge waits for a server."""
    monkeypatch.setattr(http_transport, "RETRY_SECONDS", 0.4)
    monkeypatch.setattr(http_transport, "_FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(http_transport, "_STREAM_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(http_transport, "_REFUSAL_SECONDS", 0.2)
    monkeypatch.setattr(relay, "LAST_REQUESTS_SECONDS", 0.2)


@covers("bridge-transports")
@pytest.mark.parametrize("version", ["2025-03-26", "2025-06-18", "2025-11-25"])
@pytest.mark.parametrize("session_id", [None, "s1"])
@run_in_loop
async def test_a_session_has_its_headers(version: str, session_id: str | None) -> None:
    handler = McpHandler(version, session_id=session_id)
    async with serve(handler) as url, run_bridge(url) as client:
        response = await client.initialize(version)
        assert response["result"]["protocolVersion"] == version
        assert (await client.request("tools/list", cursor="é\u2028"))["result"]["echo"] == {
            "cursor": "é\u2028"
        }
    for request in handler.requests:
        is_first = request.rpc_method == "initialize"
        assert request.headers.get("mcp-session-id") == (None if is_first else session_id)
        assert request.headers.get("mcp-protocol-version") == (None if is_first else version)
        assert "mcp-method" not in request.headers
    assert len(handler.received("DELETE")) == (session_id is not None)


@covers("bridge-transports")
@run_in_loop
async def test_messages_in_both_directions_on_both_streams() -> None:
    handler, answers = McpHandler(), asyncio.Queue[dict[str, Any]]()

    async def call_tool(request: Request, reply: Reply) -> None:
        await reply.start_stream("Text/Event-Stream; charset=utf-8")
        token = request.message["params"]["_meta"]["progressToken"]
        progress = {"progressToken": token, "progress": 1}
        await reply.event({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress})
        await reply.event({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {}})
        answer = await answers.get()
        await reply.event({"jsonrpc": "2.0", "id": request.message["id"], "result": {"answer": answer}})
        await reply.wait_for_disconnect()

    async def stream(_: Request, reply: Reply) -> None:
        await reply.start_stream()
        await reply.event({"jsonrpc": "2.0", "id": 7, "method": "roots/list"})
        await reply.event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        await reply.wait_for_disconnect()

    async def take_response(request: Request, reply: Reply) -> None:
        answers.put_nowait(request.message)
        await reply.send(202)

    handler.methods |= {"tools/call": call_tool, "GET": stream, "response": take_response}
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        assert (await client.others.get())["method"] == "roots/list"
        assert (await client.others.get())["method"] == "notifications/tools/list_changed"
        await client.send({"id": 7, "result": {"roots": []}})
        assert await answers.get() == {"jsonrpc": "2.0", "id": 7, "result": {"roots": []}}
        _, response = await client.start_request("tools/call", name="x", _meta={"progressToken": "t"})
        assert (await client.others.get())["params"]["progressToken"] == "t"
        assert (await client.others.get())["id"] == "q"
        await client.send({"id": "q", "result": {"text": "hello"}})
        assert (await response)["result"]["answer"]["result"] == {"text": "hello"}


@covers("bridge-recovers")
@pytest.mark.parametrize("breaks", ["abort", "end"])
@run_in_loop
async def test_a_broken_stream_is_resumed_after_the_last_whole_event(breaks: str) -> None:
    handler = McpHandler()
    request_id: Any = None

    async def break_off(reply: Reply) -> None:
        await asyncio.sleep(0.02)
        if breaks == "abort":
            reply.abort()
        else:
            await reply.end_stream()

    async def call_tool(request: Request, reply: Reply) -> None:
        nonlocal request_id
        request_id = request.message["id"]
        await reply.start_stream()
        await reply.write(b"retry: 10\n")
        await reply.event(None, "e0")
        await reply.event({"jsonrpc": "2.0", "method": "notifications/one"}, "e1")
        # This is half an event, so its id must not count.
        await reply.write(b'id: e2\ndata: {"jsonrpc": "2.0", "met')
        await break_off(reply)

    async def resume(request: Request, reply: Reply) -> None:
        last_event_id = request.headers.get("last-event-id")
        if last_event_id is None:
            await reply.send(405)
            return
        await reply.start_stream()
        if last_event_id == "e1":
            await reply.event({"jsonrpc": "2.0", "method": "notifications/two"}, "e2")
            await break_off(reply)
        else:
            assert last_event_id == "e2"
            await reply.event({"jsonrpc": "2.0", "id": request_id, "result": {"done": True}}, "e3")

    handler.methods |= {"tools/call": call_tool, "GET": resume}
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        assert (await client.request("tools/call", name="x"))["result"] == {"done": True}
        methods = [client.others.get_nowait()["method"] for _ in range(client.others.qsize())]
        assert methods == ["notifications/one", "notifications/two"]
    assert len(handler.received("tools/call")) == 1


@covers("bridge-recovers")
@pytest.mark.parametrize("refusal", [(404, b""), (400, b'{"error": "Bad Request: No valid session ID"}')])
@run_in_loop
async def test_a_lost_session_is_opened_once_for_all_calls(refusal: tuple[int, bytes]) -> None:
    handler, live = McpHandler(), "s1"
    is_ready = asyncio.Event()

    async def call_tool(request: Request, reply: Reply) -> None:
        if request.headers.get("mcp-session-id") != live:
            await reply.send(refusal[0], refusal[1])
        else:
            # A strict server accepts calls in the new session only after `initialized`.
            assert live == "s1" or is_ready.is_set()
            await reply.result(request, {"session": live})

    async def initialized(_: Request, reply: Reply) -> None:
        if live == "s2":
            await asyncio.sleep(0.05)
            is_ready.set()
        await reply.send(202)

    handler.methods |= {"tools/call": call_tool, "notifications/initialized": initialized}
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        assert (await client.request("tools/call", name="x"))["result"] == {"session": "s1"}
        handler.session_id = live = "s2"
        started = [await client.start_request("tools/call", name="x") for _ in range(20)]
        # The client cancels the call that opens the session; the others go on.
        await client.notify("notifications/cancelled", requestId=started[0][0])
        late = await client.start_request("tools/call", name="x")
        results = await asyncio.gather(*(response for _, response in [*started[1:], late]))
        assert {result["result"]["session"] for result in results} == {"s2"}
    assert len(handler.received("initialize")) == 2
    assert [r.headers.get("mcp-session-id") for r in handler.received("notifications/initialized")] == [
        "s1",
        "s2",
    ]


@run_in_loop
async def test_an_error_that_only_mentions_a_session_reaches_the_client() -> None:
    handler = McpHandler()

    async def call_tool(request: Request, reply: Reply) -> None:
        error = {"code": -32602, "message": "session is not an argument"}
        await reply.send(400, {"jsonrpc": "2.0", "id": request.message["id"], "error": error})

    handler.methods["tools/call"] = call_tool
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        assert (await client.request("tools/call", name="x"))["error"]["code"] == -32602


@covers("bridge-recovers")
@run_in_loop
async def test_a_server_that_restarts_between_calls_answers_the_next_call() -> None:
    first, second = McpHandler(), McpHandler(session_id="s2")
    async with contextlib.AsyncExitStack() as stack:
        async with serve(first) as url:
            client = await stack.enter_async_context(run_bridge(url))
            await client.initialize()
            await client.request("tools/list")
        _, response = await client.start_request("tools/call", name="x")
        await asyncio.sleep(0.1)
        port = int(url.rpartition(":")[2].partition("/")[0])
        await stack.enter_async_context(serve(second, port))
        assert (await response)["result"]["echo"] == {"name": "x"}
    called = ["tools/call", "initialize", "notifications/initialized", "tools/call"]
    assert [request.rpc_method for request in second.requests if request.method == "POST"] == called


@covers("bridge-transports")
@run_in_loop
async def test_requests_of_2026_07_28_carry_metadata_and_end_with_their_stream() -> None:
    handler = McpHandler(session_id=None)
    is_closed = asyncio.Event()

    async def call_tool(request: Request, reply: Reply) -> None:
        await reply.start_stream()
        await reply.event({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}})
        await reply.wait_for_disconnect()
        is_closed.set()

    handler.methods["tools/call"] = call_tool
    async with serve(handler) as url, run_bridge(url) as client:
        await client.request("server/discover", _meta=meta())
        request_id, response = await client.start_request("tools/call", name="é", arguments={}, _meta=meta())
        await client.others.get()
        await client.notify("notifications/cancelled", requestId=request_id)
        await is_closed.wait()
        await client.request("resources/read", uri="file:///a", _meta=meta())
        assert not response.done()
    assert (
        handler.received("notifications/cancelled")
        == handler.received("DELETE")
        == handler.received("GET")
        == []
    )
    headers = {request.rpc_method: request.headers for request in handler.requests}
    assert headers["server/discover"]["mcp-method"] == "server/discover"
    assert headers["tools/call"]["mcp-name"] == f"=?base64?{base64.b64encode('é'.encode()).decode()}?="
    assert headers["resources/read"]["mcp-name"] == "file:///a"
    assert {request_headers["mcp-protocol-version"] for request_headers in headers.values()} == {"2026-07-28"}


@run_in_loop
async def test_a_server_with_sessions_is_told_of_a_cancellation() -> None:
    handler, has_started, was_told = McpHandler(), asyncio.Event(), asyncio.Event()

    async def call_tool(_: Request, reply: Reply) -> None:
        has_started.set()
        await reply.wait_for_disconnect()

    async def cancelled(_: Request, reply: Reply) -> None:
        was_told.set()
        await reply.send(202)

    handler.methods |= {"tools/call": call_tool, "notifications/cancelled": cancelled}
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        request_id, response = await client.start_request("tools/call", name="x")
        await has_started.wait()
        await client.notify("notifications/cancelled", requestId=request_id, reason="changed my mind")
        await client.notify("notifications/cancelled", requestId=999)
        await client.request("ping")
        await was_told.wait()
        assert not response.done()
    [received] = handler.received("notifications/cancelled")
    assert received.message["params"]["requestId"] == request_id


class LegacyHandler:
    """A server of 2024-11-05."""

    def __init__(self, endpoint: str = "/messages?id=1") -> None:
        self.endpoint = endpoint
        self.stream: Reply | None = None
        self.methods: list[str] = []
        self.large = 0

    async def __call__(self, request: Request, reply: Reply) -> None:
        if request.path == "/mcp" and request.method == "POST":
            await reply.send(405)
        elif request.path == "/mcp":
            await reply.start_stream()
            self.stream = reply
            await reply.write(f"event: endpoint\ndata: {self.endpoint}\n\n".encode())
            await reply.wait_for_disconnect()
        else:
            message = request.message
            self.methods.append(message["method"])
            await reply.send(202, b"Accepted", content_type="text/plain")
            assert self.stream is not None
            if message["method"] == "break":
                self.stream.abort()
            elif "id" in message:
                result = {"method": message["method"], "text": "x" * self.large}
                await self.stream.event({"result": result, "jsonrpc": "2.0", "id": message["id"]})


@covers("bridge-transports", "bridge-recovers")
@run_in_loop
async def test_http_with_sse_of_2024_11_05_is_the_fallback() -> None:
    handler = LegacyHandler()
    async with serve(handler) as url, run_bridge(url) as client:
        assert (await client.initialize("2024-11-05"))["result"]["method"] == "initialize"
        responses = await asyncio.gather(*(client.request("tools/list") for _ in range(20)))
        assert all(response["result"]["method"] == "tools/list" for response in responses)
        handler.large = 3_000_000
        assert len((await client.request("tools/call"))["result"]["text"]) == 3_000_000
        handler.large = 0
        error = (await client.request("break"))["error"]
        assert "The connection to demo broke before its response arrived." in error["message"]
        assert (await client.request("ping"))["result"]["method"] == "ping"
    assert handler.methods[-3:] == ["initialize", "notifications/initialized", "ping"]
    assert client.others.empty()


@covers("bridge-recovers")
@run_in_loop
async def test_http_with_sse_opens_a_lost_session_with_its_settings() -> None:
    handler, is_lost = LegacyHandler(), False

    async def respond(request: Request, reply: Reply) -> None:
        if is_lost and request.path == "/messages?id=1":
            await reply.send(404)
        else:
            await handler(request, reply)

    async with serve(respond) as url, run_bridge(url) as client:
        await client.initialize("2024-11-05")
        await client.request("logging/setLevel", level="debug")
        await client.request("resources/subscribe", uri="file:///a")
        is_lost, handler.endpoint = True, "/messages?id=2"
        responses = await asyncio.gather(*(client.request("tools/list") for _ in range(5)))
        assert all(response["result"]["method"] == "tools/list" for response in responses)
        assert client.others.empty()
    settings = ["initialize", "notifications/initialized", "logging/setLevel", "resources/subscribe"]
    assert handler.methods == settings * 2 + ["tools/list"] * 5


@covers("bridge-bad-input")
@run_in_loop
async def test_http_with_sse_answers_requests_with_the_same_id() -> None:
    delivered = list[object]()

    async def deliver(text: object) -> None:
        delivered.append(text)

    [request] = parse_messages(b'{"jsonrpc": "2.0", "id": 99, "method": "tools/list"}')
    http_client = open_http_client(SSL_CONTEXT, auth=None, headers={}, can_use_proxy=False)
    async with serve(LegacyHandler()) as url, http_client:
        transport = HttpWithSse(http_client, url, "demo", deliver)
        # Each of them ends.
        await asyncio.gather(*(transport.send(request) for _ in range(3)))
        await transport.close()
    assert len(delivered) == 3


@pytest.mark.parametrize("endpoint", ["http://127.0.0.2:9/x", "//evil.example/x", "https://127.0.0.1/x"])
@run_in_loop
async def test_an_endpoint_at_another_host_gets_nothing(endpoint: str) -> None:
    async with serve(LegacyHandler(endpoint)) as url, run_bridge(url) as client:
        error = (await client.initialize("2024-11-05"))["error"]
        assert error["message"] == "demo names an endpoint at another host."


@run_in_loop
async def test_a_server_that_was_not_ready_is_tried_again_with_streamable_http() -> None:
    handler, is_ready = McpHandler(), False

    async def respond(request: Request, reply: Reply) -> None:
        await (handler(request, reply) if is_ready else reply.send(404))

    async with serve(respond) as url, run_bridge(url) as client:
        assert "is not an MCP server" in (await client.initialize())["error"]["message"]
        is_ready = True
        assert "result" in await client.initialize()
        assert "result" in await client.request("tools/list")


@covers("bridge-large")
@pytest.mark.parametrize("is_stream", [False, True])
@run_in_loop
async def test_large_messages_are_not_mistaken_for_the_response(*, is_stream: bool) -> None:
    handler, text = McpHandler(), "x" * 3_000_000

    async def call_tool(request: Request, reply: Reply) -> None:
        response = {"result": {"text": text}, "jsonrpc": "2.0", "id": request.message["id"]}
        if not is_stream:
            await reply.send(200, response)
            return
        await reply.start_stream()
        params = {"messages": [text]}
        await reply.event({"jsonrpc": "2.0", "id": 5, "method": "sampling/createMessage", "params": params})
        await reply.event(response)
        await reply.wait_for_disconnect()

    handler.methods["tools/call"] = call_tool
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        assert (await client.request("tools/call", name="x"))["result"] == {"text": text}
        if is_stream:
            assert client.others.get_nowait()["params"]["messages"] == [text]


@run_in_loop
async def test_a_cancelled_large_result_leaves_no_half_line() -> None:
    handler = McpHandler()

    async def call_tool(request: Request, reply: Reply) -> None:
        await reply.result(request, {"text": "x" * 5_000_000})

    handler.methods["tools/call"] = call_tool
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        for _ in range(5):
            request_id, _response = await client.start_request("tools/call", name="x")
            await asyncio.sleep(0.03)
            await client.notify("notifications/cancelled", requestId=request_id)
        # Each line that the client reads is valid JSON.
        assert "result" in await client.request("ping")


@covers("bridge-recovers")
@run_in_loop
async def test_many_calls_at_once_each_get_their_own_response() -> None:
    handler = McpHandler()
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        responses = await asyncio.gather(*(client.request("tools/call", name=f"t{n}") for n in range(100)))
        assert [response["result"]["echo"]["name"] for response in responses] == [f"t{n}" for n in range(100)]


BAD_RESPONSES: dict[str, tuple[int, str, bytes, str]] = {
    "html": (200, "text/html", b"<html>Log in</html>", "no JSON-RPC message. Check that its address"),
    "empty": (200, "application/json", b"", "is not a JSON-RPC message"),
    "half": (200, "application/json", b'{"jsonrpc": "2.0", "id"', "is not a JSON-RPC message"),
    "number": (200, "application/json", b"7", "is not a JSON-RPC message"),
    "accepted": (202, "application/json", b"", "is not a JSON-RPC message"),
    "no content": (204, "", b"", "no JSON-RPC message"),
    "forbidden": (451, "text/html", b"<html>", "refused tools/call with status 451"),
    "not found": (404, "text/html", b"<html>", "refused tools/call with status 404"),
    "storm": (503, "text/html", b"<html>", "refused tools/call with status 503"),
    "other id": (200, "application/json", b'{"id": 99, "result": {}}', "sent no response to tools/call"),
    "no response": (200, "application/json", b'{"method": "notifications/x"}', "sent no response to tools/"),
    "stream of nothing": (200, "text/event-stream", b": hello\n\n", "broke before its response arrived"),
    "stream of junk": (200, "text/event-stream", b"data: junk\n\n", "broke before its response arrived"),
    "gzip": (200, "application/json", gzip.compress(b"[" * 1000), "is not a JSON-RPC message"),
}


@covers("bridge-bad-input")
@pytest.mark.parametrize("name", BAD_RESPONSES)
@run_in_loop
async def test_a_bad_response_is_one_clear_error(name: str, caplog: pytest.LogCaptureFixture) -> None:
    status, content_type, body, expected = BAD_RESPONSES[name]
    handler = McpHandler(session_id=None)

    async def call_tool(_: Request, reply: Reply) -> None:
        encoding = {"Content_Encoding": "gzip"} if name == "gzip" else {}
        await reply.send(status, body, content_type=content_type, **encoding)

    handler.methods["tools/call"] = call_tool
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        error = (await client.request("tools/call", name="x"))["error"]
        assert error["code"] == -32000
        assert expected in error["message"]
        assert "127.0.0.1" not in error["message"]
        assert "result" in await client.request("ping")
    assert len(handler.received("tools/call")) == 1


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"id": null, "error": {"code": 7}}',
        b'{"error": {"code": 7}}',
        # Python reads the number as infinite, which JSON does not have.
        b'{"error": {"code": 7, "data": 1e999}}',
    ],
)
@covers("bridge-bad-input")
@run_in_loop
async def test_an_error_without_an_id_is_the_response(content_type: str, body: bytes) -> None:
    handler = McpHandler()

    async def call_tool(_: Request, reply: Reply) -> None:
        await reply.start_stream(content_type)
        if content_type == "application/json":
            await reply.write(body)
            await reply.end_stream()
        else:
            await reply.write(b"data: " + body + b"\n\n")
            await reply.wait_for_disconnect()

    handler.methods["tools/call"] = call_tool
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        error = (await client.request("tools/call", name="x"))["error"]
        assert error["code"] == 7
        assert ("cannot be passed on" in error.get("message", "")) is (b"data" in body)
        assert client.others.empty()


@covers("bridge-bad-input")
@run_in_loop
async def test_a_server_error_that_passes_is_tried_again_only_for_requests_that_change_nothing() -> None:
    handler, refusals = McpHandler(), 3

    async def list_tools(request: Request, reply: Reply) -> None:
        nonlocal refusals
        refusals -= 1
        if refusals == 1:
            reply.abort()
        elif refusals >= 0:
            await reply.send(503)
        else:
            await reply.result(request, {"tools": []})

    async def call_tool(_: Request, reply: Reply) -> None:
        reply.abort()

    handler.methods |= {"tools/list": list_tools, "tools/call": call_tool}
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        assert (await client.request("tools/list"))["result"] == {"tools": []}
        error = (await client.request("tools/call", name="x"))["error"]
        assert "The server may have carried out the request." in error["message"]
    assert len(handler.received("tools/list")) == 4
    assert len(handler.received("tools/call")) == 1


@pytest.mark.parametrize("is_down", [True, False])
@run_in_loop
async def test_a_server_that_stays_away_is_an_error(*, is_down: bool) -> None:
    async def busy(_: Request, reply: Reply) -> None:
        await reply.send(503)

    async with contextlib.AsyncExitStack() as stack:
        async with serve(busy) as url:
            if not is_down:
                await stack.enter_async_context(serve(busy))
        if not is_down:
            url = await stack.enter_async_context(serve(busy))
        client = await stack.enter_async_context(run_bridge(url))
        error = (await client.initialize())["error"]
        assert error["message"].startswith("demo cannot be reached: ")


@pytest.mark.parametrize("body", ["endless", "compressed"])
@covers("bridge-bad-input")
@run_in_loop
async def test_an_endless_response_can_be_cancelled_and_delays_no_other_call(body: str) -> None:
    handler = McpHandler()

    async def call_tool(_: Request, reply: Reply) -> None:
        if body == "endless":
            await reply.start_stream()
            while True:
                await reply.write(b": nothing\n" * 100)
                await asyncio.sleep(0)
        await reply.start_stream(Content_Encoding="gzip")
        await reply.write(gzip.compress(b"\n: x\n" * 20_000 + b"\n" * 20_000_000))
        await reply.wait_for_disconnect()

    handler.methods["tools/call"] = call_tool
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        request_id, response = await client.start_request("tools/call", name="x")
        await asyncio.sleep(0.1)
        assert "result" in await client.request("ping")
        await client.notify("notifications/cancelled", requestId=request_id)
        assert "result" in await client.request("ping")
        assert not response.done()


@run_in_loop
async def test_a_refusal_whose_body_never_ends_is_an_error() -> None:
    async def refuse(request: Request, reply: Reply) -> None:
        if request.rpc_method != "tools/call":
            await handler(request, reply)
            return
        reply._write_head(500, {"Content-Type": "text/html", "Transfer-Encoding": "chunked"})
        await reply.wait_for_disconnect()

    handler = McpHandler()
    async with serve(refuse) as url, run_bridge(url) as client:
        await client.initialize()
        assert "status 500" in (await client.request("tools/call", name="x"))["error"]["message"]


@pytest.mark.parametrize("status", [302, 307, 308])
@run_in_loop
async def test_a_redirect_to_another_host_gets_no_message(status: int) -> None:
    others = McpHandler()

    async def redirect(request: Request, reply: Reply) -> None:
        if request.path == "/mcp":
            await reply.send(status, Location="/moved")
        elif request.rpc_method == "initialize":
            await handler(request, reply)
        else:
            await reply.send(status, Location=other_url)

    handler = McpHandler()
    async with serve(others) as other_url, serve(redirect) as url, run_bridge(url) as client:
        response = await client.initialize()
        if status == 302:
            # After this redirect, a client would repeat the POST as a GET.
            assert "error" in response
            return
        assert "result" in response
        error = (await client.request("tools/call", name="x"))["error"]
        assert error["message"].startswith("The server redirects to another host.")
    assert others.requests == []


@pytest.mark.parametrize("status", [301, 302, 303])
@covers("bridge-bad-input")
@run_in_loop
async def test_a_redirect_that_drops_the_message_is_not_followed(status: int) -> None:
    requests = list[Request]()

    async def add_slash(request: Request, reply: Reply) -> None:
        requests.append(request)
        if request.path == "/mcp":
            await reply.send(status, Location="/mcp/")
        else:
            # The GET after such a redirect would open a stream that never contains the response.
            await reply.start_stream()
            await reply.wait_for_disconnect()

    async with serve(add_slash) as url, run_bridge(url) as client:
        error = (await client.initialize())["error"]
        assert f"redirects to another address with status {status}" in error["message"]
    assert {request.path for request in requests} == {"/mcp"}


@covers("bridge-large")
@run_in_loop
async def test_a_full_disk_is_one_clear_error_and_the_stream_of_the_server_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The file is always full, also for the text that `close` still has to write.
    monkeypatch.setattr(buffers, "TemporaryFile", partial(Path("/dev/full").open, "w+b"))
    handler, large = McpHandler(), {"text": "x" * 2 * buffers.MAX_MEMORY_BYTES}
    streams = 0

    async def listen(_: Request, reply: Reply) -> None:
        nonlocal streams
        streams += 1
        await reply.start_stream()
        if streams == 1:
            await reply.event({"jsonrpc": "2.0", "method": "notifications/large", "params": large})
        else:
            await reply.event({"jsonrpc": "2.0", "method": "notifications/small"})
        await reply.wait_for_disconnect()

    async def call_tool(request: Request, reply: Reply) -> None:
        await reply.result(request, large)

    handler.methods |= {"GET": listen, "tools/call": call_tool}
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        error = (await client.request("tools/call", name="x"))["error"]
        assert "needs a temporary file, which cannot be written: No space left on device." in error["message"]
        assert "Free some space" in error["message"]
        assert (await client.others.get())["method"] == "notifications/small"


@run_in_loop
async def test_redirects_without_end_are_one_clear_error() -> None:
    async def redirect(_: Request, reply: Reply) -> None:
        await reply.send(307, Location="/mcp")

    async with serve(redirect) as url, run_bridge(url) as client:
        error = (await client.initialize())["error"]
        assert error["message"] == "demo redirects without end. Check its address."


@covers("bridge-bad-input")
@run_in_loop
async def test_bad_lines_of_the_client_are_errors_and_the_next_line_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stdio, "MAX_LINE_BYTES", 100_000)
    handler = McpHandler()
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        for line, code, message_id in (
            (b"{\n", -32700, None),
            (b"\xff\n", -32700, None),
            (b"[]\n", -32600, None),
            (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}\n', -32600, None),
            (
                b'{"jsonrpc":"2.0","id":77,"method":"x","params":{"a":"' + b"x" * 200_000 + b'"}}\n',
                -32600,
                77,
            ),
        ):
            await client.write(line)
            error = await client.others.get()
            assert (error["id"], error["error"]["code"]) == (message_id, code)
        await client.write(b'[{"jsonrpc":"2.0","id":"b1","method":"ping"},')
        await client.write(b'{"jsonrpc":"2.0","id":"b2","method":"ping"}]\r\n\r\n')
        assert {(await client.others.get())["id"] for _ in range(2)} == {"b1", "b2"}


@run_in_loop
async def test_lines_that_do_not_wait_are_answered_before_the_bridge_ends() -> None:
    handler = McpHandler()
    async with serve(handler) as url, run_bridge(url) as client:
        lines = [
            {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}},
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
            {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
        ]
        await client.write("\n".join(map(json.dumps, lines)).encode())
        client.close_input()
        assert [(await client.others.get())["id"] for _ in range(2)] == [1, 2]


@run_in_loop
async def test_a_client_that_closes_its_end_ends_open_calls_and_the_session() -> None:
    handler, has_started = McpHandler(), asyncio.Event()

    async def call_tool(_: Request, reply: Reply) -> None:
        has_started.set()
        await reply.wait_for_disconnect()

    handler.methods["tools/call"] = call_tool
    async with serve(handler) as url:
        async with run_bridge(url) as client:
            await client.initialize()
            await client.start_request("tools/call", name="x")
            await has_started.wait()
        assert len(handler.received("DELETE")) == 1
