"""An answer's body: read within the limit, unpacked within the limit."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable

from hermes_mcp_auth_remote.errors import AnswerTooLarge, Unreachable
from hermes_mcp_auth_remote.oauth.wire import MAX_BODY_BYTES


async def read_body(parts: AsyncIterable[bytes], host: str, step: str) -> bytes:
    """Read a body to its end; raises AnswerTooLarge beyond 1 MiB."""
    body = bytearray()
    async for part in parts:
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise AnswerTooLarge(f"{host} answered the {step} with more than 1 MiB.")
    return bytes(body)


def decoded(body: bytes, encoding: str | None, host: str) -> bytes:
    """Undo gzip or deflate, which some servers send unasked; raises Unreachable, AnswerTooLarge.

    `encoding` is the Content-Encoding. RFC 9110 section 8.4.1.
    """
    if (encoding or "identity").strip().lower() == "identity" or not body:
        return body
    try:
        # 32: gzip or deflate, whichever it is; anything else fails here.
        unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        plain = unpacking.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise Unreachable(f"{host} sent an answer that cannot be decompressed.") from None
    if len(plain) > MAX_BODY_BYTES:
        raise AnswerTooLarge(f"{host} sent an answer that unpacks to more than 1 MiB.")
    if not unpacking.eof:
        raise Unreachable(f"{host} sent a compressed answer that is cut off.")
    return plain
