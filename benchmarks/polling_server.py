"""A token endpoint whose logins stay pending, in its own process: `python -m benchmarks.polling_server`.

The endpoint sends minimal responses and records when each device code is polled. `/begin` resets the records,
`/report` returns them as JSON. The process ends at the end of its standard input.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress

from benchmarks.measurement import ROOT

_PENDING_BODY = b'{"error":"authorization_pending"}'
_CODE_PARAMETER = b"device_code="


@contextmanager
def run_server() -> Generator[str]:
    """Run the server until the block ends; yield its origin."""
    command = [sys.executable, "-m", "benchmarks.polling_server"]
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


class PollTimes:
    """The last poll of each code, and the gaps between polls."""

    def __init__(self) -> None:
        self.last_poll_at: dict[bytes, float] = {}
        self.gap_seconds: list[float] = []

    def record_poll(self, code: bytes) -> None:
        now = time.monotonic()
        previous_poll_at = self.last_poll_at.get(code)
        self.last_poll_at[code] = now
        if previous_poll_at is not None:
            self.gap_seconds.append(now - previous_poll_at)

    def report(self) -> bytes:
        return json.dumps({"codes": len(self.last_poll_at), "gaps": sorted(self.gap_seconds)}).encode()


class _Connection(asyncio.Protocol):
    def __init__(self, poll_times: PollTimes) -> None:
        self._poll_times = poll_times
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(rest) < length:
                return
            body, self._data = rest[:length], rest[length:]
            self._respond(head.split(b" ", 2)[1], body)

    def _respond(self, path: bytes, body: bytes) -> None:
        status, response_body = b"200 OK", b"{}"
        if path == b"/begin":
            self._poll_times.gap_seconds.clear()
        elif path == b"/report":
            response_body = self._poll_times.report()
        else:
            self._poll_times.record_poll(body.partition(_CODE_PARAMETER)[2].partition(b"&")[0])
            status, response_body = b"400 Bad Request", _PENDING_BODY
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % (status, len(response_body)) + response_body)


async def _serve() -> None:
    poll_times = PollTimes()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(poll_times), "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve())
