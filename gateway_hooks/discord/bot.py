"""Run a bot for logins only, with the fewest intents."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence

import aiohttp
import discord
from discord.ext import commands

from gateway_hooks.dialog.messages import ENGLISH, Messages
from gateway_hooks.dialog.policy import Policy
from gateway_hooks.dialog.servers import Servers
from gateway_hooks.discord import McpLogins, Options
from gateway_hooks.discord.api_url import use_api_url
from gateway_hooks.discord.proxies import make_connector, use_proxies
from gateway_hooks.discord.render import NO_MENTIONS
from gateway_hooks.log_redaction import redact_discord_logs
from hermes_mcp_auth_remote.cancellation import run_until_cancelled
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Secret

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 30.0
# Too many requests. The library waits by itself, unless the limit is that of a whole network address.
RATE_LIMITED_STATUS = 429
# https://docs.discord.com/developers/topics/opcodes-and-status-codes: the gateway rejects the token.
AUTHENTICATION_FAILED_CODE = 4004

log = logging.getLogger(__name__)


class LoginBot(commands.Bot):
    """A bot with the cog and no other commands."""

    def __init__(self, on_started: Callable[[str], None] | None = None) -> None:
        super().__init__(
            command_prefix=commands.when_mentioned,
            help_command=None,
            intents=discord.Intents(guilds=True, guild_messages=True, dm_messages=True),
            allowed_mentions=NO_MENTIONS,
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            max_messages=None,
            # The library waits this long for another guild. If none comes, it reports that the bot is ready.
            guild_ready_timeout=0.5,
        )
        self._on_started = on_started

    async def on_message(self, message: discord.Message, /) -> None:
        """Ignore the message: the cog handles it."""

    async def on_ready(self) -> None:
        """Call `on_started` with the bot's name, once."""
        on_started, self._on_started = self._on_started, None
        if on_started is not None and self.user is not None:
            on_started(str(self.user))


async def run_bot(
    token: Secret,
    service: AuthService,
    servers: Servers,
    policy: Policy,
    *,
    api_url: str | None = None,
    guild_ids: Sequence[int] = (),
    messages: Messages = ENGLISH,
    on_started: Callable[[str], None] | None = None,
) -> None:
    """Run the bot until cancelled. `api_url` is the base of another REST API, such as ".../api/v10".

    The guilds in `guild_ids` get the commands; if `guild_ids` is empty, all guilds get them. `on_started` is
    called with the bot's name. Raises ConfigError if Discord rejects the token.
    """
    redact_discord_logs()
    bot = LoginBot(on_started)
    use_proxies(bot, os.environ)
    if api_url is not None:
        use_api_url(bot, api_url)
    async with bot:
        options = Options(guild_ids=guild_ids, answers_all=True)
        await bot.add_cog(McpLogins(bot, service, servers, policy, messages, options))
        # If the library loses the cancellation, this work is cancelled again, but `bot.close` is not.
        await run_until_cancelled(_log_in_and_connect(bot, token))


async def _log_in_and_connect(bot: LoginBot, token: Secret) -> None:
    await _log_in(bot, token)
    # From here on the library reconnects by itself.
    try:
        await bot.connect()
    except discord.ConnectionClosed as error:
        if error.code != AUTHENTICATION_FAILED_CODE:
            raise
        # The operator has reset the token.
        raise _token_error() from None


def _token_error() -> ConfigError:
    return ConfigError("Discord rejected this bot's token.", "Copy it again from the bot's page at Discord.")


async def _log_in(bot: LoginBot, token: Secret) -> None:
    """Log in to Discord; retry while it is unreachable or limits the rate.

    Raises ConfigError for a wrong token.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        bot.http.connector = make_connector(os.environ) or discord.utils.MISSING
        try:
            await bot.login(token.reveal())
        except discord.LoginFailure:
            raise _token_error() from None
        except (OSError, aiohttp.ClientError, discord.HTTPException) as error:
            # A bot that ended at a rate limit would be started again at once, and never get out of it.
            is_limited = isinstance(error, discord.HTTPException) and error.status == RATE_LIMITED_STATUS
            if isinstance(error, discord.HTTPException) and not (
                is_limited or isinstance(error, discord.DiscordServerError)
            ):
                raise
            if pause == FIRST_PAUSE_SECONDS:
                reason = "limits the rate of logins" if is_limited else "cannot be reached"
                log.warning("Discord %s; retrying.", reason)
            # The library creates a new session for each try and leaves the old one open.
            await bot.http.close()
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)
        else:
            return
