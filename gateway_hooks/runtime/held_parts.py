"""Join an answer that a chat client has split into several messages.

Telegram's clients split a text of more than 4096 characters. The first part alone could look like a complete
address with a shorter code. If the bot exchanged that code, the login would end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from gateway_hooks.dialog.answer_text import is_continuation, may_have_another_part
from gateway_hooks.dialog.platform import Chat, IncomingEvent
from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest
from hermes_mcp_auth_remote.oauth.paste import MAX_PASTE_CHARS

# How long a first part waits for the next one: clients send the parts at once.
PART_WAIT_SECONDS = 1.0

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class _HeldPart:
    event: IncomingEvent
    is_joined: bool = False


class HeldParts:
    """The first parts of answers, by chat and user."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, str], _HeldPart] = {}

    def join(self, event: IncomingEvent, chat: Chat) -> IncomingEvent:
        """Return the event. If it continues a held part, join the two."""
        key = (chat.origin.chat_id, event.sender.user_id)
        part = self._parts.get(key)
        is_plain = chat.is_private and not (event.command or event.callback_data)
        if part is None or not is_plain or not is_continuation(event.text):
            return event
        first = part.event
        if len(first.text) + len(event.text) > MAX_PASTE_CHARS:
            return event
        part.is_joined = True
        del self._parts[key]
        return replace(
            event,
            text=first.text + event.text.strip(),
            earlier_message_ids=(*first.earlier_message_ids, first.message_id),
        )

    def hold(self, event: IncomingEvent, chat: Chat, request: AuthorizationRequest, work: Work) -> Work:
        """Return the work. If the event may be only a first part, the work first waits for another part."""
        if not may_have_another_part(event.text, request):
            return work
        key, part = (chat.origin.chat_id, event.sender.user_id), _HeldPart(event)
        self._parts[key] = part

        async def wait_for_next_part() -> None:
            await asyncio.sleep(PART_WAIT_SECONDS)
            if part.is_joined:
                return
            if self._parts.get(key) is part:
                del self._parts[key]
            await work()

        return wait_for_next_part
