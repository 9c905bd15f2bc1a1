"""What a prompt says, how many lines it has, and how the bot announces a success."""

from __future__ import annotations

import asyncio
import json
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import get_args

import httpx
import pytest

from gateway_hooks.dialog.cards import Row
from gateway_hooks.dialog.platform import Capabilities
from gateway_hooks.dialog.rendering import Renderer
from hermes_mcp_auth_remote.auth.httpx import McpAuth
from hermes_mcp_auth_remote.login import PromptReason
from hermes_mcp_auth_remote.values import CredentialKey, Origin
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.gateway_hooks.conftest import StartBot
from tests.gateway_hooks.fake_platform import ChatBot, ChatUser, plain_text, wait_until
from tests.gateway_hooks.login_factories import make_login, with_device_code
from tests.oauth.builders import NOW
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow

PHONE_COLUMNS, MAX_LINES = 40, 10


def count_phone_lines(text: str) -> int:
    """Count the lines, blank ones included, on a screen of 40 columns."""
    return sum(len(textwrap.wrap(line, PHONE_COLUMNS)) or 1 for line in text.splitlines())


@covers("card-reason")
@pytest.mark.parametrize("reason", get_args(PromptReason))
@pytest.mark.parametrize("owner", [None, "parlour:ada"])
@pytest.mark.parametrize("capabilities", [Capabilities(), Capabilities(has_forms=True, can_delete=False)])
def test_a_prompt_fits_on_a_phone(
    reason: PromptReason, owner: str | None, capabilities: Capabilities
) -> None:
    login = make_login(
        key=CredentialKey("linear", owner),
        server_url="https://mcp.linear.app/mcp",
        request=replace(make_login().request, scope=frozenset({"mcp:tools", "offline_access"})),
    )
    for shown in (login, with_device_code(login)):
        card = Renderer(capabilities).prompt_card(shown, NOW, reason=reason)
        text = plain_text(card, with_link=False)
        assert count_phone_lines(text) <= MAX_LINES, text
        for part in (
            "linear",
            "https://mcp.linear.app/mcp",
            "as.example",
            "mcp:tools",
            "08:10 UTC",
            card.intro,
        ):
            assert part in text
        assert [step[:2] for step in (*card.steps, *card.after_code)] == ["1.", "2.", "3."]
        assert ("all users" in card.steps[0]) is (owner is None)


@covers("card-reason")
def test_scopes_are_in_words_and_unknown_names_come_last() -> None:
    renderer = Renderer()
    assert renderer.scope_row("Access", frozenset({"offline_access"})) == Row("Access", "stay connected")
    assert renderer.scope_row("Access", frozenset({"b", "openid", "email", "a"})) == Row(
        "Access", "a b", is_quoted=True, lead="know who you are, see your email address, "
    )
    assert renderer.scope_row("Access", frozenset({"Offline_access"})).value == "Offline_access"


@covers("card-reason", "via")
def test_each_prompt_says_why_it_came(bot: ChatBot, ada: ChatUser, demo: Demo) -> None:
    ada.send_text("/connect notes")
    assert ada.last_card.intro == "You sent /connect. If not, cancel."
    ada.press("Cancel")
    ada.press("Try again")
    assert ada.last_card.intro == "You asked for this. If not, cancel."
    ada.press("Cancel")
    server = bot.dispatcher._context.servers.find("notes")
    bot.run(bot.service.start_login(server, Origin("parlour", user_id="ada")))
    bot.settle()
    assert ada.last_card.intro == "A command on the server asks you."


@covers("card-notifies")
def test_success_is_a_new_message_if_the_login_began_elsewhere(bot: ChatBot, ada: ChatUser) -> None:
    server = bot.dispatcher._context.servers.find("notes")
    login = bot.run(bot.service.start_login(server, Origin("parlour", user_id="ada")))
    bot.settle()
    (prompt_id,) = ada.room.messages
    ada.paste(approve(login.authorization_url))
    assert ada.visible_titles() == ["notes: connected"]
    assert prompt_id not in ada.room.messages


@covers("card-notifies")
@pytest.mark.parametrize("text", ["what is for lunch?", "/connections"])
def test_success_is_a_new_message_if_something_was_written_since(
    bot: ChatBot, ada: ChatUser, text: str
) -> None:
    ada.send_text("/connect notes")
    prompt_id = bot.login.message_ids[0]
    ada.send_text(text)
    ada.paste(approve(bot.login.authorization_url))
    assert ada.visible_titles()[-1] == "notes: connected"
    assert prompt_id not in ada.room.messages
    assert "Connect notes" not in ada.visible_titles()


@covers("card-notifies")
def test_success_edits_the_prompt_in_view(bot: ChatBot, ada: ChatUser) -> None:
    ada.send_text("/connect notes")
    prompt_id = bot.login.message_ids[0]
    ada.paste(approve(bot.login.authorization_url))
    assert ada.visible_titles() == ["notes: connected"]
    assert prompt_id in ada.room.messages


async def call_server(bot: ChatBot, user: ChatUser, demo: Demo, *, continues: bool = True) -> None:
    """Call the server as the agent of a user."""
    session = bot.dispatcher.session("notes", user.user_id)
    with bot.dispatcher.prompt_in(user.sender, user.chat, agent_continues=lambda: continues):
        async with httpx.AsyncClient(auth=McpAuth(session)) as client:
            assert (await client.get(demo.ping_url)).status_code == 200


@covers("card-reason", "chat-asks")
@pytest.mark.parametrize(
    ("continues", "intro"), [(True, "Your agent goes on now."), (False, "Ask your agent again.")]
)
def test_an_agents_prompt_says_whether_the_work_goes_on(
    bot: ChatBot, ada: ChatUser, demo: Demo, *, continues: bool, intro: str
) -> None:
    async def main() -> None:
        task = asyncio.create_task(call_server(bot, ada, demo, continues=continues))
        await wait_until(lambda: bool(bot.waiting_logins()) and bool(bot.login.message_ids))
        assert ada.last_card.intro == "Your agent needs it for your question."
        answer = await asyncio.to_thread(approve, bot.login.authorization_url)
        await bot.dispatcher.handle(ada.message_event(answer), ada.chat)
        await task
        await bot.settle_in_loop()

    bot.run(main())
    assert ada.last_card.intro == intro


@covers("chat-typo")
def test_a_mistyped_name_gets_the_similar_one_offered(start_bot: StartBot) -> None:
    bot = start_bot("demo", "mail")
    ada = bot.user("ada")
    ada.send_text("/connect dmo")
    assert ada.last_card.title == "There is no dmo"
    assert ada.last_card.paragraphs == ("Did you mean demo?",)
    assert [button.label for row in ada.last_card.buttons for button in row] == ["demo"]
    ada.press("demo")
    assert bot.login.key.server_name == "demo"


@covers("chat-not-echoed", "chat-typo")
def test_text_that_is_no_name_is_not_repeated(ada: ChatUser) -> None:
    ada.send_text("/connect 4-0AdQt8qhXhR2k9yZ")
    assert "0AdQt8q" not in str(ada.last_card)
    assert ada.last_card.title == "There is no such server"


@covers("chat-wrong-address")
def test_the_providers_own_address_gets_a_sentence(bot: ChatBot, ada: ChatUser) -> None:
    ada.send_text("/connect notes")
    login = bot.login
    for address in (
        login.authorization_url,
        login.request.authorization_endpoint.replace("authorize", "login"),
    ):
        assert ada.send_text(address)
        assert "That is an address at the provider" in str(ada.last_card)
    assert bot.login.paste_attempts == 0
    assert ada.send_text("https://elsewhere.example/page") is False
    ada.paste(approve(login.authorization_url))
    assert "notes: connected" in ada.visible_titles()


@covers("card-reason", "chat-survives")
def test_a_restarted_bot_repeats_why_the_card_came(start_bot: StartBot, clock: ManualClock) -> None:
    bot = start_bot()
    bot.user("ada").send_text("/connect notes")
    server = bot.dispatcher._context.servers.find("notes")
    bot.run(bot.service.start_login(server, Origin("parlour", user_id="bob")))
    bot.settle()
    bot = start_bot(platform=bot.platform)
    clock.now += 300
    bot.settle()
    assert bot.user("ada").last_card.intro == "You sent /connect. If not, cancel."
    assert bot.user("bob").last_card.intro == "A command on the server asks you."
    # The countdown shows that the card was edited after the restart.
    assert [(message.edits, message.author) for message in bot.user("bob").room.messages.values()] == [
        (1, "bot")
    ]


@covers("card-reason", "chat-survives")
def test_a_restarted_bot_says_that_the_agent_no_longer_waits(
    start_bot: StartBot, clock: ManualClock, demo: Demo
) -> None:
    bot = start_bot()
    ada = bot.user("ada")

    async def ask_and_end() -> None:
        task = asyncio.create_task(call_server(bot, ada, demo))
        # The call waits for the user. A call that ends before has shown no login.
        await wait_until(lambda: bool(bot.service._interactive_logins._outcome_tasks))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    bot.run(ask_and_end())
    bot = start_bot(platform=bot.platform)
    ada = bot.user("ada")
    clock.now += 300
    bot.settle()
    assert ada.last_card.intro == "Your agent needs it for your question."
    ada.paste(approve(bot.login.authorization_url))
    assert ada.last_card.title == "notes: connected"
    assert ada.last_card.intro == "Ask your agent again."


@covers("card-reason", "chat-survives")
@pytest.mark.parametrize("reason", [None, "a reason of a later version", 7])
def test_a_record_of_another_version_without_a_known_reason_is_shown_neutrally(
    start_bot: StartBot, clock: ManualClock, tmp_path: Path, reason: object
) -> None:
    bot = start_bot()
    bot.user("ada").send_text("/connect notes")
    (path,) = tmp_path.rglob(f"*{bot.login.id}*.json")
    document = json.loads(path.read_text("utf-8"))
    assert document.pop("reason") == "command"
    path.write_text(json.dumps(document if reason is None else {**document, "reason": reason}), "utf-8")
    bot = start_bot(platform=bot.platform)
    clock.now += 300
    bot.settle()
    assert bot.user("ada").last_card.intro == "Continue only if you expect this."
    bot.user("ada").press("Cancel")
    assert bot.user("ada").visible_titles() == ["notes: not connected"]
