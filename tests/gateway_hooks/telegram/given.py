"""Bots that use the real python-telegram-bot against the local Bot API, and actions of their users.

`TelegramEnvironment` has a home, the demo servers and the local Bot API. `env.running_bot()` runs the bot; a
second call is a restart. The users belong to the local Bot API. Tests wait for messages by their first line.
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
from tests.browserless import approve
from tests.demo.player import MovedClock
from tests.parts.authorization_server import Demo
from tests.parts.bot_api import BotApi, Chat, Message, User

App = Application[Any, Any, Any, Any, Any, Any]
Context = CallbackContext[Any, Any, Any, Any]
ANNA, BOB, EVE = 7, 8, 9
KNOWN = AllowList(users=frozenset({"7", "8"}))
OPEN = "Open the page"


async def at_once(_seconds: float) -> None:
    """Yield to other tasks without a delay."""
    await asyncio.sleep(0)


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until the condition is true. Raise TimeoutError after 20 s."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  the condition has no event
            await asyncio.sleep(0.01)


@dataclass
class Scene:
    api: BotApi
    demo: Demo
    home: Path
    clock: MovedClock

    @property
    def server(self) -> Server:
        return Server("notes", self.demo.mcp_url)

    @property
    def servers(self) -> StaticServers:
        return StaticServers([self.server, Server("ping", self.demo.ping_url)])

    def service(self) -> AuthService:
        """Return a service as another process over the same home has it."""
        return AuthService(self.home, clock=self.clock)

    @asynccontextmanager
    async def bot(
        self, service: AuthService | None = None, policy: Policy = KNOWN, **options: Any
    ) -> AsyncGenerator[AuthService]:
        """Run the bot that only does logins."""
        service = service or self.service()
        started = asyncio.Event()
        running = asyncio.create_task(
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
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        waiting.cancel()
        try:
            if running.done():
                await running
            assert started.is_set()
            yield service
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    def builder(self) -> Any:
        api = self.api
        return ApplicationBuilder().token(api.token).base_url(api.base_url).base_file_url(api.base_file_url)

    def logins(
        self, service: AuthService | None = None, policy: Policy = KNOWN, **options: Any
    ) -> TelegramLogins:
        return TelegramLogins(
            service or self.service(), self.servers, policy, clock=self.clock, sleep=at_once, **options
        )

    async def shown(self, where: User | Chat, title: str, after: int = 0) -> Message:
        """Wait for the newest bot message that begins with `first_line` and has an id above `after_id`."""

        def found() -> Message | None:
            ours = (each for each in reversed(self.api.messages(where)) if each.from_bot and each.id > after)
            return next((each for each in ours if each.text.startswith(title)), None)

        message = await self.api.until(found)
        assert message is not None
        return message

    async def prompt(self, user: User, command: str = "/connect notes") -> Message:
        """Send the command that starts a login. Return the prompt."""
        said = self.api.say(user, command)
        return await self.shown(user, "Connect notes", said.id)

    async def approved(self, prompt: Message) -> str:
        """Open the page of a prompt and approve. Return the URL that the browser ends on."""
        return await asyncio.to_thread(approve, self.api.url_of(prompt, OPEN))

    @property
    def stored(self) -> list[tuple[str, str | None]]:
        """Return the server name and the owner of each stored credential."""
        keys = self.service().keys()
        return [(key.server_name, key.owner) for key in keys]

    def login(self) -> Login:
        (login,) = self.service().waiting_logins()
        return login

    def texts(self, where: User | Chat) -> list[str]:
        return [each.text for each in self.api.messages(where) if each.from_bot]

    def check(self, *logins: Login) -> None:
        """Check what must hold at the end of each test: no secret stays in a chat."""
        assert self.api.unknown_parameters == []
        for press in self.api.world.pressed.values():
            assert press.answer is not None
        for secret in self.demo.authorization_server.minted_secrets:
            assert self.api.visible(secret) == [], "a chat still shows a secret"
            assert self.api.sent(secret) == [] or secret in _shown_once(logins), "the bot sent a secret"
        for login in logins:
            assert self.api.visible(login.request.state.reveal()) == []


def _shown_once(logins: tuple[Login, ...]) -> set[str]:
    return {code.user_code for login in logins if (code := login.device_authorization) is not None}


def without_secrets(text: str) -> str:
    """Replace values that differ from run to run with placeholders."""
    text = re.sub(r"http://127\.0\.0\.1:\d+/callback\?\S+", "<the address where the browser ended>", text)
    text = re.sub(r"\b[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}\b", "<user code>", text)
    text = re.sub(r"\b\d\d:\d\d UTC", "<time> UTC", text)
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:<port>", text)
