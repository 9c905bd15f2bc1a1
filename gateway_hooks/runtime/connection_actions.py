"""What is connected, and how it ends: lists and disconnecting, in a chat."""

from __future__ import annotations

from collections.abc import Collection

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.connection_rendering import Standing
from gateway_hooks.dialog.intents import Disconnect
from gateway_hooks.dialog.platform import Chat, Heard
from gateway_hooks.dialog.servers import named
from gateway_hooks.runtime.context import Context
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Key, Owner


class Listing:
    """Lists connections and ends them."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def show(self, heard: Heard, chat: Chat) -> None:
        """Say how every server stands; raises ChatError, ConfigError."""
        user = heard.sender.user
        owner = self._context.owner(user)
        logins = await self._context.logins()
        waiting = {each.key for each in logins if each.status == "waiting" and each.origin.user == user}
        standings = await run_file_work(self._standings, owner, waiting)
        may = self._context.policy.may_change(heard.sender)
        await self._context.reply(
            chat, heard, self._context.lists.connections(standings, owner, self._context.clock(), may=may)
        )

    def _standings(self, owner: Owner, waiting: Collection[Key]) -> list[Standing]:
        found: list[Standing] = []
        for name in self._context.servers.names():
            try:
                server = self._context.servers.find(name)
                waits = Key(name, owner) in waiting
                found.append(Standing(name, self._context.service.connection(server, owner), waits=waits))
            except McpAuthError as trouble:
                found.append(Standing(name, trouble=trouble))
        return found

    async def disconnect(self, intent: Disconnect, heard: Heard, chat: Chat) -> None:
        """Ask whether to disconnect, or do it; raises ChatError, ConfigError."""
        words, owner = self._context.words, self._context.owner(heard.sender.user)
        if not self._context.policy.may_change(heard.sender):
            card = Card(words.connections_title, paragraphs=(words.admins_only,))
            await self._context.reply(chat, heard, card)
            return
        name, is_sure = intent.server, intent.is_sure
        if name.casefold().endswith(" yes"):
            # As it is typed where there are no buttons.
            name, is_sure = name[: -len(" yes")].rstrip(), True
        try:
            server = await run_file_work(named, self._context.servers, name, intent.tag)
        except McpAuthError as trouble:
            card = self._context.conversation.trouble(words.connections_title, trouble)
            await self._context.reply(chat, heard, card)
            return
        if server is None:
            await self.show(heard, chat)
        elif is_sure is None:
            await self._context.reply(chat, heard, self._context.lists.kept(server.name))
        elif not is_sure:
            await self._context.reply(chat, heard, self._context.lists.sure(server.name, owner))
        else:
            await chat.note(words.working)
            try:
                revoked = await self._context.service.logout(server, owner)
                card = self._context.lists.disconnected(server.name, revoked=revoked)
            except McpAuthError as trouble:
                card = self._context.conversation.trouble(words.connections_title, trouble)
            await self._context.reply(chat, heard, card)
