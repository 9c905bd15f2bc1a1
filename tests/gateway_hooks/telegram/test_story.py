"""Logins from the command to the connection, as the chat shows them."""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path

import httpx2
import pytest
import zxingcpp
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent
from PIL import Image
from telegram import Update
from telegram.ext import CommandHandler

from hermes_mcp_auth_remote.auth.httpx2 import McpAuth
from hermes_mcp_auth_remote.values import Origin
from tests.browserless import approve_device
from tests.gateway_hooks.telegram.given import OPEN, Context, Scene, without_secrets
from tests.parts.bot_api import Message, User
from tests.requirements import covers

pytestmark = pytest.mark.slow

TRANSCRIPTS = Path(__file__).parents[2] / "transcripts"


def compare(name: str, text: str) -> None:
    """Compare a chat with its stored transcript. `NEW_TRANSCRIPTS=1` rewrites the file."""
    file = TRANSCRIPTS / f"{name}.txt"
    if os.environ.get("NEW_TRANSCRIPTS"):
        file.write_text(without_secrets(text), "utf-8")
    assert without_secrets(text) == file.read_text("utf-8")


def scanned(message: Message) -> str:
    assert message.photo is not None
    return zxingcpp.read_barcodes(Image.open(io.BytesIO(message.photo.data)))[0].text


@covers("telegram-story", "telegram-three-messages", "telegram-kept")
def test_a_login_by_pasting(scene: Scene, anna: User) -> None:
    api, seen = scene.api, list[str]()

    async def story() -> None:
        async with scene.bot() as service:
            prompt = await scene.prompt(anna)
            login = scene.login()
            assert api.url_of(prompt, OPEN) == login.authorization_url
            assert prompt.previews_disabled
            assert prompt.protected
            await api.press(anna, prompt, "QR code")
            picture = await scene.shown(anna, "Scan this")
            assert scanned(picture) == login.authorization_url
            assert picture.protected
            seen.append(api.transcript(anna))
            api.say(anna, await scene.approved(prompt))
            await scene.shown(anna, "notes: connected")
            await api.until(lambda: len(api.deleted(anna)) == 2)
            seen.append(api.transcript(anna))
            assert service.connection(scene.server) is not None
            assert len(api.messages(anna)) == 2
            assert api.messages(anna)[-1].id == prompt.id, "the bot did not edit the prompt"
        scene.check(login)

    asyncio.run(story())
    compare("telegram_paste", "\n--------\n\n".join(seen))


@covers("telegram-story")
def test_a_login_by_a_code_ends_by_itself(scene: Scene, anna: User) -> None:
    api, seen = scene.api, list[str]()
    scene.demo.authorization_server.change_behaviour(with_device=True)

    async def story() -> None:
        async with scene.bot():
            prompt = await scene.prompt(anna)
            login = scene.login()
            code = login.device_authorization
            assert code is not None
            assert api.copied_from(prompt, "Copy the code") == code.user_code
            assert [prompt.part(e) for e in prompt.entities if e.type == "code"][-1] == code.user_code
            seen.append(api.transcript(anna))
            await api.press(anna, prompt, "QR code")
            picture = await scene.shown(anna, "Scan this")
            assert scanned(picture) == code.verification_uri_complete
            await asyncio.to_thread(approve_device, scanned(picture))
            scene.clock.now += 5
            await scene.shown(anna, "notes: connected")
            await api.until(lambda: api.deleted(anna))
            seen.append(api.transcript(anna))
        scene.check(login)

    asyncio.run(story())
    compare("telegram_device", "\n--------\n\n".join(seen))


@covers("telegram-story")
def test_from_a_code_to_pasting_and_back(scene: Scene, anna: User) -> None:
    api = scene.api
    scene.demo.authorization_server.change_behaviour(with_device=True)

    async def story() -> None:
        async with scene.bot():
            prompt = await scene.prompt(anna)
            await api.press(anna, prompt, "Paste instead")
            await api.until(lambda: "Send it to me here" in api.messages(anna)[-1].text)
            now = api.messages(anna)[-1]
            assert now.id == prompt.id
            await api.press(anna, now, "Use a code instead")
            await api.until(lambda: "enter this code" in api.messages(anna)[-1].text)
            await api.press(anna, api.messages(anna)[-1], "Cancel")
            await scene.shown(anna, "notes: not connected")
        scene.check()

    asyncio.run(story())
    assert scene.service().waiting_logins() == []


@covers("telegram-story")
def test_a_call_of_the_mcp_sdk_asks_whoever_it_works_for_and_goes_on(scene: Scene, anna: User) -> None:
    """An agent in a group handler calls a tool. The call waits while its user logs in in private."""
    api = scene.api
    group = api.group(-1001, "Team", [anna])
    logins = scene.logins()

    async def ask_agent(update: Update, _context: Context) -> None:
        with logins.prompt_in(update):
            auth = McpAuth(logins.session("notes", update))
            async with (
                httpx2.AsyncClient(auth=auth, timeout=20) as http_client,
                Client(streamable_http_client(scene.demo.mcp_url, http_client=http_client)) as client,
            ):
                (content,) = (await client.call_tool("whoami", {})).content
        assert isinstance(content, TextContent)
        assert update.effective_message is not None
        await update.effective_message.reply_text(f"You are {content.text}")

    async def story() -> None:
        application = scene.builder().build()
        logins.add_to(application)
        application.add_handler(CommandHandler("whoami", ask_agent, block=False))
        async with application:
            await application.start()
            await application.updater.start_polling(poll_interval=0)
            api.say(anna, "/whoami", group)
            prompt = await scene.shown(anna, "Connect notes")
            login = scene.login()
            await scene.shown(group, "I wrote to you privately.")
            api.say(anna, await scene.approved(prompt))
            await scene.shown(group, "You are ada@example.com")
            await scene.shown(anna, "notes: connected")
            await application.updater.stop()
            await application.stop()
        scene.check(login)
        assert api.visible(login.authorization_url) == []

    asyncio.run(story())


@covers("telegram-anywhere")
def test_a_restart_between_prompt_and_paste_loses_nothing(scene: Scene, anna: User) -> None:
    api = scene.api

    async def story() -> None:
        async with scene.bot():
            prompt = await scene.prompt(anna)
            await api.press(anna, prompt, "QR code")
            await scene.shown(anna, "Scan this")
            login = scene.login()
            await api.until(lambda: len(scene.login().message_ids) == 2)
        # The bot does not run now.
        api.say(anna, await scene.approved(prompt))
        async with scene.bot():
            done = await scene.shown(anna, "notes: connected")
            assert done.id == prompt.id
            await api.until(lambda: len(api.deleted(anna)) == 2)
        scene.check(login)

    asyncio.run(story())


@covers("telegram-anywhere")
@pytest.mark.parametrize("with_device", [False, True], ids=["paste", "device"])
def test_a_login_begun_by_a_command_elsewhere_is_shown_and_finished_in_the_chat(
    scene: Scene, anna: User, *, with_device: bool
) -> None:
    api = scene.api
    scene.demo.authorization_server.change_behaviour(with_device=with_device)

    async def story() -> None:
        elsewhere = scene.service()
        async with scene.bot():
            login = await elsewhere.start_login(scene.server, Origin("telegram", user_id="7"), flow="auto")
            settled = asyncio.create_task(elsewhere.wait_for_login(login.id))
            prompt = await scene.shown(anna, "Connect notes")
            if with_device:
                assert login.device_authorization is not None
                await asyncio.to_thread(
                    approve_device, login.device_authorization.verification_uri_complete or ""
                )
                scene.clock.now += 5
            else:
                api.say(anna, await scene.approved(prompt))
            assert (await asyncio.wait_for(settled, 20)).status == "done"
            await scene.shown(anna, "notes: connected")
        scene.check(login)

    asyncio.run(story())


@covers("telegram-story")
def test_connections_are_listed_and_ended(scene: Scene, anna: User) -> None:
    api = scene.api

    async def story() -> None:
        async with scene.bot():
            prompt = await scene.prompt(anna)
            api.say(anna, await scene.approved(prompt))
            await scene.shown(anna, "notes: connected")
            api.say(anna, "/connections")
            listed = await scene.shown(anna, "Connections")
            assert "connected as ada@example.com, it renews itself" in listed.text
            await api.press(anna, listed, "Disconnect notes")
            sure = await scene.shown(anna, "Disconnect notes?")
            assert sure.id == listed.id
            await api.press(anna, sure, "Yes, disconnect")
            await scene.shown(anna, "notes: disconnected")
        scene.check()

    asyncio.run(story())
    assert scene.service().connection(scene.server) is None
    # Text of other users is neither a mention nor a link.
    for message in [api_message for each in api.messages(anna) for api_message in api.versions(each)]:
        assert {entity.type for entity in message.entities} <= {"bold", "code", "bot_command", "url"}


@covers("telegram-anywhere")
def test_the_deep_link_goes_on_with_the_login_that_could_not_be_shown(scene: Scene) -> None:
    api = scene.api
    anna = api.user(7, "Anna")
    group = api.group(-1001, "Team", [anna])

    async def story() -> None:
        async with scene.bot():
            api.say(anna, f"/connect@{api.bot.username} notes", group)
            said = await scene.shown(group, "Connect notes")
            link = api.url_of(said, "Open the private chat")
            login = scene.login()
            assert link == f"https://t.me/{api.bot.username}?start=mcp_{login.id}"
            assert api.visible(login.authorization_url) == []
            api.open_deep_link(anna, link)
            prompt = await scene.shown(anna, "Connect notes")
            api.say(anna, await scene.approved(prompt))
            await scene.shown(anna, "notes: connected")
        scene.check(login)

    asyncio.run(story())


@covers("telegram-story")
def test_help_is_told_to_who_may(scene: Scene, anna: User) -> None:
    api = scene.api

    async def story() -> None:
        async with scene.bot():
            for said in ("/start", "/help", "/start nonsense"):
                after = api.say(anna, said)
                helped = await scene.shown(anna, "I connect your agent", after.id)
                assert "/connect: log in" in helped.text

    asyncio.run(story())
