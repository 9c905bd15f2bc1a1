"""One look at a server serves all who begin to log in meanwhile: its documents are the same for everybody.

Who has no client yet, and needs none of their own, gets the one that registers with the look: it is the same
program, and providers limit how many they take. Nothing is remembered: once the one who looked has gone on,
over the same connections, the next one looks again, for a server may move.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.flows.discovery import Found
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.values import Flow, Server

T = TypeVar("T")
_Place = tuple[int, str, str | None, Flow, bool]


@dataclass(frozen=True, slots=True)
class Question:
    """All that the outcome of a look depends on; `issuer` is preferred where there are several.

    `is_new` where nothing is held from an earlier login, and nobody listens on a port of their own.
    """

    server: Server
    issuer: str | None
    challenge: Challenge | None
    flow: Flow
    is_new: bool = False


@dataclass(slots=True, eq=False)
class _Look:
    question: Question
    # None where whoever looked was cancelled.
    outcome: Future[Found | None] = field(default_factory=Future[Found | None])


class Looks:
    """The looks under way. Any thread or event loop may use it."""

    def __init__(self) -> None:
        self._under_way: dict[_Place, _Look] = {}

    async def run(
        self,
        run: Callable[[Exchange[T], Server], Awaitable[T]],
        question: Question,
        look: Callable[[], Exchange[Found]],
        go_on: Callable[[Found], Exchange[T]],
    ) -> T:
        """Look at a server, or take what a look under way at the same question finds, and go on.

        Raises what either raises.
        """
        # A forked child has not the threads in which its parent's looks go on.
        key = (os.getpid(), question.server.name, question.issuer, question.flow, question.is_new)
        mine = _Look(question)
        while (theirs := self._under_way.setdefault(key, mine)) is not mine and theirs.question == question:
            # Shielded: one who is cancelled cancels nobody else.
            found = await asyncio.shield(asyncio.wrap_future(theirs.outcome))
            if found is not None:
                return await run(go_on(found), question.server)
            # Whoever looked was cancelled, or ran out of time: one of those who wait looks now.
            self._take_off(key, theirs)
        try:
            return await run(_told(mine.outcome, look, go_on), question.server)
        finally:
            if not mine.outcome.done():
                mine.outcome.set_result(None)
            self._take_off(key, mine)

    def _take_off(self, key: _Place, look: _Look) -> None:
        if self._under_way.get(key) is look:
            del self._under_way[key]


def _told(
    outcome: Future[Found | None], look: Callable[[], Exchange[Found]], go_on: Callable[[Found], Exchange[T]]
) -> Exchange[T]:
    """Look, tell those who wait, and go on."""
    try:
        found = yield from look()
    except McpAuthError as trouble:
        outcome.set_exception(trouble)
        raise
    outcome.set_result(found)
    return (yield from go_on(found))
