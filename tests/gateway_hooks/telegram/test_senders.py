"""Which senders and chats the bot serves, and which login an answer finishes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.dialog.policy import AllowList
from hermes_mcp_auth_remote.values import Origin
from tests.gateway_hooks.telegram.environment import OPEN_BUTTON, TelegramEnvironment
from tests.parts.bot_api import Button, Chat, User
from tests.requirements import covers

pytestmark = pytest.mark.slow


def check_no_leak(env: TelegramEnvironment, group: Chat) -> None:
    """Check that no version of a group message contains a login URL, a state or a picture."""
    for message in env.api.messages(group):
        for version in env.api.versions(message):
            if version.is_from_bot:
                assert version.photo is None
                assert not any("state=" in str(button.url) for button in version.buttons)
                assert "state=" not in version.text


@covers("telegram-group")
def test_group_sees_only_notice_of_private_message(env: TelegramEnvironment, anna: User) -> None:
    api = env.api
    group = api.add_group(-1001, "Team", [anna])

    async def log_in_from_group() -> None:
        async with env.running_bot():
            api.say(anna, f"/connect@{api.bot.username} notes", group)
            prompt = await env.wait_for_message(anna, "Connect notes")
            await env.wait_for_message(group, "I wrote to you privately.")
            api.say(anna, await env.approve_login(prompt))
            await env.wait_for_message(anna, "notes: connected")
            api.say(anna, "/connections", group)
            await env.wait_for_message(anna, "Connections")
            await api.until(lambda: len(env.bot_texts(group)) == 2)
        env.check_no_secrets()

    asyncio.run(log_in_from_group())
    assert env.bot_texts(group) == ["I wrote to you privately."] * 2
    check_no_leak(env, group)


@covers("telegram-group")
def test_reply_stays_in_topic_or_goes_to_group_if_topic_is_deleted(
    env: TelegramEnvironment, anna: User
) -> None:
    api = env.api
    forum = api.add_group(-1002, "Forum", [anna], forum=True)
    topic = api.add_topic(forum, "Logins")

    async def send_commands() -> None:
        async with env.running_bot():
            api.say(anna, "/connect notes", forum, thread=topic)
            topic_reply = await env.wait_for_message(forum, "I wrote to you privately.")
            assert topic_reply.thread == topic
            api.say(anna, "/connections", forum)
            group_reply = await env.wait_for_message(forum, "I wrote to you privately.", topic_reply.id)
            assert group_reply.thread is None
            held_call = api.hold("sendMessage")
            api.say(anna, "/connections", forum, thread=topic)
            await asyncio.to_thread(held_call.reached.wait, 10)
            del forum.topics[topic]
            held_call.release()
            reply_after_deletion = await env.wait_for_message(
                forum, "I wrote to you privately.", group_reply.id
            )
            assert reply_after_deletion.thread is None

    asyncio.run(send_commands())
    check_no_leak(env, forum)


@covers("telegram-group", "telegram-deleted")
@pytest.mark.parametrize("may_delete", [True, False])
def test_answer_in_group_restarts_login_in_private(
    env: TelegramEnvironment, anna: User, bob: User, *, may_delete: bool
) -> None:
    api = env.api
    group = api.add_group(-1001, "Team", [anna, bob], bot_can_delete=may_delete)

    async def post_answer_in_group() -> None:
        async with env.running_bot():
            api.say(anna, "/connect notes", group)
            notice = await env.wait_for_message(group, "I wrote to you privately.")
            prompt = await env.wait_for_message(anna, "Connect notes")
            login = env.waiting_login()
            answer = await env.approve_login(prompt)
            # Without administrator rights, the bot gets only replies to its own messages.
            api.say(anna, answer, group, reply_to=notice)
            warning = await env.wait_for_message(group, "Do not post codes in a group")
            assert ("please delete that message yourself" in warning.text) is not may_delete
            assert bool(api.deleted_messages(group)) is may_delete
            second_prompt = await env.wait_for_message(anna, "Connect notes")
            assert env.make_service().blocking.login(login.id).status == "cancelled"
            assert api.button_url(second_prompt, OPEN_BUTTON) != login.authorization_url
            api.say(anna, await env.approve_login(second_prompt))
            await env.wait_for_message(anna, "notes: connected")
        assert env.demo.authorization_server.count_requests("token") == 1, "the bot used the exposed code"

    asyncio.run(post_answer_in_group())
    check_no_leak(env, group)


@covers("telegram-group")
@pytest.mark.parametrize("request_kind", ["start", "qr", "device", "open"])
def test_group_requests_never_show_login_in_group(
    env: TelegramEnvironment, anna: User, request_kind: str
) -> None:
    """A login's id and a forged button do not show the login either. A client can send any callback data."""
    api = env.api
    group = api.add_group(-1001, "Team", [anna])
    env.demo.authorization_server.change_behaviour(with_device=True)

    async def send_requests() -> None:
        async with env.running_bot():
            # Another process starts the login: its origin has no chat.
            login = await env.make_service().start_login(env.server, Origin("telegram", user_id="7"))
            await env.wait_for_message(anna, "Connect notes")
            if request_kind == "start":
                api.say(anna, f"/start@{api.bot.username} mcp_{login.id}", group)
            else:
                api.say(anna, "/connections", group)
                notice = await env.wait_for_message(group, "I wrote to you privately.")
                forged_button = Button("Made up", callback_data=f"mcp:{request_kind}:{login.id}")
                api.state.replace_message(replace(notice, keyboard=((forged_button,),)))
                await api.press(anna, notice, "Made up")
            # This reply shows that the bot has handled the earlier update.
            api.say(anna, "/connections")
            await env.wait_for_message(anna, "Connections")
            await api.until(lambda: not env.waiting_login().poll_state or request_kind == "device")

    asyncio.run(send_requests())
    check_no_leak(env, group)


@covers("telegram-sender")
def test_swapped_answers_of_two_users_finish_nothing(env: TelegramEnvironment, anna: User, bob: User) -> None:
    api = env.api

    async def swap_answers() -> None:
        async with env.running_bot():
            anna_prompt = await env.request_prompt(anna)
            bob_prompt = await env.request_prompt(bob)
            anna_answer, bob_answer = (
                await env.approve_login(anna_prompt),
                await env.approve_login(bob_prompt),
            )
            for user, answer in ((anna, bob_answer), (bob, anna_answer)):
                pasted = api.say(user, answer)
                await env.wait_for_message(user, "Your answer did not complete the login to notes")
                assert [message.id for message in api.deleted_messages(user)] == [pasted.id]
            assert len(env.make_service().blocking.waiting_logins()) == 2
            assert env.demo.authorization_server.count_requests("token") == 0
            api.say(bob, bob_answer)
            await env.wait_for_message(bob, "notes: connected")
            api.say(anna, anna_answer)
            await env.wait_for_message(anna, "notes: connected")
        env.check_no_secrets()

    asyncio.run(swap_answers())


@covers("telegram-sender")
def test_login_from_private_topic_is_finished_in_main_view(env: TelegramEnvironment, anna: User) -> None:
    api = env.api
    private = api.private_chat(anna)
    private.is_forum = True
    topic = api.add_topic(private, "Agent", anna)

    async def log_in_from_topic() -> None:
        async with env.running_bot():
            api.say(anna, "/connect notes", thread=topic)
            prompt = await env.wait_for_message(anna, "Connect notes")
            assert prompt.thread == topic
            assert env.waiting_login().origin == Origin("telegram", "7", str(topic), "7", str(api.bot.id))
            answer = await env.approve_login(prompt)
            # Send the answer in the main view of the chat, not in the topic.
            api.say(anna, answer)
            await env.wait_for_message(anna, "notes: connected")

    asyncio.run(log_in_from_topic())


@covers("telegram-people")
def test_unknown_user_gets_id_once_and_no_request_is_sent(env: TelegramEnvironment, eve: User) -> None:
    api = env.api

    async def send_commands() -> None:
        async with env.running_bot():
            api.say(eve, "/connect notes")
            reply = await env.wait_for_message(eve, "You may not use this bot yet")
            assert "Your id here is 9." in reply.text
            api.say(eve, "/connections")
            api.say(eve, "/help")
            api.say(eve, "http://127.0.0.1/callback?code=a-code-of-somebody&state=a-state")
            await api.until(lambda: not api.state.updates.pending)
        assert len(env.bot_texts(eve)) == 1

    asyncio.run(send_commands())
    assert env.demo.authorization_server.requests == []
    assert env.make_service().blocking.logins() == []


@covers("telegram-people")
def test_messages_without_user_are_ignored(env: TelegramEnvironment, anna: User) -> None:
    api = env.api
    group = api.add_group(-1001, "Team", [anna])
    anonymous = {"id": 1087968824, "is_bot": True, "first_name": "Group", "username": "GroupAnonymousBot"}
    other_bot = {"id": 7, "is_bot": True, "first_name": "Anna"}
    message = {
        "message_id": 1,
        "date": int(env.clock.now),
        "chat": group.json(),
        "text": "/connect notes",
        "entities": [{"type": "bot_command", "offset": 0, "length": 8}],
    }

    async def send_messages() -> None:
        async with env.running_bot():
            api.state.push("message", {**message, "from": anonymous, "sender_chat": group.json()})
            api.state.push(
                "message", {**message, "from": {**other_bot, "is_bot": False}, "sender_chat": group.json()}
            )
            api.state.push("message", {**message, "from": other_bot})
            api.state.push(
                "channel_post", {**message, "chat": {"id": -1005, "type": "channel", "title": "News"}}
            )
            api.say(anna, "/connections")
            await env.wait_for_message(anna, "Connections")
        assert [call.parameters["chat_id"] for call in api.calls_of("sendMessage")] == ["7"]

    asyncio.run(send_messages())
    assert env.demo.authorization_server.requests == []


@covers("telegram-people")
def test_only_administrators_start_shared_logins(env: TelegramEnvironment, anna: User, bob: User) -> None:
    api = env.api
    policy = AllowList(users=frozenset({"8"}), admins=frozenset({"7"}))

    async def request_logins() -> None:
        async with env.running_bot(policy=policy):
            api.say(bob, "/connect notes")
            await api.until(
                lambda: "Only an administrator" in env.bot_texts(bob)[-1] if env.bot_texts(bob) else False
            )
            prompt = await env.request_prompt(anna)
            api.say(anna, await env.approve_login(prompt))
            await env.wait_for_message(anna, "notes: connected")

    asyncio.run(request_logins())
    assert env.stored_keys == [("notes", None)]


@covers("telegram-people")
def test_users_have_own_tokens_if_per_user(env: TelegramEnvironment, anna: User, bob: User) -> None:
    api = env.api
    policy = AllowList(users=frozenset({"7", "8"}), owners="per_user")

    async def log_in_anna() -> None:
        async with env.running_bot(policy=policy):
            prompt = await env.request_prompt(anna)
            assert ENGLISH.approve_step in prompt.text
            api.say(anna, await env.approve_login(prompt))
            await env.wait_for_message(anna, "notes: connected")
            api.say(bob, "/connections")
            connections_message = await env.wait_for_message(bob, "Connections")
            assert "notes: not connected" in connections_message.text

    asyncio.run(log_in_anna())
    assert env.stored_keys == [("notes", "telegram:7")]


@covers("telegram-people")
def test_bot_writes_only_to_numeric_user_ids(env: TelegramEnvironment) -> None:
    """Telegram treats a name as a public channel and a negative number as a group."""
    policy = AllowList(users=frozenset({"@news", "-1001"}))

    async def start_logins() -> None:
        async with env.running_bot(policy=policy):
            for user in ("@news", "-1001"):
                login = await env.make_service().start_login(env.server, Origin("telegram", user_id=user))
                ended_login = await asyncio.wait_for(env.make_service().wait_for_login(login.id), 20)
                assert ended_login.status == "cancelled"

    asyncio.run(start_logins())
    assert env.api.calls_of("sendMessage") == []


@covers("telegram-people")
def test_login_of_another_process_for_unknown_user_is_cancelled(env: TelegramEnvironment, eve: User) -> None:
    async def start_login() -> None:
        async with env.running_bot():
            login = await env.make_service().start_login(env.server, Origin("telegram", user_id=str(eve.id)))
            ended_login = await asyncio.wait_for(env.make_service().wait_for_login(login.id), 20)
            assert ended_login.status == "cancelled"

    asyncio.run(start_login())
    assert env.bot_texts(eve) == []
