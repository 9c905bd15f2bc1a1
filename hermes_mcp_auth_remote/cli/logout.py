"""`logout`: revoke the tokens of one or more logins if possible, then delete them. RFC 7009."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from dataclasses import dataclass

from hermes_mcp_auth_remote.cli.output import error_members, exit_code, print_json, print_result
from hermes_mcp_auth_remote.cli.owners import find_owner_error
from hermes_mcp_auth_remote.cli.servers import (
    current_configuration,
    current_home,
    resolve_server,
    server_for_key,
)
from hermes_mcp_auth_remote.cli.signals import run_until_stopped
from hermes_mcp_auth_remote.errors import (
    ConfigError,
    McpAuthError,
    OwnerNotFound,
    SchemeMissing,
    ServerNotFound,
    StoreError,
)
from hermes_mcp_auth_remote.phrases import display_url, replace_unprintable
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.text import CHECK_MARK, CROSS_MARK, error_text, marked_text
from hermes_mcp_auth_remote.terminal.window import terminal_size
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import CredentialKey, Owner, Server

# Log out concurrently: an authorization server that does not respond must not delay the others.
MAX_CONCURRENT_LOGOUTS = 8
UNKNOWN_NAME_ADVICE = "Run `hermes-mcp-auth status`: it lists the logins."


@dataclass(frozen=True, slots=True)
class LogoutResult:
    """The result of one logout. `cancelled_count` is the number of waiting logins that it cancelled."""

    key: CredentialKey
    was_connected: bool
    cancelled_count: int
    was_revoked: bool = False
    error: McpAuthError | None = None


def run(options: argparse.Namespace) -> int:
    """Log out. A known server or owner needs no login. If one logout fails, the others continue.

    Raises ServerNotFound and OwnerNotFound if nothing has the name, the address or the owner: it may be
    mistyped, and its login would remain. With `--ignore-missing`, returns 0 instead.
    """
    if options.server is None and options.owner is None and not options.all:
        options.refuse("name a server, or an owner with --owner, or --all")
    try:
        return _run(options)
    except (OwnerNotFound, ServerNotFound) as error:
        if not options.ignore_missing or isinstance(error, SchemeMissing):
            raise
        _print_no_login(as_json=options.json)
        return 0


def _run(options: argparse.Namespace) -> int:
    owner: Owner = options.owner
    service = AuthService(current_home())
    owner_error = find_owner_error(service, owner)
    if owner_error is not None and _is_chat_user(service, owner):
        owner_error = None
    if options.server is not None and not options.all:
        server = _resolve_stored_server(service, options.server, owner)
        result = run_until_stopped(_log_out(service, CredentialKey(server.name, owner), server))
        # Also without a token, the logout has deleted what was stored.
        if (error := result.error or owner_error) is not None:
            raise error
        _print_result(result, as_json=options.json)
        return 0
    if owner_error is not None:
        raise owner_error
    name = None if options.server is None else _resolve_name(options.server)
    keys = [*service.blocking.keys(), *(login.key for login in service.blocking.waiting_logins())]
    selected_keys = [
        key for key in dict.fromkeys(keys) if owner in {None, key.owner} and name in {None, key.server_name}
    ]
    if options.server is not None and not selected_keys:
        # The name may be mistyped.
        _resolve_stored_server(service, options.server, owner)
    code = run_until_stopped(_log_out_all(service, selected_keys, as_json=options.json))
    if not selected_keys:
        _print_no_login(as_json=options.json)
    return code


def _is_chat_user(service: AuthService, owner: Owner) -> bool:
    """True for a user of `mcp_auth_chats`, or one that was admitted in a chat: known without a login."""
    # Import late: only an owner without a login needs these.
    from hermes_mcp_auth_remote.config.chats import ChatSettings, read_chat_settings

    users = {f"{person.platform}:{person.user_id}" for person in service.blocking.people.list_all()}
    # A mistake in config.yaml must not prevent a logout.
    with contextlib.suppress(ConfigError):
        settings = read_chat_settings(current_configuration()) or ChatSettings()
        for platform, rules in settings.platforms.items():
            allowed_ids = rules.allow | (rules.admins or frozenset())
            users.update(f"{platform}:{user_id}" for user_id in allowed_ids)
    return owner in users


def _print_no_login(*, as_json: bool) -> None:
    if not as_json:
        print_result(f"{CHECK_MARK} There was no login.")


def _resolve_stored_server(service: AuthService, name: str, owner: Owner) -> Server:
    try:
        server = resolve_server(name, owner, unknown_name_advice=UNKNOWN_NAME_ADVICE)
    except ConfigError:
        # A mistake in config.yaml must not prevent a logout.
        key = CredentialKey(name, owner)
        stored_keys = service.blocking.keys()
        if key not in stored_keys:
            raise
        return server_for_key(key)
    if not server.is_known:
        raise ServerNotFound(f"No server has the address {display_url(name)}.", UNKNOWN_NAME_ADVICE)
    return server


def _resolve_name(server: str) -> str:
    # A URL has the same name for every owner. Accept a name that config.yaml does not contain.
    return resolve_server(server).name if "://" in server else server


async def _log_out_all(service: AuthService, keys: list[CredentialKey], *, as_json: bool) -> int:
    """Log out of all keys concurrently. Print the results in order; return the highest exit code."""
    semaphore, configuration = asyncio.Semaphore(MAX_CONCURRENT_LOGOUTS), current_configuration()

    async def log_out_one(key: CredentialKey) -> LogoutResult:
        async with semaphore:
            return await _log_out(service, key, await run_file_work(server_for_key, key, configuration))

    highest_code = 0
    for task in [asyncio.create_task(log_out_one(key)) for key in keys]:
        result = await task
        _print_result(result, as_json=as_json)
        highest_code = max(highest_code, 0 if result.error is None else exit_code(result.error))
    return highest_code


async def _log_out(service: AuthService, key: CredentialKey, server: Server) -> LogoutResult:
    waiting_count = sum(login.key == key for login in await service.waiting_logins())
    try:
        was_connected = await service.connection(server, key.owner) is not None
    except StoreError:
        # The stored file is unreadable. The logout deletes it.
        was_connected = True
    try:
        was_revoked = await service.logout(server, key.owner)
    except McpAuthError as error:
        return LogoutResult(key, was_connected, waiting_count, error=error)
    return LogoutResult(key, was_connected, waiting_count, was_revoked)


def _print_result(result: LogoutResult, *, as_json: bool) -> None:
    key, error = result.key, result.error
    if as_json:
        print_json(
            {
                "event": "logout",
                "server": key.server_name,
                "owner": key.owner,
                "was_connected": result.was_connected,
                "revoked": result.was_revoked,
                "logins_cancelled": result.cancelled_count,
                **error_members(error),
            }
        )
        return
    columns = terminal_size(sys.stdout)[0]
    name = replace_unprintable(f"{key.server_name} ({key.owner})" if key.owner else key.server_name)
    if error is not None:
        print_result(f"{CROSS_MARK} {name}: the logout failed\n{error_text(error, columns)}")
        return
    if result.was_connected and result.was_revoked:
        outcome = "logged out; the provider has revoked the tokens"
    elif result.was_connected:
        outcome = (
            "logged out on this machine. The provider did not revoke the tokens: wait until they expire, "
            "or revoke them in your account settings at the provider"
        )
    else:
        outcome = "there was no login" if not result.cancelled_count else "the waiting login is cancelled"
    print_result(marked_text(CHECK_MARK, f"{name}: {outcome}.", columns))
