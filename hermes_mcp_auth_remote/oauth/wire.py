"""Request, Response and Exchange, and bounded reading of JSON and form bodies."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeGuard, TypeVar, cast
from urllib.parse import parse_qsl, quote_plus, urlencode

from hermes_mcp_auth_remote.errors import MalformedResponse
from hermes_mcp_auth_remote.values import Secret

T = TypeVar("T")

Headers = tuple[tuple[str, str | Secret], ...]
"""Names and values of a request's headers."""
Document = Mapping[str, object]
Form = Mapping[str, str | Secret]

# Real metadata, registration and token responses are far smaller.
MAX_BODY_BYTES = 1_048_576
FORM_MEDIA_TYPE = "application/x-www-form-urlencoded"
MAX_SANITIZED_CHARS = 200
# The limits below bound the work on one response. A megabyte of commas would block all other callers.
# The number of commas, colons, and opening brackets and braces in a JSON document. A large real document
# has a few hundred.
MAX_JSON_MARKS = 20_000
# The length of one string. Nearly every server accepts less than this in an Authorization header.
MAX_MEMBER_CHARS = 65_536
MAX_FORM_BYTES = 32_768
# Members of one list; the rest are ignored.
MAX_LIST_MEMBERS = 1000
# A granted scope can be longer than a URL: 500 of Google's scopes have 30 000 characters.
MAX_SCOPE_CHARS = MAX_MEMBER_CHARS
# The length, as JSON, of the members that are kept of one document. Each waiting login stores them.
MAX_KEPT_CHARS = 65_536
# The length of a server's text before `sanitize` masks and shortens it.
MAX_SANITIZE_INPUT_CHARS = 16_384
MAX_NUMBER_CHARS = 64
# A century. A longer lifetime is junk and could overflow time arithmetic.
MAX_LIFETIME_SECONDS = 3_155_760_000.0
# Only the connection may set these (RFC 9110 section 7.6.1, RFC 9112 section 6). With a second Content-Length
# the server would read the rest of a request as the next request.
FRAMING_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# RFC 6749 section 3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
_SCOPE_TOKEN = re.compile(r"[!#-\[\]-~]+")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to send. `step` names it for people, as in "protected resource metadata".

    `url` is not in the repr, because it may contain the state. `follow_redirects` applies to GET; a POST is
    never redirected. `is_token_request` is True if the request uses up a code or a refresh token: its
    response cannot be requested again, so the driver reads that response even if it is late.
    """

    method: Literal["GET", "POST"]
    url: str = field(repr=False)
    step: str
    headers: Headers = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    follow_redirects: bool = True
    is_token_request: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response. Header names are lower case; a header may occur more than once."""

    status: int
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str | None:
        """Return the first value of a header, by its lower-case name."""
        return next((value for key, value in self.headers if key == name), None)

    def header_all(self, name: str) -> tuple[str, ...]:
        """Return every value of a header, in order, by its lower-case name."""
        return tuple(value for key, value in self.headers if key == name)

    @property
    def ok(self) -> bool:
        """True for a status of 200 to 299."""
        return 200 <= self.status < 300


Exchange = Generator[Request, Response, T]
"""A generator of requests: it yields each Request, receives its Response, and returns T.

The driver may throw a NetworkError instead of sending a response.
"""


def get_json(url: str, step: str) -> Request:
    """Build a GET for a JSON document."""
    return Request("GET", url, step, (("accept", "application/json"),))


def configured_headers(headers: Mapping[str, Secret]) -> Headers:
    """Return the operator's static headers in lower case, without FRAMING_HEADERS."""
    lower_case_headers = ((name.lower(), value) for name, value in headers.items())
    return tuple(header for header in lower_case_headers if header[0] not in FRAMING_HEADERS)


def post_form(
    url: str, step: str, form: Form, headers: Headers = (), *, is_token_request: bool = False
) -> Request:
    """Build a form POST that asks for JSON: GitHub sends a form if it is not asked (quirk 30)."""
    fields = {name: value.reveal() if isinstance(value, Secret) else value for name, value in form.items()}
    base_headers = (("accept", "application/json"), ("content-type", FORM_MEDIA_TYPE))
    body = urlencode(fields).encode()
    return Request("POST", url, step, base_headers + headers, body, is_token_request=is_token_request)


def post_json(url: str, step: str, document: Document, headers: Headers = ()) -> Request:
    """Build a JSON POST that asks for JSON."""
    base_headers = (("accept", "application/json"), ("content-type", "application/json"))
    return Request("POST", url, step, base_headers + headers, json.dumps(document).encode())


def read_json_object(body: bytes, label: str) -> Document:
    """Read a JSON object of at most 1 MiB and 20 000 values; raises MalformedResponse otherwise.

    `label` names the response in the error.
    """
    if len(body) > MAX_BODY_BYTES:
        raise MalformedResponse(f"The {label} is larger than 1 MiB.")
    if sum(body.count(mark) for mark in (b",", b":", b"[", b"{")) > MAX_JSON_MARKS:
        raise MalformedResponse(f"The {label} holds more values than any honest one.")
    document = _parse_json(body)
    if document is _NOT_JSON:
        shape = "an HTML page" if body.lstrip()[:1] == b"<" else "not JSON"
        raise MalformedResponse(f"The {label} is {shape}.")
    if not isinstance(document, dict):
        raise MalformedResponse(f"The {label} is JSON, but not an object.")
    return cast("Document", document)


# The libraries' errors contain the text that they could not read, such as a token document. Return a sentinel
# instead of raising inside `except`, because that would keep the library's error as the context.
_NOT_JSON = object()


def _parse_json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _parse_form(body: bytes) -> dict[str, str] | None:
    try:
        return dict(parse_qsl(body.decode("ascii").strip(), keep_blank_values=True, max_num_fields=100))
    except ValueError:
        return None


def read_json_or_form(response: Response, label: str) -> Document:
    """Read a JSON object, or a form if the body looks like one (quirk 30); raises MalformedResponse."""
    media_type = (response.header("content-type") or "").partition(";")[0].strip().lower()
    shows_form = response.body.lstrip()[:1] not in b"{[<" and b"=" in response.body
    if shows_form and media_type != "application/json":
        if len(response.body) > MAX_FORM_BYTES:
            raise MalformedResponse(f"The {label} is a form of more than 32 KiB.")
        form = _parse_form(response.body)
        if form is None:
            raise MalformedResponse(f"The {label} is neither JSON nor a form.")
        return form
    return read_json_object(response.body, label)


def string_member(document: Document, name: str) -> str | None:
    """Return a non-empty string member of at most 65 536 characters, else None."""
    value = document.get(name)
    # None is by far the most common value that is not valid.
    return value if value is not None and _is_valid_string(value) else None


def string_list(document: Document, name: str, limit: int = MAX_LIST_MEMBERS) -> tuple[str, ...] | None:
    """Return the valid strings (see `string_member`) among the first `limit` members of a list, in order.

    None if the member is not a list.
    """
    value = document.get(name)
    if not isinstance(value, list):
        return None
    return tuple(item for item in cast("list[object]", value)[:limit] if _is_valid_string(item))


def select_members(document: Document, names: Iterable[str]) -> Document:
    """Return these members of a server's document: strings, numbers, booleans, null, lists of strings.

    As JSON, the result has at most 65 536 characters. A value that no longer fits is left out, and a list is
    cut, so put the most important names first. A string is kept only if `string_member` would return it.
    """
    selected: dict[str, object] = {}
    text_chars = 0
    for name in names:
        if name not in document:
            continue
        value = document[name]
        if isinstance(value, list):
            selected[name] = items = list(string_list(document, name) or ())
            text_chars += sum(map(len, items)) + len(items)
        elif isinstance(value, str):
            if _is_valid_string(value):
                selected[name] = value
                text_chars += len(value)
        elif value is None or isinstance(value, bool | int | float):
            selected[name] = value
            text_chars += len(repr(value))
    # JSON is at most 12 times as long as a text, and a name takes less than 100 characters. So a document is
    # encoded only if it may be too long.
    max_chars = 12 * text_chars + 100 * len(selected)
    if max_chars > MAX_KEPT_CHARS and len(json.dumps(selected)) > MAX_KEPT_CHARS:
        selected = _cut_members(selected)
    # In the document's order, so that a file does not change when it is read and written.
    return {name: selected[name] for name in document if name in selected}


def _cut_members(members: Mapping[str, object]) -> dict[str, object]:
    selected: dict[str, object] = {}
    free_chars = MAX_KEPT_CHARS
    for name, value in members.items():
        free_for_value = free_chars - _json_chars(name)
        cut_value = _cut_list(cast("list[str]", value), free_for_value) if isinstance(value, list) else value
        value_chars = _json_chars(cut_value)
        if value_chars <= free_for_value:
            selected[name] = cut_value
            free_chars = free_for_value - value_chars
    return selected


def _cut_list(items: list[str], free_chars: int) -> list[str]:
    used_chars = _json_chars([])
    for index, item in enumerate(items):
        used_chars += _json_chars(item)
        if used_chars > free_chars:
            return items[:index]
    return items


def _json_chars(value: object) -> int:
    """Return the length of a value as JSON, plus the length of the separator before the next one."""
    return len(json.dumps(value)) + 2


def _is_valid_string(value: object) -> TypeGuard[str]:
    # `isprintable` also refuses lone surrogates, which JSON can contain and no encoding can write.
    return isinstance(value, str) and 0 < len(value) <= MAX_MEMBER_CHARS and value.isprintable()


def parse_seconds(value: object) -> float | None:
    """Read a duration in seconds, such as `expires_in`; None if missing or not positive (quirk 32)."""
    # A tuple, because each call would make the union of these types again.
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and len(value) > MAX_NUMBER_CHARS:
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return min(seconds, MAX_LIFETIME_SECONDS) if math.isfinite(seconds) and seconds > 0 else None


def retry_after_text(response: Response) -> str | None:
    """Say when `Retry-After` allows a retry: "in 30 seconds", "after 07:28 UTC"; None without a valid one.

    RFC 9110 section 10.2.3: the value is a number of seconds or a date.
    """
    value = (response.header("retry-after") or "").strip()
    seconds = parse_seconds(value)
    if seconds is not None:
        count, unit = (math.ceil(seconds), "second") if seconds < 120 else (math.ceil(seconds / 60), "minute")
        if unit == "minute" and count >= 120:
            count, unit = math.ceil(count / 60), "hour"
        return f"in {count} {unit}{'s' * (count != 1)}"
    if not value or len(value) > MAX_NUMBER_CHARS:
        return None
    # Imported here: few responses have a date.
    from datetime import UTC  # noqa: PLC0415
    from email.utils import parsedate_to_datetime  # noqa: PLC0415

    try:
        date = parsedate_to_datetime(value).astimezone(UTC)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    return f"after {date:%H:%M} UTC on {date:%Y-%m-%d}"


def parse_scope(text: str) -> frozenset[str]:
    """Split a space-separated scope into a set.

    Ignores invalid scope tokens (RFC 6749 section 3.3), and the text after 65 536 characters.
    """
    if len(text) > MAX_SCOPE_CHARS:
        # The cut may be inside the last word.
        text = " ".join(text[:MAX_SCOPE_CHARS].split()[:-1])
    return frozenset(filter(_SCOPE_TOKEN.fullmatch, text.split()))


def format_scope(scope: Iterable[str]) -> str:
    """Join a scope with spaces, in a stable order."""
    return " ".join(sorted(scope))


def sanitize(text: object, *secrets: Secret) -> str:
    """Return a server's text for display: printable, on one line, short, with the secrets masked."""
    if not isinstance(text, str):
        return ""
    spellings = {s for secret in secrets for s in (secret.reveal(), quote_plus(secret.reveal()))} - {""}
    is_long, text = len(text) > MAX_SANITIZE_INPUT_CHARS, text[:MAX_SANITIZE_INPUT_CHARS]
    for spelling in spellings:
        text = text.replace(spelling, "****")
    if is_long and spellings:
        # The cut may be inside a secret.
        text = text[: -max(map(len, spellings))]
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_SANITIZED_CHARS]).split())
    return line if len(line) <= MAX_SANITIZED_CHARS else line[: MAX_SANITIZED_CHARS - 1] + "…"
