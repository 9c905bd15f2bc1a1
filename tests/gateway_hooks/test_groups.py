"""In groups the bot shows no login, and an answer that a user posts there ends its login."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Origin
from tests.browserless import approve
from tests.demo.player import MovedClock
from tests.gateway_hooks.conftest import Begin
from tests.gateway_hooks.given import Person, Talk, without_secrets
from tests.gateway_hooks.test_login import compare
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow


@pytest.fixture
def ada_in_group(talk: Talk) -> Person:
    return talk.person("ada", group="kitchen")


@covers("chat-private")
@pytest.mark.parametrize("asked", ["/connect notes", "/connect", "/connections", "/disconnect notes"])
def test_what_is_asked_in_a_group_is_answered_in_private(
    talk: Talk, ada: Person, ada_in_group: Person, asked: str
) -> None:
    assert ada_in_group.says(asked)
    assert ada_in_group.sees() == ["I wrote to you privately."]
    assert len(ada.sees()) == 1


@covers("chat-private")
def test_a_login_from_a_group_goes_on_in_private_to_its_end(
    talk: Talk, ada: Person, ada_in_group: Person
) -> None:
    ada_in_group.says("/connect notes")
    assert talk.login.origin == ada.chat.origin
    ada.presses("QR code")
    ada.pastes(approve(talk.login.authorization_url))
    assert ada.sees() == ["notes: connected"]
    assert ada_in_group.sees() == ["I wrote to you privately."]


@covers("chat-private")
def test_where_the_bot_may_not_write_first_a_link_opens_the_private_chat_and_the_login_goes_on_there(
    talk: Talk, ada: Person, ada_in_group: Person
) -> None:
    ada.room.cannot_write = True
    ada_in_group.says("/connect notes")
    login = talk.login
    (card,) = ada_in_group.room.cards()
    assert card.paragraphs == ("I cannot write to you yet. Open our private chat and continue there.",)
    assert card.link is not None
    ada.room.cannot_write = False
    assert ada.says(f"/start {card.link.url.partition('start=')[2]}")
    assert ada.sees() == ["Connect notes"]
    # The bot also removes the first prompt when the login ends.
    assert ada.says(f"/start mcp_{login.id}")
    ada.pastes(approve(login.authorization_url))
    assert ada.sees() == ["notes: connected"]


@covers("chat-private")
def test_a_login_is_shown_in_private_also_where_its_id_is_named_in_a_group(
    talk: Talk, ada: Person, ada_in_group: Person
) -> None:
    ada.room.cannot_write = True
    ada_in_group.says("/connect notes")
    ada.room.cannot_write = False
    ada_in_group.says(f"/start mcp_{talk.login.id}")
    assert ada.sees() == ["Connect notes"]
    assert ada_in_group.sees() == ["Connect notes", "I wrote to you privately."]


def test_a_platform_without_such_links_gives_a_button_that_is_for_that_person_alone(
    talk: Talk, ada: Person, ada_in_group: Person
) -> None:
    talk.place.has_invitations = False
    ada.room.cannot_write = True
    ada_in_group.says("/connect notes")
    bob_in_group = talk.person("bob", group="kitchen")
    bob_in_group.presses("Continue")
    assert talk.person("bob").room.notes == ["That login belongs to another user."]
    assert talk.person("bob").sees() == []
    ada.room.cannot_write = False
    ada_in_group.presses("Continue")
    assert ada.sees() == ["Connect notes"]


def test_without_a_login_the_link_leads_to_the_list(talk: Talk, ada: Person, ada_in_group: Person) -> None:
    ada.room.cannot_write = True
    for asked in ("/connections", "/connect"):
        ada_in_group.says(asked)
        link = ada_in_group.last.link
        assert link is not None
        assert link.url.endswith("?start=mcp_")
    ada.room.cannot_write = False
    ada.says("/start mcp_")
    assert ada.sees() == ["Connections"]


@pytest.mark.parametrize("when", ["over", "unknown"])
def test_the_link_of_a_login_that_is_over_says_so(
    talk: Talk, ada: Person, ada_in_group: Person, when: str
) -> None:
    ada.room.cannot_write = True
    ada_in_group.says("/connect notes")
    login_id = talk.login.id if when == "over" else "another"
    talk.run(talk.service.cancel(talk.login.id))
    ada.room.cannot_write = False
    ada.says(f"/start mcp_{login_id}")
    assert ada.sees() == ["That login is over."]


@covers("chat-exposed")
def test_an_answer_in_a_group_is_deleted_ends_its_login_and_another_begins_in_private(
    talk: Talk, ada: Person, ada_in_group: Person
) -> None:
    ada.says("/connect notes")
    first = talk.login
    answer = approve(first.authorization_url)
    assert ada_in_group.pastes(answer)
    assert answer not in ada_in_group.reads()
    assert talk.service.login(first.id).status == "cancelled"
    second = talk.login
    compare(
        "chat_exposed",
        without_secrets(f"{ada_in_group.reads()}\n\n--------\n\n{ada.reads()}", first, second),
    )
    # The exposed answer no longer works.
    ada.pastes(answer)
    assert talk.login.id == second.id
    ada.pastes(approve(second.authorization_url))
    assert talk.service.login(second.id).status == "done"


@covers("chat-exposed")
def test_an_answer_in_a_group_where_nothing_may_be_deleted_is_told_so(
    talk: Talk, ada: Person, ada_in_group: Person
) -> None:
    ada_in_group.room.cannot_delete = True
    ada.says("/connect notes")
    first = talk.login
    ada_in_group.pastes(approve(first.authorization_url))
    assert "I may not delete messages here: please delete it yourself." in ada_in_group.reads()
    assert talk.service.login(first.id).status == "cancelled"


@covers("chat-exposed")
def test_an_exposed_login_ends_also_where_no_other_can_begin(
    talk: Talk, ada: Person, ada_in_group: Person, demo: Demo
) -> None:
    ada.says("/connect notes")
    first = talk.login
    answer = approve(first.authorization_url)
    demo.authorization_server.fail_next("protected_resource_metadata", status=503, times=None)
    ada_in_group.pastes(answer)
    assert talk.service.login(first.id).status == "cancelled"
    assert talk.waiting() == []


@covers("chat-exposed")
def test_somebody_elses_answer_in_a_group_is_deleted_and_ends_nobodys_login(talk: Talk, ada: Person) -> None:
    bob_in_group = talk.person("bob", group="kitchen")
    ada.says("/connect notes")
    answer = approve(talk.login.authorization_url)
    assert bob_in_group.pastes(answer)
    assert answer not in bob_in_group.reads()
    assert bob_in_group.sees() == ["Do not post codes in a group"]
    assert talk.login.status == "waiting"


@covers("chat-ours")
def test_addresses_in_a_group_where_nobody_logs_in_are_nobodys_business(
    talk: Talk, ada_in_group: Person
) -> None:
    assert not ada_in_group.says("see https://example.com/?code=1&state=2")
    assert len(ada_in_group.room.messages) == 1


def test_an_answer_exposed_where_the_bot_cannot_write_in_private_ends_its_login_all_the_same(
    talk: Talk, ada: Person, ada_in_group: Person
) -> None:
    ada.says("/connect notes")
    first = talk.login
    answer = approve(first.authorization_url)
    ada.room.cannot_write = True
    ada_in_group.pastes(answer)
    assert talk.service.login(first.id).status == "cancelled"
    assert talk.waiting() == []
    assert "Finish logins only in our private chat." in ada_in_group.reads()


def test_an_answer_in_a_group_to_a_login_begun_by_a_command_elsewhere(
    talk: Talk, ada: Person, ada_in_group: Person, tmp_path: Path, clock: MovedClock
) -> None:
    server = talk.desk._context.servers.find("notes")
    other = AuthService(tmp_path, clock=clock)
    first = talk.run(other.start_login(server, Origin("parlour", user_id="ada")))
    talk.settle()
    ada_in_group.pastes(approve(first.authorization_url))
    assert other.login(first.id).status == "cancelled"
    assert ada_in_group.sees() == ["Do not post codes in a group"]


@covers("chat-private")
def test_a_button_that_was_pressed_in_a_group_changes_no_message_of_the_private_chat(begin: Begin) -> None:
    talk = begin("notes", "mail")
    ada, ada_in_group = talk.person("ada"), talk.person("ada", group="kitchen")
    ada.says("/connections")
    (before,) = [message for message in ada.room.messages.values() if message.author == "bot"]
    shown = before.card
    ada_in_group.presses_again(ada.button("Connect mail")[1].action, on=before.id)
    assert before.card == shown
    assert ada.sees() == ["Connections", "Connect mail"]
