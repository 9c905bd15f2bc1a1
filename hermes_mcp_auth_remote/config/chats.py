"""config.yaml's `mcp_auth_chats` -> who may log in from a chat, and whose the tokens then are.

Everything is optional, and nobody may do anything unless listed. A key that is not known is refused: one that
was misspelt would otherwise let in, or shut out, somebody else than the operator thinks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hermes_mcp_auth_remote.config.files import read_section, read_variables
from hermes_mcp_auth_remote.config.section import Section
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import Owner, Secret

OwnershipMode = Literal["shared", "per_user"]

SECTION_NAME = "mcp_auth_chats"
# What may stand in the section, in each platform's, and in Telegram's webhook.
SECTION_KEYS = ("owners", "telegram", "discord")
TELEGRAM_KEYS = ("allow", "admins", "device", "webhook")
DISCORD_KEYS = ("allow", "admins", "roles", "admin_roles", "guilds", "device")
WEBHOOK_KEYS = ("url", "listen", "port", "certificate", "key")

# Where a login is asked for; a platform beyond these has no word in this section.
PLATFORMS = ("telegram", "discord")
_OWNERSHIP_MODES: Mapping[str, OwnershipMode] = {"shared": "shared", "per_user": "per_user"}
# As Hermes calls them.
TOKEN_VARIABLES = {"telegram": "TELEGRAM_BOT_TOKEN", "discord": "DISCORD_BOT_TOKEN"}


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where Telegram brings its updates: to `url`, behind which we listen on an address and a port.

    What stands before us ends TLS, unless `certificate` and `key` (PEM files) are given.
    """

    url: str
    listen: str = "127.0.0.1"
    port: int = 8443
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class PlatformSettings:
    """Who may talk to the bot of one platform, and how. Ids are text.

    `admins` change what is shared; None: everybody who may talk. `device`: logins may go by a code for
    another device. Roles and guilds are Discord's, `webhook` is Telegram's.
    """

    allow: frozenset[str] = frozenset()
    admins: frozenset[str] | None = None
    roles: frozenset[str] = frozenset()
    admin_roles: frozenset[str] = frozenset()
    guilds: frozenset[str] = frozenset()
    allows_device: bool = True
    webhook: Webhook | None = None


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """What the operator has decided about chats."""

    owners: OwnershipMode = "shared"
    telegram: PlatformSettings = PlatformSettings()
    discord: PlatformSettings = PlatformSettings()

    def platform_settings(self, platform: str) -> PlatformSettings:
        """Return who may talk on a platform."""
        return self.telegram if platform == "telegram" else self.discord

    def owner(self, platform: str, user_id: str) -> Owner:
        """Return whose tokens a login of this user becomes; None for those that all share."""
        return f"{platform}:{user_id}" if self.owners == "per_user" else None

    @property
    def device_platforms(self) -> frozenset[str] | None:
        """Where logins may go by a code for another device; None: everywhere."""
        off = [platform for platform in PLATFORMS if not self.platform_settings(platform).allows_device]
        return frozenset({"terminal", *PLATFORMS}.difference(off)) if off else None


@with_hidden_locals
def load_chat_settings(home: Path, environ: Mapping[str, str]) -> ChatSettings | None:
    """Read the section, None where there is none; raises ConfigError, which names the key."""
    path = home / "config.yaml"
    found = read_section(path, SECTION_NAME)
    if found is None:
        return None
    at = Section(SECTION_NAME, found, read_variables(home / ".env", environ))
    at.refuse_unknown_keys(SECTION_KEYS)
    return ChatSettings(
        at.choice("owners", _OWNERSHIP_MODES) or "shared",
        _read_platform_settings(at.section("telegram"), TELEGRAM_KEYS),
        _read_platform_settings(at.section("discord"), DISCORD_KEYS),
    )


@with_hidden_locals
def read_bot_token(platform: str, home: Path, environ: Mapping[str, str]) -> Secret:
    """Return a bot's token from `.env` or the environment, as Hermes has it; raises ConfigError."""
    name = TOKEN_VARIABLES[platform]
    text = read_variables(home / ".env", environ).get(name, "").strip()
    if not text:
        raise ConfigError(
            f"There is no token for the {platform.title()} bot.",
            f"Put {name}=... into {home / '.env'} or the environment, or pass --{platform}-token-file PATH.",
        )
    return validate_bot_token(text, platform)


@with_hidden_locals
def validate_bot_token(text: str, platform: str) -> Secret:
    """Refuse what can be no bot's token, before it ends in an address or a header."""
    if not (text.isascii() and text.isprintable()) or " " in text or "/" in text:
        raise ConfigError(
            f"The token of the {platform.title()} bot holds what no token does.",
            "Copy it once more from where the bot was made, alone on its line.",
        )
    return Secret(text)


def _read_platform_settings(section: Section, known_keys: tuple[str, ...]) -> PlatformSettings:
    section.refuse_unknown_keys(known_keys)
    # An empty list of administrators is a list: nobody changes what is shared.
    admins = section.ids("admins")
    return PlatformSettings(
        allow=section.ids("allow") or frozenset(),
        admins=admins,
        roles=section.ids("roles") or frozenset(),
        admin_roles=section.ids("admin_roles") or frozenset(),
        guilds=section.ids("guilds") or frozenset(),
        allows_device=section.members.get("device") is None or section.boolean("device"),
        webhook=_read_webhook(section.section("webhook")),
    )


def _read_webhook(section: Section) -> Webhook | None:
    section.refuse_unknown_keys(WEBHOOK_KEYS)
    url = section.url("url")
    if url is None:
        if section.members:
            raise ConfigError(
                f"{section.key_path} needs {section.key_path}.url, the https address that Telegram calls."
            )
        return None
    usual, certificate, key = Webhook(url), section.path("certificate"), section.path("key")
    if (certificate is None) != (key is None):
        raise ConfigError(
            f"{section.key_path} needs both {section.key_path}.certificate and {section.key_path}.key, "
            "or neither."
        )
    listen, port = section.string("listen") or usual.listen, section.integer("port", 1, 65535) or usual.port
    return Webhook(url, listen, port, certificate, key)
