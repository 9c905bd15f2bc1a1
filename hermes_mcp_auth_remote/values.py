"""Values that every package uses: Secret, Server, CredentialKey, Origin. No I/O and no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Literal, NoReturn


@dataclass(frozen=True, slots=True)
class BootTime:
    """A time in seconds since the system started. Two times are comparable if their boot id is the same."""

    boot_id: str
    seconds: float


BootClock = Callable[[], BootTime | None]
"""Returns the time since the system started, None if the system does not know it."""

Clock = Callable[[], float]
"""Returns the time in epoch seconds. Callers pass it in, so that tests can set the time."""

Entropy = Callable[[int], str]
"""Takes a number of random bytes and returns them as URL-safe text (`secrets.token_urlsafe`)."""

Owner = str | None
"""The owner of tokens: None for the operator's shared tokens, or a chat user such as "telegram:42"."""

OwnershipMode = Literal["shared", "per_user"]
"""Whether all users of a bot share its tokens, or each user logs in for themselves."""

Flow = Literal["auto", "loopback", "paste", "device"]
"""How the authorization response reaches this process."""

Grant = Literal["authorization_code", "client_credentials", "jwt_bearer", "enterprise"]
"""The OAuth grant: a user's login, the client's own credentials, a workload's JWT or an ID-JAG."""


# Security best practice: a state is valid for ten minutes at most.
MAX_LOGIN_SECONDS = 600


class Secret:
    """Text that masks itself; only `reveal` returns it.

    It is not a `str` on purpose: neither `repr`, `str`, `format`, `%s`, JSON nor pickle shows the text.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself. Call it only to write the text to the network or to the store."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(****)"

    def __str__(self) -> str:
        return "****"

    def __format__(self, format_spec: str) -> str:
        return "****"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        # Constant time: `state` is compared here, and the duration must not leak how much of it matches.
        return isinstance(other, Secret) and compare_digest(
            self._text.encode("utf-8", "surrogatepass"), other._text.encode("utf-8", "surrogatepass")
        )

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> NoReturn:
        message = "a Secret is never pickled"
        raise TypeError(message)


def as_secret(text: str | Secret) -> Secret:
    """Return the text as a Secret. For parameters that callers may pass as plain text."""
    return text if isinstance(text, Secret) else Secret(text)


@dataclass(frozen=True, slots=True)
class IdentityProvider:
    """The enterprise's identity provider (`oauth.identity_provider`), not the server's authorization server.

    `token_file` holds the token of the user's last sign-in at the identity provider. `subject_type` is the
    type of that token (RFC 8693 section 3).
    """

    token_endpoint: str
    token_file: str
    client_id: str
    client_secret: Secret | None = None
    subject_type: Literal["id_token", "refresh_token"] = "id_token"


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The options of `mcp_servers.<name>.oauth`, and the transport keys next to it. All are optional."""

    client_id: str | None = None
    client_secret: Secret | None = None
    client_name: str = "Hermes MCP Auth"
    client_metadata_url: str | None = None
    private_key_file: str | None = None
    private_key_id: str | None = None
    token_endpoint_auth_method: str | None = None
    application_type: Literal["native", "web"] | None = None
    scope: frozenset[str] | None = None
    scope_cap: frozenset[str] | None = None
    redirect_uri: str | None = None
    redirect_host: str = "127.0.0.1"
    redirect_port: int = 0
    authorization_server: str | None = None
    trusted_issuers: frozenset[str] = frozenset()
    resource: str | Literal[False] | None = None
    authorize_params: Mapping[str, str] = field(default_factory=dict[str, str])
    allow_missing_pkce: bool = False
    allow_addresses: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    flow: Flow = "auto"
    device: bool = True
    device_authorization_endpoint: str | None = None
    grant: Grant = "authorization_code"
    assertion_file: str | None = None
    identity_provider: IdentityProvider | None = None
    dpop: bool | None = None
    user_agent: str | None = None
    login_seconds: int = MAX_LOGIN_SECONDS
    verify_tls: bool = True
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """One entry of `mcp_servers`: a name, the URL of the protected resource, and its options.

    `config_files` is the identity (`hermes_home.config_identity`) of the config.yaml and .env that define
    this server. It is None if the caller does not know it, or if the URL also depends on the environment
    (`${…}`).
    `is_public_only` is True if a chat user named the URL: then only addresses of the public internet may be
    reached, also for the server itself.
    `known_from` says where a command finds this server by its name alone: in config.yaml, or with a stored
    login; None if it does not find it.
    """

    name: str
    url: str
    options: ServerOptions = ServerOptions()
    headers: Mapping[str, Secret] = field(default_factory=dict[str, Secret])
    config_files: str | None = field(default=None, compare=False)
    is_public_only: bool = False
    known_from: Literal["config", "login"] | None = field(default=None, compare=False)

    @property
    def is_known(self) -> bool:
        """True if a command finds this server by its name alone."""
        return self.known_from is not None


def owner_for(mode: OwnershipMode, platform: str, user_id: str) -> Owner:
    """Return the owner of the tokens from a chat user's login: "<platform>:<user id>", None if shared."""
    return f"{platform}:{user_id}" if mode == "per_user" else None


@dataclass(frozen=True, slots=True)
class CredentialKey:
    """The server and the owner of credentials; the store saves credentials under this key."""

    server_name: str
    owner: Owner = None


@dataclass(frozen=True, slots=True)
class Origin:
    """The chat and user that requested a login. A paste must come from the same origin or from a terminal.

    `platform` is "terminal", "telegram", "discord" or a caller's own name. The other fields are the
    platform's ids as text, empty if the platform has none. A login for a user on another platform (`--via`)
    has no `chat_id` and no `bot_id`: it matches any chat and bot.
    """

    platform: str
    chat_id: str = ""
    thread_id: str = ""
    user_id: str = ""
    # In Telegram, a user's private chats with two bots have the same chat id.
    bot_id: str = ""
