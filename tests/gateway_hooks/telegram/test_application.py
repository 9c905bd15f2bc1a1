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
from tests.gateway_hooks.telegram.given import App, Context, Scene, eventually
from tests.parts.bot_api import User
from tests.requirements import covers

pytestmark = pytest.mark.slow


class Host:
    """The application's own handlers, one of them in a low group. They record the updates."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.seen: list[object] = []

    def add_to(self, application: App) -> None:
        application.add_handler(TypeHandler(object, self.on_anything), -10)
        application.add_handler(CallbackQueryHandler(self.on_press))
        application.add_handler(MessageHandler(filters.ALL, self.on_message))
        application.add_error_handler(self.on_error)

    async def on_anything(self, update: object, _context: Context) -> None:
        self.seen.append(update)

    async def on_message(self, update: Update, _context: Context) -> None:
        message = update.effective_message
        assert message is not None
        self.heard.append(message.text or message.caption or "(something)")

    async def on_press(self, update: Update, _context: Context) -> None:
        assert update.callback_query is not None
        self.heard.append(f"pressed {update.callback_query.data}")
        await update.callback_query.answer("by the host")

    async def on_error(self, update: object, context: Context) -> None:
        self.seen += [update, context.error]

    def saw(self, text: str) -> bool:
        return any(text in str(each) for each in [*self.heard, *self.seen])


@asynccontextmanager
async def hosted(
    scene: Scene, host: Host, logins: TelegramLogins | None = None, builder: Any = None
) -> AsyncGenerator[App]:
    logins = logins or scene.logins()
    application: App = (builder or scene.builder()).build()
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
def test_what_is_not_ours_goes_on(scene: Scene, anna: User) -> None:
    api, host = scene.api, Host()
    said = [
        "hello",
        "/cancel",
        "/start",
        "/start other",
        "/connect@another_bot notes",
        "/new",
        "what is code=1?",
    ]
    said += ["https://example.com/?code=1", "x" * 40]

    async def story() -> None:
        async with hosted(scene, host) as application:
            keyboard = InlineKeyboardMarkup([[InlineKeyboardButton("Theirs", callback_data="theirs")]])
            await application.bot.send_message(7, "Press", reply_markup=keyboard)
            shown = await scene.shown(anna, "Press")
            assert (await api.press(anna, shown, "Theirs")).text == "by the host"
            for text in said:
                api.say(anna, text)
            await eventually(lambda: len(host.heard) == len(said) + 1)
            # The application's handlers do not get the bot's own commands and buttons.
            prompt = await scene.prompt(anna)
            await api.press(anna, prompt, "QR code")
            await api.press(anna, prompt, "Cancel")
            await scene.shown(anna, "notes: not connected")
            api.say(anna, "/connections")
            await scene.shown(anna, "Connections")

    asyncio.run(story())
    assert host.heard == ["pressed theirs", *said]
    assert not host.saw("mcp:")
    assert not host.saw("/connections")


@covers("telegram-agent-blind", "telegram-deleted")
@pytest.mark.parametrize(
    "way", ["message", "edited", "caption", "command", "bare", "defaults", "used", "stray"]
)
def test_no_handler_of_the_application_sees_a_code(scene: Scene, anna: User, way: str) -> None:
    api, host = scene.api, Host()
    builder = scene.builder()
    if way == "defaults":
        builder = builder.defaults(Defaults(parse_mode="HTML", block=False))

    async def story() -> None:
        async with hosted(scene, host, builder=builder):
            prompt = await scene.prompt(anna)
            # The application's defaults do not change the prompt.
            assert prompt.entities[0].type == "bold"
            answer = await scene.approved(prompt)
            code = answer.partition("code=")[2].partition("&")[0]
            if way == "edited":
                first = api.say(anna, "wait")
                await eventually(lambda: host.heard == ["wait"])
                api.edit(anna, first, answer)
            elif way == "caption":
                message = api.say(anna, "wait")
                await eventually(lambda: host.heard == ["wait"])
                shown = api.world.message_json(message)
                del shown["text"]
                api.world.push("message", {**shown, "caption": answer})
            elif way == "stray":
                api.say(anna, answer.replace("state=", "state=another"))
                await scene.shown(anna, "That did not finish the login of notes")
                api.say(anna, answer)
            else:
                api.say(anna, {"command": f"/connect {answer}", "bare": f"{code}"}.get(way, answer))
            if way == "bare":
                await scene.shown(anna, "That did not finish the login of notes")
            else:
                await scene.shown(anna, "notes: connected")
            if way == "used":
                api.say(anna, answer)
                await scene.shown(anna, "No login of yours waits for this answer")
            await api.until(lambda: api.deleted(anna))
        assert not host.saw(code)
        assert api.visible(code) == []
        if way != "bare":
            scene.check()

    asyncio.run(story())


@covers("telegram-agent-blind")
def test_a_code_is_kept_from_the_application_also_where_the_logins_cannot_be_read(
    scene: Scene, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hermes_mcp_auth_remote.errors import StoreError

    api, host, service = scene.api, Host(), scene.service()

    async def story() -> None:
        async with hosted(scene, host, scene.logins(service)):
            prompt = await scene.prompt(anna)
            answer = await scene.approved(prompt)

            def unreadable() -> None:
                raise StoreError("The logins cannot be read.", "Look at the disk.")

            with monkeypatch.context() as patched:
                patched.setattr(service, "logins", unreadable)
                api.say(anna, answer)
                await api.until(lambda: api.deleted(anna))
                await api.until(lambda: any("cannot be read" in each for each in scene.texts(anna)))
            api.say(anna, answer)
            await scene.shown(anna, "notes: connected")
        assert not host.saw("code=")

    asyncio.run(story())


@covers("telegram-untouched")
def test_it_runs_by_run_polling_with_the_applications_own_hooks(scene: Scene, anna: User) -> None:
    """The bot shows a login of another process although the user has sent it no message."""
    api, hooks = scene.api, list[str]()

    def hook(name: str) -> Any:
        async def called(_application: App) -> None:
            hooks.append(name)

        return called

    def run() -> None:
        builder = (
            scene.builder().post_init(hook("init")).post_stop(hook("stop")).post_shutdown(hook("shutdown"))
        )
        logins = scene.logins()
        application = builder.build()
        logins.add_to(application)
        running.append(application)
        loops.append(asyncio.new_event_loop())
        asyncio.set_event_loop(loops[0])
        application.run_polling(stop_signals=None, poll_interval=0)

    running, loops = list[App](), list[asyncio.AbstractEventLoop]()
    thread = threading.Thread(target=run)
    thread.start()

    async def story() -> None:
        await scene.service().start_login(scene.server, Origin("telegram", user_id="7"))
        prompt = await scene.shown(anna, "Connect notes")
        api.say(anna, await scene.approved(prompt))
        await scene.shown(anna, "notes: connected")

    try:
        asyncio.run(story())
    finally:
        loops[0].call_soon_threadsafe(running[0].stop_running)
        thread.join(20)
    assert not thread.is_alive()
    assert hooks == ["init", "stop", "shutdown"]


@covers("telegram-untouched")
def test_a_stopped_application_leaves_nothing_of_ours_running_and_may_start_again(
    scene: Scene, anna: User
) -> None:
    api, host = scene.api, Host()

    async def story() -> None:
        async with hosted(scene, host) as application:
            assert application.updater is not None
            prompt = await scene.prompt(anna)
            await application.updater.stop()
            await application.stop()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert [task.get_name() for task in left] == []
            await application.start()
            await application.updater.start_polling(poll_interval=0)
            api.say(anna, await scene.approved(prompt))
            await scene.shown(anna, "notes: connected")

    asyncio.run(story())


@covers("telegram-story")
def test_the_application_hears_who_has_connected_and_may_ask_again(scene: Scene, anna: User) -> None:
    api, host = scene.api, Host()
    connected: list[tuple[str, str | None]] = []

    async def on_connected(login: Login, connection: Connection) -> None:
        connected.append((login.key.server_name, connection.account))

    logins = scene.logins(on_connected=on_connected)

    async def story() -> None:
        async with hosted(scene, host, logins):
            prompt = await scene.prompt(anna)
            api.say(anna, await scene.approved(prompt))
            await eventually(lambda: bool(connected))

    asyncio.run(story())
    assert connected == [("notes", "ada@example.com")]


@covers("telegram-people")
def test_nobody_is_asked_for_an_update_that_no_person_sent(scene: Scene) -> None:
    logins = scene.logins()
    with pytest.raises(RuntimeError, match="add_to"):
        _ = logins.dispatcher
    news = {"id": -1005, "type": "channel", "title": "News"}

    async def story() -> None:
        application = scene.builder().build()
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
                nobodys = Update.de_json({"update_id": 1, **update})
                with pytest.raises(ValueError, match="No user sent"):
                    logins.session("notes", nobodys)
                with logins.prompt_in(nobodys), pytest.raises(AuthorizationRequired):
                    await session.header()

    asyncio.run(story())
