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

OURS = ("hermes_mcp_auth_remote.", "gateway_hooks.")
MIN_CHARS = 8


class Collecting(Transport):
    """Collect envelopes and send nothing."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.sent: list[str] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.sent.append(envelope.serialize().decode("utf-8", "replace"))


@dataclass
class Trackers:
    """Find secrets in the records of error trackers. `secrets` may grow later."""

    secrets: Collection[str]
    more: set[str] = field(default_factory=set)
    transport: Collecting = field(default_factory=Collecting)
    _known: tuple[int, list[str]] = (-1, [])

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
        known = [each for each in [*self.secrets, *self.more] if len(each) >= MIN_CHARS]
        found = {spelling for each in known for spelling in (each, quote(each, ""), quote_plus(each))}
        for each in known:
            for before in range(3):
                # Preceding bytes shift the encoding; the characters at both ends depend on their neighbours.
                inner = base64.b64encode(b"x" * before + each.encode()).decode().rstrip("=")
                found.add(inner[4 if before else 0 : -2])
        return sorted(found)

    def found_in(self, text: str) -> bool:
        """Return whether a text contains a secret, also across line breaks or with JSON escapes."""
        count = len(self.secrets) + len(self.more)
        if self._known[0] != count:
            self._known = count, self.spellings()
        plain = re.sub(r"[\s│\\]+", "", text)
        return any(each in plain for each in self._known[1])

    def leaks(self, error: BaseException) -> list[str]:
        """Return the trackers and frames in which an exception shows a secret."""
        found = [f"{who}" for who, text in self.shown(error) if self.found_in(text)]
        return found + [where for where, text in walk(error) if self.found_in(text)]

    def shown(self, error: BaseException) -> Iterator[tuple[str, str]]:
        """Yield the name of each tracker and its record of an exception."""
        event, _ = event_from_exception(error, client_options=self.client.options)
        self.client.capture_event(event)
        yield "sentry", json.dumps(event, default=repr) + self.transport.sent[-1]
        # Do not render it: highlighting the source lines takes a second.
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
        told = traceback.TracebackException(
            type(error), error, error.__traceback__, capture_locals=True, compact=False
        )
        yield "traceback", "".join(told.format())

    @contextmanager
    def logging(self) -> Generator[None]:
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

    def sent_leaks(self) -> list[str]:
        """Return the envelopes sent to sentry-sdk that contain a secret, shortened."""
        return [each[:200] for each in self.transport.sent if self.found_in(each)]

    def live_leaks(self) -> list[str]:
        """Return the variables in running frames of this package that contain a secret."""
        frame: FrameType | None = sys._getframe(1)
        found: list[str] = []
        while frame is not None:
            if f"{frame.f_globals.get('__name__', '')}.".startswith(OURS):
                found += [where for where, text in _locals(frame) if self.found_in(text)]
            frame = frame.f_back
        return found


def caught(work: Awaitable[object] | Callable[[], object]) -> BaseException:
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


def walk(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yield the local variables of all frames of an exception, as text.

    This includes its causes, its contexts and the members of groups.
    """
    seen: set[int] = set()
    errors: list[BaseException | None] = [error]
    while errors:
        one = errors.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield f"{type(one).__name__} itself", "".join(traceback.format_exception_only(one))
        errors.append(one.__cause__)
        if not one.__suppress_context__:
            errors.append(one.__context__)
        if isinstance(one, BaseExceptionGroup):
            errors += one.exceptions
        link: TracebackType | None = one.__traceback__
        while link is not None:
            yield from _locals(link.tb_frame)
            link = link.tb_next


def _locals(frame: FrameType) -> Iterator[tuple[str, str]]:
    where = f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}"
    for name, value in list(frame.f_locals.items()):
        yield f"{where}: {name}", _text(value, 0)


def _text(value: object, depth: int) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("latin-1")
    if isinstance(value, str):
        return value
    if depth < 6 and isinstance(value, Mapping):
        return " ".join(_text(part, depth + 1) for pair in list(value.items()) for part in pair)
    if depth < 6 and isinstance(value, list | tuple | set | frozenset):
        return " ".join(_text(part, depth + 1) for part in value)
    try:
        return repr(value)
    except Exception as broken:  # noqa: BLE001  a `repr` may raise anything
        return repr(type(broken))
