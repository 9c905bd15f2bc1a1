"""Logging in from Discord: a cog for any bot on discord.py.

    logins = McpLogins(bot, service, Configured(home), policy, options=Options(hears_messages=False))
    await bot.add_cog(logins)                                   # in `setup_hook`, or while the bot runs

    @bot.event
    async def on_message(message):
        if not await logins.hear_message(message) and bot.user in message.mentions:
            session = logins.session("notes", message.author)
            async with httpx.AsyncClient(auth=McpAuth(session)) as client:
                with logins.asking(message.author, message.channel):
                    await message.reply(await answer(message.content, client))

So an agent sees no message with a code in it. A bot without one leaves the option out: the cog then listens
by itself. A bot that hands edited messages to others asks in the same way in `on_raw_message_edit`, with
`hear_message(payload.message)`.

A call inside `asking` that needs a login waits for it: that person is asked in a direct message, or, where
those are closed, by a button in the channel that only works for them. The cog adds /connect, /connections
and /disconnect; everything they say is ephemeral. Buttons and windows carry the id of a login, never a
secret, and are answered by whichever process runs the bot when they come.

Intents: `guilds`, and `dm_messages` and `guild_messages` for answers that are written as messages, which are
refused and deleted. Of messages in channels Discord shows only those that mention the bot, unless the bot has
the message content intent for other reasons; nothing here needs it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, cast

import discord
from discord.ext import commands

from gateway_hooks.dialog.cards import ACTION_PREFIX, decode_action, encode_action
from gateway_hooks.dialog.messages import ENGLISH, Messages
from gateway_hooks.dialog.platform import Chat, ChatError, IncomingEvent, Sender
from gateway_hooks.dialog.policy import Policy
from gateway_hooks.dialog.servers import Servers
from gateway_hooks.discord.chat import ChannelChat, DirectChat, DiscordPlatform, InteractionChat
from gateway_hooks.discord.errors import translate_errors
from gateway_hooks.discord.people import sender_of
from gateway_hooks.discord.render import make_answer_modal, read_typed_answer
from gateway_hooks.discord.slash_commands import CommandCallbacks, Interaction, make_commands, sync_commands
from gateway_hooks.discord.texts import collect_texts
from gateway_hooks.log_redaction import redact_discord_logs
from gateway_hooks.runtime.dispatcher import Dispatcher
from gateway_hooks.runtime.error_logging import log_errors
from gateway_hooks.runtime.message_sync import OnConnected
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import MAX_LOGIN_SECONDS, Clock

log = logging.getLogger(__name__)

DiscordUser = discord.User | discord.Member


@dataclass(frozen=True, slots=True)
class Options:
    """How the cog lives with the bot around it.

    `commands` is what stands before a command's name, "/" or such as "/mcp-". `adds_commands` puts them into
    the bot's tree, for the `guilds` of these ids, or globally; `syncs` then tells Discord of those that it
    does not have. `hears_messages` listens to plain messages; without, the bot passes them to `hear_message`.
    """

    command_prefix: str = "/"
    adds_commands: bool = True
    syncs_commands: bool = True
    guild_ids: Sequence[int] = ()
    listens_to_messages: bool = True


class McpLogins(commands.Cog):
    """Lets a bot's people log in to MCP servers."""

    def __init__(
        self,
        bot: commands.Bot,
        service: AuthService,
        servers: Servers,
        policy: Policy,
        messages: Messages = ENGLISH,
        options: Options = Options(),
        clock: Clock = time.time,
        on_connected: OnConnected | None = None,
    ) -> None:
        self.platform = DiscordPlatform(bot, policy, options.command_prefix, clock)
        self.dispatcher = Dispatcher(service, self.platform, servers, policy, messages, clock, on_connected)
        self._bot = bot
        self._servers = servers
        self._policy = policy
        self._messages = messages
        self._options = options
        # A bot that brings a command of its own may have a blank before ours, which no command's name has.
        self._commands = (
            make_commands(
                CommandCallbacks(self._handle_command, self._server_names),
                messages,
                options.command_prefix.removeprefix("/"),
                in_guilds=bool(options.guild_ids),
            )
            if options.adds_commands
            else []
        )
        self._tasks: set[asyncio.Task[Any]] = set()

    # For the bot around it.

    def session(self, server_name: str, user: DiscordUser) -> Session:
        """Return the session for calls on behalf of a user; raises ServerNotFound, ConfigError."""
        return self.dispatcher.session(server_name, str(user.id))

    def prompt_in(
        self,
        user: DiscordUser,
        channel: discord.abc.MessageableChannel | None = None,
        wait_seconds: float = MAX_LOGIN_SECONDS,
    ) -> AbstractContextManager[None]:
        """Let calls inside the block ask this user where a login is needed, in private.

        `channel` is where they asked for the work. A member's roles count, where there is a policy by roles;
        a user without a guild has none. A call raises AuthorizationRequired after so many seconds.
        """
        sender = sender_of(user) if isinstance(user, discord.Member) else Sender(str(user.id))
        chat = None if channel is None else self.chat_for(channel, user)
        return self.dispatcher.prompt_in(sender, chat, wait_seconds)

    def chat_for(self, channel: discord.abc.MessageableChannel, user: DiscordUser) -> Chat:
        """Return the place where a user speaks; one that is not known to be a direct chat is none."""
        is_direct = isinstance(channel, discord.DMChannel) or (
            isinstance(channel, discord.PartialMessageable) and channel.guild_id is None
        )
        if is_direct:
            return DirectChat(self.platform, str(user.id))
        return ChannelChat(self.platform, channel.id, str(user.id))

    @property
    def _application_id(self) -> int:
        """What the bot's answers to interactions name as their webhook; 0 before it has logged in."""
        return self._bot.application_id or 0

    def chat_without_user(self, message: discord.Message) -> Chat:
        """Return the place in which something stands that no person wrote."""
        return ChannelChat(self.platform, message.channel.id, "")

    async def handle_message(self, message: discord.Message) -> bool:
        """Take a plain message, written or edited; False if it is not ours, and may go on to others.

        Waits for no server. A message of another bot is ours only if it carries a code. So is one that
        cannot be searched for a code: that goes to nobody.
        """
        with log_errors("A message was not read", log):
            return await self._claim_message(message)
        return True

    async def _claim_message(self, message: discord.Message) -> bool:
        if str(message.author.id) == self.platform.bot_id or message.webhook_id == self._application_id:
            return False
        found = collect_texts(message, self.platform.bot_id)
        if not (found.text or found.extra_texts or found.quoted_text):
            return False
        # Of another bot's message only a code matters.
        is_person = not message.author.bot
        sender = await self._find_sender(message.author) if is_person else Sender("")
        chat = (
            self.chat_for(message.channel, message.author) if is_person else self.chat_without_user(message)
        )
        heard = IncomingEvent(
            sender,
            text=found.text if is_person else "",
            message_id=str(message.id),
            quoted_text=found.quoted_text,
            extra_texts=found.extra_texts if is_person else (found.text, *found.extra_texts),
            quoted_message_id=found.quoted_message_id,
        )
        work = await self.dispatcher.plan(heard, chat)
        if work is None:
            return False

        async def run_work() -> None:
            await work()

        self._track_task(asyncio.create_task(run_work()))
        return True

    # What the library calls.

    async def cog_load(self) -> None:
        """Add the commands to the tree, and begin to keep messages up to date once the bot is there."""
        redact_discord_logs()
        if self._options.adds_commands:
            guilds = [discord.Object(guild) for guild in self._options.guild_ids]
            for command in self._commands:
                if guilds:
                    self._bot.tree.add_command(command, guilds=guilds)
                else:
                    self._bot.tree.add_command(command)
        self._track_task(asyncio.create_task(self._run()))

    async def cog_unload(self) -> None:
        """Take the commands from the tree again, and stop."""
        if self._options.adds_commands:
            for command in self._commands:
                for guild in self._options.guild_ids:
                    self._bot.tree.remove_command(command.name, guild=discord.Object(guild))
                if not self._options.guild_ids:
                    self._bot.tree.remove_command(command.name)
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @commands.Cog.listener()
    async def on_interaction(self, interaction: Interaction) -> None:
        """Take what was pressed or sent off, in whichever process it was drawn."""
        with log_errors("An interaction was not dealt with", log):
            await self._handle_interaction(interaction)

    async def _handle_interaction(self, interaction: Interaction) -> None:
        data = cast("Mapping[str, object]", interaction.data or {})
        pressed = str(data.get("custom_id", ""))
        found = decode_action(pressed) if pressed.startswith(ACTION_PREFIX) else None
        if found is None:
            return
        heard = IncomingEvent(Sender(""), callback_data=pressed)
        if interaction.type is discord.InteractionType.component:
            if found[0] == "form":
                await self._open_form(interaction, found[1])
                return
            # The answer to a button that others see is not written where they see it.
            shown_on = interaction.message
            is_private = shown_on is not None and (shown_on.flags.ephemeral or interaction.context.dm_channel)
            on = str(shown_on.id) if shown_on is not None and is_private else ""
            await self._dispatch_interaction(interaction, replace(heard, pressed_message_id=on))
        elif interaction.type is discord.InteractionType.modal_submit:
            await self._dispatch_interaction(
                interaction, replace(heard, text=read_typed_answer(data.get("components")))
            )

    @commands.Cog.listener()
    async def on_message(self, message: discord.Message) -> None:
        """Take a message, unless the bot passes them on itself."""
        if self._options.listens_to_messages:
            await self.handle_message(message)

    @commands.Cog.listener()
    async def on_raw_message_edit(self, payload: discord.RawMessageUpdateEvent) -> None:
        """Take an edited message, unless the bot passes them on itself; the library need not know it."""
        if self._options.listens_to_messages:
            await self.handle_message(payload.message)

    async def _open_form(self, interaction: Interaction, login_id: str) -> None:
        try:
            with translate_errors():
                await interaction.response.send_modal(
                    make_answer_modal(encode_action("form", login_id), self._messages)
                )
        except ChatError as trouble:
            log.warning("A window could not be opened: %s", trouble)

    async def _handle_command(self, interaction: Interaction, command: str, text: str) -> None:
        heard = IncomingEvent(Sender(""), command=command, text=text)
        # Not for as long as the answer takes.
        del text
        with log_errors("A command was not dealt with", log):
            await self._dispatch_interaction(interaction, heard)

    async def _dispatch_interaction(self, interaction: Interaction, event: IncomingEvent) -> None:
        """Acknowledge first, whatever it will be: what follows may take as long as servers do."""
        chat = InteractionChat(self.platform, interaction, self._messages.working)
        if (task := asyncio.current_task()) is not None:
            self._track_task(task)
        try:
            await chat.acknowledge()
            sender = await self._find_sender(interaction.user)
            await self.dispatcher.handle(replace(event, sender=sender), chat)
            await chat.close()
        except ChatError as trouble:
            log.warning("An interaction could not be answered: %s", trouble)

    def _track_task(self, task: asyncio.Task[Any]) -> None:
        """Let a task end where the cog is taken away."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _server_names(self, interaction: Interaction) -> list[str]:
        if not self._policy.may_talk(await self._find_sender(interaction.user)):
            return []
        try:
            return await run_file_work(self._servers.names)
        except McpAuthError:
            return []

    async def _find_sender(self, user: DiscordUser) -> Sender:
        try:
            return await self.platform.senders.sender_for(user)
        except ChatError as trouble:
            log.warning("The roles of user %s could not be asked for: %s", user.id, trouble)
            return Sender(str(user.id))

    async def _run(self) -> None:
        await self._bot.wait_until_ready()
        try:
            if self._options.adds_commands and self._options.syncs_commands:
                await self._sync_commands()
            await self.dispatcher.run()
        except Exception:
            log.exception("The logins shown on Discord are not kept up to date any more.")
            raise

    async def _sync_commands(self) -> None:
        try:
            written = await sync_commands(self._bot, self._commands, self._options.guild_ids)
        except ChatError as trouble:
            log.warning("The commands could not be compared with Discord's: %s", trouble)
        else:
            log.info("Discord was told of %d commands that were new or had changed.", written)
