"""One adapter of Hermes's, and the conversation with its people.

Every message, however it reaches us, comes to `take`: it says at once whether it is ours, and has the rest
done beside Hermes's own work.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway_hooks.dialog.code_detection import Redirects, may_carry_code, redirects_of
from gateway_hooks.dialog.intents import (
    Answer,
    Exposed,
    Intent,
    NotOurs,
    Stray,
    carries_answer,
    concerns_us,
    meaning,
    needs_configuration,
    with_code_as_text,
    without_links,
)
from gateway_hooks.dialog.platform import Chat, ChatError, Heard, Platform, Sender
from gateway_hooks.dialog.servers import Configured, redirect_uris
from gateway_hooks.hermes.cached_files import cached_texts, delete_cached
from gateway_hooks.hermes.commands import SKIP, read_command, without_ours
from gateway_hooks.hermes.internals import Attached
from gateway_hooks.hermes.plain_text import NO_ID, PlainPlatform
from gateway_hooks.hermes.policy import HermesPolicy, HermesSender
from gateway_hooks.runtime.dispatcher import Desk
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service import AuthService

PRIVATE = frozenset({"dm", "direct", "private"})
# Slack calls a conversation of several people a direct message, too; that of two has such an id.
_SLACK_IN_PRIVATE = "D"
# Accounts by which Telegram lets groups and channels speak (telegram.constants.ChatID).
_TELEGRAMS_OWN = frozenset({"1087968824", "136817688", "777000"})
# How many people's private chats are remembered.
MAX_PRIVATE = 10_000

log = logging.getLogger(__name__)


class Seat:
    """An adapter's people in plain text; the adapters that we know better have seats of their own."""

    def __init__(self, gateway: Any, attached: Attached, service: AuthService, servers: Configured) -> None:  # noqa: ANN401
        self.attached = attached
        self.service = service
        self.servers = servers
        self.policy = HermesPolicy(gateway, attached)
        # In which private chat a person has written; forgotten with the process, but a login knows its own.
        self._private: dict[str, str] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.platform, self.desk = self._made()

    def _made(self) -> tuple[Platform, Desk]:
        platform = PlainPlatform(self.attached, self._last_chat)
        return platform, Desk(self.service, platform, self.servers, self.policy)

    @property
    def is_current(self) -> bool:
        """True while the adapter is the one that this seat was made for."""
        return True

    def start(self) -> None:
        """Begin to keep messages up to date, and to hear what the platform lets us hear before Hermes."""
        self.spawn(self._run())

    async def stop(self) -> None:
        """Let go of the adapter."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def chat(self, where: Any, event: Any = None) -> Chat:  # noqa: ANN401, ARG002  Hermes's own
        """Return the place that Hermes's SessionSource describes; `event` may hold a better way to answer."""
        user, chat = self.speaker(where), str(where.chat_id)
        platform = PlainPlatform(self.attached, self._last_chat)
        return platform.chat(chat, user, str(where.thread_id or ""), is_private=self._reads_alone(where))

    def speaker(self, where: Any) -> str:  # noqa: ANN401  Hermes's own
        """Return who speaks there: nobody, "", where it is said in the name of a group."""
        user = str(where.user_id or "")
        # A channel's posts come with the channel's own number.
        is_nobody = user in _TELEGRAMS_OWN or user.startswith("-")
        return "" if self.attached.name == "telegram" and is_nobody else user

    def hear(self, event: Any) -> dict[str, str] | None:  # noqa: ANN401  Hermes's own
        """Take what is ours of an event of Hermes's; returns what Hermes is to do with it, None for nothing.

        Hermes merges what one person writes within a second: then only lines of the event may be ours.
        """
        where, text = event.source, str(event.text or "")
        beside = str(getattr(event, "reply_to_text", None) or "")
        files = cached_texts(event)
        self._clean_context(event)
        if beside and without_links(beside, self.logins()) != beside:
            # Our own prompt, which holds the link: the answer to it goes on, the link does not.
            event.reply_to_text, beside = None, ""
        if not (text or beside or files):
            return None
        chat, sender = self.chat(where, event), HermesSender(self.speaker(where), where=where)
        if sender.user and self._reads_alone(where):
            self._remember(sender.user, str(where.chat_id))
        heard = Heard(
            sender,
            text=text,
            message=str(event.message_id or ""),
            beside=beside,
            beside_message=str(getattr(event, "reply_to_message_id", None) or "") if beside else "",
        )
        if files and self._take_files(heard, files, chat):
            return SKIP
        lines = text.splitlines()
        if len(lines) > 1 and not beside and not text.lstrip().startswith("/"):
            # The message that the id names is not the one with the code in it.
            logins = self.logins()
            ours, rest = without_ours(
                text, lambda line: self._meant(replace(heard, text=line), chat, logins) is not None
            )
            for line in ours:
                self.take(replace(heard, text=line, message=NO_ID), chat)
            if ours:
                return {"action": "rewrite", "text": rest} if rest else SKIP
        return SKIP if self.take(heard, chat) else None

    def _take_files(self, heard: Heard, files: Mapping[Path, str], chat: Chat) -> bool:
        """Take a message whose files carry a code, and delete those files; False if none does."""
        logins, redirects = self._known(replace(heard, parts=tuple(files.values())))
        carrying = [path for path, text in files.items() if concerns_us(text, logins, redirects)]
        if not carrying:
            return False
        for path in carrying:
            delete_cached(path)
        # Hermes has put the file's text into the message's own.
        texts = tuple(files[path] for path in carrying)
        self.take(replace(heard, text="", beside="", parts=texts), chat)
        return True

    def _clean_context(self, event: Any) -> None:  # noqa: ANN401  Hermes's own
        """Take lines with a code out of what Hermes shows the model of a channel's earlier messages."""
        context = str(getattr(event, "channel_context", None) or "")
        if not context or not may_carry_code(context):
            return
        logins, redirects = self._known(Heard(Sender(""), beside=context))
        if concerns_us(context, logins, redirects):
            lines = context.splitlines()
            kept = [line for line in lines if not concerns_us(line, logins, redirects)]
            rest = "\n".join(kept)
            # A code that is broken into lines stands in none of them.
            event.channel_context = None if concerns_us(rest, logins, redirects) else rest or None

    def take(self, heard: Heard, chat: Chat) -> bool:
        """Take what is ours, and have it done; False where it is Hermes's. Raises nothing."""
        try:
            ours = self._meant(heard, chat)
        except Exception as fault:  # noqa: BLE001  what carries a code is not let through for a fault of ours
            log.error("A message could not be read, by a fault of ours: %s.", type(fault).__name__)  # noqa: TRY400
            return any(carries_answer(text) for text in (heard.text, heard.beside, *heard.parts))
        if ours is None:
            return False
        is_strangers = heard.sender.user != ours.sender.user
        self.spawn(self._deleted(ours, chat) if is_strangers else self._done(ours, chat))
        return True

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do something beside whatever goes on; what fails is logged by its kind alone."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._landed)
        return task

    def is_private(self, chat: str, user: str) -> bool:
        """True where that is known to be the person's own chat with the bot."""
        return self._private.get(user) == chat

    def _reads_alone(self, where: Any) -> bool:  # noqa: ANN401  Hermes's own
        """True where nobody but that person reads along."""
        if self.attached.name == "slack" and not str(where.chat_id).startswith(_SLACK_IN_PRIVATE):
            return False
        return where.chat_type in PRIVATE

    def _remember(self, user: str, chat: str) -> None:
        """Remember a person's private chat, whoever they are: only so many, those last heard of."""
        self._private.pop(user, None)
        self._private[user] = chat
        if len(self._private) > MAX_PRIVATE:
            del self._private[next(iter(self._private))]

    def _landed(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("A login's message was not dealt with, by a fault of ours: %s.", type(fault).__name__)

    async def _done(self, heard: Heard, chat: Chat) -> None:
        try:
            await self.desk.hear(heard, chat)
        finally:
            # A button turns until its press is answered.
            await chat.note("")

    async def _deleted(self, heard: Heard, chat: Chat) -> None:
        """Delete what somebody wrote to whom Hermes does not listen, without a word."""
        for message in (heard.message, heard.beside_message):
            if message:
                with contextlib.suppress(ChatError):
                    await chat.delete(message)

    def _meant(self, heard: Heard, chat: Chat, logins: list[Login] | None = None) -> Heard | None:
        """Return what was said as the conversation hears it; None where it is Hermes's to deal with.

        So is whatever comes from people to whom Hermes does not listen, and a command that they may not run;
        but a code is ours, also in nobody's name. The sender is nobody if Hermes does not listen to them.
        """
        logins, redirects = self._known(heard, logins)
        heard = with_code_as_text(heard, logins, redirects)
        if not heard.sender.user:
            return heard if isinstance(self._intent(heard, chat, logins), Exposed) else None
        typed = None if heard.pressed else read_command(heard.text, self._name_of_bot())
        if typed is not None:
            heard = replace(heard, command=typed[0], text=typed[1])
        intent = self._intent(heard, chat, logins)
        is_code = isinstance(intent, Answer | Exposed | Stray)
        ours = not isinstance(intent, NotOurs)
        if typed is not None and not ours:
            # Such as "cancel" where nothing waits.
            heard, ours = replace(heard, command="connections", text=""), True
        if not ours:
            return None
        if not self.policy.may_talk(heard.sender):
            # Hermes deals with them, but no other program gets a code of theirs.
            return replace(heard, sender=Sender("")) if is_code else None
        if typed is None or is_code:
            return heard
        return heard if self.policy.may_run(heard.sender) else None

    def _known(self, heard: Heard, logins: list[Login] | None = None) -> tuple[list[Login], Redirects]:
        """Return the logins, and all redirect URIs that are ours as far as this message needs them."""
        configured = redirect_uris(self.servers) if needs_configuration(heard) else ()
        known = self.logins() if logins is None else logins
        return known, redirects_of(known, configured)

    def _intent(self, heard: Heard, chat: Chat, logins: Sequence[Login]) -> Intent:
        return meaning(
            heard,
            chat.origin,
            logins,
            is_private=chat.is_private,
            has_forms=self.platform.can.forms,
            configured=redirect_uris(self.servers) if needs_configuration(heard) else (),
        )

    def waiting(self) -> list[Login]:
        """List this platform's logins that wait; none where they cannot be read."""
        return [each for each in self.logins() if each.status == "waiting"]

    def logins(self) -> list[Login]:
        """List this platform's logins; none where they cannot be read."""
        try:
            return [each for each in self.service.logins() if each.origin.platform == self.platform.name]
        except McpAuthError:
            # What carries a code is known by its shape, and still not let through.
            return []

    def _name_of_bot(self) -> str:
        return ""

    def _last_chat(self, user: str) -> str | None:
        if user in self._private:
            return self._private[user]
        theirs = [each.origin for each in self.waiting() if each.origin.user == user and each.origin.chat]
        return theirs[-1].chat if theirs else None

    async def _run(self) -> None:
        while True:
            try:
                await self.desk.run()
            except ChatError as trouble:
                log.warning("Messages are not kept up to date for a moment: %s", trouble)
            except Exception as fault:  # noqa: BLE001  nothing else would start it again
                log.error("Messages are not kept up to date for a moment: %s.", type(fault).__name__)  # noqa: TRY400
            await asyncio.sleep(5)
