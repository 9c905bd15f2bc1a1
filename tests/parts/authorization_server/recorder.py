"""ASGI middleware that records every request and plays faults."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hermes_mcp_auth_remote.demo.body_limit import replay_body
from hermes_mcp_auth_remote.threads import run_file_work
from tests.parts.authorization_server.faults import Fault, Gate, RecordedRequest, Step, step_of

Serve = Callable[[Send], Awaitable[None]]
HangUp = Callable[[tuple[str, int]], None]
"""Abort the connection of a client (host and port) without a response."""


class RequestRecord:
    """The recorded requests and the queued faults. Safe to use from any thread."""

    def __init__(self) -> None:
        self.requests: list[RecordedRequest] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        # For each step, its faults with the number of remaining requests; None: all requests.
        self._faults: dict[Step, list[tuple[Fault, int | None]]] = {}

    def count_requests(self, step: Step) -> int:
        """Count the requests of one step so far."""
        return sum(request.step == step for request in list(self.requests))

    def add_fault(self, step: Step, fault: Fault, times: int | None = 1) -> None:
        """Queue a fault for the next `times` requests of a step; if None, for all."""
        with self._lock:
            self._faults.setdefault(step, []).append((fault, times))

    def hold(self, step: Step, *, after_processing: bool = False) -> Gate:
        """Hold every request of a step until the caller opens the returned gate."""
        gate = Gate()
        self.add_fault(step, Fault(gate=gate, after_processing=after_processing), None)
        return gate

    def clear_faults(self) -> None:
        """Remove all faults and open all gates."""
        with self._lock:
            faults, self._faults = self._faults, {}
        for queue in faults.values():
            for fault, _ in queue:
                if fault.gate is not None:
                    fault.gate.open()

    def take_fault(self, step: Step) -> Fault | None:
        """Return the fault for the next request of a step, and remove it if it is used up."""
        with self._lock:
            queue = self._faults.get(step)
            if not queue:
                return None
            fault, times = queue[0]
            if times is not None:
                queue[0] = (fault, times - 1)
                if times <= 1:
                    queue.pop(0)
            return fault


class RecordingMiddleware:
    """ASGI middleware that records requests in a `RequestRecord` and plays its faults."""

    def __init__(self, app: ASGIApp, record: RequestRecord, hang_up: HangUp) -> None:
        self._app = app
        self._record = record
        self._hang_up = hang_up

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Record and serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await Request(scope, receive).body()
        query = scope["query_string"].decode("latin-1")
        target = scope["path"] + (f"?{query}" if query else "")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        recorded = RecordedRequest(
            step_of(scope["method"], scope["path"], body), scope["method"], target, headers, body
        )
        self._record.requests.append(recorded)
        fault = self._record.take_fault(recorded.step)
        scope = {**scope, "body": body}
        serve = partial(self._app, scope, replay_body(body, receive))
        if fault is None:
            await serve(_recording_send(recorded, send))
        else:
            await self._play_fault(fault, recorded, scope, serve, send)

    async def _play_fault(
        self, fault: Fault, recorded: RecordedRequest, scope: Scope, serve: Serve, send: Send
    ) -> None:
        messages: list[Message] = []
        if fault.after_processing:
            await _collect_messages(serve, messages)
        await self._delay(fault)
        if fault.hang_up:
            self._hang_up(scope["client"])
            return
        if fault.status is None and not fault.body:
            if not fault.after_processing:
                await _collect_messages(serve, messages)
            for message in messages:
                await _recording_send(recorded, send)(message)
            return
        response = Response(fault.body, fault.status or 200, dict(fault.headers))
        await response(scope, _receive_disconnect, _recording_send(recorded, send))

    async def _delay(self, fault: Fault) -> None:
        # Both waits end when the server stops, so that no thread outlives the server.
        if fault.delay_seconds:
            await run_file_work(self._record.closing.wait, fault.delay_seconds)
        if fault.gate is not None:
            fault.gate.arrived.set()
            await run_file_work(fault.gate.opened.wait)


async def _collect_messages(serve: Serve, messages: list[Message]) -> None:
    async def append_message(message: Message) -> None:
        messages.append(message)

    await serve(append_message)


def _recording_send(recorded: RecordedRequest, send: Send) -> Send:
    async def send_and_record(message: Message) -> None:
        if message["type"] == "http.response.start":
            recorded.status = int(message["status"])
        await send(message)

    return send_and_record


async def _receive_disconnect() -> Message:
    return {"type": "http.disconnect"}
