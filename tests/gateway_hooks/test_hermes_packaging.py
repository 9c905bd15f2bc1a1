"""The plugin as a folder, and `hermes mcpauth` in a terminal."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import httpcore
import pytest
import yaml

import gateway_hooks.hermes as plugin
from tests.requirements import covers

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "gateway_hooks" / "hermes" / "directory_plugin"
# Load the folder as Hermes does.
LOAD = """
import importlib.util, sys
from pathlib import Path
folder = Path(sys.argv[1])
spec = importlib.util.spec_from_file_location(
    "hermes_plugins.mcp_auth_remote", folder / "__init__.py", submodule_search_locations=[str(folder)]
)
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)

class Context:
    def __getattr__(self, name):
        return lambda *arguments, **options: print(name, arguments[0])

module.register(Context())
"""


def load(folder: Path) -> subprocess.CompletedProcess[str]:
    """Load the plugin in a Python whose environment has the dependencies, but not this package."""
    site_packages = Path(httpcore.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-S", "-c", LOAD, str(folder)],
        env={"PYTHONPATH": str(site_packages), "HOME": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder HERMES_HOME/plugins/mcp-auth-remote, made as docs/hermes.md says."""
    folder = tmp_path / "plugins" / "mcp-auth-remote"
    (folder / "lib").mkdir(parents=True)
    for name in ("gateway_hooks", "hermes_mcp_auth_remote"):
        (folder / "lib" / name).symlink_to(ROOT / name)
    for path in (folder / "lib" / "gateway_hooks" / "hermes" / "directory_plugin").glob("*.*"):
        shutil.copy(path, folder)
    return folder


@covers("hermes-layouts")
def test_the_folder_registers_what_the_installed_plugin_registers(folder: Path) -> None:
    loaded = load(folder)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.splitlines() == [
        "register_hook pre_gateway_dispatch",
        "register_hook transform_tool_result",
        "register_tool connect_mcp_server",
        "register_command mcpauth",
        "register_cli_command mcpauth",
    ]
    manifest = yaml.safe_load((folder / "plugin.yaml").read_text())
    assert manifest["name"] == "mcp-auth-remote"
    assert f'version = "{manifest["version"]}"' in (ROOT / "pyproject.toml").read_text()


@covers("hermes-moved")
def test_a_folder_without_the_package_says_how_to_install_it(folder: Path) -> None:
    shutil.rmtree(folder / "lib")
    loaded = load(folder)
    assert loaded.returncode == 1
    assert f"-m pip install --target {folder / 'lib'} '.[hermes]'" in loaded.stderr


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ([], ["status"]),
        (["list"], ["status"]),
        (["notes"], ["login", "notes"]),
        (["connect", "notes", "--flow", "paste"], ["login", "notes", "--flow", "paste"]),
        (["disconnect", "notes"], ["logout", "notes"]),
        (["doctor"], ["doctor", "--hermes"]),
    ],
)
@covers("hermes-story")
def test_the_terminal_command_has_the_words_of_the_chat(
    monkeypatch: pytest.MonkeyPatch, words: list[str], arguments: list[str]
) -> None:
    ran: list[list[str]] = []

    def record(given: list[str]) -> int:
        ran.append(given)
        return 7

    monkeypatch.setattr("hermes_mcp_auth_remote.cli.__main__.main", record)
    parser = argparse.ArgumentParser()
    plugin._add_arguments(parser)
    with pytest.raises(SystemExit) as exit_info:
        plugin._run_cli_command(parser.parse_args(words))
    assert exit_info.value.code == 7
    assert ran == [arguments]


def test_other_words_are_refused_with_the_usage() -> None:
    parser = argparse.ArgumentParser()
    plugin._add_arguments(parser)
    with pytest.raises(SystemExit, match=r"hermes mcpauth \[NAME"):
        plugin._run_cli_command(parser.parse_args(["disconnect"]))
