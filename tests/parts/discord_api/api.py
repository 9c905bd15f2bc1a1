"""The endpoint itself: a server in a thread of its own, and a handle that any thread may use."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from aiohttp import web

from . import person, transcript, world
from .form import not_found
from .gateway import PRIVILEGED
from .interactions import Interactions
from .ratelimits import too_many
from .rest import Rest, unknown
from .state import Call, Instead, State
from .world import Channel, Clock, Guild, Interaction, Json, Message, Modal, Role, User

T = TypeVar("T")
POLL_SECONDS = 0.005


class DiscordApi:
    """What a test holds. Every method may be called from any thread; those that wait say so."""

    def __init__(self, state: State, rest: Rest, loop: asyncio.AbstractEventLoop) -> None:
        self._state = state
        self._rest = rest
        self._loop = loop
        self.gateway = state.gateway

    def _in_loop(self, act: Callable[[], T]) -> T:
        async def run() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    # Where it is.

    @property
    def url(self) -> str:
        """The base of REST: what `discord.http.Route.BASE` is set to."""
        return f"{self._state.base_url}/api/v10"

    @property
    def gateway_url(self) -> str:
        """What `discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY` is set to, as a yarl.URL."""
        return self._state.gateway.url

    @property
    def token(self) -> str:
        """The bot's token; a secret like a real one."""
        return self._state.token

    @property
    def bot(self) -> User:
        """The bot; its id is the application's."""
        return self._state.bot

    # Who is there.

    def user(self, name: str, user_id: int | str | None = None, *, dms_open: bool = True) -> User:
        """Somebody new; while `dms_open` is false the bot cannot write to them first or at all."""

        def act() -> User:
            made = User(str(user_id) if user_id is not None else self._state.new_id(), name)
            self._state.users[made.id] = made
            if not dms_open:
                self._state.dms_closed.add(made.id)
            return made

        return self._in_loop(act)

    def set_dms_open(self, user: User, *, dms_open: bool) -> None:
        change = self._state.dms_closed.discard if dms_open else self._state.dms_closed.add
        self._in_loop(lambda: change(user.id))

    def guild(
        self,
        name: str = "guild",
        members: Sequence[User] = (),
        *,
        roles: Mapping[str, Sequence[User]] | None = None,
        role_permissions: Mapping[str, int] | None = None,
        channels: Sequence[str] = ("general",),
        bot_permissions: int = world.EVERYBODY,
        owner: User | None = None,
    ) -> Guild:
        """A server with the bot in it; permissions are bits, as `discord.Permissions(...).value`."""

        def act() -> Guild:
            state = self._state
            owner_id = (owner or state.owner).id
            made = Guild(state.new_id(), name, owner_id, bot_permissions)
            made.members = {one.id: one for one in (*members, state.bot)}
            for role_name, holders in (roles or {}).items():
                role = Role(state.new_id(), role_name, (role_permissions or {}).get(role_name, 0))
                made.roles[role.id] = role
                for holder in holders:
                    made.held.setdefault(holder.id, set()).add(role.id)
            for channel_name in channels:
                channel = Channel(state.new_id(), channel_name, made.id)
                made.channels[channel.id] = state.channels[channel.id] = channel
            state.guilds[made.id] = made
            from .payloads import guild_payload

            self.gateway.tell_guilds("GUILD_CREATE", guild_payload(state, made.id))
            return made

        return self._in_loop(act)

    def dm(self, user: User) -> Channel:
        """The direct channel of a user with the bot."""
        return self._in_loop(lambda: self._state.dm(user))

    # What a person does; raises NotOffered where their client would not let them.

    def slash(self, user: User, channel: Channel, command: str, **options: Any) -> Interaction:
        """Send a slash command ("connect", or with subcommands "mcp connect"); returns at once."""
        return self._in_loop(lambda: person.slash(self._state, user, channel, command, options))

    def autocomplete(
        self,
        user: User,
        channel: Channel,
        command: str,
        option: str,
        text: str,
        *,
        seconds: float = 10,
        **others: Any,
    ) -> list[Any]:
        """Type into an option; waits for the choices, and returns their values."""
        typed = self._in_loop(
            lambda: person.type_option(self._state, user, channel, command, option, text, others)
        )
        self.wait(lambda: typed.choices is not None, seconds)
        return [choice["value"] for choice in typed.choices or []]

    def press(self, user: User, message: Message, label_or_custom_id: str) -> Interaction:
        """Press a button, on the message as it stands now; returns at once."""
        return self._in_loop(lambda: person.press(self._state, user, message.id, label_or_custom_id))

    def choose(self, user: User, message: Message, custom_id: str, *values: str) -> Interaction:
        """Pick from a menu, by values or labels; returns at once."""
        return self._in_loop(lambda: person.choose(self._state, user, message.id, custom_id, list(values)))

    def submit(self, user: User, modal: Modal, texts: Mapping[str, str]) -> Interaction:
        """Fill in a window, by labels or custom ids, and send it off; returns at once."""
        if modal.user != user:
            raise person.NotOffered(f"{user.name} does not have that window")
        return self._in_loop(lambda: person.submit(self._state, modal, dict(texts)))

    def say(self, user: User, channel: Channel, text: str) -> Message:
        """Write a plain message into a channel or a DM."""
        return self._in_loop(lambda: self.copy(person.say(self._state, user, channel, text)))

    def remove(self, user: User, message: Message) -> None:
        """Let the author delete a message, or the one who sees an ephemeral one dismiss it."""

        def act() -> None:
            found = person.visible(self._state, user, message.id)
            if found.ephemeral:
                found.dismissed = True
            elif found.author == user:
                self._state.delete(found)
            else:
                raise person.NotOffered("Not theirs")

        self._in_loop(act)

    # What is to be seen.

    def copy(self, message: Message) -> Message:
        return self._state.copy(message)

    def messages(self, channel: Channel, *, seen_by: User | None = None) -> list[Message]:
        """Copies of what stands in a channel, oldest first; None sees everybody's ephemeral ones too."""
        who = seen_by.id if seen_by is not None else None
        return self._in_loop(lambda: [self.copy(one) for one in self._state.shown(channel.id, who)])

    def fresh(self, message: Message) -> Message:
        """A copy of a message as it stands now; `deleted` says whether it does."""
        return self._in_loop(lambda: self.copy(self._state.messages[message.id]))

    def modals(self, user: User) -> list[Modal]:
        """The windows that a user has open, the newest last."""
        return self._in_loop(lambda: [m for m in self._state.modals if m.user == user and not m.submitted])

    def failed(self, interaction: Interaction) -> bool:
        """True where the person is told that the application did not respond."""
        return self._in_loop(lambda: self._state.failed(interaction))

    def answer(self, interaction: Interaction, *, seconds: float = 10) -> Message:
        """Wait until an interaction is answered by a message that is not "thinking"; a copy of it."""
        self.wait(lambda: interaction.original is not None and not interaction.original.loading, seconds)
        assert interaction.original is not None
        return self.fresh(interaction.original)

    def modal(self, interaction: Interaction, *, seconds: float = 10) -> Modal:
        """Wait until an interaction is answered by a window."""
        self.wait(lambda: interaction.modal is not None, seconds)
        assert interaction.modal is not None
        return interaction.modal

    def wait(self, predicate: Callable[[], object], seconds: float = 10) -> None:
        """Wait until it is true; raises AssertionError when it is not in time. Not for the bot's own loop."""
        end = time.monotonic() + seconds
        while not predicate():
            if time.monotonic() > end:
                raise AssertionError(f"Not within {seconds} s")
            time.sleep(POLL_SECONDS)

    def transcript(self, channel: Channel, *, seen_by: User) -> str:
        """A channel as that person sees it, as text."""
        return self._in_loop(lambda: transcript.channel_text(self._state, channel.id, seen_by.id))

    @property
    def commands(self) -> list[Json]:
        """The global application commands, as registered."""
        return self._in_loop(lambda: list(self._state.scope(None).listed))

    def guild_commands(self, guild: Guild) -> list[Json]:
        return self._in_loop(lambda: list(self._state.scope(guild.id).listed))

    @property
    def syncs(self) -> int:
        """How often commands were changed, globally and in guilds: overwritten, added, edited, deleted."""
        return self._in_loop(lambda: sum(scope.writes for scope in self._state.commands.values()))

    @property
    def calls(self) -> list[Call]:
        """Every REST request so far, with its answer."""
        return self._in_loop(lambda: list(self._state.calls))

    def find(self, text: str) -> list[str]:
        """Where a text was ever sent or received, as "POST /path", "answer to ...", "gateway EVENT"."""

        def act() -> list[str]:
            found: list[str] = []
            for call in self._state.calls:
                asked = f"{call.path}\n{_plain(call.body)}"
                if text in asked or any(text.encode() in content for _, content in call.files):
                    found.append(f"{call.method} {call.path}")
                if text in _plain(call.answer):
                    found.append(f"answer to {call.method} {call.path}")
            found += [f"gateway {frame['t']}" for frame in self.gateway.told if text in _plain(frame["d"])]
            found += [
                f"gateway op {frame['op']}" for frame in self.gateway.heard if text in _plain(frame["d"])
            ]
            return found

        return self._in_loop(act)

    def standing(self, text: str) -> list[Message]:
        """Copies of all messages, anywhere, that stand and show a text."""

        def act() -> list[Message]:
            shown = [one for one in self._state.messages.values() if not (one.deleted or one.dismissed)]
            return [self.copy(one) for one in shown if text in one.text]

        return self._in_loop(act)

    # What goes wrong on purpose.

    def drop(self) -> None:
        """Cut every gateway connection, without a goodbye; sessions can be resumed."""
        self._in_loop(self.gateway.drop)

    def refuse_connections(self, attempts: int) -> None:
        """Answer the next attempts to open a gateway connection with 503."""
        self._in_loop(lambda: setattr(self.gateway, "refuse", attempts))

    def ask_reconnect(self) -> None:
        """Send RECONNECT (op 7)."""
        self._in_loop(self.gateway.reconnect)

    def invalidate_session(self, *, resumable: bool = False) -> None:
        """Send INVALID_SESSION (op 9)."""
        self._in_loop(lambda: self.gateway.invalidate(resumable=resumable))

    def close_gateway(self, code: int) -> None:
        """Close every gateway connection with a code."""
        asyncio.run_coroutine_threadsafe(self.gateway.close(code), self._loop).result(30)

    def limit_next(
        self, method: str, part: str, retry_after: float = 0.05, *, times: int = 1, everywhere: bool = False
    ) -> None:
        """Answer the next requests of a method ("*": any) whose path contains `part` with 429."""
        error = too_many(retry_after, everywhere=everywhere)
        instead = Instead(method, part, error.status, error.body, error.headers, times)
        self._in_loop(lambda: self._rest.knobs.append(instead))

    def fail_next(
        self, method: str, part: str, status: int, body: Json | None = None, *, times: int = 1
    ) -> None:
        """Answer the next such requests with this status."""
        instead = Instead(method, part, status, body or {"message": f"{status}", "code": 0}, {}, times)
        self._in_loop(lambda: self._rest.knobs.append(instead))

    def enforce_rate_limits(self, *, enforced: bool = True) -> None:
        """Really count requests, and refuse those that are too many, as Discord does."""
        self._in_loop(lambda: setattr(self._rest.limits, "enforced", enforced))

    @property
    def refused_by_rate_limit(self) -> int:
        return self._rest.limits.refusals

    @contextmanager
    def used_by_discord_py(self) -> Iterator[None]:
        """Point the discord.py of this process here, for a while."""
        import yarl
        from discord.gateway import DiscordWebSocket
        from discord.http import Route

        before = Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY
        Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY = self.url, yarl.URL(self.gateway_url)
        try:
            yield
        finally:
            Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY = before


def _plain(value: Any) -> str:
    # Without escapes, so that a text is found as it was typed.
    return "\n".join(_texts(value))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, held in value.items():
            yield str(key)
            yield from _texts(held)
    elif isinstance(value, list):
        for held in value:
            yield from _texts(held)
    else:
        yield value if isinstance(value, str) else json.dumps(value)


@contextmanager
def running(
    *,
    token: str | None = None,
    clock: Clock = time.time,
    privileged_intents: int = PRIVILEGED,
    heartbeat_seconds: float = 41.25,
    enforce_rate_limits: bool = False,
    port: int = 0,
) -> Iterator[DiscordApi]:
    """Serve on loopback until left; `privileged_intents` are those that the application was granted."""
    state = State(
        clock, token or f"MTI.{secrets.token_urlsafe(6)}.{secrets.token_urlsafe(28)}", privileged_intents
    )
    state.gateway.heartbeat_seconds = heartbeat_seconds
    rest = Rest(state)
    rest.limits.enforced = enforce_rate_limits
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="discord-api", daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(_start(state, rest, port), loop).result(30)
    try:
        yield DiscordApi(state, rest, loop)
    finally:
        loop.call_soon_threadsafe(state.gateway.drop)
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


async def _start(state: State, rest: Rest, port: int) -> web.AppRunner:
    application = web.Application(client_max_size=32 * 1024 * 1024)
    routes = application.router
    open_routes = Interactions(state).routes()
    open_routes.append(("GET", "/gateway", lambda _: {"url": state.gateway.url}))
    for closed, listed in ((True, rest.routes()), (False, open_routes)):
        for method, template, act in listed:
            handle = rest.handler(method, template, act, open_to_all=not closed)
            routes.add_route(method, f"/api/v10{template}", handle)

    async def attachment(request: web.Request) -> web.Response:
        if request.path not in state.files:
            return web.json_response(not_found().body, status=404)
        return web.Response(body=state.files[request.path])

    routes.add_get("/attachments/{channel}/{id}/{name}", attachment)
    for path in ("/gateway", "/gateway/resume"):
        routes.add_get(path, state.gateway.serve)
    routes.add_route("*", "/{rest:.*}", unknown)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    host, bound = runner.addresses[0][:2]
    state.base_url = f"http://{host}:{bound}"
    state.gateway.url = f"ws://{host}:{bound}/gateway"
    state.gateway.resume_url = f"ws://{host}:{bound}/gateway/resume"
    return runner
