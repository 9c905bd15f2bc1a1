"""Read HTTP requests and build HTTP responses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import BodyPartReader, web

from .form import not_found, refused
from .limits import ATTACHMENT_BYTES
from .world import Json

Answer = Json | list[Any] | tuple[int, Any] | None
Files = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, with the parameters of its path."""

    at: dict[str, str]
    query: dict[str, str]
    body: Any
    files: Files


Handler = Callable[[Asked], Answer]


def an_object(body: Any) -> Json:
    if not isinstance(body, dict):
        raise refused(50109)
    return body


async def read(request: web.Request) -> tuple[Any, Files]:
    """Return a request's JSON and its files; raise ApiError if the body is malformed."""
    if not request.can_read_body:
        return None, ()
    files: list[tuple[str, bytes]] = []
    text = ""
    if request.content_type == "multipart/form-data":
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise refused(50109)
            content = bytes(await part.read())
            if part.name == "payload_json":
                text = content.decode()
            elif (part.name or "").startswith("files["):
                files.append((part.filename or "file", content))
    elif request.content_type == "application/json":
        text = await request.text()
    else:
        # The local Discord supports no other content type.
        raise refused(50109)
    if sum(len(content) for _, content in files) > ATTACHMENT_BYTES:
        raise refused(40005)
    try:
        return json.loads(text) if text else None, tuple(files)
    except ValueError:
        raise refused(50109) from None


def response(status: int, answer: Any, headers: dict[str, str]) -> web.Response:
    # Without Via, discord.py reads a 429 as a ban. Discord sends the content type without a charset.
    headers = {"Via": "1.1 google", **headers}
    if status == 204:
        return web.Response(status=204, headers=headers)
    body = json.dumps(answer).encode()
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


async def unknown(_: web.Request) -> web.Response:
    return response(404, not_found().body, {})
