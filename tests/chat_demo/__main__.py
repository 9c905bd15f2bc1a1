"""Show a login in a chat. It needs no account and no bot token; nothing leaves this machine.

The argument is `telegram` or `discord`. At a terminal, you play the user. Without a terminal, the demo does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import sys
import tempfile
import textwrap
import time
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
from tests.chat_demo.demo_chats import PASTE_LABEL, DemoChat, DiscordDemoChat, TelegramDemoChat
from tests.consent_form import approve, approve_device
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.parts.bot_api.user_actions import ImpossibleAction

DEMO_CHATS: dict[str, Callable[[AuthService, list[Server]], DemoChat]] = {
    "telegram": TelegramDemoChat,
    "discord": DiscordDemoChat,
}
INTRODUCTION = (
    "A {platform} bot runs on this machine. It uses a local copy of {platform}'s API. An MCP server and its "
    "authorization server run here as well. Ada wants her agent to use that MCP server."
)
CONNECTED = "demo: connected"
USAGE = """\
You are Ada. Type one of these, and Enter:
  {connect}
           a message to the bot; any other text is a message too
  1        the number of a button
  approve  open the newest login page on her phone, and approve there
  paste    answer with the address that her browser ended on
  bye      end the demo
Enter alone shows what is new.
"""
# The width of the output without a terminal. It suits a log.
DEFAULT_COLUMNS = 100


def main() -> None:
    """Run the demo for the platform that the command line names."""
    platform = sys.argv[1] if sys.argv[1:] else "telegram"
    with contextlib.suppress(KeyboardInterrupt):
        try:
            run_demo(platform)
        except BrokenPipeError:
            # The reader, such as `head`, has seen enough. Python must not write the rest at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_demo(platform: str) -> None:
    """Run the demo for a platform until the user ends it."""
    with tempfile.TemporaryDirectory() as home, serve_demo(Behaviour(device_interval_seconds=1)) as demo:
        service, server = AuthService(Path(home)), Server("demo", demo.mcp_url)
        chat = DEMO_CHATS[platform](service, [server])
        with chat.running():
            print(textwrap.fill(INTRODUCTION.format(platform=platform.title()), width()), end="\n\n")
            person = DemoUser(chat, demo)
            if sys.stdin.isatty():
                print(wrap_usage(USAGE.format(connect=chat.connect_command)))
                person.run_commands()
            else:
                person.run_script()
        if service.blocking.connection(server) is not None:
            tool_result = asyncio.run(_call_tool(service.session(server)))
            print(
                f"\nThe MCP SDK called the tool `whoami` with Ada's token. The server answered: {tool_result}"
            )


class DemoUser:
    """Ada, the user, with her phone."""

    def __init__(self, chat: DemoChat, demo: Demo) -> None:
        self._chat = chat
        self._demo = demo
        self._answer_url = ""
        self._shown_lines: list[str] = []

    def run_script(self) -> None:
        """Log in with a pasted address, then with a device code."""
        chat = self._chat
        self._run_step(
            f"Ada types {chat.connect_command}:",
            lambda: chat.send_text(chat.connect_command),
            "If not, cancel.",
        )
        print("Ada opens the page on her phone and approves. The browser ends on a page that fails.\n")
        self._approve_login()
        self._run_step("Ada answers with the address of that page:", self._send_answer, CONNECTED)
        self._demo.authorization_server.change_behaviour(with_device=True)
        second_step = f"Ada types {chat.connect_command} again. The provider has device codes now:"
        self._run_step(second_step, lambda: chat.send_text(chat.connect_command), "Enter this code")
        print("Ada opens the page on her phone and approves the code there. She sends no answer.\n")
        self._run_step("The chat then shows:", self._open_page_silently, CONNECTED, expected_count=2)

    def _open_page_silently(self) -> None:
        self._approve_login()

    def run_commands(self) -> None:
        """Read commands from the terminal and do them."""
        while True:
            self._print_news()
            try:
                line = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                print()
                return
            if line == "bye":
                return
            try:
                self._run_command(line)
            except (LookupError, AssertionError, ImpossibleAction, OSError) as error:
                # The platform's client, or the authorization server, does not allow this action.
                print(textwrap.fill(f"({str(error).partition(chr(10))[0]})", width()))

    def _run_command(self, line: str) -> None:
        if line == "approve":
            self._open_page()
        elif line == "paste":
            self._send_answer()
            self._chat.wait_for_change(self._shown_lines)
        elif line.isdecimal():
            self._press_button(int(line))
        elif line:
            self._chat.send_text(line)
            self._chat.wait_for_change(self._shown_lines)

    def _press_button(self, number: int) -> None:
        label, is_link = self._chat.press_button(number)
        if is_link:
            print(f"(Ada opens {label!r} on her phone, and approves.)")
            self._open_page()
            return
        if label == PASTE_LABEL:
            print("(A form opened. `paste` fills in the address that her browser ended on.)")
        self._chat.wait_for_change(self._shown_lines)

    def _open_page(self) -> None:
        is_device = self._approve_login()
        if is_device:
            print("(Ada approved. The chat shows the result by itself.)")
        else:
            print("(Her browser ended on a page that does not load. `paste` sends its address.)")

    def _approve_login(self) -> bool:
        """Approve the newest login; return True for a login with a user code."""
        login_url = self._chat.login_url()
        if urlsplit(login_url).path.startswith("/device"):
            approve_device(login_url)
            return True
        self._answer_url = approve(login_url)
        return False

    def _send_answer(self) -> None:
        if not self._answer_url:
            raise LookupError("approve first")
        self._chat.send_answer(self._answer_url)

    def _run_step(
        self, description: str, action: Callable[[], None], expected_text: str, expected_count: int = 1
    ) -> None:
        print(description)
        action()
        self._chat.wait_until(lambda: self._chat.transcript().count(expected_text) == expected_count)
        self._print_news()

    def _print_news(self) -> None:
        self._chat.wait_until_stable()
        lines = self._chat.transcript().splitlines()
        print("\n".join(new_lines(self._shown_lines, lines)), flush=True)
        self._shown_lines = lines
        if sys.stdin.isatty() and (labels := self._chat.button_labels()):
            buttons = "   ".join(f"[{number}] {label}" for number, label in enumerate(labels, 1))
            print(textwrap.fill(f"Buttons: {buttons}", width(), subsequent_indent="  "), end="\n\n")


def wrap_usage(text: str) -> str:
    """Wrap the list of commands to the width of the terminal; the explanations stay in their column."""
    head, *commands = text.splitlines()
    lines = (textwrap.fill(line, width(), subsequent_indent=" " * 11) for line in commands)
    return "\n".join((textwrap.fill(head, width()), *lines))


def width() -> int:
    """Return the width of the terminal."""
    return shutil.get_terminal_size((DEFAULT_COLUMNS, 24)).columns if sys.stdout.isatty() else DEFAULT_COLUMNS


def new_lines(old_lines: list[str], current_lines: list[str]) -> Iterator[str]:
    """Yield the chat's lines from the first message that is new or has changed."""
    unchanged_count = next(
        (n for n, pair in enumerate(zip(old_lines, current_lines, strict=False)) if pair[0] != pair[1]),
        len(old_lines),
    )
    first_line_index = max(
        (n for n in range(min(unchanged_count + 1, len(current_lines))) if current_lines[n][:1].isalpha()),
        default=0,
    )
    for line in current_lines[first_line_index:] if unchanged_count < len(current_lines) else ():
        yield from fit_line(show_times(line))
    yield ""


def fit_line(line: str) -> list[str]:
    """Fit a line of the chat to the width of the terminal; an embed of Discord is a box."""
    indent, text = line[: len(line) - len(line.lstrip())], line.strip()
    if text.startswith(("┌", "└")):
        return [line[: width() - 1] + text[-1]] if len(line) > width() else [line]
    if text.startswith("│") and len(line) > width():
        bar = f"{indent}│ "
        content = text.strip("│").strip()
        wrapped = textwrap.wrap(
            content, width(), initial_indent=bar, subsequent_indent=bar, break_long_words=False
        )
        return wrapped or [bar.rstrip()]
    return textwrap.wrap(line, width(), subsequent_indent=indent, break_long_words=False) or [""]


def show_times(line: str) -> str:
    """Show Discord's time tags, and its escaped full stops, as a client does."""

    def show(tag: re.Match[str]) -> str:
        seconds = int(tag[1])
        minutes = max(round((seconds - time.time()) / 60), 0)
        return f"in {minutes} minutes" if tag[2] == "R" else time.strftime("%H:%M", time.localtime(seconds))

    return re.sub(r"<t:(\d+):(\w)>", show, line).replace("\\.", ".")


async def _call_tool(session: Session) -> str:
    async with (
        httpx2.AsyncClient(auth=McpAuth(session)) as http_client,
        Client(streamable_http_client(session.server.url, http_client=http_client)) as client,
    ):
        result = await client.call_tool("whoami", {})
        return " ".join(str(getattr(part, "text", "")) for part in result.content)


if __name__ == "__main__":
    main()
