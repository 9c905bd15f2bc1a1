"""Ask the user of a turn to log in, after a failed MCP tool call or when the model calls the login tool.

Hermes reports `needs_reauth` for few of the calls that need a login. If a token becomes invalid while its
server is connected, the call times out instead. So this module checks the token after each failed call. A
server that never had a token has no tools at all. So the model gets a tool that asks for a login.
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

# How long a tool's result waits for the prompt. Discovery and registration take about two seconds.
PROMPT_TIMEOUT_SECONDS = 40.0
PROMPT_POLL_SECONDS = 0.1
# The shortest time between two checks of a server's token, if its calls fail again and again.
RECHECK_SECONDS = 20.0

USER_PROMPTED = (
    "The user has just been asked, in a private message, to log in to {server}: say so in one sentence, and "
    "do not call its tools before they have."
)
PROMPT_NOT_ANSWERED = (
    "The user was asked to log in to {server} and has not done so: say that they can type /mcpauth {server}."
)
ADMIN_LOGIN_NEEDED = "An administrator of this bot must log in to {server} first: say so in one sentence."
NO_USER_TO_PROMPT = "No user can be asked here. To log in, run `hermes mcpauth {server}` in a terminal."
ALREADY_CONNECTED = "{server} is connected."

log = logging.getLogger(__name__)


class AgentLogins:
    """Logins that the model's calls lead to. Hermes calls the methods in the threads of agents."""

    def __init__(self, runtime: GatewayRuntime) -> None:
        self._runtime = runtime
        self._recheck_at: dict[str, float] = {}

    def transform_tool_result(self, tool_name: str, result: object, status: str) -> str | None:
        """Return a replacement for a tool's result; None to leave the result as it is."""
        parsed = _parse_result(result)
        needs_login = parsed.get("needs_reauth") is True
        has_failed = needs_login or status == "error" or "error" in parsed
        if not has_failed or not tool_name.startswith(hermes.MCP_TOOL_PREFIX):
            return None
        source = self._current_source()
        adapter = None if source is None else self._runtime.adapter_for_source(source)
        if adapter is None:
            return None
        try:
            server = server_for_tool(tool_name, adapter.servers.names())
        except McpAuthError:
            return None
        now = time.monotonic()
        if server is None or (not needs_login and now < self._recheck_at.get(server, 0.0)):
            return None
        self._recheck_at[server] = now + RECHECK_SECONDS
        reply = self._prompt_user_blocking(adapter, server, source)
        return None if reply is None else json.dumps({"error": reply, "needs_reauth": True, "server": server})

    def request_login(self, server_name: str) -> str:
        """Ask the user of this turn to log in to a server; return a sentence for the model."""
        source = self._current_source()
        adapter = None if source is None else self._runtime.adapter_for_source(source)
        if adapter is None:
            return NO_USER_TO_PROMPT.format(server=server_name)
        return self._prompt_user_blocking(adapter, server_name, source) or ALREADY_CONNECTED.format(
            server=server_name
        )

    def _current_source(self) -> Any:  # noqa: ANN401  Hermes's own
        """Return the SessionSource of the turn that runs; None if no user can be prompted there."""
        platform, user, chat = (hermes.session_value(name) for name in ("PLATFORM", "USER_ID", "CHAT_ID"))
        adapter = self._runtime.adapter_for_platform(platform, hermes.session_value("PROFILE"))
        if adapter is None or not user or not chat:
            return None
        chat_type = "dm" if adapter.is_private_chat(chat, user) else "group"
        thread = hermes.session_value("THREAD_ID") or None
        source = hermes.make_source(adapter.adapter_ref, user, chat, chat_type, thread_id=thread)
        return source if source is not None and adapter.user_id_of(source) else None

    def _prompt_user_blocking(self, adapter: HermesAdapter, server_name: str, source: Any) -> str | None:  # noqa: ANN401
        with suppress(RuntimeError):
            # Never block an event loop: if Hermes calls from one, do not prompt.
            asyncio.get_running_loop()
            return None
        future = asyncio.run_coroutine_threadsafe(
            prompt_user(adapter, server_name, source, self._runtime), self._runtime.loop
        )
        try:
            return future.result(PROMPT_TIMEOUT_SECONDS)
        except Exception as error:  # noqa: BLE001  Hermes would log its text
            future.cancel()
            log.warning("No user could be asked to log in to %s: %s.", server_name, type(error).__name__)
            return None


async def prompt_user(
    adapter: HermesAdapter,
    server_name: str,
    source: Any,  # noqa: ANN401  Hermes's own
    runtime: GatewayRuntime,
) -> str | None:
    """Ask the user to log in if that is needed; return a sentence for the model, None if it is not."""
    sender = HermesSender(str(source.user_id), source=source)
    try:
        server = await run_file_work(adapter.servers.find, server_name)
    except McpAuthError as error:
        return f"{error} {error.advice}"
    session = adapter.service.session(server)
    try:
        rejected_header = await _find_rejected_header(session, server)
    except AuthorizationRequired:
        rejected_header = Secret("")
    except McpAuthError as error:
        return f"{error} {error.advice}"
    if rejected_header is None:
        # The tokens are valid, or were just refreshed: Hermes reads them.
        await runtime.connect_server(server_name)
        return None
    if not adapter.policy.may_change(sender):
        return ADMIN_LOGIN_NEEDED.format(server=server_name)

    async def request_header() -> None:
        # An error means that no prompt was sent, or that the login failed.
        with adapter.dispatcher.prompt_in(sender, adapter.chat_for(source)), suppress(McpAuthError):
            if rejected_header:
                await session.handle_challenge(rejected_header, 401, ())
            else:
                await session.header()

    login_task = adapter.spawn(request_header())
    while not login_task.done():
        prompted = [
            login for login in adapter.waiting_logins() if login.key == session.key and login.message_ids
        ]
        if any(login.origin.user_id == sender.user_id for login in prompted):
            return USER_PROMPTED.format(server=server_name)
        await asyncio.wait({login_task}, timeout=PROMPT_POLL_SECONDS)
    return PROMPT_NOT_ANSWERED.format(server=server_name)


async def _find_rejected_header(session: Session, server: Server) -> Secret | None:
    """Return the Authorization header that the server rejects for good; None if the session works.

    Raises AuthorizationRequired if there is no token, or if only a login can help.
    """
    header = Secret(await session.header())
    if session.prover is not None:
        # The probe below carries no DPoP proof, so the server would reject any token that is bound to a key.
        return None
    response = await run_exchange(_probe(server.url, header), server)
    if response.status != 401:
        return None
    try:
        await session.handle_challenge(header, 401, response.header_all("www-authenticate"))
    except AuthorizationRequired:
        return header
    return None


def _probe(url: str, header: Secret) -> Exchange[Response]:
    """Send MCP's `ping` with the token: every revision of MCP knows it, and it changes nothing."""
    headers = (
        ("Authorization", header),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
    )
    response = yield Request("POST", url, "ping", headers, b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
    return response


def _parse_result(result: object) -> Mapping[str, object]:
    try:
        parsed: object = json.loads(result) if isinstance(result, str) else None
    except ValueError:
        parsed = None
    return cast("Mapping[str, object]", parsed) if isinstance(parsed, dict) else {}
