"""`TelegramLogins` in an application of its own: the updates that it claims and those that it leaves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.ext import CallbackQueryHandler, Defaults, MessageHandler, TypeHandler, filters

from gateway_hooks.telegram import TelegramLogins
from hermes_mcp_auth_remote.errors import AuthorizationRequired
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.values import Origin
from tests.gateway_hooks.telegram.environment import App, Context, TelegramEnvironment, wait_until
from tests.parts.bot_api import User
from tests.requirements import covers

pytestmark = pytest.mark.slow


class HostHandlers:
    """The application's own handlers, one of them in a low group. They record the updates."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.updates_and_errors: list[object] = []

    def add_to(self, application: App) -> None:
        application.add_handler(TypeHandler(object, self.on_anything), -10)
        application.add_handler(CallbackQueryHandler(self.on_press))
        application.add_handler(MessageHandler(filters.ALL, self.on_message))
        application.add_error_handler(self.on_error)

    async def on_anything(self, update: object, _context: Context) -> None:
        self.updates_and_errors.append(update)

    async def on_message(self, update: Update, _context: Context) -> None:
        message = update.effective_message
        assert message is not None
        self.texts.append(message.text or message.caption or "(something)")

    async def on_press(self, update: Update, _context: Context) -> None:
        assert update.callback_query is not None
        self.texts.append(f"pressed {update.callback_query.data}")
        await update.callback_query.answer("by the host")

    async def on_error(self, update: object, context: Context) -> None:
        self.updates_and_errors += [update, context.error]

    def has_received(self, text: str) -> bool:
        return any(text in str(value) for value in [*self.texts, *self.updates_and_errors])


@asynccontextmanager
async def running_application(
    env: TelegramEnvironment, host: HostHandlers, logins: TelegramLogins | None = None, builder: Any = None
) -> AsyncGenerator[App]:
    logins = logins or env.make_logins()
    application: App = (builder or env.application_builder()).build()
    host.add_to(application)
    logins.add_to(application)
    async with application:
        await application.start()
        assert application.updater is not None
        await application.updater.start_polling(poll_interval=0)
        try:
            yield application
        finally:
            await application.updater.stop()
            await application.stop()


@covers("telegram-untouched")
def test_other_updates_reach_application(env: TelegramEnvironment, anna: User) -> None:
    api, host = env.api, HostHandlers()
    other_texts = [
        "hello",
        "/cancel",
        "/start",
        "/start other",
        "/connect@another_bot notes",
        "/new",
        "what is code=1?",
    ]
    other_texts += ["https://example.com/?code=1", "x" * 40]

    async def send_updates() -> None:
        async with running_application(env, host) as application:
            keyboard = InlineKeyboardMarkup([[InlineKeyboardButton("Theirs", callback_data="theirs")]])
            await application.bot.send_message(7, "Press", reply_markup=keyboard)
            keyboard_message = await env.wait_for_message(anna, "Press")
            assert (await api.press(anna, keyboard_message, "Theirs")).text == "by the host"
            for text in other_texts:
                api.say(anna, text)
            await wait_until(lambda: len(host.texts) == len(other_texts) + 1)
            # The application's handlers do not get the bot's own commands and buttons.
            prompt = await env.request_prompt(anna)
            await api.press(anna, prompt, "QR code")
            await api.press(anna, prompt, "Cancel")
            await env.wait_for_message(anna, "notes: not connected")
            api.say(anna, "/connections")
            await env.wait_for_message(anna, "Connections")

    asyncio.run(send_updates())
    assert host.texts == ["pressed theirs", *other_texts]
    assert not host.has_received("mcp:")
    assert not host.has_received("/connections")


@covers("telegram-agent-blind", "telegram-deleted")
@pytest.mark.parametrize(
    "delivery", ["message", "edited", "caption", "command", "bare", "defaults", "used", "stray"]
)
def test_no_handler_of_application_gets_code(env: TelegramEnvironment, anna: User, delivery: str) -> None:
    api, host = env.api, HostHandlers()
    builder = env.application_builder()
    if delivery == "defaults":
        builder = builder.defaults(Defaults(parse_mode="HTML", block=False))

    async def send_code() -> None:
        async with running_application(env, host, builder=builder):
            prompt = await env.request_prompt(anna)
            # The application's defaults do not change the prompt.
            assert prompt.entities[0].type == "bold"
            answer = await env.approve_login(prompt)
            code = answer.partition("code=")[2].partition("&")[0]
            if delivery == "edited":
                first = api.say(anna, "wait")
                await wait_until(lambda: host.texts == ["wait"])
                api.edit(anna, first, answer)
            elif delivery == "caption":
                message = api.say(anna, "wait")
                await wait_until(lambda: host.texts == ["wait"])
                message_json = api.state.message_json(message)
                del message_json["text"]
                api.state.push("message", {**message_json, "caption": answer})
            elif delivery == "stray":
                api.say(anna, answer.replace("state=", "state=another"))
                await env.wait_for_message(anna, "Your answer did not complete the login to notes")
                api.say(anna, answer)
            else:
                api.say(anna, {"command": f"/connect {answer}", "bare": f"{code}"}.get(delivery, answer))
            if delivery == "bare":
                await env.wait_for_message(anna, "Your answer did not complete the login to notes")
            else:
                await env.wait_for_message(anna, "notes: connected")
            if delivery == "used":
                api.say(anna, answer)
                await env.wait_for_message(anna, "notes: already connected")
            await api.until(lambda: api.deleted_messages(anna))
        assert not host.has_received(code)
        assert api.messages_containing(code) == []
        if delivery != "bare":
            env.check_no_secrets()

    asyncio.run(send_code())


@covers("telegram-agent-blind")
def test_application_gets_no_code_if_logins_cannot_be_read(
    env: TelegramEnvironment, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hermes_mcp_auth_remote.errors import StoreError

    api, host, service = env.api, HostHandlers(), env.make_service()

    async def send_code() -> None:
        async with running_application(env, host, env.make_logins(service)):
            prompt = await env.request_prompt(anna)
            answer = await env.approve_login(prompt)

            def fail_read() -> None:
                raise StoreError("The logins cannot be read.", "Look at the disk.")

            with monkeypatch.context() as patched:
                patched.setattr(service, "logins", fail_read)
                api.say(anna, answer)
                await api.until(lambda: api.deleted_messages(anna))
                await api.until(lambda: any("cannot be read" in bot_text for bot_text in env.bot_texts(anna)))
            api.say(anna, answer)
            await env.wait_for_message(anna, "notes: connected")
        assert not host.has_received("code=")

    asyncio.run(send_code())


@covers("telegram-untouched")
def test_logins_run_in_run_polling_with_hooks_of_application(env: TelegramEnvironment, anna: User) -> None:
    """The bot shows a login of another process although the user has sent it no message."""
    api, hooks = env.api, list[str]()

    def make_hook(name: str) -> Any:
        async def record_call(_application: App) -> None:
            hooks.append(name)

        return record_call

    def run_application() -> None:
        builder = (
            env.application_builder()
            .post_init(make_hook("init"))
            .post_stop(make_hook("stop"))
            .post_shutdown(make_hook("shutdown"))
        )
        logins = env.make_logins()
        application = builder.build()
        logins.add_to(application)
        applications.append(application)
        loops.append(asyncio.new_event_loop())
        asyncio.set_event_loop(loops[0])
        application.run_polling(stop_signals=None, poll_interval=0)

    applications, loops = list[App](), list[asyncio.AbstractEventLoop]()
    thread = threading.Thread(target=run_application)
    thread.start()

    async def finish_login() -> None:
        await env.make_service().start_login(env.server, Origin("telegram", user_id="7"))
        prompt = await env.wait_for_message(anna, "Connect notes")
        api.say(anna, await env.approve_login(prompt))
        await env.wait_for_message(anna, "notes: connected")

    try:
        asyncio.run(finish_login())
    finally:
        loops[0].call_soon_threadsafe(applications[0].stop_running)
        thread.join(20)
    assert not thread.is_alive()
    assert hooks == ["init", "stop", "shutdown"]


@covers("telegram-untouched")
def test_stopped_application_leaves_no_tasks_and_can_restart(env: TelegramEnvironment, anna: User) -> None:
    api, host = env.api, HostHandlers()

    async def restart_during_login() -> None:
        async with running_application(env, host) as application:
            assert application.updater is not None
            prompt = await env.request_prompt(anna)
            await application.updater.stop()
            await application.stop()
            remaining_tasks = asyncio.all_tasks() - {asyncio.current_task()}
            assert [task.get_name() for task in remaining_tasks] == []
            await application.start()
            await application.updater.start_polling(poll_interval=0)
            api.say(anna, await env.approve_login(prompt))
            await env.wait_for_message(anna, "notes: connected")

    asyncio.run(restart_during_login())


@covers("telegram-story")
def test_application_is_notified_of_connection(env: TelegramEnvironment, anna: User) -> None:
    api, host = env.api, HostHandlers()
    connections: list[tuple[str, str | None]] = []

    async def on_connected(login: Login, connection: Connection) -> None:
        connections.append((login.key.server_name, connection.account))

    logins = env.make_logins(on_connected=on_connected)

    async def finish_login() -> None:
        async with running_application(env, host, logins):
            prompt = await env.request_prompt(anna)
            api.say(anna, await env.approve_login(prompt))
            await wait_until(lambda: bool(connections))

    asyncio.run(finish_login())
    assert connections == [("notes", "ada@example.com")]


@covers("telegram-people")
def test_update_without_user_prompts_no_user(env: TelegramEnvironment) -> None:
    logins = env.make_logins()
    with pytest.raises(RuntimeError, match="add_to"):
        _ = logins.dispatcher
    news = {"id": -1005, "type": "channel", "title": "News"}

    async def check_updates() -> None:
        application = env.application_builder().build()
        logins.add_to(application)
        async with application:
            message = {"message_id": 1, "date": 1, "chat": news, "text": "x"}
            group = {"id": -1001, "type": "supergroup", "title": "Team"}
            anonymous = {"id": 1087968824, "is_bot": True, "first_name": "Group"}
            session = logins.dispatcher.session("notes", "7")
            for update in (
                {"channel_post": message},
                {"message": {**message, "chat": group, "from": anonymous, "sender_chat": group}},
            ):
                update_without_user = Update.de_json({"update_id": 1, **update})
                with pytest.raises(ValueError, match="No user sent"):
                    logins.session("notes", update_without_user)
                with logins.prompt_in(update_without_user), pytest.raises(AuthorizationRequired):
                    await session.header()

    asyncio.run(check_updates())
