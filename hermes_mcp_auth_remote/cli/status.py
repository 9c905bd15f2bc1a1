"""`status`: list every server that is configured or has a login, without a request to any server."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator

from hermes_mcp_auth_remote.cli.connection_status import ConnectionStatus
from hermes_mcp_auth_remote.cli.output import (
    LOGIN_NEEDED_EXIT_CODE,
    exit_code,
    print_json,
    print_result,
)
from hermes_mcp_auth_remote.cli.owners import owner_notes
from hermes_mcp_auth_remote.cli.servers import current_configuration, current_home, resolve_server
from hermes_mcp_auth_remote.cli.status_table import format_statuses
from hermes_mcp_auth_remote.config import Configuration
from hermes_mcp_auth_remote.config.chats import SECTION_NAME, read_chat_settings
from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError, ServerNotFound
from hermes_mcp_auth_remote.garbage_collection import pause_garbage_collection
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.phrases import replace_unprintable
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.shown_program import with_shown_program
from hermes_mcp_auth_remote.store.connection import connection_from_credentials
from hermes_mcp_auth_remote.store.protocol import ANY, StoredSession
from hermes_mcp_auth_remote.terminal.text import wrap_text
from hermes_mcp_auth_remote.terminal.window import terminal_size
from hermes_mcp_auth_remote.values import CredentialKey, Server


def run(options: argparse.Namespace) -> int:
    """List all servers, and report unreadable data after all the others.

    A missing login is an error only with `--check`.
    """
    # Collections would examine each of many connections again and again.
    with pause_garbage_collection():
        return _list_servers(options)


def _list_servers(options: argparse.Namespace) -> int:
    columns = terminal_size(sys.stdout)[0]
    config_error: ConfigError | None = None
    configuration = current_configuration()
    try:
        configured_names = configuration.server_names() if options.server is None else []
    except ConfigError as error:
        configured_names, config_error = [], error
    statuses = list(_connection_statuses(configured_names, options, configuration))
    _print_statuses(statuses, options, columns)
    print_warnings(_warnings(configuration, options), as_json=options.json, columns=columns)
    if options.server is None and config_error is None:
        try:
            _print_chat_owners(configuration, as_json=options.json, columns=columns)
        except ConfigError as error:
            config_error = error
    if config_error is not None:
        raise config_error
    if not statuses and not options.json:
        print_no_servers(columns)
    first_error = next((status.error for status in statuses if status.error is not None), None)
    if first_error is not None:
        return exit_code(first_error)
    return LOGIN_NEEDED_EXIT_CODE if options.check and any(it.needs_person for it in statuses) else 0


def _print_statuses(statuses: list[ConnectionStatus], options: argparse.Namespace, columns: int) -> None:
    if options.json:
        for status in statuses:
            print_json(status.to_event())
    elif options.server is not None:
        print_result(statuses[0].to_text(columns))
    elif statuses:
        print_result(format_statuses(statuses, columns))


def print_no_servers(columns: int) -> None:
    """Print that there is neither a configured server nor a login, and how to log in."""
    config_path = replace_unprintable(str(current_home() / "config.yaml"))
    print(wrap_text(f"No server uses OAuth in {config_path}, and there is no login.", columns))
    print(with_shown_program("Log in to a server: hermes-mcp-auth login"), flush=True)


def _warnings(configuration: Configuration, options: argparse.Namespace) -> list[str]:
    """Return what is probably wrong: an owner without a login, and mistakes in config.yaml.

    If the user named a server, the result has only the mistakes in its entry.
    """
    notes = owner_notes(AuthService(current_home()), options.owner)
    if options.server is not None:
        config_warnings = configuration.warnings(options.server)
    else:
        config_warnings = configuration.all_warnings()
    return [*notes, *config_warnings]


def print_warnings(warnings: Iterable[str], *, as_json: bool, columns: int) -> None:
    """Print what is probably wrong, as notes or as events."""
    for warning in warnings:
        if as_json:
            print_json({"event": "warning", "message": warning})
        else:
            print(wrap_text(f"Note: {replace_unprintable(warning)}", columns), flush=True)


def _print_chat_owners(configuration: Configuration, *, as_json: bool, columns: int) -> None:
    """Print whose tokens the chats use, if config.yaml has chat settings."""
    chats = read_chat_settings(configuration)
    if chats is None:
        return
    if as_json:
        print_json({"event": "chats", "owners": chats.owners})
        return
    texts = {
        "shared": "In chats, all users of a bot share the operator's tokens",
        "per_user": "In chats, each user has their own tokens",
    }
    print(wrap_text(f"{texts[chats.owners]} ({SECTION_NAME}.owners: {chats.owners}).", columns), flush=True)


def _connection_statuses(
    configured_names: list[str], options: argparse.Namespace, configuration: Configuration
) -> Iterator[ConnectionStatus]:
    service = AuthService(current_home())
    reader = _StatusReader(service, configuration, time.time())
    if options.server is not None:
        server = resolve_server(options.server, options.owner, configuration)
        yield reader.read(CredentialKey(server.name, options.owner), options.server)
        return
    sessions = service.blocking.sessions(configuration, ANY if options.owner is None else options.owner)
    statuses = {session.key: reader.status(session, server) for session, server in sessions}
    # The configured servers come first, then the other stored ones, then those with only a waiting login.
    configured_keys = [CredentialKey(name, options.owner) for name in configured_names]
    for key in configured_keys:
        yield statuses.pop(key) if key in statuses else reader.read(key)
    yield from statuses.values()
    other_keys = reader.waiting_logins.keys() - statuses.keys() - set(configured_keys)
    for key in reader.waiting_logins:
        if key in other_keys and options.owner in {None, key.owner}:
            yield reader.read(key)


class _StatusReader:
    """Reads the status of servers at one moment, `now` (epoch seconds)."""

    def __init__(self, service: AuthService, configuration: Configuration, now: float) -> None:
        self._service = service
        self._configuration = configuration
        self._now = now
        self.waiting_logins = dict[CredentialKey, list[Login]]()
        for login in service.blocking.waiting_logins():
            self.waiting_logins.setdefault(login.key, []).append(login)

    def status(self, session: StoredSession, server: Server | McpAuthError) -> ConnectionStatus:
        """Return the status of a stored session and its server."""
        key = session.key
        # config.yaml may spell the name otherwise. Then the files of its entry count.
        if isinstance(server, McpAuthError) or server.name != key.server_name:
            return self.read(key)
        if session.error is not None:
            return self._status(key, server, server.name, session.error)
        connection = connection_from_credentials(
            key, server.url, session.stored.credentials, session.refresh_failure, session.token_refusal
        )
        return self._status(key, server, server.name, connection)

    def read(self, key: CredentialKey, server_argument: str | None = None) -> ConnectionStatus:
        """Read what is stored for a key. `server_argument` is what the user typed for the server."""
        # Show the name or URL that the user typed, so that the printed commands work.
        shown_as = server_argument or key.server_name
        waiting_logins = tuple(self.waiting_logins.get(key, ()))
        try:
            server = resolve_server(
                shown_as, key.owner, self._configuration, with_suggestions=server_argument is not None
            )
        except ServerNotFound as error:
            if not waiting_logins:
                return ConnectionStatus(key, shown_as, self._now, error=error)
            # The login was started by URL. Neither config.yaml nor the store contains the server yet.
            server = Server(key.server_name, waiting_logins[-1].server_url)
        except McpAuthError as error:
            return ConnectionStatus(key, shown_as, self._now, error=error, waiting_logins=waiting_logins)
        try:
            result: Connection | McpAuthError | None = self._service.blocking.connection(server, key.owner)
        except McpAuthError as error:
            result = error
        return self._status(key, server, server.name if server.is_known else shown_as, result)

    def _status(
        self, key: CredentialKey, server: Server, shown_as: str, result: Connection | McpAuthError | None
    ) -> ConnectionStatus:
        return ConnectionStatus(
            key,
            shown_as,
            self._now,
            result if isinstance(result, Connection) else None,
            result if isinstance(result, McpAuthError) else None,
            uses_machine_grant=server.options.grant != "authorization_code",
            waiting_logins=tuple(self.waiting_logins.get(key, ())),
            server_url=server.url,
        )
