"""The conversation of a login, without a platform: what is shown of it, from a value and the time to a card.

Every rule of what a person is told stands here, every sentence in `words`; what an event means is read in
`meaning`, and `desk` does what follows from it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from gateway_hooks.dialog.cards import (
    MAX_VALUE_CHARS,
    Button,
    Card,
    Link,
    Row,
    arrange_in_rows,
    encode_action,
    truncate,
)
from gateway_hooks.dialog.messages import ENGLISH, Messages
from gateway_hooks.dialog.platform import Capabilities
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
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

# A prompt says how long it is open: every five minutes, and at these. It is not edited every second.
COUNTDOWN_INTERVAL_SECONDS, COUNTDOWN_MARKS_SECONDS = 300, (120, 60)
# Telegram copies at most so many characters to the clipboard.
MAX_COPY_CHARS = 256
# Version 22 of ISO/IEC 18004 at level L, 105 modules wide: what a phone's camera still reads from a screen.
MAX_QR_BYTES = 1003
# An error may name a file or an address; what is longer tells nobody more.
MAX_ERROR_CHARS = 600


@dataclass(frozen=True, slots=True)
class Renderer:
    """One way of speaking: in these words, to people on a platform that can so much."""

    capabilities: Capabilities = field(default_factory=Capabilities)
    messages: Messages = ENGLISH

    def prompt_card(self, login: Login, now: float, *, may_use_device: bool = True) -> Card:
        """Return what is shown of a login that waits, or is being exchanged. `now` is in epoch seconds."""
        words, request, code = self.messages, login.request, login.device_authorization
        title = words.connect_title.format(server=display_name(login.key.server_name))
        if login.status == "exchanging":
            return Card(title, paragraphs=(words.exchanging,))
        rows = [
            Row(
                words.server_label,
                truncate(replace_unprintable(display_url(login.server_url))),
                is_quoted=True,
            ),
            Row(
                words.login_host_label,
                truncate(replace_unprintable(login.authorization_host)),
                is_quoted=True,
            ),
        ]
        if others := other_hosts(login):
            rows.append(
                Row(words.token_hosts_label, truncate(replace_unprintable("  ".join(others))), is_quoted=True)
            )
        rows.append(
            Row(
                words.access_label,
                truncate(replace_unprintable(display_scope(request.scope))),
                is_quoted=True,
            )
            if request.scope
            else Row(words.access_label, words.default_access)
        )
        if login.added_scope:
            rows.append(
                Row(
                    words.added_scope_label,
                    truncate(replace_unprintable(display_scope(login.added_scope))),
                    is_quoted=True,
                )
            )
        rows.append(
            Row(
                words.token_owner_label,
                words.token_owner_everyone if login.key.owner is None else words.token_owner_you,
            )
        )
        rows.append(Row(words.expiry_label, self._expiry_text(login.expires_at, now)))
        if code is not None:
            return self._device_prompt_card(title, rows, login, code)
        dead_end = is_loopback_host(host_of(request.redirect_uri))
        copy_page = words.copy_unreachable_page if dead_end else words.copy_last_page
        paste_warning = words.paste_warning.format(clock=self.format_time(login.started_at))
        paragraphs = (
            words.continue_warning,
            f"{words.approve_instructions} {copy_page}",
            f"{self._answer_instructions()} {paste_warning}",
        )
        buttons = [Button(words.qr_button, encode_action("qr", login.id))]
        if self.capabilities.has_forms:
            buttons.insert(
                0, Button(words.paste_button, encode_action("form", login.id), tone="good", opens_form=True)
            )
        if may_use_device and supports_device_flow(login.authorization_server):
            buttons.append(Button(words.use_device_code_button, encode_action("device", login.id)))
        return self._with_typed_commands(
            Card(
                title,
                tuple(rows),
                paragraphs,
                link=Link(words.open_page_button, login.authorization_url),
                buttons=arrange_in_rows([*buttons, self._cancel_button(login)]),
            )
        )

    def _device_prompt_card(
        self, title: str, rows: list[Row], login: Login, device_authorization: DeviceAuthorization
    ) -> Card:
        words = self.messages
        buttons = [
            Button(words.qr_button, encode_action("qr", login.id)),
            Button(words.new_code_button, encode_action("new", login.id)),
        ]
        if self.capabilities.can_copy and len(device_authorization.user_code) <= MAX_COPY_CHARS:
            buttons.insert(0, Button(words.copy_code_button, copy=device_authorization.user_code))
        buttons += [
            Button(words.use_paste_button, encode_action("paste", login.id)),
            self._cancel_button(login),
        ]
        return self._with_typed_commands(
            Card(
                title,
                tuple(rows),
                (words.continue_warning, words.enter_code),
                code=replace_unprintable(device_authorization.user_code),
                after_code=(words.compare_code, words.device_login_ends_itself),
                link=Link(
                    words.open_page_button,
                    device_authorization.verification_uri_complete or device_authorization.verification_uri,
                ),
                buttons=arrange_in_rows(buttons),
            )
        )

    def qr_text_and_caption(self, login: Login) -> tuple[str, Card]:
        """Return what a QR code of a waiting login holds, exactly what is shown, and what stands below it."""
        code = login.device_authorization
        text = (
            login.authorization_url
            if code is None
            else code.verification_uri_complete or code.verification_uri
        )
        title = self.messages.qr_title.format(server=display_name(login.key.server_name))
        return text, Card(
            title,
            paragraphs=(
                self.messages.qr_caption.format(host=truncate(replace_unprintable(login.authorization_host))),
            ),
        )

    def qr_too_large_card(self, login: Login) -> Card:
        """Say why there is no QR code."""
        title = self.messages.connect_title.format(server=display_name(login.key.server_name))
        return Card(title, paragraphs=(self.messages.qr_too_large,))

    def outcome_card(self, login: Login, connection: Connection | None, now: float, server_tag: str) -> Card:
        """Return what is shown of a login that is over. `tag` names its server in buttons."""
        words = self.messages
        if login.status == "done" and connection is not None:
            return self.connected_card(connection, now, server_tag)
        title = words.failed_title.format(server=display_name(login.key.server_name))
        if login.status in {"expired", "cancelled"}:
            said: tuple[str, ...] = (
                words.login_expired if login.status == "expired" else words.login_cancelled,
            )
        else:
            message, advice = login.failure or ("", "")
            message, advice = words.errors.get(login.failure_code or "", (message, advice))
            said = tuple(
                truncate(replace_unprintable(each), MAX_ERROR_CHARS) for each in (message, advice) if each
            )
        again = Button(words.try_again_button, encode_action("connect", server_tag))
        rows = (
            ()
            if login.status in {"expired", "cancelled"}
            else self._server_message_rows(login.server_message)
        )
        return self._with_typed_commands(Card(title, rows, said, buttons=((again,),), tone="bad"))

    def connected_card(self, connection: Connection, now: float, server_tag: str = "") -> Card:
        """Say who or what is connected, with which scope, until when; with the way to undo it."""
        words = self.messages
        rows: list[Row] = []
        if connection.account:
            rows.append(
                Row(words.account_label, truncate(replace_unprintable(connection.account)), is_quoted=True)
            )
        granted = connection.scope
        access = truncate(replace_unprintable(display_scope(granted))) if granted else words.access_as_granted
        rows.append(Row(words.access_label, access, is_quoted=bool(granted)))
        if connection.missing_scope:
            rows.append(
                Row(
                    words.missing_scope_label,
                    truncate(replace_unprintable(display_scope(connection.missing_scope))),
                    is_quoted=True,
                )
            )
        rows.append(Row(words.lifetime_label, self.connection_lifetime(connection, now)))
        buttons = (
            ((Button(words.disconnect_button, encode_action("off", server_tag)),),) if server_tag else ()
        )
        return self._with_typed_commands(
            Card(
                words.connected_title.format(server=display_name(connection.key.server_name)),
                tuple(rows),
                (words.wrong_account,) if connection.account and server_tag else (),
                buttons=buttons,
                tone="good",
            )
        )

    def connection_lifetime(self, connection: Connection, now: float) -> str:
        """Say how long a connection lasts."""
        if connection.can_refresh:
            return self.messages.lifetime_refreshes
        if connection.expires_at is None:
            return self.messages.lifetime_until_revoked
        return self.messages.lifetime_until.format(clock=self.format_time(connection.expires_at, now))

    def error_card(
        self, title: str, error: McpAuthError, buttons: tuple[tuple[Button, ...], ...] = ()
    ) -> Card:
        """Say what went wrong and what to do."""
        message, advice = self.messages.errors.get(error.code, (str(error), error.advice))
        said = tuple(truncate(replace_unprintable(each), MAX_ERROR_CHARS) for each in (message, advice))
        return Card(title, self._server_message_rows(error.server_message), said, buttons=buttons, tone="bad")

    def _server_message_rows(self, server_message: str) -> tuple[Row, ...]:
        # Quoted: a chat makes no link of it.
        said = quote_server_message(truncate(server_message, MAX_VALUE_CHARS - 2))
        return (Row(self.messages.server_message_label, said, is_quoted=True),) if server_message else ()

    def format_time(self, timestamp: float, now: float | None = None) -> str:
        """Write a moment (epoch seconds) in UTC, with the date where it is another day than `now`."""
        # People of one chat live anywhere: the one clock that they can all work out.
        try:
            moment = time.gmtime(timestamp)
            same_day = now is None or time.gmtime(now)[:3] == moment[:3]
        except (OverflowError, ValueError, OSError):
            return "?"
        return time.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M", moment)

    @property
    def form_button_label(self) -> str:
        """Name the button of the form, in a sentence."""
        return f"“{self.messages.paste_button}”"

    def _answer_instructions(self) -> str:
        words = self.messages
        if self.capabilities.has_forms:
            return words.paste_in_form.format(button=self.form_button_label)
        return words.paste_here if self.capabilities.can_delete else words.paste_and_delete

    def _cancel_button(self, login: Login) -> Button:
        return Button(self.messages.cancel_button, encode_action("cancel", login.id), tone="bad")

    def _with_typed_commands(self, card: Card) -> Card:
        """Say what can be typed, where there are no buttons to press."""
        if self.capabilities.has_buttons:
            return card
        typed = [f"{self.capabilities.command_prefix}{word}" for word in _typed_commands(card)]
        said = (self.messages.typed_commands.format(words=", ".join(typed)),) if typed else ()
        return Card(
            card.title,
            card.rows,
            card.paragraphs,
            card.code,
            (*card.after_code, *said),
            card.link,
            (),
            card.tone,
        )

    def _expiry_text(self, expires_at: float, now: float) -> str:
        words, left = self.messages, expires_at - now
        minutes = (
            min((mark for mark in COUNTDOWN_MARKS_SECONDS if left <= mark), default=_round_up_seconds(left))
            // 60
        )
        span = words.one_minute if minutes == 1 else words.minutes.format(count=minutes)
        return words.time_and_remaining.format(clock=self.format_time(expires_at, now), span=span)


# What a person types instead of pressing: the verb, and for some the server by name is not needed.
_COMMANDS_BY_VERB = {"qr": "qr", "device": "code", "new": "new", "paste": "paste", "cancel": "cancel"}


def _typed_commands(card: Card) -> list[str]:
    verbs = (button.action.split(":")[1] for row in card.buttons for button in row if button.action)
    return [_COMMANDS_BY_VERB[verb] for verb in verbs if verb in _COMMANDS_BY_VERB]


def next_countdown_at(login: Login, now: float) -> float:
    """Return when what is shown of a waiting login changes next by itself, in epoch seconds."""
    left = login.expires_at - now
    ahead = (
        mark
        for mark in (_round_up_seconds(left) - COUNTDOWN_INTERVAL_SECONDS, *COUNTDOWN_MARKS_SECONDS)
        if 0 < mark < left
    )
    return login.expires_at - max(ahead, default=0)


def _round_up_seconds(remaining_seconds: float) -> int:
    return math.ceil(remaining_seconds / COUNTDOWN_INTERVAL_SECONDS) * COUNTDOWN_INTERVAL_SECONDS


def display_name(server_name: str) -> str:
    """Write a server's name as it stands in a sentence."""
    return truncate(replace_unprintable(server_name), 60)
