"""`hermes gateway run` and the commands of plugins, with the layout of the later Hermes."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parents[3]
    # Remove this file's folder from the path: its module names could hide others.
    sys.path[:] = [str(ROOT), *(entry for entry in sys.path if entry != str(Path(__file__).resolve().parent))]

from tests.parts.hermes_stand_in import layout, mcp_client, scopes
from tests.parts.hermes_stand_in.gateway import GatewayRunner, Platform, PlatformConfig, Plugins
from tests.parts.hermes_stand_in.telegram_adapter import TelegramAdapter

READY_LINE = "Gateway housekeeping started"


def main() -> None:
    home = Path(os.environ["HERMES_HOME"])
    for line in (home / ".env").read_text().splitlines() if (home / ".env").exists() else ():
        name, _, value = line.partition("=")
        os.environ.setdefault(name, value)
    without = os.environ.get("HERMES_STAND_IN_WITHOUT", "").split(",")
    layout.install_layout(without)
    if sys.argv[1:2] == ["gateway"]:
        level = logging.DEBUG if "-vv" in sys.argv else logging.INFO
        (home / "logs").mkdir(exist_ok=True)
        handlers: list[logging.Handler] = [
            logging.StreamHandler(sys.stdout),
            logging.FileHandler(home / "logs" / "gateway.log"),
        ]
        logging.basicConfig(level=level, handlers=handlers, format="%(levelname)s %(name)s: %(message)s")
        asyncio.run(run_gateway(home))
    else:
        run_plugin_command(home, sys.argv[1:])


def run_plugin_command(home: Path, arguments: list[str]) -> None:
    plugins = Plugins()
    plugins.load(home)
    set_up, run = plugins.cli_commands[arguments[0]]
    parser = argparse.ArgumentParser(prog=f"hermes {arguments[0]}")
    set_up(parser)
    run(parser.parse_args(arguments[1:]))


async def run_gateway(home: Path) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    plugins = Plugins()
    plugins.load(home)
    gateway = GatewayRunner(home, plugins)
    gateway._gateway_loop = asyncio.get_running_loop()
    for name, settings in gateway.settings()["platforms"].items():
        gateway.config.platforms[Platform(name)] = PlatformConfig(settings["extra"])
    vars(sys.modules["gateway.run"])["_gateway_runner_ref"] = lambda: gateway
    extra = gateway.config.platforms[Platform.TELEGRAM].extra
    adapter = TelegramAdapter(os.environ["TELEGRAM_BOT_TOKEN"], extra)
    await asyncio.to_thread(mcp_client.discover_mcp_tools)
    await adapter.connect()
    gateway.add_adapter(Platform.TELEGRAM, adapter)
    print(READY_LINE, flush=True)
    await stopped.wait()
    await adapter.disconnect()
    await asyncio.to_thread(mcp_client.shutdown_mcp_servers)
    scopes.set_interrupt(False)


if __name__ == "__main__":
    main()
