"""Injected faults between a bot and the Bot API endpoint, rate limits, and webhooks."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trustme
from aiohttp import web
from telegram import Bot, Update
from telegram.error import BadRequest, Conflict, NetworkError, RetryAfter

from tests.parts.bot_api import BotApi, User, running
from tests.parts.bot_api.methods import METHODS
from tests.parts.bot_api.webhook import SECRET_HEADER
from tests.parts_test.asking import Clock
from tests.parts_test.bots import bot, polling, raises, with_bot

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _retry_after_as_it_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opt in to the library's future type: it warns about the older one."""
    monkeypatch.setenv("PTB_TIMEDELTA", "true")


@pytest.fixture
def anna(api: BotApi) -> User:
    return api.user(7, "Anna", "anna_k")


@asynccontextmanager
async def receiving(
    updates: list[dict[str, Any]], statuses: list[int], tls: ssl.SSLContext | None = None
) -> AsyncGenerator[str]:
    """Serve a webhook that responds with the statuses, then with 200."""

    async def receive(request: web.Request) -> web.Response:
        status = statuses.pop(0) if statuses else 200
        updates.append(await request.json() | {"secret": request.headers.get(SECRET_HEADER)})
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/hook", receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as bound:
        await web.SockSite(runner, bound, ssl_context=tls).start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{bound.getsockname()[1]}/hook"
        finally:
            # A TLS close would wait for the peer's close_notify, but this event loop ends here.
            for connection in runner.server.connections if runner.server else ():
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()


def test_a_webhook_gets_every_update_with_the_secret_until_it_takes_it(api: BotApi, anna: User) -> None:
    updates: list[dict[str, Any]] = []

    async def receive(one: Bot) -> None:
        async with receiving(updates, [500]) as url:
            api.start(anna)
            await one.set_webhook(
                url, secret_token="a_secret-1", allowed_updates=["callback_query", "message"]
            )
            conflict = await raises(Conflict, one.get_updates())
            assert conflict.message.startswith(
                "Conflict: can't use getUpdates method while webhook is active"
            )
            await api.until(lambda: len(updates) == 2 and not api.world.updates.waiting)
            info = await one.get_webhook_info()
            assert (info.url, info.pending_update_count) == (url, 0)
            assert info.last_error_message == "Wrong response from the webhook: 500"
            api.say(anna, "hello")
            await api.until(lambda: not api.world.updates.waiting)
            await one.delete_webhook()
            api.say(anna, "to be polled")
            assert len(await one.get_updates()) == 1
            for wrong_url, words in (
                ("http://a.example/hook", "an https url must be provided"),
                (url, "unallowed"),
            ):
                wrong = await raises(
                    BadRequest, one.set_webhook(wrong_url, secret_token="spaces are not allowed")
                )
                assert words in wrong.message

    with_bot(api, receive)
    assert [update["message"]["text"] for update in updates] == ["/start", "/start", "hello"]
    # python-telegram-bot documents this way to receive updates with another web server.
    assert {update.pop("secret") for update in updates} == {"a_secret-1"}
    heard = [Update.de_json(update, None) for update in updates]
    assert heard[2].effective_user
    assert heard[2].effective_user.first_name == "Anna"


def test_a_webhook_with_an_uploaded_certificate(api: BotApi, anna: User) -> None:
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    updates: list[dict[str, Any]] = []

    async def receive(one: Bot) -> None:
        async with receiving(updates, [], tls) as url:
            await one.set_webhook(url)
            api.start(anna)
            await api.until(lambda: api.world.updates.webhook.last_error)
            assert updates == []
            await one.set_webhook(url, certificate=authority.cert_pem.bytes())
            await api.until(lambda: not api.world.updates.waiting)
            assert (await one.get_webhook_info()).has_custom_certificate

    with_bot(api, receive)
    assert [update["message"]["text"] for update in updates] == ["/start"]


def test_a_second_poller_ends_the_first_ones_poll(api: BotApi) -> None:
    async def poll(one: Bot) -> None:
        async with bot(api) as other:
            first = asyncio.create_task(one.get_updates(timeout=30))
            await api.until(lambda: api.polling)
            second = asyncio.create_task(other.get_updates(timeout=30))
            conflict = await raises(Conflict, first)
            assert conflict.message.startswith("Conflict: terminated by other getUpdates request; make sure")
            api.start(api.user(7, "Anna"))
            assert len(await second) == 1

    with_bot(api, poll)


def test_network_trouble_on_order(api: BotApi, anna: User) -> None:
    async def suffer(one: Bot) -> None:
        api.start(anna)
        api.network_down(calls=1)
        await raises(NetworkError, one.send_message(7, "never sent"))
        api.hang_up("sendMessage")
        await raises(NetworkError, one.send_message(7, "sent, but who knows"))
        api.bad_gateway()
        gateway = await raises(NetworkError, one.send_message(7, "nor this"))
        assert "Bad Gateway" in gateway.message
        api.too_many(3)
        limited = await raises(RetryAfter, one.send_message(7, "nor this"))
        assert limited._retry_after.total_seconds() == 3
        api.refuse(400, "Bad Request: no", "sendMessage", times=2)
        await one.get_me()
        for _ in range(2):
            assert (await raises(BadRequest, one.send_message(7, "nor this"))).message == "No"
        api.slow(0.01)
        await one.send_message(7, "late")
        held = api.hold("sendMessage")
        sending = asyncio.create_task(one.send_message(7, "at last"))
        await api.until(held.reached.is_set)
        assert not sending.done()
        held.release()
        await sending

    with_bot(api, suffer)
    assert [message.text for message in api.messages(anna)][1:] == ["sent, but who knows", "late", "at last"]
    troubles = [call.trouble for call in api.calls if call.trouble]
    assert troubles == ["down", "hang_up", "gateway", *["refuse"] * 3, "slow", "hold"]


def test_a_dropped_long_poll_loses_nothing(api: BotApi, anna: User) -> None:
    async def chat() -> None:
        async with polling(api):
            await api.until(lambda: api.polling)
            before = len(api.calls_of("getUpdates"))
            api.drop_long_poll()
            await api.until(lambda: len(api.calls_of("getUpdates")) > before)
            api.start(anna)
            await api.until(lambda: [m for m in api.messages(anna) if m.from_bot])

    asyncio.run(chat())


def test_a_bot_that_was_offline_gets_what_came_meanwhile(api: BotApi, anna: User) -> None:
    async def chat() -> None:
        async with polling(api):
            await api.until(lambda: api.polling)
            with api.offline():
                api.start(anna)
                await api.until(lambda: [call for call in api.calls if call.trouble == "down"])
                assert not api.polling
            await api.until(lambda: [m for m in api.messages(anna) if m.from_bot])

    asyncio.run(chat())


def test_the_real_rate_limits(clock: Clock) -> None:
    with running(clock=clock, rate_limits=True) as api:
        people = [api.user(number, "P") for number in range(1, 32)]
        for person in people:
            api.start(person)
        group = api.group(-1001, "Team", people)

        async def flood(one: Bot) -> None:
            await one.send_message(1, "a")
            await raises(RetryAfter, one.send_message(1, "b"))
            for person in people[1:30]:
                await one.send_message(person.id, "a")
            await raises(RetryAfter, one.send_message(31, "the 31st of a second"))
            clock.now += 1
            await one.send_message(1, "b")
            for _ in range(20):
                clock.now += 1
                await one.send_message(group.id, "x")
            clock.now += 1
            limited = await raises(RetryAfter, one.send_message(group.id, "the 21st of a minute"))
            assert limited._retry_after.total_seconds() == 40
            await one.send_chat_action(group.id, "typing")

        with_bot(api, flood)


def test_a_fault_of_its_own_is_told_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "getMe", lambda world, parameters: 1 // 0)

    def call() -> None:
        with running() as api:
            answer = httpx.get(f"{api.base_url}{api.token}/getMe", trust_env=False)
            assert answer.status_code == 500

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        call()
