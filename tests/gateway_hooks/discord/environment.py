"""A Discord bot with the cog, in its own thread, against the local Discord API; and actions of its users."""

from __future__ import annotations

import asyncio
import contextlib
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
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.gateway_hooks.fake_platform import demo_servers
from tests.parts.authorization_server import Demo
from tests.parts.discord_api import Channel, DiscordApi, Guild, Interaction, Message, User

T = TypeVar("T")

ANSWER_FIELD = ENGLISH.form_label
PASTE_BUTTON, QR_BUTTON, CANCEL_BUTTON = ENGLISH.paste_button, ENGLISH.qr_button, ENGLISH.cancel_button


class RunningBot:
    """A bot that runs. `bot` and `cog` belong to its event loop; `call` runs a coroutine there."""

    def __init__(self, bot: commands.Bot, cog: McpLogins, loop: asyncio.AbstractEventLoop) -> None:
        self.bot, self.cog, self._loop = bot, cog, loop

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return self.start(work).result(30)

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def call_server(self, user: User, channel: Channel | None, url: str, guild: Guild) -> int:
        """Call a server for a member, as an agent in the same process does. Return the HTTP status."""
        member = await (await self.bot.fetch_guild(int(guild.id))).fetch_member(int(user.id))
        messageable = (
            None
            if channel is None
            else self.bot.get_partial_messageable(int(channel.id), guild_id=int(guild.id))
        )
        async with httpx2.AsyncClient(auth=McpAuth(self.cog.session("notes", member))) as client:
            with self.cog.prompt_in(member, messageable, wait_seconds=20):
                return (await client.get(url, timeout=30)).status_code


class DiscordEnvironment:
    """The local Discord API with a guild of ada, bob and eve. The policy allows ada and bob."""

    def __init__(self, api: DiscordApi, demo: Demo, home: Path, clock: ManualClock) -> None:
        self.api, self.demo, self.home, self.clock = api, demo, home, clock
        self.ada, self.bob, self.eve = (api.add_user(name) for name in ("ada", "bob", "eve"))
        self.guild: Guild = api.add_guild(
            "Home", [self.ada, self.bob, self.eve], roles={"staff": [self.bob]}, channels=["general"]
        )
        self.channel: Channel = self.guild.channel("general")
        self.policy: Policy = AllowList(users=frozenset({self.ada.id, self.bob.id}))
        self.service = AuthService(home, clock=clock)
        self.logins_by_id: dict[str, Login] = {}

    @property
    def server(self) -> Server:
        return Server("notes", self.demo.ping_url)

    @contextmanager
    def running_bot(
        self,
        *names: str,
        policy: Policy | None = None,
        options: Options | None = None,
        make_bot: Callable[[], commands.Bot] = LoginBot,
        servers: Servers | None = None,
    ) -> Iterator[RunningBot]:
        """Run a bot during the block. Its slash commands are registered when the block begins."""
        chosen_options, running_bots = options or Options(), list[RunningBot]()
        with run_in_thread(
            self.api, lambda: self._run_bot(running_bots, names, policy, chosen_options, make_bot, servers)
        ):
            if chosen_options.adds_commands and chosen_options.syncs_commands:
                self.api.wait(lambda: len(self._registered_commands(chosen_options)) >= 3)
            yield running_bots[0]

    def _registered_commands(self, options: Options) -> list[Any]:
        return self.api.guild_commands(self.guild) if options.guild_ids else self.api.commands

    async def _run_bot(
        self,
        running_bots: list[RunningBot],
        names: tuple[str, ...],
        policy: Policy | None,
        options: Options,
        make_bot: Callable[[], commands.Bot],
        servers: Servers | None,
    ) -> None:
        bot = make_bot()
        use_api_url(bot, self.api.url)
        cog = McpLogins(
            bot,
            AuthService(self.home, clock=self.clock),
            servers or demo_servers(self.demo, *names),
            policy or self.policy,
            options=options,
            clock=self.clock,
        )
        running_bots.append(RunningBot(bot, cog, asyncio.get_running_loop()))
        async with bot:
            await bot.add_cog(cog)
            await bot.start(self.api.token)

    def request_prompt(self, user: User, channel: Channel | None = None, server: str = "notes") -> Message:
        return self.api.wait_for_response(
            self.api.slash(user, channel or self.channel, "connect", server=server)
        )

    def waiting_login(self) -> Login:
        """Return the only waiting login."""
        [login] = self.service.blocking.waiting_logins()
        self.logins_by_id[login.id] = login
        return login

    def submit_answer(self, user: User, prompt: Message, text: str) -> Interaction:
        """Type the text into the modal of a prompt."""
        modal = self.api.wait_for_modal(self.api.press(user, prompt, PASTE_BUTTON))
        return self.api.submit(user, modal, {ANSWER_FIELD: text})

    def approve_login(self) -> str:
        return approve(self.waiting_login().authorization_url)

    def wait_for_text(self, message: Message, text: str) -> Message:
        self.api.wait(lambda: text in self.api.current(message).text)
        return self.api.current(message)

    def wait_for_message(self, channel: Channel, text: str, seen_by: User) -> Message:
        """Wait until the user sees a message with the text. Return the last one."""

        def find_messages() -> list[Message]:
            return [
                message for message in self.api.messages(channel, seen_by=seen_by) if text in message.text
            ]

        self.api.wait(find_messages)
        return find_messages()[-1]

    def visible_transcript(self, user: User, channel: Channel | None = None) -> str:
        return self.without_secrets(self.api.transcript(channel or self.channel, seen_by=user))

    def without_secrets(self, text: str) -> str:
        for login in self.logins_by_id.values():
            device_authorization = login.device_authorization
            for secret, placeholder in (
                (login.authorization_url, "<authorization URL>"),
                (device_authorization.user_code if device_authorization else "", "<user code>"),
            ):
                text = text.replace(secret, placeholder) if secret else text
        for user in (self.ada, self.bob, self.eve):
            text = text.replace(user.id, f"<{user.name}'s id>")
        text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:<port>", text)
        # The placeholders and the values have different lengths, so pad each line of a box again.
        return re.sub(r"(?m)^  │ (.*?) *│$", lambda line: f"  │ {line[1]:72} │", text)

    def check_private(self, login: Login) -> None:
        """Check that no message for other users shows a URL, state or user code of the login."""
        texts = [login.request.state.reveal(), login.authorization_url]
        if login.device_authorization is not None:
            texts.append(login.device_authorization.user_code)
        for text in texts:
            for message in self.api.messages_containing(text):
                assert message.ephemeral or self.api.dm(self.ada).id == message.channel_id, message


@contextmanager
def run_in_thread(api: DiscordApi, main: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[None]:
    """Run a bot in a thread during the block. First wait for the gateway. Raises an error of the bot."""
    errors: list[BaseException] = []
    started_tasks: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []

    async def run_main() -> None:
        task = asyncio.current_task()
        assert task is not None
        started_tasks.append((asyncio.get_running_loop(), task))
        await main()

    def thread_main() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            try:
                asyncio.run(run_main())
            except Exception as error:  # noqa: BLE001  raised again in the thread of the test
                errors.append(error)

    ready_count = api.gateway.ready_count
    thread = threading.Thread(target=thread_main, name="bot", daemon=True)
    thread.start()
    try:
        api.wait(lambda: errors or api.gateway.ready_count > ready_count, 20)
        if not errors:
            yield
    finally:
        # `asyncio.wait_for` of Python 3.11 loses a cancellation that comes just as its work is done.
        for _ in range(6):
            if not (thread.is_alive() and started_tasks):
                break
            loop, task = started_tasks[0]
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)
            thread.join(5)
    if errors:
        raise errors[0]
