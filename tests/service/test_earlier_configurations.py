"""The configuration of an earlier version means the same, works with its sessions, and is never written."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from hermes_mcp_auth_remote.config import read_configuration
from hermes_mcp_auth_remote.config.chats import read_bot_token, read_chat_settings
from hermes_mcp_auth_remote.config.files import read_variables
from hermes_mcp_auth_remote.platforms import PLATFORMS
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.protocol import Notice
from hermes_mcp_auth_remote.values import Secret
from tests.parts.sample_home import NOW, SAMPLES, FakeAuthorizationServer, copy_home
from tests.requirements import covers

CONFIGURATIONS = sorted(SAMPLES.glob("configuration-*"))
USER = "telegram:42"


def plain(value: Any) -> Any:
    """Return a value as JSON, secrets included: the samples contain no real ones."""
    if isinstance(value, Secret):
        return value.reveal()
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def lacking(earlier: Any, current: Any, path: str = "") -> list[str]:
    """List the values of an earlier version that the current one reads differently; it may read more."""
    if isinstance(earlier, dict) and isinstance(current, dict):
        return [
            difference
            for key, value in earlier.items()
            for difference in lacking(value, current.get(key), f"{path}.{key}")
        ]
    return [] if earlier == current else [f"{path}: {earlier!r} is now {current!r}"]


@pytest.fixture(params=CONFIGURATIONS, ids=lambda path: path.name)
def sample(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def home(tmp_path: Path, sample: Path) -> Path:
    """A home with the files of the earlier version: its sessions and its configuration."""
    home = copy_home(tmp_path)
    for name in ("config.yaml", ".env"):
        shutil.copy(sample / name, home / name)
    (home / ".env").chmod(0o600)
    return home


@covers("earlier-configuration")
def test_each_value_is_read_as_the_earlier_version_read_it(home: Path, sample: Path) -> None:
    earlier = json.loads((sample / "as_read.json").read_text("utf-8"))
    configuration = read_configuration(home, {})
    names = configuration.server_names()
    assert set(names) == set(earlier["servers"])
    chats = read_chat_settings(configuration)
    assert chats is not None
    current = {
        "servers": {
            name: {
                "url": (server := configuration.find_server(name)).url,
                "headers": plain(server.headers),
                "options": plain(server.options),
            }
            for name in names
        },
        "chats": {
            "owners": chats.owners,
            "device_platforms": plain(chats.device_platforms),
            **{name: plain(chats.platform_settings(name)) for name in PLATFORMS},
        },
        "bot_tokens": {
            name: read_bot_token(PLATFORMS[name], home, {}).reveal() for name in earlier["bot_tokens"]
        },
    }
    assert lacking(earlier, current) == []
    # A key that was right then is not reported as a mistake now.
    assert configuration.all_warnings() == ()


def test_a_value_that_is_read_differently_is_found() -> None:
    assert lacking({"a": {"b": 1, "c": [2]}}, {"a": {"b": 1, "c": [3], "d": 4}}) == [".a.c: [2] is now [3]"]


@covers("earlier-configuration")
def test_its_sessions_are_refreshed_and_its_logins_completed_with_that_configuration(home: Path) -> None:
    before = {name: (home / name).read_bytes() for name in ("config.yaml", ".env")}
    configuration = read_configuration(home, {})
    provider = FakeAuthorizationServer()
    service = AuthService(home, run_exchange=provider.run, clock=lambda: NOW + 60)
    notes = configuration.find_server("notes")
    assert notes.url == "https://mcp.notes.example/mcp"
    assert read_variables(home / ".env", {})["UNRELATED"] == "1"

    async def main() -> None:
        login = next(each for each in await service.waiting_logins() if each.poll_state is None)
        query = {
            "code": "an-authorization-code",
            "state": login.request.state.reveal(),
            "iss": "https://as.notes.example",
        }
        address = f"{login.request.redirect_uri}?{urlencode(query)}"
        await service.complete_login(login.id, address, login.origin)
        for owner in (None, USER):
            later = AuthService(home, run_exchange=provider.run, clock=lambda: NOW + 3600)
            assert await later.session(notes, owner).header() == "Bearer new-access-token"

    asyncio.run(main())
    assert {name: (home / name).read_bytes() for name in before} == before


# What a refresh changes; everything else must be as the earlier version wrote it.
CHANGED_BY_REFRESH = {
    "notes.json": {"access_token", "refresh_token", "expires_in", "expires_at"},
    "notes.binding.json": {"tokens", "refreshed_at", "refresh_expires_at"},
    "notes.client.json": set[str](),
    "notes.meta.json": set[str](),
}


@covers("earlier-home")
def test_a_rewritten_session_loses_nothing(home: Path) -> None:
    folder = home / "mcp-tokens"
    before = {name: json.loads((folder / name).read_bytes()) for name in CHANGED_BY_REFRESH}
    # A member that a later version or Hermes added.
    for name in ("notes.client.json", "notes.meta.json"):
        before[name]["a_member_of_its_own"] = [1]
        (folder / name).write_text(json.dumps(before[name]), encoding="utf-8")
    service = AuthService(home, run_exchange=FakeAuthorizationServer().run, clock=lambda: NOW + 3600)
    notes = read_configuration(home, {}).find_server("notes")
    asyncio.run(service.session(notes).header())
    for name, changed in CHANGED_BY_REFRESH.items():
        after = json.loads((folder / name).read_bytes())
        assert {key: after.get(key) for key in before[name] if key not in changed} == {
            key: value for key, value in before[name].items() if key not in changed
        }, name


@covers("earlier-home")
def test_a_rewritten_login_and_notice_lose_nothing(home: Path) -> None:
    service = AuthService(home, clock=lambda: NOW + 60)
    folder = home / "mcp-tokens" / "logins"
    (login,) = (each for each in service.blocking.waiting_logins() if each.poll_state is None)
    path = folder / f"{login.id}.json"
    before, notices = json.loads(path.read_bytes()), json.loads((folder / ".notices.json").read_bytes())
    asyncio.run(service.save_messages(login.id, (*login.message_ids, "1009")))
    after = json.loads(path.read_bytes())
    assert after.pop("messages") == [*before.pop("messages"), "1009"]
    assert {key: after.get(key) for key in before} == before
    notice = Notice("discord", "7", login.key, is_over=True, at=NOW)
    assert asyncio.run(service.replace_notice(None, notice))
    rewritten = json.loads((folder / ".notices.json").read_bytes())
    assert rewritten["notices"][:1] == notices["notices"]
