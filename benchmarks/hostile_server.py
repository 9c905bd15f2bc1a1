"""A hostile server in its own process: `python -m benchmarks.hostile_server`.

The path selects the attack: `/endless` sends a 401 without end, `/hints` sends 103 responses without end,
`/chunks` sends a document in chunks of one byte, and `/wide` sends a document with hosts that grow under
NFKC. The process ends at the end of its standard input.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress

from benchmarks.measurement import ROOT

_CHUNKED_HEADER = b"transfer-encoding: chunked\r\n\r\n"
_ENDLESS_HEAD = b"HTTP/1.1 401 No\r\nwww-authenticate: Bearer\r\n" + _CHUNKED_HEADER
_BODY_CHUNK = b"8000\r\n%b\r\n" % (b"x" * 0x8000)
_EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000


@contextmanager
def run_server() -> Generator[str]:
    """Run the server until the block ends; yield its origin."""
    command = [sys.executable, "-m", "benchmarks.hostile_server"]
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


def wide_metadata(origin: str) -> bytes:
    """Return a megabyte of metadata: 41 issuers of 8000 letters. NFKC turns each letter into 18."""
    issuers = [f"https://{chr(0xFDFA) * 8000}.example"] * 41
    document = {"resource": f"{origin}/wide", "authorization_servers": issuers}
    return json.dumps(document, ensure_ascii=False).encode()


def _json_response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: str) -> None:
    with suppress(OSError, asyncio.IncompleteReadError):
        while True:
            target = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
            if b"wide" in target:
                writer.write(_json_response(wide_metadata(origin)))
            elif b"chunks" in target:
                parts = b"".join(b"1\r\n%c\r\n" % byte for byte in wide_metadata(origin)[:200_000])
                writer.write(b"HTTP/1.1 200 OK\r\n" + _CHUNKED_HEADER + parts + b"0\r\n\r\n")
            else:
                is_hint = b"hints" in target
                writer.write(b"" if is_hint else _ENDLESS_HEAD)
                while not writer.is_closing():
                    writer.write(_EARLY_HINTS if is_hint else _BODY_CHUNK)
                    await writer.drain()
    writer.close()


def main() -> None:
    """Serve on a free port and print the origin."""

    async def serve() -> None:
        server = await asyncio.start_server(lambda r, w: _serve(r, w, origin), "127.0.0.1", 0)
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        print(origin, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        server.close()

    with suppress(KeyboardInterrupt):
        asyncio.run(serve())


if __name__ == "__main__":
    main()
