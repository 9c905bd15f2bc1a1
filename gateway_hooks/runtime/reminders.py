"""Remind users when a session has ended or ends soon and needs a new login.

The reminder goes to the owner of the tokens. For shared tokens, it goes to the policy's
`reminder_recipients`. A user gets one reminder for each state (ends soon, has ended) of a session, also
across restarts and processes. When the session works again, the bot edits the reminder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.platform import CannotWrite, ChatError
from gateway_hooks.dialog.policy import allows_urls, may_log_in
from gateway_hooks.dialog.servers import tag_of
from gateway_hooks.runtime.context import Context
from gateway_hooks.runtime.user_servers import stored_server
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.hermes_home import file_stem
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.status import session_status
from hermes_mcp_auth_remote.store.protocol import DueSession, Notice
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import CredentialKey, Owner, Server

CHECK_INTERVAL_SECONDS = 60.0
# If the bot may not write to a user, or if a process stops before it sends the message, the delay before the
# next try.
RETRY_SECONDS = 3600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _LoginNeed:
    """Why a session needs a login: it is over, or ends soon."""

    connection: Connection
    is_over: bool

    @property
    def token_marker(self) -> float | None:
        """The time that differs between these tokens and later ones: expiry, else issue (epoch seconds)."""
        connection = self.connection
        return connection.expires_at if connection.expires_at is not None else connection.obtained_at


@dataclass(frozen=True, slots=True)
class _ReadSession:
    """A due session, its configured server, and its connection (None if this bot does not offer it)."""

    session: DueSession
    server: Server | None
    connection: Connection | None


class _SessionNeeds:
    """The sessions that need a login. `update` reads each session once when it becomes due or changes."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._read_sessions: dict[CredentialKey, _ReadSession] = {}
        self._servers: dict[str, Server] = {}
        self._configured_stems = set[str]()
        self.needs: dict[CredentialKey, _LoginNeed] = {}

    def update(self, now: float) -> None:
        """Read the sessions that have become due or changed (`now`: epoch seconds).

        Raises ConfigError, StoreError. Blocks: do not call it on the event loop.
        """
        self._servers = self._list_servers()
        self._configured_stems = self._context.servers_of(None).configured_stems()
        read_sessions = dict[CredentialKey, _ReadSession]()
        needs = dict[CredentialKey, _LoginNeed]()
        for session in self._context.service.blocking.due_sessions(now):
            server = self._servers.get(session.key.server_name)
            read_session = self._read_sessions.get(session.key)
            if read_session is None or (read_session.session, read_session.server) != (session, server):
                read_session = _ReadSession(session, server, self._read_connection(session.key))
            read_sessions[session.key] = read_session
            if read_session.connection is not None:
                need = _login_need(read_session.connection, now)
                if need is not None:
                    needs[session.key] = need
        self._read_sessions, self.needs = read_sessions, needs

    def _list_servers(self) -> dict[str, Server]:
        """Return the servers that users can log in to, by name."""
        servers = dict[str, Server]()
        for name in self._context.servers.names():
            with contextlib.suppress(McpAuthError):
                # Skip an invalid entry: /connections shows its error.
                server = self._context.servers.find(name)
                if server.options.grant == "authorization_code":
                    servers[name] = server
        return servers

    def is_configured(self, key: CredentialKey) -> bool:
        """Return True if the operator has configured the server of a session."""
        return file_stem(key.server_name) in self._configured_stems

    def _read_connection(self, key: CredentialKey) -> Connection | None:
        with contextlib.suppress(McpAuthError):
            # Skip unreadable files: /connections shows the error.
            server = self.find_server(key)
            if server is not None:
                return self._context.service.blocking.connection(server, key.owner)
        return None

    def find_server(self, key: CredentialKey) -> Server | None:
        """Return the server of a session that this bot offers; raises StoreError. May read the store."""
        server = self._servers.get(key.server_name)
        return server if server is not None or self.is_configured(key) else self._stored_server(key)

    def _stored_server(self, key: CredentialKey) -> Server | None:
        """Return a server that a user has connected by its address; raises StoreError."""
        if key.owner is None and not allows_urls(self._context.policy):
            return None
        server = stored_server(self._context.service, key.server_name, key.owner)
        return server if server is not None and server.is_public_only else None


class ExpiryReminders:
    """Reminds one platform's users of sessions that need a login."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sessions = _SessionNeeds(context)

    async def run(self) -> None:
        """Check the sessions once a minute, until cancelled."""
        while True:
            try:
                await self.check_sessions()
            except McpAuthError as error:
                log.warning("The sessions could not be checked: %s", error)
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)

    async def check_sessions(self) -> None:
        """Check all sessions once and send missing reminders; raises ConfigError, StoreError."""
        context, now = self._context, self._context.clock()
        await run_file_work(self._sessions.update, now)
        needs = self._sessions.needs
        notices = {notice.deduplication_key: notice for notice in await context.service.list_notices()}
        # These users are logging in already, or have recently cancelled or failed.
        busy_users = (
            {(login.key, login.origin.user_id) for login in await context.logins() if login.status != "done"}
            if needs
            else set[tuple[CredentialKey, str]]()
        )
        for key, need in needs.items():
            for user_id in self._recipients(key.owner):
                if (key, user_id) not in busy_users:
                    await self._remind(user_id, need, notices.get((context.platform.name, user_id, key)))
        for notice in notices.values():
            if notice.platform == context.platform.name and notice.key not in needs:
                await self._clear_reminder(notice, now)

    def _recipients(self, owner: Owner) -> Iterator[str]:
        """Return the users of this platform to remind of an owner's sessions."""
        platform, policy = self._context.platform.name, self._context.policy
        user_ids = policy.reminder_recipients() if owner is None else (owner.partition(":")[2],)
        # Skip users of other platforms and users whose tokens this bot does not use.
        return (user_id for user_id in user_ids if policy.owner(platform, user_id) == owner)

    async def _remind(self, user_id: str, need: _LoginNeed, previous: Notice | None) -> None:
        """Remind a user once. If the session has ended since an earlier reminder, edit that reminder."""
        key, platform = need.connection.key, self._context.platform
        now = self._context.clock()
        notice = Notice(platform.name, user_id, key, need.is_over, now, need.token_marker)
        if previous is not None and _is_already_sent(previous, notice):
            return
        card = self._context.connection_renderer.reminder_card(need.connection, now)
        if previous is not None and previous.message and not previous.is_over:
            if await self._context.service.replace_notice(
                previous, replace(notice, message=previous.message)
            ):
                await self._edit_message(previous, card)
            return
        try:
            sender, is_configured = await platform.fetch_sender(user_id), self._sessions.is_configured(key)
            if not may_log_in(self._context.policy, sender, is_configured=is_configured):
                return
            # Store the notice first, so that only one of several processes sends the message.
            if await self._context.service.replace_notice(previous, notice):
                message_id = await platform.private_chat(user_id).send(card)
                await self._context.service.replace_notice(notice, replace(notice, message=message_id))
        except CannotWrite:
            log.warning(
                "The bot may not remind user %s that %s needs a login. The user must open the chat first.",
                user_id,
                key.server_name,
            )
        except ChatError as error:
            log.warning("A reminder about %s could not be sent: %s", key.server_name, error)
            await self._context.service.replace_notice(notice, None)

    async def _clear_reminder(self, notice: Notice, now: float) -> None:
        """Delete the notice of a session that needs no login any more, and edit its message."""
        connection = None
        with contextlib.suppress(McpAuthError):
            server = await run_file_work(self._sessions.find_server, notice.key)
            if server is not None:
                connection = await self._context.service.connection(server, notice.key.owner)
        if await self._context.service.replace_notice(notice, None) and connection is not None:
            # If this message also shows the prompt of the login, `PromptMessages` has already updated it.
            # This edit repeats that update.
            await self._edit_message(
                notice,
                self._context.renderer.connected_card(connection, now, tag_of(connection.key.server_name)),
            )

    async def _edit_message(self, notice: Notice, card: Card) -> None:
        if notice.message:
            with contextlib.suppress(ChatError):
                await self._context.platform.private_chat(notice.user).edit(notice.message, card)


def _login_need(connection: Connection, now: float) -> _LoginNeed | None:
    """Return why a session needs a login; None if it needs none. `now`: epoch seconds."""
    action = session_status(connection, now).action
    return None if action == "none" else _LoginNeed(connection, is_over=action == "log in")


def _is_already_sent(previous: Notice, current: Notice) -> bool:
    # If a session with other tokens has ended, it needs a new reminder. A session that ends soon may get a
    # new expiry with each refresh, but needs only one reminder until it is over.
    is_same = previous.is_over == current.is_over and (
        not current.is_over or previous.of_tokens == current.of_tokens
    )
    return is_same and (bool(previous.message) or current.at - previous.at < RETRY_SECONDS)
