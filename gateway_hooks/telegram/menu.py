"""Add this package's commands to the bot's command menu."""

from __future__ import annotations

import logging

from telegram import Bot, BotCommand
from telegram.error import TelegramError

from gateway_hooks.dialog.messages import Messages

log = logging.getLogger(__name__)


async def add_menu_commands(bot: Bot, messages: Messages, command_prefix: str = "/") -> None:
    """Add the commands to the menu, after those of the application. Never raises a TelegramError.

    Change the menu only if the commands are missing there: Telegram limits the rate of such calls.
    """
    prefix = command_prefix.removeprefix("/")
    own = [
        BotCommand(f"{prefix}connect", messages.connect_description),
        BotCommand(f"{prefix}connections", messages.connections_description),
        BotCommand(f"{prefix}disconnect", messages.disconnect_description),
    ]
    own_names = {command.command for command in own}
    try:
        menu = list(await bot.get_my_commands())
        wanted = [*(command for command in menu if command.command not in own_names), *own]
        if menu != wanted:
            await bot.set_my_commands(wanted)
    except TelegramError as error:
        log.warning("The command menu could not be set: %s.", type(error).__name__)
