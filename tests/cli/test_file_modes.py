"""The command line on a volume with a Kubernetes fsGroup, and on a file system without modes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_mcp_auth_remote.store.files.file_modes import ALLOW_OPEN_STORE
from tests.cli.commands import Cli, log_in
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow

# Python runs this at its start: new files and folders get the mode 0777, and chmod has no effect.
NO_MODES_CODE = """
import os
chmod, create, make = os.fchmod, os.open, os.mkdir
def fchmod(descriptor, mode):
    pass
def open_(path, flags, *rest, **more):
    is_new = flags & os.O_CREAT and not os.path.exists(path)
    descriptor = create(path, flags, *rest, **more)
    if is_new:
        chmod(descriptor, 0o777)
    return descriptor
def mkdir(path, *rest, **more):
    make(path, *rest, **more)
    os.chmod(path, 0o777)
os.fchmod, os.open, os.mkdir = fchmod, open_, mkdir
"""


@covers("fs-group")
def test_after_an_fsgroup_change_the_first_token_prints_one_warning(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    root = cli.home / "mcp-tokens"
    for path in (root, *root.rglob("*")):
        path.chmod(0o2770 if path.is_dir() else 0o660)
    token = cli.stored_tokens()["access_token"]
    result = cli.run("token", "demo", may_show=[token])
    assert (result.exit_code, result.out) == (0, f"{token}\n")
    assert len(result.err.splitlines()) == 1
    assert "fsGroupChangePolicy: OnRootMismatch" in result.err
    result = cli.run("token", "demo", may_show=[token])
    assert (result.exit_code, result.out, result.err) == (0, f"{token}\n", "")


@pytest.fixture
def cli_without_modes(cli: Cli, tmp_path: Path) -> Cli:
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(NO_MODES_CODE)
    return Cli(cli.home, cli.secrets, {"PYTHONPATH": str(tmp_path / "start")})


@covers("no-modes")
def test_a_disk_without_modes_is_refused_unless_a_variable_allows_it(
    cli_without_modes: Cli, demo: Demo
) -> None:
    refused = cli_without_modes.run("login", "demo", "--no-wait", "--json")
    assert refused.exit_code == 8
    assert "chmod has no effect" in refused.events[-1]["message"]
    assert f"{ALLOW_OPEN_STORE}=1" in refused.events[-1]["advice"]
    allowed = Cli(
        cli_without_modes.home, cli_without_modes.secrets, {**cli_without_modes.env, ALLOW_OPEN_STORE: "1"}
    )
    log_in(allowed, demo)
    assert (cli_without_modes.home / "mcp-tokens" / "demo.json").stat().st_mode & 0o777 == 0o777
    token = allowed.stored_tokens()["access_token"]
    result = allowed.run("token", "demo", may_show=[token])
    assert (result.exit_code, result.out, result.err) == (0, f"{token}\n", "")
    assert cli_without_modes.run("token", "demo").exit_code == 8
