"""The demo, the command line and the Bot API of the tests of the command line."""

from __future__ import annotations

from tests.cli.conftest import api, cli, demo, module_demo

__all__ = ["api", "cli", "demo", "module_demo"]
