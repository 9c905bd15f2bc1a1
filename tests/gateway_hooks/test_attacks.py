"""Attacks in chats: revoked rights, texts of other users, chats that other users read."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import discord
import pytest
from telegram import Update

from gateway_hooks.dialog.cards import Card, Link
from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.dialog.platform import Chat, IncomingEvent, Sender
from gateway_hooks.dialog.policy import AllowList
from gateway_hooks.discord.texts import collect_texts
from gateway_hooks.hermes import adapter as seats
from gateway_hooks.hermes import internals
from gateway_hooks.hermes.adapter import HermesAdapter
from gateway_hooks.hermes.internals import AdapterRef
from gateway_hooks.hermes.plain_text import render_markdown
from gateway_hooks.hermes.policy import HermesPolicy
from gateway_hooks.hermes.runtime import PLATFORMS_WITHOUT_USERS, redact_adapter_logs
from gateway_hooks.runtime import login_actions
from gateway_hooks.runtime.config_servers import ConfigServers
from gateway_hooks.telegram.render import render_card
from gateway_hooks.telegram.updates import parse_update
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Owner
from tests.browserless import approve
from tests.demo.player import MovedClock
from tests.gateway_hooks.conftest import Begin
from tests.parts.authorization_server import Behaviour, Demo
from tests.requirements import covers


@dataclass
class Changing:
    """A policy that the operator changes while the bot runs."""

    now: AllowList = field(
        default_factory=lambda: AllowList(users=frozenset({"bob"}), admins=frozenset({"ada"}))
    )

    def may_talk(self, sender: Sender) -> bool:
        return self.now.may_talk(sender)

    def may_change(self, sender: Sender) -> bool:
        return self.now.may_change(sender)

    def owner(self, platform: str, user_id: str) -> Owner:
        return self.now.owner(platform, user_id)

    def reminder_recipients(self) -> tuple[str, ...]:
        return self.now.reminder_recipients()


DEMOTED = AllowList(users=frozenset({"ada"}), admins=frozenset({"eve"}))
REMOVED = AllowList(users=frozenset({"bob"}))


@covers("chat-listed", "chat-admins")
@pytest.mark.parametrize("then", [DEMOTED, REMOVED], ids=["demoted", "removed"])
def test_who_loses_the_right_in_the_middle_of_a_login_does_not_finish_it(
    begin: Begin, then: AllowList
) -> None:
    policy = Changing()
    talk = begin(policy=policy)
    ada = talk.person("ada")
    ada.says("/connect notes")
    login = talk.login
    answer = approve(login.authorization_url)
    policy.now = then
    assert ada.pastes(answer), "the bot did not claim the answer"
    assert answer not in ada.reads()
    assert talk.service.login(login.id).status == "cancelled"
    assert talk.connected == []


@covers("chat-listed", "chat-admins")
@pytest.mark.parametrize("then", [DEMOTED, REMOVED], ids=["demoted", "removed"])
@pytest.mark.parametrize("label", ["QR code", "Cancel"])
def test_who_loses_the_right_gets_no_further_by_old_buttons(
    begin: Begin, then: AllowList, label: str
) -> None:
    policy = Changing()
    talk = begin(policy=policy)
    ada = talk.person("ada")
    ada.says("/connect notes")
    policy.now = then
    ada.presses(label)
    assert talk.waiting() == []
    assert not any(message.png for message in ada.room.messages.values())


@covers("chat-listed", "chat-admins")
def test_a_device_of_somebody_who_was_removed_connects_nothing(begin: Begin, demo: Demo) -> None:
    demo.authorization_server.behaviour = Behaviour(with_device=True, device_interval_seconds=1)
    policy = Changing()
    talk = begin(policy=policy)
    ada = talk.person("ada")
    ada.says("/connect notes")
    login = talk.login
    assert login.device_authorization is not None
    policy.now = REMOVED
    # A second bot on the same platform is a restart.
    again = begin(policy=policy, place=talk.place)
    again.until(lambda: again.service.login(login.id).is_over)
    assert again.service.login(login.id).status == "cancelled"
    again.until(lambda: ada.sees() == ["notes: not connected"])


@covers("chat-limits", "chat-tidy")
def test_who_cannot_be_written_to_is_not_tried_every_five_seconds(begin: Begin, clock: MovedClock) -> None:
    talk = begin()
    ada = talk.person("ada")
    ada.says("/connect notes")
    ada.room.messages.clear()
    ada.room.cannot_write = True
    ada.room.calls.clear()
    talk.run(talk.service.cancel(talk.login.id))
    for _ in range(5):
        clock.now += 10
        talk.settle()
    assert len(ada.room.calls) <= 2


@covers("chat-limits")
def test_a_button_pressed_without_end_asks_the_provider_so_often_only(
    begin: Begin, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_actions, "MAX_FLOW_CHANGES", 3)
    demo.authorization_server.behaviour = Behaviour(with_device=True, device_interval_seconds=1)
    talk = begin()
    ada = talk.person("ada")
    ada.says("/connect notes")
    before = demo.authorization_server.count_requests("device_authorization")
    for _ in range(6):
        ada.presses("New code")
    assert demo.authorization_server.count_requests("device_authorization") == before + 3
    assert ENGLISH.too_often in ada.room.notes
    ada.presses("Cancel")
    assert talk.waiting() == []


def seat(home: Path, platform: str, *, listens: bool = False) -> HermesAdapter:
    gateway: Any = SimpleNamespace(_is_user_authorized=lambda _: listens, config=None)
    attached = AdapterRef(SimpleNamespace(), SimpleNamespace(value=platform))
    return HermesAdapter(gateway, attached, AuthService(home), ConfigServers(home))


def place(chat: str, user: str = "U1") -> SimpleNamespace:
    return SimpleNamespace(user_id=user, chat_id=chat, chat_type="dm", thread_id=None)


@covers("chat-private")
@pytest.mark.parametrize("chat", ["G0123", "C0123"])
def test_slacks_direct_messages_of_several_people_are_not_private(tmp_path: Path, chat: str) -> None:
    slack = seat(tmp_path, "slack")
    slack.handle_event(SimpleNamespace(source=place(chat), text="hello", message_id="1"))
    assert not slack.chat_for(place(chat)).is_private
    assert slack.platform.private_chat("U1").origin.chat_id == ""
    assert slack.chat_for(place("D0123")).is_private


@covers("chat-private")
def test_a_topic_that_anybody_reads_has_no_logins() -> None:
    assert {"ntfy", "raft"} <= PLATFORMS_WITHOUT_USERS


@covers("chat-limits")
def test_strangers_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats, "MAX_PRIVATE_CHATS", 10)
    signal = seat(tmp_path, "signal")
    for number in range(50):
        signal.handle_event(
            SimpleNamespace(source=place(f"chat-{number}", f"{number}"), text="hello", message_id="")
        )
    assert len(signal._private_chat_ids) == 10
    assert signal.is_private_chat("chat-49", "49")


SAID = "a.example refused: no (tap /approve or tg://resolve?domain=x, [log in](https://b.example) <!here>)."


@covers("telegram-plain")
def test_a_servers_words_offer_no_command_and_no_address_on_telegram() -> None:
    drawn = render_card(Card("t", paragraphs=(SAID, "Begin with /connect.")))
    set_apart = [
        drawn.text.encode("utf-16-le")[2 * each.offset : 2 * (each.offset + each.length)].decode("utf-16-le")
        for each in drawn.entities
        if each.type == "code"
    ]
    for word in ("/approve", "tg://resolve", "https://b.example"):
        assert any(word in each for each in set_apart), word
    assert not any("/connect" in each for each in set_apart)


@covers("chat-harmless")
def test_a_servers_words_are_no_markup_in_plain_text() -> None:
    said = render_markdown(Card("t", paragraphs=(SAID,), link=Link("Open", "https://a.example/x_y_z?a=[1]")))
    assert "https://a.example/x_y_z?a=[1]" in said
    assert "](" not in said
    assert "<!here>" not in said
    assert "`tg://resolve?domain=x,`" in said


ADDRESS = "http://127.0.0.1:1/callback?code=a-code-that-was-minted&state=a-state"
BOT = {"id": 900, "is_bot": True, "first_name": "Bot"}
ANNA = {"id": 7, "is_bot": False, "first_name": "Anna"}
HERE = {"id": 7, "type": "private"}


@covers("telegram-agent-blind")
@pytest.mark.parametrize("said", [{"text": "is that right?"}, {}], ids=["text", "picture"])
@pytest.mark.parametrize(
    ("more", "beside"),
    [
        ({"reply_to_message": {"from": ANNA, "text": ADDRESS}}, ADDRESS),
        ({"reply_to_message": {"from": ANNA, "caption": ADDRESS, "photo": []}}, ADDRESS),
        ({"reply_to_message": {"from": BOT, "text": ADDRESS}}, ""),
        ({"quote": {"text": ADDRESS, "position": 0}}, ADDRESS),
    ],
    ids=["reply", "caption", "reply to the bot", "quote"],
)
def test_what_a_message_replies_to_or_quotes_is_heard_too(
    more: dict[str, Any], beside: str, said: dict[str, Any]
) -> None:
    if "reply_to_message" in more:
        more["reply_to_message"] |= {"message_id": 1, "date": 0, "chat": HERE}
    message = {"message_id": 2, "date": 0, "chat": HERE, "from": ANNA, **said, **more}
    update = Update.de_json({"update_id": 1, "message": message}, None)
    found = parse_update(update, "900", "a_bot")
    assert (None if found is None else found.event.quoted_text) == (beside if said or beside else None)


@covers("discord-posted")
def test_what_a_message_on_discord_replies_to_or_forwards_is_heard_too() -> None:
    written = MagicMock(spec=discord.Message, content=ADDRESS, message_snapshots=[], reference=None)
    written.author.bot = False
    reply = MagicMock(spec=discord.Message, content="right?", message_snapshots=[])
    reply.reference.resolved = written
    assert (collect_texts(reply, "900").text, collect_texts(reply, "900").quoted_text) == ("right?", ADDRESS)
    forward = MagicMock(spec=discord.Message, content="", message_snapshots=[written], reference=None)
    assert (collect_texts(forward, "900").text, collect_texts(forward, "900").quoted_text) == (ADDRESS, "")


@covers("chat-ours")
@pytest.mark.parametrize("text_", ["right?\nor not?", ""], ids=["lines", "voice"])
def test_a_reply_to_an_address_does_not_reach_the_model_of_hermes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text_: str
) -> None:
    slack = seat(tmp_path, "slack")
    event = SimpleNamespace(source=place("D1"), text=text_, message_id="1", reply_to_text=ADDRESS)
    heard: list[IncomingEvent] = []

    def take(one: IncomingEvent, _: Chat) -> bool:
        heard.append(one)
        return True

    monkeypatch.setattr(slack, "claim_event", take)
    assert slack.handle_event(event) is not None
    assert [each.quoted_text for each in heard] == [ADDRESS]


@covers("chat-exposed", "chat-listed")
def test_an_address_of_anothers_that_a_stranger_writes_in_a_group_goes_without_a_word(begin: Begin) -> None:
    talk = begin()
    talk.person("ada").says("/connect notes")
    answer = approve(talk.login.authorization_url)
    eve = talk.person("eve", group="kitchen")
    assert eve.says(f"look: {answer}")
    assert eve.reads() == ""
    # The bot also claims an answer that no login waits for.
    assert eve.says("http://127.0.0.1:1/callback?code=another&state=of-elsewhere")
    assert eve.reads() == ""
    assert not eve.says("https://another.example/callback?code=another&state=of-elsewhere")
    assert talk.login.status == "waiting"


@covers("chat-exposed")
def test_an_answer_that_comes_too_late_in_a_group_goes_too(begin: Begin, clock: MovedClock) -> None:
    talk = begin()
    talk.person("ada").says("/connect notes")
    answer = approve(talk.login.authorization_url)
    clock.now += 601
    talk.settle()
    in_the_kitchen = talk.person("ada", group="kitchen")
    assert in_the_kitchen.says(answer)
    assert answer not in in_the_kitchen.reads()


class Broken(Changing):
    def may_talk(self, sender: Sender) -> bool:
        raise RuntimeError(sender)


@covers("chat-ours")
def test_a_policy_that_fails_lets_nobody_in_and_no_code_through(begin: Begin) -> None:
    talk = begin(policy=Broken())
    ada = talk.person("ada")
    assert ada.pastes(ADDRESS)
    assert ADDRESS not in ada.reads()
    assert not ada.says("hello")
    assert not ada.says("/connect notes")
    assert talk.service.logins() == []


@covers("chat-ours")
def test_who_may_not_run_the_command_of_hermes_is_kept_from_sending_a_code_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HermesPolicy, "may_run", lambda *_: False)
    monkeypatch.setattr(internals, "make_source", lambda *_, **__: place("D1"))
    slack = seat(tmp_path, "slack", listens=True)
    heard = IncomingEvent(Sender("U1"), text=f"/mcpauth {ADDRESS}")
    assert slack._event_if_ours(heard, slack.chat_for(place("D1"))) is not None
    assert (
        slack._event_if_ours(IncomingEvent(Sender("U1"), text="/mcpauth list"), slack.chat_for(place("D1")))
        is None
    )


@covers("telegram-log", "discord-log")
def test_a_code_typed_after_a_command_of_hermes_is_in_no_line_of_its_adapters(
    caplog: pytest.LogCaptureFixture,
) -> None:
    adapter = type("Adapter", (), {"__module__": "an_adapter_of_hermes"})()
    redact_adapter_logs(adapter)
    redact_adapter_logs(adapter)
    logging.getLogger("an_adapter_of_hermes").warning(
        "slash '%s' invoked by user=%s", f"/mcpauth {ADDRESS}", "anna"
    )
    assert "a-code-that-was-minted" not in caplog.text
    assert "invoked by user=anna" in caplog.text
