"""A call that needs a login prompts its user in private while the agent works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway_hooks.dialog.policy import AllowList
from hermes_mcp_auth_remote.errors import AuthorizationRequired
from tests.consent_form import approve
from tests.gateway_hooks.conftest import StartBot
from tests.gateway_hooks.fake_platform import ChatBot, ChatUser, wait_until
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow

Action = Callable[[], Awaitable[object]]


def call_server(
    bot: ChatBot, user: ChatUser, *actions: Action, sender: ChatUser | None = None
) -> str | AuthorizationRequired:
    """Make a call for a user who acts while it waits. Return the header, or the error if there is none."""

    async def request_header() -> str | AuthorizationRequired:
        source = sender or user
        with bot.dispatcher.prompt_in(user.sender, source.chat, wait_seconds=20):
            try:
                return await bot.dispatcher.session("notes", user.user_id).header()
            except AuthorizationRequired as error:
                return error

    async def run_call() -> str | AuthorizationRequired:
        sync_task, call_task = (
            asyncio.create_task(bot.dispatcher.prompt_messages.run()),
            asyncio.create_task(request_header()),
        )
        try:
            for action in actions:
                await action()
            return await call_task
        finally:
            for task in (sync_task, call_task):
                task.cancel()
            await asyncio.gather(sync_task, call_task, return_exceptions=True)

    return bot.run(run_call())


def wait_for_title(person: ChatUser, title: str) -> Action:
    return lambda: wait_until(lambda: title in person.visible_titles())


def send_text_later(bot: ChatBot, person: ChatUser, make_text: Callable[[], str]) -> Action:
    async def send_made_text() -> None:
        text_to_send = await asyncio.to_thread(make_text)
        assert await bot.dispatcher.handle(person.message_event(text_to_send), person.chat)

    return send_made_text


@covers("chat-asks")
def test_call_prompts_user_in_private_chat_and_continues(bot: ChatBot, ada: ChatUser) -> None:
    header = call_server(
        bot,
        ada,
        wait_for_title(ada, "Connect notes"),
        send_text_later(bot, ada, lambda: approve(bot.login.authorization_url)),
        wait_for_title(ada, "notes: connected"),
    )
    assert isinstance(header, str)
    assert header.startswith("Bearer ")
    assert ada.visible_titles() == ["notes: connected"]


@covers("chat-asks", "chat-private")
def test_call_from_group_prompts_in_private_and_tells_group(bot: ChatBot, ada: ChatUser) -> None:
    group = bot.user("ada", group="kitchen")
    header = call_server(
        bot,
        ada,
        wait_for_title(ada, "Connect notes"),
        wait_for_title(group, "I wrote to you privately."),
        send_text_later(bot, ada, lambda: approve(bot.login.authorization_url)),
        sender=group,
    )
    assert isinstance(header, str)
    assert group.visible_titles() == ["I wrote to you privately."]


@covers("chat-asks", "chat-private")
def test_call_continues_from_link_in_group_if_bot_cannot_write_first(bot: ChatBot, ada: ChatUser) -> None:
    group = bot.user("ada", group="kitchen")
    ada.room.cannot_write = True

    async def allow_bot_to_write() -> None:
        ada.room.cannot_write = False

    header = call_server(
        bot,
        ada,
        wait_for_title(group, "Connect notes"),
        allow_bot_to_write,
        send_text_later(bot, ada, lambda: f"/start mcp_{bot.login.id}"),
        wait_for_title(ada, "Connect notes"),
        send_text_later(bot, ada, lambda: approve(bot.login.authorization_url)),
        sender=group,
    )
    assert isinstance(header, str)


@covers("chat-asks")
def test_ten_calls_send_one_prompt(bot: ChatBot, ada: ChatUser) -> None:
    async def make_calls() -> list[str]:
        sync_task = asyncio.create_task(bot.dispatcher.prompt_messages.run())
        with bot.dispatcher.prompt_in(ada.sender, ada.chat):
            session = bot.dispatcher.session("notes", "ada")
            calls = [asyncio.create_task(session.header()) for _ in range(10)]
        await wait_until(lambda: ada.visible_titles() == ["Connect notes"])
        answer = await asyncio.to_thread(approve, bot.login.authorization_url)
        await bot.dispatcher.handle(ada.message_event(answer), ada.chat)
        headers = await asyncio.gather(*calls)
        await wait_until(lambda: ada.visible_titles() == ["notes: connected"])
        sync_task.cancel()
        await asyncio.gather(sync_task, return_exceptions=True)
        return headers

    assert len(set(bot.run(make_calls()))) == 1
    assert ada.room.calls.count("send") == 1


@covers("chat-asks", "no-address")
def test_call_fails_without_url_if_user_cancels(bot: ChatBot, ada: ChatUser) -> None:
    error = call_server(
        bot, ada, wait_for_title(ada, "Connect notes"), send_text_later(bot, ada, lambda: "/cancel")
    )
    assert isinstance(error, AuthorizationRequired)
    assert "cancelled" in error.reason
    assert "://" not in f"{error} {error.advice}"


@covers("chat-asks")
@pytest.mark.parametrize("group", ["", "kitchen"])
def test_call_fails_at_once_if_bot_can_write_to_no_chat(
    bot: ChatBot, ada: ChatUser, group: str, caplog: pytest.LogCaptureFixture
) -> None:
    ada.room.cannot_write = True
    source = bot.user("ada", group=group) if group else ada
    source.room.cannot_write = True
    error = call_server(bot, ada, sender=source)
    assert isinstance(error, AuthorizationRequired)
    assert bot.waiting_logins() == []
    assert "The bot may not write there." in caplog.text


@covers("chat-asks", "chat-listed", "chat-admins")
@pytest.mark.parametrize(
    "policy",
    [
        AllowList(users=frozenset({"bob"})),
        AllowList(users=frozenset({"bob"}), owners="per_user"),
        AllowList(users=frozenset({"ada"}), admins=frozenset({"bob"})),
    ],
    ids=["stranger", "stranger, per-user tokens", "no administrator"],
)
def test_call_for_user_without_permission_sends_no_prompt_and_no_request(
    start_bot: StartBot, policy: AllowList, demo: Demo
) -> None:
    bot = start_bot(policy=policy)
    ada = bot.user("ada")
    assert isinstance(call_server(bot, ada), AuthorizationRequired)
    assert ada.visible_titles() == []
    assert demo.authorization_server.requests == []


@covers("chat-asks", "chat-owners")
def test_call_uses_only_tokens_of_its_user(start_bot: StartBot) -> None:
    bot = start_bot(policy=AllowList(users=frozenset({"ada", "bob"}), owners="per_user"))
    ada, bob = bot.user("ada"), bot.user("bob")
    ada.send_text("/connect notes")
    ada.paste(approve(bot.login.authorization_url))
    assert isinstance(call_server(bot, ada), str)
    header = call_server(
        bot,
        bob,
        wait_for_title(bob, "Connect notes"),
        send_text_later(bot, bob, lambda: approve(bot.login.authorization_url)),
    )
    assert isinstance(header, str)
    assert header != call_server(bot, ada)
