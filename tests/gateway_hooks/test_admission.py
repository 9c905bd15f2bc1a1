"""Admission from the chat: the first user by a pairing code of the terminal, others by an administrator."""

from __future__ import annotations

import itertools
import re
import stat
from pathlib import Path

import pytest

from gateway_hooks.dialog.platform import Capabilities, Sender
from gateway_hooks.dialog.policy import AllowList
from gateway_hooks.runtime.admission import CODE_SECONDS, MAX_WRONG_TRIES, Admission, make_code
from gateway_hooks.runtime.dispatcher import Dispatcher
from hermes_mcp_auth_remote.errors import StoreError
from hermes_mcp_auth_remote.store.files.record_files import PEOPLE_FILE_NAME as FILE_NAME
from hermes_mcp_auth_remote.store.files.record_files import PeopleFile
from tests.demo.manual_client import ManualClock
from tests.gateway_hooks.conftest import StartBot
from tests.gateway_hooks.fake_platform import ChatBot, FakePlatform, demo_servers
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow

NO_ONE = AllowList()
# The longest user id of Matrix.
LONG_ID = f"@{'a' * 100}:{'b' * 146}.example"
CODES = [f"BCDFGHJ{letter}" for letter in "BCDFGHJK"]


def make_admission(home: Path, clock: ManualClock, allow_list: AllowList = NO_ONE) -> Admission:
    codes = itertools.cycle(CODES)
    return Admission(allow_list, "parlour", PeopleFile(home), clock, new_code=lambda: next(codes))


def start(
    start_bot: StartBot, demo: Demo, admission: Admission, capabilities: Capabilities | None = None
) -> ChatBot:
    bot = start_bot(policy=admission, platform=FakePlatform(capabilities or Capabilities()))
    bot.dispatcher = Dispatcher(
        bot.service,
        bot.platform,
        demo_servers(demo),
        admission,
        clock=admission._clock,
    )
    return bot


@covers("admission")
@pytest.mark.parametrize("text", ["{code}", "/start pair_{code}", " {code}\n"])
def test_the_first_user_with_the_pairing_code_becomes_administrator(
    start_bot: StartBot, demo: Demo, tmp_path: Path, clock: ManualClock, text: str
) -> None:
    admission = make_admission(tmp_path, clock)
    bot = start(start_bot, demo, admission)
    code = admission.start_pairing()
    ada, bob = bot.user("ada"), bot.user("bob")
    ada.send_text(text.format(code=code))
    assert ada.visible_titles() == ["You are an administrator of this bot"]
    # The code works once.
    bob.send_text(code)
    assert bob.visible_titles() == ["You may not use this bot yet"]
    path = tmp_path / FILE_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert code not in path.read_text()
    # The list survives a restart; config.yaml is not written.
    assert make_admission(tmp_path, clock).may_change(Sender("ada"))
    assert not (tmp_path / "config.yaml").exists()
    ada.send_text("/connect notes")
    assert ada.last_card.title == "Connect notes"


@covers("admission")
def test_the_pairing_code_ends_after_ten_minutes_and_after_five_wrong_tries(
    tmp_path: Path, clock: ManualClock
) -> None:
    admission = make_admission(tmp_path, clock)
    code = admission.start_pairing()
    clock.now += CODE_SECONDS
    assert not admission.redeem(code, "ada")
    code = admission.start_pairing()
    for number in range(MAX_WRONG_TRIES):
        assert not admission.redeem(CODES[-1], f"user {number}")
    assert not admission.redeem(code, "ada")
    code = admission.start_pairing()
    # A text that does not look like a code does not count as a try.
    for _ in range(10):
        assert not admission.redeem("good morning", "ada")
    assert admission.redeem(code.lower(), "ada")


@covers("admission")
def test_an_administrator_admits_and_removes_a_stranger(
    start_bot: StartBot, demo: Demo, tmp_path: Path, clock: ManualClock
) -> None:
    admission = make_admission(tmp_path, clock, AllowList(users={"ada"}, admins={"ada"}))
    bot = start(start_bot, demo, admission)
    ada, bob = bot.user("ada"), bot.user("bob")
    bob.send_text("hello")
    (code,) = re.findall(r"/approve (\w{8}) ", bob.last_card.paragraphs[1])
    # A stranger can neither approve nor list.
    for text in (f"/approve {code}", "/people"):
        bob.send_text(text)
    assert not admission.may_talk(Sender("bob"))
    ada.send_text("/approve WRONGONE")
    assert ada.last_card.tone == "bad"
    ada.send_text(f"/approve {code.lower()}")
    assert ada.last_card.title == "bob may use this bot now"
    ada.send_text(f"/approve {code}")
    assert ada.last_card.tone == "bad"
    assert admission.may_talk(Sender("bob"))
    assert not admission.may_change(Sender("bob"))
    # The stranger has waited for this.
    assert bob.last_card.title == "You may use this bot now"
    assert bob.last_card.paragraphs == ("Send /connections to see what is connected.",)
    bob.send_text("/people")
    assert bob.last_card.title != "Admitted from this chat"
    ada.send_text("/people")
    ada.press("Remove bob")
    assert not admission.may_talk(Sender("bob"))
    assert PeopleFile(tmp_path).list_all() == []


@covers("admission", "platform-table")
@pytest.mark.parametrize("prefix", ["!", "!mcp ", "mcp "])
def test_the_commands_of_a_platform_with_another_prefix_work_as_they_are_shown(
    start_bot: StartBot, demo: Demo, tmp_path: Path, clock: ManualClock, prefix: str
) -> None:
    admission = make_admission(tmp_path, clock, AllowList({"ada"}, admins={"ada"}))
    capabilities = Capabilities(command_prefix=prefix, word_prefix=prefix)
    bot = start(start_bot, demo, admission, capabilities)
    ada, stranger = bot.user("ada"), bot.user(LONG_ID)
    stranger.send_text("hello")
    # The stranger sends the id to the operator, so it is complete.
    assert f"Your id here is {LONG_ID}." in stranger.visible_text()
    shown = re.search(f"{prefix}approve \\w{{{8}}}", stranger.visible_text())
    assert shown is not None
    ada.send_text(shown[0])
    assert ada.visible_titles() == [f"{LONG_ID} may use this bot now"]
    ada.send_text(f"{prefix}people")
    assert ada.last_card.rows[0].value == LONG_ID
    ada.press(f"Remove {LONG_ID}")
    assert not admission.people()
    ada.send_text(f"{prefix}help")
    assert ada.last_card.title == "I connect your agent to its MCP servers"


@covers("admission", "platform-table")
def test_without_buttons_an_administrator_types_whom_to_remove(
    start_bot: StartBot, demo: Demo, tmp_path: Path, clock: ManualClock
) -> None:
    admission = make_admission(tmp_path, clock, AllowList({"ada"}, admins={"ada"}))
    bot = start(start_bot, demo, admission, Capabilities(has_buttons=False))
    ada, stranger = bot.user("ada"), bot.user("@bob:example.org")
    admission.approve(admission.request_code("@bob:example.org"), "ada")
    ada.send_text("/people")
    assert "To remove one, type /remove and the id." in ada.visible_text()
    stranger.send_text("/remove @bob:example.org")
    assert admission.people()
    ada.send_text("/remove @bob:example.org")
    assert not admission.people()
    assert not ada.last_card.rows


@covers("admission")
def test_a_strangers_code_ends_and_is_never_shown_in_a_group(
    start_bot: StartBot, demo: Demo, tmp_path: Path, clock: ManualClock
) -> None:
    admission = make_admission(tmp_path, clock, AllowList(users={"ada"}))
    bot = start(start_bot, demo, admission)
    in_group = bot.user("bob", group="kitchen")
    in_group.send_text("/connect notes")
    assert "/approve" not in in_group.visible_text()
    code = admission.request_code("bob")
    clock.now += CODE_SECONDS
    assert admission.approve(code, "ada") is None


@covers("admission")
@pytest.mark.parametrize("mode", [0o644, 0o666])
def test_a_list_that_others_can_write_is_not_read(tmp_path: Path, clock: ManualClock, mode: int) -> None:
    admission = make_admission(tmp_path, clock)
    assert admission.redeem(admission.start_pairing(), "ada")
    (tmp_path / FILE_NAME).chmod(mode)
    with pytest.raises(Exception, match=FILE_NAME):
        make_admission(tmp_path, clock)


def test_users_of_another_platform_are_not_admitted(tmp_path: Path, clock: ManualClock) -> None:
    admission = make_admission(tmp_path, clock)
    admission.redeem(admission.start_pairing(), "42")
    other = Admission(AllowList(), "telegram", PeopleFile(tmp_path), clock)
    assert not other.may_talk(Sender("42"))
    assert other.has_no_users


def test_codes_are_random_and_easy_to_read() -> None:
    codes = {make_code() for _ in range(100)}
    assert len(codes) == 100
    assert all(len(code) == 8 and not set(code) & set("AEIOU015S") - {"S"} for code in codes)


@covers("admission")
def test_an_admission_holds_if_the_bot_cannot_tell_the_admitted_user(
    start_bot: StartBot, demo: Demo, tmp_path: Path, clock: ManualClock
) -> None:
    admission = make_admission(tmp_path, clock, AllowList(users={"ada"}, owners="per_user"))
    bot = start(start_bot, demo, admission)
    code = admission.request_code("carol")
    bot.user("ada").send_text(f"/approve {code}")
    assert bot.user("carol").last_card.paragraphs == ("Send /connect to connect a server.",)
    code = admission.request_code("bob")
    bot.user("bob").room.cannot_write = True
    bot.user("ada").send_text(f"/approve {code}")
    assert bot.user("ada").last_card.title == "bob may use this bot now"
    assert admission.may_talk(Sender("bob"))


@covers("admission")
def test_a_missing_home_is_created_for_the_first_administrator(tmp_path: Path, clock: ManualClock) -> None:
    home = tmp_path / "new" / "home"
    admission = make_admission(home, clock)
    assert admission.redeem(admission.start_pairing(), "ada")
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert make_admission(home, clock).is_admin(Sender("ada"))


@covers("admission")
def test_a_code_that_could_not_be_stored_stays_valid(tmp_path: Path, clock: ManualClock) -> None:
    admission = make_admission(tmp_path, clock)
    code = admission.start_pairing()
    lock = tmp_path / "mcp-auth-people.lock"
    lock.mkdir()
    with pytest.raises(StoreError):
        admission.redeem(code, "ada")
    lock.rmdir()
    assert admission.redeem(code, "ada")
