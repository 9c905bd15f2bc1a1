"""Log in the users of one adapter of Hermes.

Every message ends in `HermesAdapter.claim_event`: it returns at once whether the message is ours, and starts
a task that handles it.
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
from gateway_hooks.dialog.servers import redirect_uris
from gateway_hooks.hermes import internals as hermes
from gateway_hooks.hermes.cached_files import cached_texts_with_codes, delete_cached_file
from gateway_hooks.hermes.commands import SKIP, parse_command, split_merged_message
from gateway_hooks.hermes.plain_text import PlainTextPlatform
from gateway_hooks.hermes.policy import HermesPolicy, HermesSender
from gateway_hooks.runtime.config_servers import ConfigServers
from gateway_hooks.runtime.dispatcher import Dispatcher
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service import AuthService

PRIVATE_CHAT_TYPES = frozenset({"dm", "direct", "private"})
# Slack's group conversations are direct messages, too. The id of one between two users begins with D.
_SLACK_DM_PREFIX = "D"
# Accounts that Telegram uses for anonymous administrators and channels (telegram.constants.ChatID).
_TELEGRAM_SERVICE_ACCOUNTS = frozenset({"1087968824", "136817688", "777000"})
# How many users' private chats are remembered.
MAX_PRIVATE_CHATS = 10_000

log = logging.getLogger(__name__)


class HermesAdapter:
    """Handles the users of an adapter in plain text. Subclasses use the libraries of Telegram and Discord."""

    def __init__(
        self,
        gateway: Any,  # noqa: ANN401  Hermes's own
        adapter_ref: hermes.AdapterRef,
        service: AuthService,
        servers: ConfigServers,
    ) -> None:
        self.adapter_ref = adapter_ref
        self.service = service
        self.servers = servers
        self.policy = HermesPolicy(gateway, adapter_ref)
        # The private chat of each user. A restart forgets them; an open login stores its own chat.
        self._private_chat_ids: dict[str, str] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.platform, self.dispatcher = self._create_dispatcher()

    def _create_dispatcher(self) -> tuple[Platform, Dispatcher]:
        platform = PlainTextPlatform(self.adapter_ref, self._find_private_chat_id)
        return platform, Dispatcher(self.service, platform, self.servers, self.policy)

    @property
    def is_current(self) -> bool:
        """Whether Hermes's adapter still uses the connection that this object was made for."""
        return True

    def start(self) -> None:
        """Start to update prompts, and to receive events before Hermes if the platform allows it."""
        self.spawn(self._run_dispatcher())

    async def stop(self) -> None:
        """Cancel all tasks and detach from the adapter."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def chat_for(self, source: Any, hermes_event: Any = None) -> Chat:  # noqa: ANN401, ARG002  Hermes's own
        """Return the chat of a SessionSource. `hermes_event` may carry a better way to reply."""
        user_id, chat_id = self.user_id_of(source), str(source.chat_id)
        platform = PlainTextPlatform(self.adapter_ref, self._find_private_chat_id)
        return platform.chat_for(
            chat_id, user_id, str(source.thread_id or ""), is_private=self._is_private_source(source)
        )

    def user_id_of(self, source: Any) -> str:  # noqa: ANN401  Hermes's own
        """Return the user's id; "" if the message is sent in the name of a group or channel."""
        user_id = str(source.user_id or "")
        # A channel's posts carry the channel's id, which is negative.
        is_group = user_id in _TELEGRAM_SERVICE_ACCOUNTS or user_id.startswith("-")
        return "" if self.adapter_ref.platform_name == "telegram" and is_group else user_id

    def handle_event(self, hermes_event: Any) -> dict[str, str] | None:  # noqa: ANN401  Hermes's own
        """Claim our part of a Hermes event; return the hook action, None to leave the event to Hermes.

        Hermes merges messages that a user sends within a second: then only some lines may be ours.
        """
        source, text = hermes_event.source, str(hermes_event.text or "")
        quoted_text = str(getattr(hermes_event, "reply_to_text", None) or "")
        files = cached_texts_with_codes(hermes_event)
        self._remove_codes_from_context(hermes_event)
        if quoted_text and without_links(quoted_text, self.logins()) != quoted_text:
            # The quoted text is our prompt with its link: Hermes sees the reply, but not the link.
            hermes.clear_quoted_text(hermes_event)
            quoted_text = ""
        if not (text or quoted_text or files):
            return None
        chat = self.chat_for(source, hermes_event)
        sender = HermesSender(self.user_id_of(source), source=source)
        if sender.user_id and self._is_private_source(source):
            self._remember_private_chat(sender.user_id, str(source.chat_id))
        event = IncomingEvent(
            sender,
            text=text,
            message_id=str(hermes_event.message_id or ""),
            quoted_text=quoted_text,
            quoted_message_id=(
                str(getattr(hermes_event, "reply_to_message_id", None) or "") if quoted_text else ""
            ),
        )
        if files and self._claim_files(event, files, chat):
            return SKIP
        lines = text.splitlines()
        if len(lines) > 1 and not quoted_text and not text.lstrip().startswith("/"):
            # The event has the id of only one of the merged messages, perhaps not of the one with the code.
            logins = self.logins()
            ours, rest = split_merged_message(
                text, lambda line: self._event_if_ours(replace(event, text=line), chat, logins) is not None
            )
            for line in ours:
                self.claim_event(replace(event, text=line, message_id=hermes.UNKNOWN_MESSAGE_ID), chat)
            if ours:
                return {"action": "rewrite", "text": rest} if rest else SKIP
        return SKIP if self.claim_event(event, chat) else None

    def _claim_files(self, event: IncomingEvent, files: Mapping[Path, str], chat: Chat) -> bool:
        """Claim a message whose files carry a code and delete those files; return False if none does."""
        logins, redirects = self._logins_and_redirects(replace(event, extra_texts=tuple(files.values())))
        paths_with_code = [path for path, text in files.items() if contains_our_code(text, logins, redirects)]
        if not paths_with_code:
            return False
        for path in paths_with_code:
            delete_cached_file(path)
        # Leave out the message's text: Hermes has copied the file's text into it.
        texts = tuple(files[path] for path in paths_with_code)
        self.claim_event(replace(event, text="", quoted_text="", extra_texts=texts), chat)
        return True

    def _remove_codes_from_context(self, hermes_event: Any) -> None:  # noqa: ANN401  Hermes's own
        """Remove lines with a code from the earlier messages of a channel that Hermes shows the model."""
        context = str(getattr(hermes_event, "channel_context", None) or "")
        if not context or not may_contain_code(context):
            return
        logins, redirects = self._logins_and_redirects(IncomingEvent(Sender(""), quoted_text=context))
        if contains_our_code(context, logins, redirects):
            lines = context.splitlines()
            other_lines = [line for line in lines if not contains_our_code(line, logins, redirects)]
            rest = "\n".join(other_lines)
            # A code that is broken into several lines is in no single one of them.
            is_broken = contains_our_code(rest, logins, redirects)
            hermes.set_channel_context(hermes_event, None if is_broken else rest or None)

    def claim_event(self, event: IncomingEvent, chat: Chat) -> bool:
        """Claim an event and start to handle it; return False if it is for Hermes. Raises nothing."""
        try:
            our_event = self._event_if_ours(event, chat)
        except Exception as fault:  # noqa: BLE001  a bug here must not let a code through
            log.error("A message could not be read because of a bug: %s.", type(fault).__name__)  # noqa: TRY400
            return any(
                contains_authorization_response(text)
                for text in (event.text, event.quoted_text, *event.extra_texts)
            )
        if our_event is None:
            return False
        is_unauthorized = event.sender.user_id != our_event.sender.user_id
        self.spawn(
            self._delete_messages(our_event, chat) if is_unauthorized else self._dispatch(our_event, chat)
        )
        return True

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task of this adapter. Of an exception, only the type is logged."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def is_private_chat(self, chat_id: str, user_id: str) -> bool:
        """Return whether this is known to be the user's private chat with the bot."""
        return self._private_chat_ids.get(user_id) == chat_id

    def _is_private_source(self, source: Any) -> bool:  # noqa: ANN401  Hermes's own
        """Return whether only the user and the bot can read this chat."""
        if self.adapter_ref.platform_name == "slack" and not str(source.chat_id).startswith(_SLACK_DM_PREFIX):
            return False
        return source.chat_type in PRIVATE_CHAT_TYPES

    def _remember_private_chat(self, user_id: str, chat_id: str) -> None:
        """Remember a user's private chat; beyond the limit, forget the chat that is unused for longest."""
        self._private_chat_ids.pop(user_id, None)
        self._private_chat_ids[user_id] = chat_id
        if len(self._private_chat_ids) > MAX_PRIVATE_CHATS:
            del self._private_chat_ids[next(iter(self._private_chat_ids))]

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error(
                "A message for a login could not be handled because of a bug: %s.", type(fault).__name__
            )

    async def _dispatch(self, event: IncomingEvent, chat: Chat) -> None:
        try:
            await self.dispatcher.handle(event, chat)
        finally:
            # The pressed button shows a spinner until the press is answered.
            await chat.show_toast("")

    async def _delete_messages(self, event: IncomingEvent, chat: Chat) -> None:
        """Delete the messages of a user whom Hermes does not admit, without a reply."""
        for message_id in (event.message_id, event.quoted_message_id):
            if message_id:
                with contextlib.suppress(ChatError):
                    await chat.delete(message_id)

    def _event_if_ours(
        self, event: IncomingEvent, chat: Chat, logins: list[Login] | None = None
    ) -> IncomingEvent | None:
        """Return the event for the dispatcher; None if it is for Hermes.

        Leave to Hermes the events of users whom it does not admit, and commands that a user may not run.
        Claim every code, even one without a user. The sender's id is "" if Hermes does not admit the user.
        """
        logins, redirects = self._logins_and_redirects(event, logins)
        event = with_code_as_text(event, logins, redirects)
        if not event.sender.user_id:
            return event if isinstance(self._parse_intent(event, chat, logins), ExposedAnswer) else None
        command = None if event.callback_data else parse_command(event.text, self._bot_name())
        if command is not None:
            event = replace(event, command=command[0], text=command[1])
        intent = self._parse_intent(event, chat, logins)
        is_code = isinstance(intent, Answer | ExposedAnswer | UnmatchedAnswer)
        is_ours = not isinstance(intent, UnrelatedEvent)
        if command is not None and not is_ours:
            # For example "cancel" if no login waits.
            event, is_ours = replace(event, command="connections", text=""), True
        if not is_ours:
            return None
        if not self.policy.may_talk(event.sender):
            # Hermes handles this user's events, except those with a code.
            return replace(event, sender=Sender("")) if is_code else None
        if command is None or is_code:
            return event
        return event if self.policy.may_run(event.sender) else None

    def _logins_and_redirects(
        self, event: IncomingEvent, logins: list[Login] | None = None
    ) -> tuple[list[Login], RedirectLocations]:
        """Return the logins and the locations of our redirect URIs, as far as this event needs them."""
        configured = redirect_uris(self.servers) if depends_on_redirect_uris(event) else ()
        all_logins = self.logins() if logins is None else logins
        return all_logins, collect_redirect_locations(all_logins, configured)

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
        """List this platform's waiting logins; an empty list if they cannot be read."""
        return [login for login in self.logins() if login.status == "waiting"]

    def logins(self) -> list[Login]:
        """List this platform's logins; an empty list if they cannot be read."""
        try:
            return [login for login in self.service.logins() if login.origin.platform == self.platform.name]
        except McpAuthError:
            # A code is still recognised by its shape, and claimed.
            return []

    def _bot_name(self) -> str:
        return ""

    def _find_private_chat_id(self, user_id: str) -> str | None:
        if user_id in self._private_chat_ids:
            return self._private_chat_ids[user_id]
        chat_ids = [
            login.origin.chat_id
            for login in self.waiting_logins()
            if login.origin.user_id == user_id and login.origin.chat_id
        ]
        return chat_ids[-1] if chat_ids else None

    async def _run_dispatcher(self) -> None:
        while True:
            try:
                await self.dispatcher.run()
            except ChatError as error:
                log.warning("Prompts could not be updated; trying again in 5 seconds: %s", error)
            except Exception as fault:  # noqa: BLE001  the loop must go on
                log.error(  # noqa: TRY400
                    "Prompts could not be updated; trying again in 5 seconds: %s.", type(fault).__name__
                )
            await asyncio.sleep(5)
