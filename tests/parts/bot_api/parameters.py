"""The parameters of a call: texts (as in the real server) and uploaded files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from aiohttp import web

from tests.parts.bot_api.values import Json, bad_request

BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a multipart request."""

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Typed access to the parameters of a call; a value of a wrong type raises ApiError."""

    values: Mapping[str, str]
    uploads: Mapping[str, Upload] = field(default_factory=dict[str, Upload])

    def text(self, name: str) -> str:
        return self.values.get(name, "")

    def integer(self, name: str, default: int = 0) -> int:
        """Read a number; raise ApiError if it is invalid.

        The real server uses a default instead, but that would hide a bot's bugs from a test.
        """
        value = self.values.get(name, "")
        if not value:
            return default
        if not re.fullmatch(r"-?\d+", value):
            raise bad_request(f'parameter "{name}" must be of type Number')
        return int(value)

    def boolean(self, name: str) -> bool:
        value = self.values.get(name, "").lower()
        if value not in BOOLEANS:
            raise bad_request(f'parameter "{name}" must be of type Boolean')
        return BOOLEANS[value]

    def json(self, name: str) -> object:
        """Read a JSON value; None if there is none."""
        value = self.values.get(name, "")
        if not value:
            return None
        try:
            return cast("object", json.loads(value))
        except ValueError:
            raise bad_request(f"can't parse {name} JSON object") from None

    def json_object(self, name: str) -> Json:
        """Read a JSON object; an empty one if there is none."""
        value = self.json(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise bad_request(f'parameter "{name}" must be of type Object')
        return cast("Json", value)

    def json_array(self, name: str) -> list[object] | None:
        value = self.json(name)
        if value is not None and not isinstance(value, list):
            raise bad_request(f'parameter "{name}" must be of type Array')
        return value


async def read_parameters(request: web.Request) -> Parameters:
    """Read query and body (form, multipart form or JSON); raise ApiError."""
    values = dict(request.query)
    uploads: dict[str, Upload] = {}
    if request.content_type == "application/json":
        values |= _from_json(await request.read())
    elif request.content_type in {"application/x-www-form-urlencoded", "multipart/form-data"}:
        for name, value in (await request.post()).items():
            if isinstance(value, web.FileField):
                uploads[name] = Upload(value.filename, value.file.read())
                value.file.close()
            else:
                values[name] = value if isinstance(value, str) else bytes(value).decode()
    return Parameters(values, uploads)


def _from_json(body: bytes) -> dict[str, str]:
    if not body.strip():
        return {}
    try:
        document = json.loads(body)
    except ValueError:
        raise bad_request("can't parse request JSON object") from None
    if not isinstance(document, dict):
        raise bad_request("request must be a JSON object")
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in document.items()
        if value is not None
    }
