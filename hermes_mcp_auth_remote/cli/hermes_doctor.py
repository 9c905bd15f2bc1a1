"""`doctor --hermes`: examine the Hermes Agent of this Python environment and HERMES_HOME."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import yaml

from hermes_mcp_auth_remote.cli.output import print_json, print_result
from hermes_mcp_auth_remote.cli.servers import current_home
from hermes_mcp_auth_remote.terminal.text import CHECK_MARK, CROSS_MARK

PLUGIN = "mcp-auth-remote"
ENTRY_POINTS = "hermes_agent.plugins"
RUN_INSIDE = "hermes mcpauth doctor"
HOOKS = ("pre_gateway_dispatch", "transform_tool_result")


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, what it found, and the remedy ("" if nothing is wrong)."""

    name: str
    result: str
    remedy: str = ""


def run_hermes_doctor(*, as_json: bool) -> int:
    """Print what was found and one remedy; return 1 if something is wrong."""
    checks = list(examine(current_home()))
    remedy = next((check.remedy for check in checks if check.remedy), "")
    if as_json:
        for check in checks:
            print_json(
                {
                    "event": "check",
                    "check": check.name,
                    "result": check.result,
                    "ok": not check.remedy,
                    "advice": check.remedy or None,
                }
            )
        failed = sum(bool(check.remedy) for check in checks)
        print_json({"event": "summary", "checked": len(checks), "failed": failed, "advice": remedy or None})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            print_result(
                f"{CROSS_MARK if check.remedy else CHECK_MARK} {check.name:<{width}}  {check.result}"
            )
        print_result(f"\n{remedy}" if remedy else "\nNothing is wrong.")
    return 1 if remedy else 0


def examine(home: Path) -> Iterator[Check]:
    """Yield the results of the checks, the most basic check first. Imports no module of Hermes."""
    yield _check_version()
    yield _check_layout()
    yield _check_plugin(home)
    yield _check_enabled(home)
    yield _check_hooks()
    yield _check_tokens(home)
    yield _check_gateway(home)


def _check_version() -> Check:
    package = _module_file("hermes_cli")
    if package is None:
        return Check(
            "Hermes Agent",
            f"not in this Python environment ({sys.prefix})",
            f"Run it in Hermes's own environment: {RUN_INSIDE}",
        )
    version = "of an unknown version"
    with suppress(metadata.PackageNotFoundError):
        version = metadata.version("hermes-agent")
    return Check("Hermes Agent", f"{version}, in {package.parent}")


def _check_layout() -> Check:
    if _module_file("tools.mcp_tool_discovery") is not None:
        return Check("layout", "0.21")
    if _module_file("tools.mcp_tool") is not None:
        return Check("layout", "0.19")
    remedy = "Update hermes-mcp-auth-remote: this version does not know where this Hermes has its MCP client."
    return Check("layout", "unknown", remedy)


def _check_plugin(home: Path) -> Check:
    if metadata.entry_points(group=ENTRY_POINTS, name=PLUGIN):
        return Check("plugin", "installed in this environment")
    folder = home / "plugins" / PLUGIN
    if (folder / "__init__.py").exists():
        return Check("plugin", f"in {folder}")
    return Check(
        "plugin",
        "not installed",
        f"In a clone of hermes_mcp_auth_remote, install it: {sys.executable} -m pip install '.[hermes]'",
    )


def _check_enabled(home: Path) -> Check:
    enabled: list[str] = []
    with suppress(OSError, ValueError, yaml.YAMLError, LookupError, TypeError):
        settings: Any = yaml.safe_load((home / "config.yaml").read_text("utf-8"))
        enabled = [str(name) for name in settings["plugins"]["enabled"]]
    if PLUGIN in enabled:
        return Check("enabled", f"in {home / 'config.yaml'}")
    return Check("enabled", f"not in {home / 'config.yaml'}", f"Enable it: hermes plugins enable {PLUGIN}")


def _check_hooks() -> Check:
    source = _module_file("hermes_cli.plugins")
    text = ""
    if source is not None:
        with suppress(OSError, ValueError):
            text = source.read_text("utf-8")
    missing = [hook for hook in HOOKS if f'"{hook}"' not in text]
    if not missing:
        return Check("hooks", ", ".join(HOOKS))
    remedy = "Update Hermes Agent to 0.19.0 or later: this one does not call the plugin."
    return Check("hooks", f"Hermes has no {' and no '.join(missing)}", remedy)


def _check_tokens(home: Path) -> Check:
    folder = home / "mcp-tokens"
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError:
        return Check("tokens", f"none yet in {folder}")
    if mode & 0o077:
        return Check("tokens", f"other users may read {folder}", f"Close it: chmod 700 {folder}")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Check(
            "tokens", f"this user may not write to {folder}", "Run it as the user that Hermes runs as."
        )
    return Check("tokens", str(folder))


def _check_gateway(home: Path) -> Check:
    with suppress(OSError, ValueError, LookupError, TypeError):
        text = (home / "gateway.pid").read_text("utf-8").strip()
        document: Any = json.loads(text)
        pid = int(cast("dict[str, Any]", document)["pid"] if isinstance(document, dict) else document)
        try:
            os.kill(pid, 0)
        except PermissionError:
            return Check("gateway", f"runs as another user (process {pid})")
        return Check("gateway", f"runs (process {pid})")
    return Check("gateway", "does not run", "Start it: hermes gateway start")


def _module_file(name: str) -> Path | None:
    """Return the file of a module, or None if there is no such module.

    Imports only the packages that contain the module.
    """
    with suppress(ImportError, ValueError, AttributeError):
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            return Path(spec.origin)
    return None
