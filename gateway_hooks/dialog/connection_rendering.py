"""Render the cards that show no login: server lists, disconnects, refusals, reminders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway_hooks.dialog.cards import Button, Card, Row, arrange_in_rows, encode_action, truncate
from gateway_hooks.dialog.policy import Refusal
from gateway_hooks.dialog.rendering import Renderer, display_name
from gateway_hooks.dialog.servers import tag_of
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.phrases import replace_unprintable
from hermes_mcp_auth_remote.status import session_status
from hermes_mcp_auth_remote.values import Owner

# Discord allows 25 buttons and 25 fields.
MAX_LISTED_SERVERS = 20
# With so many servers, the card stays below 4096 characters.
MAX_REASON_CHARS = 110


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A server's status for a user: connected, not connected, or the error of reading it."""

    server_name: str
    connection: Connection | None = None
    error: McpAuthError | None = None
    has_waiting_login: bool = False
    uses_machine_grant: bool = False

    @property
    def has_connection(self) -> bool:
        """True if credentials are stored, even if they no longer work."""
        return self.connection is not None


@dataclass(frozen=True, slots=True)
class ConnectionRenderer:
    """Renders cards about connections with the texts and capabilities of a `Renderer`."""

    renderer: Renderer

    def server_choice_card(
        self, server_names: Sequence[str], title: str = "", *, can_add: bool = False
    ) -> Card:
        """Return a card that asks which server to connect. `can_add`: the user may name another address."""
        messages = self.renderer.messages
        command = f"{self.renderer.capabilities.command_prefix}connect"
        other = (messages.other_address.format(command=command),) if can_add else ()
        if not server_names:
            return Card(messages.servers_title, paragraphs=(messages.no_servers, *other))
        buttons = [
            Button(truncate(replace_unprintable(name), 40), encode_action("connect", tag_of(name)))
            for name in server_names[:MAX_LISTED_SERVERS]
        ]
        rows: tuple[Row, ...] = ()
        paragraphs: tuple[str, ...] = ()
        if not self.renderer.capabilities.has_buttons:
            rows = tuple(
                Row(command, display_name(name), is_quoted=True) for name in server_names[:MAX_LISTED_SERVERS]
            )
        if len(server_names) > MAX_LISTED_SERVERS:
            paragraphs = (self._more_servers_text(),)
        return Card(
            title or messages.servers_title, rows, (*paragraphs, *other), buttons=arrange_in_rows(buttons)
        )

    def unknown_server_card(
        self, server_names: Sequence[str], typed_name: str, suggestion: str | None
    ) -> Card:
        """Return a card that says that no server has the typed name, and offers `suggestion` or all servers.

        The card repeats the typed text only if there is a suggestion. If no name is similar to the text, the
        text may be a part of a code.
        """
        messages = self.renderer.messages
        if suggestion is None:
            card = self.server_choice_card(server_names, messages.unknown_server_title)
            return replace(card, paragraphs=(messages.servers_title, *card.paragraphs))
        title = messages.unknown_server_similar_title.format(name=display_name(typed_name))
        card = self.server_choice_card([suggestion], title)
        return replace(
            card, paragraphs=(messages.did_you_mean.format(server=display_name(suggestion)), *card.paragraphs)
        )

    def scheme_missing_card(self) -> Card:
        """Return a card for an address without https://. It does not repeat the address."""
        messages = self.renderer.messages
        command = f"{self.renderer.capabilities.command_prefix}connect"
        text = messages.address_lacks_scheme.format(command=command)
        return Card(messages.unknown_server_title, paragraphs=(text,))

    def connections_card(
        self, statuses: Sequence[ServerStatus], owner: Owner, now: float, *, may_change: bool
    ) -> Card:
        """Return a card with every server's status, and buttons to change it if `may_change`."""
        messages, listed_statuses = self.renderer.messages, statuses[:MAX_LISTED_SERVERS]
        if not statuses:
            return Card(messages.connections_title, paragraphs=(messages.no_servers,))
        # Quote the status, because the account name in it comes from the authorization server.
        rows = [
            Row(display_name(status.server_name), self._status_text(status, now), is_quoted=True)
            for status in listed_statuses
        ]
        paragraphs = [messages.shared_note if owner is None else messages.own_note]
        if len(statuses) > MAX_LISTED_SERVERS:
            paragraphs.append(self._more_servers_text())
        buttons = [self._change_button(status) for status in listed_statuses] if may_change else []
        if buttons and not self.renderer.capabilities.has_buttons:
            commands = (self.renderer.command("connect"), self.renderer.command("disconnect"))
            paragraphs.append(messages.typed_changes.format(connect=commands[0], disconnect=commands[1]))
        return Card(
            messages.connections_title, tuple(rows), tuple(paragraphs), buttons=arrange_in_rows(buttons)
        )

    def disconnect_confirmation_card(self, server_name: str, owner: Owner) -> Card:
        """Return a card that asks the user to confirm a disconnect."""
        messages = self.renderer.messages
        buttons = (
            Button(messages.confirm_disconnect_button, encode_action("yes", tag_of(server_name)), tone="bad"),
            Button(messages.keep_connection_button, encode_action("no", tag_of(server_name))),
        )
        text = messages.confirm_disconnect_shared if owner is None else messages.confirm_disconnect_own
        title = messages.confirm_disconnect_title.format(server=display_name(server_name))
        if not self.renderer.capabilities.has_buttons:
            command = f"{self.renderer.capabilities.command_prefix}disconnect {display_name(server_name)} yes"
            text = f"{text} {messages.typed_commands.format(words=command)}"
        return Card(title, paragraphs=(text,), buttons=(buttons,))

    def still_connected_card(self, server_name: str) -> Card:
        """Return a card that says that nothing was changed."""
        messages = self.renderer.messages
        return Card(
            messages.connections_title,
            paragraphs=(messages.still_connected.format(server=display_name(server_name)),),
        )

    def disconnected_card(self, server_name: str, *, is_revoked: bool, is_configured: bool = True) -> Card:
        """Return a card that says that a server is disconnected, and whether its tokens are revoked.

        A server that the operator has not configured gets no button: its entry is gone.
        """
        messages = self.renderer.messages
        card = Card(
            messages.disconnected_title.format(server=display_name(server_name)),
            paragraphs=(messages.tokens_revoked if is_revoked else messages.revocation_unconfirmed,),
            buttons=((self._connect_button(server_name),),) if is_configured else (),
        )
        return self.renderer.with_typed_commands(card)

    def not_connected_card(self, server_name: str, *, is_configured: bool = True) -> Card:
        """Return a card that says that a server is not connected, so that there is nothing to disconnect."""
        messages = self.renderer.messages
        card = Card(
            messages.failed_title.format(server=display_name(server_name)),
            paragraphs=(messages.nothing_to_disconnect,),
            buttons=((self._connect_button(server_name),),) if is_configured else (),
        )
        return self.renderer.with_typed_commands(card)

    def _connect_button(self, server_name: str) -> Button:
        label = self.renderer.messages.connect_button.format(
            server=truncate(replace_unprintable(server_name), 40)
        )
        return self.renderer.connect_button(label, server_name, tag_of(server_name))

    def refusal_card(self, reason: Refusal, waiting_count: int) -> Card:
        """Return a card that says why no other login can start now."""
        messages = self.renderer.messages
        title, text = {
            "too_many": (messages.too_many_title, messages.too_many),
            "too_often": (messages.too_often_title, messages.too_often),
            "too_busy": (messages.too_busy_title, messages.too_busy),
        }[reason]
        return Card(title, paragraphs=(text.format(count=waiting_count),), tone="bad")

    def unknown_user_card(self, user_id: str, code: str = "") -> Card:
        """Return a card with the user's id, and a code with which an administrator can admit the user."""
        messages = self.renderer.messages
        paragraphs = [messages.unknown_user.format(user=truncate(replace_unprintable(user_id)))]
        if code:
            approve = f"{self.renderer.capabilities.word_prefix}approve"
            paragraphs.append(messages.unknown_user_code.format(approve=approve, code=code))
        return Card(messages.unknown_user_title, paragraphs=tuple(paragraphs))

    def help_card(self) -> Card:
        """Return a card that lists the commands."""
        messages, prefix = self.renderer.messages, self.renderer.capabilities.command_prefix
        text = messages.help.format(connect=f"{prefix}connect", connections=f"{prefix}connections")
        return Card(messages.help_title, paragraphs=(text,))

    def hint_card(self, waiting_server: str | None = None) -> Card:
        """Return a one-line card: the reply to a message that the bot cannot use.

        `waiting_server`: a login to this server waits.
        """
        if waiting_server is not None:
            return Card(self.renderer.messages.hint_waiting.format(server=display_name(waiting_server)))
        prefix = self.renderer.capabilities.command_prefix
        return Card(self.renderer.messages.hint.format(connect=f"{prefix}connect"))

    def reminder_card(self, connection: Connection, now: float) -> Card:
        """Return a card that says that a session needs a new login now or soon."""
        messages, name = self.renderer.messages, display_name(connection.key.server_name)
        server_name = connection.key.server_name
        button = self.renderer.connect_button(
            messages.log_in_again_button, server_name, tag_of(server_name), tone="good"
        )
        session = session_status(connection, now)
        clock = self.renderer.format_time(session.ends_at or now, now)
        title = messages.login_needed_title
        if connection.login_needed is not None:
            text = messages.session_over.format(reason=truncate(replace_unprintable(connection.login_needed)))
        elif session.is_over:
            text = messages.session_ended.format(clock=clock)
        else:
            title, text = messages.session_ends_soon_title, messages.session_ends_soon.format(clock=clock)
        card = Card(title.format(server=name), paragraphs=(text,), buttons=((button,),))
        return self.renderer.with_typed_commands(card)

    def _more_servers_text(self) -> str:
        return self.renderer.messages.more_servers.format(
            command=f"{self.renderer.capabilities.command_prefix}connect"
        )

    def _status_text(self, status: ServerStatus, now: float) -> str:
        messages, connection = self.renderer.messages, status.connection
        if status.error is not None:
            return messages.status_unreadable.format(
                reason=truncate(replace_unprintable(str(status.error)), MAX_REASON_CHARS)
            )
        if status.has_waiting_login:
            return messages.status_login_waiting
        if connection is None:
            return messages.status_not_connected
        if connection.login_needed is not None:
            return messages.status_login_needed.format(
                reason=truncate(replace_unprintable(connection.login_needed), MAX_REASON_CHARS)
            )
        lifetime = self.renderer.connection_lifetime(
            connection, now, uses_machine_grant=status.uses_machine_grant
        )
        if session_status(connection, now, uses_machine_grant=status.uses_machine_grant).is_over:
            return lifetime
        account = truncate(replace_unprintable(connection.account), 60) if connection.account else ""
        text = messages.status_connected_as.format(account=account) if account else messages.status_connected
        return f"{text}, {lifetime}"

    def _change_button(self, status: ServerStatus) -> Button:
        messages, name = self.renderer.messages, truncate(replace_unprintable(status.server_name), 40)
        if status.has_connection:
            return Button(
                messages.disconnect_server_button.format(server=name),
                encode_action("off", tag_of(status.server_name)),
            )
        return Button(
            messages.connect_button.format(server=name), encode_action("connect", tag_of(status.server_name))
        )
