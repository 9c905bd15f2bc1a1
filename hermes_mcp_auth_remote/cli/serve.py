"""`serve`: run the bots in which users log in, in one process and event loop, until a signal.

This module imports `gateway_hooks`. No other module of the package depends on the chat platforms.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import cast
from urllib.parse import urlsplit

from gateway_hooks.dialog.platform import ChatError
from gateway_hooks.dialog.policy import AllowList
from gateway_hooks.runtime.admission import Admission
from gateway_hooks.runtime.config_servers import ConfigServers
from hermes_mcp_auth_remote.cancellation import end_tasks
from hermes_mcp_auth_remote.cli.extras import install_extras_command
from hermes_mcp_auth_remote.cli.output import print_json, print_paragraph
from hermes_mcp_auth_remote.cli.servers import current_home
from hermes_mcp_auth_remote.cli.signals import run_until_stopped
from hermes_mcp_auth_remote.config.chats import (
    SECTION_NAME,
    ChatSettings,
    PlatformSettings,
    load_chat_settings,
    read_bot_token,
    validate_bot_token,
)
from hermes_mcp_auth_remote.config.secret_files import read_secret_file
from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError, Unreachable
from hermes_mcp_auth_remote.garbage_collection import pause_garbage_collection
from hermes_mcp_auth_remote.hermes_home import expand_user
from hermes_mcp_auth_remote.oauth.urls import is_loopback_host
from hermes_mcp_auth_remote.platforms import PLATFORMS, ChatPlatform, id_examples, join_alternatives
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Secret

EXAMPLE_CONFIG = """\
  mcp_servers:
    linear:
      url: https://mcp.linear.app/mcp
      auth: oauth"""

# When `serve` stops, the time in which a bot may close: it sends its last edits and ends the work that it has
# begun. The tokens of a sent token request are stored even if that takes longer (`exit_delay`).
CLOSE_SECONDS = 30.0
# How long tasks that do not end are cancelled again and again. Both times together are shorter than the 90
# seconds after which systemd kills a service.
END_SECONDS = 10.0

log = logging.getLogger(__name__)

# A function that runs a bot until it is cancelled. Its argument is a callback: the function calls it with the
# bot's name when the bot has started.
BotRunner = Callable[[Callable[[str], None]], Coroutine[object, object, None]]


@dataclass(frozen=True, slots=True)
class Bot:
    """One platform's bot, ready to run."""

    platform: ChatPlatform
    policy: AllowList
    has_no_users: bool
    run_bot: BotRunner
    admission: Admission | None = None

    @property
    def title(self) -> str:
        """The platform's name for people."""
        return self.platform.title


def run(options: argparse.Namespace) -> int:
    """Serve until a signal arrives; return 0. Raises the McpAuthError that ended or prevented a bot."""
    platforms = [platform for platform in PLATFORMS.values() if _option(options, platform.name)]
    if not platforms:
        names = join_alternatives(f"--{name}" for name in PLATFORMS)
        options.refuse(f"name one or more bots to run: {names}")
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    home = current_home()
    chats = load_chat_settings(home, os.environ) or ChatSettings()
    service = AuthService(home, device_platforms=chats.device_platforms)
    servers = ConfigServers(home)
    bots = [_make_bot(platform, options, home, chats, service, servers) for platform in platforms]
    if not options.json and not servers.names():
        _print_example(home / "config.yaml", bots)
    try:
        run_until_stopped(_serve(bots, as_json=options.json))
    except KeyboardInterrupt:
        if not options.json:
            # OSError: the terminal may be closed.
            with contextlib.suppress(OSError):
                print_paragraph("Stopped.")
    return 0


def _print_example(path: Path, bots: list[Bot]) -> None:
    """Say how to configure a server, with lines to copy."""
    print_paragraph(f"No server is configured yet. Add one to {path}; the bot sees it at once:")
    print(EXAMPLE_CONFIG, file=sys.stderr, flush=True)
    if all(bot.policy.allows_urls for bot in bots):
        commands = dict.fromkeys(f"{bot.platform.command_prefix}connect" for bot in bots)
        print_paragraph(
            f"An administrator can also send {join_alternatives(commands)} and the https address of a server."
        )


async def _serve(bots: list[Bot], *, as_json: bool) -> None:
    """Run bots until cancelled, then end all tasks of this event loop."""
    try:
        await run_bots(bots, lambda bot, name: _report_started(bot, name, as_json=as_json))
    finally:
        # `asyncio.run` would cancel them only once.
        this_task = asyncio.current_task()
        await end_tasks([task for task in asyncio.all_tasks() if task is not this_task], END_SECONDS)


async def run_bots(bots: list[Bot], on_started: Callable[[Bot, str], None]) -> None:
    """Run bots until cancelled. If one bot ends, end all and raise its McpAuthError."""
    tasks = [asyncio.create_task(_run_bot_or_raise(bot, on_started)) for bot in bots]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await _stop_bots(tasks)


async def _stop_bots(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel bots and wait until they have closed.

    After CLOSE_SECONDS, or if this function is cancelled itself (a second signal), bots that still run are
    cancelled again until they end, for END_SECONDS.
    """
    for task in tasks:
        task.cancel()
    try:
        await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
    finally:
        if not await end_tasks(tasks, END_SECONDS):
            log.warning("A bot does not stop.")
        for task in tasks:
            if task.done() and not task.cancelled():
                # Mark the error as read: Python would log it with the library's text.
                task.exception()


async def _run_bot_or_raise(bot: Bot, on_started: Callable[[Bot, str], None]) -> None:
    try:
        await bot.run_bot(lambda name: on_started(bot, name))
    except Exception as error:  # noqa: BLE001  a library's exception may quote the bot's token
        raise _error_of_bot(bot, _first_of_group(error)) from None
    raise McpAuthError(f"The {bot.title} bot has ended.")


def _first_of_group(error: Exception) -> Exception:
    """Return the first error of a group: a bot that uses a TaskGroup raises one."""
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    return error


def _error_of_bot(bot: Bot, error: Exception) -> McpAuthError:
    """Return the error for the operator. It contains no text of a library."""
    match error:
        case McpAuthError():
            return error
        case ChatError():
            # The message of a ChatError tells the operator what is wrong.
            return ConfigError(str(error), f"Fix this and start the {bot.title} bot again.")
        case OSError():
            # Use only the error number: a library's text may contain a URL with the bot's token.
            reason = "no connection" if error.errno is None else os.strerror(error.errno)
            return Unreachable(f"{bot.title} cannot be reached: {reason}.")
        case _:
            return McpAuthError(f"The {bot.title} bot has ended: {type(error).__name__}.")


def _make_bot(
    platform: ChatPlatform,
    options: argparse.Namespace,
    home: Path,
    chats: ChatSettings,
    service: AuthService,
    servers: ConfigServers,
) -> Bot:
    """Create a bot. Raises ConfigError or StoreUnsafe."""
    platform_settings = chats.platform_settings(platform.name)
    is_only_platform = sum(bool(_option(options, name)) for name in PLATFORMS) == 1
    policy = _make_policy(
        platform_settings,
        chats,
        frozenset(_parse_user_ids(options.allow, platform, "--allow", is_only_platform=is_only_platform)),
        frozenset(_parse_user_ids(options.admin, platform, "--admin", is_only_platform=is_only_platform)),
    )
    admission = Admission(policy, platform.name, service.blocking.people, time.time)
    token_file = _option(options, f"{platform.name}_token_file")
    token = _read_token(platform, token_file, home, os.environ)
    api_url = _option(options, f"{platform.name}_api")
    if api_url is not None:
        _check_api_url(api_url, platform, allows_http=options.allow_plain_http_api)
    platform_arguments: dict[str, object] = {"api_url": api_url}
    if platform_settings.webhook is not None:
        platform_arguments["webhook"] = platform_settings.webhook
    runner = _import_runner(platform)

    def run_bot(on_started: Callable[[str], None]) -> Coroutine[object, object, None]:
        bot_run: Coroutine[object, object, None] = runner.run_bot(
            token, service, servers, admission, on_started=on_started, **platform_arguments
        )
        return bot_run

    return Bot(platform, policy, admission.has_no_users, run_bot, admission)


def _option(options: argparse.Namespace, name: str) -> str | None:
    """Return the value of a platform's option. The value of a flag is a bool: use only its truth."""
    value: str | None = getattr(options, name.replace("-", "_"))
    return value


def _import_runner(platform: ChatPlatform) -> ModuleType:
    """Import the module that runs a platform's bot. Raises ConfigError if its library is missing."""
    try:
        with pause_garbage_collection():
            return import_module(f"{platform.package}.bot")
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in platform.libraries:
            raise
        raise ConfigError(
            f"The library for {platform.title} is not installed.",
            f"Run `{install_extras_command(platform.extra)}`.",
        ) from None


def _check_api_url(api_url: str, platform: ChatPlatform, *, allows_http: bool) -> None:
    """Raise ConfigError unless a bot's token may be sent to this URL: https, or http on this machine."""
    option = f"--{platform.name}-api"
    try:
        parts = urlsplit(api_url)
        host = parts.hostname or ""
    except ValueError:
        parts, host = None, ""
    if parts is None or parts.scheme not in {"https", "http"} or not host or re.search(r"\s", api_url):
        raise ConfigError(f"{option} is not a URL.", "Pass a URL that begins with https://.")
    if parts.scheme == "http" and not (allows_http or is_loopback_host(host)):
        raise ConfigError(
            f"{option} is plain http on another machine: everyone on the way could read the bot's token.",
            "Pass an https URL. If only you control the network in between, add --allow-plain-http-api.",
        )


def _make_policy(
    platform_settings: PlatformSettings,
    chats: ChatSettings,
    allowed_ids: frozenset[str],
    admin_ids: frozenset[str],
) -> AllowList:
    """Combine the users of the command line with the users of config.yaml."""
    return AllowList(
        users=platform_settings.allow | allowed_ids,
        admins=platform_settings.admins
        if not admin_ids
        else (platform_settings.admins or frozenset()) | admin_ids,
        roles=platform_settings.roles,
        admin_roles=platform_settings.admin_roles,
        guilds=platform_settings.guilds,
        owners=chats.owners,
        connect_urls=chats.connect_urls,
    )


def _parse_user_ids(
    values: list[str], platform: ChatPlatform, option: str, *, is_only_platform: bool
) -> Iterator[str]:
    """Yield the user ids for a platform from values such as "7", "7,8" or "telegram:7".

    Raises ConfigError for any other value.
    """
    for word in (word for value in values for word in re.split(r"[\s,]+", value) if word):
        prefix, separator, rest = word.partition(":")
        # An id may contain a colon itself.
        named_platform, user_id = (
            (PLATFORMS[prefix], rest) if separator and prefix in PLATFORMS else (None, word)
        )
        id_platform = named_platform or platform
        if named_platform is None and not is_only_platform:
            raise ConfigError(
                f"{option} does not name the platform of the id.", f"Write {option} {id_examples()}."
            )
        if not id_platform.accepts_id(user_id):
            raise ConfigError(
                f"{option} takes ids, which are {id_platform.id_rule}.",
                "To get your id, write to the bot.",
            )
        if id_platform is platform:
            yield user_id


def _read_token(platform: ChatPlatform, path: str | None, home: Path, environ: Mapping[str, str]) -> Secret:
    if path is None:
        return read_bot_token(platform, home, environ)
    data = read_secret_file(expand_user(path, f"Write the path of --{platform.name}-token-file in full."))
    if data is None:
        raise ConfigError(
            f"There is no file {path}.", "Create it with mode 0600 and only the bot's token in it."
        )
    return validate_bot_token(data.decode("utf-8", "replace").strip(), platform)


def _report_started(bot: Bot, bot_name: str, *, as_json: bool) -> None:
    """Print that a bot has started, who may use it, and whose tokens it uses."""
    owners = bot.policy.owners
    if as_json:
        print_json(
            {
                "event": "serving",
                "platform": bot.platform.name,
                "bot": bot_name,
                "owners": owners,
                "has_no_users": bot.has_no_users,
            }
        )
        return
    token_text = "share the operator's tokens" if owners == "shared" else "use their own tokens"
    print_paragraph(
        f"{bot.title}: {bot_name} is running. Its users {token_text} ({SECTION_NAME}.owners). "
        "Ctrl-C stops it."
    )
    if not bot.has_no_users:
        return
    if bot.admission is not None and sys.stderr.isatty():
        code = bot.admission.start_pairing()
        link = bot.platform.pairing_link.format(bot=bot_name.removeprefix("@"), code=code)
        open_link = f", or open {link}" if link else ""
        print_paragraph(
            f"No user may use it yet. Send it the code {code} in a private message{open_link}. The first "
            "user who does so within ten minutes becomes its administrator."
        )
    else:
        print_paragraph(
            f"No user may use it yet. {bot.platform.first_step}, and it responds with your id. "
            "Then start it again with --allow ID, or list the id under "
            f"{SECTION_NAME}.{bot.platform.name}.allow in config.yaml."
        )
