"""Pass messages between a client on standard input and output and one remote MCP server.

Each request of the client runs in a task of its own. The bridge may have neither a chat nor a browser
in which it can ask the user to log in. If the server then needs a login when the client connects, the bridge
answers `initialize` itself. It offers one tool, `log_in`, until the user has logged in.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, cast

import httpx2

from hermes_mcp_auth_remote.bridge.http_transport import StreamableHttp
from hermes_mcp_auth_remote.bridge.json_rpc import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    SERVER_ERROR,
    URL_ELICITATION_REQUIRED,
    MalformedMessage,
    Message,
    RequestId,
    encode,
    error_response,
    is_valid_id,
    notification,
    parse_items,
    parse_messages,
    read_envelope,
    result_response,
)
from hermes_mcp_auth_remote.bridge.legacy_transport import HttpWithSse
from hermes_mcp_auth_remote.bridge.login import (
    ClientLogin,
    elicitation_address,
    elicitation_text,
    login_error_text,
)
from hermes_mcp_auth_remote.bridge.request_headers import CAPABILITIES_KEY, is_version, stateless_version
from hermes_mcp_auth_remote.bridge.stdio import LineWriter, TooLongLine, read_lines
from hermes_mcp_auth_remote.bridge.transport import LegacyServer, Transport, TransportError
from hermes_mcp_auth_remote.errors import AuthorizationRequired, McpAuthError
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.traceback_redaction import hide_locals

# The tool that the bridge offers until the user has logged in.
LOGIN_TOOL = "log_in"
# In an InputRequiredResult, the request for a login has this key.
LOGIN_INPUT = "hermes_mcp_auth_login"
# While a login is missing, the bridge reads the store at this interval: a command may store a login.
LOGIN_CHECK_SECONDS = 2.0
# The time between two progress notifications to a client whose request waits for a login.
PROGRESS_SECONDS = 10.0
# How long later messages wait for the response to `initialized`: a server may never respond. They wait longer
# if the server needs a login for it.
_INITIALIZED_SECONDS = 30.0
# A client that sends more messages without waiting for responses must not fill the memory.
MAX_OPEN_MESSAGES = 4096
# The version of an offline `initialize` whose client names none.
LAST_SESSION_VERSION = "2025-11-25"
# After the end of the input, open requests have this much time. Clients kill a server after two seconds.
LAST_REQUESTS_SECONDS = 1.0
_AWAITED_NOTIFICATIONS = frozenset({"notifications/cancelled", "notifications/initialized"})
_INPUT_METHODS = frozenset({"prompts/get", "resources/read", "tools/call"})
_EMPTY_RESULTS: Mapping[str, Mapping[str, Any]] = {
    "ping": {},
    "prompts/list": {"prompts": []},
    "resources/list": {"resources": []},
    "resources/templates/list": {"resourceTemplates": []},
}
_OFFLINE_METHODS = frozenset({"server/discover", "tools/list", *_EMPTY_RESULTS})
_CHANGED = (
    "notifications/tools/list_changed",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
)


@dataclass(slots=True)
class Options:
    """What a relay needs to know about its server and its client."""

    server_name: str
    url: str
    # The command that logs in.
    login_command: str
    # None if a login is shown elsewhere: in a chat or in a browser of this machine.
    client_login: ClientLogin | None
    # True while a login of this server waits for its user.
    is_login_waiting: Callable[[], Awaitable[bool]]
    # Returns the Authorization header, "" if there is none. Raises AuthorizationRequired.
    authorization: Callable[[], Awaitable[str]]


class Relay:
    """One client and one server."""

    def __init__(self, options: Options, http_client: httpx2.AsyncClient, writer: LineWriter) -> None:
        self._options = options
        self._http_client = http_client
        self._writer = writer
        self._transport: Transport = StreamableHttp(
            http_client, options.url, options.server_name, writer.write, options.is_login_waiting
        )
        self._requests: dict[RequestId, tuple[asyncio.Task[None], Message]] = {}
        # Runs until `initialize` has its response: the session begins with that response.
        self._initialize_task: asyncio.Task[None] | None = None
        # Sends the `initialized` of the current session.
        self._initialized_task: asyncio.Task[None] | None = None
        # Runs as long as later messages wait for the response to `initialized`.
        self._initialized_wait: asyncio.Task[None] | None = None
        # An `initialized` that the server did not get because a token is missing.
        self._refused_initialized: Message | None = None
        # One for each open message.
        self._tasks: set[asyncio.Task[None]] = set()
        self._other_tasks: set[asyncio.Task[None]] = set()
        # The client's capabilities, from its `initialize`.
        self._capabilities: Mapping[str, Any] = {}
        # Set while the bridge itself answers the client, because the server needs a login.
        self._initialize: Message | None = None
        self._initialized: Message | None = None
        self._connect_lock = asyncio.Lock()
        self._offers_login_tool = False
        self._announced_logins: set[str] = set()

    async def run(self, input_descriptor: int) -> None:
        """Relay until the client closes its end. Ends the session at the server."""
        reader = asyncio.create_task(self._read(input_descriptor))
        try:
            await asyncio.wait({reader, self._writer.broken}, return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                await self._wait_for_session_of_file()
            requests = {task for task, _ in self._requests.values()}
            if self._initialized_wait is not None and not self._initialized_wait.done():
                requests.add(self._initialized_wait)
            if reader.done() and requests:
                # Requests are still open: the input was a file or a pipe, or the client ends.
                await asyncio.wait({self._writer.broken, *requests}, timeout=LAST_REQUESTS_SECONDS)
        finally:
            tasks = (reader, *self._tasks, *self._other_tasks)
            for task in tasks:
                task.cancel()
            await self._writer.close()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._transport.close()

    async def _read(self, input_descriptor: int) -> None:
        async for line in read_lines(input_descriptor):
            if isinstance(line, TooLongLine):
                text = "The message is longer than 32 MiB."
                envelope = read_envelope(line.head, line.tail)
                message_id = None if envelope is None or envelope.is_response else envelope.id
                await self._writer.write(error_response(message_id, INVALID_REQUEST, text))
                continue
            try:
                items = parse_items(line)
            except MalformedMessage as error:
                items = [error]
            for item in items:
                if isinstance(item, MalformedMessage):
                    await self._writer.write(error_response(item.request_id, item.code, str(item)))
                else:
                    await self._accept(item)

    async def _accept(self, message: Message) -> None:
        """Start to handle a message."""
        is_initialized = _is_initialized(message)
        if is_initialized and self._initialized_wait is not None and not self._initialized_wait.done():
            # A session needs one.
            return
        if len(self._tasks) >= MAX_OPEN_MESSAGES and not self._may_end_others(message):
            text = f"{MAX_OPEN_MESSAGES} requests are open. Wait for responses, then try again."
            await self._answer_error(message, text)
            return
        if is_initialized:
            self._start_initialized(message)
            return
        task = _create_task(self._handle(message), self._tasks)
        if message.is_request and message.id is not None:
            message_id = message.id
            self._requests[message_id] = task, message
            if message.method == "initialize":
                self._initialize_task = task
                self._initialized_task = self._initialized_wait = None
            task.add_done_callback(lambda done: self._forget_request(message_id, done))

    @staticmethod
    def _may_end_others(message: Message) -> bool:
        """True for a message that open requests may wait for, such as a response of the client."""
        return message.is_response or (not message.is_request and message.method in _AWAITED_NOTIFICATIONS)

    def _start_initialized(self, message: Message) -> None:
        self._refused_initialized = None
        task = self._initialized_task = _create_task(self._handle(message), self._other_tasks)
        self._initialized_wait = _create_task(self._wait_for_initialized(task), self._other_tasks)

    def _forget_request(self, message_id: RequestId, task: asyncio.Task[None]) -> None:
        if self._requests.get(message_id, (None,))[0] is task:
            del self._requests[message_id]

    async def _handle(self, message: Message) -> None:
        """Handle one message; each request gets a response."""
        try:
            if message.method == "notifications/cancelled" and not message.is_request:
                await self._cancel(message)
            else:
                await self._forward_or_ask(message)
        except AuthorizationRequired as error:
            await self._answer_error(message, login_error_text(error, self._options.login_command))
        except McpAuthError as error:
            await self._answer_error(message, f"{error} {error.advice}")
        except TransportError as error:
            await self._answer_error(message, str(error))
        except Exception as error:  # noqa: BLE001  one message must not end the bridge
            hide_locals(error)
            await self._answer_error(message, f"The bridge failed ({type(error).__name__}).", INTERNAL_ERROR)

    async def _forward_or_ask(self, message: Message) -> None:
        try:
            await self._forward(message)
        except McpAuthError as error:
            if _is_initialized(message):
                # The client may have started a new session meanwhile.
                if self._initialized_task is asyncio.current_task():
                    self._refused_initialized = message
            elif message.is_request and isinstance(error, AuthorizationRequired):
                await self._answer_login_needed(message, error)
            else:
                raise

    async def _answer_error(self, message: Message, text: str, code: int = SERVER_ERROR) -> None:
        if message.is_request:
            await self._writer.write(error_response(message.id, code, text))

    async def _cancel(self, message: Message) -> None:
        """Stop a request. A server with sessions gets the message; other servers see the closed stream."""
        request_id = message.params.get("requestId")
        open_request = self._requests.get(request_id) if is_valid_id(request_id) else None
        if open_request is None:
            # The response to that request was sent already.
            return
        task, request = open_request
        task.cancel()
        if stateless_version(request) is None and self._initialize is None:
            with contextlib.suppress(TransportError, McpAuthError, LegacyServer):
                await self._send(message)

    async def _forward(self, message: Message) -> None:
        progress = self._start_progress(message)
        try:
            await self._wait_for_session(message)
            await self._forward_in_session(message)
        finally:
            if progress is not None:
                progress.cancel()

    async def _forward_in_session(self, message: Message) -> None:
        if message.method == "initialize":
            self._capabilities = _as_mapping(message.params.get("capabilities"))
            # A client that starts anew needs no session for its earlier `initialize`.
            self._initialize = self._initialized = self._refused_initialized = None
        elif _is_initialized(message) and self._initialize is not None:
            self._initialized = message
            return
        elif self._initialize is not None and not await self._connect():
            if message.is_request:
                await self._answer_offline(message)
            return
        try:
            message = await self._after_elicitation(message)
            if self._offers_login_tool and _called_tool(message) == LOGIN_TOOL:
                await self._answer_login_tool(message)
            else:
                await self._send(message)
        except AuthorizationRequired:
            if message.method != "initialize" or self._options.client_login is None:
                raise
            await self._initialize_offline(message)

    async def _wait_for_session(self, message: Message) -> None:
        """Wait until the server has responded to the `initialize` and the `initialized` before a message.

        If the input is a file, all messages come at once.
        """
        if message.method == "initialize":
            return
        if self._initialize_task is not None and not self._initialize_task.done():
            await asyncio.wait({self._initialize_task})
        if _is_initialized(message) or message.is_response:
            # The server may wait for a response of the client before it responds to `initialized`.
            return
        wait, refused = self._initialized_wait, self._refused_initialized
        if refused is not None and (wait is None or wait.done()):
            # The server may refuse all requests until it gets `initialized`. If it refuses that again, the
            # message may need no login, or its refusal names the scope that it needs.
            self._start_initialized(refused)
        if self._initialized_wait is not None:
            await asyncio.wait({self._initialized_wait})

    async def _wait_for_initialized(self, task: asyncio.Task[None]) -> None:
        """Wait until the server has responded to `initialized`, or does not respond."""
        was_login_waiting = False
        while not (await asyncio.wait({task}, timeout=_INITIALIZED_SECONDS))[0]:
            is_login_waiting = False
            with contextlib.suppress(McpAuthError):
                is_login_waiting = await self._options.is_login_waiting()
            # After a login, the server has the whole time to respond.
            if not (is_login_waiting or was_login_waiting):
                return
            was_login_waiting = is_login_waiting

    async def _wait_for_session_of_file(self) -> None:
        """At the end of a file, wait for the session: the server may need more than a second to open it.

        Other clients send `initialized` after they have the response to `initialize`.
        """
        initialize, initialized = self._initialize_task, self._initialized_wait
        if initialize is None or initialize.done() or initialized is None:
            return
        # `initialized` waits for `initialize`.
        await asyncio.wait(
            {self._writer.broken, initialized},
            timeout=_INITIALIZED_SECONDS,
            return_when=asyncio.FIRST_COMPLETED,
        )

    async def _send(self, message: Message) -> None:
        try:
            await self._transport.send(message)
        except LegacyServer:
            await self._fall_back(lambda legacy: legacy.send(message))

    async def _fall_back(self, use: Callable[[HttpWithSse], Awaitable[None]]) -> None:
        """Try HTTP+SSE (2024-11-05), and use it from now on if it works.

        A 404 alone proves nothing: a server that is still starting may also send it.
        """
        legacy = HttpWithSse(
            self._http_client, self._options.url, self._options.server_name, self._writer.write
        )
        try:
            await use(legacy)
        except BaseException:
            await legacy.close()
            raise
        self._transport = legacy

    def _start_progress(self, message: Message) -> asyncio.Task[None] | None:
        """If the client asked for progress, send it notifications while its request waits for a login."""
        token = message.meta.get("progressToken")
        if not message.is_request or not isinstance(token, str | int) or isinstance(token, bool):
            return None
        return asyncio.create_task(self._report_waiting(token))

    async def _report_waiting(self, token: str | int) -> None:
        await asyncio.sleep(PROGRESS_SECONDS)
        # The server reports its own progress; a login has none.
        count = 0
        with contextlib.suppress(McpAuthError):
            while await self._options.is_login_waiting():
                count += 1
                params = {"progressToken": token, "progress": count, "message": "Waiting for a login."}
                await self._writer.write(notification("notifications/progress", params))
                await asyncio.sleep(PROGRESS_SECONDS)

    # The client's own login

    async def _initialize_offline(self, message: Message) -> None:
        """Answer `initialize` without the server, which needs a login first."""
        self._initialize, name = message, self._options.server_name
        version = message.params.get("protocolVersion")
        result = {
            "protocolVersion": version if is_version(version) else LAST_SESSION_VERSION,
            "capabilities": {
                "tools": {"listChanged": True},
                "prompts": {"listChanged": True},
                "resources": {"listChanged": True},
            },
            "serverInfo": {"name": name, "version": "0"},
            "instructions": f"{name} needs a login. Call the tool {LOGIN_TOOL}.",
        }
        await self._writer.write(result_response(message.id, result))
        _create_task(self._connect_after_login(), self._other_tasks)

    async def _connect_after_login(self) -> None:
        while self._initialize is not None:
            await asyncio.sleep(LOGIN_CHECK_SECONDS)
            with contextlib.suppress(McpAuthError, TransportError):
                # Send the server no request as long as the login is missing: it would refuse each one.
                await self._options.authorization()
                await self._connect()

    async def _connect(self) -> bool:
        """Open the session at the server if a login exists by now. Raises TransportError."""
        async with self._connect_lock:
            initialize = self._initialize
            if initialize is None:
                return True
            try:
                await self._open_session(initialize)
            except AuthorizationRequired:
                return False
            self._initialize = None
        for method in _CHANGED:
            await self._writer.write(notification(method, {}))
        return True

    async def _open_session(self, initialize: Message) -> None:
        initialized = self._initialized or parse_messages(notification("notifications/initialized", {}))[0]
        try:
            await self._transport.open_session(initialize, initialized)
        except LegacyServer:
            await self._fall_back(lambda legacy: legacy.open_session(initialize, initialized))

    async def _answer_offline(self, message: Message) -> None:
        """Answer a request while the server needs a login."""
        name, results = self._options.server_name, dict(_EMPTY_RESULTS)
        version = stateless_version(message)
        if version is not None:
            capabilities: dict[str, Any] = {"tools": {}, "prompts": {}, "resources": {}}
            results["server/discover"] = {
                "supportedVersions": [version],
                "capabilities": capabilities,
                "instructions": f"{name} needs a login. Call the tool {LOGIN_TOOL}.",
            }
        self._offers_login_tool = True
        if message.method == "tools/list":
            tool: dict[str, Any] = {
                "name": LOGIN_TOOL,
                "description": f"Log in to {name}. The tools of {name} appear after the login.",
                "inputSchema": {"type": "object", "properties": {}},
            }
            results["tools/list"] = {"tools": [tool]}
        if message.method not in results:
            raise AuthorizationRequired(name)
        cacheable = {} if version is None else {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        await self._writer.write(result_response(message.id, {**results[message.method], **cacheable}))

    async def _answer_login_tool(self, message: Message) -> None:
        """Answer a call of the bridge's own tool. Raises AuthorizationRequired if the login is missing."""
        name = self._options.server_name
        if not await self._options.authorization():
            raise AuthorizationRequired(name)
        text = f"You are logged in to {name}. List the tools again: those of {name} are available now."
        await self._answer_text(message, text, is_error=False)

    async def _answer_text(self, message: Message, text: str, *, is_error: bool) -> None:
        result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": is_error}
        if stateless_version(message) is not None:
            result["resultType"] = "complete"
        await self._writer.write(result_response(message.id, result))

    async def _answer_login_needed(self, message: Message, error: AuthorizationRequired) -> None:
        """Answer with an address if the client shows addresses to the user, else with a command to run."""
        client_login = self._options.client_login
        is_stateless = stateless_version(message) is not None
        if client_login is not None and is_stateless and message.method in _OFFLINE_METHODS:
            await self._answer_offline(message)
            return
        if client_login is not None and message.method in _INPUT_METHODS and self._can_elicit(message):
            login = await client_login.start(error)
            if login is not None:
                await self._elicit(message, login)
                return
        text = login_error_text(error, self._options.login_command)
        if message.method == "tools/call":
            await self._answer_text(message, text, is_error=True)
        else:
            await self._answer_error(message, text)

    def _can_elicit(self, message: Message) -> bool:
        """True if the client declares URL-mode elicitation (2025-11-25 and later)."""
        capabilities = message.meta.get(CAPABILITIES_KEY, self._capabilities)
        elicitation = _as_mapping(_as_mapping(capabilities).get("elicitation"))
        return "url" in elicitation

    async def _after_elicitation(self, message: Message) -> Message:
        """If a repeated request has the user's answer to the prompt, wait for the login.

        Return the request without the answer.
        """
        client_login = self._options.client_login
        responses = _as_mapping(message.params.get("inputResponses"))
        if client_login is None or LOGIN_INPUT not in responses:
            return message
        if _as_mapping(responses[LOGIN_INPUT]).get("action") != "accept":
            await client_login.cancel()
            raise TransportError(f"The login to {self._options.server_name} was declined.")
        await client_login.wait()
        params = {name: value for name, value in message.params.items() if name != "inputResponses"}
        others = {name: value for name, value in responses.items() if name != LOGIN_INPUT}
        if others:
            params["inputResponses"] = others
        members = {**message.members, "params": params}
        return Message(members, encode(members))

    async def _elicit(self, message: Message, login: Login) -> None:
        params = {"mode": "url", "message": elicitation_text(login), "url": elicitation_address(login)}
        if stateless_version(message) is not None:
            # 2026-07-28: the client asks the user, then sends the request again.
            requests = {LOGIN_INPUT: {"method": "elicitation/create", "params": params}}
            result = {"resultType": "input_required", "inputRequests": requests}
            await self._writer.write(result_response(message.id, result))
            return
        data = {"elicitations": [{**params, "elicitationId": login.id}]}
        text = f"{login.key.server_name} needs a login."
        await self._writer.write(error_response(message.id, URL_ELICITATION_REQUIRED, text, data))
        if login.id not in self._announced_logins:
            self._announced_logins.add(login.id)
            _create_task(self._announce_end(login), self._other_tasks)

    async def _announce_end(self, login: Login) -> None:
        client_login = self._options.client_login
        if client_login is not None:
            with contextlib.suppress(McpAuthError):
                await client_login.service.wait_for_login(login.id)
            params = {"elicitationId": login.id}
            await self._writer.write(notification("notifications/elicitation/complete", params))


def _create_task(work: Coroutine[object, object, None], tasks: set[asyncio.Task[None]]) -> asyncio.Task[None]:
    """Create a task that is in `tasks` until it is done."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


def _is_initialized(message: Message) -> bool:
    """True for the notification after which the server accepts requests. A request of that name is none."""
    return message.method == "notifications/initialized" and not message.is_request


def _called_tool(message: Message) -> object:
    """Return the name of the tool that a request calls, else None."""
    return message.params.get("name") if message.method == "tools/call" else None


def _as_mapping(value: object) -> Mapping[str, Any]:
    """Return a JSON object, an empty one for any other value."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
