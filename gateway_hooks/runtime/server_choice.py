"""Find the server that a user names by its name, button or address, and check that they may log in to it."""

from __future__ import annotations

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.intents import Connect
from gateway_hooks.dialog.platform import Sender
from gateway_hooks.dialog.policy import allows_urls, may_log_in
from gateway_hooks.dialog.servers import resolve_server, similar_server
from gateway_hooks.runtime.admission import Admission
from gateway_hooks.runtime.context import Context
from gateway_hooks.runtime.user_servers import check_public_url, is_url, lacks_scheme
from hermes_mcp_auth_remote.errors import ConfigError, UnsafeUrl
from hermes_mcp_auth_remote.oauth.urls import safe_url
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Server


class ServerChoice:
    """Finds the servers that users name."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def choose(self, intent: Connect, sender: Sender) -> Server | Card:
        """Return the server that a user names, or the card that says why there is none.

        Raises ConfigError for an invalid address or entry, and StoreError.
        """
        name, tag = intent.server_name, intent.server_tag
        if not is_url(name) or tag:
            # Most users name a configured server: this reads no credentials.
            server = await run_file_work(resolve_server, self._context.servers, name, tag)
            if server is not None:
                return server
        url = _check_address(name) if is_url(name) and not tag else ""
        servers = await self._context.servers_of_user(sender.user_id)
        server = await run_file_work(servers.resolve, url or name, tag)
        if server is None and not url:
            return await self._no_server_card(name, sender)
        if server is not None and await run_file_work(servers.is_configured, server):
            return server
        if not may_log_in(self._context.policy, sender, is_configured=False):
            return self._refusal_card(sender)
        if server is None:
            return await run_file_work(servers.new_server, url)
        check_public_url(server.url)
        return server

    async def _no_server_card(self, name: str, sender: Sender) -> Card:
        """Return the card for a name that no server has, or for no name."""
        renderer = self._context.connection_renderer
        servers = self._context.servers_of(self._context.owner(sender.user_id))
        names = await run_file_work(servers.names)
        similar_name = similar_server(names, name) if name else None
        # A host alone may be a mistyped name. With a path, it is an address.
        if lacks_scheme(name) and ("/" in name or similar_name is None):
            return renderer.scheme_missing_card()
        if name and names:
            return renderer.unknown_server_card(names, name, similar_name)
        can_add = may_log_in(self._context.policy, sender, is_configured=False)
        return renderer.server_choice_card(names, can_add=can_add)

    def _refusal_card(self, sender: Sender) -> Card:
        """Return the card for a user who may not connect a server that the operator has not configured."""
        messages, policy = self._context.messages, self._context.policy
        texts: tuple[str, ...] = (messages.addresses_for_admins,)
        if not allows_urls(policy):
            # Only `serve` reads the key that the advice names.
            is_operator = isinstance(policy, Admission) and policy.is_admin(sender)
            texts = (messages.addresses_off, *((messages.addresses_off_advice,) if is_operator else ()))
        return Card(messages.address_refused_title, paragraphs=texts, tone="bad")


def _check_address(text: str) -> str:
    """Return a typed address as a safe URL; raises ConfigError, which does not repeat it."""
    try:
        return safe_url(text.strip(), "address")
    except UnsafeUrl as error:
        raise ConfigError(str(error), "Send the server's https address.") from None
