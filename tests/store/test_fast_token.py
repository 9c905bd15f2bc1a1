from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote import refresh_margins
from hermes_mcp_auth_remote.hermes_home import config_identity
from hermes_mcp_auth_remote.service.cached_token import refresh_at
from hermes_mcp_auth_remote.store.codec import binding_document
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.files.fast_token import read_valid_token
from hermes_mcp_auth_remote.values import CredentialKey
from tests.requirements import covers
from tests.store.builders import KEY, NOW, build_credentials


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text("mcp_servers: {}")
    store_login(tmp_path)
    return tmp_path


def store_login(home: Path, key: CredentialKey = KEY) -> None:
    """Store a login whose binding names config.yaml and .env in their current state."""
    stored = build_credentials(0, key)
    assert stored.binding is not None
    binding = replace(stored.binding, config_files=config_identity(home))
    FileStore(home).save_login(key, replace(stored, binding=binding))


def write_file(home: Path, name: str, text: str) -> None:
    (home / "mcp-tokens" / name).write_bytes(text.encode("utf-8", "surrogateescape"))


def test_a_valid_token_is_found_with_and_without_a_config_file(home: Path) -> None:
    assert read_valid_token(home, "notes", NOW) == "access-0"
    (home / "config.yaml").unlink()
    assert read_valid_token(home, "notes", NOW) is None
    store_login(home)
    assert read_valid_token(home, "notes", NOW) == "access-0"


def test_a_token_with_less_than_a_minute_left_gives_no_token(home: Path) -> None:
    assert read_valid_token(home, "notes", NOW + 3539) == "access-0"
    assert read_valid_token(home, "notes", NOW + 3540) is None


@covers("refresh-margin")
@pytest.mark.parametrize("margin_seconds", [60.0, 200.0])
@pytest.mark.parametrize("life_seconds", [100, 3600])
def test_the_fast_path_and_the_service_refresh_at_the_same_time(
    home: Path, monkeypatch: pytest.MonkeyPatch, margin_seconds: float, life_seconds: int
) -> None:
    monkeypatch.setattr(refresh_margins, "REFRESH_MARGIN_SECONDS", margin_seconds)
    tokens = build_credentials().tokens
    assert tokens is not None
    tokens = replace(tokens, obtained_at=NOW, expires_at=NOW + life_seconds)
    FileStore(home).save_tokens(KEY, tokens, None)
    due_at = refresh_at(tokens)
    assert due_at == NOW + life_seconds - min(margin_seconds, life_seconds / 10)
    assert read_valid_token(home, "notes", due_at - 1) == tokens.access_token.reveal()
    assert read_valid_token(home, "notes", due_at) is None


@pytest.mark.parametrize("name", ["config.yaml", ".env"])
def test_a_changed_configuration_file_gives_no_token(home: Path, name: str) -> None:
    (home / name).touch()
    assert read_valid_token(home, "notes", NOW) is None
    # If a process that read the old configuration refreshes, that does not change the result.
    stored = build_credentials()
    assert stored.tokens is not None
    FileStore(home).save_tokens(KEY, stored.tokens, stored.binding)
    assert read_valid_token(home, "notes", NOW) is None


@pytest.mark.parametrize("identity", [None, "", "now", [], True, 7])
def test_a_login_with_unknown_configuration_gives_no_token(home: Path, identity: object) -> None:
    binding = json.loads((home / "mcp-tokens" / "notes.binding.json").read_text())
    write_file(home, "notes.binding.json", json.dumps({**binding, "config_files": identity}))
    assert read_valid_token(home, "notes", NOW) is None


@pytest.mark.parametrize(
    ("scheme", "is_found"), [("Bearer", True), ("bearer", True), ("DPoP", False), (None, False), (7, False)]
)
def test_a_token_of_another_type_gives_no_token(home: Path, scheme: object, *, is_found: bool) -> None:
    document = {"access_token": "access-0", "expires_at": NOW + 600}
    write_file(home, "notes.json", json.dumps(document))
    assert read_valid_token(home, "notes", NOW) == "access-0"
    write_file(home, "notes.json", json.dumps({**document, "token_type": scheme}))
    assert read_valid_token(home, "notes", NOW) == ("access-0" if is_found else None)


@covers("killed", "token-address")
def test_old_tokens_of_an_interrupted_login_give_no_token(home: Path) -> None:
    name = "notes.json"
    old = (home / "mcp-tokens" / name).read_text()
    # The writer died before it wrote the tokens; it writes the binding first.
    binding, new = build_credentials(1).binding, build_credentials(1).tokens
    assert binding is not None
    binding = replace(binding, config_files=config_identity(home))
    before = json.loads((home / "mcp-tokens" / "notes.binding.json").read_text())
    write_file(home, "notes.binding.json", json.dumps(binding_document(binding, new, before)))
    assert (home / "mcp-tokens" / name).read_text() == old
    assert read_valid_token(home, "notes", NOW) is None
    old_binding = build_credentials(0).binding
    assert old_binding is not None
    assert FileStore(home).read(KEY).credentials.binding == replace(
        old_binding, config_files=config_identity(home)
    )


def test_a_session_that_is_over_gives_no_token(home: Path) -> None:
    binding = build_credentials().binding
    assert binding is not None
    FileStore(home).save_binding(KEY, replace(binding, login_needed="the provider ended the session"))
    assert read_valid_token(home, "notes", NOW) is None


def test_another_server_with_the_same_file_name_gets_no_token(tmp_path: Path) -> None:
    store_login(tmp_path, CredentialKey("my.server"))
    assert read_valid_token(tmp_path, "my.server", NOW) == "access-0"
    assert read_valid_token(tmp_path, "my_server", NOW) is None


def test_another_owners_token_is_not_the_operators(tmp_path: Path) -> None:
    FileStore(tmp_path).save_login(CredentialKey("notes", "telegram:42"), build_credentials())
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
def test_an_invalid_expiry_gives_no_token(home: Path, text: str) -> None:
    write_file(home, "notes.json", f'{{"access_token": "access-0", "expires_at": {text}}}')
    assert read_valid_token(home, "notes", NOW) is None


@pytest.mark.parametrize("token", ["", None, 7, "a\r\nb", "a b", "ü"])
def test_an_invalid_access_token_is_not_returned(home: Path, token: object) -> None:
    write_file(home, "notes.json", json.dumps({"access_token": token, "expires_at": NOW + 600}))
    assert read_valid_token(home, "notes", NOW) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\udcff", '{"server": "notes"}'])
@pytest.mark.parametrize("name", ["notes.json", "notes.binding.json"])
def test_a_corrupt_file_gives_no_token(home: Path, name: str, text: str) -> None:
    write_file(home, name, text)
    assert read_valid_token(home, "notes", NOW) is None


@pytest.mark.parametrize("name", ["notes.json", "notes.binding.json"])
def test_a_missing_open_or_linked_file_gives_no_token(home: Path, name: str) -> None:
    path = home / "mcp-tokens" / name
    path.chmod(0o644)
    assert read_valid_token(home, "notes", NOW) is None
    path.chmod(0o600)
    assert read_valid_token(home, "notes", NOW) == "access-0"
    elsewhere = path.rename(home / "elsewhere")
    assert read_valid_token(home, "notes", NOW) is None
    path.symlink_to(elsewhere)
    assert read_valid_token(home, "notes", NOW) is None


def test_an_open_or_linked_directory_gives_no_token(home: Path) -> None:
    root = home / "mcp-tokens"
    root.chmod(0o777)
    assert read_valid_token(home, "notes", NOW) is None
    root.chmod(0o700)
    assert read_valid_token(home, "notes", NOW) == "access-0"
    root.symlink_to(root.rename(home / "elsewhere"))
    assert read_valid_token(home, "notes", NOW) is None


@pytest.mark.parametrize("server", ["", "../notes", "notes\0", "\udcff", "x" * 5000, "unknown"])
def test_any_server_name_raises_no_error(home: Path, server: str) -> None:
    assert read_valid_token(home, server, NOW) is None


def test_another_users_files_give_no_token(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    assert read_valid_token(home, "notes", NOW) is None


def test_reading_a_token_imports_no_heavy_module(home: Path) -> None:
    script = (
        "import sys; before = set(sys.modules)\n"
        "from hermes_mcp_auth_remote.store.files.fast_token import read_valid_token\n"
        f"assert read_valid_token(sys.argv[1], 'notes', {NOW}) == 'access-0'\n"
        "print(*sorted(name for name in set(sys.modules) - before if not name.startswith('_')))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script, str(home)], capture_output=True, text=True, check=True
    ).stdout.split()
    own_modules = {name for name in loaded if name.startswith("hermes_mcp_auth_remote")}
    assert own_modules == {
        "hermes_mcp_auth_remote",
        "hermes_mcp_auth_remote.errors",
        "hermes_mcp_auth_remote.hermes_home",
        "hermes_mcp_auth_remote.refresh_margins",
        "hermes_mcp_auth_remote.store",
        "hermes_mcp_auth_remote.store.files",
        "hermes_mcp_auth_remote.store.files.private_files",
        "hermes_mcp_auth_remote.store.files.fast_token",
    }
    heavy = {"dataclasses", "pathlib", "typing", "hashlib", "asyncio", "urllib.parse", "inspect", "tempfile"}
    assert not heavy & set(loaded)
