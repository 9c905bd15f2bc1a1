"""Show a login in a chat. It needs no account and no bot token; nothing leaves this machine.

The argument is telegram or discord. At a terminal you are the user; without a terminal the demo is the user.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from hermes_mcp_auth_remote.auth.httpx2 import McpAuth
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.values import Server
from tests.browserless import approve, approve_device
from tests.chat_demo.stages import DiscordStage, Stage, TelegramStage
from tests.parts.authorization_server import Behaviour, Demo, serve_demo

STAGES: dict[str, Callable[[AuthService, list[Server]], Stage]] = {
    "telegram": TelegramStage,
    "discord": DiscordStage,
}
INTRODUCTION = """\
A {platform} bot runs on this machine. It uses a local copy of {platform}'s API. An MCP server and its
authorization server run here as well. Ada wants her agent to use that MCP server.
"""
CONNECTED = "demo: connected"
KEYS = """\
You are Ada. Type a message ({connect}) or the number of a button. `approve` opens the page on her phone
and approves there. `paste` answers with the address that her browser ended on. An empty line shows the chat
again. `bye` ends the demo.
"""


def main() -> None:
    """Run the demo for the platform that the command line names."""
    name = sys.argv[1] if sys.argv[1:] else "telegram"
    with tempfile.TemporaryDirectory() as home, serve_demo(Behaviour(device_interval_seconds=1)) as demo:
        service, server = AuthService(Path(home)), Server("demo", demo.mcp_url)
        stage = STAGES[name](service, [server])
        with stage.running():
            print(INTRODUCTION.format(platform=name.title()))
            person = Person(stage, demo)
            if sys.stdin.isatty():
                print(KEYS.format(connect=stage.connect))
                person.at_keyboard()
            else:
                person.plays()
        if service.connection(server) is not None:
            answer = asyncio.run(_call_tool(service.session(server)))
            print(f"\nThe MCP SDK called the tool `whoami` with Ada's token. The server answered: {answer}")


class Person:
    """Ada, the user, with her phone."""

    def __init__(self, stage: Stage, demo: Demo) -> None:
        self._stage = stage
        self._demo = demo
        self._address = ""
        self._seen: list[str] = []

    def plays(self) -> None:
        """Log in with a pasted address, then with a device code."""
        stage = self._stage
        self._does(f"Ada types {stage.connect}:", lambda: stage.types(stage.connect), "Continue only if")
        print("Ada opens the page on her phone and approves. The browser ends on a page that fails.\n")
        self._approves()
        self._does("Ada answers with the address of that page:", self._pastes, CONNECTED)
        self._demo.authorization_server.change_behaviour(with_device=True)
        again = f"Ada types {stage.connect} again. The provider has device codes now:"
        self._does(again, lambda: stage.types(stage.connect), "enter this code")
        print("Ada opens the page on her phone and approves the code there. She sends no answer.\n")
        self._does("The chat then shows:", self._approves, CONNECTED, times=2)

    def at_keyboard(self) -> None:
        """Read commands from the terminal and do them."""
        while True:
            self._look()
            try:
                line = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                return
            if line == "bye":
                return
            try:
                self._do(line)
            except LookupError as error:
                print(f"({error})")

    def _do(self, line: str) -> None:
        if line == "approve":
            self._approves()
            print("(Her browser ended on a page that does not load. `paste` sends its address.)")
        elif line == "paste":
            self._pastes()
        elif line.isdecimal():
            self._stage.presses(int(line))
        elif line:
            self._stage.types(line)

    def _approves(self) -> None:
        address = self._stage.address()
        if urlsplit(address).path.startswith("/device"):
            approve_device(address)
        else:
            self._address = approve(address)

    def _pastes(self) -> None:
        if not self._address:
            raise LookupError("approve first")
        self._stage.answers(self._address)

    def _does(self, said: str, what: Callable[[], None], until: str, times: int = 1) -> None:
        print(said)
        what()
        self._stage.wait(lambda: self._stage.transcript().count(until) == times)
        self._look()

    def _look(self) -> None:
        self._stage.settle()
        seen = self._stage.transcript().splitlines()
        print("\n".join(_news(self._seen, seen)), flush=True)
        self._seen = seen


def _news(before: list[str], now: list[str]) -> Iterator[str]:
    """Yield the chat's lines from the first message that is new or has changed."""
    same = next(
        (n for n, pair in enumerate(zip(before, now, strict=False)) if pair[0] != pair[1]), len(before)
    )
    first = max((n for n in range(min(same + 1, len(now))) if now[n][:1].isalpha()), default=0)
    for line in now[first:] if same < len(now) else ():
        indent = line[: len(line) - len(line.lstrip())]
        yield from textwrap.wrap(line, 100, subsequent_indent=indent, break_long_words=False) or [""]
    yield ""


async def _call_tool(session: Session) -> str:
    async with (
        httpx2.AsyncClient(auth=McpAuth(session)) as http_client,
        Client(streamable_http_client(session.server.url, http_client=http_client)) as client,
    ):
        result = await client.call_tool("whoami", {})
        return " ".join(str(getattr(part, "text", "")) for part in result.content)


if __name__ == "__main__":
    main()
