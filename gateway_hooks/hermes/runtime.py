"""Inside the gateway that runs: a seat at each adapter, also at those that come later; and live tools.

All of it happens on the gateway's own event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.dialog.platform import ChatError
from gateway_hooks.dialog.servers import ConfigServers
from gateway_hooks.hermes import internals as hermes
from gateway_hooks.hermes.adapter import HermesAdapter
from gateway_hooks.hermes.commands import skip_if_code
from gateway_hooks.hermes.mcp_tools import ensure_connected
from gateway_hooks.log_redaction import SecretFilter
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service.default import service_at
from hermes_mcp_auth_remote.store.files.private_files import MTIME_RESOLUTION_NS
from hermes_mcp_auth_remote.threads import run_file_work, run_in_own_thread

# How soon an adapter that has taken another's place is attended, and a login that was finished elsewhere.
SYNC_INTERVAL_SECONDS = 0.5
# How often it is looked whether people know that a login is done, before more is said about it.
MESSAGE_SYNC_TRIES = 20
# What speaks there is no person, or nobody in particular: a topic of ntfy's is read by whoever knows it.
PLATFORMS_WITHOUT_USERS = frozenset(
    {"api_server", "cron", "homeassistant", "local", "msgraph_webhook", "ntfy", "raft", "webhook"}
)

BusyHandler = Callable[[Any, str], Awaitable[bool]]

log = logging.getLogger(__name__)

_LOG_FILTER = SecretFilter()


class GatewayRuntime:
    """What the plugin is while a gateway runs. Made on its event loop."""

    def __init__(self, gateway: Any) -> None:  # noqa: ANN401  Hermes's own
        self.gateway = gateway
        self.loop = asyncio.get_running_loop()
        self.service = service_at(hermes.home_of(""))
        self._adapters: dict[int, HermesAdapter] = {}
        self._logins_changed_at_ns = -1
        self._handled_login_ids: set[str] | None = None
        self._connect_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Attend all adapters that are there now, and from now on."""
        self.sync_adapters()
        self._spawn(self._run_sync_loop())

    def sync_adapters(self) -> None:
        """Attend adapters that are new or have connected anew, and leave those that are gone."""
        there: dict[int, hermes.AdapterRef] = {}
        for attached in hermes.adapter_refs(self.gateway):
            if attached.platform_name not in PLATFORMS_WITHOUT_USERS:
                there[id(attached.platform_adapter)] = attached
        for key, seat in list(self._adapters.items()):
            held = there.get(key)
            if (
                held is None
                or held.platform_adapter is not seat.adapter_ref.platform_adapter
                or not seat.is_current
            ):
                del self._adapters[key]
                self._spawn(seat.stop())
        for key, attached in there.items():
            if key not in self._adapters:
                self._start_adapter(key, attached)
            self._wrap_busy_handler(attached.platform_adapter)

    def adapter_for_source(self, source: Any) -> HermesAdapter | None:  # noqa: ANN401  Hermes's own
        """Return the seat for what Hermes says of a place."""
        try:
            adapter = self.gateway._adapter_for_source(source)  # noqa: SLF001
        except Exception:  # noqa: BLE001  whatever has moved
            held: dict[Any, Any] = getattr(self.gateway, "adapters", None) or {}
            adapter = held.get(source.platform)
        return self._adapters.get(id(adapter))

    def adapter_for_platform(self, platform: str, profile: str = "") -> HermesAdapter | None:
        """Return the seat at a platform, by its name."""
        wanted = (platform, "" if profile == "default" else profile)
        seats = self._adapters.values()
        return next(
            (seat for seat in seats if (seat.adapter_ref.platform_name, seat.adapter_ref.profile) == wanted),
            None,
        )

    def _start_adapter(self, key: int, adapter_ref: hermes.AdapterRef) -> None:
        home = hermes.home_of(adapter_ref.profile)
        redact_adapter_logs(adapter_ref.platform_adapter)
        try:
            kind = _adapter_class_for(adapter_ref)
            if kind is None:
                return
            seat = kind(self.gateway, adapter_ref, service_at(home), ConfigServers(home))
            seat.start()
        except Exception as trouble:  # noqa: BLE001  Hermes's adapter may be another than the one we know
            hermes.warn_once(
                f"Hermes's {adapter_ref.platform_name} adapter has changed ({type(trouble).__name__}): "
                "logins there are in plain text."
            )
            seat = HermesAdapter(self.gateway, adapter_ref, service_at(home), ConfigServers(home))
            seat.start()
        self._adapters[key] = seat

    def _wrap_busy_handler(self, platform_adapter: Any) -> None:  # noqa: ANN401  Hermes's own
        """Hear what is written while a turn runs: Hermes asks no hook about it."""
        held: BusyHandler | None = getattr(platform_adapter, "_busy_session_handler", None)
        put = getattr(platform_adapter, "set_busy_session_handler", None)
        if put is None:
            hermes.warn_once("Hermes's adapters have no handler for what is written while a turn runs.")
        if held is None or put is None or getattr(held, "of_mcp_auth", False):
            return
        before: BusyHandler = held

        async def handle_busy_event(event: Any, session_key: str) -> bool:  # noqa: ANN401  Hermes's own
            said = self.handle_event(event)
            if said is None:
                return await before(event, session_key)
            if said.get("action") == "rewrite":
                event.text = said["text"]
                return await before(event, session_key)
            return True

        handle_busy_event.of_mcp_auth = True  # type: ignore[attr-defined]
        put(handle_busy_event)

    def handle_event(self, hermes_event: Any) -> dict[str, str] | None:  # noqa: ANN401  Hermes's own
        """Take what is ours of an event; returns what Hermes is to do with it."""
        try:
            self.sync_adapters()
            seat = self.adapter_for_source(hermes_event.source)
            if seat is not None:
                return seat.handle_event(hermes_event)
            return (
                None
                if hermes.name_of_platform(hermes_event.source.platform) in PLATFORMS_WITHOUT_USERS
                else skip_if_code(hermes_event)
            )
        except Exception as fault:  # noqa: BLE001  Hermes would log its text, and go on with the message
            log.error("A message could not be looked at: %s.", type(fault).__name__)  # noqa: TRY400
            return skip_if_code(hermes_event)

    async def connect_server(self, server_name: str) -> bool:
        """Have a server's tools live; False where that did not work."""
        async with self._connect_lock:
            return await run_in_own_thread(ensure_connected, server_name)

    async def _run_sync_loop(self) -> None:
        while True:
            try:
                self.sync_adapters()
                await self._connect_finished_logins()
            except McpAuthError as trouble:
                log.warning("The logins cannot be read: %s", trouble)
            except Exception as fault:  # noqa: BLE001  nothing else would go on with it
                log.error("The gateway could not be attended: %s.", type(fault).__name__)  # noqa: TRY400
            await asyncio.sleep(SYNC_INTERVAL_SECONDS)

    async def _connect_finished_logins(self) -> None:
        """Have the tools of each server live that somebody has just logged in to, in whichever process."""
        changed_at = self.service.logins_changed_at_ns()
        if changed_at == self._logins_changed_at_ns:
            return
        # A change within the same tick of the disk's clock would go unseen.
        self._logins_changed_at_ns = changed_at if time.time_ns() - changed_at > MTIME_RESOLUTION_NS else -1
        logins = await run_file_work(self.service.logins)
        done = {each.id: each for each in logins if each.status == "done" and each.key.owner is None}
        first, self._handled_login_ids = (
            self._handled_login_ids is None,
            set() if self._handled_login_ids is None else self._handled_login_ids,
        )
        for login in [each for each in done.values() if each.id not in self._handled_login_ids]:
            self._handled_login_ids.add(login.id)
            self._spawn(self._connect_after_login(login, should_notify=not first))
        self._handled_login_ids &= done.keys()

    async def _connect_after_login(self, login: Login, *, should_notify: bool) -> None:
        name = login.key.server_name
        is_live = await self.connect_server(name)
        if not should_notify:
            return
        if is_live:
            log.info("The tools of %s are live.", name)
            return
        # After the message that says that it is connected.
        for _ in range(MESSAGE_SYNC_TRIES):
            with contextlib.suppress(McpAuthError):
                if not (await run_file_work(self.service.login, login.id)).message_ids:
                    break
            await asyncio.sleep(SYNC_INTERVAL_SECONDS)
        seat = self.adapter_for_platform(login.origin.platform)
        if seat is not None and login.origin.user_id:
            title = ENGLISH.connected_title.format(server=name)
            said = ENGLISH.tools_not_loaded.format(command="/reload-mcp")
            with contextlib.suppress(ChatError):
                await seat.platform.private_chat(login.origin.user_id).send(Card(title, paragraphs=(said,)))

    def _spawn(self, coroutine: Any) -> None:  # noqa: ANN401  a coroutine
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def redact_adapter_logs(platform_adapter: Any) -> None:  # noqa: ANN401  Hermes's own
    """Keep codes out of an adapter's log: Hermes's for Discord writes down whole commands."""
    # The same filter is not added twice.
    logging.getLogger(type(platform_adapter).__module__).addFilter(_LOG_FILTER)


def _adapter_class_for(adapter_ref: hermes.AdapterRef) -> type[HermesAdapter] | None:
    """Return the kind of seat for an adapter, None while it is not connected."""
    if adapter_ref.platform_name == "telegram":
        from gateway_hooks.hermes.telegram import HermesTelegramAdapter  # noqa: PLC0415  needs the library

        return None if adapter_ref.platform_adapter._app is None else HermesTelegramAdapter  # noqa: SLF001
    if adapter_ref.platform_name == "discord":
        from gateway_hooks.hermes.discord import HermesDiscordAdapter  # noqa: PLC0415  needs the library

        return None if adapter_ref.platform_adapter._client is None else HermesDiscordAdapter  # noqa: SLF001
    return HermesAdapter
