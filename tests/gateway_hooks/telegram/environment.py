"""Bots that use the real python-telegram-bot against the local Bot API, and actions of their users.

`TelegramEnvironment` has a home, the demo servers and the local Bot API. `env.running_bot()` runs the bot; a
second call restarts it. The users belong to the local Bot API. Tests find a message by its first line.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telegram.ext import Application, ApplicationBuilder, CallbackContext

from gateway_hooks.dialog.policy import AllowList, Policy
from gateway_hooks.dialog.servers import StaticServers
from gateway_hooks.telegram import TelegramLogins
from gateway_hooks.telegram.bot import run_bot
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Secret, Server
from tests.cli.bot_process import without_mark
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Demo
from tests.parts.bot_api import BotApi, Chat, Message, User
from tests.transcript_files import replace_times

App = Application[Any, Any, Any, Any, Any, Any]
Context = CallbackContext[Any, Any, Any, Any]
ANNA, BOB, EVE = 7, 8, 9
ALLOW_LIST = AllowList(users=frozenset({"7", "8"}))
OPEN_BUTTON = "Open the page"


async def skip_sleep(_seconds: float) -> None:
    """Yield to other tasks without a delay."""
    await asyncio.sleep(0)


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until the condition is true. Raise TimeoutError after 20 s."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  the condition has no event
            await asyncio.sleep(0.01)


@dataclass
class TelegramEnvironment:
    api: BotApi
    demo: Demo
    home: Path
    clock: ManualClock

    @property
    def server(self) -> Server:
        return Server("notes", self.demo.mcp_url)

    @property
    def servers(self) -> StaticServers:
        return StaticServers([self.server, Server("ping", self.demo.ping_url)])

    def make_service(self) -> AuthService:
        """Return a service that stands for another process with the same home."""
        return AuthService(self.home, clock=self.clock)

    @asynccontextmanager
    async def running_bot(
        self, service: AuthService | None = None, policy: Policy = ALLOW_LIST, **options: Any
    ) -> AsyncGenerator[AuthService]:
        """Run the bot for logins only."""
        service = service or self.make_service()
        started = asyncio.Event()
        bot_task = asyncio.create_task(
            run_bot(
                Secret(self.api.token),
                service,
                self.servers,
                policy,
                api_url=self.api.origin,
                on_started=lambda _: started.set(),
                clock=self.clock,
                **options,
            )
        )
        started_task = asyncio.create_task(started.wait())
        await asyncio.wait({bot_task, started_task}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        started_task.cancel()
        try:
            if bot_task.done():
                await bot_task
            assert started.is_set()
            yield service
        finally:
            bot_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await bot_task

    def application_builder(self) -> Any:
        api = self.api
        return ApplicationBuilder().token(api.token).base_url(api.base_url).base_file_url(api.base_file_url)

    def make_logins(
        self, service: AuthService | None = None, policy: Policy = ALLOW_LIST, **options: Any
    ) -> TelegramLogins:
        return TelegramLogins(
            service or self.make_service(),
            self.servers,
            policy,
            clock=self.clock,
            sleep=skip_sleep,
            **options,
        )

    async def wait_for_message(self, chat: User | Chat, first_line: str, after_id: int = 0) -> Message:
        """Wait for the newest bot message that begins with `first_line` and has an id above `after_id`."""

        def find_message() -> Message | None:
            bot_messages = (
                candidate
                for candidate in reversed(self.api.messages(chat))
                if candidate.is_from_bot and candidate.id > after_id
            )
            return next(
                (message for message in bot_messages if without_mark(message.text).startswith(first_line)),
                None,
            )

        message = await self.api.until(find_message)
        assert message is not None
        return message

    async def request_prompt(self, user: User, command: str = "/connect notes") -> Message:
        """Send the command that starts a login. Return the prompt."""
        command_message = self.api.say(user, command)
        return await self.wait_for_message(user, "Connect notes", command_message.id)

    async def approve_login(self, prompt: Message) -> str:
        """Open the page of a prompt and approve. Return the URL that the browser ends on."""
        return await asyncio.to_thread(approve, self.api.button_url(prompt, OPEN_BUTTON))

    @property
    def stored_keys(self) -> list[tuple[str, str | None]]:
        """Return the server name and the owner of each stored credential."""
        keys = self.make_service().blocking.keys()
        return [(key.server_name, key.owner) for key in keys]

    def waiting_login(self) -> Login:
        (login,) = self.make_service().blocking.waiting_logins()
        return login

    def bot_texts(self, chat: User | Chat) -> list[str]:
        return [message.text for message in self.api.messages(chat) if message.is_from_bot]

    def check_no_secrets(self, *logins: Login) -> None:
        """Check, at the end of each test, that no secret remains in a chat."""
        assert self.api.unknown_parameters == []
        for press in self.api.state.button_presses.values():
            assert press.answer is not None
        for secret in self.demo.authorization_server.minted_secrets:
            assert self.api.messages_containing(secret) == [], "a chat still shows a secret"
            assert self.api.calls_containing(secret) == [] or secret in shown_user_codes(logins), (
                "the bot sent a secret"
            )
        for login in logins:
            assert self.api.messages_containing(login.request.state.reveal()) == []


def shown_user_codes(logins: tuple[Login, ...]) -> set[str]:
    return {code.user_code for login in logins if (code := login.device_authorization) is not None}


def without_secrets(text: str) -> str:
    """Replace values that differ from run to run with placeholders."""
    text = re.sub(r"http://127\.0\.0\.1:\d+/callback\?\S+", "<the address where the browser ended>", text)
    text = re.sub(r"\b[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}\b", "<user code>", text)
    text = replace_times(text)
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:<port>", text)
