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
from gateway_hooks.dialog.servers import tag_of
from gateway_hooks.runtime.context import Context
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import TOKEN_WARNING_SECONDS, Connection
from hermes_mcp_auth_remote.store.files.notice_files import Notice
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import CredentialKey, Owner

CHECK_INTERVAL_SECONDS = 60.0
# Where the person has to open the chat first, or we were killed in the very act.
RETRY_SECONDS = 3600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _LoginNeed:
    """Why a person is needed: the session is over, or ends soon."""

    connection: Connection
    is_over: bool

    @property
    def token_marker(self) -> float | None:
        """What tells these tokens from any that come later: their end, else when they came."""
        found = self.connection
        return found.expires_at if found.expires_at is not None else found.obtained_at


class ExpiryReminders:
    """Looks after the sessions of one platform's people."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self) -> None:
        """Look once a minute, until cancelled."""
        while True:
            try:
                await self.check_sessions()
            except McpAuthError as trouble:
                log.warning("Whether a session needs a login could not be told: %s", trouble)
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)

    async def check_sessions(self) -> None:
        """Look at all sessions once, and tell what has not been told; raises ConfigError, StoreError."""
        context, now = self._context, self._context.clock()
        sessions = await run_file_work(self._read_connections)
        told = {
            each.deduplication_key: each for each in await run_file_work(context.service.notices.list_all)
        }
        # Somebody is at it, or has just been asked and said no.
        asked = {(each.key, each.origin.user_id) for each in await context.logins() if each.status != "done"}
        for key, found in sessions.items():
            trouble = _login_need(found, now)
            if trouble is None:
                continue
            for user in self._recipients(key.owner):
                if (key, user) not in asked:
                    await self._remind(user, trouble, told.get((context.platform.name, user, key)))
        for notice in told.values():
            if notice.platform == context.platform.name:
                await self._clear_reminder(notice, sessions.get(notice.key), now)

    def _read_connections(self) -> dict[CredentialKey, Connection]:
        """Return what is stored of the servers that people can log in to."""
        service, found = self._context.service, dict[CredentialKey, Connection]()
        keys = service.keys()
        for name in self._context.servers.names():
            with contextlib.suppress(McpAuthError):
                # What cannot be read is told where it is asked for.
                server = self._context.servers.find(name)
                if server.options.grant == "authorization_code":
                    for key in keys:
                        stored = service.connection(server, key.owner) if key.server_name == name else None
                        if stored is not None:
                            found[key] = stored
        return found

    def _recipients(self, owner: Owner) -> Iterator[str]:
        """Name the users of this platform who hear of an owner's sessions."""
        platform, policy = self._context.platform.name, self._context.policy
        users = policy.reminder_recipients() if owner is None else (owner.partition(":")[2],)
        # Neither somebody of another platform, nor whoever's tokens are not used here.
        return (each for each in users if policy.owner(platform, each) == owner)

    async def _remind(self, user_id: str, need: _LoginNeed, previous: Notice | None) -> None:
        """Tell a user of a trouble, unless that has been told; say in the old message that it got worse."""
        key, platform = need.connection.key, self._context.platform
        now = self._context.clock()
        notice = Notice(platform.name, user_id, key, need.is_over, now, need.token_marker)
        if previous is not None and _is_already_sent(previous, notice):
            return
        card = self._context.connection_renderer.reminder_card(need.connection, now)
        if previous is not None and previous.message and not previous.is_over:
            if await self._replace_notice(previous, replace(notice, message=previous.message)):
                await self._edit_message(previous, card)
            return
        try:
            if not self._context.policy.may_change(await platform.fetch_sender(user_id)):
                return
            # Noted first: of two bots, or two lives of one, only one tells it.
            if await self._replace_notice(previous, notice):
                message = await platform.private_chat(user_id).send(card)
                await self._replace_notice(notice, replace(notice, message=message))
        except CannotWrite:
            log.warning(
                "User %s has to open the chat to hear that %s needs a login.", user_id, key.server_name
            )
        except ChatError as refused:
            log.warning("A message about %s was not taken: %s", key.server_name, refused)
            await self._replace_notice(notice, None)

    async def _clear_reminder(self, notice: Notice, connection: Connection | None, now: float) -> None:
        """Forget what was told of a session that needs nobody any more, and say so in that message."""
        if connection is not None and _login_need(connection, now) is not None:
            return
        if await self._replace_notice(notice, None) and connection is not None:
            # Where the login was begun in that very message, the board has said the same already.
            await self._edit_message(
                notice,
                self._context.renderer.connected_card(connection, now, tag_of(connection.key.server_name)),
            )

    async def _edit_message(self, notice: Notice, card: Card) -> None:
        if notice.message:
            with contextlib.suppress(ChatError):
                await self._context.platform.private_chat(notice.user).edit(notice.message, card)

    async def _replace_notice(self, previous: Notice | None, replacement: Notice | None) -> bool:
        """Put a notice in the place of another; False where somebody else was faster."""
        about = {each.deduplication_key for each in (previous, replacement) if each is not None}
        noted: list[bool] = []

        def swap_notice(notices: list[Notice]) -> list[Notice]:
            known = next((each for each in notices if each.deduplication_key in about), None)
            noted.append(known == previous)
            if known != previous:
                return notices
            others = [each for each in notices if each is not known]
            return others if replacement is None else [*others, replacement]

        await run_file_work(self._context.service.notices.change, swap_notice)
        return noted[0]


def _login_need(connection: Connection, now: float) -> _LoginNeed | None:
    """Judge whether a session needs a person; `now` is in epoch seconds."""
    ends = connection.upcoming_expiry(now)
    if connection.login_needed is not None or (ends is not None and ends <= now):
        return _LoginNeed(connection, is_over=True)
    if ends is None or (not connection.can_refresh_at(now) and _is_short_lived(connection)):
        return None
    return _LoginNeed(connection, is_over=False)


def _is_short_lived(connection: Connection) -> bool:
    """True where a token that cannot renew itself lasts hardly longer than the warning would be ahead."""
    if connection.obtained_at is None or connection.expires_at is None:
        return False
    return connection.expires_at - connection.obtained_at < 2 * TOKEN_WARNING_SECONDS


def _is_already_sent(previous: Notice, current: Notice) -> bool:
    # Over anew, with other tokens, is another trouble. What only ends soon may get another end with each
    # refresh, and is one trouble until it is over.
    is_same = previous.is_over == current.is_over and (
        not current.is_over or previous.of_tokens == current.of_tokens
    )
    return is_same and (bool(previous.message) or current.at - previous.at < RETRY_SECONDS)
