"""The nouns that every room shares: Secret, Server, Origin, Key. Plain values; no I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Literal, NoReturn

Clock = Callable[[], float]
"""Returns the time in epoch seconds. Passed in everywhere, so that tests can move it."""

Entropy = Callable[[int], str]
"""Takes a number of random bytes and returns them as URL-safe text (`secrets.token_urlsafe`)."""

Owner = str | None
"""Whose tokens: None for the operator's shared ones, or a chat user such as "telegram:42"."""

Flow = Literal["auto", "loopback", "paste", "device"]
"""How the authorization response comes back to us."""

Grant = Literal["authorization_code", "client_credentials", "jwt_bearer", "enterprise"]
"""On whose word tokens are granted: a person's, our own, a workload's identity, an identity provider's."""


# Security best practice: a state lives ten minutes at most.
MAX_LOGIN_SECONDS = 600


class Secret:
    """Text that masks itself wherever it could be shown; `reveal` is the only way out.

    Not a `str` on purpose: neither `repr`, `str`, `format`, `%s`, JSON nor pickle shows the text.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself; call it only where the bytes leave for the wire or the disk."""
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
        # Constant time: a state is compared by this, and its timing must tell nothing.
        return isinstance(other, Secret) and compare_digest(
            self._text.encode("utf-8", "surrogatepass"), other._text.encode("utf-8", "surrogatepass")
        )

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> NoReturn:
        message = "a Secret is never pickled"
        raise TypeError(message)


def as_secret(text: str | Secret) -> Secret:
    """Return a text that masks itself, for parameters that callers may give as plain text."""
    return text if isinstance(text, Secret) else Secret(text)


@dataclass(frozen=True, slots=True)
class IdentityProvider:
    """Where an enterprise vouches for its people (`oauth.identity_provider`); another than the server's own.

    `token_file` holds what was granted at the last sign-in there: `subject_type` says what it is.
    """

    token_endpoint: str
    token_file: str
    client_id: str
    client_secret: Secret | None = None
    subject_type: Literal["id_token", "refresh_token"] = "id_token"


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What `mcp_servers.<name>.oauth` (and the transport keys beside it) may say. All optional."""

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

    `config_files` is the identity (`hermes.config_identity`) of the config.yaml and .env that give the name
    this URL. None: not known, or the URL depends on the environment as well (`${…}`).
    """

    name: str
    url: str
    options: ServerOptions = ServerOptions()
    headers: Mapping[str, Secret] = field(default_factory=dict[str, Secret])
    config_files: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class CredentialKey:
    """Whose credentials for which server: the name under which the store keeps them."""

    server_name: str
    owner: Owner = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a login was asked for; a paste must come from the same place.

    `platform` is "terminal", "telegram", "discord" or a caller's own word; the rest are the platform's ids
    as text, empty where it has none. A login that was begun for a user elsewhere (`--via`) names no chat and
    no `bot`: any of theirs will do.
    """

    platform: str
    chat_id: str = ""
    thread_id: str = ""
    user_id: str = ""
    # Which bot: a person's private chats with two of them have the same id in Telegram.
    bot_id: str = ""
