"""The number of concurrent Bot API calls, and which calls wait for others."""

from __future__ import annotations

import asyncio

from telegram.error import RetryAfter

from gateway_hooks.telegram.api_calls import MAX_CONCURRENT_CALLS, ApiCalls

SECONDS = 5.0


class Held:
    """Calls that block until the event is set."""

    def __init__(self) -> None:
        self.arrived = 0
        self.go_on = asyncio.Event()

    async def call(self) -> str:
        self.arrived += 1
        await self.go_on.wait()
        return "done"


async def turns() -> None:
    """Let all tasks run that are ready."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_only_so_many_messages_are_sent_at_once_and_the_rest_follow() -> None:
    async def main() -> None:
        calls, held = ApiCalls(), Held()
        chats = range(3 * MAX_CONCURRENT_CALLS)
        sending = [asyncio.create_task(calls.call_in_order(str(chat), held.call)) for chat in chats]
        await turns()
        assert held.arrived == MAX_CONCURRENT_CALLS
        held.go_on.set()
        assert await asyncio.gather(*sending) == ["done"] * len(chats)

    asyncio.run(asyncio.wait_for(main(), SECONDS))


def test_what_a_person_pasted_is_deleted_while_many_messages_are_under_way() -> None:
    async def main() -> None:
        calls, held = ApiCalls(), Held()
        sending = [
            asyncio.create_task(calls.call_in_order(str(chat), held.call))
            for chat in range(MAX_CONCURRENT_CALLS)
        ]
        await turns()

        async def delete() -> bool:
            return True

        assert await calls.call_now(delete)
        held.go_on.set()
        await asyncio.gather(*sending)

    asyncio.run(asyncio.wait_for(main(), SECONDS))


def test_chats_that_telegram_lets_wait_keep_no_other_one_waiting() -> None:
    async def main() -> None:
        waiting = asyncio.Event()

        async def sleep(_seconds: float) -> None:
            await waiting.wait()

        calls, refused = ApiCalls(sleep), set[str]()

        async def limited(chat: str) -> str:
            if chat not in refused:
                refused.add(chat)
                raise RetryAfter(30)
            return chat

        async def sent(chat: str) -> str:
            return await calls.call_in_order(chat, lambda: limited(chat))

        slow = [asyncio.create_task(sent(str(chat))) for chat in range(2 * MAX_CONCURRENT_CALLS)]
        await turns()

        async def at_once() -> str:
            return "another"

        assert await calls.call_in_order("another", at_once) == "another"
        waiting.set()
        assert await asyncio.gather(*slow) == [str(chat) for chat in range(2 * MAX_CONCURRENT_CALLS)]

    asyncio.run(asyncio.wait_for(main(), SECONDS))
