"""`doctor --hermes`: each fault that an installation may have, and its remedy."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from gateway_hooks.hermes import internals
from hermes_mcp_auth_remote.cli import hermes_doctor
from hermes_mcp_auth_remote.cli.__main__ import main
from tests.json_events import check_event
from tests.requirements import covers


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and an environment in which nothing is wrong."""
    package = tmp_path / "site" / "hermes_cli"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "plugins.py").write_text('HOOKS = {"pre_gateway_dispatch", "transform_tool_result"}')
    tools = tmp_path / "site" / "tools"
    tools.mkdir()
    for name in ("__init__.py", "mcp_tool.py", "mcp_tool_discovery.py"):
        (tools / name).write_text("")
    monkeypatch.syspath_prepend(tmp_path / "site")
    for name in ("hermes_cli", "tools"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    home = tmp_path / "home"
    (home / "mcp-tokens").mkdir(parents=True, mode=0o700)
    (home / "config.yaml").write_text("plugins: {enabled: [mcp-auth-remote]}")
    (home / "gateway.pid").write_text(json.dumps({"pid": os.getpid()}))
    monkeypatch.setenv("HERMES_HOME", str(home))
    return home


def remove_discovery(home: Path) -> None:
    for name in ("mcp_tool.py", "mcp_tool_discovery.py"):
        (home.parent / "site" / "tools" / name).unlink()


def remove_hooks(home: Path) -> None:
    (home.parent / "site" / "hermes_cli" / "plugins.py").write_text("")


@covers("hermes-doctor")
def test_a_complete_installation_has_nothing_wrong(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--hermes"]) == 0
    output = capsys.readouterr().out
    assert output.count("✓") == 7
    assert "layout        0.21" in output
    assert f"runs (process {os.getpid()})" in output
    assert output.endswith("Nothing is wrong.\n")


@covers("hermes-doctor")
@pytest.mark.parametrize(
    ("break_it", "remedy"),
    [
        (remove_discovery, "Update hermes-mcp-auth-remote"),
        (
            lambda home: (home / "config.yaml").write_text("plugins: []"),
            "hermes plugins enable mcp-auth-remote",
        ),
        (lambda home: (home / "config.yaml").unlink(), "hermes plugins enable mcp-auth-remote"),
        (remove_hooks, "Update Hermes Agent to 0.19.0 or later"),
        (lambda home: (home / "mcp-tokens").chmod(0o755), "chmod 700"),
        (lambda home: (home / "gateway.pid").write_text("not JSON"), "hermes gateway start"),
        (lambda home: (home / "gateway.pid").unlink(), "hermes gateway start"),
    ],
    ids=["layout", "enabled", "no-config", "hooks", "mode", "damaged-pid", "stopped"],
)
def test_what_is_wrong_has_one_remedy(
    home: Path, capsys: pytest.CaptureFixture[str], break_it: object, remedy: str
) -> None:
    assert callable(break_it)
    break_it(home)
    assert main(["doctor", "--hermes"]) == 1
    output = capsys.readouterr().out
    assert output.count("✗") == 1
    assert remedy in output.rstrip().splitlines()[-1]
    assert main(["doctor", "--hermes", "--json"]) == 1
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for event in events:
        check_event(event)
    assert remedy in events[-1]["advice"]
    assert (events[-1]["checked"], events[-1]["failed"]) == (7, 1)
    assert [event["ok"] for event in events[:-1]].count(False) == 1


def test_the_doctor_knows_where_the_plugin_looks() -> None:
    modules = internals.NAMES["discover_mcp_tools"].modules
    assert modules == ("tools.mcp_tool_discovery", "tools.mcp_tool")
    assert hermes_doctor.HOOKS == ("pre_gateway_dispatch", "transform_tool_result")
