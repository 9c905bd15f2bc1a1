"""What people do with a login that waits: answer it, see its QR code, change it over, cancel it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.intents import Connect
from gateway_hooks.dialog.platform import Chat, ChatError, Heard
from gateway_hooks.dialog.rendering import MAX_QR_BYTES, name_of
from gateway_hooks.runtime.context import Context
from gateway_hooks.runtime.login_start import Beginning
from hermes_mcp_auth_remote.errors import McpAuthError, PasteRefused
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.threads import run_file_work

# Another code, or the other way to log in: each asks something of the provider.
MAX_CHANGES = 20
# Of so many logins it is remembered how often they were changed over.
MAX_KNOWN = 1000


class Answering:
    """Does what people want with their logins."""

    def __init__(self, context: Context, beginning: Beginning) -> None:
        self._context = context
        self._beginning = beginning
        self._changes: dict[str, int] = {}
        # Drawing holds the interpreter: several at once are no faster, and the event loop waits for each.
        self._drawing = asyncio.Lock()

    async def answer(self, login: Login, heard: Heard, chat: Chat) -> None:
        """Finish a login by what was pasted, which goes from the chat first of all."""
        words = self._context.words
        if not self._context.policy.may_change(heard.sender):
            await self.withdraw_answer(login, heard, chat)
            await chat.send(Card(words.connections_title, paragraphs=(words.admins_only,)))
            return
        deleted = await self._context.deleted(heard, chat)
        with contextlib.suppress(McpAuthError):
            self._context.service.know(await run_file_work(self._context.servers.find, login.key.server))
        try:
            await self._context.service.finish(login.id, heard.text, chat.origin)
        except PasteRefused as refused:
            title = words.refused_title.format(server=name_of(login.key.server))
            card = self._context.conversation.trouble(title, refused)
            with contextlib.suppress(McpAuthError):
                await self._context.board.add(login.id, await chat.send(card), chat)
        except McpAuthError as trouble:
            # The board shows the failure at the login; what leaves it waiting is said here.
            now = await run_file_work(self._context.service.login, login.id)
            if not now.is_over:
                await chat.send(
                    self._context.conversation.trouble(
                        words.refused_title.format(server=name_of(login.key.server)), trouble
                    )
                )
        finally:
            self._context.board.poke()
        if not deleted:
            await chat.send(Card(words.connections_title, paragraphs=(words.undeleted,)))

    async def withdraw(self, login: Login) -> None:
        """Cancel the login of somebody who may not go on with it: the operator has changed that since."""
        await self._context.service.cancel(login.id)
        self._context.board.poke()

    async def withdraw_answer(self, login: Login, heard: Heard, chat: Chat) -> None:
        """Cancel the login, and let what was to answer it not stay; raises ChatError."""
        deleted = await self._context.deleted(heard, chat)
        await self.withdraw(login)
        if not deleted:
            words = self._context.words
            await chat.send(Card(words.connections_title, paragraphs=(words.undeleted,)))

    async def on_login(self, login: Login, verb: str, heard: Heard, chat: Chat) -> None:
        """Show a login's QR code, change it over, or cancel it; raises ChatError, StoreError."""
        words = self._context.words
        if not self._context.policy.may_change(heard.sender):
            await self.withdraw(login)
            await self._context.say(chat, heard, words.admins_only)
            return
        if verb == "qr":
            await self._qr(login, chat)
            return
        if verb != "cancel" and not self._may_change_over(login):
            await self._context.say(chat, heard, words.too_often)
            return
        try:
            if verb == "cancel":
                await self._context.service.cancel(login.id)
            else:
                await chat.note(words.working)
                await self._context.service.switch(login.id, "paste" if verb == "paste" else "device")
                await self._context.board.clear(login.id, chat)
        except McpAuthError as trouble:
            title = words.connect_title.format(server=name_of(login.key.server))
            await self._context.board.add(
                login.id, await chat.send(self._context.conversation.trouble(title, trouble)), chat
            )
        self._context.board.poke()

    def _may_change_over(self, login: Login) -> bool:
        """Count a change of this login; False where there were enough."""
        count = self._changes.pop(login.id, 0)
        self._changes[login.id] = count + 1
        if len(self._changes) > MAX_KNOWN:
            del self._changes[next(iter(self._changes))]
        return count < MAX_CHANGES

    async def _qr(self, login: Login, chat: Chat) -> None:
        from hermes_mcp_auth_remote.qr import png  # noqa: PLC0415  loaded by whoever wants one

        text, card = self._context.conversation.qr(login)
        picture = None
        if len(text.encode()) <= MAX_QR_BYTES:
            async with self._drawing:
                picture = await run_file_work(png, text)
        if picture is None:
            message = await chat.send(self._context.conversation.qr_too_dense(login))
        else:
            message = await chat.send_picture(picture, card)
        await self._context.board.add(login.id, message, chat)

    async def exposed(self, login: Login | None, heard: Heard, chat: Chat) -> None:
        """Drop a login whose code others have seen, and begin another where they do not."""
        words, deleted = self._context.words, await self._context.deleted(heard, chat)
        title, said = words.exposed_title, [words.exposed_stray if login is None else words.exposed]
        if chat.is_private:
            form_button = self._context.conversation.form_button
            title, said = words.posted_title, [words.posted.format(button=form_button)]
        if not deleted:
            said.append(words.exposed_undeleted)
        if login is not None and not await self._again(login, heard):
            said[0] = words.exposed_stray
        await chat.send(Card(title, paragraphs=tuple(said), tone="bad"))

    async def _again(self, login: Login, heard: Heard) -> bool:
        """Cancel a login and begin another in private; False where the bot cannot write there."""
        await self._context.service.cancel(login.id)
        self._context.board.poke()
        place = self._context.platform.private_chat(heard.sender.user)
        again = replace(heard, text="", message="", command="connect")
        try:
            return await self._beginning.connect(Connect(login.key.server), again, place)
        except ChatError:
            return False

    async def stray(self, heard: Heard, chat: Chat) -> None:
        """Refuse what answers no login of this person, and let it not stay; raises ChatError."""
        words, deleted = self._context.words, await self._context.deleted(heard, chat)
        advice = words.stray_advice.format(command=f"{self._context.platform.can.commands}connect")
        said = (words.stray, advice) if deleted else (words.stray, advice, words.undeleted)
        await chat.send(Card(words.stray_title, paragraphs=said, tone="bad"))

    async def continue_(self, login_id: str, heard: Heard, chat: Chat) -> None:
        """Show a login that was begun where the bot could not show it; raises ChatError, StoreError."""
        words = self._context.words
        login = next((each for each in await self._context.logins() if each.id == login_id), None)
        if login is None or login.status != "waiting":
            await self._context.say(chat, heard, words.login_over)
        elif login.origin.user != heard.sender.user:
            await self._context.say(chat, heard, words.not_yours)
        elif not self._context.policy.may_change(heard.sender):
            await self.withdraw(login)
            await self._context.say(chat, heard, words.admins_only)
        else:
            await self._context.board.show(login, chat)
