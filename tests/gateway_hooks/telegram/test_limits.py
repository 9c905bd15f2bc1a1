"""Telegram's limits: message size, message rate, one answer per pressed button."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from telegram import BotCommand

from gateway_hooks.dialog.policy import AllowList
from gateway_hooks.dialog.servers import StaticServers
from tests.browserless import approve
from tests.demo.player import MovedClock
from tests.gateway_hooks.telegram.given import OPEN, Scene, eventually
from tests.gateway_hooks.telegram.test_application import Host, hosted
from tests.parts.authorization_server import Demo
from tests.parts.bot_api import User, running
from tests.requirements import covers

pytestmark = pytest.mark.slow


def with_long_address(scene: Scene, characters: int) -> StaticServers:
    options = replace(scene.server.options, authorize_params={"hint": "x" * characters})
    return StaticServers([replace(scene.server, options=options)])


@covers("telegram-limits")
@pytest.mark.parametrize(
    ("characters", "messages"),
    [(1400, 1), (2200, 1), (3400, 2), (5000, 2)],
    ids=["button", "text", "separate", "file"],
)
def test_an_address_too_long_for_a_button_goes_into_the_text_and_on(
    scene: Scene, anna: User, characters: int, messages: int
) -> None:
    api = scene.api
    logins = scene.logins()
    logins._dispatcher_arguments = (
        logins._dispatcher_arguments[0],
        with_long_address(scene, characters),
        *logins._dispatcher_arguments[2:],
    )
    scene.demo.authorization_server.change_behaviour(with_device=True)

    async def story() -> None:
        async with hosted(scene, Host(), logins):
            prompt = await scene.prompt(anna)
            await api.press(anna, prompt, "Paste instead")
            await api.until(lambda: any("Send it to me" in each for each in scene.texts(anna)))
            await eventually(lambda: len(scene.login().message_ids) == 1)
            await api.until(lambda: len(scene.texts(anna)) == messages)
            login, url = scene.login(), scene.login().authorization_url
            shown = [each for each in api.messages(anna) if each.from_bot]
            assert all(each.protected and (each.previews_disabled or each.document) for each in shown)
            if characters == 1400:
                assert api.url_of(shown[0], OPEN) == url
            elif characters == 5000:
                assert shown[1].document is not None
                assert shown[1].document.data.decode() == url
            else:
                assert url in shown[-1].text
                assert {shown[-1].part(each) for each in shown[-1].entities if each.type == "url"} >= {url}
            await api.press(anna, shown[0], "QR code")
            said = await scene.shown(anna, "Connect notes", shown[-1].id)
            assert "too long for a QR code" in said.text
            # The countdown is edited; then the user answers.
            scene.clock.now += 301
            await api.until(lambda: any("(5 minutes)" in each for each in scene.texts(anna)))
            api.say(anna, await asyncio.to_thread(approved, scene))
            await scene.shown(anna, "notes: connected")
            await eventually(lambda: scene.service().login(login.id).message_ids == ())
            await api.until(lambda: len(scene.texts(anna)) == 1)
        scene.check(login)
        refused = {call.description.partition(":")[2][:28] for call in api.calls if not call.ok}
        assert refused <= {" message is not modified: sp"}

    asyncio.run(story())


def approved(scene: Scene) -> str:
    return approve(scene.login().authorization_url)


@covers("telegram-limits")
@pytest.mark.parametrize(
    "text",
    [
        "Bad Request: BUTTON_URL_INVALID",
        "Bad Request: inline keyboard button URL 'x' is invalid: Wrong HTTP URL",
    ],
)
def test_an_address_that_telegram_refuses_for_a_button_goes_into_the_text(
    scene: Scene, anna: User, text: str
) -> None:
    api = scene.api

    async def story() -> None:
        async with hosted(scene, Host()):
            api.refuse(400, text, "sendMessage")
            prompt = await scene.prompt(anna)
            assert scene.login().authorization_url in prompt.text
            api.refuse(400, text, "editMessageText")
            scene.clock.now += 301
            await api.until(lambda: "(5 minutes)" in api.messages(anna)[-1].text)
            now = api.messages(anna)[-1]
            assert now.id == prompt.id
            assert scene.login().authorization_url in now.text

    asyncio.run(story())


@covers("telegram-limits")
def test_the_menu_is_set_once_and_where_it_differs(scene: Scene) -> None:
    api = scene.api

    async def story() -> None:
        for _ in range(2):
            async with scene.bot():
                await api.until(lambda: api.polling)
                await eventually(lambda: bool(api.calls_of("getMyCommands")))
        assert len(api.calls_of("setMyCommands")) == 1
        async with scene.builder().build() as application:
            names = [command.command for command in await application.bot.get_my_commands()]
            assert names == ["connect", "connections", "disconnect"]
            await application.bot.set_my_commands([BotCommand("other", "Other")])
        async with scene.bot():
            await eventually(lambda: len(api.calls_of("setMyCommands")) == 3)

    asyncio.run(story())


@covers("telegram-trouble")
def test_a_hundred_chats_at_once_all_get_their_prompt(scene: Scene) -> None:
    api = scene.api
    people = [api.user(number, f"Person {number}") for number in range(1000, 1100)]
    for person in people:
        api.private(person).started = True
    policy = AllowList(users=frozenset(str(person.id) for person in people), owners="per_user")

    async def story() -> None:
        async with scene.bot(policy=policy):
            for person in people:
                api.say(person, "/connect notes")
            await api.until(lambda: all(scene.texts(person) for person in people), 60)

    asyncio.run(story())
    assert len({api.url_of(api.messages(person)[-1], OPEN) for person in people}) == 100


@covers("telegram-trouble")
def test_telegrams_own_limits_are_kept_and_everybody_is_served(
    demo: Demo, tmp_path: Path, clock: MovedClock
) -> None:
    async def pass_by(seconds: float) -> None:
        clock.now += seconds
        await asyncio.sleep(0)

    with running(clock=clock, rate_limits=True) as api:
        scene = Scene(api, demo, tmp_path, clock)
        people = [api.user(number, f"Person {number}") for number in range(1000, 1040)]
        for person in people:
            api.private(person).started = True
        policy = AllowList(users=frozenset(str(person.id) for person in people), owners="per_user")
        logins = scene.logins(policy=policy)
        logins._sleep = pass_by

        async def story() -> None:
            async with hosted(scene, Host(), logins):
                for person in people:
                    api.say(person, "/connect notes")
                for person in people:
                    await scene.shown(person, "Connect notes")

        asyncio.run(story())
        assert any(call.description.startswith("Too Many") for call in api.calls_of("sendMessage"))
        assert [len(scene.texts(person)) for person in people] == [1] * 40


@covers("telegram-trouble")
def test_each_press_is_answered_once_whatever_comes_of_it(scene: Scene, anna: User) -> None:
    api = scene.api

    async def story() -> None:
        async with hosted(scene, Host()):
            prompt = await scene.prompt(anna)
            assert (await api.press(anna, prompt, "QR code")).text == ""
            await api.press(anna, prompt, "Cancel")
            ended = await scene.shown(anna, "notes: not connected")
            # Another client still shows a button that the bot has removed.
            api.world.edit(replace(prompt, edited_at=scene.clock.now))
            assert (await api.press(anna, prompt, "Cancel")).text == "That login is over."
            api.world.edit(replace(prompt, text=ended.text, keyboard=ended.keyboard))
            assert (await api.press(anna, prompt, "Try again")).text == "One moment…"
        for call in api.calls_of("answerCallbackQuery"):
            assert call.ok
        assert len(api.calls_of("answerCallbackQuery")) == 4

    asyncio.run(story())
