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
from hermes_mcp_auth_remote.traceback_redaction import hides_locals
from hermes_mcp_auth_remote.values import Owner, Secret

Owners = Literal["shared", "per_user"]

SECTION = "mcp_auth_chats"
# What may stand in the section, in each platform's, and in Telegram's webhook.
KEYS = ("owners", "telegram", "discord")
TELEGRAM_KEYS = ("allow", "admins", "device", "webhook")
DISCORD_KEYS = ("allow", "admins", "roles", "admin_roles", "guilds", "device")
WEBHOOK_KEYS = ("url", "listen", "port", "certificate", "key")

# Where a login is asked for; a platform beyond these has no word in this section.
PLATFORMS = ("telegram", "discord")
_OWNERS: Mapping[str, Owners] = {"shared": "shared", "per_user": "per_user"}
# As Hermes calls them.
TOKENS = {"telegram": "TELEGRAM_BOT_TOKEN", "discord": "DISCORD_BOT_TOKEN"}


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
class People:
    """Who may talk to the bot of one platform, and how. Ids are text.

    `admins` change what is shared; None: everybody who may talk. `device`: logins may go by a code for
    another device. Roles and guilds are Discord's, `webhook` is Telegram's.
    """

    allow: frozenset[str] = frozenset()
    admins: frozenset[str] | None = None
    roles: frozenset[str] = frozenset()
    admin_roles: frozenset[str] = frozenset()
    guilds: frozenset[str] = frozenset()
    device: bool = True
    webhook: Webhook | None = None


@dataclass(frozen=True, slots=True)
class Chats:
    """What the operator has decided about chats."""

    owners: Owners = "shared"
    telegram: People = People()
    discord: People = People()

    def people(self, platform: str) -> People:
        """Return who may talk on a platform."""
        return self.telegram if platform == "telegram" else self.discord

    def owner(self, platform: str, user: str) -> Owner:
        """Return whose tokens a login of this user becomes; None for those that all share."""
        return f"{platform}:{user}" if self.owners == "per_user" else None

    @property
    def device_platforms(self) -> frozenset[str] | None:
        """Where logins may go by a code for another device; None: everywhere."""
        off = [platform for platform in PLATFORMS if not self.people(platform).device]
        return frozenset({"terminal", *PLATFORMS}.difference(off)) if off else None


@hides_locals
def load_chats(home: Path, environ: Mapping[str, str]) -> Chats | None:
    """Read the section, None where there is none; raises ConfigError, which names the key."""
    path = home / "config.yaml"
    found = read_section(path, SECTION)
    if found is None:
        return None
    at = Section(SECTION, found, read_variables(home / ".env", environ))
    at.refuse_others(KEYS)
    return Chats(
        at.one_of("owners", _OWNERS) or "shared",
        _people(at.section("telegram"), TELEGRAM_KEYS),
        _people(at.section("discord"), DISCORD_KEYS),
    )


@hides_locals
def bot_token(platform: str, home: Path, environ: Mapping[str, str]) -> Secret:
    """Return a bot's token from `.env` or the environment, as Hermes has it; raises ConfigError."""
    name = TOKENS[platform]
    text = read_variables(home / ".env", environ).get(name, "").strip()
    if not text:
        raise ConfigError(
            f"There is no token for the {platform.title()} bot.",
            f"Put {name}=... into {home / '.env'} or the environment, or pass --{platform}-token-file PATH.",
        )
    return checked_token(text, platform)


@hides_locals
def checked_token(text: str, platform: str) -> Secret:
    """Refuse what can be no bot's token, before it ends in an address or a header."""
    if not (text.isascii() and text.isprintable()) or " " in text or "/" in text:
        raise ConfigError(
            f"The token of the {platform.title()} bot holds what no token does.",
            "Copy it once more from where the bot was made, alone on its line.",
        )
    return Secret(text)


def _people(at: Section, keys: tuple[str, ...]) -> People:
    at.refuse_others(keys)
    # An empty list of administrators is a list: nobody changes what is shared.
    admins = at.ids("admins")
    return People(
        allow=at.ids("allow") or frozenset(),
        admins=admins,
        roles=at.ids("roles") or frozenset(),
        admin_roles=at.ids("admin_roles") or frozenset(),
        guilds=at.ids("guilds") or frozenset(),
        device=at.members.get("device") is None or at.flag("device"),
        webhook=_webhook(at.section("webhook")),
    )


def _webhook(at: Section) -> Webhook | None:
    at.refuse_others(WEBHOOK_KEYS)
    url = at.url("url")
    if url is None:
        if at.members:
            raise ConfigError(f"{at.where} needs {at.where}.url, the https address that Telegram calls.")
        return None
    usual, certificate, key = Webhook(url), at.path("certificate"), at.path("key")
    if (certificate is None) != (key is None):
        raise ConfigError(f"{at.where} needs both {at.where}.certificate and {at.where}.key, or neither.")
    listen, port = at.text("listen") or usual.listen, at.whole("port", 1, 65535) or usual.port
    return Webhook(url, listen, port, certificate, key)
