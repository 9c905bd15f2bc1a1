"""Find the server that a name or an address means, for commands, programs and chats.

A server has one name: that of its entry in config.yaml, else the name that a login by address gave it. An
address that an entry or a stored login has means that server (`oauth.urls.is_same_address`). Servers that no
entry names are looked up among the logins of the owner. If neither an entry nor a login of the owner has the
address, the operator's logins are looked up too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import count

from hermes_mcp_auth_remote.commands import logout_command
from hermes_mcp_auth_remote.config import Configuration, server_from_url
from hermes_mcp_auth_remote.config.server_names import find_spelling, spellings
from hermes_mcp_auth_remote.errors import AmbiguousAddress, ConfigError, StoreError
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.urls import is_same_address
from hermes_mcp_auth_remote.phrases import display_url
from hermes_mcp_auth_remote.platforms import join_alternatives
from hermes_mcp_auth_remote.store.credentials import Binding
from hermes_mcp_auth_remote.store.protocol import Store, StoredSession
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import CredentialKey, Owner, Server

_MAX_LISTED_NAMES = 10


@with_hidden_locals
def find_server(
    name_or_url: str,
    owner: Owner,
    configuration: Configuration,
    store: Store,
    *,
    with_suggestions: bool = True,
) -> Server:
    """Return the server with a name or an address. An unknown address gets a name that is free.

    Blocking. Raises ConfigError, StoreError, AmbiguousAddress, and ServerNotFound, which lists similar names
    if `with_suggestions`.
    """
    if "://" in name_or_url:
        server = find_server_at(name_or_url, owner, configuration, store)
        return _new_server(name_or_url, owner, configuration, store) if server is None else server
    server = configuration.get_server(name_or_url) or _find_stored_server(
        name_or_url, owner, configuration, store
    )
    if server is not None:
        return server
    other_names = stored_names(owner, store) if with_suggestions else []
    raise configuration.server_not_found(
        name_or_url, owner, with_suggestions=with_suggestions, other_names=other_names
    )


def server_of_session(session: StoredSession, configuration: Configuration, store: Store) -> Server:
    """Return the server of a stored session, as `find_server` does for its name, without reading it again.

    Blocking. Raises ConfigError, StoreError, ServerNotFound.
    """
    key, binding = session.key, session.stored.credentials.binding
    server = configuration.get_server(key.server_name)
    if server is None and binding is not None:
        return _bound_server(key.server_name, binding, configuration)
    return server or find_server(key.server_name, key.owner, configuration, store, with_suggestions=False)


@with_hidden_locals
def find_server_at(url: str, owner: Owner, configuration: Configuration, store: Store) -> Server | None:
    """Return the server with an address, None if neither config.yaml nor a stored login has the address.

    Blocking. A stored login also counts if config.yaml cannot be read. Raises AmbiguousAddress if several
    servers have the address, ConfigError, StoreError.
    """
    url = server_from_url(url).url
    config_error: ConfigError | None = None
    configured_names: tuple[str, ...] = ()
    try:
        configured_names = configuration.names_at(url)
    except ConfigError as error:
        config_error = error
    stored_servers = _stored_servers_at(url, owner, configuration, store)
    if owner is not None and not configured_names and not stored_servers:
        # Use the operator's name for the server. If there is an entry, use the entry's name.
        stored_servers = _stored_servers_at(url, None, configuration, store)
    if not configured_names and not stored_servers:
        stored_servers = _servers_at(url, _waiting_servers(owner, configuration, store))
    names = names_meant(configured_names, stored_servers, owner, store)
    if len(names) > 1:
        raise _ambiguous_address(url, names, tuple(stored_servers), owner)
    if config_error is not None and not names:
        raise config_error
    if not names:
        return None
    [name] = names
    return stored_servers[name] if name in stored_servers else configuration.find_server(name)


def names_meant(
    configured_names: Collection[str], login_names: Collection[str], owner: Owner, store: Store
) -> tuple[str, ...]:
    """Return the names of the servers that an address means; more than one name is an ambiguous address.

    `configured_names` are the entries with the address, `login_names` the other servers with a stored login
    at the address. If one login has the address, the address means this login until an entry has a login
    too. Blocking. Raises StoreError.
    """
    if len(login_names) == 1 and not any(_has_tokens(name, owner, store) for name in configured_names):
        return tuple(login_names)
    return (*configured_names, *login_names)


def stored_names(owner: Owner, store: Store) -> list[str]:
    """List the names of the servers with a stored or waiting login of an owner. Raises StoreError."""
    names = [key.server_name for key in _list_keys(owner, store)]
    waiting_logins = _waiting_logins(owner, store)
    return list(dict.fromkeys([*names, *(login.key.server_name for login in waiting_logins)]))


def _find_stored_server(name: str, owner: Owner, configuration: Configuration, store: Store) -> Server | None:
    """Return a server by the name that a login by address gave it, in any Unicode normal form."""
    for known_owner in dict.fromkeys((owner, None)):
        for spelling in spellings(name):
            binding = store.read(CredentialKey(spelling, known_owner)).credentials.binding
            if binding is not None:
                return _bound_server(spelling, binding, configuration)
    waiting_servers = _waiting_servers(owner, configuration, store)
    spelling_of_login = find_spelling(name, waiting_servers)
    return None if spelling_of_login is None else waiting_servers[spelling_of_login]


def _bound_server(name: str, binding: Binding, configuration: Configuration) -> Server:
    return Server(
        name,
        binding.server_url,
        config_files=configuration.identity,
        is_public_only=binding.is_public_only,
        known_from="login",
    )


def _stored_servers_at(
    url: str, owner: Owner, configuration: Configuration, store: Store
) -> Mapping[str, Server]:
    """Return the servers with an address, by name, that only completed logins of an owner know.

    A name of config.yaml means its entry, whatever address is stored with it.
    """
    servers = _servers_at(url, _bound_servers(owner, configuration, store))
    with suppress(ConfigError):
        return {name: server for name, server in servers.items() if not configuration.has_entry(name)}
    return servers


def _has_tokens(name: str, owner: Owner, store: Store) -> bool:
    return store.read(CredentialKey(name, owner)).credentials.tokens is not None


def _list_keys(owner: Owner, store: Store) -> list[CredentialKey]:
    """List the servers with stored tokens of an owner, in pages as a store does."""
    keys = list[CredentialKey]()
    while page := store.list_summaries(owner, keys[-1] if keys else None):
        keys += [summary.key for summary in page]
    return keys


def _servers_at(url: str, servers: Mapping[str, Server]) -> Mapping[str, Server]:
    return {name: server for name, server in servers.items() if is_same_address(server.url, url)}


def _bound_servers(owner: Owner, configuration: Configuration, store: Store) -> Mapping[str, Server]:
    """Return the servers of an owner's completed logins, by name. Skips files that cannot be read."""
    servers = dict[str, Server]()
    for key in _list_keys(owner, store):
        with suppress(StoreError):
            binding = store.read(key).credentials.binding
            if binding is not None:
                servers[key.server_name] = _bound_server(key.server_name, binding, configuration)
    return servers


def _waiting_servers(owner: Owner, configuration: Configuration, store: Store) -> Mapping[str, Server]:
    """Return the servers of an owner's waiting logins, by name."""
    return {
        login.key.server_name: Server(
            login.key.server_name,
            login.server_url,
            config_files=configuration.identity,
            is_public_only=login.is_public_only,
            known_from="login",
        )
        for login in _waiting_logins(owner, store)
    }


def _waiting_logins(owner: Owner, store: Store) -> list[Login]:
    now = store.now()
    return [login for login in store.logins.list_open(owner) if login.expires_at > now]


def _new_server(url: str, owner: Owner, configuration: Configuration, store: Store) -> Server:
    """Return a server for an unknown address, with a name that no server of another address has."""
    server = server_from_url(url)
    taken_names = {
        *_bound_servers(owner, configuration, store),
        *_waiting_servers(owner, configuration, store),
    }
    for number in count(2):
        is_taken = server.name in taken_names
        with suppress(ConfigError):
            is_taken = is_taken or configuration.has_entry(server.name)
        if not is_taken:
            break
        server = server_from_url(url, f"{server_from_url(url).name}-{number}")
    return replace(server, config_files=configuration.identity)


def _ambiguous_address(
    url: str, names: tuple[str, ...], login_names: tuple[str, ...], owner: Owner
) -> AmbiguousAddress:
    advice = f"Use a name instead of the address: {join_alternatives(names[:_MAX_LISTED_NAMES])}."
    if login_names:
        # The entry in config.yaml is often newer than a login by the same address, for the same account.
        command = logout_command(login_names[-1], owner)
        advice += f" If you need only one login, delete the other one: `{command}`."
    return AmbiguousAddress(f"{len(names)} servers have the address {display_url(url)}.", advice, names=names)
