"""Ahead of trouble: one message with one button where a session is over, or soon will be, and needs a person.

It is told to whoever's tokens they are, or to the caretakers of what all share; once for each trouble, also
over restarts and with several processes, until the session is renewed. Then the message says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.platform import CannotWrite, ChatError
from gateway_hooks.dialog.servers import tag
from gateway_hooks.runtime.context import Context
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import TOKEN_WARNING_SECONDS, Connection
from hermes_mcp_auth_remote.store.files.notice_files import Notice
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Key, Owner

LOOK_SECONDS = 60.0
# Where the person has to open the chat first, or we were killed in the very act.
RETRY_SECONDS = 3600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why a person is needed: the session is over, or ends soon."""

    connection: Connection
    is_over: bool

    @property
    def of_tokens(self) -> float | None:
        """What tells these tokens from any that come later: their end, else when they came."""
        found = self.connection
        return found.expires_at if found.expires_at is not None else found.obtained_at


class Attention:
    """Looks after the sessions of one platform's people."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self) -> None:
        """Look once a minute, until cancelled."""
        while True:
            try:
                await self.look()
            except McpAuthError as trouble:
                log.warning("Whether a session needs a login could not be told: %s", trouble)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look at all sessions once, and tell what has not been told; raises ConfigError, StoreError."""
        context, now = self._context, self._context.clock()
        sessions = await run_file_work(self._sessions)
        told = {each.about: each for each in await run_file_work(context.service.notices.all)}
        # Somebody is at it, or has just been asked and said no.
        asked = {(each.key, each.origin.user) for each in await context.logins() if each.status != "done"}
        for key, found in sessions.items():
            trouble = _trouble(found, now)
            if trouble is None:
                continue
            for user in self._audience(key.owner):
                if (key, user) not in asked:
                    await self._attend(user, trouble, told.get((context.platform.name, user, key)))
        for notice in told.values():
            if notice.platform == context.platform.name:
                await self._clear(notice, sessions.get(notice.key), now)

    def _sessions(self) -> dict[Key, Connection]:
        """Return what is stored of the servers that people can log in to."""
        service, found = self._context.service, dict[Key, Connection]()
        keys = service.keys()
        for name in self._context.servers.names():
            with contextlib.suppress(McpAuthError):
                # What cannot be read is told where it is asked for.
                server = self._context.servers.find(name)
                if server.options.grant == "authorization_code":
                    for key in keys:
                        stored = service.connection(server, key.owner) if key.server == name else None
                        if stored is not None:
                            found[key] = stored
        return found

    def _audience(self, owner: Owner) -> Iterator[str]:
        """Name the users of this platform who hear of an owner's sessions."""
        platform, policy = self._context.platform.name, self._context.policy
        users = policy.caretakers() if owner is None else (owner.partition(":")[2],)
        # Neither somebody of another platform, nor whoever's tokens are not used here.
        return (each for each in users if policy.owner(platform, each) == owner)

    async def _attend(self, user: str, trouble: _Trouble, before: Notice | None) -> None:
        """Tell a user of a trouble, unless that has been told; say in the old message that it got worse."""
        key, platform = trouble.connection.key, self._context.platform
        now = self._context.clock()
        notice = Notice(platform.name, user, key, trouble.is_over, now, trouble.of_tokens)
        if before is not None and _is_told(before, notice):
            return
        card = self._context.lists.attention(trouble.connection, now)
        if before is not None and before.message and not before.is_over:
            if await self._note(before, replace(notice, message=before.message)):
                await self._edit(before, card)
            return
        try:
            if not self._context.policy.may_change(await platform.sender(user)):
                return
            # Noted first: of two bots, or two lives of one, only one tells it.
            if await self._note(before, notice):
                message = await platform.private_chat(user).send(card)
                await self._note(notice, replace(notice, message=message))
        except CannotWrite:
            log.warning("User %s has to open the chat to hear that %s needs a login.", user, key.server)
        except ChatError as refused:
            log.warning("A message about %s was not taken: %s", key.server, refused)
            await self._note(notice, None)

    async def _clear(self, notice: Notice, found: Connection | None, now: float) -> None:
        """Forget what was told of a session that needs nobody any more, and say so in that message."""
        if found is not None and _trouble(found, now) is not None:
            return
        if await self._note(notice, None) and found is not None:
            # Where the login was begun in that very message, the board has said the same already.
            await self._edit(notice, self._context.conversation.connected(found, now, tag(found.key.server)))

    async def _edit(self, notice: Notice, card: Card) -> None:
        if notice.message:
            with contextlib.suppress(ChatError):
                await self._context.platform.private_chat(notice.user).edit(notice.message, card)

    async def _note(self, before: Notice | None, after: Notice | None) -> bool:
        """Put a notice in the place of another; False where somebody else was faster."""
        about = {each.about for each in (before, after) if each is not None}
        noted: list[bool] = []

        def put(notices: list[Notice]) -> list[Notice]:
            known = next((each for each in notices if each.about in about), None)
            noted.append(known == before)
            if known != before:
                return notices
            others = [each for each in notices if each is not known]
            return others if after is None else [*others, after]

        await run_file_work(self._context.service.notices.change, put)
        return noted[0]


def _trouble(found: Connection, now: float) -> _Trouble | None:
    """Judge whether a session needs a person; `now` is in epoch seconds."""
    ends = found.near_end(now)
    if found.login_needed is not None or (ends is not None and ends <= now):
        return _Trouble(found, is_over=True)
    if ends is None or (not found.renews(now) and _is_short(found)):
        return None
    return _Trouble(found, is_over=False)


def _is_short(found: Connection) -> bool:
    """True where a token that cannot renew itself lasts hardly longer than the warning would be ahead."""
    if found.obtained_at is None or found.expires_at is None:
        return False
    return found.expires_at - found.obtained_at < 2 * TOKEN_WARNING_SECONDS


def _is_told(before: Notice, now: Notice) -> bool:
    # Over anew, with other tokens, is another trouble. What only ends soon may get another end with each
    # refresh, and is one trouble until it is over.
    is_same = before.is_over == now.is_over and (not now.is_over or before.of_tokens == now.of_tokens)
    return is_same and (bool(before.message) or now.at - before.at < RETRY_SECONDS)
