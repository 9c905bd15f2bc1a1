"""The conversation of a login, without a platform: what is shown of it, from a value and the time to a card.

Every rule of what a person is told stands here, every sentence in `words`; what an event means is read in
`meaning`, and `desk` does what follows from it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from gateway_hooks.dialog.cards import MAX_VALUE_CHARS, Button, Card, Link, Row, action, in_rows, short
from gateway_hooks.dialog.messages import ENGLISH, Words
from gateway_hooks.dialog.platform import Abilities
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.oauth.client import offers_device
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.oauth.urls import host_of, is_loopback_host
from hermes_mcp_auth_remote.phrases import address, other_hosts, quoted_words, scope, shown

# A prompt says how long it is open: every five minutes, and at these. It is not edited every second.
COUNT_SECONDS, LAST_SECONDS = 300, (120, 60)
# Telegram copies at most so many characters to the clipboard.
MAX_COPY_CHARS = 256
# Version 22 of ISO/IEC 18004 at level L, 105 modules wide: what a phone's camera still reads from a screen.
MAX_QR_BYTES = 1003
# An error may name a file or an address; what is longer tells nobody more.
MAX_SENTENCE_CHARS = 600


@dataclass(frozen=True, slots=True)
class Conversation:
    """One way of speaking: in these words, to people on a platform that can so much."""

    can: Abilities = field(default_factory=Abilities)
    words: Words = ENGLISH

    def prompt(self, login: Login, now: float, *, may_use_device: bool = True) -> Card:
        """Return what is shown of a login that waits, or is being exchanged. `now` is in epoch seconds."""
        words, request, code = self.words, login.request, login.shown_code
        title = words.connect_title.format(server=name_of(login.key.server))
        if login.status == "exchanging":
            return Card(title, paragraphs=(words.exchanging,))
        rows = [
            Row(words.server, short(shown(address(login.server_url))), quoted=True),
            Row(words.log_in_at, short(shown(login.issuer_host)), quoted=True),
        ]
        if others := other_hosts(login):
            rows.append(Row(words.tokens_from, short(shown("  ".join(others))), quoted=True))
        rows.append(
            Row(words.access, short(shown(scope(request.scope))), quoted=True)
            if request.scope
            else Row(words.access, words.by_default)
        )
        if login.added_scope:
            rows.append(Row(words.added, short(shown(scope(login.added_scope))), quoted=True))
        rows.append(Row(words.whose, words.for_all if login.key.owner is None else words.for_you))
        rows.append(Row(words.open_until, self._moment(login.expires_at, now)))
        if code is not None:
            return self._device_prompt(title, rows, login, code)
        dead_end = is_loopback_host(host_of(request.redirect_uri))
        paragraphs = (
            words.only_if,
            f"{words.approve} {words.dead_end if dead_end else words.last_page}",
            f"{self._how_to_answer()} {words.paste_nowhere_else.format(clock=self.clock(login.begun_at))}",
        )
        buttons = [Button(words.show_qr, action("qr", login.id))]
        if self.can.forms:
            buttons.insert(0, Button(words.paste, action("form", login.id), tone="good", opens_form=True))
        if may_use_device and offers_device(login.authorization_server):
            buttons.append(Button(words.use_code, action("device", login.id)))
        return self._with_words(
            Card(
                title,
                tuple(rows),
                paragraphs,
                link=Link(words.page, login.authorization_url),
                buttons=in_rows([*buttons, self._cancel(login)]),
            )
        )

    def _device_prompt(self, title: str, rows: list[Row], login: Login, code: DeviceAuthorization) -> Card:
        words = self.words
        buttons = [
            Button(words.show_qr, action("qr", login.id)),
            Button(words.new_code, action("new", login.id)),
        ]
        if self.can.copies and len(code.user_code) <= MAX_COPY_CHARS:
            buttons.insert(0, Button(words.copy_code, copy=code.user_code))
        buttons += [Button(words.use_paste, action("paste", login.id)), self._cancel(login)]
        return self._with_words(
            Card(
                title,
                tuple(rows),
                (words.only_if, words.enter_code),
                code=shown(code.user_code),
                after_code=(words.compare_code, words.ends_alone),
                link=Link(words.page, code.verification_uri_complete or code.verification_uri),
                buttons=in_rows(buttons),
            )
        )

    def qr(self, login: Login) -> tuple[str, Card]:
        """Return what a QR code of a waiting login holds, exactly what is shown, and what stands below it."""
        code = login.shown_code
        text = (
            login.authorization_url
            if code is None
            else code.verification_uri_complete or code.verification_uri
        )
        title = self.words.qr_title.format(server=name_of(login.key.server))
        return text, Card(
            title, paragraphs=(self.words.qr_until.format(host=short(shown(login.issuer_host))),)
        )

    def qr_too_dense(self, login: Login) -> Card:
        """Say why there is no QR code."""
        title = self.words.connect_title.format(server=name_of(login.key.server))
        return Card(title, paragraphs=(self.words.qr_too_dense,))

    def ended(self, login: Login, connection: Connection | None, now: float, tag: str) -> Card:
        """Return what is shown of a login that is over. `tag` names its server in buttons."""
        words = self.words
        if login.status == "done" and connection is not None:
            return self.connected(connection, now, tag)
        title = words.failed_title.format(server=name_of(login.key.server))
        if login.status in {"expired", "cancelled"}:
            said: tuple[str, ...] = (words.expired if login.status == "expired" else words.cancelled,)
        else:
            message, advice = login.failure or ("", "")
            message, advice = words.errors.get(login.failure_code or "", (message, advice))
            said = tuple(short(shown(each), MAX_SENTENCE_CHARS) for each in (message, advice) if each)
        again = Button(words.try_again, action("connect", tag))
        rows = () if login.status in {"expired", "cancelled"} else self._server_says(login.failure_words)
        return self._with_words(Card(title, rows, said, buttons=((again,),), tone="bad"))

    def connected(self, connection: Connection, now: float, tag: str = "") -> Card:
        """Say who or what is connected, with which scope, until when; with the way to undo it."""
        words = self.words
        rows: list[Row] = []
        if connection.account:
            rows.append(Row(words.connected_as, short(shown(connection.account)), quoted=True))
        granted = connection.scope
        access = short(shown(scope(granted))) if granted else words.as_granted
        rows.append(Row(words.access, access, quoted=bool(granted)))
        if connection.missing_scope:
            rows.append(Row(words.not_granted, short(shown(scope(connection.missing_scope))), quoted=True))
        rows.append(Row(words.lasts, self.lasts(connection, now)))
        buttons = ((Button(words.disconnect, action("off", tag)),),) if tag else ()
        return self._with_words(
            Card(
                words.connected_title.format(server=name_of(connection.key.server)),
                tuple(rows),
                (words.not_you,) if connection.account and tag else (),
                buttons=buttons,
                tone="good",
            )
        )

    def lasts(self, connection: Connection, now: float) -> str:
        """Say how long a connection lasts."""
        if connection.can_refresh:
            return self.words.renews
        if connection.expires_at is None:
            return self.words.until_ended
        return self.words.until.format(clock=self.clock(connection.expires_at, now))

    def trouble(self, title: str, error: McpAuthError, buttons: tuple[tuple[Button, ...], ...] = ()) -> Card:
        """Say what went wrong and what to do."""
        message, advice = self.words.errors.get(error.code, (str(error), error.advice))
        said = tuple(short(shown(each), MAX_SENTENCE_CHARS) for each in (message, advice))
        return Card(title, self._server_says(error.server_words), said, buttons=buttons, tone="bad")

    def _server_says(self, words: str) -> tuple[Row, ...]:
        # Quoted: a chat makes no link of it.
        said = quoted_words(short(words, MAX_VALUE_CHARS - 2))
        return (Row(self.words.server_says, said, quoted=True),) if words else ()

    def clock(self, at: float, now: float | None = None) -> str:
        """Write a moment (epoch seconds) in UTC, with the date where it is another day than `now`."""
        # People of one chat live anywhere: the one clock that they can all work out.
        try:
            moment = time.gmtime(at)
            same_day = now is None or time.gmtime(now)[:3] == moment[:3]
        except (OverflowError, ValueError, OSError):
            return "?"
        return time.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M", moment)

    @property
    def form_button(self) -> str:
        """Name the button of the form, in a sentence."""
        return f"“{self.words.paste}”"

    def _how_to_answer(self) -> str:
        words = self.words
        if self.can.forms:
            return words.paste_in_form.format(button=self.form_button)
        return words.paste_here if self.can.deletes else words.paste_undeleted

    def _cancel(self, login: Login) -> Button:
        return Button(self.words.cancel, action("cancel", login.id), tone="bad")

    def _with_words(self, card: Card) -> Card:
        """Say what can be typed, where there are no buttons to press."""
        if self.can.buttons:
            return card
        typed = [f"{self.can.commands}{word}" for word in _typed(card)]
        said = (self.words.by_word.format(words=", ".join(typed)),) if typed else ()
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

    def _moment(self, at: float, now: float) -> str:
        words, left = self.words, at - now
        minutes = min((mark for mark in LAST_SECONDS if left <= mark), default=_whole(left)) // 60
        span = words.one_minute if minutes == 1 else words.minutes.format(count=minutes)
        return words.moment.format(clock=self.clock(at, now), span=span)


# What a person types instead of pressing: the verb, and for some the server by name is not needed.
_TYPED = {"qr": "qr", "device": "code", "new": "new", "paste": "paste", "cancel": "cancel"}


def _typed(card: Card) -> list[str]:
    verbs = (button.action.split(":")[1] for row in card.buttons for button in row if button.action)
    return [_TYPED[verb] for verb in verbs if verb in _TYPED]


def next_mark(login: Login, now: float) -> float:
    """Return when what is shown of a waiting login changes next by itself, in epoch seconds."""
    left = login.expires_at - now
    ahead = (mark for mark in (_whole(left) - COUNT_SECONDS, *LAST_SECONDS) if 0 < mark < left)
    return login.expires_at - max(ahead, default=0)


def _whole(left: float) -> int:
    return math.ceil(left / COUNT_SECONDS) * COUNT_SECONDS


def name_of(server: str) -> str:
    """Write a server's name as it stands in a sentence."""
    return short(shown(server), 60)
