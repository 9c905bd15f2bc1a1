"""A Discord bot with the cog, in its own thread, against the local Discord API; and actions of its users."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from discord.ext import commands

from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.dialog.policy import AllowList, Policy
from gateway_hooks.dialog.servers import Servers
from gateway_hooks.discord import McpLogins, Options
from gateway_hooks.discord.api_url import use_api_url
from gateway_hooks.discord.bot import LoginBot
from hermes_mcp_auth_remote.auth.httpx2 import McpAuth
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
from tests.browserless import approve
from tests.demo.player import MovedClock
from tests.gateway_hooks.given import servers_of
from tests.parts.authorization_server import Demo
from tests.parts.discord_api import Channel, DiscordApi, Guild, Interaction, Message, User

T = TypeVar("T")

FIELD = ENGLISH.form_label
PASTE, QR, CANCEL = ENGLISH.paste_button, ENGLISH.qr_button, ENGLISH.cancel_button


class Running:
    """A bot that runs. `bot` and `cog` belong to its event loop; `call` runs a coroutine there."""

    def __init__(self, bot: commands.Bot, cog: McpLogins, loop: asyncio.AbstractEventLoop) -> None:
        self.bot, self.cog, self._loop = bot, cog, loop

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return self.start(work).result(30)

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def ping(self, user: User, channel: Channel | None, url: str, guild: Guild) -> int:
        """Call a server for a member, as an agent in the same process does. Return the HTTP status."""
        member = await (await self.bot.fetch_guild(int(guild.id))).fetch_member(int(user.id))
        place = (
            None
            if channel is None
            else self.bot.get_partial_messageable(int(channel.id), guild_id=int(guild.id))
        )
        async with httpx2.AsyncClient(auth=McpAuth(self.cog.session("notes", member))) as client:
            with self.cog.prompt_in(member, place, wait_seconds=20):
                return (await client.get(url, timeout=30)).status_code


class Scene:
    """The local Discord API with a guild of ada, bob and eve. The policy allows ada and bob."""

    def __init__(self, api: DiscordApi, demo: Demo, home: Path, clock: MovedClock) -> None:
        self.api, self.demo, self.home, self.clock = api, demo, home, clock
        self.ada, self.bob, self.eve = (api.user(name) for name in ("ada", "bob", "eve"))
        self.guild: Guild = api.guild(
            "Home", [self.ada, self.bob, self.eve], roles={"staff": [self.bob]}, channels=["general"]
        )
        self.channel: Channel = self.guild.channel("general")
        self.policy: Policy = AllowList(users=frozenset({self.ada.id, self.bob.id}))
        self.store = AuthService(home, clock=clock)
        self.began: dict[str, Login] = {}

    @property
    def server(self) -> Server:
        return Server("notes", self.demo.ping_url)

    @contextmanager
    def bot(
        self,
        *names: str,
        policy: Policy | None = None,
        options: Options | None = None,
        make: Callable[[], commands.Bot] = LoginBot,
        servers: Servers | None = None,
    ) -> Iterator[Running]:
        """Run a bot during the block. Its slash commands are registered when the block begins."""
        chosen, made = options or Options(), list[Running]()
        with running(self.api, lambda: self._main(made, names, policy, chosen, make, servers)):
            if chosen.adds_commands and chosen.syncs_commands:
                self.api.wait(lambda: len(self._commands(chosen)) >= 3)
            yield made[0]

    def _commands(self, options: Options) -> list[Any]:
        return self.api.guild_commands(self.guild) if options.guild_ids else self.api.commands

    async def _main(
        self,
        made: list[Running],
        names: tuple[str, ...],
        policy: Policy | None,
        options: Options,
        make: Callable[[], commands.Bot],
        servers: Servers | None,
    ) -> None:
        bot = make()
        use_api_url(bot, self.api.url)
        cog = McpLogins(
            bot,
            AuthService(self.home, clock=self.clock),
            servers or servers_of(self.demo, *names),
            policy or self.policy,
            options=options,
            clock=self.clock,
        )
        made.append(Running(bot, cog, asyncio.get_running_loop()))
        async with bot:
            await bot.add_cog(cog)
            await bot.start(self.api.token)

    def connect(self, user: User, channel: Channel | None = None, server: str = "notes") -> Message:
        return self.api.answer(self.api.slash(user, channel or self.channel, "connect", server=server))

    def login(self) -> Login:
        """Return the only waiting login."""
        [login] = self.store.waiting_logins()
        self.began[login.id] = login
        return login

    def paste(self, user: User, prompt: Message, text: str) -> Interaction:
        """Type the text into the modal of a prompt."""
        window = self.api.modal(self.api.press(user, prompt, PASTE))
        return self.api.submit(user, window, {FIELD: text})

    def approve(self) -> str:
        return approve(self.login().authorization_url)

    def until_shows(self, message: Message, text: str) -> Message:
        self.api.wait(lambda: text in self.api.fresh(message).text)
        return self.api.fresh(message)

    def until_seen(self, channel: Channel, text: str, seen_by: User) -> Message:
        """Wait until the user sees a message with the text. Return the last one."""

        def found() -> list[Message]:
            return [one for one in self.api.messages(channel, seen_by=seen_by) if text in one.text]

        self.api.wait(found)
        return found()[-1]

    def seen(self, user: User, channel: Channel | None = None) -> str:
        return self.without_secrets(self.api.transcript(channel or self.channel, seen_by=user))

    def without_secrets(self, text: str) -> str:
        for login in self.began.values():
            code = login.device_authorization
            for secret, said in (
                (login.authorization_url, "<authorization URL>"),
                (code.user_code if code else "", "<user code>"),
            ):
                text = text.replace(secret, said) if secret else text
        for user in (self.ada, self.bob, self.eve):
            text = text.replace(user.id, f"<{user.name}'s id>")
        text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:<port>", text)
        # The placeholders differ in length from the values: pad each line of a box again.
        return re.sub(r"(?m)^  │ (.*?) *│$", lambda line: f"  │ {line[1]:72} │", text)

    def check_private(self, login: Login) -> None:
        """Check that no message for other users shows a URL, state or user code of the login."""
        texts = [login.request.state.reveal(), login.authorization_url]
        if login.device_authorization is not None:
            texts.append(login.device_authorization.user_code)
        for text in texts:
            for message in self.api.standing(text):
                assert message.ephemeral or self.api.dm(self.ada).id == message.channel_id, message


TRANSCRIPTS = Path(__file__).parents[2] / "transcripts"


def compare(name: str, text: str) -> None:
    """Compare a channel with its stored transcript. `NEW_TRANSCRIPTS=1` rewrites the file."""
    file = TRANSCRIPTS / f"{name}.txt"
    if os.environ.get("NEW_TRANSCRIPTS"):
        file.write_text(text, "utf-8")
    assert text == file.read_text("utf-8")


@contextmanager
def running(api: DiscordApi, main: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[None]:
    """Run a bot in a thread during the block. The gateway is connected first; the bot's error is raised."""
    raised: list[BaseException] = []
    begun: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        begun.append((asyncio.get_running_loop(), task))
        await main()

    def thread_main() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            try:
                asyncio.run(run())
            except Exception as error:  # noqa: BLE001  raised again in the thread of the test
                raised.append(error)

    before = api.gateway.ready
    thread = threading.Thread(target=thread_main, name="bot", daemon=True)
    thread.start()
    try:
        api.wait(lambda: raised or api.gateway.ready > before, 20)
        if not raised:
            yield
    finally:
        if thread.is_alive() and begun:
            loop, task = begun[0]
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)
        thread.join(30)
    if raised:
        raise raised[0]
