"""`serve`: bots that log people in, all in one process and loop, until they are stopped.

The command line finds this module by its name alone, as it finds each verb: the room below knows no chats.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from gateway_hooks.dialog.platform import ChatError
from gateway_hooks.dialog.policy import AllowList
from gateway_hooks.dialog.servers import ConfigServers
from gateway_hooks.startup import pause_garbage_collection
from hermes_mcp_auth_remote.cli.output import print_json, print_paragraph
from hermes_mcp_auth_remote.cli.servers import current_home
from hermes_mcp_auth_remote.cli.signals import run_until_stopped
from hermes_mcp_auth_remote.config.chats import (
    PLATFORMS,
    SECTION_NAME,
    ChatSettings,
    PlatformSettings,
    load_chat_settings,
    read_bot_token,
    validate_bot_token,
)
from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError, Unreachable
from hermes_mcp_auth_remote.hermes_home import expand_user
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.files.private_files import read_private
from hermes_mcp_auth_remote.values import Secret

# How a stranger gets an answer.
_FIRST_STEPS = {"telegram": "Write /start to it", "discord": "Use its command /connections"}
# Runs until cancelled; hears a function that is told the bot's name once it has started.
BotRunner = Callable[[Callable[[str], None]], Coroutine[object, object, None]]


@dataclass(frozen=True, slots=True)
class Bot:
    """One platform's bot, ready to run."""

    platform: str
    policy: AllowList
    has_no_users: bool
    run_bot: BotRunner

    @property
    def title(self) -> str:
        """What people call the platform."""
        return self.platform.title()


def run(options: argparse.Namespace) -> int:
    """Serve until stopped, which is no failure; raises what ended a bot, or kept one from starting."""
    wanted = [platform for platform in PLATFORMS if getattr(options, platform)]
    if not wanted:
        options.refuse("name a bot to run: --telegram, --discord or both")
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    home = current_home()
    chats = load_chat_settings(home, os.environ) or ChatSettings()
    service = AuthService(home, device_platforms=chats.device_platforms)
    servers = ConfigServers(home)
    bots = [_make_bot(platform, options, home, chats, service, servers) for platform in wanted]
    if not options.json and not servers.names():
        print_paragraph(
            f"No server is configured yet: people see those that you add to {home / 'config.yaml'} at once."
        )
    try:
        run_until_stopped(run_bots(bots, lambda bot, name: _report_started(bot, name, as_json=options.json)))
    except KeyboardInterrupt:
        if not options.json:
            # The terminal may be what went away.
            with contextlib.suppress(OSError):
                print_paragraph("Stopped.")
    return 0


async def run_bots(bots: list[Bot], on_started: Callable[[Bot, str], None]) -> None:
    """Run bots until cancelled; the first that ends ends all. Raises the McpAuthError that it ended of."""
    tasks = [asyncio.create_task(_run_bot_or_raise(bot, on_started)) for bot in bots]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run_bot_or_raise(bot: Bot, on_started: Callable[[Bot, str], None]) -> None:
    try:
        await bot.run_bot(lambda name: on_started(bot, name))
    except McpAuthError:
        raise
    except ChatError as trouble:
        # A platform's adapter says in a sentence what an operator has to mend.
        raise ConfigError(str(trouble), f"Mend that, and start the {bot.title} bot again.") from None
    except OSError as trouble:
        # By its number: what a library writes there may hold an address, and that the token.
        why = "no connection" if trouble.errno is None else os.strerror(trouble.errno)
        raise Unreachable(f"{bot.title} cannot be reached: {why}.") from None
    except Exception as trouble:  # noqa: BLE001  what a library raises may quote the bot's token
        raise McpAuthError(f"The {bot.title} bot has ended: {type(trouble).__name__}.") from None
    raise McpAuthError(f"The {bot.title} bot has ended.")


def _make_bot(
    platform: str,
    options: argparse.Namespace,
    home: Path,
    chats: ChatSettings,
    service: AuthService,
    servers: ConfigServers,
) -> Bot:
    """Put a bot together; raises ConfigError, StoreUnsafe."""
    people = chats.platform_settings(platform)
    alone = not all(getattr(options, each) for each in PLATFORMS)
    policy = _make_policy(
        people,
        chats,
        frozenset(_parse_user_ids(options.allow, platform, "--allow", is_only_platform=alone)),
        frozenset(_parse_user_ids(options.admin, platform, "--admin", is_only_platform=alone)),
    )
    token = _read_token(platform, getattr(options, f"{platform}_token_file"), home, os.environ)
    try:
        with pause_garbage_collection():
            runner = import_module(f"gateway_hooks.{platform}.bot")
    except ImportError as missing:
        # The libraries are called as their platforms are.
        if (missing.name or "").partition(".")[0] != platform:
            raise
        raise ConfigError(
            f"The library for {platform.title()} is not installed.",
            f"Run `pip install 'hermes-mcp-auth-remote[{platform}]'`.",
        ) from None
    api_url = getattr(options, f"{platform}_api")
    if api_url is not None and not re.match(r"https?://[^/\s]+", api_url):
        raise ConfigError(f"--{platform}-api is no address.", "Pass one that begins with https://.")
    further: dict[str, object] = {"api_url": api_url}
    if people.webhook is not None:
        further["webhook"] = runner.Webhook(
            people.webhook.url,
            people.webhook.listen,
            people.webhook.port,
            certificate=people.webhook.certificate and Path(people.webhook.certificate),
            key=people.webhook.key and Path(people.webhook.key),
        )

    def run_bot(on_started: Callable[[str], None]) -> Coroutine[object, object, None]:
        work: Coroutine[object, object, None] = runner.run_bot(
            token, service, servers, policy, on_started=on_started, **further
        )
        return work

    is_for_nobody = not (policy.users or policy.admins or policy.roles or policy.admin_roles)
    return Bot(platform, policy, is_for_nobody, run_bot)


def _make_policy(
    people: PlatformSettings, chats: ChatSettings, allowed_ids: frozenset[str], admin_ids: frozenset[str]
) -> AllowList:
    """Add those whom the command names to those whom config.yaml names."""
    return AllowList(
        users=people.allow | allowed_ids,
        admins=people.admins if not admin_ids else (people.admins or frozenset()) | admin_ids,
        roles=people.roles,
        admin_roles=people.admin_roles,
        guilds=people.guilds,
        owners=chats.owners,
    )


def _parse_user_ids(
    values: list[str], platform: str, option: str, *, is_only_platform: bool
) -> Iterator[str]:
    """Yield the ids that are meant for a platform: "7", "7,8", "telegram:7"; raises ConfigError."""
    for word in (word for each in values for word in re.split(r"[\s,]+", each) if word):
        named, separator, user = word.rpartition(":")
        if not re.fullmatch(r"[0-9]{1,20}", user) or (separator and named not in PLATFORMS):
            raise ConfigError(
                f"{option} takes ids, which are numbers.", "The bot tells whoever writes to it their id."
            )
        if not separator and not is_only_platform:
            raise ConfigError(
                f"{option} does not say of which platform the id is.",
                f"Write {option} telegram:ID or discord:ID.",
            )
        if named in {"", platform}:
            yield user


def _read_token(platform: str, path: str | None, home: Path, environ: Mapping[str, str]) -> Secret:
    if path is None:
        return read_bot_token(platform, home, environ)
    data = read_private(expand_user(path, f"Write the path of --{platform}-token-file in full."))
    if data is None:
        raise ConfigError(f"There is no file {path}.", "Put the bot's token into it, alone, mode 0600.")
    return validate_bot_token(data.decode("utf-8", "replace").strip(), platform)


def _report_started(bot: Bot, bot_name: str, *, as_json: bool) -> None:
    """Say that a bot has started, for whom, and whose the tokens are."""
    owners = bot.policy.owners
    if as_json:
        print_json(
            {
                "event": "serving",
                "platform": bot.platform,
                "bot": bot_name,
                "owners": owners,
                "nobody": bot.has_no_users,
            }
        )
        return
    whose = "share the operator's tokens" if owners == "shared" else "use tokens of their own"
    print_paragraph(
        f"{bot.title}: {bot_name} is at work. All who may use it {whose} ({SECTION_NAME}.owners). "
        "Ctrl-C stops it."
    )
    if bot.has_no_users:
        how = _FIRST_STEPS[bot.platform]
        print_paragraph(
            f"Nobody may use it yet. {how}, and it answers with your id; then start it again with "
            f"--allow ID, or list the id under {SECTION_NAME}.{bot.platform}.allow in config.yaml."
        )
