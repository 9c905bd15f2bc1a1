"""Split, doubled or damaged answers: the bot repairs them or asks the user again. No login fails."""

from __future__ import annotations

import asyncio

import pytest

from gateway_hooks.dialog.answer_text import is_full_message
from gateway_hooks.runtime import held_parts
from tests.consent_form import approve
from tests.gateway_hooks.fake_platform import ChatBot, ChatUser
from tests.requirements import covers

pytestmark = pytest.mark.slow


@covers("chat-answer-repaired")
def test_a_code_with_something_behind_it_is_not_sent_and_asked_for_again(bot: ChatBot, ada: ChatUser) -> None:
    ada.send_text("/connect notes")
    answer = with_code_last(approve(bot.login.authorization_url))
    ada.paste(f"{answer}~")
    assert "may be incomplete, or other text may follow its code" in str(ada.last_card)
    assert bot.login.status == "waiting"
    assert answer not in ada.visible_text()
    ada.paste(answer)
    assert ada.visible_titles() == ["notes: connected"]


@covers("chat-answer-repaired")
@pytest.mark.parametrize("template", ["{0}{0}", "1;2c{0}", "[200~{0}[201~", "x{0}"])
def test_terminal_leftovers_and_a_doubled_address_are_repaired(
    bot: ChatBot, ada: ChatUser, template: str
) -> None:
    ada.send_text("/connect notes")
    ada.paste(template.format(approve(bot.login.authorization_url)))
    assert ada.visible_titles() == ["notes: connected"]


@covers("chat-answer-repaired")
@pytest.mark.parametrize("cut_at", ["state=", "code="])
def test_an_address_in_two_messages_is_one_answer(
    bot: ChatBot, ada: ChatUser, cut_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_parts, "PART_WAIT_SECONDS", 30.0)
    ada.send_text("/connect notes")
    answer = approve(bot.login.authorization_url)
    middle = answer.index(cut_at) + len(cut_at) + 3
    parts = [answer[:middle], answer[middle:]]
    if cut_at == "code=":
        # A client splits a text at its limit, so the first part looks like a complete address with a short
        # code.
        filler = "x" * (4096 - len(with_code_last(answer)) + 4)
        long_answer = with_code_last(answer).replace("?", f"?session_state={filler}&")
        parts = [long_answer[:4096], long_answer[4096:]]
        assert is_full_message(parts[0])

    async def send_parts() -> None:
        first = asyncio.create_task(bot.dispatcher.handle(ada.message_event(parts[0]), ada.chat))
        await asyncio.sleep(0.05)
        assert bot.login.status == "waiting"
        assert await bot.dispatcher.handle(ada.message_event(parts[1]), ada.chat)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    bot.run(send_parts())
    bot.settle()
    assert ada.visible_titles() == ["notes: connected"]
    assert all(part not in ada.visible_text() for part in parts)


@covers("chat-answer-repaired")
def test_half_an_address_without_another_part_is_refused_after_a_second(
    bot: ChatBot, ada: ChatUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_parts, "PART_WAIT_SECONDS", 0.01)
    ada.send_text("/connect notes")
    answer = approve(bot.login.authorization_url)
    ada.paste(answer[: answer.index("state=")])
    assert bot.login.status == "waiting"
    assert ada.last_card.tone == "bad"
    ada.paste(answer)
    assert ada.visible_titles() == ["notes: connected"]


@covers("private-topics", "card-notifies")
def test_an_answer_in_another_topic_of_the_private_chat_completes_the_login(bot: ChatBot) -> None:
    ada, in_topic = bot.user("ada"), bot.user("ada", thread_id="7")
    ada.send_text("/connect notes")
    in_topic.paste(approve(bot.login.authorization_url))
    assert bot.waiting_logins() == []
    assert ada.visible_titles() == ["notes: connected"]


@covers("chat-replay")
def test_the_right_address_again_after_a_restart_is_already_connected(bot: ChatBot, ada: ChatUser) -> None:
    ada.send_text("/connect notes")
    answer = approve(bot.login.authorization_url)
    ada.paste(answer)
    ada.paste(answer)
    assert ada.visible_titles() == ["notes: connected", "notes: already connected"]
    assert answer not in ada.visible_text()
    ada.press("Disconnect")
    ada.press("Yes, disconnect")
    ada.paste(answer)
    assert ada.last_card.title == "None of your logins waits for this answer"


def with_code_last(answer: str) -> str:
    head, _, query = answer.partition("?")
    fields = sorted(query.split("&"), key=lambda field: field.startswith("code="))
    return f"{head}?{'&'.join(fields)}"
