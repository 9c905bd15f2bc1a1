"""`token NAME` and `header NAME` print only a token of the URL that is now configured for NAME."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.config import find_server
from hermes_mcp_auth_remote.hermes_home import config_identity
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey
from tests.cli.commands import Cli, log_in
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.store.builders import build_credentials

pytestmark = pytest.mark.slow

# The program prints on standard error whether it used the fast or the slow path.
PRINT_PATH_CODE = """
import sys
from hermes_mcp_auth_remote.cli.__main__ import main
code = main(sys.argv[1:])
print("slow" if "asyncio" in sys.modules else "fast", file=sys.stderr)
sys.exit(code)
"""
OLD_TIME = 1_000_000_000


def run_and_detect_path(cli: Cli, *arguments: str, **env: str) -> tuple[int, str, str]:
    """Run a command in a new process; return the exit code, the output, and the path: "fast" or "slow"."""
    process = subprocess.run(
        [sys.executable, "-I", "-c", PRINT_PATH_CODE, *(arguments or ("token", "demo"))],
        capture_output=True,
        text=True,
        env=cli.environ(env),
        check=False,
        timeout=30,
    )
    cli.check_output(process.stdout + process.stderr, [cli.stored_tokens()["access_token"]])
    return process.returncode, process.stdout.strip(), process.stderr.split()[-1]


def make_config(url: str) -> str:
    return json.dumps({"mcp_servers": {"demo": {"url": url, "auth": "oauth"}}})


URL = "https://a.example/mcp"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """A home with one server. The commands send it no request, because its token is valid."""
    cli = Cli(tmp_path / "home", [])
    cli.write_config(make_config(URL))
    return cli


def store_login(cli: Cli, **environ: str) -> None:
    """Store credentials as a login does."""
    wait_for_clock_tick()
    server, stored = find_server("demo", cli.home, environ), build_credentials(0, CredentialKey("demo"))
    assert stored.tokens is not None
    assert stored.binding is not None
    tokens = replace(stored.tokens, expires_at=time.time() + 3600)
    binding = replace(stored.binding, server_url=server.url, config_files=server.config_files)
    FileStore(cli.home).save_login(CredentialKey("demo"), replace(stored, tokens=tokens, binding=binding))


def wait_for_clock_tick() -> None:
    """Wait until the files are older than one tick of the file system's clock."""
    threading.Event().wait(0.06)


def overwrite_with_old_times(cli: Cli, text: str) -> None:
    """Do what `cp -p` of an old backup does: keep the inode, and set an old modification time."""
    backup = cli.home / "backup"
    backup.write_text(text)
    os.utime(backup, (OLD_TIME, OLD_TIME))
    shutil.copy2(backup, cli.home / "config.yaml")


def replace_with_old_file(cli: Cli, text: str) -> None:
    """Do what `mv` of an old backup does: change the inode, and set an old modification time."""
    backup = cli.home / "backup"
    backup.write_text(text)
    os.utime(backup, (OLD_TIME, OLD_TIME))
    backup.replace(cli.home / "config.yaml")


def overwrite_with_same_size_and_time(cli: Cli, text: str) -> None:
    """Write in place, and restore the modification time."""
    config = cli.home / "config.yaml"
    before = config.stat()
    assert len(text) == before.st_size
    config.write_text(text)
    os.utime(config, ns=(before.st_atime_ns, before.st_mtime_ns))


@covers("token-address")
@pytest.mark.parametrize(
    "change", [overwrite_with_old_times, replace_with_old_file, overwrite_with_same_size_and_time]
)
def test_an_edit_without_a_newer_modification_time_is_detected(
    cli: Cli, change: Callable[[Cli, str], None]
) -> None:
    store_login(cli)
    assert run_and_detect_path(cli)[2] == "fast"
    change(cli, (cli.home / "config.yaml").read_text().replace(URL, f"{URL[:-1]}q"))
    # Both calls must detect the change, not only the first.
    assert run_and_detect_path(cli, "token", "demo") == (4, "", "slow")
    assert run_and_detect_path(cli, "header", "demo") == (4, "", "slow")


@covers("token-address")
def test_an_edit_of_another_option_costs_one_slow_call(cli: Cli) -> None:
    store_login(cli)
    token = cli.stored_tokens()["access_token"]
    for name, text in (("config.yaml", make_config(URL) + "\n# edited\n"), (".env", "A=b\n")):
        (cli.home / name).write_text(text)
        wait_for_clock_tick()
        assert run_and_detect_path(cli) == (0, token, "slow")
        assert run_and_detect_path(cli) == (0, token, "fast")
    (cli.home / ".env").unlink()
    assert [run_and_detect_path(cli)[2], run_and_detect_path(cli)[2]] == ["slow", "fast"]


@covers("token-address")
def test_a_url_with_a_variable_is_read_on_every_call(cli: Cli) -> None:
    host = "a.example"
    cli.write_config(make_config("https://${MCP_HOST}/mcp"))
    store_login(cli, MCP_HOST=host)
    token = cli.stored_tokens()["access_token"]
    for _ in range(2):
        assert run_and_detect_path(cli, MCP_HOST=host) == (0, token, "slow")
        assert run_and_detect_path(cli, MCP_HOST="b.example") == (4, "", "slow")
        assert run_and_detect_path(cli, "header", "demo", MCP_HOST="b.example") == (4, "", "slow")


@covers("token-address")
@pytest.mark.parametrize("is_target", [False, True])
def test_a_changed_symlink_of_the_config_is_detected(cli: Cli, *, is_target: bool) -> None:
    config, target = cli.home / "config.yaml", cli.home / "first.yaml"
    config.rename(target)
    other = cli.home / "second.yaml"
    other.write_text(make_config(f"{URL}/elsewhere"))
    os.utime(other, (OLD_TIME, OLD_TIME))
    config.symlink_to(target.name)
    wait_for_clock_tick()
    store_login(cli)
    assert run_and_detect_path(cli)[2] == "fast"
    if is_target:
        # As in a ConfigMap, the link stays, but its target becomes another file.
        other.replace(target)
    else:
        config.unlink()
        config.symlink_to(other.name)
    assert run_and_detect_path(cli) == (4, "", "slow")


@covers("token-address")
def test_a_changed_symlink_of_the_home_is_detected(cli: Cli) -> None:
    store_login(cli)
    # Only the URL differs; the modification times are the same.
    other = cli.home.with_name("other")
    shutil.copytree(cli.home, other)
    before = (other / "config.yaml").stat()
    (other / "config.yaml").write_text(make_config(f"{URL}/elsewhere"))
    os.utime(other / "config.yaml", ns=(before.st_atime_ns, before.st_mtime_ns))
    link = cli.home.with_name("link")
    link.symlink_to(cli.home.name)
    assert run_and_detect_path(cli, HERMES_HOME=str(link))[2] == "fast"
    link.unlink()
    link.symlink_to(other.name)
    assert run_and_detect_path(cli, HERMES_HOME=str(link)) == (4, "", "slow")


@covers("token-address")
def test_a_login_with_url_is_valid_until_config_yaml_defines_its_name(cli: Cli, demo: Demo) -> None:
    (cli.home / "config.yaml").unlink()
    log_in(cli, demo, "demo", "--url", demo.mcp_url)
    token = cli.stored_tokens()["access_token"]
    assert run_and_detect_path(cli) == (0, token, "fast")
    # The operator adds a config.yaml with an old modification time.
    replace_with_old_file(cli, "mcp_servers: {}\n")
    wait_for_clock_tick()
    assert [run_and_detect_path(cli), run_and_detect_path(cli)] == [(0, token, "slow"), (0, token, "fast")]
    replace_with_old_file(cli, make_config(f"{demo.mcp_url}/elsewhere"))
    assert run_and_detect_path(cli) == (4, "", "slow")


@covers("token-address")
def test_the_first_token_of_a_login_by_an_older_version_is_slow(cli: Cli) -> None:
    store_login(cli)
    path = cli.home / "mcp-tokens" / "demo.binding.json"
    binding = json.loads(path.read_text())
    del binding["config_files"]
    path.write_text(json.dumps({**binding, "of_a_later_version": 1}))
    token = cli.stored_tokens()["access_token"]
    assert [run_and_detect_path(cli), run_and_detect_path(cli)] == [(0, token, "slow"), (0, token, "fast")]
    assert json.loads(path.read_text())["of_a_later_version"] == 1
    # When an older version stores a refresh, it omits this member.
    path.write_text(json.dumps(binding))
    assert [run_and_detect_path(cli)[2], run_and_detect_path(cli)[2]] == ["slow", "fast"]


@covers("token-address")
def test_the_stored_identity_is_that_of_the_file_that_was_read(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, urls = cli.home / "config.yaml", {name: f"https://{name}.example/mcp" for name in ("a", "b")}
    for name, url in urls.items():
        (cli.home / name).write_text(make_config(url))
    config.unlink()
    config.symlink_to("a")
    wait_for_clock_tick()
    fstat = os.fstat

    def switch_and_fstat(descriptor: int) -> os.stat_result:
        # The file is open: the caller reads the old one.
        monkeypatch.undo()
        config.unlink()
        config.symlink_to("b")
        return fstat(descriptor)

    monkeypatch.setattr(os, "fstat", switch_and_fstat)
    server = find_server("demo", cli.home, {})
    assert server.url == urls["a"]
    assert server.config_files not in {None, config_identity(cli.home)}


@covers("token-address")
def test_the_identity_of_a_just_written_file_is_not_stored(cli: Cli) -> None:
    config = cli.home / "config.yaml"
    for _ in range(50):
        # Repeat until the read and the change happen within the same clock tick.
        config.write_text(make_config("https://a.example/mcp"))
        if find_server("demo", cli.home, {}).config_files is None:
            return
    raise AssertionError("the identity of a file was stored right after a change")


def test_a_binding_of_another_url_gets_no_identity(cli: Cli) -> None:
    store_login(cli)
    store, path = FileStore(cli.home), cli.home / "mcp-tokens" / "demo.binding.json"
    before = path.read_bytes()
    store.save_config_identity(CredentialKey("demo"), f"{URL}/elsewhere", "an identity")
    assert path.read_bytes() == before
    path.write_text(json.dumps({**json.loads(before), "before": {}}))
    before = path.read_bytes()
    store.save_config_identity(CredentialKey("demo"), URL, "an identity")
    assert path.read_bytes() == before
