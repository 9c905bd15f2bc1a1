"""What people do with a login that waits: answer it, see its QR code, change it over, cancel it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.intents import Connect
from gateway_hooks.dialog.platform import Chat, ChatError, IncomingEvent
from gateway_hooks.dialog.rendering import MAX_QR_BYTES, display_name
from gateway_hooks.runtime.context import Context
from gateway_hooks.runtime.login_start import LoginStarter
from hermes_mcp_auth_remote.errors import McpAuthError, PasteRefused
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.threads import run_file_work

# Another code, or the other way to log in: each asks something of the provider.
MAX_FLOW_CHANGES = 20
# Of so many logins it is remembered how often they were changed over.
MAX_COUNTED_LOGINS = 1000


class LoginActions:
    """Does what people want with their logins."""

    def __init__(self, context: Context, login_starter: LoginStarter) -> None:
        self._context = context
        self._login_starter = login_starter
        self._flow_changes: dict[str, int] = {}
        # Drawing holds the interpreter: several at once are no faster, and the event loop waits for each.
        self._qr_lock = asyncio.Lock()

    async def submit_answer(self, login: Login, event: IncomingEvent, chat: Chat) -> None:
        """Finish a login by what was pasted, which goes from the chat first of all."""
        words = self._context.messages
        if not self._context.policy.may_change(event.sender):
            await self.cancel_and_delete_answer(login, event, chat)
            await chat.send(Card(words.connections_title, paragraphs=(words.admins_only,)))
            return
        deleted = await self._context.delete_messages(event, chat)
        with contextlib.suppress(McpAuthError):
            self._context.service.register_server(
                await run_file_work(self._context.servers.find, login.key.server_name)
            )
        try:
            await self._context.service.complete_login(login.id, event.text, chat.origin)
        except PasteRefused as refused:
            title = words.answer_refused_title.format(server=display_name(login.key.server_name))
            card = self._context.renderer.error_card(title, refused)
            with contextlib.suppress(McpAuthError):
                await self._context.prompt_messages.add_message(login.id, await chat.send(card), chat)
        except McpAuthError as trouble:
            # The board shows the failure at the login; what leaves it waiting is said here.
            now = await run_file_work(self._context.service.login, login.id)
            if not now.is_over:
                await chat.send(
                    self._context.renderer.error_card(
                        words.answer_refused_title.format(server=display_name(login.key.server_name)), trouble
                    )
                )
        finally:
            self._context.prompt_messages.wake()
        if not deleted:
            await chat.send(Card(words.connections_title, paragraphs=(words.delete_failed,)))

    async def cancel_login(self, login: Login) -> None:
        """Cancel the login of somebody who may not go on with it: the operator has changed that since."""
        await self._context.service.cancel(login.id)
        self._context.prompt_messages.wake()

    async def cancel_and_delete_answer(self, login: Login, event: IncomingEvent, chat: Chat) -> None:
        """Cancel the login, and let what was to answer it not stay; raises ChatError."""
        deleted = await self._context.delete_messages(event, chat)
        await self.cancel_login(login)
        if not deleted:
            words = self._context.messages
            await chat.send(Card(words.connections_title, paragraphs=(words.delete_failed,)))

    async def handle_login_command(self, login: Login, verb: str, event: IncomingEvent, chat: Chat) -> None:
        """Show a login's QR code, change it over, or cancel it; raises ChatError, StoreError."""
        words = self._context.messages
        if not self._context.policy.may_change(event.sender):
            await self.cancel_login(login)
            await self._context.reply_text(chat, event, words.admins_only)
            return
        if verb == "qr":
            await self._send_qr(login, chat)
            return
        if verb != "cancel" and not self._count_flow_change(login):
            await self._context.reply_text(chat, event, words.too_often)
            return
        try:
            if verb == "cancel":
                await self._context.service.cancel(login.id)
            else:
                await chat.show_toast(words.working)
                await self._context.service.switch_flow(login.id, "paste" if verb == "paste" else "device")
                await self._context.prompt_messages.delete_extra_messages(login.id, chat)
        except McpAuthError as trouble:
            title = words.connect_title.format(server=display_name(login.key.server_name))
            await self._context.prompt_messages.add_message(
                login.id, await chat.send(self._context.renderer.error_card(title, trouble)), chat
            )
        self._context.prompt_messages.wake()

    def _count_flow_change(self, login: Login) -> bool:
        """Count a change of this login; False where there were enough."""
        count = self._flow_changes.pop(login.id, 0)
        self._flow_changes[login.id] = count + 1
        if len(self._flow_changes) > MAX_COUNTED_LOGINS:
            del self._flow_changes[next(iter(self._flow_changes))]
        return count < MAX_FLOW_CHANGES

    async def _send_qr(self, login: Login, chat: Chat) -> None:
        from hermes_mcp_auth_remote.qr import render_png  # noqa: PLC0415  loaded by whoever wants one

        text, card = self._context.renderer.qr_text_and_caption(login)
        picture = None
        if len(text.encode()) <= MAX_QR_BYTES:
            async with self._qr_lock:
                picture = await run_file_work(render_png, text)
        if picture is None:
            message = await chat.send(self._context.renderer.qr_too_large_card(login))
        else:
            message = await chat.send_picture(picture, card)
        await self._context.prompt_messages.add_message(login.id, message, chat)

    async def handle_exposed_answer(self, login: Login | None, event: IncomingEvent, chat: Chat) -> None:
        """Drop a login whose code others have seen, and begin another where they do not."""
        words, deleted = self._context.messages, await self._context.delete_messages(event, chat)
        title, said = (
            words.exposed_answer_title,
            [words.exposed_answer_without_login if login is None else words.exposed_answer],
        )
        if chat.is_private:
            form_button = self._context.renderer.form_button_label
            title, said = words.answer_as_message_title, [words.answer_as_message.format(button=form_button)]
        if not deleted:
            said.append(words.exposed_answer_delete_failed)
        if login is not None and not await self._restart_privately(login, event):
            said[0] = words.exposed_answer_without_login
        await chat.send(Card(title, paragraphs=tuple(said), tone="bad"))

    async def _restart_privately(self, login: Login, event: IncomingEvent) -> bool:
        """Cancel a login and begin another in private; False where the bot cannot write there."""
        await self._context.service.cancel(login.id)
        self._context.prompt_messages.wake()
        place = self._context.platform.private_chat(event.sender.user_id)
        again = replace(event, text="", message_id="", command="connect")
        try:
            return await self._login_starter.start_login(Connect(login.key.server_name), again, place)
        except ChatError:
            return False

    async def reject_unmatched_answer(self, event: IncomingEvent, chat: Chat) -> None:
        """Refuse what answers no login of this person, and let it not stay; raises ChatError."""
        words, deleted = self._context.messages, await self._context.delete_messages(event, chat)
        advice = words.unmatched_answer_advice.format(
            command=f"{self._context.platform.capabilities.command_prefix}connect"
        )
        said = (
            (words.unmatched_answer, advice)
            if deleted
            else (words.unmatched_answer, advice, words.delete_failed)
        )
        await chat.send(Card(words.unmatched_answer_title, paragraphs=said, tone="bad"))

    async def show_login(self, login_id: str, event: IncomingEvent, chat: Chat) -> None:
        """Show a login that was begun where the bot could not show it; raises ChatError, StoreError."""
        words = self._context.messages
        login = next((each for each in await self._context.logins() if each.id == login_id), None)
        if login is None or login.status != "waiting":
            await self._context.reply_text(chat, event, words.login_over)
        elif login.origin.user_id != event.sender.user_id:
            await self._context.reply_text(chat, event, words.not_your_login)
        elif not self._context.policy.may_change(event.sender):
            await self.cancel_login(login)
            await self._context.reply_text(chat, event, words.admins_only)
        else:
            await self._context.prompt_messages.show(login, chat)
