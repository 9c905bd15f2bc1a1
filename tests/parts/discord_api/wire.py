"""Read HTTP requests and build HTTP responses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import BodyPartReader, web

from .entities import Json
from .form_errors import api_error, not_found
from .limits import ATTACHMENT_BYTES

HandlerResult = Json | list[Any] | tuple[int, Any] | None
Files = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request, with the parameters of its path."""

    path_parameters: dict[str, str]
    query: dict[str, str]
    body: Any
    files: Files


Handler = Callable[[ApiRequest], HandlerResult]


def require_object(body: Any) -> Json:
    if not isinstance(body, dict):
        raise api_error(50109)
    return body


async def read_request(request: web.Request) -> tuple[Any, Files]:
    """Return a request's JSON and its files; raise ApiError if the body is malformed."""
    if not request.can_read_body:
        return None, ()
    files: list[tuple[str, bytes]] = []
    text = ""
    if request.content_type == "multipart/form-data":
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise api_error(50109)
            content = bytes(await part.read())
            if part.name == "payload_json":
                text = content.decode()
            elif (part.name or "").startswith("files["):
                files.append((part.filename or "file", content))
    elif request.content_type == "application/json":
        text = await request.text()
    else:
        # The local Discord supports no other content type.
        raise api_error(50109)
    if sum(len(content) for _, content in files) > ATTACHMENT_BYTES:
        raise api_error(40005)
    try:
        return json.loads(text) if text else None, tuple(files)
    except ValueError:
        raise api_error(50109) from None


def build_response(status: int, document: Any, headers: dict[str, str]) -> web.Response:
    # Without Via, discord.py reads a 429 as a ban. Discord sends the content type without a charset.
    headers = {"Via": "1.1 google", **headers}
    if status == 204:
        return web.Response(status=204, headers=headers)
    body = json.dumps(document).encode()
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


async def serve_not_found(_: web.Request) -> web.Response:
    return build_response(404, not_found().body, {})
