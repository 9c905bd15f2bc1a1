"""A code in a reply, a quote or a message without a user reaches no handler of the application."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway_hooks.telegram.environment import TelegramEnvironment, wait_until
from tests.gateway_hooks.telegram.test_application import HostHandlers, running_application
from tests.parts.bot_api import User
from tests.requirements import covers

pytestmark = pytest.mark.slow

ANONYMOUS_ADMIN = {"id": 1087968824, "is_bot": True, "first_name": "Group", "username": "GroupAnonymousBot"}


@covers("telegram-agent-blind")
@pytest.mark.parametrize("delivery", ["anonymous", "edited", "channel", "reply", "quote"])
def test_code_without_user_or_in_reply_is_claimed(
    env: TelegramEnvironment, anna: User, delivery: str
) -> None:
    api, host = env.api, HostHandlers()
    group = api.add_group(-1001, "Team", [anna])

    async def send_code() -> None:
        async with running_application(env, host):
            answer = await env.approve_login(await env.request_prompt(anna))
            message = {"message_id": 500, "date": int(env.clock.now), "text": answer}
            group_message = {
                **message,
                "chat": group.json(),
                "from": ANONYMOUS_ADMIN,
                "sender_chat": group.json(),
            }
            channel = {"id": -1005, "type": "channel", "title": "News"}
            anna_message = {**message, "chat": {"id": anna.id, "type": "private"}, "from": anna.json()}
            if delivery == "anonymous":
                api.state.push("message", group_message)
            elif delivery == "edited":
                api.state.push("edited_message", {**group_message, "edit_date": int(env.clock.now)})
            elif delivery == "channel":
                api.state.push("channel_post", {**message, "chat": channel, "sender_chat": channel})
            elif delivery == "reply":
                api.state.push(
                    "message", {**anna_message, "text": "right?", "reply_to_message": anna_message}
                )
            else:
                quote = {"text": answer, "position": 0}
                api.state.push("message", {**anna_message, "text": "right?", "quote": quote})
            api.say(anna, "hello")
            await wait_until(lambda: "hello" in host.texts)
        assert not host.has_received(answer.partition("code=")[2].partition("&")[0])
        assert host.texts == ["hello"]

    asyncio.run(send_code())
