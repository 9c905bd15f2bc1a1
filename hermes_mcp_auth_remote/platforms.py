"""The chat platforms, one row each. The configuration, the command line and the adapters read this table.

docs/architecture.md lists what else a new platform needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

# A new key also needs a field of `config.chats.PlatformSettings`, and a line that reads it.
SettingKey = Literal["allow", "admins", "roles", "admin_roles", "guilds", "device", "webhook"]


class ChatPlatform(NamedTuple):
    """What the rest of the program must know about a platform before it loads the platform's library.

    `id_pattern` matches a whole user id (also one of a role or a guild); `id_rule` describes it, as in "ids,
    which are numbers". No id contains a blank or a comma: they separate ids. `setting_keys` are the keys of
    `mcp_auth_chats.<name>`. `extra` is the extra of this package that installs `libraries`, named as they are
    imported. `package` has a module `bot` with the coroutine `run_bot`. `first_step` says how a user who is
    not allowed yet gets the bot to respond. `pairing_link` opens the chat with the bot `{bot}` and sends it
    `{code}` in a start command; empty if the platform has no such links. `command_prefix` precedes the names
    of the commands of the bot that `serve` runs; its adapter uses the same (`Capabilities.command_prefix`).
    """

    name: str
    title: str
    id_pattern: str
    id_rule: str
    token_variable: str
    setting_keys: tuple[SettingKey, ...]
    extra: str
    libraries: tuple[str, ...]
    package: str
    first_step: str
    pairing_link: str = ""
    command_prefix: str = "/"

    def accepts_id(self, user_id: str) -> bool:
        """Return True if a text can be the id of a user, role or guild of this platform."""
        return re.fullmatch(self.id_pattern, user_id) is not None


_SNOWFLAKE = "[0-9]{1,20}"

TELEGRAM = ChatPlatform(
    name="telegram",
    title="Telegram",
    id_pattern=_SNOWFLAKE,
    id_rule="numbers",
    # Hermes defines the names of the variables.
    token_variable="TELEGRAM_BOT_TOKEN",  # noqa: S106  a variable's name
    setting_keys=("allow", "admins", "device", "webhook"),
    extra="telegram",
    libraries=("telegram",),
    package="gateway_hooks.telegram",
    first_step="Write /start to it",
    pairing_link="https://t.me/{bot}?start=pair_{code}",
)
DISCORD = ChatPlatform(
    name="discord",
    title="Discord",
    id_pattern=_SNOWFLAKE,
    id_rule="numbers",
    token_variable="DISCORD_BOT_TOKEN",  # noqa: S106  a variable's name
    setting_keys=("allow", "admins", "roles", "admin_roles", "guilds", "device"),
    extra="discord",
    libraries=("discord",),
    package="gateway_hooks.discord",
    first_step="Use its command /connections",
)
PLATFORMS = {platform.name: platform for platform in (TELEGRAM, DISCORD)}


def id_examples() -> str:
    """Return how a user of each platform is named on the command line: "telegram:ID or discord:ID"."""
    return join_alternatives(f"{name}:ID" for name in PLATFORMS)


def join_alternatives(texts: Iterable[str]) -> str:
    """Join texts as in "a, b or c"."""
    *others, last = texts
    return f"{', '.join(others)} or {last}" if others else last
