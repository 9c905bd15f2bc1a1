"""The agent asks by itself: a tool that fails for want of a login asks the person whose turn it is, once.

Hermes says `needs_reauth` in few of those cases. A token that dies while its server is connected lets the
call run out instead, and a server that never had one has no tools at all: so every failed call to a server
is looked into here, and the model has a tool of its own for the latter.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

from gateway_hooks.hermes import internals as hermes
from gateway_hooks.hermes.adapter import Seat
from gateway_hooks.hermes.mcp_tools import server_of
from gateway_hooks.hermes.policy import HermesSender
from gateway_hooks.hermes.runtime import Inside
from hermes_mcp_auth_remote.errors import AuthorizationRequired, McpAuthError
from hermes_mcp_auth_remote.http.client import run
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Secret, Server

# How long a tool's result waits for the question to be asked: discovery and registration take two seconds.
ASK_SECONDS = 40.0
SHOWN_SECONDS = 0.1
# A server whose calls fail for other reasons is not looked at for each of them.
AGAIN_SECONDS = 20.0

ASKED = (
    "The user has just been asked, in a private message, to log in to {server}: say so in one sentence, and "
    "do not call its tools before they have."
)
ASKED_BEFORE = (
    "The user was asked to log in to {server} and has not done so: say that they can type /mcpauth {server}."
)
NOT_THEIRS = "Somebody who administers this bot has to log in to {server} first: say so in one sentence."
NOBODY = "Nobody can be asked here; `hermes mcpauth {server}` in a terminal logs in."
WORKS = "{server} is connected."

log = logging.getLogger(__name__)


class AgentAsks:
    """What the model's calls bring about. Called in the threads of agents."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._looked_at: dict[str, float] = {}

    def after_tool(self, tool: str, result: object, status: str) -> str | None:
        """Return what the model is told instead of a tool's result, None where that is to stay."""
        told = _document(result)
        needed = told.get("needs_reauth") is True
        if not tool.startswith("mcp__") or not (needed or status == "error" or "error" in told):
            return None
        where = self._where()
        seat = None if where is None else self._inside.seat_at(where)
        if seat is None:
            return None
        try:
            server = server_of(tool, seat.servers.names())
        except McpAuthError:
            return None
        now = time.monotonic()
        if server is None or (not needed and now < self._looked_at.get(server, 0.0)):
            return None
        self._looked_at[server] = now + AGAIN_SECONDS
        said = self._asked(seat, server, where)
        return None if said is None else json.dumps({"error": said, "needs_reauth": True, "server": server})

    def connect(self, server: str) -> str:
        """Ask for a login of a server; returns what the model is told."""
        where = self._where()
        seat = None if where is None else self._inside.seat_at(where)
        if seat is None:
            return NOBODY.format(server=server)
        return self._asked(seat, server, where) or WORKS.format(server=server)

    def _where(self) -> Any:  # noqa: ANN401  Hermes's own
        """Return the place whose turn it is, as Hermes describes it; None where it is nobody's."""
        platform, user, chat = (hermes.session_value(name) for name in ("PLATFORM", "USER_ID", "CHAT_ID"))
        seat = self._inside.seat_of(platform, hermes.session_value("PROFILE"))
        if seat is None or not user or not chat:
            return None
        kind = "dm" if seat.is_private(chat, user) else "group"
        thread = hermes.session_value("THREAD_ID") or None
        where = hermes.source(seat.attached, user, chat, kind, thread_id=thread)
        return where if where is not None and seat.speaker(where) else None

    def _asked(self, seat: Seat, server: str, where: Any) -> str | None:  # noqa: ANN401
        with suppress(RuntimeError):
            # Where Hermes calls from an event loop, that loop is not kept waiting.
            asyncio.get_running_loop()
            return None
        future = asyncio.run_coroutine_threadsafe(ask(seat, server, where, self._inside), self._inside.loop)
        try:
            return future.result(ASK_SECONDS)
        except Exception as fault:  # noqa: BLE001  Hermes would log its text
            future.cancel()
            log.warning("A login of %s could not be asked for: %s.", server, type(fault).__name__)
            return None


async def ask(seat: Seat, name: str, where: Any, inside: Inside) -> str | None:  # noqa: ANN401
    """Ask for a login where one is needed; returns what the model is told, None where it is not."""
    sender = HermesSender(str(where.user_id), where=where)
    try:
        server = await run_file_work(seat.servers.find, name)
    except McpAuthError as trouble:
        return f"{trouble} {trouble.advice}"
    session = seat.service.session(server)
    try:
        refused = await _refused(session, server)
    except AuthorizationRequired:
        refused = Secret("")
    except McpAuthError as trouble:
        return f"{trouble} {trouble.advice}"
    if refused is None:
        # The tokens are good, or have just become so: Hermes finds them.
        await inside.connect(name)
        return None
    if not seat.policy.may_change(sender):
        return NOT_THEIRS.format(server=name)

    async def asked() -> None:
        # What it raises is why nobody was asked, or how that ended.
        with seat.desk.asking(sender, seat.chat(where)), suppress(McpAuthError):
            await (session.challenged(refused, 401, ()) if refused else session.header())

    asking = seat.spawn(asked())
    while not asking.done():
        waiting = [each for each in seat.waiting() if each.key == session.key and each.messages]
        if any(each.origin.user == sender.user for each in waiting):
            return ASKED.format(server=name)
        await asyncio.wait({asking}, timeout=SHOWN_SECONDS)
    return ASKED_BEFORE.format(server=name)


async def _refused(session: Session, server: Server) -> Secret | None:
    """Return the header that the server refuses for good; None where the session works.

    Raises AuthorizationRequired where there is none, or nothing but a person helps.
    """
    header = Secret(await session.header())
    if session.prover is not None:
        # A request of its own would need a proof; what is bound to a key is not lost that easily.
        return None
    answer = await run(_probe(server.url, header), server)
    if answer.status != 401:
        return None
    try:
        await session.challenged(header, 401, answer.header_all("www-authenticate"))
    except AuthorizationRequired:
        return header
    return None


def _probe(url: str, header: Secret) -> Exchange[Response]:
    """Ask the server for nothing, with the token: MCP's ping, which any revision answers or refuses."""
    headers = (
        ("Authorization", header),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
    )
    response = yield Request("POST", url, "ping", headers, b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
    return response


def _document(result: object) -> Mapping[str, object]:
    try:
        found: object = json.loads(result) if isinstance(result, str) else None
    except ValueError:
        found = None
    return cast("Mapping[str, object]", found) if isinstance(found, dict) else {}
