"""What is said beside a login: lists of servers, disconnecting, refusals. From values to cards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway_hooks.dialog.cards import Button, Card, Row, arrange_in_rows, encode_action, truncate
from gateway_hooks.dialog.policy import Refusal
from gateway_hooks.dialog.rendering import Renderer, display_name
from gateway_hooks.dialog.servers import tag_of
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.phrases import replace_unprintable
from hermes_mcp_auth_remote.values import Owner

# Discord has room for 25 buttons and as many fields.
MAX_LISTED_SERVERS = 20


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """How a server stands for a person: connected, not, or why that cannot be told."""

    server_name: str
    connection: Connection | None = None
    error: McpAuthError | None = None
    has_waiting_login: bool = False

    @property
    def has_connection(self) -> bool:
        """True where something is connected, whether it still works or not."""
        return self.connection is not None


@dataclass(frozen=True, slots=True)
class ConnectionRenderer:
    """The same way of speaking as a conversation's."""

    renderer: Renderer

    def server_choice_card(self, server_names: Sequence[str], title: str = "") -> Card:
        """Ask which server to connect."""
        words = self.renderer.messages
        if not server_names:
            return Card(words.servers_title, paragraphs=(words.no_servers,))
        buttons = [
            Button(truncate(replace_unprintable(name), 40), encode_action("connect", tag_of(name)))
            for name in server_names[:MAX_LISTED_SERVERS]
        ]
        rows: tuple[Row, ...] = ()
        said: tuple[str, ...] = ()
        if not self.renderer.capabilities.has_buttons:
            command = f"{self.renderer.capabilities.command_prefix}connect"
            rows = tuple(
                Row(command, display_name(name), is_quoted=True) for name in server_names[:MAX_LISTED_SERVERS]
            )
        if len(server_names) > MAX_LISTED_SERVERS:
            said = (self._more_servers_text(),)
        return Card(title or words.servers_title, rows, said, buttons=arrange_in_rows(buttons))

    def connections_card(
        self, statuses: Sequence[ServerStatus], owner: Owner, now: float, *, may_change: bool
    ) -> Card:
        """Say how every server stands; with buttons to change that where the person may."""
        words, listed = self.renderer.messages, statuses[:MAX_LISTED_SERVERS]
        if not statuses:
            return Card(words.connections_title, paragraphs=(words.no_servers,))
        # An account is what its provider says.
        rows = [
            Row(display_name(each.server_name), self._status_text(each, now), is_quoted=True)
            for each in listed
        ]
        said = [words.shared_note if owner is None else words.own_note]
        if len(statuses) > MAX_LISTED_SERVERS:
            said.append(self._more_servers_text())
        buttons = [self._change_button(each) for each in listed] if may_change else []
        return Card(words.connections_title, tuple(rows), tuple(said), buttons=arrange_in_rows(buttons))

    def disconnect_confirmation_card(self, server_name: str, owner: Owner) -> Card:
        """Ask whether a server is really to be disconnected."""
        words = self.renderer.messages
        buttons = (
            Button(words.confirm_disconnect_button, encode_action("yes", tag_of(server_name)), tone="bad"),
            Button(words.keep_connection_button, encode_action("no", tag_of(server_name))),
        )
        said = words.confirm_disconnect_shared if owner is None else words.confirm_disconnect_own
        title = words.confirm_disconnect_title.format(server=display_name(server_name))
        if not self.renderer.capabilities.has_buttons:
            typed = f"{self.renderer.capabilities.command_prefix}disconnect {display_name(server_name)} yes"
            said = f"{said} {words.typed_commands.format(words=typed)}"
        return Card(title, paragraphs=(said,), buttons=(buttons,))

    def still_connected_card(self, server_name: str) -> Card:
        """Say that nothing was changed."""
        words = self.renderer.messages
        return Card(
            words.connections_title,
            paragraphs=(words.still_connected.format(server=display_name(server_name)),),
        )

    def disconnected_card(self, server_name: str, *, is_revoked: bool) -> Card:
        """Say that a server is disconnected."""
        words = self.renderer.messages
        again = Button(
            words.connect_button.format(server=truncate(replace_unprintable(server_name), 40)),
            encode_action("connect", tag_of(server_name)),
        )
        return Card(
            words.disconnected_title.format(server=display_name(server_name)),
            paragraphs=(words.tokens_revoked if is_revoked else words.revocation_unconfirmed,),
            buttons=((again,),),
        )

    def refusal_card(self, reason: Refusal, waiting_count: int) -> Card:
        """Say why no other login begins now."""
        words = self.renderer.messages
        said = {"too_many": words.too_many, "too_often": words.too_often, "too_busy": words.too_busy}[reason]
        return Card(words.too_many_title, paragraphs=(said.format(count=waiting_count),), tone="bad")

    def unknown_user_card(self, user_id: str) -> Card:
        """Say who is not known, so that the operator can be asked."""
        words = self.renderer.messages
        return Card(
            words.unknown_user_title,
            paragraphs=(words.unknown_user.format(user=truncate(replace_unprintable(user_id), 60)),),
        )

    def help_card(self) -> Card:
        """Say what can be typed."""
        words, before = self.renderer.messages, self.renderer.capabilities.command_prefix
        said = words.help.format(connect=f"{before}connect", connections=f"{before}connections")
        return Card(words.help_title, paragraphs=(said,))

    def reminder_card(self, connection: Connection, now: float) -> Card:
        """Say that a session needs a person, or soon will."""
        words, name = self.renderer.messages, display_name(connection.key.server_name)
        button = Button(
            words.log_in_again_button,
            encode_action("connect", tag_of(connection.key.server_name)),
            tone="good",
        )
        if connection.login_needed is not None:
            said = words.session_over.format(reason=truncate(replace_unprintable(connection.login_needed)))
            return Card(
                words.login_needed_title.format(server=name), paragraphs=(said,), buttons=((button,),)
            )
        ends = connection.upcoming_expiry(now) or now
        clock = self.renderer.format_time(ends, now)
        if ends <= now:
            said = words.session_ended.format(clock=clock)
            return Card(
                words.login_needed_title.format(server=name), paragraphs=(said,), buttons=((button,),)
            )
        said = words.session_ends_soon.format(clock=clock)
        return Card(
            words.session_ends_soon_title.format(server=name), paragraphs=(said,), buttons=((button,),)
        )

    def _more_servers_text(self) -> str:
        return self.renderer.messages.more_servers.format(
            command=f"{self.renderer.capabilities.command_prefix}connect"
        )

    def _status_text(self, status: ServerStatus, now: float) -> str:
        words, found = self.renderer.messages, status.connection
        if status.error is not None:
            return words.status_unreadable.format(
                reason=truncate(replace_unprintable(str(status.error)), 120)
            )
        if status.has_waiting_login:
            return words.status_login_waiting
        if found is None:
            return words.status_not_connected
        if found.login_needed is not None:
            return words.status_login_needed.format(
                reason=truncate(replace_unprintable(found.login_needed), 120)
            )
        account = truncate(replace_unprintable(found.account), 60) if found.account else ""
        said = words.status_connected_as.format(account=account) if account else words.status_connected
        return f"{said}, {self.renderer.connection_lifetime(found, now)}"

    def _change_button(self, status: ServerStatus) -> Button:
        words, name = self.renderer.messages, truncate(replace_unprintable(status.server_name), 40)
        if status.has_connection:
            return Button(
                words.disconnect_server_button.format(server=name),
                encode_action("off", tag_of(status.server_name)),
            )
        return Button(
            words.connect_button.format(server=name), encode_action("connect", tag_of(status.server_name))
        )
