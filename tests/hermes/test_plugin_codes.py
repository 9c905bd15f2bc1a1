"""Codes in files, links and edited messages, in Hermes's gateway on Telegram and Discord."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from gateway_hooks.dialog.messages import ENGLISH
from tests.consent_form import approve
from tests.hermes.scenario import CALL_SECONDS, LAYOUTS_WITH_SOAK, PLUGIN, SECONDS, Scenario, code_and_state
from tests.parts import bot_api, discord_api
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.parts.bot_api import Chat, Message, User
from tests.parts.discord_api import Channel, DiscordApi
from tests.parts.discord_api import Message as Written
from tests.parts.discord_api import User as Member
from tests.parts.fake_model import serve_fake_model
from tests.parts.hermes_gateway import run_gateway
from tests.requirements import covers

pytestmark = [pytest.mark.hermes, pytest.mark.xdist_group("hermes-codes")]

UNEXPECTED_CODE = "a-loose-code-for-nobody"
UNEXPECTED_REDIRECT = f"http://127.0.0.1:41999/callback?code={UNEXPECTED_CODE}&state=the-state-of-no-login"
OTHER_SITE_REDIRECT = "https://site.example/done?code=a-code-of-theirs&state=of-theirs"


@dataclass(slots=True)
class TwoPlatformScenario(Scenario):
    """A scenario on Telegram, and Ada on Discord with the same gateway."""

    discord: DiscordApi = field(kw_only=True)
    ada: Member = field(kw_only=True)
    channel: Channel = field(kw_only=True)

    def discord_messages(self, text: str, channel: Channel) -> list[Written]:
        """Return the bot's current messages on Discord that contain this text."""
        messages = self.discord.messages(channel, seen_by=self.ada)
        return [message for message in messages if text in message.text and message.author != self.ada]

    def wait_for_discord_message(self, text: str, channel: Channel) -> Written:
        """Wait for a message of the bot on Discord and return the latest."""
        self.discord.wait(lambda: self.discord_messages(text, channel), SECONDS)
        return self.discord_messages(text, channel)[-1]

    def assert_kept_out(self, secret: str) -> None:
        """Assert that neither the model nor a file in HERMES_HOME has the secret."""
        assert not self.model.has_received(secret), "the model saw a code"
        assert self.hermes.find_in_home(secret) == []

    def assert_address_kept_out(self, address: str) -> None:
        for secret in code_and_state(address):
            self.assert_kept_out(secret)


def wait_until_deleted(scenario: TwoPlatformScenario, message: Message, chat: User | Chat) -> None:
    scenario.api.wait(
        lambda: message.id in {deleted_message.id for deleted_message in scenario.api.deleted_messages(chat)},
        SECONDS,
    )


@pytest.fixture(scope="module", params=LAYOUTS_WITH_SOAK)
def scenario(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TwoPlatformScenario]:
    home = tmp_path_factory.mktemp("home")
    with (
        serve_demo(Behaviour(), paths=("/mcp", "/later")) as demo,
        bot_api.serve_bot_api(privacy_mode=False) as telegram,
        discord_api.serve_discord_api() as discord,
        serve_fake_model() as fake_model,
    ):
        anna, ben = telegram.add_user(42, "Anna"), telegram.add_user(43, "Ben")
        for person in (anna, ben):
            telegram.start(person)
        ada = discord.add_user("ada")
        guild = discord.add_guild("Home", [ada], channels=["general"])
        # Send these messages before the gateway runs. If a message in a channel mentions Hermes, Hermes reads
        # the channel's earlier messages.
        for text in (f"My page is {UNEXPECTED_REDIRECT}", "That is what I saw."):
            discord.say(ada, guild.channel("general"), text)
        with run_gateway(
            home,
            telegram=telegram,
            discord=discord,
            model=fake_model,
            mcp_servers=mcp_server_settings(demo),
            plugins=[PLUGIN],
            allowed=[42, 43, ada.id],
            settings={"discord": {"auto_thread": False}},
            layout=request.param,
        ) as hermes:
            discord.wait(lambda: discord.commands, SECONDS)
            yield TwoPlatformScenario(
                telegram,
                anna,
                ben,
                fake_model,
                hermes,
                demo,
                home,
                discord=discord,
                ada=ada,
                channel=guild.channel("general"),
            )


def mcp_server_settings(demo: Demo) -> dict[str, dict[str, object]]:
    urls = {"notes": demo.resources.origin + "/mcp", "later": demo.resources.origin + "/later"}
    return {name: {"url": url, "auth": "oauth", "timeout": CALL_SECONDS} for name, url in urls.items()}


@covers("hermes-kept-out")
def test_a_text_file_with_the_redirect_url_finishes_the_login_and_is_deleted_from_the_cache(
    scenario: TwoPlatformScenario,
) -> None:
    address = scenario.start_login()
    sent = scenario.api.send(
        scenario.anna, text="from my browser", file=("answer.txt", f"\n{address}\n".encode())
    )
    scenario.wait_for_message("notes: connected")
    assert sent.id in {message.id for message in scenario.api.deleted_messages(scenario.anna)}
    assert list((scenario.home / "cache" / "documents").glob("*answer.txt")) == []
    scenario.ask_agent("Was that all?", reply="Understood.")
    scenario.assert_address_kept_out(address)


@covers("hermes-kept-out")
def test_a_redirect_url_in_a_text_link_finishes_the_login(scenario: TwoPlatformScenario) -> None:
    address = scenario.start_login(server="later")
    sent = scenario.api.send(scenario.anna, text="it ended here", links=[("here", address)])
    scenario.wait_for_message("later: connected")
    assert sent.id in {message.id for message in scenario.api.deleted_messages(scenario.anna)}
    scenario.assert_address_kept_out(address)


@covers("hermes-kept-out", "chat-ours")
def test_a_redirect_url_reaches_no_model_even_if_no_login_waits(scenario: TwoPlatformScenario) -> None:
    api, bot = scenario.api, f"@{scenario.api.bot.username}"
    group = api.add_group(-1001, "Team", [scenario.anna, scenario.ben], bot_can_delete=True)
    for text in (UNEXPECTED_REDIRECT, f"{UNEXPECTED_REDIRECT[:30]}\n{UNEXPECTED_REDIRECT[30:]}"):
        message = api.say(scenario.ben, f"{bot} look: {text}", group)
        wait_until_deleted(scenario, message, group)
        message = api.say(scenario.ben, text)
        wait_until_deleted(scenario, message, scenario.ben)
    sent = api.send(scenario.ben, file=("notes.md", f"# Notes\n{UNEXPECTED_REDIRECT}\n".encode()))
    wait_until_deleted(scenario, sent, scenario.ben)
    # A redirect URL of another site reaches the model.
    api.say(scenario.ben, f"{bot} what is {OTHER_SITE_REDIRECT}", group)
    api.wait(lambda: scenario.model.has_received("a-code-of-theirs"), SECONDS)
    scenario.assert_kept_out(UNEXPECTED_CODE)


@covers("hermes-kept-out", "discord-posted")
def test_a_discord_message_that_is_edited_into_a_redirect_url_is_refused(
    scenario: TwoPlatformScenario,
) -> None:
    direct = scenario.discord.dm(scenario.ada)
    scenario.discord.say(scenario.ada, direct, "/mcpauth notes")
    prompt = scenario.wait_for_discord_message("Connect notes", direct)
    address = approve(str(next(button["url"] for button in prompt.buttons if "url" in button)))
    message = scenario.discord.say(scenario.ada, direct, "One moment.")
    scenario.wait_for_discord_message("Understood.", direct)
    scenario.discord.edit(scenario.ada, message, address)
    scenario.wait_for_discord_message("Do not send the address as a message", direct)
    new_prompt = scenario.wait_for_discord_message("Connect notes", direct)
    assert new_prompt.id != prompt.id
    scenario.discord.say(scenario.ada, direct, "/mcpauth cancel")
    # The first prompt shows that its login was cancelled, too.
    scenario.discord.wait(
        lambda: (
            new_prompt.id
            in {message.id for message in scenario.discord_messages(ENGLISH.login_cancelled, direct)}
        ),
        SECONDS,
    )
    scenario.assert_address_kept_out(address)


@covers("hermes-kept-out", "discord-posted")
def test_codes_in_a_discord_file_and_in_earlier_messages_reach_no_model(
    scenario: TwoPlatformScenario,
) -> None:
    direct, bot = scenario.discord.dm(scenario.ada), f"<@{scenario.discord.bot.id}>"
    scenario.discord.say(scenario.ada, direct, "look", files=[("notes.txt", UNEXPECTED_REDIRECT.encode())])
    scenario.wait_for_discord_message(ENGLISH.unmatched_answer_title, direct)
    scenario.discord.say(scenario.ada, scenario.channel, f"{bot} What do you say?")
    scenario.wait_for_discord_message("Understood.", scenario.channel)
    assert scenario.model.has_received("That is what I saw.")
    scenario.assert_kept_out(UNEXPECTED_CODE)
