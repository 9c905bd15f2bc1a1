"""A name or an address means one server: an entry of config.yaml, or a stored login."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote import AuthService, McpAuth, open_session
from hermes_mcp_auth_remote.auth.storage import SharedTokenStorage
from hermes_mcp_auth_remote.config import read_configuration
from hermes_mcp_auth_remote.errors import (
    AmbiguousAddress,
    AuthorizationRequired,
    ConfigError,
    ServerNotFound,
    UnsafeUrl,
)
from hermes_mcp_auth_remote.service.known_servers import KnownServers
from hermes_mcp_auth_remote.service.server_lookup import find_server, find_server_at
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey, Owner, Server, ServerOptions
from tests.requirements import covers
from tests.store.builders import build_credentials, build_login

URL = "https://mcp.notes.example/mcp"
OWNER = "telegram:42"


def write_config(home: Path, **entries: str | dict[str, object]) -> None:
    """Write a config.yaml with these servers; a text is the URL of an entry."""
    home.mkdir(exist_ok=True)
    servers = {
        name: {"url": entry, "auth": "oauth"} if isinstance(entry, str) else entry
        for name, entry in entries.items()
    }
    (home / "config.yaml").write_text(json.dumps({"mcp_servers": servers}))


def store_login(home: Path, name: str, url: str = URL, owner: Owner = None) -> None:
    key = CredentialKey(name, owner)
    credentials = build_credentials(0, key)
    assert credentials.binding is not None
    FileStore(home).save_login(
        key, replace(credentials, binding=replace(credentials.binding, server_url=url))
    )


def store_waiting_login(home: Path, name: str, url: str = URL) -> None:
    store = FileStore(home)
    login = build_login()
    store.logins.add(
        replace(
            login, key=CredentialKey(name), server_url=url, expires_at=store.now() + 600, status="waiting"
        )
    )


def find(home: Path, name_or_url: str, owner: Owner = None) -> Server:
    return find_server(name_or_url, owner, read_configuration(home, {}), FileStore(home))


@covers("one-identity")
@pytest.mark.parametrize(
    ("spelling", "other"),
    [
        ("https://a.example/mcp", "HTTPS://A.Example:443/mcp#part"),
        ("https://a.example", "https://a.example/"),
        ("http://127.0.0.1:80/mcp", "http://127.0.0.1/mcp"),
        ("https://a.example/mcp?b=1&c=2", "https://a.example:443/mcp?b=1&c=2"),
    ],
)
def test_an_address_in_any_spelling_means_its_entry(tmp_path: Path, spelling: str, other: str) -> None:
    write_config(tmp_path, notes=spelling, other="https://other.example/mcp")
    server = find(tmp_path, other)
    assert (server.name, server.is_known) == ("notes", True)
    write_config(tmp_path, notes=other)
    assert find(tmp_path, spelling).name == "notes"


@covers("one-identity")
@pytest.mark.parametrize(
    "other",
    [
        f"{URL}?key=1",
        f"{URL}/",
        "https://mcp.notes.example/MCP",
        "https://mcp.notes.example:8443/mcp",
        "https://notes.example/mcp",
    ],
)
def test_another_address_is_another_server(tmp_path: Path, other: str) -> None:
    write_config(tmp_path, notes=URL)
    server = find(tmp_path, other)
    assert server.name != "notes"
    assert not server.is_known


@covers("one-identity")
def test_two_queries_are_two_servers_with_two_names(tmp_path: Path) -> None:
    # Two processes choose names at the same time: neither sees the other's login.
    first, second = (find(tmp_path, f"{URL}?project={name}") for name in "ab")
    assert first.name != second.name
    for server in (first, second):
        assert re.fullmatch("notes-example-[0-9a-f]{8}", server.name)
    # Earlier versions gave such a login this name.
    store_login(tmp_path, "notes-example", first.url)
    assert find(tmp_path, first.url).name == "notes-example"


@covers("one-identity")
def test_two_addresses_with_the_same_words_get_two_names(tmp_path: Path) -> None:
    first, second, third = (URL.removesuffix("/mcp") + path for path in ("/mcp", "/sse", "/v1/mcp"))
    store_login(tmp_path, "notes-example", first)
    assert find(tmp_path, first).name == "notes-example"
    other = find(tmp_path, second)
    assert other.name == "notes-example-2"
    store_login(tmp_path, other.name, other.url)
    assert find(tmp_path, second) == other
    # A name of config.yaml is not free either, whatever its address.
    write_config(tmp_path, **{"notes-example-3": "https://other.example"})
    assert find(tmp_path, third).name == "notes-example-4"


@covers("one-identity")
def test_a_stored_login_gives_its_address_a_name(tmp_path: Path) -> None:
    store_login(tmp_path, "mine")
    server = find(tmp_path, f"{URL}#part")
    assert (server.name, server.url, server.is_known) == ("mine", URL, True)
    # The owner of other tokens uses the operator's name, until they have their own.
    assert find(tmp_path, URL, OWNER).name == find(tmp_path, "mine", OWNER).name == "mine"
    store_login(tmp_path, "theirs", owner=OWNER)
    assert find(tmp_path, URL, OWNER).name == "theirs"
    assert find(tmp_path, URL).name == "mine"


@covers("one-identity")
def test_a_waiting_login_gives_its_address_a_name(tmp_path: Path) -> None:
    store_waiting_login(tmp_path, "begun")
    assert find(tmp_path, URL).name == "begun"
    assert find(tmp_path, "begun").url == URL
    write_config(tmp_path, notes=URL)
    assert find(tmp_path, URL).name == "notes"


@covers("one-identity")
def test_a_server_that_a_chat_user_named_stays_on_the_public_internet(tmp_path: Path) -> None:
    store, key = FileStore(tmp_path), CredentialKey("named")
    login = replace(build_login(), key=key, server_url=URL, expires_at=store.now() + 600, is_public_only=True)
    store.logins.add(login)
    assert find(tmp_path, URL).is_public_only
    assert find(tmp_path, "named").is_public_only
    credentials = build_credentials(0, key)
    assert credentials.binding is not None
    binding = replace(credentials.binding, server_url=URL, is_public_only=True)
    store.save_login(key, replace(credentials, binding=binding))
    assert find(tmp_path, URL).is_public_only
    assert find(tmp_path, "named").is_public_only


@covers("one-identity")
def test_a_name_of_config_yaml_is_not_found_at_an_earlier_address(tmp_path: Path) -> None:
    write_config(tmp_path, notes="https://new.example/mcp")
    store_login(tmp_path, "notes")
    assert find(tmp_path, "https://new.example/mcp").name == "notes"
    assert find(tmp_path, URL).name == "notes-example"


@covers("one-identity")
def test_two_servers_with_one_address_are_told_apart_by_name(tmp_path: Path) -> None:
    write_config(tmp_path, work=URL, private=f"{URL}#part", off={"url": URL, "enabled": False})
    with pytest.raises(AmbiguousAddress) as caught:
        find(tmp_path, f"{URL}")
    assert caught.value.names == ("work", "private")
    assert str(caught.value) == f"2 servers have the address {URL}."
    assert caught.value.advice == "Use a name instead of the address: work or private."
    # A disabled entry counts only if it is the only one.
    write_config(tmp_path, off={"url": URL, "enabled": False, "auth": "oauth"})
    assert find(tmp_path, URL).name == "off"


@covers("one-identity")
def test_an_entry_and_a_login_of_another_name_are_told_apart_by_name(tmp_path: Path) -> None:
    write_config(tmp_path, notes=f"{URL}?key=hidden")
    store_login(tmp_path, "mine", f"{URL}?key=hidden")
    # A program that used the login by its address keeps it when an entry is added.
    assert find(tmp_path, f"{URL}?key=hidden").name == "mine"
    store_login(tmp_path, "notes", f"{URL}?key=hidden")
    with pytest.raises(AmbiguousAddress) as caught:
        find(tmp_path, f"{URL}?key=hidden")
    assert caught.value.names == ("notes", "mine")
    assert caught.value.advice.endswith("delete the other one: `hermes-mcp-auth logout mine`.")
    assert "hidden" not in f"{caught.value} {caught.value.advice}"


@covers("one-identity")
def test_a_login_of_the_operator_hides_no_entry_from_another_owner(tmp_path: Path) -> None:
    write_config(tmp_path, notes=URL)
    store_login(tmp_path, "mine")
    assert find(tmp_path, URL).name == "mine"
    # As in a chat in which each user has their own tokens.
    assert find(tmp_path, URL, OWNER).name == "notes"
    store_login(tmp_path, "notes", owner=OWNER)
    assert find(tmp_path, URL, OWNER).name == "notes"
    assert find(tmp_path, URL).name == "mine"


@covers("one-identity")
def test_an_unreadable_entry_or_file_hides_no_other_server(tmp_path: Path) -> None:
    write_config(tmp_path, bad="ftp://bad.example", unset="https://${HOST}/mcp", notes=URL)
    assert find(tmp_path, URL).name == "notes"
    (tmp_path / "config.yaml").write_text("mcp_servers: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        find(tmp_path, URL)
    store_login(tmp_path, "mine")
    store_login(tmp_path, "corrupt", "https://corrupt.example")
    (tmp_path / "mcp-tokens" / "corrupt.json").write_text("[]")
    assert find(tmp_path, URL).name == "mine"


@covers("did-you-mean")
def test_a_mistyped_name_gets_stored_and_configured_names_offered(tmp_path: Path) -> None:
    store_login(tmp_path, "linear")
    with pytest.raises(ServerNotFound) as caught:
        find(tmp_path, "linaer")
    assert caught.value.advice == "Did you mean linear?"
    write_config(tmp_path, linaria=URL)
    with pytest.raises(ServerNotFound) as caught:
        find(tmp_path, "linaer")
    assert caught.value.advice in {"Did you mean linear or linaria?", "Did you mean linaria or linear?"}
    with pytest.raises(ServerNotFound, match="the known names are linaria, linear"):
        find(tmp_path, "xyz")


@covers("one-identity")
def test_programs_use_the_entry_of_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_HOME", str(tmp_path))
    write_config(tmp_path, notes={"url": URL, "auth": "oauth", "oauth": {"client_id": "configured"}})
    session = open_session(f"{URL}#part", OWNER)
    assert session is open_session("notes", OWNER)
    assert session.server.options.client_id == "configured"
    assert repr(McpAuth(URL)) == "McpAuth('notes')"
    storage = SharedTokenStorage(URL, owner=OWNER)
    assert storage.session is session
    write_config(tmp_path, work=URL, private=URL)
    with pytest.raises(AmbiguousAddress):
        McpAuth(URL)


def test_a_login_by_another_spelling_keeps_the_options_of_its_server() -> None:
    servers = KnownServers()
    servers.add(Server("notes", "https://a.example", ServerOptions(client_id="configured")))
    login = replace(build_login(), key=CredentialKey("notes"), server_url="https://a.example/")
    assert servers.server_of(login).options.client_id == "configured"
    assert servers.server_of(replace(login, server_url="https://a.example/?b")).options.client_id is None


def test_an_address_is_found_only_if_it_is_known(tmp_path: Path) -> None:
    assert find_server_at(URL, None, read_configuration(tmp_path, {}), FileStore(tmp_path)) is None
    with pytest.raises(ConfigError, match="plain http"):
        find(tmp_path, "http://elsewhere.example/mcp")


@covers("token-address")
@pytest.mark.parametrize("has_binding", [True, False])
def test_an_unsafe_address_gets_no_token(tmp_path: Path, *, has_binding: bool) -> None:
    unsafe_url = "http://mcp.notes.example/mcp"
    store_login(tmp_path, "notes", unsafe_url)
    if not has_binding:
        # As Hermes stores a login.
        (tmp_path / "mcp-tokens" / "notes.binding.json").unlink()
    session = AuthService(tmp_path).session(Server("notes", unsafe_url))
    with pytest.raises(UnsafeUrl, match="server address is plain http"):
        session.header_blocking()


def test_a_stored_address_that_is_not_safe_is_another_address(tmp_path: Path) -> None:
    store_login(tmp_path, "notes", "http://mcp.notes.example/mcp")
    service, server = AuthService(tmp_path), Server("notes", URL, config_files="an identity")
    with pytest.raises(AuthorizationRequired, match="for another address"):
        service.session(server).header_blocking()
    with pytest.raises(ConfigError, match=r"already belongs to http://mcp\.notes"):
        SharedTokenStorage(server, service=service)
    service.blocking.save_config_identity(server)
    binding = service.blocking.read_credentials(server).binding
    assert binding is not None
    assert binding.config_files is None
