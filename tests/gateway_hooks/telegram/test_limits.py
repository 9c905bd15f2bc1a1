"""Telegram's limits: message size, message rate, one answer per pressed button."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from telegram import BotCommand

from gateway_hooks.dialog.cards import Card, Link
from gateway_hooks.dialog.platform import MessageGone
from gateway_hooks.dialog.policy import AllowList
from gateway_hooks.dialog.servers import StaticServers
from gateway_hooks.telegram.api_calls import ApiCalls
from gateway_hooks.telegram.chat import TelegramChat
from hermes_mcp_auth_remote.values import Origin
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.gateway_hooks.telegram.environment import OPEN_BUTTON, TelegramEnvironment, wait_until
from tests.gateway_hooks.telegram.test_application import HostHandlers, running_application
from tests.parts.authorization_server import Demo
from tests.parts.bot_api import User, serve_bot_api
from tests.requirements import covers

pytestmark = pytest.mark.slow


def servers_with_long_url(env: TelegramEnvironment, hint_chars: int) -> StaticServers:
    options = replace(env.server.options, authorize_params={"hint": "x" * hint_chars})
    return StaticServers([replace(env.server, options=options)])


@covers("telegram-limits")
@pytest.mark.parametrize(
    ("characters", "messages"),
    [(1400, 1), (2200, 1), (3400, 2), (5000, 2)],
    ids=["button", "text", "separate", "file"],
)
def test_long_url_is_in_text_or_separate_message(
    env: TelegramEnvironment, anna: User, characters: int, messages: int
) -> None:
    api = env.api
    logins = env.make_logins()
    logins._dispatcher_arguments = (
        logins._dispatcher_arguments[0],
        servers_with_long_url(env, characters),
        *logins._dispatcher_arguments[2:],
    )
    env.demo.authorization_server.change_behaviour(with_device=True)

    async def finish_login() -> None:
        async with running_application(env, HostHandlers(), logins):
            prompt = await env.request_prompt(anna)
            await api.press(anna, prompt, "Paste instead")
            await api.until(lambda: any("Send it to me" in text for text in env.bot_texts(anna)))
            await wait_until(lambda: len(env.waiting_login().message_ids) == 1)
            await api.until(lambda: len(env.bot_texts(anna)) == messages)
            login, url = env.waiting_login(), env.waiting_login().authorization_url
            bot_messages = [message for message in api.messages(anna) if message.is_from_bot]
            assert all(
                message.protected and (message.previews_disabled or message.document)
                for message in bot_messages
            )
            if characters == 1400:
                assert api.button_url(bot_messages[0], OPEN_BUTTON) == url
            elif characters == 5000:
                assert bot_messages[1].document is not None
                assert bot_messages[1].document.data.decode() == url
            else:
                assert url in bot_messages[-1].text
                assert {
                    bot_messages[-1].entity_text(entity)
                    for entity in bot_messages[-1].entities
                    if entity.type == "url"
                } >= {url}
            await api.press(anna, bot_messages[0], "QR code")
            qr_refusal = await env.wait_for_message(anna, "Connect notes", bot_messages[-1].id)
            assert "too long for a QR code" in qr_refusal.text
            # The countdown is edited; then the user answers.
            env.clock.now += 301
            await api.until(lambda: any("(5 minutes)" in text for text in env.bot_texts(anna)))
            api.say(anna, await asyncio.to_thread(approve_login, env))
            await env.wait_for_message(anna, "notes: connected")
            await wait_until(lambda: env.make_service().blocking.login(login.id).message_ids == ())
            await api.until(lambda: len(env.bot_texts(anna)) == 1)
        env.check_no_secrets(login)
        failed_descriptions = {call.description.partition(":")[2][:28] for call in api.calls if not call.ok}
        # If the bot shows the exchange of the code, it deletes the message of the URL then, and once more at
        # the outcome.
        assert failed_descriptions <= {" message is not modified: sp", " message to delete not found"}

    asyncio.run(finish_login())


@covers("telegram-limits")
def test_prompt_without_its_separate_url_is_replaced(env: TelegramEnvironment, anna: User) -> None:
    async def edit_prompt() -> None:
        async with env.application_builder().build() as application:
            chat = TelegramChat(
                application.bot,
                ApiCalls(),
                Origin("telegram", str(anna.id), user_id=str(anna.id)),
                is_private=True,
            )
            link_card = Card("Connect notes", link=Link("Open the page", f"https://as.example/?{'x' * 4050}"))
            message_id = await chat.send(link_card)
            assert len(env.bot_texts(anna)) == 2
            await chat.edit(message_id, Card("Connect notes", paragraphs=("Logging in",)))
            assert len(env.bot_texts(anna)) == 1
            # The server did not know a bare code, so the login waits for another answer.
            with pytest.raises(MessageGone):
                await chat.edit(message_id, link_card)
            assert env.bot_texts(anna) == []

    asyncio.run(edit_prompt())


def approve_login(env: TelegramEnvironment) -> str:
    return approve(env.waiting_login().authorization_url)


@covers("telegram-limits")
@pytest.mark.parametrize(
    "text",
    [
        "Bad Request: BUTTON_URL_INVALID",
        "Bad Request: inline keyboard button URL 'x' is invalid: Wrong HTTP URL",
    ],
)
def test_url_refused_for_button_is_in_text(env: TelegramEnvironment, anna: User, text: str) -> None:
    api = env.api

    async def show_prompts() -> None:
        async with running_application(env, HostHandlers()):
            api.refuse(400, text, "sendMessage")
            prompt = await env.request_prompt(anna)
            assert env.waiting_login().authorization_url in prompt.text
            api.refuse(400, text, "editMessageText")
            env.clock.now += 301
            await api.until(lambda: "(5 minutes)" in api.messages(anna)[-1].text)
            edited_prompt = api.messages(anna)[-1]
            assert edited_prompt.id == prompt.id
            assert env.waiting_login().authorization_url in edited_prompt.text

    asyncio.run(show_prompts())


@covers("telegram-limits")
def test_menu_is_set_once_and_if_it_differs(env: TelegramEnvironment) -> None:
    api = env.api

    async def run_bots() -> None:
        for _ in range(2):
            async with env.running_bot():
                await api.until(lambda: api.is_polling)
                await wait_until(lambda: bool(api.calls_of("getMyCommands")))
        assert len(api.calls_of("setMyCommands")) == 1
        async with env.application_builder().build() as application:
            names = [command.command for command in await application.bot.get_my_commands()]
            assert names == ["connect", "connections", "disconnect"]
            await application.bot.set_my_commands([BotCommand("other", "Other")])
        async with env.running_bot():
            await wait_until(lambda: len(api.calls_of("setMyCommands")) == 3)

    asyncio.run(run_bots())


@covers("telegram-trouble")
def test_hundred_concurrent_chats_get_prompts(env: TelegramEnvironment) -> None:
    api = env.api
    users = [api.add_user(number, f"Person {number}") for number in range(1000, 1100)]
    for person in users:
        api.private_chat(person).is_started = True
    policy = AllowList(users=frozenset(str(person.id) for person in users), owners="per_user")

    async def request_prompts() -> None:
        async with env.running_bot(policy=policy):
            for person in users:
                api.say(person, "/connect notes")
            await api.until(lambda: all(env.bot_texts(person) for person in users), 60)

    asyncio.run(request_prompts())
    assert len({api.button_url(api.messages(person)[-1], OPEN_BUTTON) for person in users}) == 100


@covers("telegram-trouble")
def test_all_users_get_prompts_within_rate_limits(demo: Demo, tmp_path: Path, clock: ManualClock) -> None:
    async def advance_clock(seconds: float) -> None:
        clock.now += seconds
        await asyncio.sleep(0)

    with serve_bot_api(clock=clock, rate_limits=True) as api:
        env = TelegramEnvironment(api, demo, tmp_path, clock)
        users = [api.add_user(number, f"Person {number}") for number in range(1000, 1040)]
        for person in users:
            api.private_chat(person).is_started = True
        policy = AllowList(users=frozenset(str(person.id) for person in users), owners="per_user")
        logins = env.make_logins(policy=policy)
        logins._sleep = advance_clock

        async def request_prompts() -> None:
            async with running_application(env, HostHandlers(), logins):
                for person in users:
                    api.say(person, "/connect notes")
                for person in users:
                    await env.wait_for_message(person, "Connect notes")

        asyncio.run(request_prompts())
        assert any(call.description.startswith("Too Many") for call in api.calls_of("sendMessage"))
        assert [len(env.bot_texts(person)) for person in users] == [1] * 40


@covers("telegram-trouble")
def test_each_press_is_answered_once(env: TelegramEnvironment, anna: User) -> None:
    api = env.api

    async def press_buttons() -> None:
        async with running_application(env, HostHandlers()):
            prompt = await env.request_prompt(anna)
            assert (await api.press(anna, prompt, "QR code")).text == ""
            await api.press(anna, prompt, "Cancel")
            outcome = await env.wait_for_message(anna, "notes: not connected")
            # Another client still shows a button that the bot has removed.
            api.state.replace_message(replace(prompt, edited_at=env.clock.now))
            assert (await api.press(anna, prompt, "Cancel")).text == "That login is over."
            api.state.replace_message(replace(prompt, text=outcome.text, keyboard=outcome.keyboard))
            assert (await api.press(anna, prompt, "Try again")).text == "One moment…"
        for call in api.calls_of("answerCallbackQuery"):
            assert call.ok
        assert len(api.calls_of("answerCallbackQuery")) == 4

    asyncio.run(press_buttons())
