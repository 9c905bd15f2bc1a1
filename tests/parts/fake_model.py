"""A fake language model for an agent: an OpenAI-compatible endpoint on loopback.

    with serve_fake_model() as model:
        model.url                                   # http://127.0.0.1:PORT/v1
        model.queue_steps(ToolCall("mcp__notes__ping"), "The server answers.")   # a tool call, then a text
        hold = model.hold()                         # the next response waits until hold.release()
        model.has_received("some text")             # True if a request body contained the text

Each request of a turn takes the next step of the script; without a next step, the response is
`DEFAULT_REPLY`. A request without tools (for example for the chat's title) takes no step and gets
`SIDE_REPLY`.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

MODEL_NAME = "stand-in"
DEFAULT_REPLY = "Understood."
SIDE_REPLY = "A title"
IDLE_SECONDS = 30.0
QUIET_SECONDS = 0.1
HOLD_SECONDS = 120.0  # a limit, so that a test ends even if it does not call `release`


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A step of the script: the model calls a tool."""

    tool: str
    arguments: Mapping[str, object] = field(default_factory=dict[str, object])


Step = str | ToolCall | Sequence[ToolCall]


@dataclass(slots=True)
class Hold:
    """A response that waits. `reached` is set when its request arrives."""

    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        self.released.set()


@dataclass(slots=True)
class FakeModel:
    """The endpoint, its script and its record. `bodies` are the request bodies since `reset`."""

    url: str
    bodies: list[str] = field(default_factory=list[str])
    earlier_bodies: list[str] = field(default_factory=list[str])
    _steps: deque[Step] = field(default_factory=deque[Step])
    _holds: deque[Hold] = field(default_factory=deque[Hold])
    _all_holds: list[Hold] = field(default_factory=list[Hold])
    _open_turns: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def queue_steps(self, *steps: Step) -> None:
        """Append steps to the script. A text ends the turn; ToolCalls continue it."""
        self._steps.extend(steps)

    def hold(self) -> Hold:
        """Hold a response until `release`: the next one that no earlier call holds."""
        hold = Hold()
        self._holds.append(hold)
        self._all_holds.append(hold)
        return hold

    def has_received(self, text: str) -> bool:
        """Return True if a request body contained the text, raw or JSON-escaped."""
        return _contains(text, list(self.bodies))

    def has_ever_received(self, text: str) -> bool:
        """Return True if any request body contained the text, including those before `reset`."""
        return self.has_received(text) or _contains(text, list(self.earlier_bodies))

    @property
    def turns(self) -> list[dict[str, Any]]:
        """Return the decoded requests of turns: `messages`, `tools`, ..."""
        decoded = [cast("dict[str, Any]", json.loads(body)) for body in list(self.bodies)]
        return [body for body in decoded if body.get("tools")]

    def offered_tools(self) -> set[str]:
        """Return the names of the tools that the latest turn offered."""
        return {tool["function"]["name"] for tool in self.turns[-1]["tools"]} if self.turns else set()

    def tool_results(self) -> list[str]:
        """Return the tool results in the latest turn."""
        messages = self.turns[-1]["messages"] if self.turns else []
        return [_message_text(message["content"]) for message in messages if message["role"] == "tool"]

    def take_step(self, body: str) -> Step:
        """Record a request and return its step. If the response is held, wait until its release."""
        with self._lock:
            self.bodies.append(body)
            if not json.loads(body).get("tools"):
                return SIDE_REPLY
            hold = self._holds.popleft() if self._holds else None
            self._open_turns += 1
        try:
            if hold:
                hold.reached.set()
                hold.released.wait(HOLD_SECONDS)
            with self._lock:
                return self._steps.popleft() if self._steps else DEFAULT_REPLY
        finally:
            with self._lock:
                self._open_turns -= 1

    def release_all(self) -> None:
        for hold in list(self._all_holds):
            hold.release()

    def reset(self) -> None:
        """Wait for open turns, then clear script, holds and record for the next test."""
        self.release_all()
        self.wait_until_idle()
        with self._lock:
            self._steps.clear()
            self._holds.clear()
            self._all_holds.clear()
            self.earlier_bodies += self.bodies
            self.bodies.clear()

    def wait_until_idle(self, seconds: float = IDLE_SECONDS) -> None:
        """Wait until no turn is open and no request has come for QUIET_SECONDS."""
        deadline = time.monotonic() + seconds
        previous_count = -1
        while time.monotonic() < deadline:
            with self._lock:
                is_quiet, previous_count = (
                    not self._open_turns and len(self.bodies) == previous_count,
                    len(self.bodies),
                )
            if is_quiet:
                return
            time.sleep(QUIET_SECONDS)
        raise AssertionError("The agent did not stop calling the model.")


def _contains(text: str, bodies: Sequence[str]) -> bool:
    return any(spelling in body for body in bodies for spelling in (text, json.dumps(text)[1:-1]))


def _message_text(content: object) -> str:
    """Return the text of a message: a string or a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in cast("list[dict[str, object]]", content))


_serials = itertools.count(1)


def _message_json(step: Step) -> dict[str, object]:
    if isinstance(step, str):
        return {"role": "assistant", "content": step}
    calls = [step] if isinstance(step, ToolCall) else step
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": f"call_{next(_serials)}",
                "type": "function",
                "function": {"name": call.tool, "arguments": json.dumps(dict(call.arguments))},
            }
            for call in calls
        ],
    }


def _completion_json(step: Step) -> dict[str, object]:
    reason = "stop" if isinstance(step, str) else "tool_calls"
    choice = {"index": 0, "message": _message_json(step), "finish_reason": reason}
    return _envelope("chat.completion", choice) | {"usage": _USAGE}


def _chunks(step: Step) -> Iterator[dict[str, object]]:
    """Yield the chunks of a streamed response: message, finish reason, usage."""
    message = _message_json(step)
    for index, call in enumerate(cast("list[dict[str, object]]", message.get("tool_calls", []))):
        call["index"] = index
    reason = "stop" if isinstance(step, str) else "tool_calls"
    yield _envelope("chat.completion.chunk", {"index": 0, "delta": message, "finish_reason": None})
    yield _envelope("chat.completion.chunk", {"index": 0, "delta": {}, "finish_reason": reason})
    yield _envelope("chat.completion.chunk") | {"usage": _USAGE}


_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def _envelope(kind: str, *choices: dict[str, object]) -> dict[str, object]:
    return {
        "id": f"chatcmpl-{next(_serials)}",
        "object": kind,
        "created": 1,
        "model": MODEL_NAME,
        "choices": list(choices),
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Suppress the request log."""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/v1/models":
            self._send_json({"error": {"message": "Not found", "code": 404}}, 404)
            return
        model_info = {
            "id": MODEL_NAME,
            "object": "model",
            "created": 1,
            "owned_by": "tests",
            "context_length": 200000,
        }
        self._send_json({"object": "list", "data": [model_info]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        if self.path != "/v1/chat/completions":
            self._send_json({"error": {"message": "Not found", "code": 404}}, 404)
            return
        step = cast("_Server", self.server).model.take_step(body)
        # An interrupted agent closes the connection.
        try:
            if json.loads(body).get("stream"):
                self._send_stream(step)
            else:
                self._send_json(_completion_json(step))
        except ConnectionError:
            self.close_connection = True

    def _send_stream(self, step: Step) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for chunk in _chunks(step):
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _send_json(self, document: dict[str, object], status: int = 200) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, model: FakeModel) -> None:
        self.model = model
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Suppress tracebacks of closed connections."""


@contextmanager
def serve_fake_model() -> Iterator[FakeModel]:
    """Run the endpoint until the block ends."""
    stand_in = FakeModel("")
    server = _Server(stand_in)
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        stand_in.release_all()
        server.shutdown()
        server.server_close()
        thread.join()
