"""What is connected, and how it ends: lists and disconnecting, in a chat."""

from __future__ import annotations

from collections.abc import Collection

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.connection_rendering import ServerStatus
from gateway_hooks.dialog.intents import Disconnect
from gateway_hooks.dialog.platform import Chat, IncomingEvent
from gateway_hooks.dialog.servers import resolve_server
from gateway_hooks.runtime.context import Context
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import CredentialKey, Owner


class ConnectionActions:
    """Lists connections and ends them."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def show_connections(self, event: IncomingEvent, chat: Chat) -> None:
        """Say how every server stands; raises ChatError, ConfigError."""
        user = event.sender.user_id
        owner = self._context.owner(user)
        logins = await self._context.logins()
        waiting = {each.key for each in logins if each.status == "waiting" and each.origin.user_id == user}
        standings = await run_file_work(self._read_statuses, owner, waiting)
        may = self._context.policy.may_change(event.sender)
        await self._context.reply(
            chat,
            event,
            self._context.connection_renderer.connections_card(
                standings, owner, self._context.clock(), may_change=may
            ),
        )

    def _read_statuses(self, owner: Owner, waiting_keys: Collection[CredentialKey]) -> list[ServerStatus]:
        found: list[ServerStatus] = []
        for name in self._context.servers.names():
            try:
                server = self._context.servers.find(name)
                waits = CredentialKey(name, owner) in waiting_keys
                found.append(
                    ServerStatus(
                        name, self._context.service.connection(server, owner), has_waiting_login=waits
                    )
                )
            except McpAuthError as trouble:
                found.append(ServerStatus(name, error=trouble))
        return found

    async def disconnect(self, intent: Disconnect, event: IncomingEvent, chat: Chat) -> None:
        """Ask whether to disconnect, or do it; raises ChatError, ConfigError."""
        words, owner = self._context.messages, self._context.owner(event.sender.user_id)
        if not self._context.policy.may_change(event.sender):
            card = Card(words.connections_title, paragraphs=(words.admins_only,))
            await self._context.reply(chat, event, card)
            return
        name, is_sure = intent.server_name, intent.is_confirmed
        if name.casefold().endswith(" yes"):
            # As it is typed where there are no buttons.
            name, is_sure = name[: -len(" yes")].rstrip(), True
        try:
            server = await run_file_work(resolve_server, self._context.servers, name, intent.server_tag)
        except McpAuthError as trouble:
            card = self._context.renderer.error_card(words.connections_title, trouble)
            await self._context.reply(chat, event, card)
            return
        if server is None:
            await self.show_connections(event, chat)
        elif is_sure is None:
            await self._context.reply(
                chat, event, self._context.connection_renderer.still_connected_card(server.name)
            )
        elif not is_sure:
            await self._context.reply(
                chat,
                event,
                self._context.connection_renderer.disconnect_confirmation_card(server.name, owner),
            )
        else:
            await chat.show_toast(words.working)
            try:
                revoked = await self._context.service.logout(server, owner)
                card = self._context.connection_renderer.disconnected_card(server.name, is_revoked=revoked)
            except McpAuthError as trouble:
                card = self._context.renderer.error_card(words.connections_title, trouble)
            await self._context.reply(chat, event, card)
