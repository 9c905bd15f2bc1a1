"""What error trackers record of an exception: sentry-sdk, rich, `traceback`, and code that reads frames.

`ErrorTrackers.find_leaks` returns where a traceback contains one of the secrets, in any encoding.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any
from urllib.parse import quote, quote_plus

import rich.traceback
import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.logging import EventHandler
from sentry_sdk.transport import Transport
from sentry_sdk.utils import event_from_exception

PACKAGE_PREFIXES = ("hermes_mcp_auth_remote.", "gateway_hooks.")
MIN_SECRET_CHARS = 8


class CollectingTransport(Transport):
    """Collect envelopes and send nothing."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.sent: list[str] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.sent.append(envelope.serialize().decode("utf-8", "replace"))


@dataclass
class ErrorTrackers:
    """Find secrets in the records of error trackers. `secrets` may grow later."""

    secrets: Collection[str]
    extra_secrets: set[str] = field(default_factory=set)
    transport: CollectingTransport = field(default_factory=CollectingTransport)
    _cached_spellings: tuple[int, list[str]] = (-1, [])

    def __post_init__(self) -> None:
        self.client = sentry_sdk.Client(
            dsn="https://key@sentry.invalid/1",
            transport=self.transport,
            # The integrations patch the whole process permanently. The tests in tests/cli use them.
            default_integrations=False,
            auto_enabling_integrations=False,
        )

    def spellings(self) -> list[str]:
        """Return every secret verbatim, percent-encoded, and as a part of base64."""
        secrets = [
            secret for secret in [*self.secrets, *self.extra_secrets] if len(secret) >= MIN_SECRET_CHARS
        ]
        spellings = {
            spelling for secret in secrets for spelling in (secret, quote(secret, ""), quote_plus(secret))
        }
        for secret in secrets:
            for prefix_bytes in range(3):
                # The bytes before a secret shift its encoding, and the first and last characters of the
                # encoding depend on the neighbouring bytes.
                inner = base64.b64encode(b"x" * prefix_bytes + secret.encode()).decode().rstrip("=")
                spellings.add(inner[4 if prefix_bytes else 0 : -2])
        return sorted(spellings)

    def contains_secret(self, text: str) -> bool:
        """Return whether a text contains a secret, also across line breaks or with JSON escapes."""
        count = len(self.secrets) + len(self.extra_secrets)
        if self._cached_spellings[0] != count:
            self._cached_spellings = count, self.spellings()
        plain = re.sub(r"[\s│\\]+", "", text)
        return any(spelling in plain for spelling in self._cached_spellings[1])

    def find_leaks(self, error: BaseException) -> list[str]:
        """Return the trackers and frames in which an exception shows a secret."""
        leaks = [f"{tracker}" for tracker, text in self.tracker_records(error) if self.contains_secret(text)]
        return leaks + [variable for variable, text in iterate_locals(error) if self.contains_secret(text)]

    def tracker_records(self, error: BaseException) -> Iterator[tuple[str, str]]:
        """Yield the name of each tracker and its record of an exception."""
        event, _ = event_from_exception(error, client_options=self.client.options)
        self.client.capture_event(event)
        yield "sentry", json.dumps(event, default=repr) + self.transport.sent[-1]
        # Do not render the traceback: to highlight the source lines takes a second.
        rendered = rich.traceback.Traceback.extract(
            type(error),
            error,
            error.__traceback__,
            show_locals=True,
            locals_hide_dunder=False,
            locals_max_length=1000,
            locals_max_string=100_000,
        )
        yield "rich", repr(rendered)
        formatted = traceback.TracebackException(
            type(error), error, error.__traceback__, capture_locals=True, compact=False
        )
        yield "traceback", "".join(formatted.format())

    @contextmanager
    def capture_error_logs(self) -> Generator[None]:
        """Send records of level ERROR to sentry-sdk, with their tracebacks."""
        handler = EventHandler(logging.ERROR)
        scope = sentry_sdk.get_global_scope()
        scope.set_client(self.client)
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)
            scope.set_client(None)

    def find_sent_leaks(self) -> list[str]:
        """Return the envelopes sent to sentry-sdk that contain a secret, shortened."""
        return [envelope[:200] for envelope in self.transport.sent if self.contains_secret(envelope)]

    def find_live_leaks(self) -> list[str]:
        """Return the variables in running frames of this package that contain a secret."""
        frame: FrameType | None = sys._getframe(1)
        leaks: list[str] = []
        while frame is not None:
            if f"{frame.f_globals.get('__name__', '')}.".startswith(PACKAGE_PREFIXES):
                leaks += [variable for variable, text in _frame_locals(frame) if self.contains_secret(text)]
            frame = frame.f_back
        return leaks


def catch_error(work: Awaitable[object] | Callable[[], object]) -> BaseException:
    """Return the exception that a coroutine or a call raises, with its traceback.

    No frame of the traceback holds the arguments.
    """
    try:
        if callable(work):
            work()
        else:
            asyncio.run(work)  # type: ignore[arg-type]
    except BaseException as error:  # noqa: BLE001  the test checks its type
        return error
    raise AssertionError("The call raised no exception.")


def iterate_locals(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yield the local variables of all frames of an exception, as text.

    This includes its causes, its contexts and the members of groups.
    """
    visited: set[int] = set()
    errors: list[BaseException | None] = [error]
    while errors:
        current = errors.pop()
        if current is None or id(current) in visited:
            continue
        visited.add(id(current))
        yield f"{type(current).__name__} itself", "".join(traceback.format_exception_only(current))
        errors.append(current.__cause__)
        if not current.__suppress_context__:
            errors.append(current.__context__)
        if isinstance(current, BaseExceptionGroup):
            errors += current.exceptions
        link: TracebackType | None = current.__traceback__
        while link is not None:
            yield from _frame_locals(link.tb_frame)
            link = link.tb_next


def _frame_locals(frame: FrameType) -> Iterator[tuple[str, str]]:
    frame_name = f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}"
    for name, value in list(frame.f_locals.items()):
        yield f"{frame_name}: {name}", _to_text(value, 0)


def _to_text(value: object, depth: int) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("latin-1")
    if isinstance(value, str):
        return value
    if depth < 6 and isinstance(value, Mapping):
        return " ".join(_to_text(part, depth + 1) for pair in list(value.items()) for part in pair)
    if depth < 6 and isinstance(value, list | tuple | set | frozenset):
        return " ".join(_to_text(part, depth + 1) for part in value)
    try:
        return repr(value)
    except Exception as broken:  # noqa: BLE001  a `repr` may raise anything
        return repr(type(broken))
