"""Finding HERMES_HOME, also for a user without HOME and without an entry in the password database."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.hermes_home import expand_user, hermes_home, is_settled
from tests.requirements import covers

pytestmark = pytest.mark.slow

UNKNOWN_UID = 54321
# Import everything before the user changes: the new user may not be allowed to read this Python.
BECOME_UNKNOWN_USER = f"""
import asyncio, importlib, os, pkgutil, sys, types
import hermes_mcp_auth_remote.auth.httpx, hermes_mcp_auth_remote.cli
import hermes_mcp_auth_remote.cli.serve, gateway_hooks.hermes.agent_tool, gateway_hooks.hermes.runtime
for module in pkgutil.iter_modules(hermes_mcp_auth_remote.cli.__path__):
    importlib.import_module(f"hermes_mcp_auth_remote.cli.{{module.name}}")
from hermes_mcp_auth_remote.cli.__main__ import main
if os.getuid() == 0:
    os.setgroups([])
    os.setgid({UNKNOWN_UID})
    os.setuid({UNKNOWN_UID})
"""


@pytest.fixture
def unknown_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Become a user without HOME and without an entry in the password database."""

    def raise_unknown_uid(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", raise_unknown_uid)
    monkeypatch.delenv("HOME")


@covers("no-home")
@pytest.mark.usefixtures("unknown_user")
@pytest.mark.parametrize("configured", [{}, {"HERMES_HOME": ""}, {"HERMES_HOME": " "}, {"HERMES_HOME": "~"}])
def test_without_a_home_directory_the_error_advises_to_set_hermes_home(configured: Mapping[str, str]) -> None:
    with pytest.raises(ConfigError, match="HOME is not set") as caught:
        hermes_home(configured)
    assert caught.value.advice == "Set HERMES_HOME to a directory of your own."


@pytest.mark.usefixtures("unknown_user")
def test_an_absolute_hermes_home_needs_no_home_directory() -> None:
    assert hermes_home({"HERMES_HOME": "/srv/hermes"}) == "/srv/hermes"


@covers("no-home")
@pytest.mark.parametrize("home", ["", "relative", "./relative", " ", "~"])
def test_a_home_directory_with_a_relative_path_is_refused(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    with pytest.raises(ConfigError, match="absolute"):
        hermes_home({})
    assert hermes_home({"HERMES_HOME": "/srv/hermes"}) == "/srv/hermes"


def test_a_tilde_with_a_user_name_is_expanded_or_refused() -> None:
    root = pwd.getpwuid(0)
    assert hermes_home({"HERMES_HOME": f"~{root.pw_name}/x"}) == os.path.join(root.pw_dir, "x")  # noqa: PTH118
    with pytest.raises(ConfigError, match="no such user"):
        hermes_home({"HERMES_HOME": "~no-such-user-here/x"})


def test_a_relative_hermes_home_is_relative_to_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path)
    assert hermes_home({"HERMES_HOME": "here"}) == str(tmp_path / "here")
    assert hermes_home({"HERMES_HOME": "./~/x"}) == f"{tmp_path}/./~/x"
    monkeypatch.chdir("gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match="current directory is gone"):
        hermes_home({"HERMES_HOME": "here"})


def test_a_path_without_a_leading_tilde_stays_unchanged() -> None:
    assert [expand_user(path, "") for path in ("", "a/~", "/~", "./~")] == ["", "a/~", "/~", "./~"]


SERVER = "https://a.example/mcp"
COMMANDS = (
    ["token", "notes"],
    ["header", "notes"],
    ["status"],
    ["status", "--json"],
    ["login", "notes"],
    ["login", "--url", SERVER, "--no-wait"],
    ["logout", "notes"],
    ["run", "notes", "--", "true"],
    ["doctor", "notes"],
    ["serve", "--telegram"],
)
# Prints the errors of McpAuth and of the Hermes plugin, then the exit code and output of each command.
SCRIPT = f"""
import contextlib, io
def run(argv):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = main(argv)
    print(code, " ".join(out.getvalue().split()))
from gateway_hooks.hermes import Plugin
from hermes_mcp_auth_remote.auth.httpx import McpAuth
from hermes_mcp_auth_remote.errors import ConfigError
for server in ("notes", {SERVER!r}):
    try:
        McpAuth(server)
    except ConfigError as error:
        print(3, error, error.advice)

async def attend():
    Plugin()._start_or_log(types.SimpleNamespace(adapters={{}}))
asyncio.run(attend())

for argv in {COMMANDS!r}:
    run(argv)
run(["--version"])
os.environ["HERMES_HOME"] = "/nowhere/hermes"
run(["status"])
"""


@covers("no-home")
def test_without_a_home_commands_and_plugin_report_it_and_write_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    # The user may write here.
    folder.chmod(0o777)
    script = BECOME_UNKNOWN_USER + SCRIPT
    if os.getuid() != 0:
        # Only root can change the user, so simulate the missing entry.
        script = f"import pwd\ndef gone(uid): raise KeyError(uid)\npwd.getpwuid = gone\n{script}"
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result
    *refused_lines, version, status = result.stdout.splitlines()
    assert len(refused_lines) == len(COMMANDS) + 2
    for line in [*refused_lines, f"3 {result.stderr}"]:
        assert line.startswith("3 ")
        assert "Set HERMES_HOME to a directory of your own." in line
    assert result.stderr.startswith("The gateway plugin could not start: ")
    # `--version` needs no home, and `status` has HERMES_HOME: both succeed.
    assert version.startswith("0 ")
    assert status.startswith("0 ")
    assert list(folder.iterdir()) == []


@covers("config-once")
@pytest.mark.parametrize(
    ("changed_at_ns", "age_ns", "expected"),
    [
        (1_800_000_000_123_000_000, 60_000_000, True),
        (1_800_000_000_123_000_000, 40_000_000, False),
        # A file system with times in whole or in even seconds (FAT, HFS+, older NFS).
        (1_800_000_000_000_000_000, 2_900_000_000, False),
        (1_800_000_000_000_000_000, 3_100_000_000, True),
        # The clock was set back since.
        (1_800_000_000_123_000_000, -60_000_000_000, False),
    ],
)
def test_a_change_is_settled_if_a_later_one_must_have_another_time(
    changed_at_ns: int, age_ns: int, *, expected: bool
) -> None:
    assert is_settled(changed_at_ns, changed_at_ns + age_ns) is expected
