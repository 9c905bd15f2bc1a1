"""A login in a chat from the command to the connection, as users see it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway_hooks.dialog.platform import Capabilities
from hermes_mcp_auth_remote.login import MAX_PASTE_ATTEMPTS
from tests.browserless import approve, deny
from tests.demo.player import MovedClock
from tests.gateway_hooks.conftest import Begin
from tests.gateway_hooks.given import Person, Place, Talk, without_secrets
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow

TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"


def compare(name: str, text: str) -> None:
    """Compare a chat with its stored transcript. `NEW_TRANSCRIPTS=1` rewrites the file."""
    file = TRANSCRIPTS / f"{name}.txt"
    if os.environ.get("NEW_TRANSCRIPTS"):
        file.write_text(f"{text}\n", "utf-8")
    assert f"{text}\n" == file.read_text("utf-8")


@covers("chat-prompt", "chat-answer-deleted")
def test_a_login_by_pasting(talk: Talk, ada: Person) -> None:
    seen = []
    assert ada.says("/connect notes")
    login = talk.login
    seen.append(without_secrets(ada.reads(), login))
    assert ada.presses("QR code")
    seen.append(without_secrets(ada.reads(), login))
    assert ada.pastes("http://127.0.0.1:1/callback?code=an-older-one-entirely&state=of-another-login")
    seen.append(without_secrets(ada.reads(), login))
    answer = approve(login.authorization_url)
    assert ada.pastes(answer)
    seen.append(without_secrets(ada.reads(), login))
    compare("chat_paste", "\n\n--------\n\n".join(seen))
    assert answer in [message.text for message in ada.room.deleted]
    assert talk.waiting() == []
    ((over, connection),) = talk.connected
    assert (over.id, connection.account) == (login.id, "ada@example.com")


@covers("chat-prompt")
def test_a_prompt_names_server_host_scope_end_and_begin_and_who_should_go_on(talk: Talk, ada: Person) -> None:
    ada.says("/connect notes")
    text, login, words = ada.reads(), talk.login, talk.desk._context.messages
    for said in (
        login.server_url,
        login.authorization_host,
        "mcp:tools",
        "08:10 UTC (10 minutes)",
        words.continue_warning,
        words.paste_warning.format(clock="08:00"),
        words.token_owner_everyone,
    ):
        assert said in text, said
    assert ada.last.link is not None
    assert ada.last.link.url == login.authorization_url


def test_a_login_that_is_denied_says_so_and_offers_another(ada: Person, talk: Talk) -> None:
    ada.says("/connect notes")
    ada.pastes(deny(talk.login.authorization_url))
    assert ada.sees() == ["notes: not connected"]
    assert "Access was denied" in ada.reads()
    ada.presses("Try again")
    assert ada.sees() == ["Connect notes"]
    assert talk.login.message_ids == (next(reversed(ada.room.messages)),)


def test_a_login_that_is_cancelled(ada: Person, talk: Talk) -> None:
    ada.says("/connect notes")
    ada.presses("QR code")
    ada.presses("Cancel")
    assert ada.sees() == ["notes: not connected"]
    assert "Cancelled. Nothing was changed." in ada.reads()
    assert [bool(message.png) for message in ada.room.deleted] == [True]


def test_a_login_that_expires_says_so_by_itself_and_leaves_no_link(
    ada: Person, talk: Talk, clock: MovedClock
) -> None:
    ada.says("/connect notes")
    ada.presses("QR code")
    clock.now += 600
    talk.settle()
    assert ada.sees() == ["notes: not connected"]
    assert "not finished in time" in ada.reads()
    assert all(card.link is None for card in ada.room.cards())


@covers("chat-answer-deleted")
def test_an_answer_that_cannot_be_deleted_is_used_and_the_person_is_told_to_delete_it(
    begin: Begin,
) -> None:
    talk = begin()
    ada = talk.person("ada")
    ada.room.cannot_delete = True
    ada.says("/connect notes")
    answer = approve(talk.login.authorization_url)
    ada.pastes(answer)
    assert ada.sees() == ["notes: connected", "Connections"]
    assert "please delete it yourself" in ada.reads()


@covers("chat-answer-deleted")
def test_an_answer_is_deleted_before_it_is_used(ada: Person, talk: Talk, demo: Demo) -> None:
    ada.says("/connect notes")
    answer = approve(talk.login.authorization_url)
    demo.authorization_server.fail_next("token", status=503)
    ada.pastes(answer)
    assert answer not in ada.reads()
    assert ada.room.calls.index("delete") < ada.room.calls.index("edit")


@covers("chat-not-echoed", "paste-limit")
def test_refusals_repeat_nothing_of_the_paste_and_the_fifth_ends_the_login(ada: Person, talk: Talk) -> None:
    ada.says("/connect notes")
    login = talk.login
    wrong = f"{login.request.redirect_uri}?code=not-the-right-code-1234&state=not-the-right-state"
    for number in range(MAX_PASTE_ATTEMPTS):
        assert talk.service.login(login.id).paste_attempts == number
        assert ada.pastes(wrong)
        bot_said = "\n".join(str(each) for each in ada.room.messages.values() if each.author == "bot")
        assert "not-the-right" not in bot_said
        assert wrong not in ada.reads()
    assert talk.service.login(login.id).status == "failed"
    # The bot deletes the refusals when the login ends.
    assert ada.sees() == ["notes: not connected"]
    assert "Too many wrong answers" in ada.reads()


@covers("chat-replay")
def test_an_answer_that_was_used_is_refused_deleted_and_does_not_go_on_to_anybody(
    ada: Person, talk: Talk, demo: Demo
) -> None:
    ada.says("/connect notes")
    answer = approve(talk.login.authorization_url)
    ada.pastes(answer)
    assert ada.pastes(answer)
    assert answer not in ada.reads()
    assert ada.sees() == ["notes: connected", "No login of yours waits for this answer"]
    assert "/connect" in ada.reads()
    assert demo.authorization_server.count_requests("token") == 1


@covers("sender-binding")
def test_the_answer_of_another_is_refused_and_the_login_waits_on(ada: Person, talk: Talk) -> None:
    bob = talk.person("bob")
    ada.says("/connect notes")
    answer = approve(talk.login.authorization_url)
    assert bob.pastes(answer)
    assert bob.sees() == ["No login of yours waits for this answer"]
    assert answer not in bob.reads()
    assert ada.pastes(answer)
    assert ada.sees() == ["notes: connected"]


@covers("sender-binding")
@pytest.mark.parametrize("label", ["QR code", "Cancel"])
def test_the_button_of_anothers_login_does_nothing(ada: Person, talk: Talk, label: str) -> None:
    bob = talk.person("bob")
    ada.says("/connect notes")
    _, button = ada.button(label)
    bob.says("/connections")
    assert bob.presses_again(button.action, on="1")
    assert bob.room.notes == ["That login is over."]
    assert [talk.login.status, len(bob.room.cards())] == ["waiting", 1]


@covers("bare-code")
def test_a_code_alone_counts_where_the_provider_does_not_say_who_it_is_and_only_one_login_waits(
    begin: Begin, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(iss_supported=False)
    talk = begin("notes", "mail")
    ada = talk.person("ada")
    ada.says("/connect notes")
    notes = talk.login
    code = approve(notes.authorization_url).partition("code=")[2].partition("&")[0]
    ada.says("/connect mail")
    assert ada.pastes(code)
    assert "A code alone does not say which login it belongs to." in ada.reads()
    assert code not in ada.reads()
    talk.run(talk.service.cancel(next(each.id for each in talk.waiting() if each.id != notes.id)))
    assert ada.pastes(code)
    assert talk.service.login(notes.id).status == "done"


def test_with_forms_the_answer_comes_in_a_form_and_one_that_was_written_is_exposed(begin: Begin) -> None:
    talk = begin(place=Place(Capabilities(has_forms=True, can_delete=False)))
    ada = talk.person("ada")
    ada.room.cannot_delete = True
    ada.says("/connect notes")
    first = talk.login
    assert ada.button("Paste the address")[1].opens_form
    assert ada.pastes(approve(first.authorization_url))
    assert talk.service.login(first.id).status == "cancelled"
    assert ada.last.title == "Do not send the address as a message"
    assert "please delete it yourself" in ada.reads()
    second = talk.login
    ada.presses("Paste the address", approve(second.authorization_url))
    assert talk.service.login(second.id).status == "done"


def test_a_login_of_the_same_server_takes_the_place_of_the_one_that_waits(ada: Person, talk: Talk) -> None:
    ada.says("/connect notes")
    first = talk.login
    ada.says("/connect notes")
    assert talk.service.login(first.id).status == "cancelled"
    assert talk.login.id != first.id
    assert ada.sees() == ["notes: not connected", "Connect notes"]


def test_a_login_that_cannot_begin_leaves_the_one_that_waits(ada: Person, talk: Talk, demo: Demo) -> None:
    ada.says("/connect notes")
    first = talk.login
    demo.authorization_server.fail_next("protected_resource_metadata", status=503, times=None)
    ada.says("/connect notes")
    assert ada.last.title == "notes: not connected"
    assert talk.login.id == first.id


def test_which_server_is_asked_where_none_is_named_or_none_is_known_by_that_name(begin: Begin) -> None:
    talk = begin("notes", "mail")
    ada = talk.person("ada")
    for text in ("/connect", "/connect nobody-knows"):
        ada.says(text)
        assert ada.last.title == "Connect which server?"
    ada.presses("mail")
    assert ada.last.title == "Connect mail"
    assert talk.login.key.server_name == "mail"
    # The prompt replaces the question.
    assert len(ada.room.cards()) == 2


def test_a_name_counts_in_any_case(ada: Person, talk: Talk) -> None:
    ada.says("/connect NOTES")
    assert talk.login.key.server_name == "notes"


def test_nobody_elses_words_are_taken(ada: Person, talk: Talk) -> None:
    for text in (
        "hello",
        "/weather",
        "/cancel",
        "/new",
        "/start",
        "/start something-else",
        "what does http://127.0.0.1:8765/callback mean?",
        "0123456789abcdef0123456789abcdef",
    ):
        assert not ada.says(text), text
    assert not ada.presses_again("other:button", on="1")
    ada.says("/connect notes")
    assert not ada.says("what else is there?")
    assert ada.sees() == ["Connect notes"]


def test_without_buttons_the_same_can_be_typed(begin: Begin) -> None:
    talk = begin(place=Place(Capabilities(has_buttons=False, command_prefix="/mcpauth ")))
    ada = talk.person("ada")
    ada.says("/connect notes")
    assert "To answer, type: /mcpauth qr, /mcpauth cancel." in ada.reads()
    assert ada.last.buttons == ()
    ada.says("/qr")
    assert [bool(message.png) for message in ada.room.messages.values()][-1]
    ada.says("/cancel")
    assert "Cancelled" in ada.reads()
