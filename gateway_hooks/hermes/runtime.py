"""Attach a HermesAdapter to each of the gateway's platform adapters, and load tools after logins.

All code here runs on the gateway's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.dialog.platform import ChatError
from gateway_hooks.hermes import internals as hermes
from gateway_hooks.hermes.adapter import HermesAdapter
from gateway_hooks.hermes.commands import skip_if_code
from gateway_hooks.hermes.login_cache import LoginCache
from gateway_hooks.hermes.mcp_tools import ensure_connected
from gateway_hooks.log_redaction import redact_discord_logs, redact_logs
from gateway_hooks.runtime.config_servers import ConfigServers
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service.default import service_at
from hermes_mcp_auth_remote.threads import run_in_own_thread

# How often this module looks for replaced adapters and for logins that another process finished.
SYNC_INTERVAL_SECONDS = 0.5
# If a server's tools are not loaded, this module says so after the bot has shown the outcome of the login.
# It checks this many times whether the bot has shown the outcome; after that, it tells the user in any case.
MESSAGE_SYNC_TRIES = 20
# These platforms have no identified users. For example, every program that knows an ntfy topic can read it.
PLATFORMS_WITHOUT_USERS = frozenset(
    {"api_server", "cron", "homeassistant", "local", "msgraph_webhook", "ntfy", "raft", "webhook"}
)

log = logging.getLogger(__name__)


class GatewayRuntime:
    """The plugin's state while a gateway runs. Create it on the gateway's event loop."""

    def __init__(self, gateway: Any) -> None:  # noqa: ANN401  Hermes's own
        self.gateway = gateway
        self.loop = asyncio.get_running_loop()
        # Report a missing HERMES_HOME at the start, not at the first message. Raises ConfigError.
        hermes.home_of("")
        self._adapters: dict[int, HermesAdapter] = {}
        # The keys are the HERMES_HOME directories: each profile has its own.
        self._login_caches: dict[Path, LoginCache] = {}
        self._handled_login_ids: dict[Path, set[str]] = {}
        self._logged_store_errors: set[Path] = set()
        self._connect_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Attach to all adapters now, and to new ones as they appear."""
        self.sync_adapters()
        self._spawn(self._run_sync_loop())

    def sync_adapters(self) -> None:
        """Attach to adapters that are new or have reconnected, and detach from those that are gone."""
        refs: dict[int, hermes.AdapterRef] = {}
        for adapter_ref in hermes.adapter_refs(self.gateway):
            if adapter_ref.platform_name not in PLATFORMS_WITHOUT_USERS:
                refs[id(adapter_ref.platform_adapter)] = adapter_ref
        for key, adapter in list(self._adapters.items()):
            current_ref = refs.get(key)
            if (
                current_ref is None
                or current_ref.platform_adapter is not adapter.adapter_ref.platform_adapter
                or not adapter.is_current
            ):
                del self._adapters[key]
                self._spawn(adapter.stop())
        for key, adapter_ref in refs.items():
            if key not in self._adapters:
                self._start_adapter(key, adapter_ref)
            hermes.wrap_busy_handler(adapter_ref.platform_adapter, self.handle_event)

    def adapter_for_source(self, source: Any) -> HermesAdapter | None:  # noqa: ANN401  Hermes's own
        """Return the adapter for a SessionSource of Hermes; None if there is no such adapter."""
        return self._adapters.get(id(hermes.platform_adapter_for(self.gateway, source)))

    def adapter_for_platform(self, platform: str, profile: str = "") -> HermesAdapter | None:
        """Return the adapter for a platform's name and a profile; None if there is no such adapter."""
        wanted = (platform, "" if profile == "default" else profile)
        for adapter in self._adapters.values():
            if (adapter.adapter_ref.platform_name, adapter.adapter_ref.profile) == wanted:
                return adapter
        return None

    def _start_adapter(self, key: int, adapter_ref: hermes.AdapterRef) -> None:
        login_cache = self._login_cache_at(hermes.home_of(adapter_ref.profile))
        redact_adapter_logs(adapter_ref.platform_adapter)
        try:
            adapter_class = _adapter_class_for(adapter_ref)
            if adapter_class is None:
                return
            adapter = adapter_class(self.gateway, adapter_ref, login_cache)
            adapter.start()
        except Exception as error:  # noqa: BLE001  Hermes's adapter may have changed
            hermes.warn_once(
                f"Hermes's {adapter_ref.platform_name} adapter has changed ({type(error).__name__}): "
                "logins there are in plain text."
            )
            adapter = HermesAdapter(self.gateway, adapter_ref, login_cache)
            adapter.start()
        self._adapters[key] = adapter

    def handle_event(self, hermes_event: Any) -> dict[str, str] | None:  # noqa: ANN401  Hermes's own
        """Claim our part of an event; return the hook action, None to leave the event to Hermes."""
        try:
            self.sync_adapters()
            adapter = self.adapter_for_source(hermes_event.source)
            if adapter is not None:
                return adapter.handle_event(hermes_event)
            return (
                None
                if hermes.name_of_platform(hermes_event.source.platform) in PLATFORMS_WITHOUT_USERS
                else skip_if_code(hermes_event)
            )
        except Exception as error:  # noqa: BLE001  else Hermes would log the text and handle the message
            log.error("A message could not be read: %s.", type(error).__name__)  # noqa: TRY400
            return skip_if_code(hermes_event)

    async def connect_server(self, server_name: str, profile: str = "") -> bool:
        """Make Hermes load a server's tools for a profile; return False if that failed."""
        async with self._connect_lock:
            return await run_in_own_thread(ensure_connected, server_name, profile)

    def _login_cache_at(self, home: Path) -> LoginCache:
        if home not in self._login_caches:
            self._login_caches[home] = LoginCache(service_at(home), ConfigServers(home))
        return self._login_caches[home]

    async def _run_sync_loop(self) -> None:
        # Imports modules of Hermes, which may take a while.
        sentences, has_all = await run_in_own_thread(hermes.describe_installation, self.gateway)
        log.log(logging.INFO if has_all else logging.WARNING, "The plugin runs in %s", sentences)
        while True:
            try:
                self.sync_adapters()
                for profile in sorted({"", *(ref.adapter_ref.profile for ref in self._adapters.values())}):
                    await self._connect_finished_logins(profile)
            except Exception as error:  # noqa: BLE001  the loop must go on
                log.error("The gateway's adapters could not be checked: %s.", type(error).__name__)  # noqa: TRY400
            await asyncio.sleep(SYNC_INTERVAL_SECONDS)

    async def _connect_finished_logins(self, profile: str) -> None:
        """Load the tools of each server that has a new finished login, of this or of another process."""
        home = hermes.home_of(profile)
        login_cache = self._login_cache_at(home)
        await login_cache.refresh()
        if login_cache.error is not None:
            self._log_store_error(home, login_cache.error)
            return
        self._logged_store_errors.discard(home)
        done = {
            login.id: login
            for login in login_cache.logins
            if login.status == "done" and login.key.owner is None
        }
        is_first_check = home not in self._handled_login_ids
        handled_ids = self._handled_login_ids.setdefault(home, set())
        for login in [login for login in done.values() if login.id not in handled_ids]:
            handled_ids.add(login.id)
            self._spawn(self._connect_after_login(login, profile, should_notify=not is_first_check))
        handled_ids &= done.keys()

    def _log_store_error(self, home: Path, error: McpAuthError) -> None:
        """Log why the logins of a home cannot be read. Log it only once until they can be read again."""
        if home not in self._logged_store_errors:
            self._logged_store_errors.add(home)
            log.warning("The logins cannot be read: %s", error)

    async def _connect_after_login(self, login: Login, profile: str, *, should_notify: bool) -> None:
        name = login.key.server_name
        is_live = await self.connect_server(name, profile)
        if not should_notify:
            return
        if is_live:
            log.info("The tools of %s are loaded.", name)
            return
        # Wait until the bot has sent the message that reports the connection: the bot then empties
        # `message_ids`.
        service = self._login_cache_at(hermes.home_of(profile)).service
        for _ in range(MESSAGE_SYNC_TRIES):
            with contextlib.suppress(McpAuthError):
                if not (await service.login(login.id)).message_ids:
                    break
            await asyncio.sleep(SYNC_INTERVAL_SECONDS)
        adapter = self.adapter_for_platform(login.origin.platform, profile)
        if adapter is not None and login.origin.user_id:
            title = ENGLISH.connected_title.format(server=name)
            text = ENGLISH.tools_not_loaded.format(command="/reload-mcp")
            with contextlib.suppress(ChatError):
                await adapter.platform.private_chat(login.origin.user_id).send(
                    Card(title, paragraphs=(text,))
                )

    def _spawn(self, coroutine: Any) -> None:  # noqa: ANN401  a coroutine
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def redact_adapter_logs(platform_adapter: Any) -> None:  # noqa: ANN401  Hermes's own
    """Remove secrets from the logs of an adapter and its library. The one for Discord logs whole commands."""
    redact_logs(type(platform_adapter).__module__)
    # Also if the plugin finds no client: then it reads answers as plain text.
    redact_discord_logs()


def _adapter_class_for(adapter_ref: hermes.AdapterRef) -> type[HermesAdapter] | None:
    """Return the class for an adapter; None until it is connected. Raises AttributeError."""
    if adapter_ref.platform_name == "telegram":
        from gateway_hooks.hermes.telegram import HermesTelegramAdapter  # noqa: PLC0415  needs the library

        return (
            None
            if hermes.telegram_application(adapter_ref.platform_adapter) is None
            else HermesTelegramAdapter
        )
    if adapter_ref.platform_name == "discord":
        from gateway_hooks.hermes.discord import HermesDiscordAdapter  # noqa: PLC0415  needs the library

        return None if hermes.discord_client(adapter_ref.platform_adapter) is None else HermesDiscordAdapter
    return HermesAdapter
