"""Raw calls of the Bot API endpoint, without a library that changes the responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from tests.parts.bot_api import BotApi


class Clock:
    """A clock that a test sets."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class MethodCaller:
    def __init__(self, api: BotApi, http: httpx.Client) -> None:
        self.api = api
        self.http = http

    def __call__(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call a method with JSON parameters and return the whole response."""
        response = self.http.post(f"{self.api.base_url}{self.api.token}/{method}", json=parameters)
        document: dict[str, Any] = response.json()
        assert response.status_code == document.get("error_code", 200)
        return document

    def expect_error(self, method: str, **parameters: object) -> str:
        """Call a method that must fail; return its description without "Bad Request: "."""
        response = self(method, **parameters)
        assert response["ok"] is False, response
        return str(response["description"]).removeprefix("Bad Request: ")


def keyboard(*rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    return {"inline_keyboard": list(rows)}
