"""One demo for each module, reset before each test; one home and one command line for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import Cli
from tests.leak_check import watch_secrets
from tests.parts import bot_api
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.parts.bot_api import BotApi


@pytest.fixture(scope="module")
def module_demo() -> Iterator[Demo]:
    with serve_demo(paths=("/mcp", "/other/mcp")) as demo:
        yield demo


@pytest.fixture
def demo(module_demo: Demo) -> Demo:
    module_demo.authorization_server.behaviour = Behaviour()
    module_demo.authorization_server.clear_faults()
    module_demo.authorization_server.requests.clear()
    watch_secrets(module_demo.authorization_server.minted_secrets)
    return module_demo


@pytest.fixture
def cli(demo: Demo, tmp_path: Path) -> Cli:
    cli = Cli(tmp_path / "home", demo.authorization_server.minted_secrets)
    cli.configure(demo.mcp_url)
    return cli


@pytest.fixture
def api() -> Iterator[BotApi]:
    """Run a local server with Telegram's Bot API."""
    with bot_api.serve_bot_api() as server:
        watch_secrets([server.token])
        yield server
