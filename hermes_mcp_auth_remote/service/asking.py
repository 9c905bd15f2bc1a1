"""Asking a person from inside a call: one login for all who wait, shown where the call comes from.

Who can be asked is a matter of context: an agent that works for a chat asks in that chat, a program at a
terminal there, a cron job nowhere. `asking` says so for the calls inside its block.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from hermes_mcp_auth_remote.errors import AuthorizationRequired, McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login, Prompter, is_expired
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.service.connections import connection
from hermes_mcp_auth_remote.service.logins import Logins
from hermes_mcp_auth_remote.service.world import World
from hermes_mcp_auth_remote.values import MAX_LOGIN_SECONDS, Key, Origin, Server

# A person who said no, or did not answer, is not asked again by the next call; a command still may.
QUIET_SECONDS = {"cancelled": 300.0, "failed": 60.0, "expired": 3600.0}
_ENDINGS = {
    "cancelled": "the last login was cancelled",
    "failed": "the last login failed",
    "expired": "nobody finished the last login in time",
}


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks whom: a prompter, the place that it shows logins at, and how many seconds a call waits."""

    prompter: Prompter
    origin: Origin
    wait_seconds: float = MAX_LOGIN_SECONDS


_current: ContextVar[Asker | None] = ContextVar("hermes_mcp_auth_asker", default=None)


@contextmanager
def asking(prompter: Prompter, origin: Origin, wait_seconds: float = MAX_LOGIN_SECONDS) -> Generator[None]:
    """Let calls inside the block, and tasks begun there, ask this prompter where a login is needed.

    A call waits up to `wait_seconds` for the person, then raises AuthorizationRequired with the login's id;
    the login itself goes on.
    """
    token = _current.set(Asker(prompter, origin, wait_seconds))
    try:
        yield
    finally:
        _current.reset(token)


class Asking:
    """The logins that calls of this process wait for."""

    def __init__(self, world: World, logins: Logins) -> None:
        self._world = world
        self._logins = logins
        self._lock = threading.Lock()
        self._beginnings: dict[tuple[Key, Origin], Future[str]] = {}
        # Until when nobody is asked, in epoch seconds.
        self._quiet: dict[tuple[Key, Origin], float] = {}
        self._watching: set[asyncio.Task[None]] = set()

    async def ask(self, server: Server, key: Key, needed: AuthorizationRequired) -> None:
        """Return once somebody has logged in; else raises AuthorizationRequired, or what begin raised.

        Raises at once where nobody can be asked, or where the person has just said no.
        """
        asker = _current.get()
        if asker is None:
            waiting = await asyncio.to_thread(self._waiting, key, None, None)
            raise needed if waiting is None else _with(needed, waiting)
        login = await self._joined(server, key, asker, needed)
        try:
            async with asyncio.timeout(asker.wait_seconds):
                over = await self._logins.settled(login.id)
        except TimeoutError:
            raise _with(needed, login) from None
        if over.status != "done":
            self._quiet[key, asker.origin] = self._world.clock() + QUIET_SECONDS.get(over.status, 0.0)
            reason = _ENDINGS.get(over.status, needed.reason)
            raise AuthorizationRequired(key.server, reason=reason, challenge=needed.challenge)

    async def _joined(self, server: Server, key: Key, asker: Asker, needed: AuthorizationRequired) -> Login:
        """Return the one login that calls from this place wait for, begun and shown by the first of them."""
        place = (key, asker.origin)
        while True:
            with self._lock:
                beginning = self._beginnings.get(place)
                is_first = beginning is None
                if beginning is None:
                    beginning = self._beginnings[place] = Future()
            if is_first:
                try:
                    login = await self._begun(server, key, asker, needed)
                except BaseException as trouble:
                    beginning.set_exception(
                        trouble if isinstance(trouble, McpAuthError) else _AbandonedError()
                    )
                    raise
                else:
                    beginning.set_result(login.id)
                    return login
                finally:
                    with self._lock:
                        del self._beginnings[place]
            try:
                login_id = await asyncio.shield(asyncio.wrap_future(beginning))
            except _AbandonedError:
                # The first of us was cancelled before anything was shown; the next one begins.
                continue
            return await asyncio.to_thread(self._logins.get, login_id)

    async def _begun(self, server: Server, key: Key, asker: Asker, needed: AuthorizationRequired) -> Login:
        challenge = needed.challenge if isinstance(needed.challenge, Challenge) else None
        scope = challenge.scope if challenge is not None and challenge.insufficient_scope else None
        waiting = await asyncio.to_thread(self._waiting, key, asker.origin, scope)
        if waiting is not None:
            return waiting
        if self._world.clock() < self._quiet.get((key, asker.origin), 0.0):
            raise needed
        login = await self._logins.begin(server, key, asker.origin, challenge=challenge)
        try:
            await asker.prompter.show(login)
        except BaseException:
            await self._logins.cancel(login.id)
            raise
        watching = asyncio.create_task(self._tell(asker.prompter, login))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)
        return login

    async def _tell(self, prompter: Prompter, login: Login) -> None:
        over = await self._logins.settled(login.id)
        found: Connection | None = None
        if over.status == "done":
            stored = await asyncio.to_thread(self._world.store.read, login.key)
            found = connection(login.key, login.server_url, stored)
        await prompter.settled(over, found)

    def _waiting(self, key: Key, origin: Origin | None, scope: frozenset[str] | None) -> Login | None:
        """Return a login that waits already: here (or anywhere), and for enough."""
        now = self._world.clock()
        for login in reversed(self._world.store.logins.all()):
            is_open = login.key == key and login.status == "waiting" and not is_expired(login, now)
            is_here = origin is None or login.origin == origin
            if is_open and is_here and (scope is None or scope <= (login.request.scope or frozenset())):
                return login
        return None


class _AbandonedError(Exception):
    """Whoever was beginning a login was cancelled."""


def _with(needed: AuthorizationRequired, login: Login) -> AuthorizationRequired:
    return AuthorizationRequired(
        needed.server,
        reason=needed.reason,
        challenge=needed.challenge,
        login_id=login.id,
        expires_at=login.expires_at,
    )
