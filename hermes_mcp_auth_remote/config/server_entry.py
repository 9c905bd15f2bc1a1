"""Read one entry of `mcp_servers` in config.yaml. No message shows a value: it may be a secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

from hermes_mcp_auth_remote.config.section_reader import Section
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.oauth.urls import safe_url
from hermes_mcp_auth_remote.oauth.wire import FRAMING_HEADERS
from hermes_mcp_auth_remote.values import (
    MAX_LOGIN_SECONDS,
    Flow,
    Grant,
    IdentityProvider,
    Secret,
    Server,
    ServerOptions,
)

_DEFAULT_OPTIONS = ServerOptions()
# Hermes calls the code flow with a loopback listener "browser".
_FLOWS: Mapping[str, Flow] = {
    "auto": "auto",
    "loopback": "loopback",
    "browser": "loopback",
    "paste": "paste",
    "device": "device",
}
# RFC 8252 section 7.3: the listener accepts connections from this machine only.
_LOOPBACK_HOSTS = {"127.0.0.1": "127.0.0.1", "localhost": "localhost", "::1": "::1", "[::1]": "::1"}
_AUTH_METHODS = {m: m for m in ("none", "client_secret_basic", "client_secret_post", "private_key_jwt")}
_APPLICATION_TYPES: Mapping[str, Literal["native", "web"]] = {"native": "native", "web": "web"}
_GRANTS: Mapping[str, Grant] = {
    "authorization_code": "authorization_code",
    "client_credentials": "client_credentials",
    "jwt_bearer": "jwt_bearer",
    "enterprise": "enterprise",
}
_SUBJECT_TYPES: Mapping[str, Literal["id_token", "refresh_token"]] = {
    "id_token": "id_token",
    "refresh_token": "refresh_token",
}
# The keys that each grant requires.
_REQUIRED_KEYS: Mapping[Grant, tuple[str, ...]] = {
    "authorization_code": (),
    "client_credentials": ("client_id",),
    "jwt_bearer": ("client_id", "assertion_file"),
    "enterprise": ("client_id", "identity_provider"),
}


def as_mapping(entry: object) -> Mapping[str, object]:
    """Return an entry if it is a mapping, else an empty mapping."""
    return cast("Mapping[str, object]", entry) if isinstance(entry, dict) else {}


def has_url(entry: object) -> bool:
    """Return True if an entry has a `url`."""
    return bool(as_mapping(entry).get("url"))


def read_address(name: str, entry: object, variables: Mapping[str, str]) -> str | None:
    """Return the URL of an entry; None if it has none, or an invalid one."""
    try:
        url = Section(f"mcp_servers.{name}", entry, variables).url("url") if has_url(entry) else None
    except ConfigError:
        return None
    return None if url is None else safe_url(url, "address")


def is_enabled(entry: object) -> bool:
    """Return False if an entry has `enabled: false`."""
    return as_mapping(entry).get("enabled", True) is not False


def uses_oauth(name: str, entry: object, variables: Mapping[str, str]) -> bool:
    """Return True if Hermes uses OAuth for an entry; raises ConfigError."""
    members = as_mapping(entry)
    if not members.get("url") or not is_enabled(entry):
        return False
    section = Section(f"mcp_servers.{name}", members, variables)
    return isinstance(members.get("auth"), str) and has_oauth_auth(section)


def has_oauth_auth(section: Section) -> bool:
    """Return True if the section has `auth: oauth`; raises ConfigError."""
    return (section.string("auth") or "").lower() == "oauth"


def read_server(name: str, entry: object, variables: Mapping[str, str]) -> Server:
    """Read one entry of `mcp_servers`; raises ConfigError, which names the key."""
    section = Section(f"mcp_servers.{name}", entry, variables)
    url = section.url("url")
    if url is None:
        raise ConfigError(f"{section.key_path}.url is missing.")
    if section.string("auth") is not None and not has_oauth_auth(section):
        raise ConfigError(f"{section.key_path}.auth is not `oauth`.", "Set `auth: oauth` for this server.")
    headers_section = section.section("headers")
    for header in headers_section.members:
        if header.strip().lower() in FRAMING_HEADERS:
            raise ConfigError(
                f"{headers_section.key_path}.{header} is a header that the HTTP client sets.",
                "Remove it from config.yaml.",
            )
    headers = {key: Secret(headers_section.string(key) or "") for key in headers_section.members}
    options = _read_options(section, section.section("oauth"))
    return Server(name, safe_url(url, "address"), options, headers, known_from="config")


def _read_options(section: Section, oauth_section: Section) -> ServerOptions:
    verify = section.members.get("ssl_verify", True)
    certificate, key = section.client_certificate()
    secret, scope, scope_cap = (
        oauth_section.string("client_secret"),
        oauth_section.string_list("scope"),
        oauth_section.string_list("scope_cap"),
    )
    params = oauth_section.section("authorize_params")
    grant = oauth_section.choice("grant", _GRANTS) or _DEFAULT_OPTIONS.grant
    for required_key in _REQUIRED_KEYS[grant]:
        if not oauth_section.members.get(required_key):
            raise ConfigError(
                f"{oauth_section.key_path}.grant is `{grant}`, which needs "
                f"{oauth_section.key_path}.{required_key}."
            )
    client_metadata_url = (
        None if oauth_section.members.get("cimd") is False else oauth_section.url("client_metadata_url")
    )
    return ServerOptions(
        client_id=oauth_section.string("client_id"),
        client_secret=Secret(secret) if secret else None,
        client_name=oauth_section.string("client_name") or _DEFAULT_OPTIONS.client_name,
        client_metadata_url=client_metadata_url,
        private_key_file=oauth_section.path("private_key_file"),
        private_key_id=oauth_section.string("private_key_id"),
        token_endpoint_auth_method=oauth_section.choice("token_endpoint_auth_method", _AUTH_METHODS),
        application_type=oauth_section.choice("application_type", _APPLICATION_TYPES),
        scope=frozenset(scope) if scope else None,
        scope_cap=frozenset(scope_cap) if scope_cap is not None else None,
        redirect_uri=oauth_section.url("redirect_uri"),
        redirect_host=oauth_section.choice("redirect_host", _LOOPBACK_HOSTS)
        or _DEFAULT_OPTIONS.redirect_host,
        redirect_port=oauth_section.integer("redirect_port", 0, 65535) or 0,
        authorization_server=oauth_section.url("authorization_server"),
        trusted_issuers=frozenset(oauth_section.string_list("trusted_issuers") or ()),
        resource=False
        if oauth_section.members.get("resource") is False
        else oauth_section.string("resource"),
        authorize_params={name: params.string(name) or "" for name in params.members},
        allow_missing_pkce=oauth_section.boolean("allow_missing_pkce"),
        allow_addresses=oauth_section.networks("allow_addresses"),
        allow_hosts=oauth_section.hosts("allow_hosts"),
        flow=_read_flow(oauth_section),
        device=_can_use_device(oauth_section),
        device_authorization_endpoint=oauth_section.url("device_authorization_endpoint"),
        grant=grant,
        assertion_file=oauth_section.path("assertion_file"),
        identity_provider=_read_identity_provider(oauth_section),
        dpop=None if oauth_section.members.get("dpop") is None else oauth_section.boolean("dpop"),
        user_agent=oauth_section.string("user_agent"),
        login_seconds=min(
            oauth_section.integer("timeout", 1, None) or _DEFAULT_OPTIONS.login_seconds, MAX_LOGIN_SECONDS
        ),
        verify_tls=verify if isinstance(verify, bool) else True,
        ca_file=None if isinstance(verify, bool) else section.path("ssl_verify"),
        client_cert=certificate,
        client_key=key,
    )


def _can_use_device(oauth_section: Section) -> bool:
    return oauth_section.members.get("device") is None or oauth_section.boolean("device")


def _read_flow(oauth_section: Section) -> Flow:
    flow = oauth_section.choice("flow", _FLOWS) or _DEFAULT_OPTIONS.flow
    if flow == "device" and not _can_use_device(oauth_section):
        raise ConfigError(
            f"{oauth_section.key_path}.flow is `device`, which {oauth_section.key_path}.device turns off."
        )
    return flow


def _read_identity_provider(oauth_section: Section) -> IdentityProvider | None:
    section = oauth_section.section("identity_provider")
    if not section.members:
        return None
    token_endpoint, token_file = section.url("token_endpoint"), section.path("token_file")
    client_id, secret = section.string("client_id"), section.string("client_secret")
    if token_endpoint is None or token_file is None or client_id is None:
        raise ConfigError(f"{section.key_path} needs token_endpoint, token_file and client_id.")
    return IdentityProvider(
        token_endpoint,
        token_file,
        client_id,
        Secret(secret) if secret else None,
        section.choice("subject_type", _SUBJECT_TYPES) or "id_token",
    )
