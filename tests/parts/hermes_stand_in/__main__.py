"""`hermes gateway run` and the commands of plugins, with the layout of the later Hermes."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parents[3]
    # Remove this file's folder from the path: its module names could hide others.
    sys.path[:] = [str(ROOT), *(entry for entry in sys.path if entry != str(Path(__file__).resolve().parent))]

import yaml

from tests.parts.hermes_stand_in import layout, mcp_client, scopes
from tests.parts.hermes_stand_in.gateway import GatewayRunner, Platform, PlatformConfig, Plugins
from tests.parts.hermes_stand_in.telegram_adapter import TelegramAdapter

if TYPE_CHECKING:
    from tests.parts.hermes_stand_in.discord_adapter import DiscordAdapter

READY_LINE = "Gateway housekeeping started"


def main() -> None:
    home = Path(os.environ.get("HERMES_HOME") or Path.home() / ".hermes")
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
    elif sys.argv[1:2] == ["plugins"]:
        set_enabled(home, sys.argv[3], is_enabled=sys.argv[2] == "enable")
    else:
        run_plugin_command(home, sys.argv[1:])


def set_enabled(home: Path, name: str, *, is_enabled: bool) -> None:
    """Add a plugin to the enabled ones in config.yaml, or remove it."""
    home.mkdir(exist_ok=True)
    path = home / "config.yaml"
    settings = (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}
    plugins = settings.setdefault("plugins", {})
    others = [other for other in plugins.get("enabled", []) if other != name]
    plugins["enabled"] = [*others, name] if is_enabled else others
    path.write_text(yaml.safe_dump(settings))


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
    adapters = make_adapters(gateway)
    await asyncio.to_thread(mcp_client.discover_mcp_tools)
    for platform, adapter in adapters.items():
        await adapter.connect()
        gateway.add_adapter(platform, adapter)
    print(READY_LINE, flush=True)
    await stopped.wait()
    for adapter in adapters.values():
        await adapter.disconnect()
    await asyncio.to_thread(mcp_client.shutdown_mcp_servers)
    scopes.set_interrupt(False)


def make_adapters(gateway: GatewayRunner) -> dict[Platform, TelegramAdapter | DiscordAdapter]:
    """Make the adapters of the configured platforms."""
    adapters: dict[Platform, TelegramAdapter | DiscordAdapter] = {}
    for platform, config in gateway.config.platforms.items():
        token = os.environ[f"{platform.value.upper()}_BOT_TOKEN"]
        if platform is Platform.TELEGRAM:
            adapters[platform] = TelegramAdapter(token, config.extra)
        elif platform is Platform.DISCORD:
            from tests.parts.hermes_stand_in.discord_adapter import DiscordAdapter

            adapters[platform] = DiscordAdapter(token, gateway.plugins.commands)
    return adapters


if __name__ == "__main__":
    main()
