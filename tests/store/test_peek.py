from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.hermes_home import config_identity
from hermes_mcp_auth_remote.store.codec import binding_document
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.files.fast_token import read_valid_token
from hermes_mcp_auth_remote.values import CredentialKey
from tests.requirements import covers
from tests.store.given import KEY, NOW, credentials_of


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text("mcp_servers: {}")
    store(tmp_path)
    return tmp_path


def store(home: Path, key: CredentialKey = KEY) -> None:
    """Store a login whose binding names config.yaml and .env in their current state."""
    stored = credentials_of(0, key)
    assert stored.binding is not None
    binding = replace(stored.binding, config_files=config_identity(home))
    FileStore(home).save_login(key, replace(stored, binding=binding))


def put(home: Path, name: str, text: str) -> None:
    (home / "mcp-tokens" / name).write_bytes(text.encode("utf-8", "surrogateescape"))


def test_a_token_beyond_doubt_is_found_with_and_without_a_config(home: Path) -> None:
    assert read_valid_token(home, "notes", NOW) == "access-0"
    (home / "config.yaml").unlink()
    assert read_valid_token(home, "notes", NOW) is None
    store(home)
    assert read_valid_token(home, "notes", NOW) == "access-0"


def test_a_token_with_a_minute_left_is_good_and_with_less_is_not(home: Path) -> None:
    assert read_valid_token(home, "notes", NOW + 3540) == "access-0"
    assert read_valid_token(home, "notes", NOW + 3541) is None


@pytest.mark.parametrize("name", ["config.yaml", ".env"])
def test_a_setting_that_changed_since_the_login_is_the_slow_paths(home: Path, name: str) -> None:
    (home / name).touch()
    assert read_valid_token(home, "notes", NOW) is None
    # A refresh by a process that read the old configuration does not change this.
    stored = credentials_of()
    assert stored.tokens is not None
    FileStore(home).save_tokens(KEY, stored.tokens, stored.binding)
    assert read_valid_token(home, "notes", NOW) is None


@pytest.mark.parametrize("identity", [None, "", "now", [], True, 7])
def test_a_login_with_settings_that_are_not_known_is_the_slow_paths(home: Path, identity: object) -> None:
    binding = json.loads((home / "mcp-tokens" / "notes.binding.json").read_text())
    put(home, "notes.binding.json", json.dumps({**binding, "config_files": identity}))
    assert read_valid_token(home, "notes", NOW) is None


@pytest.mark.parametrize(
    ("scheme", "is_found"), [("Bearer", True), ("bearer", True), ("DPoP", False), (None, False), (7, False)]
)
def test_a_token_of_another_kind_is_the_slow_paths(home: Path, scheme: object, *, is_found: bool) -> None:
    document = {"access_token": "access-0", "expires_at": NOW + 600}
    put(home, "notes.json", json.dumps(document))
    assert read_valid_token(home, "notes", NOW) == "access-0"
    put(home, "notes.json", json.dumps({**document, "token_type": scheme}))
    assert read_valid_token(home, "notes", NOW) == ("access-0" if is_found else None)


@covers("killed", "token-address")
def test_tokens_from_before_a_login_that_was_stored_half_way_are_the_slow_paths(home: Path) -> None:
    name = "notes.json"
    old = (home / "mcp-tokens" / name).read_text()
    # The writer died before it wrote the tokens; it writes the binding first.
    binding, new = credentials_of(1).binding, credentials_of(1).tokens
    assert binding is not None
    binding = replace(binding, config_files=config_identity(home))
    before = json.loads((home / "mcp-tokens" / "notes.binding.json").read_text())
    put(home, "notes.binding.json", json.dumps(binding_document(binding, new, before)))
    assert (home / "mcp-tokens" / name).read_text() == old
    assert read_valid_token(home, "notes", NOW) is None
    known = credentials_of(0).binding
    assert known is not None
    assert FileStore(home).read(KEY).binding == replace(known, config_files=config_identity(home))


def test_a_session_that_is_over_gives_no_token(home: Path) -> None:
    binding = credentials_of().binding
    assert binding is not None
    FileStore(home).save_binding(KEY, replace(binding, login_needed="the provider ended the session"))
    assert read_valid_token(home, "notes", NOW) is None


def test_a_server_of_the_same_file_name_gets_no_token(tmp_path: Path) -> None:
    store(tmp_path, CredentialKey("my.server"))
    assert read_valid_token(tmp_path, "my.server", NOW) == "access-0"
    assert read_valid_token(tmp_path, "my_server", NOW) is None


def test_another_owners_token_is_not_the_operators(tmp_path: Path) -> None:
    FileStore(tmp_path).save_login(CredentialKey("notes", "telegram:42"), credentials_of())
    assert read_valid_token(tmp_path, "notes", NOW) is None


@pytest.mark.parametrize(
    "text",
    [
        "null",
        '"soon"',
        "true",
        "NaN",
        "Infinity",
        "1e999",
        "[]",
        "1" + "0" * 400,
    ],
)
def test_an_expiry_that_is_no_time_gives_no_token(home: Path, text: str) -> None:
    put(home, "notes.json", f'{{"access_token": "access-0", "expires_at": {text}}}')
    assert read_valid_token(home, "notes", NOW) is None


@pytest.mark.parametrize("token", ["", None, 7, "a\r\nb", "a b", "ü"])
def test_what_is_no_token_is_not_given_out(home: Path, token: object) -> None:
    put(home, "notes.json", json.dumps({"access_token": token, "expires_at": NOW + 600}))
    assert read_valid_token(home, "notes", NOW) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\udcff", '{"server": "notes"}'])
@pytest.mark.parametrize("name", ["notes.json", "notes.binding.json"])
def test_a_corrupt_file_is_the_slow_paths(home: Path, name: str, text: str) -> None:
    put(home, name, text)
    assert read_valid_token(home, "notes", NOW) is None


@pytest.mark.parametrize("name", ["notes.json", "notes.binding.json"])
def test_a_file_that_is_missing_open_or_linked_is_the_slow_paths(home: Path, name: str) -> None:
    path = home / "mcp-tokens" / name
    path.chmod(0o644)
    assert read_valid_token(home, "notes", NOW) is None
    path.chmod(0o600)
    assert read_valid_token(home, "notes", NOW) == "access-0"
    elsewhere = path.rename(home / "elsewhere")
    assert read_valid_token(home, "notes", NOW) is None
    path.symlink_to(elsewhere)
    assert read_valid_token(home, "notes", NOW) is None


def test_a_directory_that_is_open_or_linked_is_the_slow_paths(home: Path) -> None:
    root = home / "mcp-tokens"
    root.chmod(0o777)
    assert read_valid_token(home, "notes", NOW) is None
    root.chmod(0o700)
    assert read_valid_token(home, "notes", NOW) == "access-0"
    root.symlink_to(root.rename(home / "elsewhere"))
    assert read_valid_token(home, "notes", NOW) is None


@pytest.mark.parametrize("server", ["", "../notes", "notes\0", "\udcff", "x" * 5000, "unknown"])
def test_any_name_is_taken_without_an_error(home: Path, server: str) -> None:
    assert read_valid_token(home, server, NOW) is None


def test_another_users_files_give_no_token(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    assert read_valid_token(home, "notes", NOW) is None


def test_peeking_loads_nothing_heavy(home: Path) -> None:
    script = (
        "import sys; before = set(sys.modules)\n"
        "from hermes_mcp_auth_remote.store.files.fast_token import read_valid_token\n"
        f"assert read_valid_token(sys.argv[1], 'notes', {NOW}) == 'access-0'\n"
        "print(*sorted(name for name in set(sys.modules) - before if not name.startswith('_')))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(home)], capture_output=True, text=True, check=True
    ).stdout.split()
    ours = {name for name in said if name.startswith("hermes_mcp_auth_remote")}
    assert ours == {
        "hermes_mcp_auth_remote",
        "hermes_mcp_auth_remote.errors",
        "hermes_mcp_auth_remote.hermes_home",
        "hermes_mcp_auth_remote.store",
        "hermes_mcp_auth_remote.store.files",
        "hermes_mcp_auth_remote.store.files.private_files",
        "hermes_mcp_auth_remote.store.files.fast_token",
    }
    heavy = {"dataclasses", "pathlib", "typing", "hashlib", "asyncio", "urllib.parse", "inspect", "tempfile"}
    assert not heavy & set(said)
