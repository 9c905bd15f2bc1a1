"""The servers that users can connect, as config.yaml lists them now."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import gateway_hooks.runtime.config_servers
from gateway_hooks.runtime.config_servers import ConfigServers
from hermes_mcp_auth_remote.errors import ConfigError, ServerNotFound

NOTES = "mcp_servers:\n  notes: {url: 'https://notes.example/mcp', auth: oauth}\n"
TRACKER = "  tracker: {url: 'https://tracker.example/mcp', auth: oauth}\n"


class CallCounter:
    """Counts the calls of a function, and passes each call on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.calls = 0
        original = getattr(gateway_hooks.runtime.config_servers, name)

        def count_call(*args: object) -> object:
            self.calls += 1
            return original(*args)

        monkeypatch.setattr(gateway_hooks.runtime.config_servers, name, count_call)


def write_file(home: Path, text: str, name: str = "config.yaml", age_seconds: float = 60.0) -> None:
    """Write a file with a modification time in the past."""
    path = home / name
    path.write_text(text)
    modified_at = time.time() - age_seconds
    os.utime(path, (modified_at, modified_at))


def test_unchanged_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = CallCounter(monkeypatch, "read_configuration")
    write_file(tmp_path, NOTES)
    # A test cannot set back ctime, so wait.
    time.sleep(0.06)
    servers = ConfigServers(tmp_path, {})
    for _ in range(3):
        assert servers.names() == ["notes"]
        assert servers.find("notes").url == "https://notes.example/mcp"
    assert reads.calls == 1


def test_change_with_old_mtime_is_detected(tmp_path: Path) -> None:
    write_file(tmp_path, NOTES)
    time.sleep(0.06)
    servers, before = ConfigServers(tmp_path, {}), (tmp_path / "config.yaml").stat()
    assert servers.find("notes").url == "https://notes.example/mcp"
    (tmp_path / "config.yaml").write_text(NOTES.replace("notes.example", "moved.example"))
    os.utime(tmp_path / "config.yaml", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert servers.find("notes").url == "https://moved.example/mcp"


def test_changes_of_config_files_apply_at_once(tmp_path: Path) -> None:
    servers = ConfigServers(tmp_path, {})
    assert servers.names() == []
    write_file(tmp_path, NOTES, age_seconds=30)
    assert servers.names() == ["notes"]
    write_file(tmp_path, NOTES + TRACKER, age_seconds=20)
    assert servers.find("tracker").url == "https://tracker.example/mcp"
    write_file(tmp_path, NOTES.replace("notes.example", "moved.example"), age_seconds=10)
    assert servers.find("notes").url == "https://moved.example/mcp"
    with pytest.raises(ServerNotFound):
        servers.find("tracker")
    write_file(tmp_path, NOTES.replace("notes.example", "${HOST}"), age_seconds=5)
    write_file(tmp_path, "HOST=dot.env.example\n", ".env")
    assert servers.find("notes").url == "https://dot.env.example/mcp"
    write_file(tmp_path, "HOST=another.env.example\n", ".env", 5)
    assert servers.find("notes").url == "https://another.env.example/mcp"


def test_change_with_same_mtime_after_read_is_detected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers, path = ConfigServers(tmp_path, {}), tmp_path / "config.yaml"
    just_now = time.time_ns()
    monkeypatch.setattr(
        gateway_hooks.runtime.config_servers, "time", SimpleNamespace(time_ns=lambda: just_now + 10**6)
    )
    path.write_text(NOTES)
    os.utime(path, ns=(just_now, just_now))
    assert servers.find("notes").url == "https://notes.example/mcp"
    path.write_text(NOTES.replace("notes.example", "moved.example"))
    os.utime(path, ns=(just_now, just_now))
    assert servers.find("notes").url == "https://moved.example/mcp"


def test_config_error_is_raised_until_it_is_fixed(tmp_path: Path) -> None:
    servers = ConfigServers(tmp_path, {})
    write_file(tmp_path, "mcp_servers: [", age_seconds=30)
    for _ in range(2):
        with pytest.raises(ConfigError, match="not valid YAML"):
            servers.names()
    write_file(tmp_path, NOTES)
    assert servers.names() == ["notes"]
