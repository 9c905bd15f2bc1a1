"""Read Server values from HERMES_HOME, config.yaml and .env, and validate them once.

Hermes uses OAuth only for an entry with `auth: oauth`, and `load_servers` returns only those. A user who
names one server wants to log in there, so `find_server` also accepts a `url` entry without `auth`. No message
of this package shows a value: it may be a secret, or contain one through `${VAR}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, cast
from urllib.parse import urlsplit

from hermes_mcp_auth_remote.config.files import (
    ConfigFile,
    entries_in,
    read_config_file,
    read_entries,
    read_variables,
    variables_in,
)
from hermes_mcp_auth_remote.config.section_reader import Section
from hermes_mcp_auth_remote.errors import ConfigError, ServerNotFound, UnsafeUrl
from hermes_mcp_auth_remote.hermes_home import file_stem, hermes_home, join_identities
from hermes_mcp_auth_remote.oauth.urls import safe_url
from hermes_mcp_auth_remote.oauth.wire import FRAMING_HEADERS
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
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
_MAX_LISTED_NAMES = 10


def hermes_home_path(environ: Mapping[str, str]) -> Path:
    """Return the home directory of Hermes: HERMES_HOME, else ~/.hermes."""
    return Path(hermes_home(environ))


@with_hidden_locals
def load_servers(home: Path, environ: Mapping[str, str]) -> dict[str, Server]:
    """Read every enabled server for which Hermes uses OAuth, by name; empty if there is no config.yaml.

    Raises ConfigError, which names the file, the line or the key.
    """
    config, env = read_config_file(home / "config.yaml"), read_config_file(home / ".env")
    entries, variables = entries_in(config), variables_in(env, environ)
    oauth_names = [name for name, entry in entries.items() if _uses_oauth(name, entry, variables)]
    for name in oauth_names:
        _check_unique_stem(name, oauth_names)
    servers = {name: _read_server(name, entries[name], variables) for name in oauth_names}
    return {name: _with_config_files(server, entries[name], config, env) for name, server in servers.items()}


@with_hidden_locals
def server_names(home: Path, environ: Mapping[str, str]) -> list[str]:
    """List the enabled servers for which Hermes uses OAuth, including those with an invalid entry.

    Raises ConfigError if the file cannot be read.
    """
    entries = read_entries(home / "config.yaml")
    variables = read_variables(home / ".env", environ)
    return [name for name, entry in entries.items() if _uses_oauth_or_is_invalid(name, entry, variables)]


def _uses_oauth_or_is_invalid(name: str, entry: object, variables: Mapping[str, str]) -> bool:
    try:
        return _uses_oauth(name, entry, variables)
    except ConfigError:
        return True


@with_hidden_locals
def find_server(name: str, home: Path, environ: Mapping[str, str]) -> Server:
    """Read one server by its name, even if its entry has no `auth`.

    Raises ServerNotFound, which lists similar names, or ConfigError.
    """
    config = read_config_file(home / "config.yaml")
    entries = entries_in(config)
    if name not in entries:
        raise _server_not_found(name, [other for other, entry in entries.items() if _has_url(entry)], config)
    entry = entries[name]
    if "command" in _as_mapping(entry) and not _has_url(entry):
        raise ConfigError(f"{name} is a stdio server and needs no login.", "Log in to a server with a `url`.")
    _check_unique_stem(name, [other for other, entry in entries.items() if _has_url(entry)])
    env = read_config_file(home / ".env")
    return _with_config_files(_read_server(name, entry, variables_in(env, environ)), entry, config, env)


def _with_config_files(
    server: Server, entry: object, config_file: ConfigFile, env_file: ConfigFile
) -> Server:
    """Return a server with `config_files` set, unless its URL may also depend on environment variables."""
    if "${" in str(_as_mapping(entry).get("url", "")):
        # The URL may also depend on the environment of the process.
        return server
    return replace(server, config_files=_join_file_identities(config_file, env_file))


def _join_file_identities(config_file: ConfigFile, env_file: ConfigFile) -> str | None:
    if config_file.identity is None or env_file.identity is None:
        return None
    return join_identities(config_file.identity, env_file.identity)


@with_hidden_locals
def server_from_url(url: str, name: str | None = None) -> Server:
    """Return a server for a URL that is not in config.yaml.

    If `name` is None, the name is a slug of the URL such as "linear-app". Raises ConfigError if the URL is
    neither https nor http on this machine.
    """
    try:
        checked_url = safe_url(url.strip(), "address")
    except UnsafeUrl as error:
        raise ConfigError(str(error), "Pass the server's https address.") from None
    parts = urlsplit(checked_url)
    # Omit common words. Keep the path, because one host may have several servers.
    words = [word for word in (parts.hostname or "").split(".") if word not in {"mcp", "www", "api"}]
    words += [str(parts.port)] if parts.port else []
    words += [word for word in parts.path.split("/") if word.lower() not in {"mcp", "sse", "v1"}]
    slug = "-".join(filter(None, (re.sub(r"[^A-Za-z0-9]+", "-", word).strip("-") for word in words)))
    return Server(name or slug[:64].strip("-") or "server", checked_url)


def _as_mapping(entry: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", entry) if isinstance(entry, dict) else {}


def _has_url(entry: object) -> bool:
    return bool(_as_mapping(entry).get("url"))


def _uses_oauth(name: str, entry: object, variables: Mapping[str, str]) -> bool:
    members = _as_mapping(entry)
    if not members.get("url") or members.get("enabled", True) is False:
        return False
    section = Section(f"mcp_servers.{name}", members, variables)
    return isinstance(members.get("auth"), str) and _has_oauth_auth(section)


def _has_oauth_auth(section: Section) -> bool:
    return (section.string("auth") or "").lower() == "oauth"


def _check_unique_stem(name: str, names: list[str]) -> None:
    # Two servers with the same stem would overwrite each other's tokens.
    for other in names:
        if other != name and file_stem(other) == file_stem(name):
            raise ConfigError(
                f"The servers {name} and {other} use the same token file in Hermes: {file_stem(name)}.json.",
                "Rename one of them, so that they differ in letters or digits.",
            )


def _server_not_found(name: str, known_names: list[str], config_file: ConfigFile) -> ServerNotFound:
    try:
        config_files = _join_file_identities(
            config_file, read_config_file(config_file.path.with_name(".env"))
        )
    except ConfigError:
        config_files = None
    path, advice = config_file.path, None
    similar_names = get_close_matches(name, known_names, cutoff=0.5)
    if similar_names:
        message, advice = f"No server {name} in {path}.", f"Did you mean {' or '.join(similar_names)}?"
    elif known_names:
        message = f"No server {name} in {path}; it has {', '.join(sorted(known_names)[:_MAX_LISTED_NAMES])}."
    else:
        message = f"No server {name}: {path} names no server with a `url`."
    return ServerNotFound(message, advice, config_files=config_files)


def _read_server(name: str, entry: object, variables: Mapping[str, str]) -> Server:
    section = Section(f"mcp_servers.{name}", entry, variables)
    url = section.url("url")
    if url is None:
        raise ConfigError(f"{section.key_path}.url is missing.")
    if section.string("auth") is not None and not _has_oauth_auth(section):
        raise ConfigError(f"{section.key_path}.auth is not `oauth`.", "Set `auth: oauth` for this server.")
    headers_section = section.section("headers")
    for header in headers_section.members:
        if header.strip().lower() in FRAMING_HEADERS:
            raise ConfigError(
                f"{headers_section.key_path}.{header} is a header that the HTTP client sets.",
                "Remove it from config.yaml.",
            )
    headers = {key: Secret(headers_section.string(key) or "") for key in headers_section.members}
    return Server(name, safe_url(url, "address"), _read_options(section, section.section("oauth")), headers)


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
