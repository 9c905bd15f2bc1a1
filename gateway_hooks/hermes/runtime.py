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
from gateway_hooks.dialog.servers import Configured
from gateway_hooks.hermes import internals as hermes
from gateway_hooks.hermes.adapter import Seat
from gateway_hooks.hermes.commands import withheld
from gateway_hooks.hermes.mcp_tools import make_live
from gateway_hooks.log_redaction import SecretFilter
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service.default import service_at
from hermes_mcp_auth_remote.store.files.private_files import SETTLE_NS
from hermes_mcp_auth_remote.threads import run_file_work, run_in_own_thread

# How soon an adapter that has taken another's place is attended, and a login that was finished elsewhere.
LOOK_SECONDS = 0.5
# How often it is looked whether people know that a login is done, before more is said about it.
SAID_TRIES = 20
# What speaks there is no person, or nobody in particular: a topic of ntfy's is read by whoever knows it.
NO_PEOPLE = frozenset(
    {"api_server", "cron", "homeassistant", "local", "msgraph_webhook", "ntfy", "raft", "webhook"}
)

Busy = Callable[[Any, str], Awaitable[bool]]

log = logging.getLogger(__name__)

_HIDING = SecretFilter()


class Inside:
    """What the plugin is while a gateway runs. Made on its event loop."""

    def __init__(self, gateway: Any) -> None:  # noqa: ANN401  Hermes's own
        self.gateway = gateway
        self.loop = asyncio.get_running_loop()
        self.service = service_at(hermes.home_of(""))
        self._seats: dict[int, Seat] = {}
        self._seen_at = -1
        self._handled: set[str] | None = None
        self._connecting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Attend all adapters that are there now, and from now on."""
        self.look()
        self._spawn(self._keep_looking())

    def look(self) -> None:
        """Attend adapters that are new or have connected anew, and leave those that are gone."""
        there: dict[int, hermes.Attached] = {}
        for attached in hermes.adapters(self.gateway):
            if attached.name not in NO_PEOPLE:
                there[id(attached.adapter)] = attached
        for key, seat in list(self._seats.items()):
            held = there.get(key)
            if held is None or held.adapter is not seat.attached.adapter or not seat.is_current:
                del self._seats[key]
                self._spawn(seat.stop())
        for key, attached in there.items():
            if key not in self._seats:
                self._take_seat(key, attached)
            self._wrap_busy_handler(attached.adapter)

    def seat_at(self, where: Any) -> Seat | None:  # noqa: ANN401  Hermes's own
        """Return the seat for what Hermes says of a place."""
        try:
            adapter = self.gateway._adapter_for_source(where)  # noqa: SLF001
        except Exception:  # noqa: BLE001  whatever has moved
            held: dict[Any, Any] = getattr(self.gateway, "adapters", None) or {}
            adapter = held.get(where.platform)
        return self._seats.get(id(adapter))

    def seat_of(self, platform: str, profile: str = "") -> Seat | None:
        """Return the seat at a platform, by its name."""
        wanted = (platform, "" if profile == "default" else profile)
        seats = self._seats.values()
        return next((seat for seat in seats if (seat.attached.name, seat.attached.profile) == wanted), None)

    def _take_seat(self, key: int, attached: hermes.Attached) -> None:
        home = hermes.home_of(attached.profile)
        guard_lines(attached.adapter)
        try:
            kind = _kind_for(attached)
            if kind is None:
                return
            seat = kind(self.gateway, attached, service_at(home), Configured(home))
            seat.start()
        except Exception as trouble:  # noqa: BLE001  Hermes's adapter may be another than the one we know
            hermes.say_once(
                f"Hermes's {attached.name} adapter is not as it was ({type(trouble).__name__}): logins there "
                "are in plain text."
            )
            seat = Seat(self.gateway, attached, service_at(home), Configured(home))
            seat.start()
        self._seats[key] = seat

    def _wrap_busy_handler(self, adapter: Any) -> None:  # noqa: ANN401  Hermes's own
        """Hear what is written while a turn runs: Hermes asks no hook about it."""
        held: Busy | None = getattr(adapter, "_busy_session_handler", None)
        put = getattr(adapter, "set_busy_session_handler", None)
        if put is None:
            hermes.say_once("Hermes's adapters have no handler for what is written while a turn runs.")
        if held is None or put is None or getattr(held, "of_mcp_auth", False):
            return
        before: Busy = held

        async def first(event: Any, session_key: str) -> bool:  # noqa: ANN401  Hermes's own
            said = self.hear(event)
            if said is None:
                return await before(event, session_key)
            if said.get("action") == "rewrite":
                event.text = said["text"]
                return await before(event, session_key)
            return True

        first.of_mcp_auth = True  # type: ignore[attr-defined]
        put(first)

    def hear(self, event: Any) -> dict[str, str] | None:  # noqa: ANN401  Hermes's own
        """Take what is ours of an event; returns what Hermes is to do with it."""
        try:
            self.look()
            seat = self.seat_at(event.source)
            if seat is not None:
                return seat.hear(event)
            return None if hermes.name_of(event.source.platform) in NO_PEOPLE else withheld(event)
        except Exception as fault:  # noqa: BLE001  Hermes would log its text, and go on with the message
            log.error("A message could not be looked at: %s.", type(fault).__name__)  # noqa: TRY400
            return withheld(event)

    async def connect(self, server: str) -> bool:
        """Have a server's tools live; False where that did not work."""
        async with self._connecting:
            return await run_in_own_thread(make_live, server)

    async def _keep_looking(self) -> None:
        while True:
            try:
                self.look()
                await self._look_at_logins()
            except McpAuthError as trouble:
                log.warning("The logins cannot be read: %s", trouble)
            except Exception as fault:  # noqa: BLE001  nothing else would go on with it
                log.error("The gateway could not be attended: %s.", type(fault).__name__)  # noqa: TRY400
            await asyncio.sleep(LOOK_SECONDS)

    async def _look_at_logins(self) -> None:
        """Have the tools of each server live that somebody has just logged in to, in whichever process."""
        changed_at = self.service.logins_changed_at()
        if changed_at == self._seen_at:
            return
        # A change within the same tick of the disk's clock would go unseen.
        self._seen_at = changed_at if time.time_ns() - changed_at > SETTLE_NS else -1
        logins = await run_file_work(self.service.logins)
        done = {each.id: each for each in logins if each.status == "done" and each.key.owner is None}
        first, self._handled = self._handled is None, set() if self._handled is None else self._handled
        for login in [each for each in done.values() if each.id not in self._handled]:
            self._handled.add(login.id)
            self._spawn(self._connected(login, told=not first))
        self._handled &= done.keys()

    async def _connected(self, login: Login, *, told: bool) -> None:
        name = login.key.server
        is_live = await self.connect(name)
        if not told:
            return
        if is_live:
            log.info("The tools of %s are live.", name)
            return
        # After the message that says that it is connected.
        for _ in range(SAID_TRIES):
            with contextlib.suppress(McpAuthError):
                if not (await run_file_work(self.service.login, login.id)).messages:
                    break
            await asyncio.sleep(LOOK_SECONDS)
        seat = self.seat_of(login.origin.platform)
        if seat is not None and login.origin.user:
            title = ENGLISH.connected_title.format(server=name)
            said = ENGLISH.reload.format(command="/reload-mcp")
            with contextlib.suppress(ChatError):
                await seat.platform.private_chat(login.origin.user).send(Card(title, paragraphs=(said,)))

    def _spawn(self, work: Any) -> None:  # noqa: ANN401  a coroutine
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def guard_lines(adapter: Any) -> None:  # noqa: ANN401  Hermes's own
    """Keep codes out of an adapter's log: Hermes's for Discord writes down whole commands."""
    # The same filter is not added twice.
    logging.getLogger(type(adapter).__module__).addFilter(_HIDING)


def _kind_for(attached: hermes.Attached) -> type[Seat] | None:
    """Return the kind of seat for an adapter, None while it is not connected."""
    if attached.name == "telegram":
        from gateway_hooks.hermes.telegram import TelegramSeat  # noqa: PLC0415  needs the library

        return None if attached.adapter._app is None else TelegramSeat  # noqa: SLF001
    if attached.name == "discord":
        from gateway_hooks.hermes.discord import DiscordSeat  # noqa: PLC0415  needs the library

        return None if attached.adapter._client is None else DiscordSeat  # noqa: SLF001
    return Seat
