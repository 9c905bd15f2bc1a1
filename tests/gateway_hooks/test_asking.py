"""A call that needs a login prompts its user in private while the agent works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway_hooks.dialog.policy import AllowList
from hermes_mcp_auth_remote.errors import AuthorizationRequired
from tests.browserless import approve
from tests.gateway_hooks.conftest import Begin
from tests.gateway_hooks.given import Person, Talk, until
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow

Act = Callable[[], Awaitable[object]]


def calling(talk: Talk, user: Person, *acts: Act, where: Person | None = None) -> str | AuthorizationRequired:
    """Make a call for a user who acts while it waits. Return the header, or the error if there is none."""

    async def call() -> str | AuthorizationRequired:
        place = where or user
        with talk.desk.prompt_in(user.sender, place.chat, wait_seconds=20):
            try:
                return await talk.desk.session("notes", user.user).header()
            except AuthorizationRequired as needed:
                return needed

    async def story() -> str | AuthorizationRequired:
        running, waiting = asyncio.create_task(talk.desk.prompt_messages.run()), asyncio.create_task(call())
        try:
            for act in acts:
                await act()
            return await waiting
        finally:
            for task in (running, waiting):
                task.cancel()
            await asyncio.gather(running, waiting, return_exceptions=True)

    return talk.run(story())


def is_shown(person: Person, title: str) -> Act:
    return lambda: until(lambda: title in person.sees())


def hears(talk: Talk, person: Person, text: Callable[[], str]) -> Act:
    async def said() -> None:
        spoken = await asyncio.to_thread(text)
        assert await talk.desk.handle(person._spoken(spoken), person.chat)

    return said


@covers("chat-asks")
def test_a_call_asks_in_its_users_private_chat_and_goes_on(talk: Talk, ada: Person) -> None:
    header = calling(
        talk,
        ada,
        is_shown(ada, "Connect notes"),
        hears(talk, ada, lambda: approve(talk.login.authorization_url)),
        is_shown(ada, "notes: connected"),
    )
    assert isinstance(header, str)
    assert header.startswith("Bearer ")
    assert ada.sees() == ["notes: connected"]


@covers("chat-asks", "chat-private")
def test_a_call_made_for_a_group_asks_in_private_and_says_so_there(talk: Talk, ada: Person) -> None:
    group = talk.person("ada", group="kitchen")
    header = calling(
        talk,
        ada,
        is_shown(ada, "Connect notes"),
        is_shown(group, "I wrote to you privately."),
        hears(talk, ada, lambda: approve(talk.login.authorization_url)),
        where=group,
    )
    assert isinstance(header, str)
    assert group.sees() == ["I wrote to you privately."]


@covers("chat-asks", "chat-private")
def test_where_the_bot_may_not_write_first_the_group_gets_a_link_and_the_call_goes_on_from_there(
    talk: Talk, ada: Person
) -> None:
    group = talk.person("ada", group="kitchen")
    ada.room.cannot_write = True

    async def opens() -> None:
        ada.room.cannot_write = False

    header = calling(
        talk,
        ada,
        is_shown(group, "Connect notes"),
        opens,
        hears(talk, ada, lambda: f"/start mcp_{talk.login.id}"),
        is_shown(ada, "Connect notes"),
        hears(talk, ada, lambda: approve(talk.login.authorization_url)),
        where=group,
    )
    assert isinstance(header, str)


@covers("chat-asks")
def test_ten_calls_make_one_message(talk: Talk, ada: Person) -> None:
    async def story() -> list[str]:
        running = asyncio.create_task(talk.desk.prompt_messages.run())
        with talk.desk.prompt_in(ada.sender, ada.chat):
            session = talk.desk.session("notes", "ada")
            calls = [asyncio.create_task(session.header()) for _ in range(10)]
        await until(lambda: ada.sees() == ["Connect notes"])
        answer = await asyncio.to_thread(approve, talk.login.authorization_url)
        await talk.desk.handle(ada._spoken(answer), ada.chat)
        headers = await asyncio.gather(*calls)
        await until(lambda: ada.sees() == ["notes: connected"])
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return headers

    assert len(set(talk.run(story()))) == 1
    assert ada.room.calls.count("send") == 1


@covers("chat-asks", "no-address")
def test_a_call_whose_person_says_no_fails_and_names_no_address(talk: Talk, ada: Person) -> None:
    needed = calling(talk, ada, is_shown(ada, "Connect notes"), hears(talk, ada, lambda: "/cancel"))
    assert isinstance(needed, AuthorizationRequired)
    assert "cancelled" in needed.reason
    assert "://" not in f"{needed} {needed.advice}"


@covers("chat-asks")
@pytest.mark.parametrize("group", ["", "kitchen"])
def test_a_call_that_can_ask_nobody_fails_at_once_as_one_that_needs_a_login(
    talk: Talk, ada: Person, group: str, caplog: pytest.LogCaptureFixture
) -> None:
    ada.room.cannot_write = True
    place = talk.person("ada", group=group) if group else ada
    place.room.cannot_write = True
    needed = calling(talk, ada, where=place)
    assert isinstance(needed, AuthorizationRequired)
    assert talk.waiting() == []
    assert "The bot may not write there." in caplog.text


@covers("chat-asks", "chat-listed", "chat-admins")
@pytest.mark.parametrize(
    "policy",
    [
        AllowList(users=frozenset({"bob"})),
        AllowList(users=frozenset({"bob"}), owners="per_user"),
        AllowList(users=frozenset({"ada"}), admins=frozenset({"bob"})),
    ],
    ids=["stranger", "stranger, per-user tokens", "no administrator"],
)
def test_a_call_for_somebody_who_may_not_log_in_asks_nobody_and_no_server(
    begin: Begin, policy: AllowList, demo: Demo
) -> None:
    talk = begin(policy=policy)
    ada = talk.person("ada")
    assert isinstance(calling(talk, ada), AuthorizationRequired)
    assert ada.sees() == []
    assert demo.authorization_server.requests == []


@covers("chat-asks", "chat-owners")
def test_a_call_for_one_user_uses_that_users_tokens_alone(begin: Begin) -> None:
    talk = begin(policy=AllowList(users=frozenset({"ada", "bob"}), owners="per_user"))
    ada, bob = talk.person("ada"), talk.person("bob")
    ada.says("/connect notes")
    ada.pastes(approve(talk.login.authorization_url))
    assert isinstance(calling(talk, ada), str)
    header = calling(
        talk,
        bob,
        is_shown(bob, "Connect notes"),
        hears(talk, bob, lambda: approve(talk.login.authorization_url)),
    )
    assert isinstance(header, str)
    assert header != calling(talk, ada)
