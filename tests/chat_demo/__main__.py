"""Shows a login in a chat: no account, no bot, nothing leaves this machine. Told telegram or discord.

At a terminal you are the person in the chat; without one, the demo plays her.
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
A bot of {platform} runs on this machine, against an endpoint of {platform}'s that runs here as well, and so
do an MCP server and its authorization server. Ada wants her agent to use that MCP server.
"""
CONNECTED = "demo: connected"
KEYS = """\
You are Ada. Type what she would type ({connect}), the number of a button to press it, `approve` to open
the page on her phone and approve there, `paste` to answer with the address that her browser ended on. Enter
alone looks again; `bye` ends it.
"""


def main() -> None:
    """Play it."""
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
            print(f"\nThe MCP SDK called the tool `whoami` with Ada's token; it answered: {answer}")


class Person:
    """Ada, with her phone."""

    def __init__(self, stage: Stage, demo: Demo) -> None:
        self._stage = stage
        self._demo = demo
        self._address = ""
        self._seen: list[str] = []

    def plays(self) -> None:
        """Log in by pasting, then with a code that is entered on the phone."""
        stage = self._stage
        self._does(f"Ada types {stage.connect}:", lambda: stage.types(stage.connect), "Continue only if")
        print("Ada opens the page on her phone and approves; her browser ends on a page that is not there.\n")
        self._approves()
        self._does("She answers with that page's address:", self._pastes, CONNECTED)
        self._demo.authorization_server.change_behaviour(with_device=True)
        again = f"Once more, {stage.connect}; the provider has device codes now:"
        self._does(again, lambda: stage.types(stage.connect), "enter this code")
        print("Ada opens the page on her phone, and approves the code there. She answers nothing.\n")
        self._does("What she then sees:", self._approves, CONNECTED, times=2)

    def at_keyboard(self) -> None:
        """Do what is typed."""
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
            print("(Her browser ended on a page that is not there; `paste` sends its address.)")
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
    """Yield a chat from the first message that is new, or another than before."""
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
