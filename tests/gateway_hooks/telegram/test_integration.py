"""One line adds the logins to an application; the application keeps its own commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from telegram import BotCommand, Update
from telegram.ext import (
    BaseHandler,
    CommandHandler,
    ConversationHandler,
    MessageHandler,
    PrefixHandler,
    filters,
)

from gateway_hooks.dialog.policy import AllowList
from gateway_hooks.telegram import TelegramLogins
from tests.gateway_hooks.telegram.environment import App, Context, TelegramEnvironment, wait_until
from tests.gateway_hooks.telegram.test_application import HostHandlers, running_application
from tests.parts.bot_api import User
from tests.requirements import covers

pytestmark = pytest.mark.slow


async def do_nothing(_update: Update, _context: Context) -> None:
    """Do nothing. This function stands for a handler of the application."""


@covers("owners-commands")
def test_from_home_adds_logins_for_integer_ids_with_the_servers_of_config_yaml(
    env: TelegramEnvironment, anna: User
) -> None:
    env.home.mkdir(exist_ok=True)
    env.home.joinpath("config.yaml").write_text(
        f"mcp_servers: {{notes: {{url: {env.demo.mcp_url!r}, auth: oauth}}}}\n"
    )

    async def log_in() -> None:
        application: App = env.application_builder().build()
        TelegramLogins.from_home(application, users={7}, home=env.home)
        async with application:
            await application.start()
            assert application.updater is not None
            await application.updater.start_polling(poll_interval=0)
            prompt = await env.request_prompt(anna)
            env.api.say(anna, await env.approve_login(prompt))
            await env.wait_for_message(anna, "notes: connected")
            menu = [command.command for command in await application.bot.get_my_commands()]
            await application.updater.stop()
            await application.stop()
        assert menu == ["connect", "connections", "disconnect"]

    asyncio.run(log_in())


@covers("owners-commands")
def test_menu_keeps_the_applications_own_commands(env: TelegramEnvironment, anna: User) -> None:
    async def start() -> None:
        logins = env.make_logins(command_prefix="/mcp_")
        application: App = env.application_builder().build()
        logins.add_to(application, sets_menu=True)
        async with application:
            await application.bot.set_my_commands([BotCommand("connect", "Call a friend")])
            await application.start()
            assert application.updater is not None
            await application.updater.start_polling(poll_interval=0)
            while len(await application.bot.get_my_commands()) == 1:  # noqa: ASYNC110  no event
                await asyncio.sleep(0.01)
            names = [command.command for command in await application.bot.get_my_commands()]
            await application.updater.stop()
            await application.stop()
        assert names == ["connect", "mcp_connect", "mcp_connections", "mcp_disconnect"]

    asyncio.run(start())


@covers("owners-commands")
def test_with_a_prefix_the_applications_own_connect_reaches_it(env: TelegramEnvironment, anna: User) -> None:
    async def use_both() -> None:
        host = HostHandlers()
        logins = env.make_logins(command_prefix="/mcp_")
        async with running_application(env, host, logins):
            env.api.say(anna, "/connect the dots")
            await wait_until(lambda: host.texts == ["/connect the dots"])
            prompt = await env.request_prompt(anna, "/mcp_connect notes")
            assert "You sent /mcp_connect." in prompt.text
            await env.api.press(anna, prompt, "Cancel")
            await env.wait_for_message(anna, "notes: not connected")
        assert host.texts == ["/connect the dots"]

    asyncio.run(use_both())


@covers("owners-commands")
def test_a_clash_of_commands_is_a_clear_error(env: TelegramEnvironment) -> None:
    application: App = env.application_builder().build()
    application.add_handler(CommandHandler("connect", do_nothing))
    with pytest.raises(ValueError, match=r"handles /connect itself\. Pass another command_prefix"):
        env.make_logins().add_to(application)
    env.make_logins(command_prefix="/mcp_").add_to(application)
    with pytest.raises(ValueError, match="command_prefix is"):
        env.make_logins(command_prefix="mcp ")


OWN_HANDLERS: dict[str, Callable[[], BaseHandler[Any, Any, Any]]] = {
    "command": lambda: CommandHandler(["start", "connect"], do_nothing),
    "prefix": lambda: PrefixHandler(["!", "/"], "connections", do_nothing),
    "conversation": lambda: ConversationHandler(
        [CommandHandler("begin", do_nothing)], {1: [CommandHandler("disconnect", do_nothing)]}, []
    ),
}


@covers("owners-commands")
@pytest.mark.parametrize("kind", OWN_HANDLERS)
@pytest.mark.parametrize("adds_in_hook", [False, True])
def test_a_clash_with_a_later_handler_ends_run_polling(
    env: TelegramEnvironment, kind: str, *, adds_in_hook: bool
) -> None:
    async def add_handlers(application: App) -> None:
        application.add_handler(OWN_HANDLERS[kind]())

    builder = env.application_builder()
    application: App = (builder.post_init(add_handlers) if adds_in_hook else builder).build()
    TelegramLogins.from_home(application, users={7}, home=env.home)
    if not adds_in_hook:
        application.add_handler(OWN_HANDLERS[kind]())
    asyncio.set_event_loop(asyncio.new_event_loop())
    with pytest.raises(ValueError, match=r"itself\. Pass another command_prefix to TelegramLogins"):
        application.run_polling(stop_signals=None)
    assert not application.running


@covers("owners-commands")
def test_a_clash_in_an_application_that_starts_itself_reaches_its_error_handlers(
    env: TelegramEnvironment,
) -> None:
    updates_and_errors: list[tuple[object, object]] = []

    async def start() -> None:
        application: App = env.application_builder().build()
        env.make_logins().add_to(application)
        application.add_handler(CommandHandler("connect", do_nothing))

        async def on_error(update: object, context: Any) -> None:
            updates_and_errors.append((update, context.error))

        application.add_error_handler(on_error)
        async with application:
            await application.start()
            await wait_until(lambda: bool(updates_and_errors))
            await application.stop()

    asyncio.run(start())
    [(update, error)] = updates_and_errors
    assert update is None
    assert isinstance(error, ValueError)
    assert "This application handles /connect itself." in str(error)


@covers("owners-commands")
def test_prompt_in_a_blocking_handler_is_an_error_at_once(env: TelegramEnvironment, anna: User) -> None:
    errors: list[BaseException] = []

    async def prompt() -> None:
        logins = env.make_logins()
        application: App = env.application_builder().build()

        async def ask(update: Update, _context: Context) -> None:
            with logins.prompt_in(update):
                pass

        async def on_error(_update: object, context: Any) -> None:
            errors.append(context.error)

        application.add_handler(MessageHandler(filters.TEXT, ask))
        application.add_error_handler(on_error)
        logins.add_to(application)
        async with application:
            await application.start()
            assert application.updater is not None
            await application.updater.start_polling(poll_interval=0)
            env.api.say(anna, "work")
            await wait_until(lambda: bool(errors))
            await application.updater.stop()
            await application.stop()

    asyncio.run(prompt())
    assert [type(error) for error in errors] == [RuntimeError]
    assert "block=False" in str(errors[0])


@pytest.mark.parametrize("users", [42, "42"], ids=["number", "text"])
def test_one_id_instead_of_a_set_is_an_error(users: Any) -> None:
    with pytest.raises(TypeError, match="users is a set of ids"):
        AllowList(users=users)
    assert AllowList(users={users}).users == frozenset({"42"})


@covers("chat-wrong-address")
def test_a_bot_that_only_connects_answers_other_messages_with_one_line(
    env: TelegramEnvironment, anna: User
) -> None:
    async def chat() -> None:
        async with env.running_bot():
            env.api.say(anna, "hi, what can you do?")
            message = await env.wait_for_message(anna, "I only connect servers")
            assert message.text == "I only connect servers: send /connect."
            env.api.say(anna, "/help")
            await env.wait_for_message(anna, "I connect your agent")
            # During a login, the line is about that login: /connect would start another one.
            await env.request_prompt(anna)
            env.api.say(anna, "what do I have to do?")
            message = await env.wait_for_message(anna, "A login to notes waits")
            assert message.text == "A login to notes waits. Follow its three steps, or cancel it."

    asyncio.run(chat())
