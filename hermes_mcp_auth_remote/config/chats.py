"""Read `mcp_auth_chats` of config.yaml: who may log in from a chat, and who owns the tokens.

All keys are optional. A user who is not listed may do nothing. An unknown key is refused, because a
misspelt key could allow or exclude other users than the operator intends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hermes_mcp_auth_remote.config.configuration import Configuration, read_configuration
from hermes_mcp_auth_remote.config.section_reader import Section
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.platforms import PLATFORMS, ChatPlatform
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import Owner, OwnershipMode, Secret, owner_for

SECTION_NAME = "mcp_auth_chats"
WEBHOOK_KEYS = ("url", "listen", "port", "certificate", "key")

_OWNERSHIP_MODES: Mapping[str, OwnershipMode] = {"shared": "shared", "per_user": "per_user"}


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where Telegram sends updates: the public https `url`. The bot listens on `listen` and `port`.

    A reverse proxy must terminate TLS, unless `certificate` and `key` (PEM files) are given. Telegram gets
    the certificate, which may be self-signed. Telegram sends `secret` with each update. If `secret` is None,
    the bot creates a random one.
    """

    url: str
    listen: str = "127.0.0.1"
    port: int = 8443
    certificate: Path | None = None
    key: Path | None = None
    secret: Secret | None = None


@dataclass(frozen=True, slots=True)
class PlatformSettings:
    """Who may use the bot of one platform, and how. Ids are strings.

    `admins` may change shared connections; None means every allowed user. `allows_device` permits logins with
    a code for another device (RFC 8628). A platform reads only the keys in `ChatPlatform.setting_keys`; the
    others keep their default.
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
    """The operator's settings for logins from chats."""

    owners: OwnershipMode = "shared"
    platforms: Mapping[str, PlatformSettings] = field(default_factory=dict[str, PlatformSettings])
    # Administrators may connect servers that are not configured; None: if each user has their own tokens.
    connect_urls: bool | None = None

    def platform_settings(self, platform: str) -> PlatformSettings:
        """Return the settings of a platform by its name. A platform without settings allows no user."""
        return self.platforms.get(platform, PlatformSettings())

    def owner(self, platform: str, user_id: str) -> Owner:
        """Return the owner of the tokens from a login of this user, None for shared tokens."""
        return owner_for(self.owners, platform, user_id)

    @property
    def device_platforms(self) -> frozenset[str] | None:
        """The platforms on which logins with a code for another device are allowed; None: all."""
        disabled = [platform for platform in PLATFORMS if not self.platform_settings(platform).allows_device]
        return frozenset({"terminal", *PLATFORMS}.difference(disabled)) if disabled else None


@with_hidden_locals
def load_chat_settings(home: Path, environ: Mapping[str, str]) -> ChatSettings | None:
    """Read the section, None if there is none; raises ConfigError, which names the key."""
    return read_chat_settings(read_configuration(home, environ))


@with_hidden_locals
def read_chat_settings(configuration: Configuration) -> ChatSettings | None:
    """Return the settings of a configuration, None if it has no section; raises ConfigError."""
    value = configuration.section(SECTION_NAME)
    if value is None:
        return None
    section = Section(SECTION_NAME, value, configuration.variables)
    section.refuse_unknown_keys(("owners", "connect_urls", *PLATFORMS))
    return ChatSettings(
        section.choice("owners", _OWNERSHIP_MODES) or "shared",
        {
            name: _read_platform_settings(section.section(name), platform)
            for name, platform in PLATFORMS.items()
            if section.members.get(name) is not None
        },
        None if section.members.get("connect_urls") is None else section.boolean("connect_urls"),
    )


@with_hidden_locals
def read_bot_token(platform: ChatPlatform, home: Path, environ: Mapping[str, str]) -> Secret:
    """Return a bot's token from `.env` or the environment, as Hermes does; raises ConfigError."""
    name = platform.token_variable
    text = read_configuration(home, environ).variables.get(name, "").strip()
    if not text:
        raise ConfigError(
            f"There is no token for the {platform.title} bot.",
            f"Put {name}=... into {home / '.env'} or the environment, "
            f"or pass --{platform.name}-token-file PATH.",
        )
    return validate_bot_token(text, platform)


@with_hidden_locals
def validate_bot_token(text: str, platform: ChatPlatform) -> Secret:
    """Return a bot's token; raises ConfigError for characters that no token has.

    The token becomes part of a URL or a header.
    """
    if not (text.isascii() and text.isprintable()) or " " in text or "/" in text:
        raise ConfigError(
            f"The token of the {platform.title} bot contains invalid characters.",
            "Copy it again from the page where you created the bot, without other text on its line.",
        )
    return Secret(text)


def _read_platform_settings(section: Section, platform: ChatPlatform) -> PlatformSettings:
    section.refuse_unknown_keys(platform.setting_keys)
    return PlatformSettings(
        allow=section.ids("allow", platform) or frozenset(),
        # An empty list of admins differs from None: no user may change shared connections.
        admins=section.ids("admins", platform),
        roles=section.ids("roles", platform) or frozenset(),
        admin_roles=section.ids("admin_roles", platform) or frozenset(),
        guilds=section.ids("guilds", platform) or frozenset(),
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
    defaults, certificate, key = Webhook(url), section.path("certificate"), section.path("key")
    if (certificate is None) != (key is None):
        raise ConfigError(
            f"{section.key_path} needs both {section.key_path}.certificate and {section.key_path}.key, "
            "or neither."
        )
    listen = section.string("listen") or defaults.listen
    port = section.integer("port", 1, 65535) or defaults.port
    return Webhook(url, listen, port, Path(certificate) if certificate else None, Path(key) if key else None)
