"""What the bridge does again after the server has lost, closed or refused something; and its limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest

from hermes_mcp_auth_remote.bridge import http_transport, relay
from hermes_mcp_auth_remote.errors import AuthorizationRequired, McpAuthError, StoreBusy, Unreachable
from tests.bridge.client import McpHandler, meta, run_bridge, run_in_loop
from tests.bridge.raw_server import Reply, Request, serve
from tests.requirements import covers

pytestmark = pytest.mark.slow

RESULT: dict[str, Any] = {"jsonrpc": "2.0", "result": {}}


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_transport, "RETRY_SECONDS", 0.4)
    monkeypatch.setattr(http_transport, "_STREAM_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(relay, "LAST_REQUESTS_SECONDS", 0.2)


async def wait_for(condition: asyncio.Condition, predicate: Any) -> None:
    async with condition:
        await condition.wait_for(predicate)


@covers("bridge-recovers")
@run_in_loop
async def test_a_new_session_gets_the_log_level_and_the_subscriptions_of_the_lost_one() -> None:
    handler = McpHandler()
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        for level in ("info", "debug"):
            await client.request("logging/setLevel", level=level)
        for uri in ("file:///a", "file:///b"):
            await client.request("resources/subscribe", uri=uri)
        await client.request("resources/unsubscribe", uri="file:///b")
        handler.session_id = "s2"
        handler.requests.clear()
        assert "result" in await client.request("tools/call", name="x")
        assert client.others.empty()
    posts = [request for request in handler.requests if request.method == "POST"]
    assert [request.rpc_method for request in posts] == [
        "tools/call",
        "initialize",
        "notifications/initialized",
        "logging/setLevel",
        "resources/subscribe",
        "tools/call",
    ]
    assert posts[3].message["params"] == {"level": "debug"}
    assert posts[4].message["params"] == {"uri": "file:///a"}


@covers("bridge-recovers")
@pytest.mark.parametrize("method", ["initialize", "notifications/initialized", "logging/setLevel"])
@run_in_loop
async def test_a_lost_response_to_a_message_that_opens_a_session_stops_no_later_call(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(http_transport, "_SESSION_SECONDS", 0.05)
    handler, has_lost_one = McpHandler(), False

    async def lose_one(request: Request, reply: Reply) -> None:
        nonlocal has_lost_one
        if handler.session_id == "s2" and request.rpc_method == method and not has_lost_one:
            has_lost_one = True
            handler.requests.append(request)
            await reply.wait_for_disconnect()
        else:
            await handler(request, reply)

    async with serve(lose_one) as url, run_bridge(url) as client:
        await client.initialize()
        await client.request("logging/setLevel", level="info")
        handler.session_id = "s2"
        response = await client.request("tools/call", name="x")
        if method == "initialize":
            assert response["error"]["message"] == "demo does not open the session again."
            response = await client.request("tools/call", name="x")
        assert "result" in response
    assert has_lost_one


@covers("bridge-recovers")
@run_in_loop
async def test_a_session_that_is_opened_again_waits_for_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_transport, "_SESSION_SECONDS", 0.02)
    handler, checks = McpHandler(), 0
    may_respond = asyncio.Event()

    async def is_login_waiting() -> bool:
        nonlocal checks
        checks += 1
        if checks == 3:
            may_respond.set()
        return True

    async def initialize(request: Request, reply: Reply) -> None:
        if handler.session_id == "s2":
            await may_respond.wait()
        await reply.result(
            request, {"protocolVersion": "2025-11-25"}, Mcp_Session_Id=handler.session_id or ""
        )

    handler.methods["initialize"] = initialize
    async with serve(handler) as url, run_bridge(url, is_login_waiting=is_login_waiting) as client:
        await client.initialize()
        await client.request("ping")
        handler.session_id = "s2"
        assert "result" in await client.request("tools/call", name="x")


@run_in_loop
async def test_a_setting_that_the_server_refuses_by_now_does_not_prevent_the_new_session() -> None:
    handler = McpHandler()

    async def refuse(_: Request, reply: Reply) -> None:
        await reply.send(500)

    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        await client.request("logging/setLevel", level="info")
        handler.session_id = "s2"
        handler.methods["logging/setLevel"] = refuse
        assert "result" in await client.request("tools/call", name="x")


@covers("bridge-bad-input")
@pytest.mark.parametrize("session_id", ["a b", "é\x80ÿ", "=?utf-8?q?x?=", "x" * 8000, "{}", "a, b; c"])
@run_in_loop
async def test_a_session_id_with_any_characters_is_sent_back_as_it_is(session_id: str) -> None:
    handler = McpHandler(session_id=session_id)
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        assert "result" in await client.request("tools/call", name="x")
    # The GET stream and the end of the session send it too.
    assert {request.headers.get("mcp-session-id") for request in handler.requests[1:]} == {session_id}
    assert len(handler.received("DELETE")) == 1


@run_in_loop
async def test_an_empty_session_id_is_none() -> None:
    handler = McpHandler(session_id=None)

    async def initialize(request: Request, reply: Reply) -> None:
        result = {"protocolVersion": "2025\r\nX: y", "capabilities": {}}
        await reply.result(request, result, Mcp_Session_Id="")

    handler.methods["initialize"] = initialize
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        assert "result" in await client.request("tools/call", name="x")
    assert all("mcp-session-id" not in request.headers for request in handler.requests)
    # The version is no value for a header.
    assert all("mcp-protocol-version" not in request.headers for request in handler.requests)


@covers("bridge-recovers")
@run_in_loop
async def test_a_server_that_answers_404_to_get_keeps_its_session() -> None:
    handler = McpHandler()

    async def not_found(_: Request, reply: Reply) -> None:
        await reply.send(404)

    handler.methods["GET"] = not_found
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        for _ in range(20):
            await client.request("tools/call", name="x")
    assert (len(handler.received("initialize")), len(handler.received("GET"))) == (1, 1)


@covers("bridge-recovers")
@run_in_loop
async def test_an_unknown_method_with_status_404_opens_no_new_session() -> None:
    handler = McpHandler()

    async def refuse(request: Request, reply: Reply) -> None:
        error = {"code": -32601, "message": "Method not found"}
        await reply.send(404, {"jsonrpc": "2.0", "id": request.message["id"], "error": error})

    handler.methods["completion/complete"] = refuse
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        assert (await client.request("completion/complete"))["error"]["code"] == -32601
    assert len(handler.received("initialize")) == 1


@covers("bridge-recovers")
@run_in_loop
async def test_a_get_stream_that_ends_with_404_opens_one_new_session() -> None:
    handler, changed = McpHandler(), asyncio.Condition()

    async def stream(request: Request, reply: Reply) -> None:
        if request.headers["mcp-session-id"] == "s1" and handler.session_id == "s1":
            await reply.start_stream()
            handler.session_id = "s2"
            await reply.end_stream()
        else:
            await reply.send(404)
        async with changed:
            changed.notify_all()

    handler.methods["GET"] = stream
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        await wait_for(changed, lambda: len(handler.received("GET")) >= 3)
        assert "result" in await client.request("tools/call", name="x")
    assert len(handler.received("initialize")) == 2
    # The stream, the loss, and the one that the new session does not offer.
    assert len(handler.received("GET")) == 3


@pytest.mark.parametrize("retry", [b"", b"retry: 0\n\n"])
@covers("bridge-bad-input")
@run_in_loop
async def test_a_server_that_closes_each_get_stream_gets_ever_fewer_requests(retry: bytes) -> None:
    handler, changed, opened_at = McpHandler(), asyncio.Condition(), list[float]()

    async def stream(_: Request, reply: Reply) -> None:
        await reply.start_stream()
        if retry:
            await reply.write(retry)
        await reply.end_stream()
        async with changed:
            opened_at.append(asyncio.get_running_loop().time())
            changed.notify_all()

    handler.methods["GET"] = stream
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        await wait_for(changed, lambda: len(opened_at) >= 6)
    # The pauses are 10, 20, 40, 80 and 160 ms. Without a retry time of 0, which counts as 100 ms.
    assert opened_at[5] - opened_at[0] >= 0.3


@covers("bridge-recovers")
@run_in_loop
async def test_connections_are_used_again_after_every_kind_of_response() -> None:
    handler, connections = McpHandler(), list[Any]()

    async def call_tool(request: Request, reply: Reply) -> None:
        message = {**RESULT, "id": request.message["id"]}
        await reply.start_stream()
        await reply.event(message)
        # The end of the stream comes in another packet.
        await asyncio.sleep(0.01)
        await reply.end_stream()

    async def refuse(_: Request, reply: Reply) -> None:
        await reply.send(400, b"no", content_type="text/plain")

    handler.methods |= {"tools/call": call_tool, "prompts/get": refuse}
    async with serve(handler, 0, connections) as url, run_bridge(url) as client:
        await client.initialize()
        for _ in range(3):
            assert "result" in await client.request("tools/call", name="x")
            assert "error" in await client.request("prompts/get", name="x")
            await client.notify("notifications/roots/list_changed")
            assert "result" in await client.request("ping")
            await asyncio.sleep(0.03)
    assert len(handler.requests) > 12
    # One for the messages, one for what was sent beside them.
    assert len(connections) <= 3


@covers("bridge-recovers")
@run_in_loop
async def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    handler, connections = McpHandler(session_id=None), list[asyncio.StreamWriter]()
    async with serve(handler, 0, connections) as url, run_bridge(url) as client:
        await client.initialize()
        for _ in range(3):
            assert "result" in await client.request("tools/call", name="x")
            for connection in connections:
                connection.close()
            await asyncio.gather(*(c.wait_closed() for c in connections), return_exceptions=True)
    assert len(handler.received("tools/call")) == 3


TOOL = {
    "name": "add",
    "inputSchema": {"properties": {"region": {"type": "string", "x-mcp-header": "Region"}}},
}


def make_strict_handler(tools: list[dict[str, Any]]) -> McpHandler:
    """Return a server of 2026-07-28 that refuses tool calls without the header of the region."""
    handler = McpHandler(session_id=None)

    async def list_tools(request: Request, reply: Reply) -> None:
        cursor = request.message["params"].get("cursor")
        page = {"tools": tools, "resultType": "complete"} if cursor else {"tools": [], "nextCursor": "2"}
        await reply.result(request, page)

    async def call_tool(request: Request, reply: Reply) -> None:
        if request.headers.get("mcp-param-region") != request.message["params"]["arguments"]["region"]:
            error = {"code": -32020, "message": "Header mismatch"}
            await reply.send(400, {"jsonrpc": "2.0", "id": request.message["id"], "error": error})
        else:
            await reply.result(request, {"done": True})

    handler.methods |= {"tools/list": list_tools, "tools/call": call_tool}
    return handler


@covers("bridge-transports")
@run_in_loop
async def test_a_call_whose_headers_are_refused_is_sent_again_with_those_of_the_current_schema() -> None:
    handler = make_strict_handler([TOOL])
    call = {"name": "add", "arguments": {"region": "eu"}, "_meta": meta() | {"progressToken": 1}}
    async with serve(handler) as url, run_bridge(url) as client:
        # The client knows the tool from an earlier bridge.
        assert (await client.request("tools/call", **call))["result"] == {"done": True}
        assert (await client.request("tools/call", **call))["result"] == {"done": True}
        assert client.others.empty()
    assert [r.rpc_method for r in handler.requests] == [
        "tools/call",
        "tools/list",
        "tools/list",
        "tools/call",
        "tools/call",
    ]
    assert handler.requests[1].message["params"] == {"_meta": meta()}


@run_in_loop
async def test_headers_that_stay_refused_are_the_error_of_the_server() -> None:
    handler = make_strict_handler([])
    call = {"name": "add", "arguments": {"region": "eu"}, "_meta": meta()}
    async with serve(handler) as url, run_bridge(url) as client:
        assert (await client.request("tools/call", **call))["error"]["code"] == -32020
    assert len(handler.received("tools/call")) == 1


@covers("bridge-transports")
@run_in_loop
async def test_the_client_gets_no_tool_whose_headers_are_invalid() -> None:
    bad = {"name": "bad", "inputSchema": {"properties": {"a": {"type": "number", "x-mcp-header": "A"}}}}
    handler = make_strict_handler([TOOL, bad])
    async with serve(handler) as url, run_bridge(url) as client:
        result = (await client.request("tools/list", cursor="2", _meta=meta()))["result"]
        assert result["tools"] == [TOOL]
        # Earlier revisions have no such rule.
        assert (await client.request("tools/list", cursor="2"))["result"]["tools"] == [TOOL, bad]


@covers("bridge-bad-input")
@run_in_loop
async def test_numbers_that_are_not_json_do_not_reach_the_client() -> None:
    handler = McpHandler(session_id=None)

    async def call_tool(request: Request, reply: Reply) -> None:
        # Python writes NaN, and no other parser reads it.
        await reply.result(request, {"value": float("nan")})

    handler.methods["tools/call"] = call_tool
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        error = (await client.request("tools/call", name="x"))["error"]
        assert error["message"] == "demo sent a response that is not a JSON-RPC message."


@covers("bridge-bad-input")
@run_in_loop
async def test_each_request_of_a_batch_gets_its_response_or_its_error() -> None:
    async with serve(McpHandler()) as url, run_bridge(url) as client:
        await client.initialize()
        await client.write(
            b'[{"jsonrpc":"2.0","id":"a","method":"ping"},{"id":"b","method":7},7,'
            b'{"jsonrpc":"2.0","id":"c","method":"ping"},{"jsonrpc":"2.0","id":true,"method":"ping"}]\n'
        )
        answers = [await client.others.get() for _ in range(5)]
    by_id = {str(answer["id"]): answer for answer in answers}
    assert set(by_id) == {"a", "b", "c", "None"}
    assert by_id["b"]["error"]["code"] == -32600
    assert "result" in by_id["a"]
    assert "result" in by_id["c"]


def never_respond_to_initialized(handler: McpHandler) -> None:
    async def initialized(_: Request, reply: Reply) -> None:
        await reply.wait_for_disconnect()

    handler.methods["notifications/initialized"] = initialized


@covers("bridge-recovers")
@run_in_loop
async def test_calls_go_on_if_the_server_never_responds_to_initialized(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay, "_INITIALIZED_SECONDS", 0.05)
    handler = McpHandler()
    never_respond_to_initialized(handler)
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        # The server gets one `initialized`, however many the client sends.
        await client.notify("notifications/initialized")
        for _ in range(2):
            assert "result" in await client.request("ping")
    assert len(handler.received("notifications/initialized")) == 1


@run_in_loop
async def test_a_file_gets_the_response_of_a_server_that_opens_a_session_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay, "LAST_REQUESTS_SECONDS", 0.0)
    initialize: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
    initialized = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    handler = McpHandler()
    async with serve(handler) as url, run_bridge(url) as client:
        await client.write(b"\n".join(json.dumps(message).encode() for message in (initialize, initialized)))
        client.close_input()
        assert "result" in await client.others.get()


@covers("bridge-login")
@run_in_loop
async def test_a_call_that_waits_for_initialized_reports_that_a_login_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay, "PROGRESS_SECONDS", 0.01)
    handler = McpHandler()
    never_respond_to_initialized(handler)
    async with (
        serve(handler) as url,
        run_bridge(url, is_login_waiting=lambda: asyncio.sleep(0, result=True)) as client,
    ):
        await client.initialize()
        await client.start_request("tools/call", name="x", _meta={"progressToken": "t"})
        progress = await client.others.get()
        assert progress["params"]["message"] == "Waiting for a login."


@covers("bridge-recovers")
@run_in_loop
async def test_all_calls_go_on_at_once_if_the_server_never_responds_to_initialized(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handler, has_call, checks = McpHandler(), asyncio.Event(), 0
    never_respond_to_initialized(handler)

    async def is_login_waiting() -> bool:
        nonlocal checks
        checks += 1
        await has_call.wait()
        raise StoreBusy("Another process writes.")

    monkeypatch.setattr(relay, "_INITIALIZED_SECONDS", 0.05)
    async with serve(handler) as url, run_bridge(url, is_login_waiting=is_login_waiting) as client:
        await client.initialize()
        calls = [(await client.start_request("ping"))[1] for _ in range(5)]
        has_call.set()
        # The calls do not need to know whether a login waits.
        assert all("result" in response for response in await asyncio.gather(*calls))
    assert checks == 1


@covers("bridge-recovers")
@run_in_loop
async def test_a_response_of_the_client_does_not_wait_for_initialized() -> None:
    handler, has_response = McpHandler(), asyncio.Event()

    async def initialized(_: Request, reply: Reply) -> None:
        await has_response.wait()
        await reply.send(202)

    async def response(_: Request, reply: Reply) -> None:
        has_response.set()
        await reply.send(202)

    handler.methods |= {"notifications/initialized": initialized, "response": response}
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        await client.send({"id": "roots", "result": {"roots": []}})
        assert "result" in await client.request("ping")


@covers("bridge-bad-input")
@run_in_loop
async def test_requests_with_the_names_of_notifications_get_a_response() -> None:
    handler, is_first, may_respond = McpHandler(), True, asyncio.Event()

    async def initialized(request: Request, reply: Reply) -> None:
        nonlocal is_first
        if "id" in request.message:
            await reply.result(request, {})
            return
        assert is_first
        is_first = False
        await may_respond.wait()
        await reply.send(202)

    handler.methods["notifications/initialized"] = initialized
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        methods = "notifications/initialized", "notifications/cancelled"
        responses = [(await client.start_request(method))[1] for method in methods]
        may_respond.set()
        assert all("result" in response for response in await asyncio.gather(*responses))


class LoginDemanded(httpx2.Auth):
    """Refuses requests of some methods without a token, as a session without a login does."""

    requires_request_body = True

    def __init__(self, *methods: str, error: McpAuthError | None = None) -> None:
        self.methods = {*methods}
        self.refused: list[str] = []
        self._error = error or AuthorizationRequired("demo")

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        method = json.loads(request.content or b"{}").get("method")
        if method in self.methods:
            self.refused.append(method)
            raise self._error
        yield request


@covers("bridge-optional-login")
@run_in_loop
async def test_open_methods_need_no_login_if_the_server_demands_one_for_initialized() -> None:
    handler, auth = McpHandler(), LoginDemanded("notifications/initialized")
    async with serve(handler) as url, run_bridge(url, auth=auth) as client:
        await client.initialize()
        for _ in range(2):
            assert "result" in await client.request("tools/list")
        auth.methods.clear()
        responses = [(await client.start_request("ping"))[1] for _ in range(2)]
        assert all("result" in response for response in await asyncio.gather(*responses))
    methods = [request.rpc_method for request in handler.requests if request.method == "POST"]
    assert methods == ["initialize", "tools/list", "tools/list", "notifications/initialized", "ping", "ping"]


@covers("bridge-optional-login")
@run_in_loop
async def test_calls_after_the_login_go_on_if_the_server_never_responds_to_initialized(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handler, auth = McpHandler(), LoginDemanded("notifications/initialized", "ping")
    never_respond_to_initialized(handler)
    async with serve(handler) as url, run_bridge(url, auth=auth) as client:
        await client.initialize()
        assert "error" in await client.request("ping")
        auth.methods.clear()
        monkeypatch.setattr(relay, "_INITIALIZED_SECONDS", 0.05)
        assert "result" in await client.request("ping")


@covers("bridge-optional-login")
@run_in_loop
@pytest.mark.parametrize("is_sent_again", [False, True])
async def test_the_server_gets_one_initialized_after_a_refresh_failed(is_sent_again: bool) -> None:  # noqa: FBT001
    handler = McpHandler()
    auth = LoginDemanded("notifications/initialized", error=Unreachable("The server is down."))
    async with serve(handler) as url, run_bridge(url, auth=auth) as client:
        await client.initialize()
        assert "result" in await client.request("ping")
        auth.methods.clear()
        if is_sent_again:
            await client.notify("notifications/initialized")
        assert "result" in await client.request("ping")
    assert len(handler.received("notifications/initialized")) == 1


@covers("bridge-optional-login")
@run_in_loop
async def test_an_initialized_of_an_earlier_session_is_not_sent_in_the_next_one() -> None:
    handler, auth = McpHandler(), LoginDemanded("notifications/initialized")
    async with serve(handler) as url, run_bridge(url, auth=auth) as client:
        await client.initialize()
        assert "result" in await client.request("ping")
        auth.methods.clear()
        await client.initialize()
        assert "result" in await client.request("ping")
    assert len(handler.received("notifications/initialized")) == 1


@covers("bridge-bad-input")
@run_in_loop
async def test_a_client_that_sends_without_waiting_gets_errors_and_can_still_cancel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay, "MAX_OPEN_MESSAGES", 5)
    handler, called, closed = McpHandler(), asyncio.Semaphore(0), asyncio.Event()

    async def call_tool(_: Request, reply: Reply) -> None:
        called.release()
        await reply.wait_for_disconnect()
        closed.set()

    handler.methods["tools/call"] = call_tool
    async with serve(handler) as url, run_bridge(url) as client:
        await client.initialize()
        started = [await client.start_request("tools/call", name="x") for _ in range(8)]
        for _ in range(5):
            await called.acquire()
        refused = await asyncio.gather(*(response for _, response in started[5:]))
        assert {r["error"]["message"] for r in refused} == {
            "5 requests are open. Wait for responses, then try again."
        }
        await client.notify("notifications/cancelled", requestId=started[0][0])
        await closed.wait()
        # `true` is no id, although it equals 1 in Python.
        await client.notify("notifications/cancelled", requestId=True)
        pings = [await client.request("ping") for _ in range(20)]
        assert "result" in pings[-1]
        assert not any(response.done() for _, response in started[1:5])
