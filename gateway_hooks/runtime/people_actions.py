"""Admit, list and revoke users on request from the chat."""

from __future__ import annotations

import contextlib
import logging
from functools import partial

from gateway_hooks.dialog.cards import Button, Card, Row, encode_action
from gateway_hooks.dialog.platform import Chat, ChatError, IncomingEvent, Sender
from gateway_hooks.dialog.servers import tag_of
from gateway_hooks.runtime.admission import PAIR_PAYLOAD_PREFIX, Admission
from gateway_hooks.runtime.context import Context
from hermes_mcp_auth_remote.threads import run_file_work

# Discord allows 25 buttons.
MAX_LISTED_PEOPLE = 20

log = logging.getLogger(__name__)


class PeopleActions:
    """Handles the requests of strangers and administrators about access to the bot."""

    def __init__(self, context: Context, admission: Admission) -> None:
        self._context = context
        self._admission = admission

    async def handle(self, event: IncomingEvent, chat: Chat) -> bool:
        """Handle a private message about access to the bot; return False for any other message.

        Raises ChatError, StoreError.
        """
        user_id, messages = event.sender.user_id, self._context.messages
        if event.command == "start" and not event.text.startswith(PAIR_PAYLOAD_PREFIX):
            return False
        # Most adapters pass an unknown command as text, with its prefix.
        text = f"{event.command} {event.text}".strip()
        words = text.removeprefix(self._context.platform.capabilities.word_prefix).split(maxsplit=1)
        verb = words[0].lower().lstrip("/") if words else ""
        if verb in {"approve", "people", "remove"} and self._admission.is_admin(event.sender):
            argument = words[1].strip() if len(words) > 1 else ""
            if verb == "remove":
                await self.revoke(argument, event, chat)
            else:
                card = self._people_card() if verb == "people" else await self._approve(argument, user_id)
                await chat.send(card)
            return True
        if await run_file_work(partial(self._admission.redeem, event.text, user_id)):
            log.warning(
                "User %s is an administrator of this %s bot now.", user_id, self._context.platform.name
            )
            capabilities = self._context.platform.capabilities
            text = messages.paired.format(
                connect=f"{capabilities.command_prefix}connect", people=f"{capabilities.word_prefix}people"
            )
            await chat.send(Card(messages.paired_title, paragraphs=(text,), tone="good"))
            return True
        return False

    async def revoke(self, user_tag: str, event: IncomingEvent, chat: Chat) -> None:
        """Remove an admitted user, and show the remaining ones; raises ChatError, StoreError.

        A typed command and the buttons of earlier versions contain the user's id instead of its tag.
        """
        if not self._admission.is_admin(event.sender):
            await self._context.reply_text(chat, event, self._context.messages.admins_only)
            return
        user_ids = [person.user_id for person in self._admission.people()]
        for user_id in user_ids:
            if user_tag in {tag_of(user_id), user_id}:
                await run_file_work(self._admission.revoke, user_id)
                log.warning(
                    "User %s may no longer use this bot: user %s removed them.", user_id, event.sender.user_id
                )
        await self._context.reply(chat, event, self._people_card())

    async def _approve(self, code: str, admin_id: str) -> Card:
        messages = self._context.messages
        user_id = await run_file_work(partial(self._admission.approve, code, admin_id))
        if user_id is None:
            return Card(messages.approve_failed_title, paragraphs=(messages.approve_failed,), tone="bad")
        log.warning("User %s may use this bot now: user %s admitted them.", user_id, admin_id)
        await self._tell_admitted_user(user_id)
        return Card(messages.approved_title.format(user=user_id), tone="good")

    async def _tell_admitted_user(self, user_id: str) -> None:
        """Tell a user in private that they may use the bot: they have waited for it."""
        messages, platform = self._context.messages, self._context.platform
        prefix = platform.capabilities.command_prefix
        # Only administrators change shared connections.
        text = (
            messages.admitted.format(connect=f"{prefix}connect")
            if self._admission.may_change(Sender(user_id))
            else messages.admitted_to_look.format(connections=f"{prefix}connections")
        )
        with contextlib.suppress(ChatError):
            await platform.private_chat(user_id).send(
                Card(messages.admitted_title, paragraphs=(text,), tone="good")
            )

    def _people_card(self) -> Card:
        messages, people = self._context.messages, self._admission.people()[:MAX_LISTED_PEOPLE]
        rows, buttons = list[Row](), list[tuple[Button, ...]]()
        for person in people:
            label = messages.admin_label if person.is_admin else messages.user_label
            rows.append(Row(label, person.user_id, is_quoted=True))
            revoke_label = messages.revoke_button.format(user=person.user_id)
            buttons.append((Button(revoke_label, encode_action("revoke", tag_of(person.user_id))),))
        paragraphs, capabilities = [messages.people_note], self._context.platform.capabilities
        if rows and not capabilities.has_buttons:
            paragraphs.insert(0, messages.typed_removal.format(remove=f"{capabilities.word_prefix}remove"))
        return Card(messages.people_title, tuple(rows), tuple(paragraphs), buttons=tuple(buttons))
