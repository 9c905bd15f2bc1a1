"""Codes in files, links and edited messages, in a real Hermes gateway on Telegram and Discord."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.browserless import approve
from tests.hermes.stage import CALL_SECONDS, PLUGIN, SECONDS, Stage, parts_of
from tests.parts import bot_api, discord_api
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.parts.bot_api import Chat, Message, User
from tests.parts.discord_api import Channel, DiscordApi
from tests.parts.discord_api import Message as Written
from tests.parts.discord_api import User as Member
from tests.parts.hermes_gateway import gateway
from tests.parts.model import model
from tests.requirements import covers

pytestmark = [pytest.mark.hermes, pytest.mark.xdist_group("hermes-codes")]

LOOSE_CODE = "a-loose-code-for-nobody"
LOOSE = f"http://127.0.0.1:41999/callback?code={LOOSE_CODE}&state=the-state-of-no-login"
ELSEWHERE = "https://site.example/done?code=a-code-of-theirs&state=of-theirs"


@dataclass(slots=True)
class Both(Stage):
    """A scenario on Telegram, and Ada on Discord with the same gateway."""

    discord: DiscordApi = field(kw_only=True)
    ada: Member = field(kw_only=True)
    channel: Channel = field(kw_only=True)

    def told(self, text: str, channel: Channel) -> Written:
        """Wait for a message of the bot on Discord and return it."""

        def there() -> list[Written]:
            shown = self.discord.messages(channel, seen_by=self.ada)
            return [each for each in shown if text in each.text and each.author != self.ada]

        self.discord.wait(there, SECONDS)
        return there()[-1]

    def is_kept_out(self, secret: str) -> None:
        """Assert that neither the model nor a file in HERMES_HOME has the secret."""
        assert not self.model.saw(secret), "the model saw a code"
        assert self.hermes.search_everything(secret) == []

    def are_kept_out(self, address: str) -> None:
        for secret in parts_of(address):
            self.is_kept_out(secret)


def wait_until_deleted(stage: Both, written: Message, where: User | Chat) -> None:
    stage.api.wait(lambda: written.id in {each.id for each in stage.api.deleted(where)}, SECONDS)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    home = tmp_path_factory.mktemp("home")
    with (
        serve_demo(Behaviour(), paths=("/mcp", "/later")) as demo,
        bot_api.running(privacy_mode=False) as telegram,
        discord_api.running() as discord,
        model() as stand_in,
    ):
        anna, ben = telegram.user(42, "Anna"), telegram.user(43, "Ben")
        for person in (anna, ben):
            telegram.start(person)
        ada = discord.user("ada")
        guild = discord.guild("Home", [ada], channels=["general"])
        # Sent before the gateway runs: Hermes reads earlier messages of a channel that mentions it.
        for text in (f"My page is {LOOSE}", "That is what I saw."):
            discord.say(ada, guild.channel("general"), text)
        with gateway(
            home,
            telegram=telegram,
            discord=discord,
            model=stand_in,
            mcp_servers=servers(demo),
            plugins=[PLUGIN],
            allowed=[42, 43, ada.id],
            settings={"discord": {"auto_thread": False}},
        ) as hermes:
            discord.wait(lambda: discord.commands, SECONDS)
            yield Both(
                telegram,
                anna,
                ben,
                stand_in,
                hermes,
                demo,
                home,
                discord=discord,
                ada=ada,
                channel=guild.channel("general"),
            )


def servers(demo: Demo) -> dict[str, dict[str, object]]:
    urls = {"notes": demo.resources.origin + "/mcp", "later": demo.resources.origin + "/later"}
    return {name: {"url": url, "auth": "oauth", "timeout": CALL_SECONDS} for name, url in urls.items()}


@covers("hermes-kept-out")
def test_a_text_file_with_the_redirect_url_finishes_the_login_and_is_deleted_from_the_cache(
    stage: Both,
) -> None:
    address = stage.begin()
    sent = stage.api.send(stage.anna, text="from my browser", file=("answer.txt", f"\n{address}\n".encode()))
    stage.said("notes: connected")
    assert sent.id in {message.id for message in stage.api.deleted(stage.anna)}
    assert list((stage.home / "cache" / "documents").glob("*answer.txt")) == []
    stage.ask("Was that all?", until="Understood.")
    stage.are_kept_out(address)


@covers("hermes-kept-out")
def test_a_redirect_url_in_a_text_link_finishes_the_login(stage: Both) -> None:
    address = stage.begin(server="later")
    sent = stage.api.send(stage.anna, text="it ended here", links=[("here", address)])
    stage.said("later: connected")
    assert sent.id in {message.id for message in stage.api.deleted(stage.anna)}
    stage.are_kept_out(address)


@covers("hermes-kept-out", "chat-ours")
def test_a_redirect_url_reaches_no_model_even_if_no_login_waits(stage: Both) -> None:
    api, bot = stage.api, f"@{stage.api.bot.username}"
    group = api.group(-1001, "Team", [stage.anna, stage.ben], bot_can_delete=True)
    for text in (LOOSE, f"{LOOSE[:30]}\n{LOOSE[30:]}"):
        written = api.say(stage.ben, f"{bot} look: {text}", group)
        wait_until_deleted(stage, written, group)
        written = api.say(stage.ben, text)
        wait_until_deleted(stage, written, stage.ben)
    sent = api.send(stage.ben, file=("notes.md", f"# Notes\n{LOOSE}\n".encode()))
    wait_until_deleted(stage, sent, stage.ben)
    # A redirect URL of another site reaches the model.
    api.say(stage.ben, f"{bot} what is {ELSEWHERE}", group)
    api.wait(lambda: stage.model.saw("a-code-of-theirs"), SECONDS)
    stage.is_kept_out(LOOSE_CODE)


@covers("hermes-kept-out", "discord-posted")
def test_a_discord_message_that_is_edited_into_a_redirect_url_is_refused(stage: Both) -> None:
    direct = stage.discord.dm(stage.ada)
    stage.discord.say(stage.ada, direct, "/mcpauth notes")
    prompt = stage.told("Connect notes", direct)
    address = approve(str(next(each["url"] for each in prompt.buttons if "url" in each)))
    written = stage.discord.say(stage.ada, direct, "One moment.")
    stage.told("Understood.", direct)
    stage.discord.edit(stage.ada, written, address)
    stage.told("Do not send the address as a message", direct)
    stage.told("Connect notes", direct)
    stage.discord.say(stage.ada, direct, "/mcpauth cancel")
    stage.are_kept_out(address)


@covers("hermes-kept-out", "discord-posted")
def test_codes_in_a_discord_file_and_in_earlier_messages_reach_no_model(stage: Both) -> None:
    direct, bot = stage.discord.dm(stage.ada), f"<@{stage.discord.bot.id}>"
    stage.discord.say(stage.ada, direct, "look", files=[("notes.txt", LOOSE.encode())])
    stage.told("No login of yours waits for this answer", direct)
    stage.discord.say(stage.ada, stage.channel, f"{bot} What do you say?")
    stage.told("Understood.", stage.channel)
    assert stage.model.saw("That is what I saw.")
    stage.is_kept_out(LOOSE_CODE)
