"""Ask the user of a turn to log in, after a failed MCP tool call or when the model calls the login tool.

Hermes reports `needs_reauth` for few of the calls that need a login. If a token becomes invalid while its
server is connected, the call times out instead. So this module checks the token after each failed call. A
server that never had a token has no tools at all. So the model gets a tool that asks for a login.

The tool waits for the login in the thread of the agent. After a failed call, the hook waits in the same way.
The hook then repeats the call, and the model gets the result of the second call. Hermes 0.21 gives a hook 30
seconds, which is too short for a login. With that version, the hook tells the model to call the tool, and
then to repeat the failed call.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

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
PROMPT_SECONDS = 40.0
# After the prompt, how long a tool's result waits for the login.
LOGIN_WAIT_SECONDS = 240.0
# Of Hermes's time limit for a call, this part is reserved for the repeated call.
REPEATED_CALL_SECONDS = 60.0
# Of Hermes's time limit for a hook, this module leaves this part unused.
HOOK_MARGIN_SECONDS = 5.0
# If a hook has less time than this, it does not wait for a login.
MIN_HOOK_SECONDS = 150.0
# How often a waiting call checks whether the user has stopped the turn.
INTERRUPT_CHECK_SECONDS = 0.5
# If a server's calls fail again and again, the shortest time between two checks of its token.
RECHECK_SECONDS = 20.0

CONNECTED = "The user has logged in to {server}. Call its tools now."
CONNECTED_NEXT_TURN = (
    "The user has logged in to {server}. Its tools are there from the user's next message on: say so in one "
    "sentence."
)
CONNECTED_WITHOUT_TOOLS = (
    "The user has logged in to {server}, but its tools could not be loaded: say that /reload-mcp loads them."
)
USER_PROMPTED = (
    "The user has been asked, in a private message, to log in to {server}, and has not done so yet: say so "
    "in one sentence. Call its tools again when the user writes next."
)
USER_PROMPTED_CALL_TOOL = (
    "The user has just been asked, in a private message, to log in to {server}. Call the tool "
    "connect_mcp_server with this server now: it waits until the user has logged in. Then repeat this call."
)
PROMPT_NOT_ANSWERED = (
    "The user was asked to log in to {server} and has not done so: say that they can type /mcpauth {server}."
)
ADMIN_LOGIN_NEEDED = "An administrator of this bot must log in to {server} first: say so in one sentence."
NO_USER_TO_PROMPT = "No user can be asked here. To log in, run `hermes mcpauth {server}` in a terminal."
ALREADY_CONNECTED = "{server} is connected."

log = logging.getLogger(__name__)

State = Literal["connected", "without_tools", "already_connected", "prompted", "not_connected"]


@dataclass(frozen=True, slots=True)
class LoginOutcome:
    """The outcome of a request for a login, and the sentence for the model."""

    state: State
    sentence: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one of the model's tools, as Hermes passes it to the hook. `seconds`: its duration."""

    name: str
    arguments: Mapping[str, object]
    seconds: float = 0.0
    task_id: str = ""
    session_id: str = ""


class AgentLogins:
    """Starts the logins that the model's calls need. Hermes calls the methods in the threads of agents."""

    def __init__(self, runtime: GatewayRuntime) -> None:
        self._runtime = runtime
        self._recheck_at: dict[str, float] = {}

    def transform_tool_result(self, call: ToolCall, result: object, status: str) -> str | None:
        """Return a replacement for a tool's result; None to leave the result as it is."""
        parsed = _parse_result(result)
        needs_login = parsed.get("needs_reauth") is True
        has_failed = needs_login or status == "error" or "error" in parsed
        if not has_failed or not call.name.startswith(hermes.MCP_TOOL_PREFIX):
            return None
        source = self._current_source()
        adapter = None if source is None else self._runtime.adapter_for_source(source)
        server = None if adapter is None else _find_server_of_tool(call.name, adapter)
        if adapter is None or server is None:
            return None
        now = time.monotonic()
        if not needs_login and now < self._recheck_at.get(server, 0.0):
            return None
        self._recheck_at[server] = now + RECHECK_SECONDS
        outcome = self._log_in_blocking(adapter, server, source, call.seconds, in_hook=True)
        if outcome is None or (outcome.state == "already_connected" and not needs_login):
            return None
        if outcome.state in {"connected", "already_connected"}:
            # The server refused the call, so the call had no effect and can be repeated.
            repeated = hermes.call_tool(
                call.name, call.arguments, task_id=call.task_id, session_id=call.session_id
            )
            return json.dumps({"error": CONNECTED.format(server=server)}) if repeated is None else repeated
        return json.dumps({"error": outcome.sentence, "needs_reauth": True, "server": server})

    def request_login(self, server_name: str) -> str:
        """Ask the user of this turn to log in to a server; return a sentence for the model."""
        source = self._current_source()
        adapter = None if source is None else self._runtime.adapter_for_source(source)
        if adapter is None:
            return NO_USER_TO_PROMPT.format(server=server_name)
        outcome = self._log_in_blocking(adapter, server_name, source)
        if outcome is None:
            return PROMPT_NOT_ANSWERED.format(server=server_name)
        has_tools = outcome.state in {"connected", "already_connected"}
        if has_tools and not hermes.refresh_turn_tools(self._runtime.gateway):
            return CONNECTED_NEXT_TURN.format(server=server_name)
        return outcome.sentence

    def _current_source(self) -> Any:  # noqa: ANN401  Hermes's own
        """Return the SessionSource of the current turn; None if no user can be prompted in its chat."""
        platform, user, chat = (hermes.session_value(name) for name in ("PLATFORM", "USER_ID", "CHAT_ID"))
        adapter = self._runtime.adapter_for_platform(platform, hermes.session_value("PROFILE"))
        if adapter is None or not user or not chat:
            return None
        chat_type = "dm" if adapter.is_private_chat(chat, user) else "group"
        thread = hermes.session_value("THREAD_ID") or None
        source = hermes.make_source(adapter.adapter_ref, user, chat, chat_type, thread_id=thread)
        return source if source is not None and adapter.user_id_of(source) else None

    def _log_in_blocking(
        self,
        adapter: HermesAdapter,
        server_name: str,
        source: Any,  # noqa: ANN401  Hermes's own
        call_seconds: float = 0.0,
        *,
        in_hook: bool = False,
    ) -> LoginOutcome | None:
        """Ask for a login and wait for it; None if no user could be asked."""
        with suppress(RuntimeError):
            # Never block an event loop: if Hermes calls this method on an event loop, do not prompt.
            asyncio.get_running_loop()
            return None
        limit = hermes.tool_time_limit_seconds() - call_seconds
        can_wait = True
        if in_hook:
            limit = min(limit, hermes.hook_time_limit_seconds())
            can_wait = limit >= MIN_HOOK_SECONDS
        wait_seconds = min(LOGIN_WAIT_SECONDS, max(0.0, limit - PROMPT_SECONDS - REPEATED_CALL_SECONDS))
        if not can_wait or hermes.is_turn_interrupted():
            wait_seconds = 0.0
        prompted = (USER_PROMPTED if can_wait else USER_PROMPTED_CALL_TOOL).format(server=server_name)
        future = asyncio.run_coroutine_threadsafe(
            request_login(adapter, server_name, source, self._runtime, wait_seconds), self._runtime.loop
        )
        end = time.monotonic() + min(
            PROMPT_SECONDS + wait_seconds + REPEATED_CALL_SECONDS, limit - HOOK_MARGIN_SECONDS
        )
        try:
            while True:
                with suppress(TimeoutError):
                    outcome = future.result(INTERRUPT_CHECK_SECONDS)
                    return replace(outcome, sentence=prompted) if outcome.state == "prompted" else outcome
                is_interrupted = wait_seconds > 0.0 and hermes.is_turn_interrupted()
                if is_interrupted or time.monotonic() > end:
                    future.cancel()
                    return LoginOutcome("prompted", prompted)
        except Exception as error:  # noqa: BLE001  Hermes would log its text
            future.cancel()
            log.warning("No user could be asked to log in to %s: %s.", server_name, type(error).__name__)
            return None


async def request_login(
    adapter: HermesAdapter,
    server_name: str,
    source: Any,  # noqa: ANN401  Hermes's own
    runtime: GatewayRuntime,
    wait_seconds: float,
) -> LoginOutcome:
    """Ask the user to log in if that is needed, wait for the login, and load the server's tools."""
    profile = adapter.adapter_ref.profile
    try:
        server = await run_file_work(adapter.servers.find, server_name)
        session = adapter.service.session(server)
        rejected_header = await _find_rejected_header(session, server)
    except McpAuthError as error:
        return LoginOutcome("not_connected", f"{error} {error.advice}")
    if rejected_header is None:
        # The tokens are valid or were just refreshed, and Hermes reads them from the store.
        await runtime.connect_server(server_name, profile)
        return LoginOutcome("already_connected", ALREADY_CONNECTED.format(server=server_name))
    await adapter.login_cache.refresh()
    done_ids = {login.id for login in adapter.logins() if login.status == "done"}
    sender = HermesSender(str(source.user_id), source=source)
    if not adapter.policy.may_change(sender):
        return LoginOutcome("not_connected", ADMIN_LOGIN_NEEDED.format(server=server_name))

    async def log_in() -> bool:
        # An error means that no prompt was sent, or that the login failed.
        with (
            adapter.dispatcher.prompt_in(
                sender,
                adapter.chat_for(source),
                agent_continues=lambda: adapter.call_continues.get(session.key, False),
            ),
            suppress(McpAuthError),
        ):
            if rejected_header:
                await session.handle_challenge(rejected_header, 401, ())
            else:
                await session.header()
            return True
        return False

    adapter.call_continues[session.key] = wait_seconds > 0
    is_logged_in = False
    try:
        login_task: asyncio.Task[bool] = adapter.spawn(log_in())
        is_prompted = await _wait_for_prompt(login_task, adapter, session, sender.user_id)
        is_logged_in = await _wait_for_login(login_task, adapter, session, done_ids, wait_seconds)
    finally:
        # The call goes on only if the login came while it waited.
        adapter.call_continues[session.key] = is_logged_in
    if is_logged_in:
        if not await runtime.connect_server(server_name, profile):
            return LoginOutcome("without_tools", CONNECTED_WITHOUT_TOOLS.format(server=server_name))
        return LoginOutcome("connected", CONNECTED.format(server=server_name))
    return _outcome_without_login(server_name, is_waiting=is_prompted and not login_task.done())


def _outcome_without_login(server_name: str, *, is_waiting: bool) -> LoginOutcome:
    if is_waiting:
        return LoginOutcome("prompted", USER_PROMPTED.format(server=server_name))
    return LoginOutcome("not_connected", PROMPT_NOT_ANSWERED.format(server=server_name))


async def _wait_for_login(
    login_task: asyncio.Task[bool],
    adapter: HermesAdapter,
    session: Session,
    done_ids: Collection[str],
    seconds: float,
) -> bool:
    """Wait until a login of this session that is not in `done_ids` succeeds; return whether one did.

    The login that succeeds may not be the task's own: the user may use the command instead, and an answer may
    come while the task starts. If so, cancel the task's own login.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                logins = [login for login in adapter.logins() if login.key == session.key]
                open_ids = [login.id for login in logins if login.status in {"waiting", "exchanging"}]
                if any(login.status == "done" and login.id not in done_ids for login in logins):
                    for login_id in open_ids:
                        await adapter.service.cancel(login_id)
                    return True
                if login_task.done() and not login_task.cancelled() and login_task.result():
                    return True
                if login_task.done() and not open_ids:
                    return False
                await _wait_for_change(login_task, adapter)
    return False


async def _wait_for_change(login_task: asyncio.Task[bool], adapter: HermesAdapter) -> None:
    """Wait until the task is over or any login has changed."""
    change = asyncio.ensure_future(adapter.login_cache.wait_for_change())
    was_over = login_task.done()
    try:
        await asyncio.wait(
            {change} if was_over else {change, login_task}, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        change.cancel()
    if login_task.done() and not was_over:
        await adapter.login_cache.refresh()


async def _wait_for_prompt(
    login_task: asyncio.Task[bool], adapter: HermesAdapter, session: Session, user_id: str
) -> bool:
    """Wait until the user gets a prompt for this session or the task is over. Return True for a prompt."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PROMPT_SECONDS):
            while not login_task.done():
                if any(
                    login.key == session.key and login.origin.user_id == user_id and login.message_ids
                    for login in adapter.waiting_logins()
                ):
                    return True
                await _wait_for_change(login_task, adapter)
    return False


async def _find_rejected_header(session: Session, server: Server) -> Secret | None:
    """Return the Authorization header that the server rejects for good; None if the session works.

    Return "" if the session has no header because a login is needed. Raises McpAuthError.
    """
    try:
        header = Secret(await session.header())
    except AuthorizationRequired:
        return Secret("")
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
    """Send MCP's `ping` with the token. Every revision of MCP has `ping`, and it changes nothing."""
    headers = (
        ("Authorization", header),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
    )
    response = yield Request("POST", url, "ping", headers, b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
    return response


def _find_server_of_tool(tool_name: str, adapter: HermesAdapter) -> str | None:
    """Return the configured server that a tool belongs to; None if there is none."""
    try:
        return server_for_tool(tool_name, adapter.servers.names())
    except McpAuthError:
        return None


def _parse_result(result: object) -> Mapping[str, object]:
    try:
        parsed: object = json.loads(result) if isinstance(result, str) else None
    except ValueError:
        parsed = None
    return cast("Mapping[str, object]", parsed) if isinstance(parsed, dict) else {}
