"""The error of a call that cannot ask its user names the commands that can, in a terminal and in a chat."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import AuthorizationRequired
from hermes_mcp_auth_remote.platforms import DISCORD, PLATFORMS
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.chat_advice import ChatAdvice
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.protocol import Person
from hermes_mcp_auth_remote.values import Owner, Server
from tests.requirements import covers

URL = "https://notes.example/mcp"
NOTES = Server("notes", URL, known_from="config")
SHARED = {"telegram": {"allow": [42, 7, 100], "admins": [42, 100]}}
PER_USER = {"owners": "per_user", **SHARED}


def chat_text(user: int, title: str = "Telegram") -> str:
    """Return the text for a user of a platform."""
    command = f"hermes-mcp-auth login notes --via {title.lower()}:{user}"
    return f"To log in from {title} instead, send `/connect notes` to the bot, or run `{command}`."


def write_config(home: Path, chats: object, **servers: str) -> None:
    home.mkdir(exist_ok=True)
    entries = {name: {"url": url, "auth": "oauth"} for name, url in (servers or {"notes": URL}).items()}
    (home / "config.yaml").write_text(json.dumps({"mcp_servers": entries, "mcp_auth_chats": chats}))


@covers("advice-note", "no-user-to-ask")
@pytest.mark.parametrize(
    ("chats", "owner", "text"),
    [
        (None, None, ""),
        (SHARED, None, chat_text(42)),
        ({"telegram": {"allow": [7]}}, None, chat_text(7)),
        # No user may change the shared tokens.
        ({"telegram": {"allow": [7], "admins": []}}, None, ""),
        (
            {"discord": {"admins": [5]}},
            None,
            chat_text(5, "Discord"),
        ),
        (PER_USER, "telegram:7", chat_text(7)),
        # A login from this chat would store the tokens of another owner.
        (PER_USER, None, ""),
        (SHARED, "telegram:7", ""),
        (PER_USER, "discord:7", ""),
        (PER_USER, "telegram:not-an-id", ""),
        (PER_USER, "somebody", ""),
    ],
)
def test_the_chat_is_named_if_a_login_there_helps(
    tmp_path: Path, chats: object, owner: Owner, text: str
) -> None:
    write_config(tmp_path, chats)
    assert ChatAdvice(tmp_path, FileStore(tmp_path).people).text(NOTES, owner) == text


@covers("advice-note", "platform-table")
def test_the_chat_command_is_written_as_on_its_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PLATFORMS, "discord", DISCORD._replace(command_prefix="!mcp "))
    write_config(tmp_path, {"discord": {"admins": [5]}})
    text = ChatAdvice(tmp_path, FileStore(tmp_path).people).text(NOTES, None)
    assert text == chat_text(5, "Discord").replace("/connect", "!mcp connect")


@covers("advice-note")
def test_an_administrator_who_was_admitted_in_the_chat_counts(tmp_path: Path) -> None:
    write_config(tmp_path, None)
    people = [Person("telegram", "9", is_admin=False, admitted_by="5", admitted_at=1.0)]
    FileStore(tmp_path).people.change(lambda _: people)
    advice = ChatAdvice(tmp_path, FileStore(tmp_path).people)
    assert advice.text(NOTES, None) == ""
    people.append(Person("telegram", "50", is_admin=True, admitted_by="", admitted_at=1.0))
    FileStore(tmp_path).people.change(lambda _: people)
    assert advice.text(NOTES, None) == chat_text(50)


@covers("advice-note")
def test_a_server_that_the_bot_does_not_list_has_no_chat_command(tmp_path: Path) -> None:
    write_config(tmp_path, SHARED, other=URL)
    text = ChatAdvice(tmp_path, FileStore(tmp_path).people).text(Server("notes", f"{URL}?key=hidden"), None)
    assert text == (
        "To log in from Telegram instead, run `hermes-mcp-auth login notes --url - --via telegram:42`."
    )


@covers("advice-note")
def test_a_broken_configuration_gives_no_chat_advice_until_it_is_mended(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mcp_auth_chats: [")
    advice = ChatAdvice(tmp_path, FileStore(tmp_path).people)
    assert advice.text(NOTES, None) == ""
    write_config(tmp_path, SHARED)
    assert advice.text(NOTES, None) == chat_text(42)


@covers("advice-note")
@pytest.mark.parametrize("owner", [None, "telegram:7"])
def test_a_call_without_a_login_raises_the_whole_advice(tmp_path: Path, owner: Owner) -> None:
    write_config(tmp_path, SHARED if owner is None else PER_USER)
    session = AuthService(tmp_path).session(NOTES, owner)

    async def call_twice() -> None:
        for _ in range(2):
            with pytest.raises(AuthorizationRequired) as caught:
                await session.header()
            option = "" if owner is None else f" --owner {owner}"
            text = chat_text(42 if owner is None else 7)
            assert caught.value.advice == f"Run `hermes-mcp-auth login notes{option}`. {text}"
            assert caught.value.__notes__ == [caught.value.advice]

    asyncio.run(call_twice())


@covers("advice-note")
def test_a_service_with_another_store_names_the_terminal_command(tmp_path: Path) -> None:
    write_config(tmp_path, SHARED)
    session = AuthService(store=FileStore(tmp_path)).session(Server("notes", URL))
    with pytest.raises(AuthorizationRequired) as caught:
        asyncio.run(session.header())
    assert caught.value.advice == (
        "Run `hermes-mcp-auth login notes --url -`, and type the address that your program uses."
    )
