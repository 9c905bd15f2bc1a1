"""A code in a reply, a quote or a message without a user reaches no handler of the application."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway_hooks.telegram.given import Scene, eventually
from tests.gateway_hooks.telegram.test_application import Host, hosted
from tests.parts.bot_api import User
from tests.requirements import covers

pytestmark = pytest.mark.slow

ANONYMOUS = {"id": 1087968824, "is_bot": True, "first_name": "Group", "username": "GroupAnonymousBot"}


@covers("telegram-agent-blind")
@pytest.mark.parametrize("way", ["anonymous", "edited", "channel", "reply", "quote"])
def test_a_code_that_is_not_a_persons_own_message(scene: Scene, anna: User, way: str) -> None:
    api, host = scene.api, Host()
    group = api.group(-1001, "Team", [anna])

    async def story() -> None:
        async with hosted(scene, host):
            answer = await scene.approved(await scene.prompt(anna))
            said = {"message_id": 500, "date": int(scene.clock.now), "text": answer}
            in_group = {**said, "chat": group.json(), "from": ANONYMOUS, "sender_chat": group.json()}
            channel = {"id": -1005, "type": "channel", "title": "News"}
            of_anna = {**said, "chat": {"id": anna.id, "type": "private"}, "from": anna.json()}
            if way == "anonymous":
                api.world.push("message", in_group)
            elif way == "edited":
                api.world.push("edited_message", {**in_group, "edit_date": int(scene.clock.now)})
            elif way == "channel":
                api.world.push("channel_post", {**said, "chat": channel, "sender_chat": channel})
            elif way == "reply":
                api.world.push("message", {**of_anna, "text": "right?", "reply_to_message": of_anna})
            else:
                quote = {"text": answer, "position": 0}
                api.world.push("message", {**of_anna, "text": "right?", "quote": quote})
            api.say(anna, "hello")
            await eventually(lambda: "hello" in host.heard)
        assert not host.saw(answer.partition("code=")[2].partition("&")[0])
        assert host.heard == ["hello"]

    asyncio.run(story())
