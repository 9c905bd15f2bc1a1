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

from gateway_hooks.dialog.code_detection import (
    RedirectLocations,
    collect_redirect_locations,
    may_contain_code,
)
from gateway_hooks.dialog.intents import (
    Answer,
    ExposedAnswer,
    Intent,
    UnmatchedAnswer,
    UnrelatedEvent,
    contains_authorization_response,
    contains_our_code,
    depends_on_redirect_uris,
    parse_intent,
    with_code_as_text,
    without_links,
)
from gateway_hooks.dialog.platform import Chat, ChatError, IncomingEvent, Platform, Sender
from gateway_hooks.dialog.servers import ConfigServers, redirect_uris
from gateway_hooks.hermes.cached_files import cached_texts_with_codes, delete_cached_file
from gateway_hooks.hermes.commands import SKIP, parse_command, split_merged_message
from gateway_hooks.hermes.internals import AdapterRef
from gateway_hooks.hermes.plain_text import UNKNOWN_MESSAGE_ID, PlainTextPlatform
from gateway_hooks.hermes.policy import HermesPolicy, HermesSender
from gateway_hooks.runtime.dispatcher import Dispatcher
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service import AuthService

PRIVATE_CHAT_TYPES = frozenset({"dm", "direct", "private"})
# Slack calls a conversation of several people a direct message, too; that of two has such an id.
_SLACK_DM_PREFIX = "D"
# Accounts by which Telegram lets groups and channels speak (telegram.constants.ChatID).
_TELEGRAM_SERVICE_ACCOUNTS = frozenset({"1087968824", "136817688", "777000"})
# How many people's private chats are remembered.
MAX_PRIVATE_CHATS = 10_000

log = logging.getLogger(__name__)


class HermesAdapter:
    """An adapter's people in plain text; the adapters that we know better have seats of their own."""

    def __init__(
        self,
        gateway: Any,  # noqa: ANN401  Hermes's own
        adapter_ref: AdapterRef,
        service: AuthService,
        servers: ConfigServers,
    ) -> None:
        self.adapter_ref = adapter_ref
        self.service = service
        self.servers = servers
        self.policy = HermesPolicy(gateway, adapter_ref)
        # In which private chat a person has written; forgotten with the process, but a login knows its own.
        self._private_chat_ids: dict[str, str] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.platform, self.dispatcher = self._create_dispatcher()

    def _create_dispatcher(self) -> tuple[Platform, Dispatcher]:
        platform = PlainTextPlatform(self.adapter_ref, self._find_private_chat_id)
        return platform, Dispatcher(self.service, platform, self.servers, self.policy)

    @property
    def is_current(self) -> bool:
        """True while the adapter is the one that this seat was made for."""
        return True

    def start(self) -> None:
        """Begin to keep messages up to date, and to hear what the platform lets us hear before Hermes."""
        self.spawn(self._run_dispatcher())

    async def stop(self) -> None:
        """Let go of the adapter."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def chat_for(self, source: Any, hermes_event: Any = None) -> Chat:  # noqa: ANN401, ARG002  Hermes's own
        """Return the place that Hermes's SessionSource describes; `event` may hold a better way to answer."""
        user, chat = self.user_id_of(source), str(source.chat_id)
        platform = PlainTextPlatform(self.adapter_ref, self._find_private_chat_id)
        return platform.chat_for(
            chat, user, str(source.thread_id or ""), is_private=self._is_private_source(source)
        )

    def user_id_of(self, source: Any) -> str:  # noqa: ANN401  Hermes's own
        """Return who speaks there: nobody, "", where it is said in the name of a group."""
        user = str(source.user_id or "")
        # A channel's posts come with the channel's own number.
        is_nobody = user in _TELEGRAM_SERVICE_ACCOUNTS or user.startswith("-")
        return "" if self.adapter_ref.platform_name == "telegram" and is_nobody else user

    def handle_event(self, hermes_event: Any) -> dict[str, str] | None:  # noqa: ANN401  Hermes's own
        """Take what is ours of an event of Hermes's; returns what Hermes is to do with it, None for nothing.

        Hermes merges what one person writes within a second: then only lines of the event may be ours.
        """
        where, text = hermes_event.source, str(hermes_event.text or "")
        beside = str(getattr(hermes_event, "reply_to_text", None) or "")
        files = cached_texts_with_codes(hermes_event)
        self._remove_codes_from_context(hermes_event)
        if beside and without_links(beside, self.logins()) != beside:
            # Our own prompt, which holds the link: the answer to it goes on, the link does not.
            hermes_event.reply_to_text, beside = None, ""
        if not (text or beside or files):
            return None
        chat, sender = self.chat_for(where, hermes_event), HermesSender(self.user_id_of(where), source=where)
        if sender.user_id and self._is_private_source(where):
            self._remember_private_chat(sender.user_id, str(where.chat_id))
        heard = IncomingEvent(
            sender,
            text=text,
            message_id=str(hermes_event.message_id or ""),
            quoted_text=beside,
            quoted_message_id=str(getattr(hermes_event, "reply_to_message_id", None) or "") if beside else "",
        )
        if files and self._claim_files(heard, files, chat):
            return SKIP
        lines = text.splitlines()
        if len(lines) > 1 and not beside and not text.lstrip().startswith("/"):
            # The message that the id names is not the one with the code in it.
            logins = self.logins()
            ours, rest = split_merged_message(
                text, lambda line: self._event_if_ours(replace(heard, text=line), chat, logins) is not None
            )
            for line in ours:
                self.claim_event(replace(heard, text=line, message_id=UNKNOWN_MESSAGE_ID), chat)
            if ours:
                return {"action": "rewrite", "text": rest} if rest else SKIP
        return SKIP if self.claim_event(heard, chat) else None

    def _claim_files(self, event: IncomingEvent, files: Mapping[Path, str], chat: Chat) -> bool:
        """Take a message whose files carry a code, and delete those files; False if none does."""
        logins, redirects = self._logins_and_redirects(replace(event, extra_texts=tuple(files.values())))
        carrying = [path for path, text in files.items() if contains_our_code(text, logins, redirects)]
        if not carrying:
            return False
        for path in carrying:
            delete_cached_file(path)
        # Hermes has put the file's text into the message's own.
        texts = tuple(files[path] for path in carrying)
        self.claim_event(replace(event, text="", quoted_text="", extra_texts=texts), chat)
        return True

    def _remove_codes_from_context(self, hermes_event: Any) -> None:  # noqa: ANN401  Hermes's own
        """Take lines with a code out of what Hermes shows the model of a channel's earlier messages."""
        context = str(getattr(hermes_event, "channel_context", None) or "")
        if not context or not may_contain_code(context):
            return
        logins, redirects = self._logins_and_redirects(IncomingEvent(Sender(""), quoted_text=context))
        if contains_our_code(context, logins, redirects):
            lines = context.splitlines()
            kept = [line for line in lines if not contains_our_code(line, logins, redirects)]
            rest = "\n".join(kept)
            # A code that is broken into lines stands in none of them.
            hermes_event.channel_context = (
                None if contains_our_code(rest, logins, redirects) else rest or None
            )

    def claim_event(self, event: IncomingEvent, chat: Chat) -> bool:
        """Take what is ours, and have it done; False where it is Hermes's. Raises nothing."""
        try:
            ours = self._event_if_ours(event, chat)
        except Exception as fault:  # noqa: BLE001  what carries a code is not let through for a fault of ours
            log.error("A message could not be read, by a fault of ours: %s.", type(fault).__name__)  # noqa: TRY400
            return any(
                contains_authorization_response(text)
                for text in (event.text, event.quoted_text, *event.extra_texts)
            )
        if ours is None:
            return False
        is_strangers = event.sender.user_id != ours.sender.user_id
        self.spawn(self._delete_messages(ours, chat) if is_strangers else self._dispatch(ours, chat))
        return True

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do something beside whatever goes on; what fails is logged by its kind alone."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def is_private_chat(self, chat_id: str, user_id: str) -> bool:
        """True where that is known to be the person's own chat with the bot."""
        return self._private_chat_ids.get(user_id) == chat_id

    def _is_private_source(self, source: Any) -> bool:  # noqa: ANN401  Hermes's own
        """True where nobody but that person reads along."""
        if self.adapter_ref.platform_name == "slack" and not str(source.chat_id).startswith(_SLACK_DM_PREFIX):
            return False
        return source.chat_type in PRIVATE_CHAT_TYPES

    def _remember_private_chat(self, user_id: str, chat_id: str) -> None:
        """Remember a person's private chat, whoever they are: only so many, those last heard of."""
        self._private_chat_ids.pop(user_id, None)
        self._private_chat_ids[user_id] = chat_id
        if len(self._private_chat_ids) > MAX_PRIVATE_CHATS:
            del self._private_chat_ids[next(iter(self._private_chat_ids))]

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("A login's message was not dealt with, by a fault of ours: %s.", type(fault).__name__)

    async def _dispatch(self, event: IncomingEvent, chat: Chat) -> None:
        try:
            await self.dispatcher.handle(event, chat)
        finally:
            # A button turns until its press is answered.
            await chat.show_toast("")

    async def _delete_messages(self, event: IncomingEvent, chat: Chat) -> None:
        """Delete what somebody wrote to whom Hermes does not listen, without a word."""
        for message in (event.message_id, event.quoted_message_id):
            if message:
                with contextlib.suppress(ChatError):
                    await chat.delete(message)

    def _event_if_ours(
        self, event: IncomingEvent, chat: Chat, logins: list[Login] | None = None
    ) -> IncomingEvent | None:
        """Return what was said as the conversation hears it; None where it is Hermes's to deal with.

        So is whatever comes from people to whom Hermes does not listen, and a command that they may not run;
        but a code is ours, also in nobody's name. The sender is nobody if Hermes does not listen to them.
        """
        logins, redirects = self._logins_and_redirects(event, logins)
        event = with_code_as_text(event, logins, redirects)
        if not event.sender.user_id:
            return event if isinstance(self._parse_intent(event, chat, logins), ExposedAnswer) else None
        typed = None if event.callback_data else parse_command(event.text, self._bot_name())
        if typed is not None:
            event = replace(event, command=typed[0], text=typed[1])
        intent = self._parse_intent(event, chat, logins)
        is_code = isinstance(intent, Answer | ExposedAnswer | UnmatchedAnswer)
        ours = not isinstance(intent, UnrelatedEvent)
        if typed is not None and not ours:
            # Such as "cancel" where nothing waits.
            event, ours = replace(event, command="connections", text=""), True
        if not ours:
            return None
        if not self.policy.may_talk(event.sender):
            # Hermes deals with them, but no other program gets a code of theirs.
            return replace(event, sender=Sender("")) if is_code else None
        if typed is None or is_code:
            return event
        return event if self.policy.may_run(event.sender) else None

    def _logins_and_redirects(
        self, event: IncomingEvent, logins: list[Login] | None = None
    ) -> tuple[list[Login], RedirectLocations]:
        """Return the logins, and all redirect URIs that are ours as far as this message needs them."""
        configured = redirect_uris(self.servers) if depends_on_redirect_uris(event) else ()
        known = self.logins() if logins is None else logins
        return known, collect_redirect_locations(known, configured)

    def _parse_intent(self, event: IncomingEvent, chat: Chat, logins: Sequence[Login]) -> Intent:
        return parse_intent(
            event,
            chat.origin,
            logins,
            is_private=chat.is_private,
            has_forms=self.platform.capabilities.has_forms,
            configured_uris=redirect_uris(self.servers) if depends_on_redirect_uris(event) else (),
        )

    def waiting_logins(self) -> list[Login]:
        """List this platform's logins that wait; none where they cannot be read."""
        return [each for each in self.logins() if each.status == "waiting"]

    def logins(self) -> list[Login]:
        """List this platform's logins; none where they cannot be read."""
        try:
            return [each for each in self.service.logins() if each.origin.platform == self.platform.name]
        except McpAuthError:
            # What carries a code is known by its shape, and still not let through.
            return []

    def _bot_name(self) -> str:
        return ""

    def _find_private_chat_id(self, user_id: str) -> str | None:
        if user_id in self._private_chat_ids:
            return self._private_chat_ids[user_id]
        theirs = [
            each.origin
            for each in self.waiting_logins()
            if each.origin.user_id == user_id and each.origin.chat_id
        ]
        return theirs[-1].chat_id if theirs else None

    async def _run_dispatcher(self) -> None:
        while True:
            try:
                await self.dispatcher.run()
            except ChatError as trouble:
                log.warning("Messages are not kept up to date for a moment: %s", trouble)
            except Exception as fault:  # noqa: BLE001  nothing else would start it again
                log.error("Messages are not kept up to date for a moment: %s.", type(fault).__name__)  # noqa: TRY400
            await asyncio.sleep(5)
