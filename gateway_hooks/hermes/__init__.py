"""A plugin for Hermes Agent: with it, Hermes's users log in to MCP servers from their chats.

Hermes calls `register` in each of its processes, before a gateway runs. So `register` imports as little as
possible and does no I/O. In the gateway process, a thread waits for the gateway's event loop and starts a
`GatewayRuntime` on it. If the thread gives up too early, the first message starts the runtime.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hermes_mcp_auth_remote.errors import McpAuthError

if TYPE_CHECKING:
    from gateway_hooks.hermes.agent_tool import AgentLogins
    from gateway_hooks.hermes.runtime import GatewayRuntime

COMMAND = "mcpauth"
COMMAND_DESCRIPTION = "Connect MCP servers, and see which are connected"
COMMAND_ARGS_HINT = "[server | connect NAME | disconnect NAME | list | help]"
LOGIN_INSTRUCTIONS = f"Log in with `hermes {COMMAND} NAME` in a terminal, or by /{COMMAND} NAME in a chat."
TOOL_NAME = "connect_mcp_server"
TOOLSET = "mcpauth"
TOOL_SCHEMA: dict[str, object] = {
    "name": TOOL_NAME,
    "description": (
        "Ask the user to log in to an MCP server of the configuration. Use it if the server's tools are "
        "missing because no user has logged in. The user gets a private message. The result comes when the "
        "user has logged in; the server's tools are available then. If the user does not log in within some "
        "minutes, the result comes without the tools."
    ),
    "parameters": {
        "type": "object",
        "properties": {"server": {"type": "string", "description": "The server's name in the configuration"}},
        "required": ["server"],
    },
}
# If no gateway runs after this time, assume that this process has no gateway.
GATEWAY_WAIT_SECONDS = 600.0
GATEWAY_POLL_SECONDS = 0.05

log = logging.getLogger(__name__)


class Plugin:
    """The callbacks that Hermes calls. Once a GatewayRuntime runs, they pass everything on to it."""

    def __init__(self) -> None:
        self.runtime: GatewayRuntime | None = None
        self._agent_logins: AgentLogins | None = None

    def ensure_started(self, gateway: Any) -> None:  # noqa: ANN401  Hermes's own
        """If this gateway has no runtime, start one. Call this method on the gateway's event loop."""
        if self.runtime is None or self.runtime.gateway is not gateway:
            from gateway_hooks.hermes.agent_tool import AgentLogins  # noqa: PLC0415  first needed here
            from gateway_hooks.hermes.runtime import GatewayRuntime  # noqa: PLC0415

            runtime = GatewayRuntime(gateway)
            runtime.start()
            self.runtime, self._agent_logins = runtime, AgentLogins(runtime)

    def on_pre_gateway_dispatch(
        self,
        event: Any = None,  # noqa: ANN401  Hermes's own
        gateway: Any = None,  # noqa: ANN401  Hermes's own
        **_: object,
    ) -> dict[str, str] | None:
        """Hook `pre_gateway_dispatch`: claim commands and codes before Hermes and its model see them."""
        try:
            if gateway is not None:
                self.ensure_started(gateway)
            return None if self.runtime is None else self.runtime.handle_event(event)
        except Exception as error:  # noqa: BLE001  Hermes would log its text
            log.error("A message could not be read: %s.", type(error).__name__)  # noqa: TRY400
            return self._skip_if_code(event)

    @staticmethod
    def _skip_if_code(event: Any) -> dict[str, str] | None:  # noqa: ANN401  Hermes's own
        try:
            from gateway_hooks.hermes.commands import skip_if_code  # noqa: PLC0415  first needed here

            return skip_if_code(event)
        except Exception:  # noqa: BLE001  the event may carry a code
            return {"action": "skip", "reason": "a fault"}

    def on_transform_tool_result(
        self,
        tool_name: str = "",
        args: Mapping[str, object] | None = None,
        result: object = None,
        status: str = "",
        duration_ms: float = 0.0,
        task_id: str = "",
        session_id: str = "",
        **_: object,
    ) -> str | None:
        """Hook `transform_tool_result`: if a call failed because it needs a login, log in and repeat it."""
        if self._agent_logins is None:
            return None
        try:
            from gateway_hooks.hermes.agent_tool import ToolCall  # noqa: PLC0415  imported with the runtime

            call = ToolCall(tool_name, args or {}, (duration_ms or 0.0) / 1000, task_id, session_id)
            return self._agent_logins.transform_tool_result(call, result, status)
        except Exception as error:  # noqa: BLE001  Hermes would log its text
            log.error("A tool's result could not be read: %s.", type(error).__name__)  # noqa: TRY400
            return None

    def connect_mcp_server(self, arguments: Mapping[str, object], **_: object) -> str:
        """Handle the model's tool: ask the user of this turn to log in."""
        server = str(arguments.get("server", ""))
        reply = LOGIN_INSTRUCTIONS if self._agent_logins is None else self._agent_logins.request_login(server)
        return json.dumps({"result": reply})

    def wait_for_gateway(self) -> None:
        """Start the runtime as soon as the gateway has adapters. Runs in a thread of its own."""
        from gateway_hooks.hermes.internals import event_loop_of, running_gateway  # noqa: PLC0415  first needed here

        end = time.monotonic() + GATEWAY_WAIT_SECONDS
        while self.runtime is None and time.monotonic() < end:
            gateway = running_gateway()
            loop = event_loop_of(gateway)
            if loop is not None:
                loop.call_soon_threadsafe(self._start_or_log, gateway)
                return
            time.sleep(GATEWAY_POLL_SECONDS)

    def _start_or_log(self, gateway: Any) -> None:  # noqa: ANN401
        try:
            self.ensure_started(gateway)
        except McpAuthError as error:
            log.error("The gateway plugin could not start: %s %s", error, error.advice)  # noqa: TRY400
        except Exception as error:  # noqa: BLE001  the first message tries again
            log.error("The gateway plugin could not start: %s.", type(error).__name__)  # noqa: TRY400


def register(ctx: Any) -> None:  # noqa: ANN401  Hermes's own
    """Register the hooks, the tool, the chat command and `hermes mcpauth`. Hermes calls this function."""
    plugin = Plugin()
    ctx.register_hook("pre_gateway_dispatch", plugin.on_pre_gateway_dispatch)
    ctx.register_hook("transform_tool_result", plugin.on_transform_tool_result)
    ctx.register_tool(
        TOOL_NAME,
        TOOLSET,
        TOOL_SCHEMA,
        plugin.connect_mcp_server,
        description=str(TOOL_SCHEMA["description"]),
    )
    # Hermes runs the command if the hook did not claim it, for example in a chat in the terminal.
    ctx.register_command(
        COMMAND, _show_login_instructions, description=COMMAND_DESCRIPTION, args_hint=COMMAND_ARGS_HINT
    )
    ctx.register_cli_command(
        COMMAND, COMMAND_DESCRIPTION, _add_arguments, _run_cli_command, description=COMMAND_DESCRIPTION
    )
    if "gateway" in sys.argv[1:]:
        _redact_logs()
        threading.Thread(target=plugin.wait_for_gateway, name="mcp-auth-waits", daemon=True).start()


def _show_login_instructions(_arguments: str) -> str:
    return LOGIN_INSTRUCTIONS


def _redact_logs() -> None:
    """Remove secrets from what the chat libraries log at debug level."""
    from gateway_hooks.log_redaction import redact_logs  # noqa: PLC0415  for a gateway only

    redact_logs()


def _add_arguments(parser: Any) -> None:  # noqa: ANN401  an argparse subparser
    parser.add_argument(
        "words",
        nargs="*",
        metavar="NAME | list | connect NAME | disconnect NAME | doctor",
        help="the server's name in config.yaml, or what to do; without it, list what is connected",
    )
    parser.add_argument("--flow", choices=("auto", "loopback", "device", "paste"), help="how to log in")


def _run_cli_command(arguments: Any) -> None:  # noqa: ANN401  an argparse.Namespace
    """Run the verb of `hermes-mcp-auth` that the arguments name; exit with its exit code."""
    from hermes_mcp_auth_remote.cli.__main__ import main  # noqa: PLC0415  for this command only

    flow = ["--flow", arguments.flow] if arguments.flow else []
    match arguments.words:
        case [] | ["list"]:
            verb = ["status"]
        case ["doctor"]:
            verb = ["doctor", "--hermes"]
        case ["connect", name] | [name] if name not in {"connect", "disconnect"}:
            verb = ["login", name, *flow]
        case ["disconnect", name]:
            verb = ["logout", name]
        case _:
            sys.exit(f"Use: hermes {COMMAND} [NAME | list | connect NAME | disconnect NAME | doctor]")
    sys.exit(main(verb))
