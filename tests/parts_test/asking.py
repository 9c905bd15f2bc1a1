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


class Asking:
    def __init__(self, api: BotApi, http: httpx.Client) -> None:
        self.api = api
        self.http = http

    def __call__(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call a method with JSON parameters and return the whole response."""
        answer = self.http.post(f"{self.api.base_url}{self.api.token}/{method}", json=parameters)
        document: dict[str, Any] = answer.json()
        assert answer.status_code == document.get("error_code", 200)
        return document

    def refused(self, method: str, **parameters: object) -> str:
        """Call a method that must fail; return its description without "Bad Request: "."""
        answer = self(method, **parameters)
        assert answer["ok"] is False, answer
        return str(answer["description"]).removeprefix("Bad Request: ")


def keyboard(*rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    return {"inline_keyboard": list(rows)}
