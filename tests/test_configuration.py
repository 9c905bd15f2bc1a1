"""A configuration as a whole: reads per command, names, probable mistakes, owners and modes of files."""

from __future__ import annotations

import json
import logging
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from gateway_hooks.dialog.servers import StaticServers, resolve_server
from hermes_mcp_auth_remote.config import configuration as configuration_module
from hermes_mcp_auth_remote.config import (
    file_owners,
    find_server,
    known_keys,
    read_configuration,
    server_from_url,
    yaml_section,
)
from hermes_mcp_auth_remote.config.files import read_config_file
from hermes_mcp_auth_remote.config.secret_files import read_secret_file
from hermes_mcp_auth_remote.config.section_reader import Section
from hermes_mcp_auth_remote.config.server_entry import read_server
from hermes_mcp_auth_remote.errors import ConfigError, ServerNotFound, StoreUnsafe
from hermes_mcp_auth_remote.store.files.private_files import ensure_private_directory
from hermes_mcp_auth_remote.values import Server
from tests.requirements import covers

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
OTHER_USER = 54_321
NAME = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


def write_servers(home: Path, *names: str, **members: object) -> Path:
    entries = {
        name: {"url": f"https://{number}.example/mcp", "auth": "oauth", **members}
        for number, name in enumerate(names)
    }
    (home / "config.yaml").write_text(json.dumps({"mcp_servers": entries}), "utf-8")
    return home


@covers("config-once")
def test_a_configuration_parses_the_file_once_and_each_entry_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = write_servers(tmp_path, *(f"s{number}" for number in range(50)))
    calls: list[str] = []

    def count(name: str, original: object) -> object:
        def call(*arguments: object) -> object:
            calls.append(name)
            return original(*arguments)  # type: ignore[operator]

        return call

    monkeypatch.setattr(yaml_section, "YamlDocument", count("parse", yaml_section.YamlDocument))
    monkeypatch.setattr(configuration_module, "read_config_file", count("read", read_config_file))
    monkeypatch.setattr(configuration_module, "read_server", count("entry", read_server))
    configuration = read_configuration(home, {})
    for _ in range(3):
        for name in configuration.server_names():
            assert configuration.find_server(name).name == name
        assert configuration.section("mcp_auth_chats") is None
    assert [calls.count(name) for name in ("read", "parse", "entry")] == [2, 1, 50]


@covers("config-once")
def test_a_broken_entry_and_an_unreadable_file_raise_each_time(tmp_path: Path) -> None:
    configuration = read_configuration(write_servers(tmp_path, "a", timeout=1, oauth={"flow": "x"}), {})
    (tmp_path / ".env").mkdir()
    unreadable = read_configuration(tmp_path, {})
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"oauth\.flow must be one of"):
            configuration.find_server("a")
        with pytest.raises(ConfigError, match="cannot be read"):
            unreadable.find_server("a")


@covers("server-name-forms")
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("typed", ["NFC", "NFD", "NFKC", "NFKD"])
def test_a_server_is_found_in_any_normal_form(tmp_path: Path, stored: Form, typed: Form) -> None:
    stored_name, typed_name = unicodedata.normalize(stored, NAME), unicodedata.normalize(typed, NAME)
    home = write_servers(tmp_path, "coffee", stored_name)
    # The entry's own spelling names the token files, as in Hermes.
    assert find_server(typed_name, home, {}).name == stored_name
    chat_server = resolve_server(
        StaticServers([Server(stored_name, "https://a.example")]), typed_name.upper()
    )
    assert chat_server is not None
    assert chat_server.name == stored_name


@covers("server-name-forms")
def test_an_equal_name_wins_and_an_ambiguous_one_is_not_guessed(tmp_path: Path) -> None:
    ligature = "\N{LATIN SMALL LIGATURE FI}le"
    assert find_server(ligature, write_servers(tmp_path, "file", ligature), {}).name == ligature
    with pytest.raises(ServerNotFound):
        find_server("①", write_servers(tmp_path, "1\u200b", "⑴"), {})


@covers("server-name-forms")
def test_a_name_that_no_file_can_have_is_a_clear_error(tmp_path: Path) -> None:
    long_name = "\N{CJK UNIFIED IDEOGRAPH-8A9E}" * 100
    for name in (long_name, "a"):
        with pytest.raises(ConfigError, match="is too long: the names of its files"):
            find_server(long_name, write_servers(tmp_path, name), {})
    with pytest.raises(ConfigError, match="is too long: the names of its files"):
        server_from_url("https://a.example", long_name)
    short_name = long_name[:60]
    assert find_server(short_name, write_servers(tmp_path, short_name), {}).name == short_name
    # Hermes cuts a stem at 128 characters, so any ASCII name fits.
    assert find_server("a" * 300, write_servers(tmp_path, "a" * 300), {}).name == "a" * 300


@covers("config-names-mistakes")
@pytest.mark.parametrize(
    ("entry", "warning"),
    [
        (
            {"auth": "oauth", "oauth": {"scopes": "a"}},
            "a.oauth.scopes is not known and is ignored. Did you mean `scope`?",
        ),
        ({"auth": "oauth", "oauth": {"clientid": "a"}}, "Did you mean `client_id`?"),
        ({"auth": "oauth", "oauth": {"Client-Secret": "a"}}, "Did you mean `client_secret`?"),
        (
            {"auth": "oauth", "scopes": "a"},
            "a.scopes is not known and is ignored. Did you mean `scope`, in the section `oauth:`?",
        ),
        (
            {"auth": "oauth", "client-id": "a"},
            "a.client-id is not known and is ignored. Did you mean `client_id`, in the section `oauth:`?",
        ),
        (
            {"auth": "oauth", "heders": {}},
            "a.heders is not known and is ignored. Did you mean `headers`?",
        ),
        (
            {"auth": "oauth", "oauth": {"client_cert": "a"}},
            "a.oauth.client_cert is ignored. Write it as mcp_servers.a.client_cert.",
        ),
        ({"auth": "oauth", "oauth": {"zzz": "a"}}, "a.oauth.zzz is not known and is ignored. Remove it"),
        ({"auth": "oauth", "oauth": {"identity_provider": {"tokenfile": "a"}}}, "Did you mean `token_file`?"),
        ({"auth": "oauth", "oath": {}}, "a.oath is not known and is ignored. Did you mean"),
        ({"auth": "oauth", "header": {}}, "Did you mean `headers`?"),
        (
            {"auth": "oauth", "allow_missing_pkce": True},
            "mcp_servers.a.allow_missing_pkce is ignored. Write it as mcp_servers.a.oauth.allow_missing_pkce",
        ),
        ({}, "mcp_servers.a has a `url`, but not `auth: oauth`"),
        ({"headers": {"X-Team": "a"}}, "mcp_servers.a has a `url`, but not `auth: oauth`"),
        ({"oauth": {"scope": "a"}, "headers": {"Authorization": "a"}}, "but not `auth: oauth`"),
    ],
)
def test_a_probable_mistake_in_an_entry_is_named(
    tmp_path: Path, entry: dict[str, object], warning: str
) -> None:
    document = {"mcp_servers": {"a": {"url": "https://a.example/mcp", **entry}}}
    (tmp_path / "config.yaml").write_text(json.dumps(document))
    warnings = read_configuration(tmp_path, {}).warnings("a")
    assert len(warnings) == 1
    assert warning in warnings[0]


@covers("config-names-mistakes")
def test_what_this_program_or_hermes_reads_is_no_mistake(tmp_path: Path) -> None:
    entry = dict.fromkeys([*known_keys.ENTRY_KEYS, "something_from_the_future", "resources"], "x")
    entry["oauth"] = dict.fromkeys(known_keys.OAUTH_KEYS)  # type: ignore[assignment]
    others = {
        "key": {"url": "https://b.example", "headers": {"Authorization": "Bearer x"}},
        "local": {"command": "x"},
    }
    document = {
        "mcp_servers": {"a": {**entry, "auth": "oauth"}, **others},
        "model": "x",
        "mcp": {},
        "mcp_discovery_timeout": 1,
    }
    (tmp_path / "config.yaml").write_text(json.dumps(document))
    assert read_configuration(tmp_path, {}).all_warnings() == ()


@covers("config-names-mistakes")
def test_every_key_that_is_read_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_keys: dict[str, set[str]] = {}
    for method in (
        "string",
        "string_list",
        "boolean",
        "integer",
        "choice",
        "url",
        "path",
        "networks",
        "hosts",
        "section",
    ):
        original = getattr(Section, method)

        def record(self: Section, key: str, *arguments: object, original: object = original) -> object:
            read_keys.setdefault(self.key_path, set()).add(key)
            return original(self, key, *arguments)  # type: ignore[operator]

        monkeypatch.setattr(Section, method, record)
    find_server("a", write_servers(tmp_path, "a"), {})
    assert read_keys["mcp_servers.a.oauth"] <= {*known_keys.OAUTH_KEYS}
    assert read_keys["mcp_servers.a"] <= {*known_keys.ENTRY_KEYS}


@covers("config-names-mistakes")
def test_a_misspelt_section_is_named_and_shown_values_are_not(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mcp_server: {a: {url: 'https://hush.example'}}\nmcp_auth_chat: {}")
    first, second = read_configuration(tmp_path, {}).all_warnings()
    assert "`mcp_server`, which is ignored. Did you mean `mcp_servers`?" in first
    assert "Did you mean `mcp_auth_chats`?" in second
    assert "hush" not in first + second


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(file_owners, "_logged_warnings", set[str]())
    caplog.set_level(logging.WARNING)
    return caplog


@as_root
@covers("config-names-mistakes")
@pytest.mark.parametrize("name", ["config.yaml", ".env"])
@pytest.mark.parametrize(
    ("directory_mode", "is_refused"), [(0o777, True), (0o1777, True), (0o775, True), (0o755, False)]
)
def test_a_foreign_file_is_refused_in_an_open_directory(
    tmp_path: Path, logged: pytest.LogCaptureFixture, name: str, directory_mode: int, *, is_refused: bool
) -> None:
    write_servers(tmp_path, "a")
    (tmp_path / ".env").write_text("A=b\n")
    os.chown(tmp_path / name, OTHER_USER, -1)
    tmp_path.chmod(directory_mode)
    if is_refused:
        with pytest.raises(ConfigError, match="belongs to another user, and other users can create files"):
            find_server("a", tmp_path, {})
    else:
        assert find_server("a", tmp_path, {}).name == "a"
        assert "belongs to another user, who can change it." in logged.text


@covers("config-names-mistakes")
def test_open_modes_are_warned_about_once(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    write_servers(tmp_path, "a")
    (tmp_path / ".env").write_text("TELEGRAM_BOT_TOKEN=x\n")
    (tmp_path / "config.yaml").chmod(0o666)
    (tmp_path / ".env").chmod(0o644)
    tmp_path.chmod(0o700)
    find_server("a", tmp_path, {})
    assert logged.text == ""
    tmp_path.chmod(0o755)
    for _ in range(2):
        find_server("a", tmp_path, {})
    assert logged.text.count("can be changed by all users") == 1
    assert logged.text.count("all users of this machine can read it. Run `chmod 600 ") == 1


@covers("config-names-mistakes")
def test_missing_parents_are_created_private_with_any_umask(tmp_path: Path) -> None:
    previous_umask = os.umask(0)
    try:
        ensure_private_directory(tmp_path / "home" / ".hermes" / "mcp-tokens")
    finally:
        os.umask(previous_umask)
    folders = (tmp_path / "home", tmp_path / "home" / ".hermes", tmp_path / "home" / ".hermes" / "mcp-tokens")
    assert [oct(folder.stat().st_mode & 0o777) for folder in folders] == ["0o700"] * 3


@covers("container-secrets")
@pytest.mark.parametrize("mode", [0o444, 0o440, 0o400, 0o600])
def test_a_mounted_secret_is_read_through_links_of_kubernetes(tmp_path: Path, mode: int) -> None:
    data = tmp_path / "..2026_01_01"
    data.mkdir()
    (data / "token").write_bytes(b"secret\n")
    (data / "token").chmod(mode)
    (tmp_path / "..data").symlink_to(data.name)
    (tmp_path / "token").symlink_to("..data/token")
    assert read_secret_file(str(tmp_path / "token")) == b"secret\n"
    assert read_secret_file(str(data / "token")) == b"secret\n"


@covers("container-secrets")
@pytest.mark.parametrize(
    ("mode", "advice"),
    [(0o644, "chmod 600"), (0o640, "chmod 600"), (0o666, "chmod go-w"), (0o460, "chmod go-w")],
)
def test_a_secret_that_others_can_change_or_that_this_user_left_open_is_refused(
    tmp_path: Path, mode: int, advice: str
) -> None:
    (tmp_path / "token").write_bytes(b"hush")
    (tmp_path / "token").chmod(mode)
    with pytest.raises(StoreUnsafe) as caught:
        read_secret_file(str(tmp_path / "token"))
    assert advice in caught.value.advice
    assert "hush" not in f"{caught.value} {caught.value.advice}"


@covers("container-secrets")
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_secret_that_is_not_a_plain_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Docker creates a directory if the file that it should mount is missing."""
    path = tmp_path / "token"
    make(path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(StoreUnsafe) as caught:
        read_secret_file(str(path))
    assert str(caught.value) == f"{path} is not a plain file."
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@as_root
@covers("container-secrets")
def test_a_secret_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"hush")
    (tmp_path / "token").chmod(0o444)
    os.chown(tmp_path / "token", OTHER_USER, -1)
    with pytest.raises(StoreUnsafe, match="belongs to another user"):
        read_secret_file(str(tmp_path / "token"))
    assert read_secret_file(str(tmp_path / "missing")) is None
