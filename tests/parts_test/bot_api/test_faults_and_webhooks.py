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

from tests.parts.bot_api import BotApi, User, serve_bot_api
from tests.parts.bot_api.methods import METHODS
from tests.parts.bot_api.webhooks import SECRET_HEADER
from tests.parts_test.method_caller import Clock
from tests.parts_test.sample_bot import catch_error, make_bot, run_polling_bot, run_with_bot

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _use_timedelta_for_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """Select the new type of `retry_after`, because the library warns about the old type."""
    monkeypatch.setenv("PTB_TIMEDELTA", "true")


@pytest.fixture
def anna(api: BotApi) -> User:
    return api.add_user(7, "Anna", "anna_k")


@asynccontextmanager
async def serve_webhook(
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
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await web.SockSite(runner, listener, ssl_context=tls).start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}/hook"
        finally:
            # To close TLS, the server would wait for the peer's close_notify. But this event loop ends here.
            for connection in runner.server.connections if runner.server else ():
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()


def test_webhook_gets_each_update_with_the_secret_until_it_accepts(api: BotApi, anna: User) -> None:
    updates: list[dict[str, Any]] = []

    async def use_webhook(bot: Bot) -> None:
        async with serve_webhook(updates, [500]) as url:
            api.start(anna)
            await bot.set_webhook(
                url, secret_token="a_secret-1", allowed_updates=["callback_query", "message"]
            )
            conflict = await catch_error(Conflict, bot.get_updates())
            assert conflict.message.startswith(
                "Conflict: can't use getUpdates method while webhook is active"
            )
            await api.until(lambda: len(updates) == 2 and not api.state.updates.pending)
            info = await bot.get_webhook_info()
            assert (info.url, info.pending_update_count) == (url, 0)
            assert info.last_error_message == "Wrong response from the webhook: 500"
            api.say(anna, "hello")
            await api.until(lambda: not api.state.updates.pending)
            await bot.delete_webhook()
            api.say(anna, "to be polled")
            assert len(await bot.get_updates()) == 1
            for wrong_url, reason in (
                ("http://a.example/hook", "an https url must be provided"),
                (url, "unallowed"),
            ):
                error = await catch_error(
                    BadRequest, bot.set_webhook(wrong_url, secret_token="spaces are not allowed")
                )
                assert reason in error.message

    run_with_bot(api, use_webhook)
    assert [update["message"]["text"] for update in updates] == ["/start", "/start", "hello"]
    # python-telegram-bot documents this way to receive updates with another web server.
    assert {update.pop("secret") for update in updates} == {"a_secret-1"}
    parsed_updates = [Update.de_json(update, None) for update in updates]
    assert parsed_updates[2].effective_user
    assert parsed_updates[2].effective_user.first_name == "Anna"


def test_webhook_with_an_uploaded_certificate_gets_updates(api: BotApi, anna: User) -> None:
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    updates: list[dict[str, Any]] = []

    async def use_webhook(bot: Bot) -> None:
        async with serve_webhook(updates, [], tls) as url:
            await bot.set_webhook(url)
            api.start(anna)
            await api.until(lambda: api.state.updates.webhook.last_error)
            assert updates == []
            await bot.set_webhook(url, certificate=authority.cert_pem.bytes())
            await api.until(lambda: not api.state.updates.pending)
            assert (await bot.get_webhook_info()).has_custom_certificate

    run_with_bot(api, use_webhook)
    assert [update["message"]["text"] for update in updates] == ["/start"]


def test_second_poller_terminates_the_first_poll(api: BotApi) -> None:
    async def poll(bot: Bot) -> None:
        async with make_bot(api) as other:
            first = asyncio.create_task(bot.get_updates(timeout=30))
            await api.until(lambda: api.is_polling)
            second = asyncio.create_task(other.get_updates(timeout=30))
            conflict = await catch_error(Conflict, first)
            assert conflict.message.startswith("Conflict: terminated by other getUpdates request; make sure")
            api.start(api.add_user(7, "Anna"))
            assert len(await second) == 1

    run_with_bot(api, poll)


def test_each_fault_reaches_the_bot(api: BotApi, anna: User) -> None:
    async def send_through_faults(bot: Bot) -> None:
        api.start(anna)
        api.network_down(calls=1)
        await catch_error(NetworkError, bot.send_message(7, "never sent"))
        api.hang_up("sendMessage")
        await catch_error(NetworkError, bot.send_message(7, "sent, but who knows"))
        api.bad_gateway()
        gateway = await catch_error(NetworkError, bot.send_message(7, "nor this"))
        assert "Bad Gateway" in gateway.message
        api.rate_limit(3)
        limited = await catch_error(RetryAfter, bot.send_message(7, "nor this"))
        assert limited._retry_after.total_seconds() == 3
        api.refuse(400, "Bad Request: no", "sendMessage", times=2)
        await bot.get_me()
        for _ in range(2):
            assert (await catch_error(BadRequest, bot.send_message(7, "nor this"))).message == "No"
        api.delay(0.01)
        await bot.send_message(7, "late")
        hold = api.hold("sendMessage")
        sending = asyncio.create_task(bot.send_message(7, "at last"))
        await api.until(hold.reached.is_set)
        assert not sending.done()
        hold.release()
        await sending

    run_with_bot(api, send_through_faults)
    assert [message.text for message in api.messages(anna)][1:] == ["sent, but who knows", "late", "at last"]
    fault_kinds = [call.fault_kind for call in api.calls if call.fault_kind]
    assert fault_kinds == ["down", "hang_up", "gateway", *["refuse"] * 3, "slow", "hold"]


def test_dropped_long_poll_loses_no_update(api: BotApi, anna: User) -> None:
    async def chat() -> None:
        async with run_polling_bot(api):
            await api.until(lambda: api.is_polling)
            previous_polls = len(api.calls_of("getUpdates"))
            api.drop_long_poll()
            await api.until(lambda: len(api.calls_of("getUpdates")) > previous_polls)
            api.start(anna)
            await api.until(lambda: [m for m in api.messages(anna) if m.is_from_bot])

    asyncio.run(chat())


def test_bot_gets_updates_that_came_while_it_was_offline(api: BotApi, anna: User) -> None:
    async def chat() -> None:
        async with run_polling_bot(api):
            await api.until(lambda: api.is_polling)
            with api.offline():
                api.start(anna)
                await api.until(lambda: [call for call in api.calls if call.fault_kind == "down"])
                assert not api.is_polling
            await api.until(lambda: [m for m in api.messages(anna) if m.is_from_bot])

    asyncio.run(chat())


def test_rate_limits_match_telegram(clock: Clock) -> None:
    with serve_bot_api(clock=clock, rate_limits=True) as api:
        users = [api.add_user(number, "P") for number in range(1, 32)]
        for person in users:
            api.start(person)
        group = api.add_group(-1001, "Team", users)

        async def flood(bot: Bot) -> None:
            await bot.send_message(1, "a")
            await catch_error(RetryAfter, bot.send_message(1, "b"))
            for person in users[1:30]:
                await bot.send_message(person.id, "a")
            await catch_error(RetryAfter, bot.send_message(31, "the 31st of a second"))
            clock.now += 1
            await bot.send_message(1, "b")
            for _ in range(20):
                clock.now += 1
                await bot.send_message(group.id, "x")
            clock.now += 1
            limited = await catch_error(RetryAfter, bot.send_message(group.id, "the 21st of a minute"))
            assert limited._retry_after.total_seconds() == 40
            await bot.send_chat_action(group.id, "typing")

        run_with_bot(api, flood)


def test_internal_error_is_raised_when_the_server_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "getMe", lambda state, parameters: 1 // 0)

    def call() -> None:
        with serve_bot_api() as api:
            response = httpx.get(f"{api.base_url}{api.token}/getMe", trust_env=False)
            assert response.status_code == 500

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        call()
