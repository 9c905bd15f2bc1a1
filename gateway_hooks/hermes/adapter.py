"""Log in the users of one adapter of Hermes.

`HermesAdapter.claim_event` decides what a message means, without reading a file. It returns at once whether
the message is for this package ("ours"), and starts a task that handles it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gateway_hooks.dialog.answer_text import is_continuation, may_have_another_part
from gateway_hooks.dialog.code_detection import (
    RedirectLocations,
    collect_redirect_locations,
    may_contain_code,
)
from gateway_hooks.dialog.intents import (
    Answer,
    ExposedAnswer,
    Intent,
    ListConnections,
    UnmatchedAnswer,
    UnrelatedEvent,
    contains_authorization_response,
    contains_our_code,
    depends_on_redirect_uris,
    parse_intent,
    with_code_as_text,
    without_links,
)
from gateway_hooks.dialog.platform import Chat, ChatError, IncomingEvent, Platform
from gateway_hooks.hermes import internals as hermes
from gateway_hooks.hermes.cached_files import (
    cached_texts_with_codes,
    delete_cached_files,
    has_cached_files,
)
from gateway_hooks.hermes.commands import SKIP, parse_command, split_merged_message
from gateway_hooks.hermes.login_cache import LoginCache
from gateway_hooks.hermes.plain_text import PlainTextPlatform
from gateway_hooks.hermes.policy import HermesPolicy, HermesSender
from gateway_hooks.runtime.dispatcher import Dispatcher
from gateway_hooks.runtime.held_parts import HeldParts
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import CredentialKey

PRIVATE_CHAT_TYPES = frozenset({"dm", "direct", "private"})
# Slack counts group conversations as direct messages. If an id has this prefix, only one user and the bot are
# in the chat.
_SLACK_DM_PREFIX = "D"
# Accounts that Telegram uses for anonymous administrators and channels (telegram.constants.ChatID).
_TELEGRAM_SERVICE_ACCOUNTS = frozenset({"1087968824", "136817688", "777000"})
HELP = "help"
# The number of users whose private chats are remembered.
MAX_PRIVATE_CHATS = 10_000
# The adapter remembers at most this many events that it gave back to Hermes.
MAX_RETURNED_EVENTS = 100

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The intent of an event for this package, and whether Hermes admits its sender."""

    event: IncomingEvent
    intent: Intent
    is_admitted: bool = True


class HermesAdapter:
    """Handles the users of an adapter in plain text. Subclasses use the libraries of Telegram and Discord."""

    def __init__(
        self,
        gateway: Any,  # noqa: ANN401  Hermes's own
        adapter_ref: hermes.AdapterRef,
        login_cache: LoginCache,
    ) -> None:
        self.adapter_ref = adapter_ref
        self.login_cache = login_cache
        self.service = login_cache.service
        self.servers = login_cache.servers
        self.policy = HermesPolicy(gateway, adapter_ref)
        # If Hermes reads pasted addresses of its own logins, it gets each address that matches no login of
        # this package.
        self._leaves_unknown_codes = hermes.takes_pastes(gateway, adapter_ref.platform_adapter)
        # The private chat of each user. A restart forgets them; an open login stores its own chat.
        self._private_chat_ids: dict[str, str] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._returned_events: dict[tuple[str, str], Any] = {}
        self._held_parts = HeldParts()
        # Whether a call of the agent waits for a login, or has waited until it was there.
        self.call_continues: dict[CredentialKey, bool] = {}
        self.platform, self.dispatcher = self._create_dispatcher()
        self.dispatcher.prompt_messages.call_before_messages(login_cache.refresh)

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
        """Return the chat of a SessionSource. If `hermes_event` has a better way to reply, use that."""
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

        If a file must be read first, claim the event, read in a thread, and give back to Hermes the part that
        is not ours.
        """
        if self._returned_events.get(_event_key(hermes_event)) is hermes_event:
            return None
        must_read = not self.login_cache.is_loaded or has_cached_files(hermes_event)
        if must_read and hermes.can_dispatch_again(self.adapter_ref.platform_adapter):
            self.spawn(self._read_and_handle(hermes_event))
            return SKIP
        if not self.login_cache.is_loaded:
            self.login_cache.load()
        action, paths_with_code = self._handle_read_event(hermes_event, cached_texts_with_codes(hermes_event))
        delete_cached_files(paths_with_code)
        return action

    async def _read_and_handle(self, hermes_event: Any) -> None:  # noqa: ANN401  Hermes's own
        """Read an event's files, and the logins if that has not happened yet, and claim our part.

        Give the rest of the event back to Hermes.
        """
        if not self.login_cache.is_loaded:
            await self.login_cache.refresh()
        texts = await run_file_work(cached_texts_with_codes, hermes_event)
        action, paths_with_code = self._handle_read_event(hermes_event, texts)
        await run_file_work(delete_cached_files, paths_with_code)
        if action == SKIP:
            return
        if action is not None:
            hermes.set_text(hermes_event, action["text"])
        self._returned_events[_event_key(hermes_event)] = hermes_event
        if len(self._returned_events) > MAX_RETURNED_EVENTS:
            del self._returned_events[next(iter(self._returned_events))]
        await hermes.dispatch_again(self.adapter_ref.platform_adapter, hermes_event)

    def _handle_read_event(
        self,
        hermes_event: Any,  # noqa: ANN401  Hermes's own
        files: Mapping[Path, str],
    ) -> tuple[dict[str, str] | None, list[Path]]:
        """Claim our part of an event; return the hook action, and the files to delete.

        `files` are the event's files whose text may contain a code. Hermes merges messages that a user sends
        within a second, so perhaps only some lines of a message are ours.
        """
        source, text = hermes_event.source, str(hermes_event.text or "")
        quoted_text = str(getattr(hermes_event, "reply_to_text", None) or "")
        self._remove_codes_from_context(hermes_event)
        if quoted_text and without_links(quoted_text, self.logins()) != quoted_text:
            # The quoted text is our prompt with a login link. Hermes may see the reply, but not that link.
            hermes.clear_quoted_text(hermes_event)
            quoted_text = ""
        if not (text or quoted_text or files):
            return None, []
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
        if paths_with_code := self._paths_with_our_code(files):
            # Leave out the message's text: Hermes has copied the file's text into it.
            texts = tuple(files[path] for path in paths_with_code)
            self.claim_event(replace(event, text="", quoted_text="", extra_texts=texts), chat)
            return SKIP, paths_with_code
        lines = text.splitlines()
        if len(lines) > 1 and not quoted_text and not text.lstrip().startswith("/"):
            rest = self._claim_lines(event, chat)
            if rest is not None:
                return ({"action": "rewrite", "text": rest} if rest else SKIP), []
        return (SKIP if self.claim_event(event, chat) else None), []

    def _claim_lines(self, event: IncomingEvent, chat: Chat) -> str | None:
        """Claim our lines of a merged message; return the text for Hermes, None if no line is ours."""
        judgements: dict[str, Judgement | None] = {}
        # The event has the id of only one of the merged messages, and the code may be in another one.
        line_event = replace(event, message_id=hermes.UNKNOWN_MESSAGE_ID)

        def judge(line: str) -> Judgement | None:
            if line not in judgements:
                judgements[line] = self._judge(replace(line_event, text=line), chat)
            return judgements[line]

        text = _join_split_lines(event.text, judge)
        ours, rest = split_merged_message(text, lambda line: judge(line) is not None)
        for line in ours:
            judgement = judge(line)
            if judgement is not None:
                self._start(judgement, chat)
        return rest if ours else None

    def _paths_with_our_code(self, files: Mapping[Path, str]) -> list[Path]:
        logins, redirects = self._logins_and_redirects()
        return [path for path, text in files.items() if contains_our_code(text, logins, redirects)]

    def _remove_codes_from_context(self, hermes_event: Any) -> None:  # noqa: ANN401  Hermes's own
        """Remove lines with a code from an event's earlier messages of the channel: the model sees these."""
        context = str(getattr(hermes_event, "channel_context", None) or "")
        if not context or not may_contain_code(context):
            return
        logins, redirects = self._logins_and_redirects()
        if contains_our_code(context, logins, redirects):
            lines = context.splitlines()
            other_lines = [line for line in lines if not contains_our_code(line, logins, redirects)]
            rest = "\n".join(other_lines)
            # A code that is broken into several lines is in no single line.
            is_broken = contains_our_code(rest, logins, redirects)
            hermes.set_channel_context(hermes_event, None if is_broken else rest or None)

    def claim_event(self, event: IncomingEvent, chat: Chat) -> bool:
        """Claim an event and start to handle it; return False if it is for Hermes. Raises nothing."""
        try:
            event = self._held_parts.join(event, chat)
            judgement = self._judge(event, chat)
        except Exception as error:  # noqa: BLE001  a bug here must not let a code through
            log.error("A message could not be read because of a bug: %s.", type(error).__name__)  # noqa: TRY400
            return any(
                contains_authorization_response(text)
                for text in (event.text, event.quoted_text, *event.extra_texts)
            )
        if judgement is None:
            return False
        self._start(judgement, chat)
        return True

    def _start(self, judgement: Judgement, chat: Chat) -> None:
        """Start a task that acts on a judgement; the first part of an answer waits for the next part."""
        event, intent = judgement.event, judgement.intent
        if not judgement.is_admitted:
            self.spawn(self._delete_messages(event, chat))
        elif isinstance(intent, Answer) and not event.callback_data:
            work = partial(self._act_on, judgement, chat)
            self.spawn(self._held_parts.hold(event, chat, intent.login.request, work)())
        else:
            self.spawn(self._act_on(judgement, chat))

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task of this adapter. Only the type of an exception is logged."""
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
        """Remember a user's private chat; beyond the limit, forget the least recently used chat."""
        self._private_chat_ids.pop(user_id, None)
        self._private_chat_ids[user_id] = chat_id
        if len(self._private_chat_ids) > MAX_PRIVATE_CHATS:
            del self._private_chat_ids[next(iter(self._private_chat_ids))]

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error(
                "A message for a login could not be handled because of a bug: %s.", type(error).__name__
            )

    async def _act_on(self, judgement: Judgement, chat: Chat) -> None:
        try:
            if judgement.event.command == HELP:
                await self.dispatcher.send_help(judgement.event, chat)
                return
            await self.dispatcher.handle_intent(
                judgement.intent, judgement.event, chat, self.login_cache.error
            )
        finally:
            # The pressed button shows a spinner until the press is answered.
            await chat.show_toast("")

    async def _delete_messages(self, event: IncomingEvent, chat: Chat) -> None:
        """Delete the messages of a user that Hermes does not admit, without a reply."""
        for message_id in event.message_ids:
            with contextlib.suppress(ChatError):
                await chat.delete(message_id)

    def _judge(self, event: IncomingEvent, chat: Chat) -> Judgement | None:
        """Return the judgement of an event for this package; None if the event is for Hermes.

        Events of users that Hermes does not admit, and commands that a user may not run, are for Hermes.
        Every code is for this package, even one without a user.
        """
        logins, redirects = self._logins_and_redirects()
        event = with_code_as_text(event, logins, redirects)
        if not event.sender.user_id:
            intent = self._parse_intent(event, chat, logins)
            if not isinstance(intent, ExposedAnswer) or (
                self._leaves_unknown_codes and _is_unknown_code(intent)
            ):
                return None
            return Judgement(event, intent, is_admitted=False)
        command = None if event.callback_data else parse_command(event.text, self._bot_name())
        if command is not None:
            event = replace(event, command=command[0], text=command[1])
        intent = self._parse_intent(event, chat, logins)
        if isinstance(intent, UnrelatedEvent) and command is not None and command[0] != HELP:
            # The command needs a login of this user, and none waits (such as "cancel").
            event, intent = replace(event, command="connections", text=""), ListConnections()
        elif (
            isinstance(intent, UnrelatedEvent)
            and self.login_cache.error is not None
            and depends_on_redirect_uris(event)
        ):
            # The logins cannot be read, so the login that the code belongs to is not known.
            intent = UnmatchedAnswer()
        is_help = isinstance(intent, UnrelatedEvent) and command is not None
        if (isinstance(intent, UnrelatedEvent) and not is_help) or (
            self._leaves_unknown_codes and _is_unknown_code(intent)
        ):
            return None
        is_code = isinstance(intent, Answer | ExposedAnswer | UnmatchedAnswer)
        if not self.policy.may_talk(event.sender):
            # Hermes handles this user's events, except those with a code.
            return Judgement(event, intent, is_admitted=False) if is_code else None
        if command is None or is_code or self.policy.may_run(event.sender):
            return Judgement(event, intent)
        return None

    def _logins_and_redirects(self) -> tuple[list[Login], RedirectLocations]:
        """Return this platform's logins and the locations of our redirect URIs."""
        logins = self.logins()
        return logins, collect_redirect_locations(logins, self.login_cache.configured_uris)

    def _parse_intent(self, event: IncomingEvent, chat: Chat, logins: Sequence[Login]) -> Intent:
        return parse_intent(
            event,
            chat.origin,
            logins,
            is_private=chat.is_private,
            has_forms=self.platform.capabilities.has_forms,
            configured_uris=self.login_cache.configured_uris if depends_on_redirect_uris(event) else (),
        )

    def waiting_logins(self) -> list[Login]:
        """List this platform's waiting logins, as last read."""
        return [login for login in self.logins() if login.status == "waiting"]

    def logins(self) -> list[Login]:
        """List this platform's logins, as last read; an empty list if they cannot be read.

        A code is still recognised by its shape, and claimed.
        """
        return self.login_cache.logins_of(self.platform.name)

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
            except Exception as error:  # noqa: BLE001  the loop must go on
                log.error(  # noqa: TRY400
                    "Prompts could not be updated; trying again in 5 seconds: %s.", type(error).__name__
                )
            await asyncio.sleep(5)


def _join_split_lines(text: str, judge: Callable[[str], Judgement | None]) -> str:
    """Return the text of a merged message, with the parts of a split address on one line."""
    lines = list[str]()
    for line in text.splitlines():
        if lines and is_continuation(line) and _may_have_another_part(judge(lines[-1])):
            lines[-1] += line.strip()
        else:
            lines.append(line)
    return "\n".join(lines)


def _may_have_another_part(judgement: Judgement | None) -> bool:
    if judgement is None or not isinstance(judgement.intent, Answer):
        return False
    return may_have_another_part(judgement.event.text, judgement.intent.login.request)


def _event_key(hermes_event: Any) -> tuple[str, str]:  # noqa: ANN401  Hermes's own
    """Return what identifies an event while it is remembered."""
    return str(getattr(hermes_event, "message_id", "") or ""), str(id(hermes_event))


def _is_unknown_code(intent: Intent) -> bool:
    """Return whether an intent is an authorization response that matches no login of ours."""
    return isinstance(intent, UnmatchedAnswer) or (isinstance(intent, ExposedAnswer) and intent.login is None)
