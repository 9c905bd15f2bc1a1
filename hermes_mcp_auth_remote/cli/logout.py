"""`logout`: of one login or of many, each revoked as best it goes, then deleted."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass

from hermes_mcp_auth_remote.cli.output import exit_code, put
from hermes_mcp_auth_remote.cli.servers import known, named, the_home
from hermes_mcp_auth_remote.cli.signals import run_until_stopped
from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError, StoreError
from hermes_mcp_auth_remote.phrases import shown
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.screen import size
from hermes_mcp_auth_remote.terminal.text import NO, YES, filled, trouble
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Key, Owner, Server

# A provider that does not answer takes its time; a company that leaves must not wait for each in turn.
AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Ending:
    """How logging out of one server went; `waiting` counts the logins that were cancelled."""

    key: Key
    was_connected: bool
    waiting: int
    revoked: bool = False
    error: McpAuthError | None = None


def run(options: argparse.Namespace) -> int:
    """Log out. That nobody was logged in is no error; one that fails stops no other."""
    owner: Owner = options.owner
    if options.server is None and owner is None and not options.all:
        options.refuse("name a server, or an owner with --owner, or --all")
    service = AuthService(the_home())
    if options.server is not None and not options.all:
        server = _one(service, options.server, owner)
        ending = run_until_stopped(_log_out(service, Key(server.name, owner), server))
        if ending.error is not None:
            raise ending.error
        _tell(ending, as_json=options.json)
        return 0
    name = None if options.server is None else _name(options.server)
    keys = [*service.keys(), *(login.key for login in service.waiting())]
    wanted = [key for key in dict.fromkeys(keys) if owner in {None, key.owner} and name in {None, key.server}]
    code = run_until_stopped(_log_out_of(service, wanted, as_json=options.json))
    if not wanted and not options.json:
        print(f"{YES} Nobody was logged in.", flush=True)
    return code


def _one(service: AuthService, name: str, owner: Owner) -> Server:
    try:
        return named(name, owner)
    except ConfigError:
        # A mistake in config.yaml keeps nobody logged in.
        key = Key(name, owner)
        stored = service.keys()
        if key not in stored:
            raise
        return known(key)


def _name(server: str) -> str:
    # Whose it is does not matter for an address; a name counts as it is, also one that no config knows.
    return named(server).name if "://" in server else server


async def _log_out_of(service: AuthService, keys: list[Key], *, as_json: bool) -> int:
    """Log out of each, some at once, told in order; returns the exit code of the worst."""
    some = asyncio.Semaphore(AT_ONCE)

    async def one(key: Key) -> Ending:
        async with some:
            return await _log_out(service, key, await run_file_work(known, key))

    worst = 0
    for task in [asyncio.create_task(one(key)) for key in keys]:
        ending = await task
        _tell(ending, as_json=as_json)
        worst = max(worst, 0 if ending.error is None else exit_code(ending.error))
    return worst


async def _log_out(service: AuthService, key: Key, server: Server) -> Ending:
    waiting = sum(login.key == key for login in service.waiting())
    try:
        was_connected = service.connection(server, key.owner) is not None
    except StoreError:
        # Something is there, and whatever it is, it goes.
        was_connected = True
    try:
        revoked = await service.logout(server, key.owner)
    except McpAuthError as error:
        return Ending(key, was_connected, waiting, error=error)
    return Ending(key, was_connected, waiting, revoked)


def _tell(ending: Ending, *, as_json: bool) -> None:
    key, error = ending.key, ending.error
    if as_json:
        event: dict[str, object] = {"server": key.server, "owner": key.owner}
        if error is None:
            event |= {
                "was_connected": ending.was_connected,
                "revoked": ending.revoked,
                "logins_cancelled": ending.waiting,
            }
        else:
            event |= {"error": error.code, "message": str(error), "advice": error.advice}
        put(event)
        return
    columns = size(sys.stdout)[0]
    name = shown(f"{key.server} ({key.owner})" if key.owner else key.server)
    if error is not None:
        print(f"{NO} {name}: the logout failed\n{trouble(error, columns)}", flush=True)
        return
    if ending.was_connected and ending.revoked:
        said = "logged out; the provider has revoked the tokens"
    elif ending.was_connected:
        said = (
            "logged out on this machine. The provider did not revoke the tokens: they end by themselves, "
            "or in your account's settings there"
        )
    else:
        said = "nobody was logged in" if not ending.waiting else "the login that waited is cancelled"
    print(filled(f"{YES} {name}: {said}.", columns), flush=True)
