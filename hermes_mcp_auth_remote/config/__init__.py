"""HERMES_HOME, config.yaml and .env -> Server values: what the operator wrote, checked once.

Hermes itself turns OAuth on only for an entry with `auth: oauth`, and `load_servers` lists just those. Who
asks for one server by name wants to log in there, so `find_server` also takes a `url` entry without `auth`.
No message here shows a value: any of them may be a secret, or hold one through `${VAR}`.
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
    read_entries,
    read_file,
    read_variables,
    variables_in,
)
from hermes_mcp_auth_remote.config.section import Section
from hermes_mcp_auth_remote.errors import ConfigError, ServerNotFound, UnsafeUrl
from hermes_mcp_auth_remote.hermes_home import file_stem, hermes_home, join_identities
from hermes_mcp_auth_remote.oauth.urls import safe_url
from hermes_mcp_auth_remote.oauth.wire import FRAMING
from hermes_mcp_auth_remote.traceback_redaction import hides_locals
from hermes_mcp_auth_remote.values import (
    MAX_LOGIN_SECONDS,
    Flow,
    Grant,
    IdentityProvider,
    Secret,
    Server,
    ServerOptions,
)

_DEFAULT = ServerOptions()
# "browser" is Hermes's word for the code flow with a listener.
_FLOWS: Mapping[str, Flow] = {
    "auto": "auto",
    "loopback": "loopback",
    "browser": "loopback",
    "paste": "paste",
    "device": "device",
}
# RFC 8252 section 7.3: the listener is for this machine alone.
_HOSTS = {"127.0.0.1": "127.0.0.1", "localhost": "localhost", "::1": "::1", "[::1]": "::1"}
_METHODS = {m: m for m in ("none", "client_secret_basic", "client_secret_post", "private_key_jwt")}
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
# What each grant cannot do without.
_NEEDED: Mapping[Grant, tuple[str, ...]] = {
    "authorization_code": (),
    "client_credentials": ("client_id",),
    "jwt_bearer": ("client_id", "assertion_file"),
    "enterprise": ("client_id", "identity_provider"),
}
_MAX_LISTED = 10


def home(environ: Mapping[str, str]) -> Path:
    """Return Hermes's home: HERMES_HOME, else ~/.hermes."""
    return Path(hermes_home(environ))


@hides_locals
def load_servers(home: Path, environ: Mapping[str, str]) -> dict[str, Server]:
    """Read every enabled server that Hermes uses OAuth for, by name; empty where there is no config.yaml.

    Raises ConfigError, which names the file, the line or the key.
    """
    config, env = read_file(home / "config.yaml"), read_file(home / ".env")
    entries, variables = entries_in(config), variables_in(env, environ)
    ours = [name for name, entry in entries.items() if _is_ours(name, entry, variables)]
    for name in ours:
        _check_stem(name, ours)
    servers = {name: _server(name, entries[name], variables) for name in ours}
    return {name: _from(server, entries[name], config, env) for name, server in servers.items()}


@hides_locals
def server_names(home: Path, environ: Mapping[str, str]) -> list[str]:
    """List the enabled servers that Hermes uses OAuth for, also those whose entries have a mistake.

    Raises ConfigError where the file cannot be read at all.
    """
    entries = read_entries(home / "config.yaml")
    variables = read_variables(home / ".env", environ)
    return [name for name, entry in entries.items() if _names_oauth(name, entry, variables)]


def _names_oauth(name: str, entry: object, variables: Mapping[str, str]) -> bool:
    try:
        return _is_ours(name, entry, variables)
    except ConfigError:
        return True


@hides_locals
def find_server(name: str, home: Path, environ: Mapping[str, str]) -> Server:
    """Read one server by its name, also where its entry says nothing about `auth`.

    Raises ServerNotFound, which lists the names that come close, or ConfigError.
    """
    config = read_file(home / "config.yaml")
    entries = entries_in(config)
    if name not in entries:
        raise _not_found(name, [known for known, entry in entries.items() if _has_url(entry)], config)
    entry = entries[name]
    if "command" in _members(entry) and not _has_url(entry):
        raise ConfigError(f"{name} is a stdio server, it needs no login.", "Log in to a server with a `url`.")
    _check_stem(name, [known for known, entry in entries.items() if _has_url(entry)])
    env = read_file(home / ".env")
    return _from(_server(name, entry, variables_in(env, environ)), entry, config, env)


def _from(server: Server, entry: object, config: ConfigFile, env: ConfigFile) -> Server:
    """Return a server with the identity of the files that give it its address, if nothing else does."""
    if "${" in str(_members(entry).get("url", "")):
        # The environment of the process that asks has a say as well.
        return server
    return replace(server, config_files=_identity(config, env))


def _identity(config: ConfigFile, env: ConfigFile) -> str | None:
    if config.identity is None or env.identity is None:
        return None
    return join_identities(config.identity, env.identity)


@hides_locals
def server_from_url(url: str, name: str | None = None) -> Server:
    """Make a server of a bare address; the name is given, or a slug of the address such as "linear-app".

    Raises ConfigError where the address is neither https nor http on this machine.
    """
    try:
        checked = safe_url(url.strip(), "address")
    except UnsafeUrl as error:
        raise ConfigError(str(error), "Pass the server's https address.") from None
    parts = urlsplit(checked)
    # What most addresses have in common names nobody; the path does, where one host has several servers.
    words = [word for word in (parts.hostname or "").split(".") if word not in {"mcp", "www", "api"}]
    words += [str(parts.port)] if parts.port else []
    words += [word for word in parts.path.split("/") if word.lower() not in {"mcp", "sse", "v1"}]
    slug = "-".join(filter(None, (re.sub(r"[^A-Za-z0-9]+", "-", word).strip("-") for word in words)))
    return Server(name or slug[:64].strip("-") or "server", checked)


def _members(entry: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", entry) if isinstance(entry, dict) else {}


def _has_url(entry: object) -> bool:
    return bool(_members(entry).get("url"))


def _is_ours(name: str, entry: object, variables: Mapping[str, str]) -> bool:
    members = _members(entry)
    if not members.get("url") or members.get("enabled", True) is False:
        return False
    at = Section(f"mcp_servers.{name}", members, variables)
    return isinstance(members.get("auth"), str) and _says_oauth(at)


def _says_oauth(at: Section) -> bool:
    return (at.text("auth") or "").lower() == "oauth"


def _check_stem(name: str, names: list[str]) -> None:
    # Two servers of one stem would overwrite each other's tokens.
    for other in names:
        if other != name and file_stem(other) == file_stem(name):
            raise ConfigError(
                f"The servers {name} and {other} share the token files {file_stem(name)}.json in Hermes.",
                "Rename one of them, so that they differ in letters or digits.",
            )


def _not_found(name: str, known: list[str], config: ConfigFile) -> ServerNotFound:
    try:
        config_files = _identity(config, read_file(config.path.with_name(".env")))
    except ConfigError:
        config_files = None
    path, advice = config.path, None
    close = get_close_matches(name, known, cutoff=0.5)
    if close:
        what, advice = f"No server {name} in {path}.", f"Did you mean {' or '.join(close)}?"
    elif known:
        what = f"No server {name} in {path}; it has {', '.join(sorted(known)[:_MAX_LISTED])}."
    else:
        what = f"No server {name}: {path} names no server with a `url`."
    return ServerNotFound(what, advice, config_files=config_files)


def _server(name: str, entry: object, variables: Mapping[str, str]) -> Server:
    at = Section(f"mcp_servers.{name}", entry, variables)
    url = at.url("url")
    if url is None:
        raise ConfigError(f"{at.where}.url is missing.")
    if at.text("auth") is not None and not _says_oauth(at):
        raise ConfigError(f"{at.where}.auth is not `oauth`.", "Set `auth: oauth` for this server.")
    headers = at.section("headers")
    for header in headers.members:
        if header.strip().lower() in FRAMING:
            raise ConfigError(f"{headers.where}.{header} is set by each connection itself; take it out.")
    values = {key: Secret(headers.text(key) or "") for key in headers.members}
    return Server(name, safe_url(url, "address"), _options(at, at.section("oauth")), values)


def _options(at: Section, oauth: Section) -> ServerOptions:
    verify = at.members.get("ssl_verify", True)
    certificate, key = at.certificate()
    secret, scope, cap = oauth.text("client_secret"), oauth.texts("scope"), oauth.texts("scope_cap")
    params = oauth.section("authorize_params")
    grant = oauth.one_of("grant", _GRANTS) or _DEFAULT.grant
    for needed in _NEEDED[grant]:
        if not oauth.members.get(needed):
            raise ConfigError(f"{oauth.where}.grant is `{grant}`, which needs {oauth.where}.{needed}.")
    document_url = None if oauth.members.get("cimd") is False else oauth.url("client_metadata_url")
    return ServerOptions(
        client_id=oauth.text("client_id"),
        client_secret=Secret(secret) if secret else None,
        client_name=oauth.text("client_name") or _DEFAULT.client_name,
        client_metadata_url=document_url,
        private_key_file=oauth.path("private_key_file"),
        private_key_id=oauth.text("private_key_id"),
        token_endpoint_auth_method=oauth.one_of("token_endpoint_auth_method", _METHODS),
        application_type=oauth.one_of("application_type", _APPLICATION_TYPES),
        scope=frozenset(scope) if scope else None,
        scope_cap=frozenset(cap) if cap is not None else None,
        redirect_uri=oauth.url("redirect_uri"),
        redirect_host=oauth.one_of("redirect_host", _HOSTS) or _DEFAULT.redirect_host,
        redirect_port=oauth.whole("redirect_port", 0, 65535) or 0,
        authorization_server=oauth.url("authorization_server"),
        trusted_issuers=frozenset(oauth.texts("trusted_issuers") or ()),
        resource=False if oauth.members.get("resource") is False else oauth.text("resource"),
        authorize_params={name: params.text(name) or "" for name in params.members},
        allow_missing_pkce=oauth.flag("allow_missing_pkce"),
        allow_addresses=oauth.networks("allow_addresses"),
        allow_hosts=oauth.hosts("allow_hosts"),
        flow=_flow(oauth),
        device=_may_use_device(oauth),
        grant=grant,
        assertion_file=oauth.path("assertion_file"),
        identity_provider=_identity_provider(oauth),
        dpop=None if oauth.members.get("dpop") is None else oauth.flag("dpop"),
        user_agent=oauth.text("user_agent"),
        login_seconds=min(oauth.whole("timeout", 1, None) or _DEFAULT.login_seconds, MAX_LOGIN_SECONDS),
        verify_tls=verify if isinstance(verify, bool) else True,
        ca_file=None if isinstance(verify, bool) else at.path("ssl_verify"),
        client_cert=certificate,
        client_key=key,
    )


def _may_use_device(oauth: Section) -> bool:
    return oauth.members.get("device") is None or oauth.flag("device")


def _flow(oauth: Section) -> Flow:
    flow = oauth.one_of("flow", _FLOWS) or _DEFAULT.flow
    if flow == "device" and not _may_use_device(oauth):
        raise ConfigError(f"{oauth.where}.flow is `device`, which {oauth.where}.device turns off.")
    return flow


def _identity_provider(oauth: Section) -> IdentityProvider | None:
    at = oauth.section("identity_provider")
    if not at.members:
        return None
    endpoint, file, client_id = at.url("token_endpoint"), at.path("token_file"), at.text("client_id")
    if endpoint is None or file is None or client_id is None:
        raise ConfigError(f"{at.where} needs token_endpoint, token_file and client_id.")
    secret = at.text("client_secret")
    return IdentityProvider(
        endpoint,
        file,
        client_id,
        Secret(secret) if secret else None,
        at.one_of("subject_type", _SUBJECT_TYPES) or "id_token",
    )
