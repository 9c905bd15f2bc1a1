"""Run `hermes ARGUMENTS` as `python tests/parts/hermes_main.py ARGUMENTS` in Hermes's environment.

If HERMES_TEST_DISCORD_URL and HERMES_TEST_DISCORD_GATEWAY are set, discord.py connects to these addresses (it
has no setting for them). Nothing else differs from the installed command.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path


def main() -> None:
    url, gateway = os.environ.get("HERMES_TEST_DISCORD_URL"), os.environ.get("HERMES_TEST_DISCORD_GATEWAY")
    # Remove this file's folder from the path: its module names could hide others.
    sys.path[:] = [
        entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent
    ]
    if url and gateway:
        import discord.gateway
        import discord.http
        import yarl

        discord.http.Route.BASE = url
        discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(gateway)
    sys.argv[0] = "hermes"
    runpy.run_module("hermes_cli.main", run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
