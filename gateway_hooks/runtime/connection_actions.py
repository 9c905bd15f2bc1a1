"""Show connections in a chat and disconnect servers."""

from __future__ import annotations

from collections.abc import Collection

from gateway_hooks.dialog.connection_rendering import ServerStatus
from gateway_hooks.dialog.intents import Disconnect
from gateway_hooks.dialog.platform import Chat, IncomingEvent
from gateway_hooks.dialog.servers import Servers
from gateway_hooks.runtime.context import Context
from hermes_mcp_auth_remote.errors import McpAuthError, StoreError
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import CredentialKey, Owner, Server


class ConnectionActions:
    """Lists connections and disconnects servers."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def show_connections(self, event: IncomingEvent, chat: Chat) -> None:
        """Show the status of every server; raises ChatError, ConfigError."""
        user_id = event.sender.user_id
        owner = self._context.owner(user_id)
        logins = await self._context.logins()
        waiting_keys = {
            login.key for login in logins if login.status == "waiting" and login.origin.user_id == user_id
        }
        servers = self._context.servers_of(owner)
        statuses = await run_file_work(self._read_statuses, servers, owner, waiting_keys)
        may_change = self._context.policy.may_change(event.sender)
        await self._context.reply(
            chat,
            event,
            self._context.connection_renderer.connections_card(
                statuses, owner, self._context.clock(), may_change=may_change
            ),
        )

    def _read_statuses(
        self, servers: Servers, owner: Owner, waiting_keys: Collection[CredentialKey]
    ) -> list[ServerStatus]:
        statuses: list[ServerStatus] = []
        for name in servers.names():
            try:
                server = servers.find(name)
                has_waiting_login = CredentialKey(name, owner) in waiting_keys
                statuses.append(
                    ServerStatus(
                        name,
                        self._context.service.blocking.connection(server, owner),
                        has_waiting_login=has_waiting_login,
                        uses_machine_grant=server.options.grant != "authorization_code",
                    )
                )
            except McpAuthError as error:
                statuses.append(ServerStatus(name, error=error))
        return statuses

    async def _is_connected(self, server: Server, owner: Owner) -> bool:
        """Return True if tokens are stored, even if they cannot be read."""
        try:
            return await self._context.service.connection(server, owner) is not None
        except StoreError:
            return True

    async def disconnect(self, intent: Disconnect, event: IncomingEvent, chat: Chat) -> None:
        """Disconnect a server if the user has confirmed, else ask the user; raises ChatError, ConfigError."""
        messages, owner = self._context.messages, self._context.owner(event.sender.user_id)
        if not self._context.policy.may_change(event.sender):
            card = self._context.renderer.admins_only_card()
            await self._context.reply(chat, event, card)
            return
        name, is_confirmed = intent.server_name, intent.is_confirmed
        if name.casefold().endswith(" yes"):
            # Users confirm this way on a platform without buttons.
            name, is_confirmed = name[: -len(" yes")].rstrip(), True
        try:
            servers = self._context.servers_of(owner)
            server = await run_file_work(servers.resolve, name, intent.server_tag)
            is_configured = server is None or await run_file_work(servers.is_configured, server)
        except McpAuthError as error:
            card = self._context.renderer.error_card(messages.connections_title, error)
            await self._context.reply(chat, event, card)
            return
        if server is None:
            await self.show_connections(event, chat)
        elif not await self._is_connected(server, owner):
            if is_confirmed:
                # A login may wait. A store may hold the client of an earlier login.
                await self._context.service.logout(server, owner)
            card = self._context.connection_renderer.not_connected_card(
                server.name, is_configured=is_configured
            )
            await self._context.reply(chat, event, card)
        elif is_confirmed is None:
            await self._context.reply(
                chat, event, self._context.connection_renderer.still_connected_card(server.name)
            )
        elif not is_confirmed:
            await self._context.reply(
                chat,
                event,
                self._context.connection_renderer.disconnect_confirmation_card(server.name, owner),
            )
        else:
            await chat.show_toast(messages.please_wait)
            try:
                is_revoked = await self._context.service.logout(server, owner)
                card = self._context.connection_renderer.disconnected_card(
                    server.name, is_revoked=is_revoked, is_configured=is_configured
                )
            except McpAuthError as error:
                card = self._context.renderer.error_card(messages.connections_title, error)
            await self._context.reply(chat, event, card)
