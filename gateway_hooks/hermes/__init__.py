"""The plugin for Hermes Agent: once it is enabled, Hermes's people log in to MCP servers from their chats.

`register` is called in every process of Hermes's, long before there is a gateway: it loads nothing and
touches nothing. In the gateway, a thread waits for its event loop and then has the work begin there
(`gateway`); if that thread should miss it, the first message does.
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
    from gateway_hooks.hermes.agent_tool import AgentAsks
    from gateway_hooks.hermes.runtime import Inside

COMMAND = "mcpauth"
ABOUT = "Connect MCP servers, and see which are connected"
HINT = "[server | connect NAME | disconnect NAME | list]"
TYPED_ELSEWHERE = f"Log in with `hermes {COMMAND} NAME` in a terminal, or by /{COMMAND} NAME in a chat."
TOOL = "connect_mcp_server"
TOOLSET = "mcpauth"
SCHEMA: dict[str, object] = {
    "name": TOOL,
    "description": (
        "Ask the user to log in to an MCP server of the configuration whose tools are missing because nobody "
        "has logged in. The user gets a private message; nothing else is needed of you."
    ),
    "parameters": {
        "type": "object",
        "properties": {"server": {"type": "string", "description": "The server's name in the configuration"}},
        "required": ["server"],
    },
}
# A gateway that is not there by then is none.
WAIT_SECONDS = 600.0
POLL_SECONDS = 0.05

log = logging.getLogger(__name__)


class Plugin:
    """What is registered: it passes everything on to what runs inside the gateway, once that is there."""

    def __init__(self) -> None:
        self.inside: Inside | None = None
        self._asks: AgentAsks | None = None

    def attend(self, gateway: Any) -> None:  # noqa: ANN401  Hermes's own
        """Begin inside this gateway, on its event loop, unless that has happened."""
        if self.inside is None or self.inside.gateway is not gateway:
            from gateway_hooks.hermes.agent_tool import AgentAsks  # noqa: PLC0415  first needed here
            from gateway_hooks.hermes.runtime import Inside  # noqa: PLC0415

            inside = Inside(gateway)
            inside.start()
            self.inside, self._asks = inside, AgentAsks(inside)

    def before_dispatch(self, event: Any = None, gateway: Any = None, **_: object) -> dict[str, str] | None:  # noqa: ANN401
        """Take what is ours before Hermes and its model see it: the hook `pre_gateway_dispatch`."""
        try:
            if gateway is not None:
                self.attend(gateway)
            return None if self.inside is None else self.inside.hear(event)
        except Exception as fault:  # noqa: BLE001  Hermes would log its text
            log.error("A message could not be looked at: %s.", type(fault).__name__)  # noqa: TRY400
            return self._withheld(event)

    @staticmethod
    def _withheld(event: Any) -> dict[str, str] | None:  # noqa: ANN401  Hermes's own
        try:
            from gateway_hooks.hermes.commands import withheld  # noqa: PLC0415  first needed here

            return withheld(event)
        except Exception:  # noqa: BLE001  what cannot be told from a code goes to nobody
            return {"action": "skip", "reason": "a fault"}

    def after_tool(
        self, tool_name: str = "", result: object = None, status: str = "", **_: object
    ) -> str | None:
        """Tell the model that its user has been asked to log in: the hook `transform_tool_result`."""
        try:
            return None if self._asks is None else self._asks.after_tool(tool_name, result, status)
        except Exception as fault:  # noqa: BLE001  Hermes would log its text
            log.error("A tool's result could not be looked at: %s.", type(fault).__name__)  # noqa: TRY400
            return None

    def connect(self, arguments: Mapping[str, object], **_: object) -> str:
        """Ask for a login: what the model's tool does."""
        server = str(arguments.get("server", ""))
        said = TYPED_ELSEWHERE if self._asks is None else self._asks.connect(server)
        return json.dumps({"result": said})

    def wait_for_gateway(self) -> None:
        """Begin as soon as the gateway's adapters are there, before the first message is."""
        from gateway_hooks.hermes.internals import running_gateway  # noqa: PLC0415  first needed here

        end = time.monotonic() + WAIT_SECONDS
        while self.inside is None and time.monotonic() < end:
            gateway = running_gateway()
            loop = getattr(gateway, "_gateway_loop", None)
            if loop is not None:
                loop.call_soon_threadsafe(self._attend_safely, gateway)
                return
            time.sleep(POLL_SECONDS)

    def _attend_safely(self, gateway: Any) -> None:  # noqa: ANN401
        try:
            self.attend(gateway)
        except McpAuthError as error:
            log.error("The gateway could not be attended: %s %s", error, error.advice)  # noqa: TRY400
        except Exception as fault:  # noqa: BLE001  the first message tries again
            log.error("The gateway could not be attended: %s.", type(fault).__name__)  # noqa: TRY400


def register(ctx: Any) -> None:  # noqa: ANN401  Hermes's own
    """Register what Hermes calls: the hook, the command in chats, and `hermes mcpauth`."""
    plugin = Plugin()
    ctx.register_hook("pre_gateway_dispatch", plugin.before_dispatch)
    ctx.register_hook("transform_tool_result", plugin.after_tool)
    ctx.register_tool(TOOL, TOOLSET, SCHEMA, plugin.connect, description=str(SCHEMA["description"]))
    # Reached where the hook took nothing, such as in a terminal's own chat.
    ctx.register_command(COMMAND, _say_where, description=ABOUT, args_hint=HINT)
    ctx.register_cli_command(COMMAND, ABOUT, _options, _log_in, description=ABOUT)
    if "gateway" in sys.argv[1:]:
        _guard_logs()
        threading.Thread(target=plugin.wait_for_gateway, name="mcp-auth-waits", daemon=True).start()


def _say_where(_arguments: str) -> str:
    return TYPED_ELSEWHERE


def _guard_logs() -> None:
    """Keep codes out of what the chat libraries log while they are debugged."""
    from gateway_hooks.log_redaction import redact_logs  # noqa: PLC0415  for a gateway only

    redact_logs()


def _options(parser: Any) -> None:  # noqa: ANN401  an argparse subparser
    parser.add_argument("server", nargs="?", help="its name in config.yaml; without, say what is connected")
    parser.add_argument("--flow", choices=("auto", "loopback", "device", "paste"), help="how to log in")


def _log_in(given: Any) -> None:  # noqa: ANN401  an argparse.Namespace
    """Do what `hermes-mcp-auth login`, or `status`, does in the terminal; exits with its code."""
    from hermes_mcp_auth_remote.cli.__main__ import main  # noqa: PLC0415  for this command only

    if not given.server:
        sys.exit(main(["status"]))
    sys.exit(main(["login", given.server, *(["--flow", given.flow] if given.flow else [])]))
