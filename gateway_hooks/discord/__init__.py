"""Add MCP logins to a bot on discord.py with the cog `McpLogins` (`McpLogins.from_home` needs only user ids).

    logins = McpLogins(bot, service, ConfigServers(home), policy, options=Options(listens_to_messages=False))
    await bot.add_cog(logins)                                   # in `setup_hook`, or while the bot runs

    @bot.event
    async def on_message(message):
        if not await logins.handle_message(message) and bot.user in message.mentions:
            session = logins.session("notes", message.author)
            async with httpx.AsyncClient(auth=McpAuth(session)) as client:
                with logins.prompt_in(message.author, message.channel):
                    await message.reply(await answer(message.content, client))

This way the agent receives no message with a code. A bot without an agent omits the option: the cog then
listens to messages itself. If a bot also passes edited messages to its agent, it must call
`handle_message(payload.message)` in `on_raw_message_edit` in the same way.

If a call inside `prompt_in` needs a login, it waits for the login. The bot asks the user in a direct message.
If the user does not accept direct messages, the bot sends to the channel a button that works only for this
user. The cog adds /connect, /connections and /disconnect, with ephemeral replies. Buttons and forms contain
the id of a login, never a secret. Any process that runs the bot can handle them.

Intents: `guilds`, and also `dm_messages` and `guild_messages`, to refuse and delete answers in messages.
The cog does not need the message content intent. Without it, Discord delivers the content of a message in a
channel only if the message mentions the bot.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import discord
from discord.ext import commands

from gateway_hooks.dialog.cards import ACTION_PREFIX, decode_action, encode_action
from gateway_hooks.dialog.messages import ENGLISH, Messages
from gateway_hooks.dialog.platform import Chat, ChatError, IncomingEvent, Sender
from gateway_hooks.dialog.policy import AllowList, Policy, UserIds
from gateway_hooks.dialog.servers import Servers
from gateway_hooks.discord.chat import ChannelChat, DirectChat, DiscordPlatform, InteractionChat
from gateway_hooks.discord.errors import translate_errors
from gateway_hooks.discord.render import make_answer_modal, read_typed_answer
from gateway_hooks.discord.senders import sender_of
from gateway_hooks.discord.slash_commands import CommandCallbacks, Interaction, make_commands, sync_commands
from gateway_hooks.discord.texts import collect_texts
from gateway_hooks.log_redaction import redact_discord_logs
from gateway_hooks.runtime.config_servers import ConfigServers
from gateway_hooks.runtime.dispatcher import Dispatcher
from gateway_hooks.runtime.error_logging import log_errors
from gateway_hooks.runtime.message_sync import OnConnected
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.hermes_home import hermes_home
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import MAX_LOGIN_SECONDS, Clock, OwnershipMode

if TYPE_CHECKING:
    # The channel of a message or of an interaction. The library defines these types only for type checkers.
    DiscordChannel = discord.abc.MessageableChannel | discord.interactions.InteractionChannel

log = logging.getLogger(__name__)

DiscordUser = discord.User | discord.Member


@dataclass(frozen=True, slots=True)
class Options:
    """How the cog integrates with the bot.

    `command_prefix` precedes each command's name: "/", or for example "/mcp-". `adds_commands` adds the
    commands to the bot's tree, for the guilds in `guild_ids`, or globally if `guild_ids` is empty. With
    `syncs_commands`, the cog then registers new and changed commands with Discord. If `listens_to_messages`
    is False, the bot must pass plain messages to `handle_message`. With `answers_all`, the bot also answers
    direct messages that concern no login: set it for a bot with no other job.
    """

    command_prefix: str = "/"
    adds_commands: bool = True
    syncs_commands: bool = True
    guild_ids: Sequence[int] = ()
    listens_to_messages: bool = True
    answers_all: bool = False


class McpLogins(commands.Cog):
    """A cog that lets a bot's users log in to MCP servers."""

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
        redact_discord_logs()
        self.platform = DiscordPlatform(bot, policy, options.command_prefix, clock)
        self.dispatcher = Dispatcher(
            service,
            self.platform,
            servers,
            policy,
            messages,
            clock,
            on_connected,
            answers_all=options.answers_all,
        )
        self._bot = bot
        self._policy = policy
        self._messages = messages
        self._options = options
        # Without `adds_commands`, the prefix may contain a space. The name of a slash command may not.
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

    # For the bot that uses the cog.

    @classmethod
    def from_home(
        cls,
        bot: commands.Bot,
        users: UserIds = (),
        *,
        admins: UserIds | None = None,
        owners: OwnershipMode = "shared",
        connect_urls: bool | None = None,
        home: Path | None = None,
        options: Options = Options(),
    ) -> McpLogins:
        """Return the cog for these users, with the servers and the store of HERMES_HOME.

        `home` replaces HERMES_HOME. Raises ConfigError if there is no home directory.
        """
        directory = Path(hermes_home(os.environ)) if home is None else home
        policy = AllowList(users, admins, owners=owners, connect_urls=connect_urls)
        return cls(bot, AuthService(directory), ConfigServers(directory), policy, options=options)

    def session(self, server_name: str, user: DiscordUser) -> Session:
        """Return the session for calls on behalf of a user; raises ServerNotFound, ConfigError."""
        return self.dispatcher.session(server_name, str(user.id))

    def prompt_in(
        self,
        user: DiscordUser,
        channel: DiscordChannel | None = None,
        wait_seconds: float = MAX_LOGIN_SECONDS,
    ) -> AbstractContextManager[None]:
        """If a call inside the block needs a login, prompt this user in private.

        `channel` is the channel of the user's request. In a slash command or a button of the bot's own, pass
        `interaction.user` and `interaction.channel`. If the policy uses roles, pass a `Member`, because a
        `User` has no roles. A call waits `wait_seconds` for the login, then raises AuthorizationRequired.
        """
        sender = sender_of(user) if isinstance(user, discord.Member) else Sender(str(user.id))
        chat = None if channel is None else self.chat_for(channel, user)
        return self.dispatcher.prompt_in(sender, chat, wait_seconds)

    def chat_for(self, channel: DiscordChannel, user: DiscordUser) -> Chat:
        """Return the chat with a user in a channel; private only if it is known to be a direct chat."""
        is_direct = isinstance(channel, discord.DMChannel) or (
            isinstance(channel, discord.PartialMessageable) and channel.guild_id is None
        )
        if is_direct:
            return DirectChat(self.platform, str(user.id))
        return ChannelChat(self.platform, channel.id, str(user.id))

    @property
    def _application_id(self) -> int:
        """The webhook id of the bot's responses to interactions; 0 before the bot has logged in."""
        return self._bot.application_id or 0

    def chat_without_user(self, message: discord.Message) -> Chat:
        """Return the chat of a message that no user wrote."""
        return ChannelChat(self.platform, message.channel.id, "")

    async def handle_message(self, message: discord.Message) -> bool:
        """Handle a new or edited message; return False if it belongs to the bot.

        This method does not wait for servers. It also returns True for another bot's message with a code, and
        for a message that it cannot search for codes: no other program may receive them.
        """
        with log_errors("A message was not read", log):
            return await self._claim_message(message)
        return True

    async def _claim_message(self, message: discord.Message) -> bool:
        if str(message.author.id) == self.platform.bot_id or message.webhook_id == self._application_id:
            return False
        texts = collect_texts(message, self.platform.bot_id)
        if not (texts.text or texts.extra_texts or texts.quoted_text):
            return False
        # A message of another bot is only searched for codes.
        is_person = not message.author.bot
        sender = await self._find_sender(message.author) if is_person else Sender("")
        chat = (
            self.chat_for(message.channel, message.author) if is_person else self.chat_without_user(message)
        )
        event = IncomingEvent(
            sender,
            text=texts.text if is_person else "",
            message_id=str(message.id),
            quoted_text=texts.quoted_text,
            extra_texts=texts.extra_texts if is_person else (texts.text, *texts.extra_texts),
            quoted_message_id=texts.quoted_message_id,
        )
        work = await self.dispatcher.plan(event, chat)
        if work is None:
            return False

        async def run_work() -> None:
            await work()

        self._track_task(asyncio.create_task(run_work()))
        return True

    # Called by discord.py.

    async def cog_load(self) -> None:
        """Add the commands to the tree, and start the dispatcher once the bot is ready."""
        redact_discord_logs()
        if self._options.adds_commands:
            guilds = [discord.Object(guild) for guild in self._options.guild_ids]
            for command in self._commands:
                try:
                    if guilds:
                        self._bot.tree.add_command(command, guilds=guilds)
                    else:
                        self._bot.tree.add_command(command)
                except discord.app_commands.CommandAlreadyRegistered:
                    raise ValueError(
                        f"This bot has a command /{command.name} itself. "
                        'Pass Options(command_prefix="/mcp-") to McpLogins.'
                    ) from None
        self._track_task(asyncio.create_task(self._run()))

    async def cog_unload(self) -> None:
        """Remove the commands from the tree and stop all tasks."""
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
        """Handle a pressed button or a submitted form, even if another process sent the button or form."""
        with log_errors("An interaction was not handled", log):
            await self._handle_interaction(interaction)

    async def _handle_interaction(self, interaction: Interaction) -> None:
        data = cast("Mapping[str, object]", interaction.data or {})
        custom_id = str(data.get("custom_id", ""))
        action = decode_action(custom_id) if custom_id.startswith(ACTION_PREFIX) else None
        if action is None:
            return
        # Do not show the reply in a message that others can see.
        message = interaction.message
        is_private = message is not None and (message.flags.ephemeral or interaction.context.dm_channel)
        message_id = str(message.id) if message is not None and is_private else ""
        event = IncomingEvent(Sender(""), callback_data=custom_id, pressed_message_id=message_id)
        if interaction.type is discord.InteractionType.component:
            if action[0] == "form" and await self.dispatcher.takes_answer(action[1]):
                await self._open_form(interaction, action[1])
                return
            await self._dispatch_interaction(interaction, event)
        elif interaction.type is discord.InteractionType.modal_submit:
            await self._dispatch_interaction(
                interaction, replace(event, text=read_typed_answer(data.get("components")))
            )

    @commands.Cog.listener()
    async def on_message(self, message: discord.Message) -> None:
        """If `listens_to_messages` is set, handle a message."""
        if self._options.listens_to_messages:
            await self.handle_message(message)

    @commands.Cog.listener()
    async def on_raw_message_edit(self, payload: discord.RawMessageUpdateEvent) -> None:
        """If `listens_to_messages` is set, handle an edited message, also one that is not in the cache."""
        if self._options.listens_to_messages:
            await self.handle_message(payload.message)

    async def _open_form(self, interaction: Interaction, login_id: str) -> None:
        try:
            with translate_errors():
                await interaction.response.send_modal(
                    make_answer_modal(encode_action("form", login_id), self._messages)
                )
        except ChatError as error:
            log.warning("A form could not be opened: %s", error)

    async def _handle_command(self, interaction: Interaction, command: str, text: str) -> None:
        event = IncomingEvent(Sender(""), command=command, text=text)
        # The text may be secret: do not keep it in this frame while the command runs.
        del text
        with log_errors("A command was not handled", log):
            await self._dispatch_interaction(interaction, event)

    async def _dispatch_interaction(self, interaction: Interaction, event: IncomingEvent) -> None:
        """Acknowledge an interaction, then handle it: the work may wait for servers."""
        chat = InteractionChat(self.platform, interaction, self._messages.please_wait)
        if (task := asyncio.current_task()) is not None:
            self._track_task(task)
        try:
            await chat.acknowledge()
            sender = await self._find_sender(interaction.user)
            await self.dispatcher.handle(replace(event, sender=sender), chat)
            await chat.close()
        except ChatError as error:
            log.warning("An interaction could not be answered: %s", error)

    def _track_task(self, task: asyncio.Task[Any]) -> None:
        """Cancel this task when the cog is removed."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _server_names(self, interaction: Interaction) -> list[str]:
        sender = await self._find_sender(interaction.user)
        if not self._policy.may_talk(sender):
            return []
        try:
            return await run_file_work(self.dispatcher.server_names, sender.user_id)
        except McpAuthError:
            return []

    async def _find_sender(self, user: DiscordUser) -> Sender:
        try:
            return await self.platform.senders.sender_for(user)
        except ChatError as error:
            log.warning("The roles of user %s could not be fetched: %s", user.id, error)
            return Sender(str(user.id))

    async def _run(self) -> None:
        await self._bot.wait_until_ready()
        try:
            if self._options.adds_commands and self._options.syncs_commands:
                await self._sync_commands()
            await self.dispatcher.run()
        except Exception:
            log.exception("The messages of logins on Discord are no longer updated.")
            raise

    async def _sync_commands(self) -> None:
        try:
            changed_count = await sync_commands(self._bot, self._commands, self._options.guild_ids)
        except ChatError as error:
            log.warning("The commands could not be compared with Discord's: %s", error)
        else:
            log.info("%d new or changed commands were registered with Discord.", changed_count)
