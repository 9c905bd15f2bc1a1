"""Logins from the command to the connection, as the chat shows them."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent
from telegram import Update
from telegram.ext import CommandHandler

from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.dialog.policy import AllowList
from hermes_mcp_auth_remote.auth.httpx2 import McpAuth
from hermes_mcp_auth_remote.values import Origin
from tests.consent_form import approve_device
from tests.gateway_hooks.telegram.environment import (
    OPEN_BUTTON,
    Context,
    TelegramEnvironment,
    without_secrets,
)
from tests.parts.bot_api import User
from tests.qr_codes import scan_qr_code
from tests.requirements import covers
from tests.transcript_files import compare_transcript

pytestmark = pytest.mark.slow


@covers("telegram-story", "telegram-three-messages", "telegram-kept")
def test_login_with_pasted_answer(env: TelegramEnvironment, anna: User) -> None:
    api, transcripts = env.api, list[str]()

    async def log_in() -> None:
        async with env.running_bot() as service:
            prompt = await env.request_prompt(anna)
            login = env.waiting_login()
            assert api.button_url(prompt, OPEN_BUTTON) == login.authorization_url
            assert prompt.previews_disabled
            assert prompt.protected
            await api.press(anna, prompt, "QR code")
            picture = await env.wait_for_message(anna, "Scan this")
            assert picture.photo is not None
            assert scan_qr_code(picture.photo.data) == login.authorization_url
            assert picture.protected
            transcripts.append(api.transcript(anna))
            api.say(anna, await env.approve_login(prompt))
            await env.wait_for_message(anna, "notes: connected")
            await api.until(lambda: len(api.deleted_messages(anna)) == 2)
            transcripts.append(api.transcript(anna))
            assert service.blocking.connection(env.server) is not None
            assert len(api.messages(anna)) == 2
            assert api.messages(anna)[-1].id == prompt.id, "the bot did not edit the prompt"
        env.check_no_secrets(login)

    asyncio.run(log_in())
    compare_transcript("telegram_paste", without_secrets("\n--------\n\n".join(transcripts)))


@covers("telegram-story")
def test_device_login_ends_without_answer(env: TelegramEnvironment, anna: User) -> None:
    api, transcripts = env.api, list[str]()
    env.demo.authorization_server.change_behaviour(with_device=True)

    async def log_in() -> None:
        async with env.running_bot():
            prompt = await env.request_prompt(anna)
            login = env.waiting_login()
            code = login.device_authorization
            assert code is not None
            assert api.copied_text(prompt, "Copy the code") == code.user_code
            assert [prompt.entity_text(e) for e in prompt.entities if e.type == "code"][-1] == code.user_code
            transcripts.append(api.transcript(anna))
            await api.press(anna, prompt, "QR code")
            picture = await env.wait_for_message(anna, "Scan this")
            assert picture.photo is not None
            assert scan_qr_code(picture.photo.data) == code.verification_uri_complete
            await asyncio.to_thread(approve_device, scan_qr_code(picture.photo.data))
            env.clock.now += 5
            await env.wait_for_message(anna, "notes: connected")
            await api.until(lambda: api.deleted_messages(anna))
            transcripts.append(api.transcript(anna))
        env.check_no_secrets(login)

    asyncio.run(log_in())
    compare_transcript("telegram_device", without_secrets("\n--------\n\n".join(transcripts)))


@covers("telegram-story")
def test_switch_from_device_code_to_paste_and_back(env: TelegramEnvironment, anna: User) -> None:
    api = env.api
    env.demo.authorization_server.change_behaviour(with_device=True)

    async def switch_flows() -> None:
        async with env.running_bot():
            prompt = await env.request_prompt(anna)
            await api.press(anna, prompt, "Paste instead")
            await api.until(lambda: "Send it to me here" in api.messages(anna)[-1].text)
            paste_prompt = api.messages(anna)[-1]
            assert paste_prompt.id == prompt.id
            await api.press(anna, paste_prompt, "Use a code instead")
            await api.until(lambda: "Enter this code" in api.messages(anna)[-1].text)
            await api.press(anna, api.messages(anna)[-1], "Cancel")
            await env.wait_for_message(anna, "notes: not connected")
        env.check_no_secrets()

    asyncio.run(switch_flows())
    assert env.make_service().blocking.waiting_logins() == []


@covers("telegram-story")
@pytest.mark.parametrize("concurrent_updates", [False, True], ids=["block=False", "concurrent_updates"])
def test_mcp_sdk_call_prompts_its_user_and_continues(
    env: TelegramEnvironment, anna: User, *, concurrent_updates: bool
) -> None:
    """An agent in a group handler calls a tool. The call waits while its user logs in in private."""
    api = env.api
    group = api.add_group(-1001, "Team", [anna])
    logins = env.make_logins()

    async def ask_agent(update: Update, _context: Context) -> None:
        with logins.prompt_in(update):
            auth = McpAuth(logins.session("notes", update))
            async with (
                httpx2.AsyncClient(auth=auth, timeout=20) as http_client,
                Client(streamable_http_client(env.demo.mcp_url, http_client=http_client)) as client,
            ):
                (content,) = (await client.call_tool("whoami", {})).content
        assert isinstance(content, TextContent)
        assert update.effective_message is not None
        await update.effective_message.reply_text(f"You are {content.text}")

    async def call_from_group() -> None:
        application = env.application_builder().concurrent_updates(concurrent_updates).build()
        logins.add_to(application)
        application.add_handler(CommandHandler("whoami", ask_agent, block=concurrent_updates))
        async with application:
            await application.start()
            await application.updater.start_polling(poll_interval=0)
            api.say(anna, "/whoami", group)
            prompt = await env.wait_for_message(anna, "Connect notes")
            login = env.waiting_login()
            await env.wait_for_message(group, "I wrote to you privately.")
            api.say(anna, await env.approve_login(prompt))
            await env.wait_for_message(group, "You are ada@example.com")
            await env.wait_for_message(anna, "notes: connected")
            await application.updater.stop()
            await application.stop()
        env.check_no_secrets(login)
        assert api.messages_containing(login.authorization_url) == []

    asyncio.run(call_from_group())


@covers("telegram-anywhere")
def test_login_continues_after_restart(env: TelegramEnvironment, anna: User) -> None:
    api = env.api

    async def restart_before_answer() -> None:
        async with env.running_bot():
            prompt = await env.request_prompt(anna)
            await api.press(anna, prompt, "QR code")
            await env.wait_for_message(anna, "Scan this")
            login = env.waiting_login()
            await api.until(lambda: len(env.waiting_login().message_ids) == 2)
        # The bot does not run now.
        api.say(anna, await env.approve_login(prompt))
        async with env.running_bot():
            outcome = await env.wait_for_message(anna, "notes: connected")
            assert outcome.id == prompt.id
            await api.until(lambda: len(api.deleted_messages(anna)) == 2)
        env.check_no_secrets(login)

    asyncio.run(restart_before_answer())


@covers("telegram-anywhere")
@pytest.mark.parametrize("with_device", [False, True], ids=["paste", "device"])
def test_login_of_another_process_is_finished_in_chat(
    env: TelegramEnvironment, anna: User, *, with_device: bool
) -> None:
    api = env.api
    env.demo.authorization_server.change_behaviour(with_device=with_device)

    async def finish_login() -> None:
        other_service = env.make_service()
        async with env.running_bot():
            login = await other_service.start_login(env.server, Origin("telegram", user_id="7"), flow="auto")
            wait_task = asyncio.create_task(other_service.wait_for_login(login.id))
            prompt = await env.wait_for_message(anna, "Connect notes")
            if with_device:
                assert login.device_authorization is not None
                await asyncio.to_thread(
                    approve_device, login.device_authorization.verification_uri_complete or ""
                )
                env.clock.now += 5
            else:
                api.say(anna, await env.approve_login(prompt))
            assert (await asyncio.wait_for(wait_task, 20)).status == "done"
            await env.wait_for_message(anna, "notes: connected")
        env.check_no_secrets(login)

    asyncio.run(finish_login())


@covers("telegram-story")
def test_connections_are_listed_and_disconnected(env: TelegramEnvironment, anna: User) -> None:
    api = env.api

    async def connect_and_disconnect() -> None:
        async with env.running_bot():
            prompt = await env.request_prompt(anna)
            api.say(anna, await env.approve_login(prompt))
            await env.wait_for_message(anna, "notes: connected")
            api.say(anna, "/connections")
            connections_message = await env.wait_for_message(anna, "Connections")
            assert (
                "connected as ada@example.com, until the provider ends it (refreshes itself)"
                in connections_message.text
            )
            await api.press(anna, connections_message, "Disconnect notes")
            confirmation = await env.wait_for_message(anna, "Disconnect notes?")
            assert confirmation.id == connections_message.id
            await api.press(anna, confirmation, "Yes, disconnect")
            await env.wait_for_message(anna, "notes: disconnected")
        env.check_no_secrets()

    asyncio.run(connect_and_disconnect())
    assert env.make_service().blocking.connection(env.server) is None
    # Text of other users is neither a mention nor a link.
    for message in [version for original in api.messages(anna) for version in api.versions(original)]:
        assert {entity.type for entity in message.entities} <= {"bold", "code", "bot_command", "url"}


@covers("telegram-anywhere")
def test_deep_link_continues_login(env: TelegramEnvironment) -> None:
    api = env.api
    anna = api.add_user(7, "Anna")
    group = api.add_group(-1001, "Team", [anna])

    async def open_deep_link() -> None:
        async with env.running_bot():
            api.say(anna, f"/connect@{api.bot.username} notes", group)
            link_message = await env.wait_for_message(group, "Connect notes")
            link = api.button_url(link_message, "Open the private chat")
            login = env.waiting_login()
            assert link == f"https://t.me/{api.bot.username}?start=mcp_{login.id}"
            assert api.messages_containing(login.authorization_url) == []
            api.open_deep_link(anna, link)
            prompt = await env.wait_for_message(anna, "Connect notes")
            api.say(anna, await env.approve_login(prompt))
            await env.wait_for_message(anna, "notes: connected")
        env.check_no_secrets(login)

    asyncio.run(open_deep_link())


@covers("telegram-story")
def test_help_is_sent_to_allowed_users(env: TelegramEnvironment, anna: User) -> None:
    api = env.api

    async def request_help() -> None:
        async with env.running_bot():
            for command in ("/start", "/help", "/start nonsense"):
                command_message = api.say(anna, command)
                help_message = await env.wait_for_message(anna, "I connect your agent", command_message.id)
                assert "/connect: log in" in help_message.text

    asyncio.run(request_help())


@covers("chat-url")
def test_an_address_means_a_configured_server_or_is_checked(env: TelegramEnvironment, anna: User) -> None:
    policy = AllowList(users={"7"}, owners="per_user")

    async def send_addresses() -> None:
        async with env.running_bot(policy=policy):
            env.api.say(anna, f"/connect {env.demo.ping_url}")
            await env.wait_for_message(anna, "Connect ping")
            env.api.say(anna, "/connect https://user:hunter2@169.254.169.254/mcp?key=an-api-key")
            refusal = await env.wait_for_message(anna, ENGLISH.address_refused_title)
            assert "user information" in refusal.text
        assert "hunter2" not in "\n".join(message.text for message in env.api.messages(anna))
        assert [login.key.server_name for login in env.make_service().blocking.waiting_logins()] == ["ping"]

    asyncio.run(send_addresses())
