"""Failures between the bot, Telegram and users, and what users see of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.platform import CannotWrite, ChatError, MessageGone
from gateway_hooks.runtime.dispatcher import Dispatcher
from gateway_hooks.telegram import TelegramPlatform, bot
from gateway_hooks.telegram.bot import run_bot
from hermes_mcp_auth_remote import cancellation
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.values import Origin, Secret
from tests.consent_form import approve
from tests.gateway_hooks.telegram.environment import ALLOW_LIST, TelegramEnvironment, wait_until
from tests.gateway_hooks.telegram.test_application import HostHandlers, running_application
from tests.parts.bot_api import User
from tests.requirements import covers

pytestmark = pytest.mark.slow


class BlockingSleep:
    """A sleep function that records the requested seconds and blocks until `released` is set."""

    def __init__(self) -> None:
        self.requested_seconds: list[float] = []
        self.released = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.requested_seconds.append(seconds)
        await self.released.wait()


@covers("telegram-trouble")
def test_rate_limited_chat_does_not_block_others_and_is_served_later(
    env: TelegramEnvironment, anna: User, bob: User
) -> None:
    api, blocking_sleep = env.api, BlockingSleep()
    logins = env.make_logins()
    logins._sleep = blocking_sleep

    async def send_commands() -> None:
        async with running_application(env, HostHandlers(), logins):
            api.rate_limit(7, "sendMessage")
            api.say(anna, "/connect notes")
            try:
                await wait_until(lambda: blocking_sleep.requested_seconds == [7.0])
                await env.request_prompt(bob)
                assert env.bot_texts(anna) == []
                # The bot deletes a pasted answer even while it may not send messages.
                pasted = api.say(anna, "http://127.0.0.1/?code=a-code-of-before&state=a-state-of-before")
                await api.until(lambda: [message.id for message in api.deleted_messages(anna)] == [pasted.id])
            finally:
                blocking_sleep.released.set()
            await env.wait_for_message(anna, "Connect notes")
        env.check_no_secrets()

    asyncio.run(send_commands())


@covers("telegram-trouble")
@pytest.mark.parametrize("after", [61, 3600])
def test_too_long_retry_after_cancels_login(env: TelegramEnvironment, anna: User, after: int) -> None:
    api = env.api

    async def request_login() -> None:
        async with running_application(env, HostHandlers()):
            api.rate_limit(after, "sendMessage")
            api.say(anna, "/connect notes")
            await wait_until(
                lambda: [login.status for login in env.make_service().blocking.logins()] == ["cancelled"]
            )
            await env.request_prompt(anna)

    asyncio.run(request_login())


@covers("telegram-trouble")
@pytest.mark.parametrize("failure", ["network_down", "bad_gateway", "hang_up"])
def test_lost_calls_are_retried(env: TelegramEnvironment, anna: User, failure: str) -> None:
    """A retry may send a message twice. Both messages lead to the same login."""
    api = env.api

    def lose_calls(method: str, times: int = 2) -> None:
        if failure == "network_down":
            api.network_down(times, method)
        else:
            getattr(api, failure)(method, times)

    async def finish_login() -> None:
        async with running_application(env, HostHandlers()):
            lose_calls("sendMessage")
            prompt = await env.request_prompt(anna)
            await wait_until(lambda: bool(env.waiting_login().message_ids))
            login, prompt = (
                env.waiting_login(),
                await env.wait_for_message(anna, "Connect notes", prompt.id - 1),
            )
            assert len(api.messages(anna)) == (4 if failure == "hang_up" else 2)
            lose_calls("sendPhoto")
            lose_calls("answerCallbackQuery")
            press = api.press(anna, prompt, "QR code")
            await env.wait_for_message(anna, "Scan this")
            await press
            lose_calls("deleteMessage")
            lose_calls("editMessageText")
            api.say(anna, await env.approve_login(prompt))
            await env.wait_for_message(anna, "notes: connected")
            await wait_until(lambda: env.make_service().blocking.login(login.id).message_ids == ())
        assert api.unknown_parameters == []

    asyncio.run(finish_login())


@covers("telegram-trouble")
def test_update_sent_while_offline_is_handled_later(env: TelegramEnvironment, anna: User) -> None:
    api = env.api

    async def answer_while_offline() -> None:
        async with env.running_bot():
            prompt = await env.request_prompt(anna)
            with api.offline():
                answer = await env.approve_login(prompt)
                api.say(anna, answer)
            api.drop_long_poll()
            await env.wait_for_message(anna, "notes: connected")
        env.check_no_secrets()

    asyncio.run(answer_while_offline())


@covers("telegram-trouble")
def test_an_answer_that_was_sent_twice_leaves_only_the_outcome(env: TelegramEnvironment, anna: User) -> None:
    api = env.api

    async def answer_twice() -> None:
        async with env.running_bot():
            prompt = await env.request_prompt(anna)
            with api.offline():
                answer = await env.approve_login(prompt)
                # The bot does not respond, so the user sends it again.
                pastes = [api.say(anna, answer) for _ in range(2)]
            api.drop_long_poll()
            await env.wait_for_message(anna, "notes: connected")
            await wait_until(lambda: {paste.id for paste in pastes} <= deleted_ids())
            # The bot may have said meanwhile that it requests the tokens.
            await wait_until(lambda: len(env.bot_texts(anna)) == 1)
        env.check_no_secrets()

    def deleted_ids() -> set[int]:
        return {message.id for message in api.deleted_messages(anna)}

    asyncio.run(answer_twice())


@covers("telegram-trouble")
def test_bot_started_without_network_retries(
    env: TelegramEnvironment, anna: User, caplog: pytest.LogCaptureFixture
) -> None:
    env.api.network_down(2)

    async def request_prompt() -> None:
        async with env.running_bot():
            await env.request_prompt(anna)

    asyncio.run(request_prompt())
    assert caplog.text.count("Telegram cannot be reached; retrying.") == 1


@covers("telegram-trouble")
def test_bot_started_during_a_rate_limit_waits_and_starts(
    env: TelegramEnvironment, anna: User, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    env.api.rate_limit(7, "getMe", times=2)
    monkeypatch.setattr(bot, "retry_seconds", lambda _: 0.0)

    async def request_prompt() -> None:
        async with env.running_bot():
            await env.request_prompt(anna)

    asyncio.run(request_prompt())
    assert caplog.text.count("Telegram asks to wait 0 seconds; retrying then.") == 2


@covers("telegram-trouble")
@pytest.mark.parametrize("method", ["getUpdates", "sendMessage"])
def test_revoked_token_stops_bot(env: TelegramEnvironment, anna: User, method: str) -> None:
    api = env.api

    def revoke_token(_name: str) -> None:
        for refused_method in {method, "getMe"}:
            api.refuse(401, "Unauthorized", refused_method, times=9)
        api.drop_long_poll()
        api.say(anna, "/connections")

    bot_run = run_bot(
        Secret(api.token),
        env.make_service(),
        env.servers,
        ALLOW_LIST,
        api_url=api.origin,
        on_started=revoke_token,
    )
    with pytest.raises(ConfigError, match="Telegram rejected this bot's token"):
        asyncio.run(asyncio.wait_for(bot_run, 20))


@covers("telegram-trouble")
def test_single_unauthorized_response_does_not_stop_bot(env: TelegramEnvironment, anna: User) -> None:
    async def request_prompt() -> None:
        async with env.running_bot():
            env.api.refuse(401, "Unauthorized", "sendMessage")
            env.api.say(anna, "/connections")
            await env.api.until(lambda: len(env.api.calls_of("getMe")) == 2)
            await env.request_prompt(anna)

    asyncio.run(request_prompt())


@covers("telegram-trouble")
def test_second_poller_is_logged_once_with_advice(
    env: TelegramEnvironment, anna: User, caplog: pytest.LogCaptureFixture
) -> None:
    conflict = (
        "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
    )
    env.api.refuse(409, conflict, "getUpdates", times=2)

    async def request_prompt() -> None:
        async with env.running_bot():
            await env.request_prompt(anna)

    asyncio.run(request_prompt())
    bot_records = [record for record in caplog.records if record.name == "gateway_hooks.telegram.bot"]
    (warning,) = [
        record.getMessage()
        for record in bot_records
        if "Another program polls this bot" in record.getMessage()
    ]
    assert "Stop the other program" in warning


@covers("telegram-trouble")
def test_login_for_user_who_blocked_bot_is_cancelled(env: TelegramEnvironment, anna: User) -> None:
    api = env.api

    async def block_bot() -> None:
        async with env.running_bot():
            prompt = await env.request_prompt(anna)
            await api.press(anna, prompt, "Cancel")
            await env.wait_for_message(anna, "notes: not connected")
            api.block(anna)
            service = env.make_service()
            login = await service.start_login(env.server, Origin("telegram", user_id="7"))
            ended_login = await asyncio.wait_for(service.wait_for_login(login.id), 20)
            assert ended_login.status == "cancelled"

    asyncio.run(block_bot())


@covers("telegram-trouble")
def test_prompt_counts_down_in_few_edits_and_shows_expiry(env: TelegramEnvironment, anna: User) -> None:
    api, started_at = env.api, env.clock.now

    async def advance_clock() -> None:
        async with env.running_bot():
            prompt = await env.request_prompt(anna)
            for seconds, countdown in ((301, "(5 minutes)"), (481, "(2 minutes)"), (541, "(1 minute)")):
                env.clock.now = started_at + seconds
                await api.until(lambda countdown=countdown: countdown in api.messages(anna)[-1].text)  # type: ignore[misc]
            env.clock.now = started_at + 601
            outcome = await env.wait_for_message(anna, "notes: not connected")
            assert outcome.id == prompt.id
            assert "not finished in time" in outcome.text
            assert len(api.versions(prompt)) == 5
            await api.press(anna, outcome, "Try again")
            second_prompt = await env.wait_for_message(anna, "Connect notes")
            assert second_prompt.id == prompt.id
            api.say(anna, await env.approve_login(second_prompt))
            await env.wait_for_message(anna, "notes: connected")
        env.check_no_secrets()

    asyncio.run(advance_clock())


@covers("telegram-trouble")
def test_deleted_prompt_is_sent_again(env: TelegramEnvironment, anna: User) -> None:
    api = env.api

    async def delete_prompts() -> None:
        async with env.running_bot():
            prompt = await env.request_prompt(anna)
            api.delete(anna, prompt)
            env.clock.now += 301
            second_prompt = await env.wait_for_message(anna, "Connect notes", prompt.id)
            api.delete(anna, second_prompt)
            api.say(anna, await asyncio.to_thread(approve_login, env))
            await env.wait_for_message(anna, "notes: connected", second_prompt.id)

    asyncio.run(delete_prompts())


def approve_login(env: TelegramEnvironment) -> str:
    return approve(env.waiting_login().authorization_url)


@covers("telegram-trouble")
def test_telegram_errors_are_translated(env: TelegramEnvironment, anna: User, bob: User) -> None:
    api = env.api
    api.private_chat(bob).is_started = False

    async def skip_sleep(_seconds: float) -> None:
        await asyncio.sleep(0)

    async def send_refused_calls() -> None:
        application = env.application_builder().build()
        async with application:
            platform = TelegramPlatform(application.bot, skip_sleep)
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
                with pytest.raises(ChatError) as chat_error:
                    await chat.send(card)
                assert "state=" not in str(chat_error.value)
                assert not isinstance(chat_error.value, (CannotWrite, MessageGone))
                api.clear_faults()
            api.network_down(3, "sendMessage")
            with pytest.raises(ChatError, match="cannot be reached"):
                await chat.send(card)
            message = await chat.send(card)
            env.clock.now += 48 * 3600
            assert not await chat.delete(message)

    asyncio.run(send_refused_calls())


@covers("telegram-trouble")
def test_dispatcher_restarts_after_bug(
    env: TelegramEnvironment, anna: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logins, runs = env.make_logins(), list[int]()

    async def finish_login() -> None:
        original_run = Dispatcher.run

        async def fail_first_run(dispatcher: Dispatcher) -> None:
            runs.append(1)
            if len(runs) == 1:
                raise ZeroDivisionError
            await original_run(dispatcher)

        monkeypatch.setattr(Dispatcher, "run", fail_first_run)
        async with running_application(env, HostHandlers(), logins):
            prompt = await env.request_prompt(anna)
            env.api.say(anna, await env.approve_login(prompt))
            await env.wait_for_message(anna, "notes: connected")

    asyncio.run(finish_login())
    assert "(internal error)" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@covers("serve-stop")
@pytest.mark.parametrize(
    "method_name", ["_initialize", "_start_updates", "add_menu_commands", "_wait_until_token_refused"]
)
def test_bot_stops_although_a_library_loses_the_cancellation(
    env: TelegramEnvironment, monkeypatch: pytest.MonkeyPatch, method_name: str
) -> None:
    monkeypatch.setattr(cancellation, "RECANCEL_SECONDS", 0.01)
    is_waiting, has_lost = asyncio.Event(), asyncio.Event()
    original = getattr(bot, method_name)

    async def lose_one_cancellation(*args: Any) -> None:
        try:
            is_waiting.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            has_lost.set()
        await original(*args)

    monkeypatch.setattr(bot, method_name, lose_one_cancellation)

    async def cancel_bot() -> None:
        task = asyncio.create_task(
            run_bot(
                Secret(env.api.token),
                env.make_service(),
                env.servers,
                ALLOW_LIST,
                api_url=env.api.origin,
                clock=env.clock,
            )
        )
        async with asyncio.timeout(20):
            await is_waiting.wait()
        task.cancel()
        await asyncio.wait({task}, timeout=20)
        assert task.cancelled()
        assert has_lost.is_set()
        # The endpoint notices the closed connection a moment later.
        await wait_until(lambda: not env.api.is_polling)

    asyncio.run(cancel_bot())
