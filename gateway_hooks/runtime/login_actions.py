"""Actions on a waiting login: answer it, show its QR code, switch its flow, cancel it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from functools import partial

from gateway_hooks.dialog.answer_text import refuse_wrong_address
from gateway_hooks.dialog.cards import Card, decode_action
from gateway_hooks.dialog.code_detection import (
    collect_redirect_locations,
    contains_redirect,
    login_by_state,
)
from gateway_hooks.dialog.intents import Connect, matches_sender
from gateway_hooks.dialog.platform import (
    Chat,
    ChatError,
    IncomingEvent,
    MessageGone,
    PlatformUnreachable,
)
from gateway_hooks.dialog.rendering import MAX_QR_BYTES, display_name
from gateway_hooks.runtime.context import Context
from gateway_hooks.runtime.login_start import LoginStarter
from gateway_hooks.runtime.message_sync import shows_prompt, usable_connection
from hermes_mcp_auth_remote.errors import LoginAlreadyUsed, LoginError, McpAuthError, PasteRefused
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Secret, Server

# Each new code or flow sends a request to the authorization server.
MAX_FLOW_CHANGES = 20
# The number of logins whose flow changes are counted.
MAX_COUNTED_LOGINS = 1000


class LoginActions:
    """Runs the actions of users on their logins."""

    def __init__(self, context: Context, login_starter: LoginStarter) -> None:
        self._context = context
        self._login_starter = login_starter
        self._flow_changes: dict[str, int] = {}
        # The renderer holds the GIL, so concurrent calls would not be faster and would delay the event loop.
        self._qr_lock = asyncio.Lock()

    async def submit_answer(self, login: Login, event: IncomingEvent, chat: Chat) -> None:
        """Delete the pasted answer from the chat, then complete the login with it."""
        messages = self._context.messages
        if not self._context.may_log_in(event.sender, login):
            await self.cancel_and_delete_answer(login, event, chat)
            await chat.send(self._context.renderer.admins_only_card())
            return
        is_deleted = await self._delete_answer(login, event, chat)
        self._context.prompt_messages.count_from_now(login)
        if not login.message_ids:
            with contextlib.suppress(ChatError, McpAuthError):
                await self._context.prompt_messages.show_answered(login, chat)
        answer = Secret(event.text)
        title = messages.answer_refused_title.format(server=display_name(login.key.server_name))
        if chat.origin.thread_id != login.origin.thread_id:
            # The user wrote in one topic of the private chat, and another topic shows the prompt.
            self._context.prompt_messages.note_message(chat)
        origin = replace(chat.origin, thread_id=login.origin.thread_id) if chat.is_private else chat.origin
        with contextlib.suppress(McpAuthError):
            self._context.service.register_server(
                await run_file_work(self._context.servers.find, login.key.server_name)
            )
        try:
            await self._context.service.complete_login(login.id, answer, origin)
        except PasteRefused as error:
            card = self._context.renderer.error_card(title, error)
            with contextlib.suppress(McpAuthError):
                await self._context.prompt_messages.add_message(login.id, await chat.send(card), chat)
        except LoginAlreadyUsed:
            # The user has sent the answer twice before the bot took the first one. `PromptMessages` shows the
            # outcome of the first one.
            if (await self._context.service.login(login.id)).status == "exchanging":
                await self._say_exchanging(login, chat, is_deleted=True)
        except McpAuthError as error:
            # If the login has failed, `PromptMessages` shows the error. Show it here only if the login waits.
            current_login = await self._context.service.login(login.id)
            if not current_login.is_over:
                await chat.send(self._context.renderer.error_card(title, error))
        finally:
            self._context.prompt_messages.wake()
        if not is_deleted:
            await chat.send(Card(messages.connections_title, paragraphs=(messages.delete_failed,)))

    async def _delete_answer(self, login: Login, event: IncomingEvent, chat: Chat) -> bool:
        """Delete the messages with an answer; return False if the user must delete one.

        If this process is killed meanwhile, or if the platform is unreachable, `PromptMessages` deletes the
        messages when the login ends.
        """
        change_messages = partial(self._context.service.change_extra_messages, login.id)
        recorded_ids: tuple[str, ...] = ()
        if event.message_ids:
            with contextlib.suppress(McpAuthError):
                recorded_ids = (await change_messages(added=event.message_ids)).message_ids
        handled_ids, is_refused = list[str](), False
        for message_id in event.message_ids:
            try:
                is_deleted = await chat.delete(message_id)
            except PlatformUnreachable:
                is_refused |= message_id not in recorded_ids
                continue
            except ChatError:
                is_deleted = False
            is_refused |= not is_deleted
            handled_ids.append(message_id)
        if not set(recorded_ids).isdisjoint(handled_ids):
            with contextlib.suppress(McpAuthError):
                await change_messages(removed=handled_ids)
        return not is_refused

    async def refuse_wrong_address(self, login: Login, event: IncomingEvent, chat: Chat) -> None:
        """Say that the address is a page of the provider. It has no code, so do not delete or count it."""
        title = self._context.messages.answer_refused_title.format(server=display_name(login.key.server_name))
        try:
            refuse_wrong_address(event.text, login.request)
        except LoginError as error:
            card = self._context.renderer.error_card(title, error)
            await self._send_refusal(login, card, chat, is_deleted=True)

    async def _send_refusal(self, login: Login, card: Card, chat: Chat, *, is_deleted: bool) -> None:
        """Send a card that is deleted when the login ends."""
        if not is_deleted:
            card = replace(card, paragraphs=(*card.paragraphs, self._context.messages.delete_failed))
        with contextlib.suppress(McpAuthError):
            await self._context.prompt_messages.add_message(login.id, await chat.send(card), chat)

    async def _say_exchanging(self, login: Login, chat: Chat, *, is_deleted: bool) -> None:
        """Say that an earlier answer completes this login now."""
        messages = self._context.messages
        title = messages.connect_title.format(server=display_name(login.key.server_name))
        card = Card(title, paragraphs=(messages.exchanging,))
        await self._send_refusal(login, card, chat, is_deleted=is_deleted)

    async def cancel_login(self, login: Login) -> None:
        """Cancel the login of a user whose permission the operator has removed."""
        await self._context.service.cancel(login.id)
        self._context.prompt_messages.wake()

    async def cancel_and_delete_answer(self, login: Login, event: IncomingEvent, chat: Chat) -> None:
        """Cancel the login and delete the message that answers it; raises ChatError."""
        is_deleted = await self._context.delete_messages(event, chat)
        await self.cancel_login(login)
        if not is_deleted:
            messages = self._context.messages
            await chat.send(Card(messages.connections_title, paragraphs=(messages.delete_failed,)))

    async def handle_login_command(self, login: Login, verb: str, event: IncomingEvent, chat: Chat) -> None:
        """Show a login's QR code, switch its flow, or cancel it; raises ChatError, StoreError."""
        messages = self._context.messages
        if not self._context.may_log_in(event.sender, login):
            await self.cancel_login(login)
            await self._context.reply_text(chat, event, messages.admins_only)
            return
        if verb == "qr":
            await self._send_qr(login, chat)
            return
        if verb != "cancel" and not self._count_flow_change(login):
            await self._context.reply_text(chat, event, messages.too_often)
            return
        try:
            if verb == "cancel":
                await self._context.service.cancel(login.id)
            else:
                await chat.show_toast(messages.please_wait)
                await self._context.service.switch_flow(login.id, "paste" if verb == "paste" else "device")
                await self._context.prompt_messages.delete_extra_messages(login.id, chat)
        except McpAuthError as error:
            title = messages.connect_title.format(server=display_name(login.key.server_name))
            await self._context.prompt_messages.add_message(
                login.id, await chat.send(self._context.renderer.error_card(title, error)), chat
            )
        self._context.prompt_messages.wake()

    def _count_flow_change(self, login: Login) -> bool:
        """Count a flow change of this login; return False above MAX_FLOW_CHANGES."""
        count = self._flow_changes.pop(login.id, 0)
        self._flow_changes[login.id] = count + 1
        if len(self._flow_changes) > MAX_COUNTED_LOGINS:
            del self._flow_changes[next(iter(self._flow_changes))]
        return count < MAX_FLOW_CHANGES

    async def _send_qr(self, login: Login, chat: Chat) -> None:
        from hermes_mcp_auth_remote.qr import render_png  # noqa: PLC0415  imported only when needed

        text, card = self._context.renderer.qr_text_and_caption(login)
        picture = None
        if len(text.encode()) <= MAX_QR_BYTES:
            async with self._qr_lock:
                picture = await run_file_work(render_png, text)
        if picture is None:
            message_id = await chat.send(self._context.renderer.qr_too_large_card(login))
        else:
            message_id = await chat.send_picture(picture, card)
        await self._context.prompt_messages.add_message(login.id, message_id, chat)

    async def handle_exposed_answer(self, login: Login | None, event: IncomingEvent, chat: Chat) -> None:
        """Cancel a login whose code other users could see, and start a new login in private."""
        messages, is_deleted = self._context.messages, await self._context.delete_messages(event, chat)
        title, paragraphs = (
            messages.exposed_answer_title,
            [messages.exposed_answer_without_login if login is None else messages.exposed_answer],
        )
        if chat.is_private:
            form_button = self._context.renderer.form_button_label
            title, paragraphs = (
                messages.answer_as_message_title,
                [messages.answer_as_message.format(button=form_button)],
            )
        if not is_deleted:
            paragraphs.append(messages.exposed_answer_delete_failed)
        if login is not None and not await self._restart_privately(login, event):
            paragraphs[0] = messages.exposed_answer_without_login
        await chat.send(Card(title, paragraphs=tuple(paragraphs), tone="bad"))

    async def _restart_privately(self, login: Login, event: IncomingEvent) -> bool:
        """Cancel a login and start a new one in private; return False if the bot cannot write there."""
        await self._context.service.cancel(login.id)
        self._context.prompt_messages.wake()
        private_chat = self._context.platform.private_chat(event.sender.user_id)
        connect_event = replace(event, text="", message_id="", command="")
        try:
            return await self._login_starter.start_login(
                Connect(login.key.server_name), connect_event, private_chat
            )
        except ChatError:
            return False

    async def reject_unmatched_answer(self, event: IncomingEvent, chat: Chat) -> None:
        """Delete an answer that matches no login of this user, and say so; raises ChatError."""
        messages, is_deleted = self._context.messages, await self._context.delete_messages(event, chat)
        if chat.is_private and (login := await self._exchanging_login(event, chat)) is not None:
            await self._say_exchanging(login, chat, is_deleted=is_deleted)
            return
        server_name = await self._connected_server(event, chat) if chat.is_private else None
        if server_name is not None:
            texts = [messages.already_connected, *([] if is_deleted else [messages.delete_failed])]
            title = messages.already_connected_title.format(server=display_name(server_name))
            await chat.send(Card(title, paragraphs=tuple(texts), tone="good"))
            return
        advice = messages.unmatched_answer_advice.format(
            command=f"{self._context.platform.capabilities.command_prefix}connect"
        )
        paragraphs = (
            (messages.unmatched_answer, advice)
            if is_deleted
            else (messages.unmatched_answer, advice, messages.delete_failed)
        )
        await chat.send(Card(messages.unmatched_answer_title, paragraphs=paragraphs, tone="bad"))

    async def _exchanging_login(self, event: IncomingEvent, chat: Chat) -> Login | None:
        """Return the login of this user that an earlier answer completes now, if this is its answer again."""
        with contextlib.suppress(McpAuthError):
            return login_by_state(
                event.text,
                [
                    login
                    for login in await self._context.logins()
                    if login.status == "exchanging" and matches_sender(login, chat.origin, is_private=True)
                ],
            )
        return None

    async def answer_stale_button(self, event: IncomingEvent, chat: Chat) -> None:
        """Say what became of the login of a button. Show it in the message with the button, if it is stale.

        The bot could not edit that message when the login ended: a restarted bot cannot edit ephemeral
        messages, and does not know a message that was sent just before a kill. Raises ChatError, StoreError.
        """
        messages, action = self._context.messages, decode_action(event.callback_data)
        login_id = "" if action is None else action[1]
        login = next((login for login in await self._context.logins() if login.id == login_id), None)
        is_own = login is not None and matches_sender(login, chat.origin, is_private=chat.is_private)
        if login is not None and is_own and login.status == "exchanging":
            await self._context.reply_text(chat, event, messages.exchanging)
            return
        card = Card(messages.login_over)
        if login is not None and is_own and login.is_over:
            card = await self._context.prompt_messages.outcome_card(login)
        # Otherwise, `PromptMessages` has yet to show the outcome, or the button may be another user's.
        is_stale = login is None or (is_own and not shows_prompt(login))
        if is_stale and event.pressed_message_id and chat.is_private:
            with contextlib.suppress(MessageGone):
                await chat.edit(event.pressed_message_id, card)
        await self._context.reply_text(chat, event, messages.login_over)

    async def _connected_server(self, event: IncomingEvent, chat: Chat) -> str | None:
        """Return the server if the answer belongs to a completed login of this user, else None.

        The record of a completed login has no state, so compare only the redirect URI.
        """
        with contextlib.suppress(McpAuthError):
            for login in reversed(await self._context.logins()):
                is_own = login.status == "done" and matches_sender(login, chat.origin, is_private=True)
                if not is_own or not contains_redirect(event.text, collect_redirect_locations([login])):
                    continue
                server, owner = Server(login.key.server_name, login.server_url), login.key.owner
                now = self._context.clock()
                if await usable_connection(self._context.service, server, owner, now) is not None:
                    return login.key.server_name
        return None

    async def show_login(self, login_id: str, event: IncomingEvent, chat: Chat) -> None:
        """Show a login that the bot could not show when it started; raises ChatError, StoreError."""
        messages = self._context.messages
        login = next((login for login in await self._context.logins() if login.id == login_id), None)
        if login is None or login.status != "waiting":
            await self._context.reply_text(chat, event, messages.login_over)
        elif login.origin.user_id != event.sender.user_id:
            await self._context.reply_text(chat, event, messages.not_your_login)
        elif not self._context.may_log_in(event.sender, login):
            await self.cancel_login(login)
            await self._context.reply_text(chat, event, messages.admins_only)
        else:
            await self._context.prompt_messages.show(login, chat)
