"""A server whose URLs name the delay, in its own process: `python -m benchmarks.server`.

`/delay/50` responds after 50 ms if the request has the token, and with 401 if it does not. `/mcp` is an MCP
server: a tool call names the delay in milliseconds and the bytes of the response. The process ends at the
end of its standard input.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress

from starlette.types import Receive, Scope, Send

from benchmarks.measurement import ROOT

TOKEN = "an-access-token-of-a-usual-length-for-the-benchmarks"
_EXPECTED_AUTHORIZATION = f"Bearer {TOKEN}".encode()


@contextmanager
def run_server() -> Generator[str]:
    """Run the server until the block ends; yield its origin."""
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        origin = process.stdout.readline().strip()
        if not origin:
            raise RuntimeError("The benchmarks' server did not start.")
        try:
            yield origin
        finally:
            process.stdin.close()


def main() -> None:
    """Serve on a free port and print the origin."""
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    # asyncio does this only for sockets that name their protocol. A response in parts would take 40 ms more.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        _app, loop="asyncio", http="h11", ws="none", lifespan="off", log_config=None, access_log=False
    )
    config.backlog = 4096
    server = uvicorn.Server(config)

    async def serve() -> None:
        server_task = asyncio.create_task(server.serve(sockets=[listener]))
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = server.force_exit = True
        await server_task

    with suppress(KeyboardInterrupt):
        asyncio.run(serve())


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/mcp" and dict(scope["headers"]).get(b"authorization") == _EXPECTED_AUTHORIZATION:
        await _serve_mcp(scope, receive, send)
        return
    if dict(scope["headers"]).get(b"authorization") != _EXPECTED_AUTHORIZATION:
        status = 401
    else:
        status = 200
        milliseconds = int(scope["path"].rpartition("/")[2] or 0)
        if milliseconds:
            await asyncio.sleep(milliseconds / 1000)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


async def _serve_mcp(scope: Scope, receive: Receive, send: Send) -> None:
    body, has_more = b"", True
    while has_more and scope["method"] == "POST":
        event = await receive()
        body, has_more = body + event.get("body", b""), event.get("more_body", False)
    message = json.loads(body) if body else {}
    if "id" not in message:
        status = 202 if body else 405
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})
        return
    params = message.get("params", {})
    arguments = params.get("arguments", {})
    await asyncio.sleep(arguments.get("milliseconds", 0) / 1000)
    server = {"serverInfo": {"name": "bench", "version": "1"}, "capabilities": {"tools": {}}}
    result = {"protocolVersion": params["protocolVersion"], **server} if "protocolVersion" in params else {}
    if message["method"] == "tools/call":
        result = {"content": [{"type": "text", "text": "@"}]}
    response = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
    head, _, tail = response.partition(b"@")
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": head, "more_body": True})
    block = b"x" * 65_536
    for start in range(0, arguments.get("bytes", 0), len(block)):
        part = block[: arguments["bytes"] - start]
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": tail})


if __name__ == "__main__":
    main()
