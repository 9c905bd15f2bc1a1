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
from gateway_hooks.hermes.adapter import HermesAdapter
from gateway_hooks.hermes.mcp_tools import server_for_tool
from gateway_hooks.hermes.policy import HermesSender
from gateway_hooks.hermes.runtime import GatewayRuntime
from hermes_mcp_auth_remote.errors import AuthorizationRequired, McpAuthError
from hermes_mcp_auth_remote.http.client import run_exchange
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Secret, Server

# How long a tool's result waits for the question to be asked: discovery and registration take two seconds.
PROMPT_TIMEOUT_SECONDS = 40.0
PROMPT_POLL_SECONDS = 0.1
# A server whose calls fail for other reasons is not looked at for each of them.
RECHECK_SECONDS = 20.0

USER_PROMPTED = (
    "The user has just been asked, in a private message, to log in to {server}: say so in one sentence, and "
    "do not call its tools before they have."
)
PROMPT_NOT_ANSWERED = (
    "The user was asked to log in to {server} and has not done so: say that they can type /mcpauth {server}."
)
ADMIN_LOGIN_NEEDED = (
    "Somebody who administers this bot has to log in to {server} first: say so in one sentence."
)
NO_USER_TO_PROMPT = "Nobody can be asked here; `hermes mcpauth {server}` in a terminal logs in."
ALREADY_CONNECTED = "{server} is connected."

log = logging.getLogger(__name__)


class AgentLogins:
    """What the model's calls bring about. Called in the threads of agents."""

    def __init__(self, runtime: GatewayRuntime) -> None:
        self._runtime = runtime
        self._recheck_at: dict[str, float] = {}

    def transform_tool_result(self, tool_name: str, result: object, status: str) -> str | None:
        """Return what the model is told instead of a tool's result, None where that is to stay."""
        told = _parse_result(result)
        needed = told.get("needs_reauth") is True
        if not tool_name.startswith("mcp__") or not (needed or status == "error" or "error" in told):
            return None
        where = self._current_source()
        seat = None if where is None else self._runtime.adapter_for_source(where)
        if seat is None:
            return None
        try:
            server = server_for_tool(tool_name, seat.servers.names())
        except McpAuthError:
            return None
        now = time.monotonic()
        if server is None or (not needed and now < self._recheck_at.get(server, 0.0)):
            return None
        self._recheck_at[server] = now + RECHECK_SECONDS
        said = self._prompt_user_blocking(seat, server, where)
        return None if said is None else json.dumps({"error": said, "needs_reauth": True, "server": server})

    def request_login(self, server_name: str) -> str:
        """Ask for a login of a server; returns what the model is told."""
        where = self._current_source()
        seat = None if where is None else self._runtime.adapter_for_source(where)
        if seat is None:
            return NO_USER_TO_PROMPT.format(server=server_name)
        return self._prompt_user_blocking(seat, server_name, where) or ALREADY_CONNECTED.format(
            server=server_name
        )

    def _current_source(self) -> Any:  # noqa: ANN401  Hermes's own
        """Return the place whose turn it is, as Hermes describes it; None where it is nobody's."""
        platform, user, chat = (hermes.session_value(name) for name in ("PLATFORM", "USER_ID", "CHAT_ID"))
        seat = self._runtime.adapter_for_platform(platform, hermes.session_value("PROFILE"))
        if seat is None or not user or not chat:
            return None
        kind = "dm" if seat.is_private_chat(chat, user) else "group"
        thread = hermes.session_value("THREAD_ID") or None
        where = hermes.make_source(seat.adapter_ref, user, chat, kind, thread_id=thread)
        return where if where is not None and seat.user_id_of(where) else None

    def _prompt_user_blocking(self, adapter: HermesAdapter, server_name: str, source: Any) -> str | None:  # noqa: ANN401
        with suppress(RuntimeError):
            # Where Hermes calls from an event loop, that loop is not kept waiting.
            asyncio.get_running_loop()
            return None
        future = asyncio.run_coroutine_threadsafe(
            prompt_user(adapter, server_name, source, self._runtime), self._runtime.loop
        )
        try:
            return future.result(PROMPT_TIMEOUT_SECONDS)
        except Exception as fault:  # noqa: BLE001  Hermes would log its text
            future.cancel()
            log.warning("A login of %s could not be asked for: %s.", server_name, type(fault).__name__)
            return None


async def prompt_user(
    adapter: HermesAdapter,
    server_name: str,
    source: Any,  # noqa: ANN401  Hermes's own
    runtime: GatewayRuntime,
) -> str | None:
    """Ask for a login where one is needed; returns what the model is told, None where it is not."""
    sender = HermesSender(str(source.user_id), source=source)
    try:
        server = await run_file_work(adapter.servers.find, server_name)
    except McpAuthError as trouble:
        return f"{trouble} {trouble.advice}"
    session = adapter.service.session(server)
    try:
        refused = await _find_rejected_header(session, server)
    except AuthorizationRequired:
        refused = Secret("")
    except McpAuthError as trouble:
        return f"{trouble} {trouble.advice}"
    if refused is None:
        # The tokens are good, or have just become so: Hermes finds them.
        await runtime.connect_server(server_name)
        return None
    if not adapter.policy.may_change(sender):
        return ADMIN_LOGIN_NEEDED.format(server=server_name)

    async def request_header() -> None:
        # What it raises is why nobody was asked, or how that ended.
        with adapter.dispatcher.prompt_in(sender, adapter.chat_for(source)), suppress(McpAuthError):
            await (session.handle_challenge(refused, 401, ()) if refused else session.header())

    asking = adapter.spawn(request_header())
    while not asking.done():
        waiting = [each for each in adapter.waiting_logins() if each.key == session.key and each.message_ids]
        if any(each.origin.user_id == sender.user_id for each in waiting):
            return USER_PROMPTED.format(server=server_name)
        await asyncio.wait({asking}, timeout=PROMPT_POLL_SECONDS)
    return PROMPT_NOT_ANSWERED.format(server=server_name)


async def _find_rejected_header(session: Session, server: Server) -> Secret | None:
    """Return the header that the server refuses for good; None where the session works.

    Raises AuthorizationRequired where there is none, or nothing but a person helps.
    """
    header = Secret(await session.header())
    if session.prover is not None:
        # A request of its own would need a proof; what is bound to a key is not lost that easily.
        return None
    answer = await run_exchange(_probe(server.url, header), server)
    if answer.status != 401:
        return None
    try:
        await session.handle_challenge(header, 401, answer.header_all("www-authenticate"))
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


def _parse_result(result: object) -> Mapping[str, object]:
    try:
        found: object = json.loads(result) if isinstance(result, str) else None
    except ValueError:
        found = None
    return cast("Mapping[str, object]", found) if isinstance(found, dict) else {}
