"""The command that installs a missing package installs it into the environment that misses it."""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.installation import install_command


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of this environment's commands, with a `pip`; PATH has another `pip`."""
    for name in ("scripts", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pip").touch(0o755)
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path / "scripts"))
    monkeypatch.setattr(sys, "executable", "/opt/an environment/bin/python")
    monkeypatch.setenv("PATH", str(tmp_path / "other"))
    return tmp_path / "scripts"


def test_in_an_activated_environment_the_command_is_pip(
    scripts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{scripts}:/usr/bin")
    assert install_command("httpx2>=2.0") == "pip install 'httpx2>=2.0'"


@pytest.mark.usefixtures("scripts")
def test_if_the_pip_on_path_is_of_another_environment_the_command_names_this_python() -> None:
    assert install_command("httpx2") == "'/opt/an environment/bin/python' -m pip install httpx2"


@pytest.mark.usefixtures("scripts")
def test_in_an_environment_without_pip_the_command_uses_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    expected = "uv pip install --python '/opt/an environment/bin/python' httpx2"
    assert install_command("httpx2") == expected
