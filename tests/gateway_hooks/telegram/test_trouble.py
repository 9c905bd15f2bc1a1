"""Failures between the bot, Telegram and users, and what users see of them."""

from __future__ import annotations

import asyncio

import pytest

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.platform import CannotWrite, ChatError, MessageGone
from gateway_hooks.runtime.dispatcher import Dispatcher
from gateway_hooks.telegram import TelegramPlatform
from gateway_hooks.telegram.bot import run_bot
from hermes_mcp_auth_remote.values import Origin, Secret
from tests.browserless import approve
from tests.gateway_hooks.telegram.given import KNOWN, Scene, eventually
from tests.gateway_hooks.telegram.test_application import Host, hosted
from tests.parts.bot_api import User
from tests.requirements import covers

pytestmark = pytest.mark.slow


class Waits:
    """A sleep function that blocks until `released` is set and records the requested seconds."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.over = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        await self.over.wait()


@covers("telegram-trouble")
def test_a_chat_that_has_to_wait_keeps_no_other_waiting_and_is_served_then(
    scene: Scene, anna: User, bob: User
) -> None:
    api, waits = scene.api, Waits()
    logins = scene.logins()
    logins._sleep = waits

    async def story() -> None:
        async with hosted(scene, Host(), logins):
            api.too_many(7, "sendMessage")
            api.say(anna, "/connect notes")
            try:
                await eventually(lambda: waits.asked == [7.0])
                await scene.prompt(bob)
                assert scene.texts(anna) == []
                # The bot deletes a pasted answer even while it may not send messages.
                pasted = api.say(anna, "http://127.0.0.1/?code=a-code-of-before&state=a-state-of-before")
                await api.until(lambda: [each.id for each in api.deleted(anna)] == [pasted.id])
            finally:
                waits.over.set()
            await scene.shown(anna, "Connect notes")
        scene.check()

    asyncio.run(story())


@covers("telegram-trouble")
@pytest.mark.parametrize("after", [61, 3600])
def test_a_wait_beyond_all_patience_ends_the_login_instead(scene: Scene, anna: User, after: int) -> None:
    api = scene.api

    async def story() -> None:
        async with hosted(scene, Host()):
            api.too_many(after, "sendMessage")
            api.say(anna, "/connect notes")
            await eventually(lambda: [each.status for each in scene.service().logins()] == ["cancelled"])
            await scene.prompt(anna)

    asyncio.run(story())


@covers("telegram-trouble")
@pytest.mark.parametrize("trouble", ["network_down", "bad_gateway", "hang_up"])
def test_calls_that_are_lost_are_made_again(scene: Scene, anna: User, trouble: str) -> None:
    """A retry may send a message twice. Both lead to the same login."""
    api = scene.api

    def lose(method: str, times: int = 2) -> None:
        if trouble == "network_down":
            api.network_down(times, method)
        else:
            getattr(api, trouble)(method, times)

    async def story() -> None:
        async with hosted(scene, Host()):
            lose("sendMessage")
            prompt = await scene.prompt(anna)
            await eventually(lambda: bool(scene.login().message_ids))
            login, prompt = scene.login(), await scene.shown(anna, "Connect notes", prompt.id - 1)
            assert len(api.messages(anna)) == (4 if trouble == "hang_up" else 2)
            lose("sendPhoto")
            lose("answerCallbackQuery")
            press = api.press(anna, prompt, "QR code")
            await scene.shown(anna, "Scan this")
            await press
            lose("deleteMessage")
            lose("editMessageText")
            api.say(anna, await scene.approved(prompt))
            await scene.shown(anna, "notes: connected")
            await eventually(lambda: scene.service().login(login.id).message_ids == ())
        assert api.unknown_parameters == []

    asyncio.run(story())


@covers("telegram-trouble")
def test_telegram_out_of_reach_loses_nothing(scene: Scene, anna: User) -> None:
    api = scene.api

    async def story() -> None:
        async with scene.bot():
            prompt = await scene.prompt(anna)
            with api.offline():
                answer = await scene.approved(prompt)
                api.say(anna, answer)
            api.drop_long_poll()
            await scene.shown(anna, "notes: connected")
        scene.check()

    asyncio.run(story())


@covers("telegram-trouble")
def test_a_bot_that_is_started_without_a_network_comes_up_with_it(
    scene: Scene, anna: User, caplog: pytest.LogCaptureFixture
) -> None:
    scene.api.network_down(2)

    async def story() -> None:
        async with scene.bot():
            await scene.prompt(anna)

    asyncio.run(story())
    assert caplog.text.count("Telegram cannot be reached; retrying.") == 1


@covers("telegram-trouble")
@pytest.mark.parametrize("method", ["getUpdates", "sendMessage"])
def test_a_bot_whose_token_is_revoked_ends_and_says_so(scene: Scene, anna: User, method: str) -> None:
    api = scene.api

    def revoked(_name: str) -> None:
        for each in {method, "getMe"}:
            api.refuse(401, "Unauthorized", each, times=9)
        api.drop_long_poll()
        api.say(anna, "/connections")

    running = run_bot(
        Secret(api.token), scene.service(), scene.servers, KNOWN, api_url=api.origin, on_started=revoked
    )
    with pytest.raises(ChatError, match="Copy it again from BotFather"):
        asyncio.run(asyncio.wait_for(running, 20))


@covers("telegram-trouble")
def test_a_refusal_that_telegram_does_not_stand_by_ends_nothing(scene: Scene, anna: User) -> None:
    async def story() -> None:
        async with scene.bot():
            scene.api.refuse(401, "Unauthorized", "sendMessage")
            scene.api.say(anna, "/connections")
            await scene.api.until(lambda: len(scene.api.calls_of("getMe")) == 2)
            await scene.prompt(anna)

    asyncio.run(story())


@covers("telegram-trouble")
def test_a_second_poller_is_told_of_once_in_words_to_act_on(
    scene: Scene, anna: User, caplog: pytest.LogCaptureFixture
) -> None:
    conflict = (
        "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
    )
    scene.api.refuse(409, conflict, "getUpdates", times=2)

    async def story() -> None:
        async with scene.bot():
            await scene.prompt(anna)

    asyncio.run(story())
    ours = [record for record in caplog.records if record.name == "gateway_hooks.telegram.bot"]
    (said,) = [
        record.getMessage() for record in ours if "Another program polls this bot" in record.getMessage()
    ]
    assert "Stop the other program" in said


@covers("telegram-trouble")
def test_who_has_blocked_the_bot_is_not_waited_for(scene: Scene, anna: User) -> None:
    api = scene.api

    async def story() -> None:
        async with scene.bot():
            prompt = await scene.prompt(anna)
            await api.press(anna, prompt, "Cancel")
            await scene.shown(anna, "notes: not connected")
            api.block(anna)
            service = scene.service()
            login = await service.start_login(scene.server, Origin("telegram", user_id="7"))
            over = await asyncio.wait_for(service.wait_for_login(login.id), 20)
            assert over.status == "cancelled"

    asyncio.run(story())


@covers("telegram-trouble")
def test_a_prompt_counts_down_in_few_edits_and_says_that_it_has_expired(scene: Scene, anna: User) -> None:
    api, begun = scene.api, scene.clock.now

    async def story() -> None:
        async with scene.bot():
            prompt = await scene.prompt(anna)
            for seconds, said in ((301, "(5 minutes)"), (481, "(2 minutes)"), (541, "(1 minute)")):
                scene.clock.now = begun + seconds
                await api.until(lambda said=said: said in api.messages(anna)[-1].text)  # type: ignore[misc]
            scene.clock.now = begun + 601
            ended = await scene.shown(anna, "notes: not connected")
            assert ended.id == prompt.id
            assert "not finished in time" in ended.text
            assert len(api.versions(prompt)) == 5
            await api.press(anna, ended, "Try again")
            again = await scene.shown(anna, "Connect notes")
            assert again.id == prompt.id
            api.say(anna, await scene.approved(again))
            await scene.shown(anna, "notes: connected")
        scene.check()

    asyncio.run(story())


@covers("telegram-trouble")
def test_a_prompt_that_its_person_deleted_is_shown_anew(scene: Scene, anna: User) -> None:
    api = scene.api

    async def story() -> None:
        async with scene.bot():
            prompt = await scene.prompt(anna)
            api.delete(anna, prompt)
            scene.clock.now += 301
            again = await scene.shown(anna, "Connect notes", prompt.id)
            api.delete(anna, again)
            api.say(anna, await asyncio.to_thread(_approve, scene))
            await scene.shown(anna, "notes: connected", again.id)

    asyncio.run(story())


def _approve(scene: Scene) -> str:
    return approve(scene.login().authorization_url)


@covers("telegram-trouble")
def test_what_telegram_refuses_is_told_apart(scene: Scene, anna: User, bob: User) -> None:
    api = scene.api
    api.private(bob).started = False

    async def no_time(_seconds: float) -> None:
        await asyncio.sleep(0)

    async def story() -> None:
        application = scene.builder().build()
        async with application:
            platform = TelegramPlatform(application.bot, no_time)
            chat, card = platform.private_chat("7"), Card("A title")
            message = await chat.send(card)
            await chat.edit(message, card)
            await chat.show_toast("nothing was pressed")
            assert await chat.delete(message)
            assert await chat.delete(message), "the message is already deleted"
            with pytest.raises(MessageGone):
                await chat.edit(message, card)
            with pytest.raises(CannotWrite):
                await platform.private_chat("8").send(card)
            with pytest.raises(CannotWrite):
                await platform.private_chat("12345").send(card)
            for error, text in (
                (400, "Bad Request: URL 'https://x/?state=abc'"),
                (500, "Internal"),
                (401, "Unauthorized"),
            ):
                api.refuse(error, text, "sendMessage", times=3)
                with pytest.raises(ChatError) as caught:
                    await chat.send(card)
                assert "state=" not in str(caught.value)
                assert not isinstance(caught.value, (CannotWrite, MessageGone))
                api.heal()
            api.network_down(3, "sendMessage")
            with pytest.raises(ChatError, match="cannot be reached"):
                await chat.send(card)
            message = await chat.send(card)
            scene.clock.now += 48 * 3600
            assert not await chat.delete(message)

    asyncio.run(story())


@covers("telegram-trouble")
def test_a_fault_of_ours_is_logged_and_messages_are_kept_up_to_date_again(
    scene: Scene, anna: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logins, runs = scene.logins(), list[int]()

    async def story() -> None:
        run = Dispatcher.run

        async def failing(desk: Dispatcher) -> None:
            runs.append(1)
            if len(runs) == 1:
                raise ZeroDivisionError
            await run(desk)

        monkeypatch.setattr(Dispatcher, "run", failing)
        async with hosted(scene, Host(), logins):
            prompt = await scene.prompt(anna)
            scene.api.say(anna, await scene.approved(prompt))
            await scene.shown(anna, "notes: connected")

    asyncio.run(story())
    assert "(internal error)" in caplog.text
    assert "ZeroDivisionError" in caplog.text
