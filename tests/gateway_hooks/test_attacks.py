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
from gateway_hooks.hermes import adapter as adapter_module
from gateway_hooks.hermes import internals
from gateway_hooks.hermes.adapter import HermesAdapter
from gateway_hooks.hermes.internals import AdapterRef
from gateway_hooks.hermes.login_cache import LoginCache
from gateway_hooks.hermes.plain_text import render_markdown
from gateway_hooks.hermes.policy import HermesPolicy
from gateway_hooks.hermes.runtime import PLATFORMS_WITHOUT_USERS, redact_adapter_logs
from gateway_hooks.runtime import login_actions
from gateway_hooks.runtime.config_servers import ConfigServers
from gateway_hooks.telegram.render import render_card
from gateway_hooks.telegram.updates import parse_update
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Owner
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.gateway_hooks.conftest import StartBot
from tests.parts.authorization_server import Behaviour, Demo
from tests.requirements import covers


@dataclass
class ChangingPolicy:
    """A policy that the operator changes while the bot runs."""

    current: AllowList = field(
        default_factory=lambda: AllowList(users=frozenset({"bob"}), admins=frozenset({"ada"}))
    )

    def may_talk(self, sender: Sender) -> bool:
        return self.current.may_talk(sender)

    def may_change(self, sender: Sender) -> bool:
        return self.current.may_change(sender)

    def owner(self, platform: str, user_id: str) -> Owner:
        return self.current.owner(platform, user_id)

    def reminder_recipients(self) -> tuple[str, ...]:
        return self.current.reminder_recipients()


DEMOTED = AllowList(users=frozenset({"ada"}), admins=frozenset({"eve"}))
REMOVED = AllowList(users=frozenset({"bob"}))


@covers("chat-listed", "chat-admins")
@pytest.mark.parametrize("new_policy", [DEMOTED, REMOVED], ids=["demoted", "removed"])
def test_user_who_loses_permission_cannot_finish_login(start_bot: StartBot, new_policy: AllowList) -> None:
    policy = ChangingPolicy()
    bot = start_bot(policy=policy)
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    login = bot.login
    answer = approve(login.authorization_url)
    policy.current = new_policy
    assert ada.paste(answer), "the bot did not claim the answer"
    assert answer not in ada.visible_text()
    assert bot.service.blocking.login(login.id).status == "cancelled"
    assert bot.completed_logins == []


@covers("chat-listed", "chat-admins")
@pytest.mark.parametrize("new_policy", [DEMOTED, REMOVED], ids=["demoted", "removed"])
@pytest.mark.parametrize("label", ["QR code", "Cancel"])
def test_user_who_loses_permission_cannot_use_old_buttons(
    start_bot: StartBot, new_policy: AllowList, label: str
) -> None:
    policy = ChangingPolicy()
    bot = start_bot(policy=policy)
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    policy.current = new_policy
    ada.press(label)
    assert bot.waiting_logins() == []
    assert not any(message.png for message in ada.room.messages.values())


@covers("chat-listed", "chat-admins")
def test_device_login_of_removed_user_is_cancelled(start_bot: StartBot, demo: Demo) -> None:
    demo.authorization_server.behaviour = Behaviour(with_device=True, device_interval_seconds=1)
    policy = ChangingPolicy()
    bot = start_bot(policy=policy)
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    login = bot.login
    assert login.device_authorization is not None
    policy.current = REMOVED
    # A second bot on the same platform stands for a restart.
    restarted_bot = start_bot(policy=policy, platform=bot.platform)
    restarted_bot.run_until(lambda: restarted_bot.service.blocking.login(login.id).is_over)
    assert restarted_bot.service.blocking.login(login.id).status == "cancelled"
    restarted_bot.run_until(lambda: ada.visible_titles() == ["notes: not connected"])


@covers("chat-limits", "chat-tidy")
def test_bot_does_not_retry_unreachable_user_every_five_seconds(
    start_bot: StartBot, clock: ManualClock
) -> None:
    bot = start_bot()
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    ada.room.messages.clear()
    ada.room.cannot_write = True
    ada.room.calls.clear()
    bot.run(bot.service.cancel(bot.login.id))
    for _ in range(5):
        clock.now += 10
        bot.settle()
    assert len(ada.room.calls) <= 2


@covers("chat-limits")
def test_repeated_presses_send_limited_number_of_device_requests(
    start_bot: StartBot, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_actions, "MAX_FLOW_CHANGES", 3)
    demo.authorization_server.behaviour = Behaviour(with_device=True, device_interval_seconds=1)
    bot = start_bot()
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    request_count = demo.authorization_server.count_requests("device_authorization")
    for _ in range(6):
        ada.press("New code")
    assert demo.authorization_server.count_requests("device_authorization") == request_count + 3
    assert ENGLISH.too_often in ada.room.toasts
    ada.press("Cancel")
    assert bot.waiting_logins() == []


def make_adapter(home: Path, platform: str, *, authorizes_users: bool = False) -> HermesAdapter:
    gateway: Any = SimpleNamespace(_is_user_authorized=lambda _: authorizes_users, config=None)
    adapter_ref = AdapterRef(SimpleNamespace(), SimpleNamespace(value=platform))
    return HermesAdapter(gateway, adapter_ref, LoginCache(AuthService(home), ConfigServers(home)))


def make_source(chat_id: str, user_id: str = "U1") -> SimpleNamespace:
    return SimpleNamespace(user_id=user_id, chat_id=chat_id, chat_type="dm", thread_id=None)


@covers("chat-private")
@pytest.mark.parametrize("chat", ["G0123", "C0123"])
def test_slack_group_direct_message_is_not_private(tmp_path: Path, chat: str) -> None:
    slack = make_adapter(tmp_path, "slack")
    slack.handle_event(SimpleNamespace(source=make_source(chat), text="hello", message_id="1"))
    assert not slack.chat_for(make_source(chat)).is_private
    assert slack.platform.private_chat("U1").origin.chat_id == ""
    assert slack.chat_for(make_source("D0123")).is_private


@covers("chat-private")
def test_public_topic_platforms_have_no_logins() -> None:
    assert {"ntfy", "raft"} <= PLATFORMS_WITHOUT_USERS


@covers("chat-limits")
def test_number_of_remembered_private_chats_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_module, "MAX_PRIVATE_CHATS", 10)
    signal = make_adapter(tmp_path, "signal")
    for number in range(50):
        signal.handle_event(
            SimpleNamespace(source=make_source(f"chat-{number}", f"{number}"), text="hello", message_id="")
        )
    assert len(signal._private_chat_ids) == 10
    assert signal.is_private_chat("chat-49", "49")


HOSTILE_ERROR = (
    "a.example refused: no (tap /approve or tg://resolve?domain=x, [log in](https://b.example) <!here>)."
)


@covers("telegram-plain")
def test_server_text_has_no_command_or_link_on_telegram() -> None:
    rendered = render_card(Card("t", paragraphs=(HOSTILE_ERROR, "Begin with /connect.")))
    code_texts = [
        rendered.text.encode("utf-16-le")[2 * entity.offset : 2 * (entity.offset + entity.length)].decode(
            "utf-16-le"
        )
        for entity in rendered.entities
        if entity.type == "code"
    ]
    for word in ("/approve", "tg://resolve", "https://b.example"):
        assert any(word in text for text in code_texts), word
    assert not any("/connect" in text for text in code_texts)


@covers("chat-harmless")
def test_server_text_has_no_markup_in_plain_text() -> None:
    rendered = render_markdown(
        Card("t", paragraphs=(HOSTILE_ERROR,), link=Link("Open", "https://a.example/x_y_z?a=[1]"))
    )
    assert "https://a.example/x_y_z?a=[1]" in rendered
    assert "](" not in rendered
    assert "<!here>" not in rendered
    assert "`tg://resolve?domain=x,`" in rendered


ANSWER_URL = "http://127.0.0.1:1/callback?code=a-code-that-was-minted&state=a-state"
BOT = {"id": 900, "is_bot": True, "first_name": "Bot"}
ANNA = {"id": 7, "is_bot": False, "first_name": "Anna"}
PRIVATE_CHAT = {"id": 7, "type": "private"}


@covers("telegram-agent-blind")
@pytest.mark.parametrize("content", [{"text": "is that right?"}, {}], ids=["text", "picture"])
@pytest.mark.parametrize(
    ("fields", "quoted_text"),
    [
        ({"reply_to_message": {"from": ANNA, "text": ANSWER_URL}}, ANSWER_URL),
        ({"reply_to_message": {"from": ANNA, "caption": ANSWER_URL, "photo": []}}, ANSWER_URL),
        ({"reply_to_message": {"from": BOT, "text": ANSWER_URL}}, ""),
        ({"quote": {"text": ANSWER_URL, "position": 0}}, ANSWER_URL),
    ],
    ids=["reply", "caption", "reply to the bot", "quote"],
)
def test_telegram_event_contains_text_of_reply_and_quote(
    fields: dict[str, Any], quoted_text: str, content: dict[str, Any]
) -> None:
    if "reply_to_message" in fields:
        fields["reply_to_message"] |= {"message_id": 1, "date": 0, "chat": PRIVATE_CHAT}
    message = {"message_id": 2, "date": 0, "chat": PRIVATE_CHAT, "from": ANNA, **content, **fields}
    update = Update.de_json({"update_id": 1, "message": message}, None)
    parsed_update = parse_update(update, "900", "a_bot")
    assert (None if parsed_update is None else parsed_update.event.quoted_text) == (
        quoted_text if content or quoted_text else None
    )


@covers("discord-posted")
def test_discord_texts_contain_reply_and_forward() -> None:
    original = MagicMock(spec=discord.Message, content=ANSWER_URL, message_snapshots=[], reference=None)
    original.author.bot = False
    reply = MagicMock(spec=discord.Message, content="right?", message_snapshots=[])
    reply.reference.resolved = original
    assert (collect_texts(reply, "900").text, collect_texts(reply, "900").quoted_text) == (
        "right?",
        ANSWER_URL,
    )
    forward = MagicMock(spec=discord.Message, content="", message_snapshots=[original], reference=None)
    assert (collect_texts(forward, "900").text, collect_texts(forward, "900").quoted_text) == (ANSWER_URL, "")


@covers("chat-ours")
@pytest.mark.parametrize("text", ["right?\nor not?", ""], ids=["lines", "voice"])
def test_hermes_adapter_claims_reply_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    slack = make_adapter(tmp_path, "slack")
    event = SimpleNamespace(source=make_source("D1"), text=text, message_id="1", reply_to_text=ANSWER_URL)
    events: list[IncomingEvent] = []

    def claim_event(incoming_event: IncomingEvent, _: Chat) -> bool:
        events.append(incoming_event)
        return True

    monkeypatch.setattr(slack, "claim_event", claim_event)
    assert slack.handle_event(event) is not None
    assert [claimed_event.quoted_text for claimed_event in events] == [ANSWER_URL]


@covers("chat-exposed", "chat-listed")
def test_bot_deletes_answer_of_unknown_user_in_group_without_reply(start_bot: StartBot) -> None:
    bot = start_bot()
    bot.user("ada").send_text("/connect notes")
    answer = approve(bot.login.authorization_url)
    eve = bot.user("eve", group="kitchen")
    assert eve.send_text(f"look: {answer}")
    assert eve.visible_text() == ""
    # The bot also claims an answer for which no login waits.
    assert eve.send_text("http://127.0.0.1:1/callback?code=another&state=of-elsewhere")
    assert eve.visible_text() == ""
    assert not eve.send_text("https://another.example/callback?code=another&state=of-elsewhere")
    assert bot.login.status == "waiting"


@covers("chat-exposed")
def test_bot_deletes_late_answer_in_group(start_bot: StartBot, clock: ManualClock) -> None:
    bot = start_bot()
    bot.user("ada").send_text("/connect notes")
    answer = approve(bot.login.authorization_url)
    clock.now += 601
    bot.settle()
    ada_in_group = bot.user("ada", group="kitchen")
    assert ada_in_group.send_text(answer)
    assert answer not in ada_in_group.visible_text()


class FailingPolicy(ChangingPolicy):
    def may_talk(self, sender: Sender) -> bool:
        raise RuntimeError(sender)


@covers("chat-ours")
def test_failing_policy_admits_no_user_and_passes_on_no_code(start_bot: StartBot) -> None:
    bot = start_bot(policy=FailingPolicy())
    ada = bot.user("ada")
    assert ada.paste(ANSWER_URL)
    assert ANSWER_URL not in ada.visible_text()
    assert not ada.send_text("hello")
    assert not ada.send_text("/connect notes")
    assert bot.service.blocking.logins() == []


@covers("chat-ours")
def test_hermes_command_with_code_is_claimed_without_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HermesPolicy, "may_run", lambda *_: False)
    monkeypatch.setattr(internals, "make_source", lambda *_, **__: make_source("D1"))
    slack = make_adapter(tmp_path, "slack", authorizes_users=True)
    event = IncomingEvent(Sender("U1"), text=f"/mcpauth {ANSWER_URL}")
    assert slack._judge(event, slack.chat_for(make_source("D1"))) is not None
    assert (
        slack._judge(IncomingEvent(Sender("U1"), text="/mcpauth list"), slack.chat_for(make_source("D1")))
        is None
    )


@covers("telegram-log", "discord-log")
def test_adapter_logs_do_not_contain_code_after_command(
    caplog: pytest.LogCaptureFixture,
) -> None:
    adapter = type("Adapter", (), {"__module__": "an_adapter_of_hermes"})()
    redact_adapter_logs(adapter)
    redact_adapter_logs(adapter)
    logging.getLogger("an_adapter_of_hermes").warning(
        "slash '%s' invoked by user=%s", f"/mcpauth {ANSWER_URL}", "anna"
    )
    assert "a-code-that-was-minted" not in caplog.text
    assert "invoked by user=anna" in caplog.text
