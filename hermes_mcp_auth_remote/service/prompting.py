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
from hermes_mcp_auth_remote.service.dependencies import World
from hermes_mcp_auth_remote.service.logins import Logins
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.traceback_redaction import hides_locals
from hermes_mcp_auth_remote.values import MAX_LOGIN_SECONDS, Flow, Key, Origin, Server

# A person who said no, or did not answer, is not asked again by the next call; a command still may.
QUIET_SECONDS = {"cancelled": 300.0, "failed": 60.0, "expired": 3600.0}
# A server that wants ever more scope, or refuses what it granted, does not get to ring all day.
MAX_ASKED_PER_HOUR = 6
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
    may_connect_shared: bool = False
    flow: Flow | None = None

    def may_ask_for(self, key: Key) -> bool:
        """True where a login at this place may become those credentials.

        The operator's shared ones are nobody's in a chat, unless the operator says so; a chat user's own are
        that user's alone.
        """
        if self.origin.platform == "terminal":
            return True
        if key.owner is None:
            return self.may_connect_shared
        return key.owner == f"{self.origin.platform}:{self.origin.user}"


_current: ContextVar[Asker | None] = ContextVar("hermes_mcp_auth_asker", default=None)


@contextmanager
def asking(
    prompter: Prompter,
    origin: Origin,
    wait_seconds: float = MAX_LOGIN_SECONDS,
    *,
    may_connect_shared: bool = False,
    flow: Flow | None = None,
) -> Generator[None]:
    """Let calls inside the block, and tasks begun there, ask this prompter where a login is needed.

    A call waits up to `wait_seconds` for the person, then raises AuthorizationRequired with the login's id;
    the login itself goes on. With `may_connect_shared`, whoever answers at this place logs in for everybody
    who shares the operator's tokens: give it for an operator's own chat only. The flow "auto" is for a
    prompter that can show a code for another device (`Login.shown_code`), as `AuthService.begin` has it.
    """
    token = _current.set(Asker(prompter, origin, wait_seconds, may_connect_shared, flow))
    try:
        yield
    finally:
        _current.reset(token)


_Place = tuple[Key, str, Origin]
"""Whose credentials for which address, and where the person is asked."""


class Asking:
    """The logins that calls of this process wait for."""

    def __init__(self, world: World, logins: Logins) -> None:
        self._world = world
        self._logins = logins
        self._lock = threading.Lock()
        self._beginnings: dict[_Place, Future[str]] = {}
        # Until when nobody is asked, in epoch seconds.
        self._quiet: dict[_Place, float] = {}
        # When somebody was asked, the last time last.
        self._asked: dict[_Place, list[float]] = {}
        self._watching: set[asyncio.Task[None]] = set()

    async def ask(self, server: Server, key: Key, needed: AuthorizationRequired) -> None:
        """Return once somebody has logged in; else raises AuthorizationRequired, or what begin raised.

        Raises at once where nobody can be asked, or where the person has just said no.
        """
        asker = _current.get()
        if asker is None or not asker.may_ask_for(key):
            waiting = await run_file_work(self._waiting, key, server, None)
            raise needed if waiting is None else _with(needed, waiting)
        place = (key, server.url, asker.origin)
        login: Login | None = None
        try:
            async with asyncio.timeout(asker.wait_seconds):
                login = await self._joined(server, place, asker, needed)
                over = await self._logins.settled(login.id)
        except TimeoutError:
            raise needed if login is None else _with(needed, login) from None
        if over.status != "done":
            self._quiet[place] = self._world.clock() + QUIET_SECONDS.get(over.status, 0.0)
            reason = _ENDINGS.get(over.status, needed.reason)
            raise AuthorizationRequired(
                key.server, reason=reason, challenge=needed.challenge, server_words=needed.server_words
            )

    async def _joined(
        self, server: Server, place: _Place, asker: Asker, needed: AuthorizationRequired
    ) -> Login:
        """Return the one login that calls from this place wait for, begun and shown by the first of them."""
        while True:
            with self._lock:
                beginning = self._beginnings.get(place)
                is_first = beginning is None
                if beginning is None:
                    beginning = self._beginnings[place] = Future()
            if is_first:
                try:
                    login = await self._begun(server, place, asker, needed)
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
            return await run_file_work(self._logins.get, login_id)

    async def _begun(
        self, server: Server, place: _Place, asker: Asker, needed: AuthorizationRequired
    ) -> Login:
        key = place[0]
        challenge = needed.challenge if isinstance(needed.challenge, Challenge) else None
        scope = challenge.scope if challenge is not None and challenge.insufficient_scope else None
        waiting = await run_file_work(self._waiting, key, server, asker.origin)
        if waiting is not None:
            if scope is not None and not scope <= (waiting.request.scope or frozenset()):
                # Another scope with each call must not become another prompt with each call.
                raise _with(needed, waiting)
            return waiting
        self._check_patience(place, needed)
        login = await self._logins.begin(server, key, asker.origin, challenge=challenge, flow=asker.flow)
        try:
            await asker.prompter.show(login)
        except BaseException:
            await self._logins.cancel(login.id)
            raise
        watching = asyncio.create_task(self._tell(asker.prompter, login))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)
        return login

    @hides_locals
    async def _tell(self, prompter: Prompter, login: Login) -> None:
        over = await self._logins.settled(login.id)
        found: Connection | None = None
        if over.status == "done":
            stored = await run_file_work(self._world.store.read, login.key)
            found = connection(login.key, login.server_url, stored)
        await prompter.settled(over, found)

    def _check_patience(self, place: _Place, needed: AuthorizationRequired) -> None:
        """Raise where the person has just said no, or was asked often enough."""
        now = self._world.clock()
        asked = [moment for moment in self._asked.get(place, []) if moment > now - 3600]
        if now < self._quiet.get(place, 0.0) or len(asked) >= MAX_ASKED_PER_HOUR:
            raise needed
        self._asked[place] = [*asked, now]

    def _waiting(self, key: Key, server: Server, origin: Origin | None) -> Login | None:
        """Return a login of this server's address that waits already, here (or anywhere)."""
        now = self._world.clock()
        for login in reversed(self._world.store.logins.all()):
            is_open = login.key == key and login.status == "waiting" and not is_expired(login, now)
            if is_open and login.server_url == server.url and origin in {None, login.origin}:
                return login
        return None


class _AbandonedError(Exception):
    """Whoever was beginning a login was cancelled."""


def _with(needed: AuthorizationRequired, login: Login) -> AuthorizationRequired:
    return AuthorizationRequired(
        needed.server,
        reason=needed.reason,
        challenge=needed.challenge,
        server_words=needed.server_words,
        login_id=login.id,
        expires_at=login.expires_at,
    )
