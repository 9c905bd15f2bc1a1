"""The modules that a bot loads at its start. Each costs start-up time, so logins load their modules later."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from gateway_hooks.discord.bot import run_bot
from hermes_mcp_auth_remote.service import AuthService
print(*(name for name in sys.argv[1:] if name in sys.modules))
"""


def test_discord_bot_starts_without_a_logins_modules() -> None:
    modules = ["httpcore", "yaml", "qrcode", "hermes_mcp_auth_remote.flows.discovery"]
    command = [sys.executable, "-c", PROGRAM, *modules]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == ""
