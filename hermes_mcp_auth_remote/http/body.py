"""An answer's body: read within the limit, unpacked within the limit."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterable, Callable

from hermes_mcp_auth_remote.errors import ResponseTooLarge, Unreachable
from hermes_mcp_auth_remote.oauth.wire import MAX_BODY_BYTES

# A part (a chunk, a packet) costs the same however short it is: so many may be, then 64 bytes on average.
MAX_SHORT_CHUNKS = 2048
MIN_CHUNK_BYTES = 64
# After so many, other tasks run.
_CHUNKS_PER_TURN = 64


async def read_body(
    chunks: AsyncIterable[bytes], host: str, step: str, on_chunk: Callable[[], object]
) -> bytes:
    """Read a body to its end; raises AnswerTooLarge beyond 1 MiB, or beyond 2048 parts of a few bytes.

    `note_part` is called at each part.
    """
    body, count = _Body(), 0
    async for part in chunks:
        on_chunk()
        body.data += part
        # While this waits for more, no variable shows what has come.
        del part
        count += 1
        if len(body.data) > MAX_BODY_BYTES:
            raise ResponseTooLarge(f"{host} answered the {step} with more than 1 MiB.")
        if count > MAX_SHORT_CHUNKS + len(body.data) // MIN_CHUNK_BYTES:
            raise ResponseTooLarge(f"{host} answered the {step} with too many parts of a few bytes.")
        if count % _CHUNKS_PER_TURN == 0:
            await asyncio.sleep(0)
    return bytes(body.data)


class _Body:
    """What was received so far; its `repr` shows nothing of that."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = bytearray()


def decompress_body(body: bytes, content_encoding: str | None, host: str) -> bytes:
    """Undo gzip or deflate, which some servers send unasked; raises Unreachable, AnswerTooLarge.

    `encoding` is the Content-Encoding. RFC 9110 section 8.4.1.
    """
    if (content_encoding or "identity").strip().lower() == "identity" or not body:
        return body
    try:
        # 32: gzip or deflate, whichever it is; anything else fails here.
        unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        plain = unpacking.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise Unreachable(f"{host} sent an answer that cannot be decompressed.") from None
    if len(plain) > MAX_BODY_BYTES:
        raise ResponseTooLarge(f"{host} sent an answer that unpacks to more than 1 MiB.")
    if not unpacking.eof:
        raise Unreachable(f"{host} sent a compressed answer that is cut off.")
    return plain
