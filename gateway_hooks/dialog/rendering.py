"""Render a login as cards, for any platform: a pure function of the login and the time.

This module decides what the bot tells a user; the sentences are in `messages`. `intents` parses events, and
`runtime.dispatcher` acts on them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from gateway_hooks.dialog.cards import (
    MAX_VALUE_CHARS,
    Button,
    Card,
    Link,
    Row,
    arrange_in_rows,
    decode_action,
    encode_action,
    time_mark,
    truncate,
)
from gateway_hooks.dialog.intents import COMMANDS_BY_VERB
from gateway_hooks.dialog.messages import ENGLISH, Messages
from gateway_hooks.dialog.platform import Capabilities
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login, PromptReason
from hermes_mcp_auth_remote.oauth.client import supports_device_flow
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.oauth.urls import host_of, is_loopback_host
from hermes_mcp_auth_remote.phrases import (
    display_scope,
    display_url,
    other_hosts,
    quote_server_message,
    replace_unprintable,
)
from hermes_mcp_auth_remote.status import session_status

# The bot updates the remaining time of a prompt every five minutes and at these marks, in seconds.
COUNTDOWN_INTERVAL_SECONDS, COUNTDOWN_MARKS_SECONDS = 300, (120, 60)
# A platform with time tags knows the user's time zone. If a time is nearer than this, show no date with it.
TIME_OF_DAY_SECONDS = 43_200
# The year 9999: no platform shows later times.
MAX_TAGGED_SECONDS = 253_402_300_000
# The longest text that a Telegram button can copy to the clipboard.
MAX_COPY_CHARS = 256
# ISO/IEC 18004 version 22 at level L, 105 modules wide: the largest that a phone reads from a screen.
MAX_QR_BYTES = 1003
# Enough for an error message with a file name or a URL.
MAX_ERROR_CHARS = 600


@dataclass(frozen=True, slots=True)
class Renderer:
    """Renders logins with these texts, for a platform with these capabilities."""

    capabilities: Capabilities = field(default_factory=Capabilities)
    messages: Messages = ENGLISH

    def prompt_card(
        self,
        login: Login,
        now: float,
        *,
        may_use_device: bool = True,
        reason: PromptReason = "unknown",
    ) -> Card:
        """Return the prompt of a login that waits or exchanges its code. `now`: epoch seconds.

        With names of usual length, the card has at most ten lines of 40 characters: it must fit on a phone.
        """
        messages, device_authorization = self.messages, login.device_authorization
        title = messages.connect_title.format(server=display_name(login.key.server_name))
        if login.status == "exchanging":
            return Card(title, paragraphs=(messages.exchanging,))
        card = Card(title, self._prompt_rows(login, now), intro=self._reason_text(login, reason))
        if device_authorization is not None:
            return self._device_prompt_card(card, login, device_authorization)
        is_unreachable = is_loopback_host(host_of(login.request.redirect_uri))
        buttons = [Button(messages.qr_button, encode_action("qr", login.id))]
        if self.capabilities.has_forms:
            buttons.insert(
                0,
                Button(messages.paste_button, encode_action("form", login.id), tone="good", opens_form=True),
            )
        if may_use_device and supports_device_flow(login.authorization_server):
            buttons.append(Button(messages.use_device_code_button, encode_action("device", login.id)))
        return self.with_typed_commands(
            replace(
                card,
                steps=(
                    messages.approve_for_all_step if login.key.owner is None else messages.approve_step,
                    messages.copy_unreachable_step if is_unreachable else messages.copy_last_step,
                    self._answer_step(),
                ),
                link=Link(messages.open_page_button, login.authorization_url),
                buttons=arrange_in_rows([*buttons, self._cancel_button(login)]),
            )
        )

    def _prompt_rows(self, login: Login, now: float) -> tuple[Row, ...]:
        messages = self.messages
        rows = [
            Row(
                messages.server_label,
                truncate(replace_unprintable(display_url(login.server_url))),
                is_quoted=True,
            ),
            Row(
                messages.login_host_label,
                truncate(replace_unprintable(login.authorization_host)),
                is_quoted=True,
            ),
        ]
        if others := other_hosts(login):
            hosts = truncate(replace_unprintable("  ".join(others)))
            rows.append(Row(messages.token_hosts_label, hosts, is_quoted=True))
        rows.append(
            self.scope_row(messages.access_label, login.request.scope)
            if login.request.scope
            else Row(messages.access_label, messages.default_access)
        )
        if login.added_scope:
            rows.append(self.scope_row(messages.added_scope_label, login.added_scope))
        rows.append(Row(messages.expiry_label, self._expiry_text(login, now)))
        return tuple(rows)

    def scope_row(self, label: str, scope: frozenset[str]) -> Row:
        """Return a row with a scope: well-known scopes in words, then the server's names of the others."""
        messages = self.messages
        words_by_scope = {
            "openid": messages.scope_openid,
            "profile": messages.scope_profile,
            "email": messages.scope_email,
            "offline_access": messages.scope_offline_access,
        }
        words = ", ".join(text for name, text in words_by_scope.items() if name in scope)
        others = scope - words_by_scope.keys()
        if not others:
            return Row(label, words)
        value = truncate(replace_unprintable(display_scope(others)))
        return Row(label, value, is_quoted=True, lead=f"{words}, " if words else "")

    def _reason_text(self, login: Login, reason: PromptReason) -> str:
        messages = self.messages
        if login.is_public_only:
            return {
                "command": messages.unconfigured_for_user,
                "button": messages.unconfigured_for_user,
                "agent": messages.unconfigured_for_agent,
                "other_process": messages.unconfigured_for_other_process,
                "unknown": messages.unconfigured_unknown,
            }[reason]
        return {
            "command": messages.reason_command.format(command=f"{self.capabilities.command_prefix}connect"),
            "button": messages.reason_button,
            "agent": messages.reason_agent,
            "other_process": messages.reason_other_process,
            "unknown": messages.reason_unknown,
        }[reason]

    def _device_prompt_card(
        self, card: Card, login: Login, device_authorization: DeviceAuthorization
    ) -> Card:
        messages = self.messages
        buttons = [
            Button(messages.qr_button, encode_action("qr", login.id)),
            Button(messages.new_code_button, encode_action("new", login.id)),
        ]
        if self.capabilities.can_copy and len(device_authorization.user_code) <= MAX_COPY_CHARS:
            buttons.insert(0, Button(messages.copy_code_button, copy=device_authorization.user_code))
        buttons += [
            Button(messages.use_paste_button, encode_action("paste", login.id)),
            self._cancel_button(login),
        ]
        open_step = (
            messages.device_open_for_all_step if login.key.owner is None else messages.device_open_step
        )
        return self.with_typed_commands(
            replace(
                card,
                steps=(open_step, messages.device_code_step),
                code=replace_unprintable(device_authorization.user_code),
                after_code=(messages.device_approve_step,),
                link=Link(
                    messages.open_page_button,
                    device_authorization.verification_uri_complete or device_authorization.verification_uri,
                ),
                buttons=arrange_in_rows(buttons),
            )
        )

    def qr_text_and_caption(self, login: Login) -> tuple[str, Card]:
        """Return the text for a waiting login's QR code (the prompt's URL), and the card for the caption."""
        device_authorization = login.device_authorization
        text = (
            login.authorization_url
            if device_authorization is None
            else device_authorization.verification_uri_complete or device_authorization.verification_uri
        )
        title = self.messages.qr_title.format(server=display_name(login.key.server_name))
        return text, Card(
            title,
            paragraphs=(
                self.messages.qr_caption.format(host=truncate(replace_unprintable(login.authorization_host))),
            ),
        )

    def qr_too_large_card(self, login: Login) -> Card:
        """Return a card that says that the URL is too long for a QR code."""
        title = self.messages.connect_title.format(server=display_name(login.key.server_name))
        return Card(title, paragraphs=(self.messages.qr_too_large,))

    def outcome_card(
        self,
        login: Login,
        connection: Connection | None,
        now: float,
        server_tag: str,
        *,
        agent_continues: bool | None = None,
    ) -> Card:
        """Return the card of a login that is over. `server_tag` names its server in buttons.

        `connection` is the server's usable connection: that of this login or, if the login has failed, that
        of another one. `agent_continues`: whether the agent's call that needed the login still waits; None
        without a call.
        """
        messages = self.messages
        if login.status == "done" and connection is not None:
            card = self.connected_card(connection, now, server_tag)
            if agent_continues is None:
                return card
            intro = messages.agent_continues if agent_continues else messages.ask_agent_again
            return replace(card, intro=intro)
        title = self.failure_title(login.key.server_name, is_connected=connection is not None)
        if login.status in {"expired", "cancelled"}:
            paragraphs: tuple[str, ...] = (
                messages.login_expired if login.status == "expired" else messages.login_cancelled,
            )
        else:
            message, advice = login.failure or ("", "")
            message, advice = messages.errors.get(login.failure_code or "", (message, advice))
            paragraphs = tuple(
                truncate(replace_unprintable(text), MAX_ERROR_CHARS) for text in (message, advice) if text
            )
        try_again = self.connect_button(messages.try_again_button, login.key.server_name, server_tag)
        rows = (
            ()
            if login.status in {"expired", "cancelled"}
            else self._server_message_rows(login.server_message)
        )
        card = Card(title, rows, paragraphs, buttons=((try_again,),))
        return self.with_typed_commands(card if connection is not None else replace(card, tone="bad"))

    def failure_title(self, server_name: str, *, is_connected: bool) -> str:
        """Return the title of a login that failed. An earlier session of the server may still be usable."""
        messages = self.messages
        title = messages.still_connected_title if is_connected else messages.failed_title
        return title.format(server=display_name(server_name))

    def connected_card(self, connection: Connection, now: float, server_tag: str = "") -> Card:
        """Return a card with the account, scope and lifetime of a connection, and a disconnect button."""
        messages = self.messages
        rows: list[Row] = []
        if connection.account:
            rows.append(
                Row(messages.account_label, truncate(replace_unprintable(connection.account)), is_quoted=True)
            )
        rows.append(
            self.scope_row(messages.access_label, connection.scope)
            if connection.scope
            else Row(messages.access_label, messages.access_as_granted)
        )
        if connection.missing_scope:
            rows.append(self.scope_row(messages.missing_scope_label, connection.missing_scope))
        rows.append(Row(messages.lifetime_label, self.connection_lifetime(connection, now)))
        typed = self.command(f"disconnect {display_name(connection.key.server_name)}")
        button = Button(messages.disconnect_button, encode_action("off", server_tag), typed=typed)
        buttons = ((button,),) if server_tag else ()
        return self.with_typed_commands(
            Card(
                messages.connected_title.format(server=display_name(connection.key.server_name)),
                tuple(rows),
                (messages.wrong_account,) if connection.account and server_tag else (),
                buttons=buttons,
                tone="good",
            )
        )

    def connection_lifetime(
        self, connection: Connection, now: float, *, uses_machine_grant: bool = False
    ) -> str:
        """Return how long a connection lasts, or that it is over. The command `status` uses the same rule."""
        messages = self.messages
        session = session_status(connection, now, uses_machine_grant=uses_machine_grant)
        clock = None if session.ends_at is None else self.format_time(session.ends_at, now)
        if session.is_over:
            return messages.lifetime_over if clock is None else messages.lifetime_ended.format(clock=clock)
        if session.state == "refresh failing":
            return messages.lifetime_refresh_fails
        if clock is None:
            return messages.lifetime_refreshes if session.can_refresh else messages.lifetime_until_revoked
        lifetime = messages.lifetime_refreshes_until if session.can_refresh else messages.lifetime_until
        return lifetime.format(clock=clock)

    def admins_only_card(self) -> Card:
        """Return a card that says that only administrators may change these connections."""
        return Card(self.messages.connections_title, paragraphs=(self.messages.admins_only,))

    def error_card(
        self, title: str, error: McpAuthError, buttons: tuple[tuple[Button, ...], ...] = ()
    ) -> Card:
        """Return a card with the error and its advice."""
        message, advice = self.messages.errors.get(error.code, (str(error), error.advice))
        paragraphs = tuple(truncate(replace_unprintable(text), MAX_ERROR_CHARS) for text in (message, advice))
        rows = self._server_message_rows(error.server_message)
        return self.with_typed_commands(Card(title, rows, paragraphs, buttons=buttons, tone="bad"))

    def _server_message_rows(self, server_message: str) -> tuple[Row, ...]:
        # Quote the text, so that no platform turns it into a link.
        quoted = quote_server_message(truncate(server_message, MAX_VALUE_CHARS - 2))
        return (Row(self.messages.server_message_label, quoted, is_quoted=True),) if server_message else ()

    def format_time(self, timestamp: float, now: float | None = None) -> str:
        """Format a time (epoch seconds) for a user, with the date if it is on another day than `now`."""
        # UTC, because users of one chat may be in any time zone.
        if self.capabilities.has_time_tags and abs(timestamp) < MAX_TAGGED_SECONDS:
            is_today = now is None or abs(timestamp - now) < TIME_OF_DAY_SECONDS
            return time_mark(timestamp, "t" if is_today else "f")
        clock = self._clock_time(timestamp, now)
        return self.messages.clock_utc.format(clock=clock)

    @staticmethod
    def _clock_time(timestamp: float, now: float | None) -> str:
        try:
            moment = time.gmtime(timestamp)
            same_day = now is None or time.gmtime(now)[:3] == moment[:3]
        except (OverflowError, ValueError, OSError):
            return "?"
        return time.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M", moment)

    @property
    def form_button_label(self) -> str:
        """The label of the button that opens the form, in quotation marks, for use in a sentence."""
        return f"“{self.messages.paste_button}”"

    def _answer_step(self) -> str:
        messages = self.messages
        if self.capabilities.has_forms:
            return messages.paste_in_form_step.format(button=self.form_button_label)
        return messages.paste_here_step if self.capabilities.can_delete else messages.paste_and_delete_step

    def _cancel_button(self, login: Login) -> Button:
        return Button(self.messages.cancel_button, encode_action("cancel", login.id), tone="bad")

    def with_typed_commands(self, card: Card) -> Card:
        """Replace buttons by the commands to type, if the platform has no buttons."""
        if self.capabilities.has_buttons:
            return card
        command_texts = list(self._typed_commands(card))
        paragraphs = (
            (self.messages.typed_commands.format(words=", ".join(command_texts)),) if command_texts else ()
        )
        return replace(card, paragraphs=(*card.paragraphs, *paragraphs), buttons=())

    def _typed_commands(self, card: Card) -> Iterator[str]:
        for button in (button for row in card.buttons for button in row):
            verb, _ = decode_action(button.action) or ("", "")
            if button.typed:
                yield button.typed
            elif verb in COMMANDS_BY_VERB:
                yield self.command(COMMANDS_BY_VERB[verb])

    def command(self, words: str) -> str:
        """Return a command as a user of the platform types it."""
        return f"{self.capabilities.command_prefix}{words}"

    def connect_button(
        self, label: str, server_name: str, server_tag: str, *, tone: Literal["plain", "good"] = "plain"
    ) -> Button:
        """Return a button that starts a login to a server."""
        typed = self.command(f"connect {display_name(server_name)}")
        return Button(label, encode_action("connect", server_tag), tone=tone, typed=typed)

    def _expiry_text(self, login: Login, now: float) -> str:
        messages, remaining = self.messages, login.expires_at - now
        minutes = (
            min(
                (mark for mark in COUNTDOWN_MARKS_SECONDS if remaining <= mark),
                default=_round_up_seconds(remaining),
            )
            // 60
        )
        start, end = self._clock_time(login.started_at, None), self.format_time(login.expires_at, now)
        span = messages.one_minute if minutes == 1 else messages.minutes.format(count=minutes)
        if self.capabilities.has_time_tags and abs(login.expires_at) < MAX_TAGGED_SECONDS:
            start, span = self.format_time(login.started_at), time_mark(login.expires_at, "R")
        return messages.time_and_remaining.format(start=start, clock=end, span=span)


def next_countdown_at(login: Login, now: float) -> float:
    """Return when the countdown in a waiting login's prompt changes next, in epoch seconds."""
    remaining = login.expires_at - now
    coming_marks = (
        mark
        for mark in (_round_up_seconds(remaining) - COUNTDOWN_INTERVAL_SECONDS, *COUNTDOWN_MARKS_SECONDS)
        if 0 < mark < remaining
    )
    return login.expires_at - max(coming_marks, default=0)


def _round_up_seconds(remaining_seconds: float) -> int:
    return math.ceil(remaining_seconds / COUNTDOWN_INTERVAL_SECONDS) * COUNTDOWN_INTERVAL_SECONDS


def display_name(server_name: str) -> str:
    """Return a server's name for use in a sentence: printable, at most 60 UTF-16 units."""
    return truncate(replace_unprintable(server_name), 60)
