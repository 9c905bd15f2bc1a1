"""The local Discord with the real discord.py."""

from __future__ import annotations

import asyncio
import io
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

import discord
import pytest
from discord import app_commands, ui
from discord.ext import commands

from tests.parts.discord_api import Channel, DiscordApi, Guild, User, running
from tests.parts.discord_api.bot import running_bot

pytestmark = pytest.mark.slow

PIXEL = b"\x89PNG not really"


class Paste(ui.Modal, title="Paste"):
    address: ui.TextInput[Paste] = ui.TextInput(
        label="Where you were sent", placeholder="http://", max_length=4000
    )
    note: ui.Label[Paste] = ui.Label(text="A note", component=ui.TextInput(required=False))

    async def on_submit(self, interaction: discord.Interaction) -> None:
        await interaction.response.edit_message(content=f"got {len(self.address.value)}", view=None)


class Carried(ui.DynamicItem[ui.Button[Any]], template=r"carried:(?P<login>\w+)"):
    def __init__(self, login: str) -> None:
        super().__init__(ui.Button(label="Carried", custom_id=f"carried:{login}"))
        self.login = login

    @classmethod
    async def from_custom_id(cls, _: discord.Interaction, __: ui.Item[Any], match: re.Match[str], /) -> Self:
        return cls(match["login"])

    async def callback(self, interaction: discord.Interaction) -> None:
        await interaction.response.send_message(f"carried {self.login}", ephemeral=True)


class Prompt(ui.View):
    def __init__(self) -> None:
        super().__init__(timeout=None)
        self.add_item(ui.Button(label="Open", url="https://as.example/authorize"))

    @ui.button(label="Paste", custom_id="paste:1")
    async def paste(self, interaction: discord.Interaction, _: ui.Button[Prompt]) -> None:
        await interaction.response.send_modal(Paste())

    @ui.button(label="Show QR", custom_id="qr:1")
    async def picture(self, interaction: discord.Interaction, _: ui.Button[Prompt]) -> None:
        embed = discord.Embed(title="Scan").set_image(url="attachment://qr.png")
        await interaction.response.send_message(
            embed=embed, file=discord.File(io.BytesIO(PIXEL), "qr.png"), ephemeral=True
        )

    @ui.button(label="Write to me", custom_id="dm:1")
    async def write(self, interaction: discord.Interaction, _: ui.Button[Prompt]) -> None:
        await interaction.response.defer()
        try:
            sent = await interaction.user.send("hello", view=ui.View().add_item(Carried("abc")))
            await sent.edit(content="hello again")
            said = "sent"
        except discord.Forbidden as error:
            said = f"not sent: {error.code}"
        await interaction.edit_original_response(content=said)


class Cog(commands.Cog):
    @app_commands.command(description="Connect a server")
    @app_commands.describe(server="Which one")
    async def connect(self, interaction: discord.Interaction, server: str) -> None:
        await interaction.response.defer(ephemeral=True)
        embed = discord.Embed(title=f"Connect {server}", description="Open the page.")
        await interaction.edit_original_response(embed=embed, view=Prompt())

    @connect.autocomplete("server")
    async def _servers(self, _: discord.Interaction, current: str) -> list[app_commands.Choice[str]]:
        names = ("notes", "nodes", "tickets")
        return [app_commands.Choice(name=name, value=name) for name in names if name.startswith(current)]

    @app_commands.command(description="Say who asks")
    async def who(self, interaction: discord.Interaction, other: discord.Member | None = None) -> None:
        member = interaction.user
        roles = [role.name for role in member.roles] if isinstance(member, discord.Member) else []
        await interaction.response.send_message(f"{member.id} {roles} {other and other.id}")
        await interaction.followup.send("and more", ephemeral=True)

    @commands.Cog.listener()
    async def on_message(self, message: discord.Message) -> None:
        if message.author.bot:
            return
        try:
            await message.delete()
        except discord.HTTPException as error:
            await message.channel.send(f"not deleted: {error.code}")


class Bot(commands.Bot):
    def __init__(self, **intents: bool) -> None:
        wanted = discord.Intents(guilds=True, guild_messages=True, dm_messages=True, **intents)
        super().__init__(commands.when_mentioned, intents=wanted, guild_ready_timeout=0.05)
        self.resumed = 0

    async def setup_hook(self) -> None:
        await self.add_cog(Cog())
        self.add_view(Prompt())
        self.add_dynamic_items(Carried)
        await self.tree.sync()

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """Do not wait. The default implementation waits five seconds before it identifies again."""

    async def on_resumed(self) -> None:
        self.resumed += 1


class Home:
    def __init__(self, api: DiscordApi) -> None:
        self.api = api
        self.ada: User = api.user("ada")
        self.bob: User = api.user("bob", dms_open=False)
        self.guild: Guild = api.guild("Home", [self.ada, self.bob], roles={"admins": [self.ada]})
        self.general: Channel = self.guild.channel("general")

    def prompt(self, user: User | None = None) -> Any:
        return self.api.answer(self.api.slash(user or self.ada, self.general, "connect", server="notes"))


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    # discord.py waits up to two seconds before it retries a refused connection.
    monkeypatch.setattr("discord.backoff.ExponentialBackoff.delay", lambda _: 0.01)
    with running() as api:
        yield Home(api)


def test_a_login_by_command_button_and_window(home: Home) -> None:
    api = home.api
    with running_bot(api, Bot):
        assert api.autocomplete(home.ada, home.general, "connect", "server", "no") == ["notes", "nodes"]
        prompt = home.prompt()
        assert prompt.ephemeral
        assert prompt.labels == ["Paste", "Show QR", "Write to me", "Open"]
        assert api.messages(home.general, seen_by=home.bob) == []
        window = api.modal(api.press(home.ada, prompt, "Paste"))
        shown = api.transcript(home.general, seen_by=home.ada)
        submitted = api.submit(home.ada, window, {"Where you were sent": "x" * 30, "A note": "none"})
        assert api.answer(submitted).content == "got 30"
        assert api.fresh(prompt).labels == []
    width = 74
    assert shown.splitlines() == [
        "ada used /connect server:notes",
        "bot APP",
        f"  ┌{'─' * width}┐",
        f"  │ {'Connect notes'.ljust(width - 2)} │",
        f"  │ {'Open the page.'.ljust(width - 2)} │",
        f"  └{'─' * width}┘",
        "  [Paste] [Show QR] [Write to me] [Open ↗]",
        "  Only you can see this · Dismiss message",
        "",
        "╔═ Paste ".ljust(78, "═"),
        "║ Where you were sent *",
        f"║   [{'‹http://›'.ljust(40)}]",
        "║ A note",
        f"║   [{''.ljust(40)}]",
        "╚ [Cancel] [Submit]",
    ]
    assert api.syncs == 1


def test_a_picture_comes_as_a_file_and_shows_in_its_embed(home: Home) -> None:
    with running_bot(home.api, Bot):
        picture = home.api.answer(home.api.press(home.ada, home.prompt(), "Show QR"))
    assert home.api.file(picture) == PIXEL
    assert picture.embeds[0]["image"]["url"] == picture.attachments[0]["url"]
    assert "(qr.png)" in home.api.transcript(home.general, seen_by=home.ada)


def test_a_direct_message_arrives_and_its_button_works_after_a_restart(home: Home) -> None:
    api = home.api
    with running_bot(api, Bot):
        prompt = home.prompt()
        api.press(home.ada, prompt, "Write to me")
        api.wait(lambda: api.fresh(prompt).content == "sent")
    (direct,) = api.messages(api.dm(home.ada), seen_by=home.ada)
    assert (direct.content, direct.labels) == ("hello again", ["Carried"])
    assert api.messages(api.dm(home.ada), seen_by=home.bob) == []
    with running_bot(api, Bot):
        assert api.answer(api.press(home.ada, direct, "Carried")).content == "carried abc"


def test_closed_direct_messages_are_told_to_the_library(home: Home) -> None:
    with running_bot(home.api, Bot):
        prompt = home.prompt(home.bob)
        home.api.press(home.bob, prompt, "Write to me")
        home.api.wait(lambda: home.api.fresh(prompt).content == "not sent: 50007")


def test_a_message_is_deleted_where_the_bot_may_and_not_in_a_direct_channel(home: Home) -> None:
    api = home.api
    ruled = api.guild("Ruled", [home.ada], bot_permissions=discord.Permissions.all().value).channel("general")
    with running_bot(api, Bot):
        for channel, expected in ((home.general, 50013), (api.dm(home.ada), 50003)):
            said = api.say(home.ada, channel, "secret")
            api.wait(lambda: len(api.messages(channel)) == 2)  # noqa: B023 called inside the loop
            assert api.messages(channel)[1].content == f"not deleted: {expected}"
            assert not api.fresh(said).deleted
        said = api.say(home.ada, ruled, "secret")
        api.wait(lambda: api.fresh(said).deleted)


def test_members_roles_and_followups_reach_the_library(home: Home) -> None:
    with running_bot(home.api, Bot):
        answer = home.api.answer(home.api.slash(home.ada, home.general, "who", other=home.bob))
        assert answer.content == f"{home.ada.id} ['@everyone', 'admins'] {home.bob.id}"
        home.api.wait(lambda: len(home.api.messages(home.general, seen_by=home.ada)) == 2)
        assert len(home.api.messages(home.general, seen_by=home.bob)) == 1
        direct = home.api.answer(home.api.slash(home.ada, home.api.dm(home.ada), "who"))
        assert direct.content == f"{home.ada.id} [] None"


def trouble(name: str) -> Callable[[DiscordApi], None]:
    return {
        "drop": DiscordApi.drop,
        "reconnect": DiscordApi.ask_reconnect,
        "resumable": lambda api: api.invalidate_session(resumable=True),
        "code": lambda api: api.close_gateway(4000),
    }[name]


@pytest.mark.parametrize("name", ["drop", "reconnect", "resumable", "code"])
def test_the_library_resumes_and_hears_what_it_missed(home: Home, name: str) -> None:
    api = home.api
    with running_bot(api, Bot) as bot:
        prompt = home.prompt()
        if name == "drop":
            api.refuse_connections(2)
        trouble(name)(api)
        window = api.modal(api.press(home.ada, prompt, "Paste"))
        api.wait(lambda: bot.resumed == 1)
        submitted = api.submit(home.ada, window, {"Where you were sent": "x"})
        assert api.answer(submitted).content == "got 1"
    assert (api.gateway.identifies, api.gateway.resumes) == (1, 1)


def test_an_invalid_session_is_begun_anew(home: Home) -> None:
    with running_bot(home.api, Bot) as bot:
        prompt = home.prompt()
        home.api.invalidate_session()
        home.api.wait(lambda: home.api.gateway.ready == 2)
        assert home.api.modal(home.api.press(home.ada, prompt, "Paste")).title == "Paste"
    assert (bot.resumed, home.api.gateway.identifies) == (0, 2)


def test_a_wrong_token_and_an_ungranted_intent_stop_the_library() -> None:
    with (
        running(privileged_intents=0) as api,
        pytest.raises(discord.PrivilegedIntentsRequired),
        running_bot(api, lambda: Bot(message_content=True)),
    ):
        pass
    with running() as api, api.used_by_discord_py():

        async def login() -> None:
            async with Bot() as bot:
                await bot.login("wrong")

        with pytest.raises(discord.LoginFailure):
            asyncio.run(login())


def test_the_library_waits_for_a_rate_limit(home: Home) -> None:
    api = home.api
    with running_bot(api, Bot):
        api.limit_next("PATCH", "/webhooks/", 0.01)
        api.limit_next("POST", "/users/@me/channels", 0.01, everywhere=True)
        prompt = home.prompt()
        api.press(home.ada, prompt, "Write to me")
        api.wait(lambda: api.fresh(prompt).content == "sent")
    assert [call.status for call in api.calls].count(429) == 2


def test_the_library_stays_within_enforced_limits(home: Home) -> None:
    api = home.api

    class Talker(Bot):
        async def on_ready(self) -> None:
            channel = self.get_channel(int(home.general.id))
            assert isinstance(channel, discord.TextChannel)
            await asyncio.gather(*(channel.send(f"{number}") for number in range(7)))

    api.enforce_rate_limits(scale=0.1)
    with running_bot(api, Talker):
        api.wait(lambda: len(api.messages(home.general)) == 7, 30)
    assert api.refused_by_rate_limit == 0


def test_heartbeats_keep_a_connection() -> None:
    with running(heartbeat_seconds=0.05) as api:
        home = Home(api)
        with running_bot(api, Bot):
            api.wait(lambda: [frame["op"] for frame in api.gateway.heard].count(1) > 10)
            assert home.prompt().ephemeral
        assert api.gateway.attempts == 1


def test_a_hundred_at_once_are_answered(home: Home) -> None:
    with running_bot(home.api, Bot):
        asked = [
            home.api.slash(home.ada, home.general, "connect", server=f"{number}") for number in range(100)
        ]
        titles = {home.api.answer(one, seconds=30).embeds[0]["title"] for one in asked}
    assert titles == {f"Connect {number}" for number in range(100)}


def test_nothing_stays_behind() -> None:
    before = set(threading.enumerate())
    with running() as api, running_bot(api, Bot):
        pass
    api.wait(lambda: set(threading.enumerate()) <= before)
    assert not api.gateway.connections
