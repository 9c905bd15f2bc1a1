"""Which users may log in, how often, and who owns the tokens."""

from __future__ import annotations

import pytest

from gateway_hooks.dialog.platform import Sender
from gateway_hooks.dialog.policy import (
    MAX_STARTS_PER_HOUR,
    MAX_WAITING,
    UNKNOWN_USER_REPLY_SECONDS,
    AllowList,
    Refusal,
    refusal,
)
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.values import OwnershipMode
from tests.browserless import approve
from tests.demo.player import MovedClock
from tests.gateway_hooks.conftest import Begin
from tests.gateway_hooks.given import Person, Talk
from tests.gateway_hooks.made import ADA, BOB, made
from tests.oauth.parties import NOW
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow

SHARED = AllowList(users=frozenset({"ada", "bob"}), admins=frozenset({"ada"}))
OWN = AllowList(users=frozenset({"ada", "bob"}), owners="per_user")
ROLES = AllowList(
    users=frozenset({"ada"}),
    roles=frozenset({"cook"}),
    admin_roles=frozenset({"chef"}),
    guilds=frozenset({"kitchen"}),
)


@covers("chat-listed", "chat-admins")
@pytest.mark.parametrize(
    ("policy", "sender", "talks", "changes"),
    [
        (AllowList(), Sender("ada"), False, False),
        (AllowList(users=frozenset({"ada"})), Sender("ada"), True, True),
        (AllowList(users=frozenset({"ada"})), Sender("bob"), False, False),
        (AllowList(users=frozenset({"ada"})), Sender(""), False, False),
        (SHARED, Sender("ada"), True, True),
        (SHARED, Sender("bob"), True, False),
        (AllowList(admins=frozenset({"ada"})), Sender("ada"), True, True),
        (AllowList(users=frozenset({"bob"}), admins=frozenset()), Sender("bob"), True, False),
        (OWN, Sender("bob"), True, True),
        (OWN, Sender("eve"), False, False),
        (ROLES, Sender("ada"), True, False),
        (ROLES, Sender("bob", frozenset({"cook"}), "kitchen"), True, False),
        (ROLES, Sender("bob", frozenset({"chef"}), "kitchen"), True, True),
        (ROLES, Sender("bob", frozenset({"chef"}), "elsewhere"), False, False),
        (ROLES, Sender("bob", frozenset({"guest"}), "kitchen"), False, False),
        (ROLES, Sender("ada", frozenset({"chef"}), "elsewhere"), True, False),
    ],
)
def test_who_may(policy: AllowList, sender: Sender, talks: bool, changes: bool) -> None:  # noqa: FBT001
    assert (policy.may_talk(sender), policy.may_change(sender)) == (talks, changes)


@pytest.mark.parametrize(
    ("policy", "caretakers"),
    [
        (AllowList(), ()),
        (AllowList(users=frozenset({"ada"})), ("ada",)),
        (AllowList(users=frozenset({"ada", "bob"})), ()),
        (SHARED, ("ada",)),
        (AllowList(admins=frozenset({"b", "a"})), ("a", "b")),
    ],
)
def test_who_hears_of_trouble(policy: AllowList, caretakers: tuple[str, ...]) -> None:
    assert policy.reminder_recipients() == caretakers


@covers("chat-owners")
def test_whose_tokens_a_login_becomes() -> None:
    assert SHARED.owner("parlour", "ada") is None
    assert OWN.owner("parlour", "ada") == "parlour:ada"


def several(count: int, origin: object = ADA, **members: object) -> list[Login]:
    return [made(origin, f"{number}", **members) for number in range(count)]  # type: ignore[arg-type]


@covers("chat-limits")
@pytest.mark.parametrize(
    ("logins", "why"),
    [
        (several(2), None),
        (several(3), "too_many"),
        (several(3, BOB), None),
        (several(3, status="cancelled"), None),
        (several(MAX_STARTS_PER_HOUR - 1, status="done"), None),
        (several(MAX_STARTS_PER_HOUR, status="done"), "too_often"),
        (several(MAX_STARTS_PER_HOUR, status="done", started_at=NOW - 3601), None),
        (several(MAX_WAITING - 1, BOB), None),
        (several(MAX_WAITING, BOB), "too_busy"),
    ],
)
def test_how_many_logins_there_may_be(logins: list[Login], why: Refusal | None) -> None:
    assert refusal(logins, "parlour", "ada", NOW) == why
    assert refusal(logins, "elsewhere", "ada", NOW) is None


@covers("chat-limits")
def test_a_fourth_login_at_once_is_refused_and_asks_no_server(begin: Begin, demo: Demo) -> None:
    talk = begin("notes", "mail", "tasks", "maps")
    ada = talk.person("ada")
    for name in ("notes", "mail", "tasks"):
        ada.says(f"/connect {name}")
    demo.authorization_server.requests.clear()
    ada.says("/connect maps")
    assert "You already have 3 open logins." in ada.reads()
    assert demo.authorization_server.requests == []
    # A login that replaces another does not count twice.
    ada.says("/connect mail")
    assert ada.last.title == "Connect mail"
    ada.presses("Cancel")
    ada.says("/connect maps")
    assert ada.last.title == "Connect maps"


@covers("chat-limits")
def test_the_eleventh_login_within_an_hour_is_refused(
    ada: Person, talk: Talk, clock: MovedClock, demo: Demo
) -> None:
    for _ in range(MAX_STARTS_PER_HOUR):
        ada.says("/connect notes")
        ada.presses("Cancel")
    demo.authorization_server.requests.clear()
    ada.says("/connect notes")
    assert "Try again later." in ada.reads()
    assert demo.authorization_server.requests == []
    talk.person("bob").says("/connect notes")
    assert talk.login.origin.user_id == "bob"
    clock.now += 3600
    ada.says("/connect notes")
    assert ada.last.title == "Connect notes"


@covers("chat-limits")
def test_logins_that_are_asked_for_at_once_are_counted_one_by_one(begin: Begin) -> None:
    talk = begin(*"abcdef")
    ada = talk.person("ada")

    async def all_at_once() -> None:
        import asyncio

        heard = [ada._spoken(f"/connect {name}") for name in "abcdef"]
        await asyncio.gather(*(talk.desk.handle(each, ada.chat) for each in heard))

    talk.run(all_at_once())
    assert len(talk.waiting()) == 3


@covers("chat-listed")
def test_a_stranger_is_told_so_once_an_hour_and_begins_nothing(
    talk: Talk, demo: Demo, clock: MovedClock
) -> None:
    eve = talk.person("eve")
    for said in ("/connect notes", "/connections", "/start mcp_something", "/disconnect notes"):
        assert eve.says(said)
    assert eve.sees() == ["You may not use this bot yet"]
    assert "Your id here is eve." in eve.reads()
    assert eve.presses_again("mcp:connect:", on="1")
    assert len(eve.sees()) == 1
    # The bot does not claim other messages of unknown users.
    assert not eve.says("hello")
    clock.now += UNKNOWN_USER_REPLY_SECONDS
    eve.says("/connect notes")
    assert len(eve.sees()) == 2
    assert talk.waiting() == []
    assert demo.authorization_server.requests == []


@covers("chat-listed")
def test_somebody_who_is_listed_no_more_cannot_finish_a_login(begin: Begin) -> None:
    talk = begin()
    ada = talk.person("ada")
    ada.says("/connect notes")
    login = talk.login
    later = begin(place=talk.place, policy=AllowList(users=frozenset({"bob"})))
    later.person("ada").presses("QR code")
    assert ada.room.calls.count("picture") == 0
    later.person("ada").pastes(approve(login.authorization_url))
    assert later.service.keys() == []


@covers("chat-admins")
def test_only_an_administrator_changes_what_all_share_and_all_may_see_it(begin: Begin, demo: Demo) -> None:
    talk = begin(policy=SHARED)
    ada, bob = talk.person("ada"), talk.person("bob")
    ada.says("/connect notes")
    ada.pastes(approve(talk.login.authorization_url))
    demo.authorization_server.requests.clear()
    for said in ("/connect notes", "/disconnect notes", "/disconnect notes yes"):
        bob.says(said)
        assert "Only an administrator of this bot may change them" in str(bob.room.cards()[-1])
    assert demo.authorization_server.requests == []
    bob.says("/connections")
    assert "notes: connected as ada@example.com" in bob.reads()
    assert bob.last.buttons == ()
    action = ada.button("Disconnect")[1].action.replace(":off:", ":yes:")
    bob.presses_again(action, on=next(reversed(bob.room.messages)))
    assert talk.service.connection(talk.desk._context.servers.find("notes")) is not None


@covers("chat-owners")
def test_tokens_of_ones_own_are_seen_and_ended_by_their_owner_alone(begin: Begin) -> None:
    talk = begin(policy=OWN)
    ada, bob = talk.person("ada"), talk.person("bob")
    ada.says("/connect notes")
    assert "For: only you" in ada.reads()
    ada.pastes(approve(talk.login.authorization_url))
    server = talk.desk._context.servers.find("notes")
    assert talk.service.connection(server, "parlour:ada") is not None
    assert talk.service.connection(server) is None
    bob.says("/connections")
    assert "notes: not connected" in bob.reads()
    bob.says("/disconnect notes yes")
    assert talk.service.connection(server, "parlour:ada") is not None
    ada.says("/connections")
    assert "Only you use these connections." in ada.reads()
    ada.says("/disconnect notes yes")
    assert talk.service.connection(server, "parlour:ada") is None


@covers("chat-owners")
@pytest.mark.parametrize("owners", ["shared", "per_user"])
def test_a_login_waits_for_whoever_began_it_alone(begin: Begin, owners: OwnershipMode) -> None:
    talk = begin(policy=AllowList(users=frozenset({"ada", "bob"}), owners=owners))
    ada, bob = talk.person("ada"), talk.person("bob")
    ada.says("/connect notes")
    for person, standing in ((ada, "a login waits for you"), (bob, "not connected")):
        person.says("/connections")
        assert f"notes: {standing}" in person.reads()
