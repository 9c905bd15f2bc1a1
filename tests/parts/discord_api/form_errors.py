"""Error responses of Discord: an error code, or "Invalid Form Body" with the path of every error."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

Path = tuple[str | int, ...]

# https://docs.discord.com/developers/topics/opcodes-and-status-codes#json
ERROR_RESPONSES = {
    0: (401, "401: Unauthorized"),
    10002: (404, "Unknown Application"),
    10003: (404, "Unknown Channel"),
    10004: (404, "Unknown Guild"),
    10007: (404, "Unknown Member"),
    10008: (404, "Unknown Message"),
    10013: (404, "Unknown User"),
    10015: (404, "Unknown Webhook"),
    10062: (404, "Unknown interaction"),
    10063: (404, "Unknown application command"),
    30032: (400, "Maximum number of application commands reached (100)"),
    40005: (413, "Request entity too large"),
    40060: (400, "Interaction has already been acknowledged."),
    50001: (403, "Missing Access"),
    50003: (403, "Cannot execute action on a DM channel"),
    50005: (403, "Cannot edit a message authored by another user"),
    50006: (400, "Cannot send an empty message"),
    50007: (403, "Cannot send messages to this user"),
    50013: (403, "Missing Permissions"),
    50021: (403, "Cannot execute action on a system message"),
    50027: (401, "Invalid Webhook Token"),
    50109: (400, "The request body contains invalid JSON."),
}


class ApiError(Exception):
    """An error response: `status` and its JSON body."""

    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status} {body.get('code')} {body.get('message')}")
        self.status = status
        self.body = body
        self.headers = headers or {}


def api_error(code: int) -> ApiError:
    """Return the error for one of ERROR_RESPONSES; raise KeyError for another code."""
    status, message = ERROR_RESPONSES[code]
    return ApiError(status, {"message": message, "code": code})


def not_found() -> ApiError:
    """Return the error for a path that does not exist."""
    return ApiError(404, {"message": "404: Not Found", "code": 0})


class FormErrors:
    """Collects the errors of one request body. One response reports them all, nested like the body."""

    def __init__(self) -> None:
        self._errors: dict[str, Any] = {}

    def add(self, path: Path, code: str, message: str) -> None:
        node = self._errors
        for step in path:
            node = node.setdefault(str(step), {})
        node.setdefault("_errors", []).append({"code": code, "message": message})

    def raise_errors(self) -> None:
        """Raise ApiError if any error was added."""
        if self._errors:
            raise ApiError(400, {"message": "Invalid Form Body", "code": 50035, "errors": self._errors})

    def check_text(self, path: Path, value: object, low: int, high: int, *, required: bool = False) -> bool:
        """Check a string of `low` to `high` characters. It may be absent unless it is `required`."""
        if value is None:
            if required:
                self.add(path, "BASE_TYPE_REQUIRED", "This field is required")
            return False
        if not isinstance(value, str):
            self.add(path, "STRING_TYPE_CONVERT", f'Could not interpret "{type(value).__name__}" as string.')
            return False
        if not value and required:
            self.add(path, "BASE_TYPE_REQUIRED", "This field is required")
        elif low and not low <= len(value) <= high:
            self.add(path, "BASE_TYPE_BAD_LENGTH", f"Must be between {low} and {high} in length.")
        elif len(value) > high:
            self.add(path, "BASE_TYPE_MAX_LENGTH", f"Must be {high} or fewer in length.")
        else:
            return True
        return False

    def check_list(self, path: Path, value: object, low: int, high: int) -> list[Any]:
        """Check a list of `low` to `high` members; return them, even if there are too many."""
        if not isinstance(value, list):
            self.add(path, "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
            return []
        if len(value) > high and not low:
            self.add(path, "BASE_TYPE_MAX_LENGTH", f"Must be {high} or fewer in length.")
        elif not low <= len(value) <= high:
            self.add(path, "BASE_TYPE_BAD_LENGTH", f"Must be between {low} and {high} in length.")
        return value

    def check_choice(self, path: Path, value: object, allowed: tuple[object, ...]) -> bool:
        if value in allowed:
            return True
        listed = ", ".join(map(str, allowed))
        self.add(path, "BASE_TYPE_CHOICES", f"Value must be one of {{{listed}}}.")
        return False

    def check_url(self, path: Path, value: object, high: int, schemes: tuple[str, ...]) -> None:
        """Check a URL of at most `high` characters with one of the schemes."""
        if not self.check_text(path, value, 0, high, required=True) or not isinstance(value, str):
            return
        parts = urlsplit(value)
        if parts.scheme not in schemes:
            self.add(path, "URL_TYPE_INVALID_SCHEME", f'Scheme "{parts.scheme}" is not one of {schemes}.')
        elif not parts.netloc or re.search(r"\s", value):
            self.add(path, "URL_TYPE_INVALID_URL", "Not a well formed URL.")
