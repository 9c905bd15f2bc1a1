"""Which users may log in, how often, and who owns the tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.dialog.platform import Sender
from gateway_hooks.dialog.policy import (
    MAX_STARTS_PER_HOUR,
    MAX_WAITING,
    UNKNOWN_USER_REPLY_SECONDS,
    AllowList,
    Refusal,
    refusal,
)
from hermes_mcp_auth_remote.errors import Unreachable
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.values import OwnershipMode, Server
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.gateway_hooks.conftest import StartBot
from tests.gateway_hooks.fake_platform import ChatBot, ChatUser
from tests.gateway_hooks.login_factories import ADA, BOB, make_login
from tests.oauth.builders import NOW
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow

SHARED = AllowList(users=frozenset({"ada", "bob"}), admins=frozenset({"ada"}))
PER_USER = AllowList(users=frozenset({"ada", "bob"}), owners="per_user")
ROLES = AllowList(
    users=frozenset({"ada"}),
    roles=frozenset({"cook"}),
    admin_roles=frozenset({"chef"}),
    guilds=frozenset({"kitchen"}),
)


@covers("chat-listed", "chat-admins")
@pytest.mark.parametrize(
    ("policy", "sender", "may_talk", "may_change"),
    [
        (AllowList(), Sender("ada"), False, False),
        (AllowList(users=frozenset({"ada"})), Sender("ada"), True, True),
        (AllowList(users=frozenset({"ada"})), Sender("bob"), False, False),
        (AllowList(users=frozenset({"ada"})), Sender(""), False, False),
        (SHARED, Sender("ada"), True, True),
        (SHARED, Sender("bob"), True, False),
        (AllowList(admins=frozenset({"ada"})), Sender("ada"), True, True),
        (AllowList(users=frozenset({"bob"}), admins=frozenset()), Sender("bob"), True, False),
        (PER_USER, Sender("bob"), True, True),
        (PER_USER, Sender("eve"), False, False),
        (ROLES, Sender("ada"), True, False),
        (ROLES, Sender("bob", frozenset({"cook"}), "kitchen"), True, False),
        (ROLES, Sender("bob", frozenset({"chef"}), "kitchen"), True, True),
        (ROLES, Sender("bob", frozenset({"chef"}), "elsewhere"), False, False),
        (ROLES, Sender("bob", frozenset({"guest"}), "kitchen"), False, False),
        (ROLES, Sender("ada", frozenset({"chef"}), "elsewhere"), True, False),
    ],
)
def test_allow_list_permissions(policy: AllowList, sender: Sender, may_talk: bool, may_change: bool) -> None:  # noqa: FBT001
    assert (policy.may_talk(sender), policy.may_change(sender)) == (may_talk, may_change)


@pytest.mark.parametrize(
    ("policy", "recipients"),
    [
        (AllowList(), ()),
        (AllowList(users=frozenset({"ada"})), ("ada",)),
        (AllowList(users=frozenset({"ada", "bob"})), ()),
        (SHARED, ("ada",)),
        (AllowList(admins=frozenset({"b", "a"})), ("a", "b")),
    ],
)
def test_reminder_recipients(policy: AllowList, recipients: tuple[str, ...]) -> None:
    assert policy.reminder_recipients() == recipients


@covers("chat-owners")
def test_owner_of_tokens() -> None:
    assert SHARED.owner("parlour", "ada") is None
    assert PER_USER.owner("parlour", "ada") == "parlour:ada"


def make_logins(count: int, origin: object = ADA, **fields: object) -> list[Login]:
    first = make_login(origin, "0", **fields)  # type: ignore[arg-type]
    # `make_login` takes a millisecond, and these lists have up to MAX_WAITING logins.
    return [replace(first, id=f"{number}") for number in range(count)]


@covers("chat-limits")
@pytest.mark.parametrize(
    ("logins", "expected_refusal"),
    [
        (make_logins(2), None),
        (make_logins(3), "too_many"),
        (make_logins(3, BOB), None),
        (make_logins(3, status="cancelled"), None),
        (make_logins(MAX_STARTS_PER_HOUR - 1, status="done"), None),
        (make_logins(MAX_STARTS_PER_HOUR, status="done"), "too_often"),
        (make_logins(MAX_STARTS_PER_HOUR, status="done", started_at=NOW - 3601), None),
        (make_logins(MAX_WAITING - 1, BOB), None),
        (make_logins(MAX_WAITING, BOB), "too_busy"),
    ],
)
def test_refusal_by_number_of_logins(logins: list[Login], expected_refusal: Refusal | None) -> None:
    assert refusal(logins, "parlour", "ada", NOW) == expected_refusal
    assert refusal(logins, "elsewhere", "ada", NOW) is None


@covers("chat-limits")
def test_fourth_open_login_is_refused_without_request(start_bot: StartBot, demo: Demo) -> None:
    bot = start_bot("notes", "mail", "tasks", "maps")
    ada = bot.user("ada")
    for name in ("notes", "mail", "tasks"):
        ada.send_text(f"/connect {name}")
    demo.authorization_server.requests.clear()
    ada.send_text("/connect maps")
    assert "You already have 3 open logins." in ada.visible_text()
    assert demo.authorization_server.requests == []
    # If a login replaces another, the two count once.
    ada.send_text("/connect mail")
    assert ada.last_card.title == "Connect mail"
    ada.press("Cancel")
    ada.send_text("/connect maps")
    assert ada.last_card.title == "Connect maps"


@covers("chat-limits")
def test_eleventh_login_within_an_hour_is_refused(
    ada: ChatUser, bot: ChatBot, clock: ManualClock, demo: Demo
) -> None:
    for _ in range(MAX_STARTS_PER_HOUR):
        ada.send_text("/connect notes")
        ada.press("Cancel")
    demo.authorization_server.requests.clear()
    ada.send_text("/connect notes")
    assert "Try again later." in ada.visible_text()
    assert demo.authorization_server.requests == []
    bot.user("bob").send_text("/connect notes")
    assert bot.login.origin.user_id == "bob"
    clock.now += 3600
    ada.send_text("/connect notes")
    assert ada.last_card.title == "Connect notes"


@covers("chat-limits")
def test_concurrent_starts_are_counted_one_by_one(start_bot: StartBot) -> None:
    bot = start_bot(*"abcdef")
    ada = bot.user("ada")

    async def start_all_at_once() -> None:
        import asyncio

        events = [ada.message_event(f"/connect {name}") for name in "abcdef"]
        await asyncio.gather(*(bot.dispatcher.handle(event, ada.chat) for event in events))

    bot.run(start_all_at_once())
    assert len(bot.waiting_logins()) == 3


@covers("chat-listed")
def test_unknown_user_gets_one_reply_per_hour_and_starts_nothing(
    bot: ChatBot, demo: Demo, clock: ManualClock
) -> None:
    eve = bot.user("eve")
    for command in ("/connect notes", "/connections", "/start mcp_something", "/disconnect notes"):
        assert eve.send_text(command)
    assert eve.visible_titles() == ["You may not use this bot yet"]
    assert "Your id here is eve." in eve.visible_text()
    assert eve.press_action("mcp:connect:", message_id="1")
    assert len(eve.visible_titles()) == 1
    # The bot does not claim other messages of unknown users.
    assert not eve.send_text("hello")
    clock.now += UNKNOWN_USER_REPLY_SECONDS
    eve.send_text("/connect notes")
    assert len(eve.visible_titles()) == 2
    assert bot.waiting_logins() == []
    assert demo.authorization_server.requests == []


@covers("chat-listed")
def test_removed_user_cannot_finish_login(start_bot: StartBot) -> None:
    bot = start_bot()
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    login = bot.login
    restarted_bot = start_bot(platform=bot.platform, policy=AllowList(users=frozenset({"bob"})))
    restarted_bot.user("ada").press("QR code")
    assert ada.room.calls.count("picture") == 0
    restarted_bot.user("ada").paste(approve(login.authorization_url))
    assert restarted_bot.service.blocking.keys() == []


@covers("chat-admins")
def test_only_administrators_change_shared_connections(start_bot: StartBot, demo: Demo) -> None:
    bot = start_bot(policy=SHARED)
    ada, bob = bot.user("ada"), bot.user("bob")
    ada.send_text("/connect notes")
    ada.paste(approve(bot.login.authorization_url))
    demo.authorization_server.requests.clear()
    for command in ("/connect notes", "/disconnect notes", "/disconnect notes yes"):
        bob.send_text(command)
        assert "Only an administrator of this bot may change them" in str(bob.room.cards()[-1])
    assert demo.authorization_server.requests == []
    bob.send_text("/connections")
    assert "notes: connected as ada@example.com" in bob.visible_text()
    assert bob.last_card.buttons == ()
    action = ada.find_button("Disconnect")[1].action.replace(":off:", ":yes:")
    bob.press_action(action, message_id=next(reversed(bob.room.messages)))
    assert bot.service.blocking.connection(bot.dispatcher._context.servers.find("notes")) is not None


@covers("chat-owners")
def test_per_user_tokens_are_visible_only_to_owner(start_bot: StartBot) -> None:
    bot = start_bot(policy=PER_USER)
    ada, bob = bot.user("ada"), bot.user("bob")
    ada.send_text("/connect notes")
    assert "1. Open the page and approve." in ada.visible_text()
    ada.paste(approve(bot.login.authorization_url))
    server = bot.dispatcher._context.servers.find("notes")
    assert bot.service.blocking.connection(server, "parlour:ada") is not None
    assert bot.service.blocking.connection(server) is None
    bob.send_text("/connections")
    assert "notes: not connected" in bob.visible_text()
    bob.send_text("/disconnect notes yes")
    assert bot.service.blocking.connection(server, "parlour:ada") is not None
    ada.send_text("/connections")
    assert "Only you use these connections." in ada.visible_text()
    ada.send_text("/disconnect notes yes")
    assert bot.service.blocking.connection(server, "parlour:ada") is None


@covers("chat-owners")
@pytest.mark.parametrize("owners", ["shared", "per_user"])
def test_only_starter_sees_waiting_login(start_bot: StartBot, owners: OwnershipMode) -> None:
    bot = start_bot(policy=AllowList(users=frozenset({"ada", "bob"}), owners=owners))
    ada, bob = bot.user("ada"), bot.user("bob")
    ada.send_text("/connect notes")
    for user, status in ((ada, "a login waits for you"), (bob, "not connected")):
        user.send_text("/connections")
        assert f"notes: {status}" in user.visible_text()


@covers("failed-starts-count")
def test_starts_that_fail_count_towards_the_limit(
    start_bot: StartBot, demo: Demo, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = start_bot()
    ada, discoveries = bot.user("ada"), list[str]()

    async def fail(server: Server, *_: object, **__: object) -> Login:
        discoveries.append(server.name)
        raise Unreachable("The server cannot be reached.")

    monkeypatch.setattr(bot.service, "start_login", fail)
    for _ in range(40):
        ada.send_text("/connect notes")
    assert len(discoveries) == MAX_STARTS_PER_HOUR
    assert ENGLISH.too_often in ada.visible_text()
    bot.user("bob").send_text("/connect notes")
    assert len(discoveries) == MAX_STARTS_PER_HOUR + 1
    clock.now += 3601
    ada.send_text("/connect notes")
    assert len(discoveries) == MAX_STARTS_PER_HOUR + 2


@covers("failed-starts-count")
def test_failed_and_successful_starts_count_together() -> None:
    logins = make_logins(MAX_STARTS_PER_HOUR - 2, status="done")
    assert refusal(logins, "parlour", ADA.user_id, NOW, [NOW - 1.0]) is None
    assert refusal(logins, "parlour", ADA.user_id, NOW, [NOW - 1.0, NOW - 2.0]) == "too_often"
    assert refusal(logins, "parlour", ADA.user_id, NOW, [NOW - 1.0, NOW - 3601.0]) is None
