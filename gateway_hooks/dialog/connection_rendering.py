"""What is said beside a login: lists of servers, disconnecting, refusals. From values to cards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway_hooks.dialog.cards import Button, Card, Row, action, in_rows, short
from gateway_hooks.dialog.policy import Refusal
from gateway_hooks.dialog.rendering import Conversation, name_of
from gateway_hooks.dialog.servers import tag
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.phrases import shown
from hermes_mcp_auth_remote.values import Owner

# Discord has room for 25 buttons and as many fields.
MAX_LISTED = 20


@dataclass(frozen=True, slots=True)
class Standing:
    """How a server stands for a person: connected, not, or why that cannot be told."""

    server: str
    connection: Connection | None = None
    trouble: McpAuthError | None = None
    waits: bool = False

    @property
    def holds(self) -> bool:
        """True where something is connected, whether it still works or not."""
        return self.connection is not None


@dataclass(frozen=True, slots=True)
class Lists:
    """The same way of speaking as a conversation's."""

    conversation: Conversation

    def servers(self, names: Sequence[str], title: str = "") -> Card:
        """Ask which server to connect."""
        words = self.conversation.words
        if not names:
            return Card(words.servers_title, paragraphs=(words.no_servers,))
        buttons = [
            Button(short(shown(name), 40), action("connect", tag(name))) for name in names[:MAX_LISTED]
        ]
        rows: tuple[Row, ...] = ()
        said: tuple[str, ...] = ()
        if not self.conversation.can.buttons:
            command = f"{self.conversation.can.commands}connect"
            rows = tuple(Row(command, name_of(name), quoted=True) for name in names[:MAX_LISTED])
        if len(names) > MAX_LISTED:
            said = (self._more(),)
        return Card(title or words.servers_title, rows, said, buttons=in_rows(buttons))

    def connections(self, standings: Sequence[Standing], owner: Owner, now: float, *, may: bool) -> Card:
        """Say how every server stands; with buttons to change that where the person may."""
        words, listed = self.conversation.words, standings[:MAX_LISTED]
        if not standings:
            return Card(words.connections_title, paragraphs=(words.no_servers,))
        # An account is what its provider says.
        rows = [Row(name_of(each.server), self._standing(each, now), quoted=True) for each in listed]
        said = [words.shared_note if owner is None else words.own_note]
        if len(standings) > MAX_LISTED:
            said.append(self._more())
        buttons = [self._change(each) for each in listed] if may else []
        return Card(words.connections_title, tuple(rows), tuple(said), buttons=in_rows(buttons))

    def sure(self, server: str, owner: Owner) -> Card:
        """Ask whether a server is really to be disconnected."""
        words = self.conversation.words
        buttons = (
            Button(words.yes, action("yes", tag(server)), tone="bad"),
            Button(words.no, action("no", tag(server))),
        )
        said = words.sure_shared if owner is None else words.sure_own
        title = words.sure_title.format(server=name_of(server))
        if not self.conversation.can.buttons:
            typed = f"{self.conversation.can.commands}disconnect {name_of(server)} yes"
            said = f"{said} {words.by_word.format(words=typed)}"
        return Card(title, paragraphs=(said,), buttons=(buttons,))

    def kept(self, server: str) -> Card:
        """Say that nothing was changed."""
        words = self.conversation.words
        return Card(words.connections_title, paragraphs=(words.kept.format(server=name_of(server)),))

    def disconnected(self, server: str, *, revoked: bool) -> Card:
        """Say that a server is disconnected."""
        words = self.conversation.words
        again = Button(
            words.connect_one.format(server=short(shown(server), 40)), action("connect", tag(server))
        )
        return Card(
            words.disconnected_title.format(server=name_of(server)),
            paragraphs=(words.revoked if revoked else words.not_revoked,),
            buttons=((again,),),
        )

    def refused(self, why: Refusal, count: int) -> Card:
        """Say why no other login begins now."""
        words = self.conversation.words
        said = {"too_many": words.too_many, "too_often": words.too_often, "too_busy": words.too_busy}[why]
        return Card(words.too_many_title, paragraphs=(said.format(count=count),), tone="bad")

    def stranger(self, user: str) -> Card:
        """Say who is not known, so that the operator can be asked."""
        words = self.conversation.words
        return Card(words.stranger_title, paragraphs=(words.stranger.format(user=short(shown(user), 60)),))

    def help(self) -> Card:
        """Say what can be typed."""
        words, before = self.conversation.words, self.conversation.can.commands
        said = words.help.format(connect=f"{before}connect", connections=f"{before}connections")
        return Card(words.help_title, paragraphs=(said,))

    def attention(self, connection: Connection, now: float) -> Card:
        """Say that a session needs a person, or soon will."""
        words, name = self.conversation.words, name_of(connection.key.server)
        button = Button(words.log_in_again, action("connect", tag(connection.key.server)), tone="good")
        if connection.login_needed is not None:
            said = words.attention_over.format(reason=short(shown(connection.login_needed)))
            return Card(words.attention_title.format(server=name), paragraphs=(said,), buttons=((button,),))
        ends = connection.near_end(now) or now
        clock = self.conversation.clock(ends, now)
        if ends <= now:
            said = words.attention_ended.format(clock=clock)
            return Card(words.attention_title.format(server=name), paragraphs=(said,), buttons=((button,),))
        said = words.attention_ends.format(clock=clock)
        return Card(words.ends_title.format(server=name), paragraphs=(said,), buttons=((button,),))

    def _more(self) -> str:
        return self.conversation.words.more.format(command=f"{self.conversation.can.commands}connect")

    def _standing(self, standing: Standing, now: float) -> str:
        words, found = self.conversation.words, standing.connection
        if standing.trouble is not None:
            return words.is_unreadable.format(reason=short(shown(str(standing.trouble)), 120))
        if standing.waits:
            return words.waits
        if found is None:
            return words.is_not_connected
        if found.login_needed is not None:
            return words.needs_login.format(reason=short(shown(found.login_needed), 120))
        account = short(shown(found.account), 60) if found.account else ""
        said = words.is_connected_as.format(account=account) if account else words.is_connected
        return f"{said}, {self.conversation.lasts(found, now)}"

    def _change(self, standing: Standing) -> Button:
        words, name = self.conversation.words, short(shown(standing.server), 40)
        if standing.holds:
            return Button(words.disconnect_one.format(server=name), action("off", tag(standing.server)))
        return Button(words.connect_one.format(server=name), action("connect", tag(standing.server)))
