"""Around both servers: every request is noted, every fault is played."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hermes_mcp_auth_remote.demo.behaviour import Fault, Gate, RecordedRequest, Step, step_of
from hermes_mcp_auth_remote.threads import run_file_work

MAX_BODY_BYTES = 4 * 1024 * 1024
HANG_UP_KEY = "hermes_mcp_auth_remote.hang_up"
"""In the ASGI scope: a function that cuts the connection, put there by `serving`."""


Serve = Callable[[Send], Awaitable[None]]


class RequestRecord:
    """What came in, and which faults wait for what comes next. Safe to use from any thread."""

    def __init__(self) -> None:
        self.requests: list[RecordedRequest] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        # Per step: faults with the number of times left, None for always.
        self._faults: dict[Step, list[tuple[Fault, int | None]]] = {}

    def count_requests(self, step: Step) -> int:
        """Count the requests of one step so far."""
        return sum(request.step == step for request in list(self.requests))

    def add_fault(self, step: Step, fault: Fault, times: int | None = 1) -> None:
        """Play a fault for the next `times` requests of a step, None for all; faults queue up."""
        with self._lock:
            self._faults.setdefault(step, []).append((fault, times))

    def hold(self, step: Step, *, after_processing: bool = False) -> Gate:
        """Hold every request of a step until the gate that comes back is opened."""
        gate = Gate()
        self.add_fault(step, Fault(gate=gate, after_processing=after_processing), None)
        return gate

    def clear_faults(self) -> None:
        """Forget all faults, and open every gate."""
        with self._lock:
            faults, self._faults = self._faults, {}
        for waiting in faults.values():
            for fault, _ in waiting:
                if fault.gate is not None:
                    fault.gate.open()

    def take_fault(self, step: Step) -> Fault | None:
        """Take the fault that the next request of a step gets."""
        with self._lock:
            waiting = self._faults.get(step)
            if not waiting:
                return None
            fault, times = waiting[0]
            if times is not None:
                waiting[0] = (fault, times - 1)
                if times <= 1:
                    waiting.pop(0)
            return fault


class RecordingMiddleware:
    """The ASGI middleware that does it."""

    def __init__(self, app: ASGIApp, record: RequestRecord) -> None:
        self._app = app
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await _read_body(receive)
        if body is None:
            await Response("Too large.", 413)(scope, receive, send)
            return
        query = scope["query_string"].decode("latin-1")
        target = scope["path"] + (f"?{query}" if query else "")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        noted = RecordedRequest(
            step_of(scope["method"], scope["path"], body), scope["method"], target, headers, body
        )
        self._record.requests.append(noted)
        fault = self._record.take_fault(noted.step)
        scope = {**scope, "body": body}
        serve = partial(self._app, scope, _replay(body, receive))
        if fault is None:
            await serve(_recording_send(noted, send))
        else:
            await self._play_fault(fault, noted, scope, serve, send)

    async def _play_fault(
        self, fault: Fault, recorded: RecordedRequest, scope: Scope, serve: Serve, send: Send
    ) -> None:
        proper: list[Message] = []
        if fault.after_processing:
            await _collect_messages(serve, proper)
        await self._delay(fault)
        if fault.hang_up:
            cast("Callable[[], None]", scope[HANG_UP_KEY])()
            return
        if fault.status is None and not fault.body:
            if not fault.after_processing:
                await _collect_messages(serve, proper)
            for message in proper:
                await _recording_send(recorded, send)(message)
            return
        answer = Response(fault.body, fault.status or 200, dict(fault.headers))
        await answer(scope, _receive_disconnect, _recording_send(recorded, send))

    async def _delay(self, fault: Fault) -> None:
        # Both waits end when the server does, so that no thread outlives it.
        if fault.delay_seconds:
            await run_file_work(self._record.closing.wait, fault.delay_seconds)
        if fault.gate is not None:
            fault.gate.arrived.set()
            await run_file_work(fault.gate.opened.wait)


async def _collect_messages(serve: Serve, messages: list[Message]) -> None:
    async def append_message(message: Message) -> None:
        messages.append(message)

    await serve(append_message)


async def _read_body(receive: Receive) -> bytes | None:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again


def _recording_send(recorded: RecordedRequest, send: Send) -> Send:
    async def send_and_record(message: Message) -> None:
        if message["type"] == "http.response.start":
            recorded.status = int(message["status"])
        await send(message)

    return send_and_record


async def _receive_disconnect() -> Message:
    return {"type": "http.disconnect"}
