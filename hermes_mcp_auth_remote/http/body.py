"""Read and decompress a response body within size limits."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterable, Callable

from hermes_mcp_auth_remote.errors import ResponseTooLarge, Unreachable
from hermes_mcp_auth_remote.oauth.wire import MAX_BODY_BYTES

# The cost of a chunk does not depend on its length. After this many chunks, the average must be 64 bytes.
MAX_SHORT_CHUNKS = 2048
MIN_CHUNK_BYTES = 64
# Let other tasks run after this many chunks.
_CHUNKS_PER_TURN = 64


async def read_body(
    chunks: AsyncIterable[bytes], host: str, step: str, on_chunk: Callable[[], object]
) -> bytes:
    """Read a body to its end and call `on_chunk` for each chunk.

    Raises ResponseTooLarge beyond 1 MiB, or beyond 2048 chunks of a few bytes.
    """
    body, count = _Body(), 0
    async for chunk in chunks:
        on_chunk()
        body.data += chunk
        # Keep the content out of tracebacks that show local variables.
        del chunk
        count += 1
        if len(body.data) > MAX_BODY_BYTES:
            raise ResponseTooLarge(f"{host} responded to the {step} with more than 1 MiB.")
        if count > MAX_SHORT_CHUNKS + len(body.data) // MIN_CHUNK_BYTES:
            raise ResponseTooLarge(f"{host} responded to the {step} with too many parts of a few bytes.")
        if count % _CHUNKS_PER_TURN == 0:
            await asyncio.sleep(0)
    return bytes(body.data)


class _Body:
    """The bytes received so far; its `repr` does not show them."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = bytearray()


def decompress_body(body: bytes, content_encoding: str | None, host: str) -> bytes:
    """Decompress gzip or deflate, which some servers send unasked. RFC 9110 section 8.4.1.

    `content_encoding` is the Content-Encoding header. Raises Unreachable, ResponseTooLarge.
    """
    if (content_encoding or "identity").strip().lower() == "identity" or not body:
        return body
    try:
        # 32: detect gzip or deflate. Other encodings raise zlib.error.
        decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        decompressed = decompressor.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise Unreachable(f"{host} sent a response that cannot be decompressed.") from None
    if len(decompressed) > MAX_BODY_BYTES:
        raise ResponseTooLarge(f"{host} sent a response of more than 1 MiB when decompressed.")
    if not decompressor.eof:
        raise Unreachable(f"{host} sent a compressed response that is cut off.")
    return decompressed
