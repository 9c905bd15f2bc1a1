"""Which senders and chats the bot serves, and which login an answer finishes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway_hooks.dialog.policy import AllowList
from hermes_mcp_auth_remote.values import Origin
from tests.gateway_hooks.telegram.given import OPEN, Scene
from tests.parts.bot_api import Button, Chat, User
from tests.requirements import covers

pytestmark = pytest.mark.slow


def nothing_leaked(scene: Scene, group: Chat) -> None:
    """Check that no version of a group message contains a login URL, a state or a picture."""
    for message in scene.api.messages(group):
        for version in scene.api.versions(message):
            if version.from_bot:
                assert version.photo is None
                assert not any("state=" in str(button.url) for button in version.buttons)
                assert "state=" not in version.text


@covers("telegram-group")
def test_a_group_learns_only_that_a_private_message_was_written(scene: Scene, anna: User) -> None:
    api = scene.api
    group = api.group(-1001, "Team", [anna])

    async def story() -> None:
        async with scene.bot():
            api.say(anna, f"/connect@{api.bot.username} notes", group)
            prompt = await scene.shown(anna, "Connect notes")
            await scene.shown(group, "I wrote to you privately.")
            api.say(anna, await scene.approved(prompt))
            await scene.shown(anna, "notes: connected")
            api.say(anna, "/connections", group)
            await scene.shown(anna, "Connections")
            await api.until(lambda: len(scene.texts(group)) == 2)
        scene.check()

    asyncio.run(story())
    assert scene.texts(group) == ["I wrote to you privately."] * 2
    nothing_leaked(scene, group)


@covers("telegram-group")
def test_in_a_topic_the_answer_stands_in_the_topic_and_outside_where_it_is_gone(
    scene: Scene, anna: User
) -> None:
    api = scene.api
    forum = api.group(-1002, "Forum", [anna], forum=True)
    topic = api.topic(forum, "Logins")

    async def story() -> None:
        async with scene.bot():
            api.say(anna, "/connect notes", forum, thread=topic)
            said = await scene.shown(forum, "I wrote to you privately.")
            assert said.thread == topic
            api.say(anna, "/connections", forum)
            other = await scene.shown(forum, "I wrote to you privately.", said.id)
            assert other.thread is None
            trouble = api.hold("sendMessage")
            api.say(anna, "/connections", forum, thread=topic)
            await asyncio.to_thread(trouble.reached.wait, 10)
            del forum.topics[topic]
            trouble.release()
            last = await scene.shown(forum, "I wrote to you privately.", other.id)
            assert last.thread is None

    asyncio.run(story())
    nothing_leaked(scene, forum)


@covers("telegram-group", "telegram-deleted")
@pytest.mark.parametrize("may_delete", [True, False])
def test_an_answer_in_a_group_ends_its_login_and_another_begins_in_private(
    scene: Scene, anna: User, bob: User, *, may_delete: bool
) -> None:
    api = scene.api
    group = api.group(-1001, "Team", [anna, bob], bot_can_delete=may_delete)

    async def story() -> None:
        async with scene.bot():
            api.say(anna, "/connect notes", group)
            told = await scene.shown(group, "I wrote to you privately.")
            prompt = await scene.shown(anna, "Connect notes")
            login = scene.login()
            answer = await scene.approved(prompt)
            # Without administrator rights the bot gets only replies to itself.
            api.say(anna, answer, group, reply_to=told)
            said = await scene.shown(group, "Do not post codes in a group")
            assert ("please delete it yourself" in said.text) is not may_delete
            assert bool(api.deleted(group)) is may_delete
            again = await scene.shown(anna, "Connect notes")
            assert scene.service().login(login.id).status == "cancelled"
            assert api.url_of(again, OPEN) != login.authorization_url
            api.say(anna, await scene.approved(again))
            await scene.shown(anna, "notes: connected")
        assert scene.demo.authorization_server.count_requests("token") == 1, "the bot used the exposed code"

    asyncio.run(story())
    nothing_leaked(scene, group)


@covers("telegram-group")
@pytest.mark.parametrize("way", ["start", "qr", "device", "open"])
def test_no_way_of_asking_in_a_group_shows_a_login_there(scene: Scene, anna: User, way: str) -> None:
    """Neither a login's id nor a forged button shows the login: a client can send any callback data."""
    api = scene.api
    group = api.group(-1001, "Team", [anna])
    scene.demo.authorization_server.change_behaviour(with_device=True)

    async def story() -> None:
        async with scene.bot():
            # Another process starts the login: its origin has no chat.
            login = await scene.service().start_login(scene.server, Origin("telegram", user_id="7"))
            await scene.shown(anna, "Connect notes")
            if way == "start":
                api.say(anna, f"/start@{api.bot.username} mcp_{login.id}", group)
            else:
                api.say(anna, "/connections", group)
                told = await scene.shown(group, "I wrote to you privately.")
                made_up = Button("Made up", callback_data=f"mcp:{way}:{login.id}")
                api.world.edit(replace(told, keyboard=((made_up,),)))
                await api.press(anna, told, "Made up")
            # This reply shows that the bot has handled the earlier update.
            api.say(anna, "/connections")
            await scene.shown(anna, "Connections")
            await api.until(lambda: not scene.login().poll_state or way == "device")

    asyncio.run(story())
    nothing_leaked(scene, group)


@covers("telegram-sender")
def test_two_people_who_paste_each_others_address_finish_nothing(scene: Scene, anna: User, bob: User) -> None:
    api = scene.api

    async def story() -> None:
        async with scene.bot():
            hers = await scene.prompt(anna)
            his = await scene.prompt(bob)
            her_answer, his_answer = await scene.approved(hers), await scene.approved(his)
            for user, answer in ((anna, his_answer), (bob, her_answer)):
                pasted = api.say(user, answer)
                await scene.shown(user, "That did not finish the login of notes")
                assert [each.id for each in api.deleted(user)] == [pasted.id]
            assert len(scene.service().waiting_logins()) == 2
            assert scene.demo.authorization_server.count_requests("token") == 0
            api.say(bob, his_answer)
            await scene.shown(bob, "notes: connected")
            api.say(anna, her_answer)
            await scene.shown(anna, "notes: connected")
        scene.check()

    asyncio.run(story())


@covers("telegram-sender")
def test_a_login_of_a_topic_of_the_private_chat_is_finished_in_that_topic(scene: Scene, anna: User) -> None:
    api = scene.api
    private = api.private(anna)
    private.forum = True
    topic = api.topic(private, "Agent", anna)

    async def story() -> None:
        async with scene.bot():
            api.say(anna, "/connect notes", thread=topic)
            prompt = await scene.shown(anna, "Connect notes")
            assert prompt.thread == topic
            assert scene.login().origin == Origin("telegram", "7", str(topic), "7", str(api.bot.id))
            answer = await scene.approved(prompt)
            api.say(anna, answer)
            await scene.shown(anna, "No login of yours waits for this answer")
            api.say(anna, answer, thread=topic)
            await scene.shown(anna, "notes: connected")

    asyncio.run(story())


@covers("telegram-people")
def test_a_stranger_is_told_the_id_once_and_no_server_is_asked(scene: Scene, eve: User) -> None:
    api = scene.api

    async def story() -> None:
        async with scene.bot():
            api.say(eve, "/connect notes")
            said = await scene.shown(eve, "You may not use this bot yet")
            assert "Your id here is 9." in said.text
            api.say(eve, "/connections")
            api.say(eve, "/help")
            api.say(eve, "http://127.0.0.1/callback?code=a-code-of-somebody&state=a-state")
            await api.until(lambda: not api.world.updates.waiting)
        assert len(scene.texts(eve)) == 1

    asyncio.run(story())
    assert scene.demo.authorization_server.requests == []
    assert scene.service().logins() == []


@covers("telegram-people")
def test_what_no_person_says_is_not_heard(scene: Scene, anna: User) -> None:
    api = scene.api
    group = api.group(-1001, "Team", [anna])
    anonymous = {"id": 1087968824, "is_bot": True, "first_name": "Group", "username": "GroupAnonymousBot"}
    other_bot = {"id": 7, "is_bot": True, "first_name": "Anna"}
    message = {
        "message_id": 1,
        "date": int(scene.clock.now),
        "chat": group.json(),
        "text": "/connect notes",
        "entities": [{"type": "bot_command", "offset": 0, "length": 8}],
    }

    async def story() -> None:
        async with scene.bot():
            api.world.push("message", {**message, "from": anonymous, "sender_chat": group.json()})
            api.world.push(
                "message", {**message, "from": {**other_bot, "is_bot": False}, "sender_chat": group.json()}
            )
            api.world.push("message", {**message, "from": other_bot})
            api.world.push(
                "channel_post", {**message, "chat": {"id": -1005, "type": "channel", "title": "News"}}
            )
            api.say(anna, "/connections")
            await scene.shown(anna, "Connections")
        assert [call.parameters["chat_id"] for call in api.calls_of("sendMessage")] == ["7"]

    asyncio.run(story())
    assert scene.demo.authorization_server.requests == []


@covers("telegram-people")
def test_shared_connections_are_for_administrators(scene: Scene, anna: User, bob: User) -> None:
    api = scene.api
    policy = AllowList(users=frozenset({"8"}), admins=frozenset({"7"}))

    async def story() -> None:
        async with scene.bot(policy=policy):
            api.say(bob, "/connect notes")
            await api.until(
                lambda: "Only an administrator" in scene.texts(bob)[-1] if scene.texts(bob) else False
            )
            prompt = await scene.prompt(anna)
            api.say(anna, await scene.approved(prompt))
            await scene.shown(anna, "notes: connected")

    asyncio.run(story())
    assert scene.stored == [("notes", None)]


@covers("telegram-people")
def test_each_user_may_have_tokens_of_their_own(scene: Scene, anna: User, bob: User) -> None:
    api = scene.api
    policy = AllowList(users=frozenset({"7", "8"}), owners="per_user")

    async def story() -> None:
        async with scene.bot(policy=policy):
            prompt = await scene.prompt(anna)
            assert "For: only you" in prompt.text
            api.say(anna, await scene.approved(prompt))
            await scene.shown(anna, "notes: connected")
            api.say(bob, "/connections")
            listed = await scene.shown(bob, "Connections")
            assert "notes: not connected" in listed.text

    asyncio.run(story())
    assert scene.stored == [("notes", "telegram:7")]


@covers("telegram-people")
def test_a_user_who_is_no_number_is_never_written_to(scene: Scene) -> None:
    """Telegram treats a name as a public channel and a negative number as a group."""
    policy = AllowList(users=frozenset({"@news", "-1001"}))

    async def story() -> None:
        async with scene.bot(policy=policy):
            for user in ("@news", "-1001"):
                login = await scene.service().start_login(scene.server, Origin("telegram", user_id=user))
                settled = await asyncio.wait_for(scene.service().wait_for_login(login.id), 20)
                assert settled.status == "cancelled"

    asyncio.run(story())
    assert scene.api.calls_of("sendMessage") == []


@covers("telegram-people")
def test_a_login_begun_elsewhere_for_a_stranger_is_cancelled_and_never_shown(scene: Scene, eve: User) -> None:
    async def story() -> None:
        async with scene.bot():
            login = await scene.service().start_login(scene.server, Origin("telegram", user_id=str(eve.id)))
            settled = await asyncio.wait_for(scene.service().wait_for_login(login.id), 20)
            assert settled.status == "cancelled"

    asyncio.run(story())
    assert scene.texts(eve) == []
