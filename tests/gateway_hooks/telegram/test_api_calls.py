"""The number of concurrent Bot API calls, and which calls wait for others."""

from __future__ import annotations

import asyncio

from telegram.error import RetryAfter

from gateway_hooks.telegram.api_calls import MAX_CONCURRENT_CALLS, ApiCalls

SECONDS = 5.0


class BlockedCalls:
    """Calls that block until the event is set."""

    def __init__(self) -> None:
        self.started_count = 0
        self.release = asyncio.Event()

    async def call(self) -> str:
        self.started_count += 1
        await self.release.wait()
        return "done"


async def run_ready_tasks() -> None:
    """Let all tasks run that are ready."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_number_of_concurrent_sends_is_limited() -> None:
    async def main() -> None:
        calls, blocked_calls = ApiCalls(), BlockedCalls()
        chats = range(3 * MAX_CONCURRENT_CALLS)
        send_tasks = [
            asyncio.create_task(calls.call_in_order(str(chat), blocked_calls.call)) for chat in chats
        ]
        await run_ready_tasks()
        assert blocked_calls.started_count == MAX_CONCURRENT_CALLS
        blocked_calls.release.set()
        assert await asyncio.gather(*send_tasks) == ["done"] * len(chats)

    asyncio.run(asyncio.wait_for(main(), SECONDS))


def test_paste_is_deleted_while_sends_are_blocked() -> None:
    async def main() -> None:
        calls, blocked_calls = ApiCalls(), BlockedCalls()
        send_tasks = [
            asyncio.create_task(calls.call_in_order(str(chat), blocked_calls.call))
            for chat in range(MAX_CONCURRENT_CALLS)
        ]
        await run_ready_tasks()

        async def delete() -> bool:
            return True

        assert await calls.call_now(delete)
        blocked_calls.release.set()
        await asyncio.gather(*send_tasks)

    asyncio.run(asyncio.wait_for(main(), SECONDS))


def test_rate_limited_chats_do_not_block_other_chats() -> None:
    async def main() -> None:
        retry_allowed = asyncio.Event()

        async def sleep(_seconds: float) -> None:
            await retry_allowed.wait()

        calls, limited_chats = ApiCalls(sleep), set[str]()

        async def fail_once(chat: str) -> str:
            if chat not in limited_chats:
                limited_chats.add(chat)
                raise RetryAfter(30)
            return chat

        async def send(chat: str) -> str:
            return await calls.call_in_order(chat, lambda: fail_once(chat))

        slow_tasks = [asyncio.create_task(send(str(chat))) for chat in range(2 * MAX_CONCURRENT_CALLS)]
        await run_ready_tasks()

        async def send_to_other_chat() -> str:
            return "another"

        assert await calls.call_in_order("another", send_to_other_chat) == "another"
        retry_allowed.set()
        assert await asyncio.gather(*slow_tasks) == [str(chat) for chat in range(2 * MAX_CONCURRENT_CALLS)]

    asyncio.run(asyncio.wait_for(main(), SECONDS))
