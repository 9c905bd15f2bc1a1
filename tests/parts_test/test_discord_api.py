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

from tests.parts.discord_api import Channel, DiscordApi, Guild, User, serve_discord_api
from tests.parts.discord_api.bot import run_bot

pytestmark = pytest.mark.slow

PNG_BYTES = b"\x89PNG not really"


class PasteModal(ui.Modal, title="Paste"):
    address: ui.TextInput[PasteModal] = ui.TextInput(
        label="Where you were sent", placeholder="http://", max_length=4000
    )
    note: ui.Label[PasteModal] = ui.Label(text="A note", component=ui.TextInput(required=False))

    async def on_submit(self, interaction: discord.Interaction) -> None:
        await interaction.response.edit_message(content=f"got {len(self.address.value)}", view=None)


class LoginButton(ui.DynamicItem[ui.Button[Any]], template=r"carried:(?P<login>\w+)"):
    def __init__(self, login: str) -> None:
        super().__init__(ui.Button(label="Carried", custom_id=f"carried:{login}"))
        self.login = login

    @classmethod
    async def from_custom_id(cls, _: discord.Interaction, __: ui.Item[Any], match: re.Match[str], /) -> Self:
        return cls(match["login"])

    async def callback(self, interaction: discord.Interaction) -> None:
        await interaction.response.send_message(f"carried {self.login}", ephemeral=True)


class PromptView(ui.View):
    def __init__(self) -> None:
        super().__init__(timeout=None)
        self.add_item(ui.Button(label="Open", url="https://as.example/authorize"))

    @ui.button(label="Paste", custom_id="paste:1")
    async def paste(self, interaction: discord.Interaction, _: ui.Button[PromptView]) -> None:
        await interaction.response.send_modal(PasteModal())

    @ui.button(label="Show QR", custom_id="qr:1")
    async def show_qr(self, interaction: discord.Interaction, _: ui.Button[PromptView]) -> None:
        embed = discord.Embed(title="Scan").set_image(url="attachment://qr.png")
        await interaction.response.send_message(
            embed=embed, file=discord.File(io.BytesIO(PNG_BYTES), "qr.png"), ephemeral=True
        )

    @ui.button(label="Write to me", custom_id="dm:1")
    async def send_dm(self, interaction: discord.Interaction, _: ui.Button[PromptView]) -> None:
        await interaction.response.defer()
        try:
            sent = await interaction.user.send("hello", view=ui.View().add_item(LoginButton("abc")))
            await sent.edit(content="hello again")
            outcome = "sent"
        except discord.Forbidden as error:
            outcome = f"not sent: {error.code}"
        await interaction.edit_original_response(content=outcome)


class Cog(commands.Cog):
    @app_commands.command(description="Connect a server")
    @app_commands.describe(server="Which one")
    async def connect(self, interaction: discord.Interaction, server: str) -> None:
        await interaction.response.defer(ephemeral=True)
        embed = discord.Embed(title=f"Connect {server}", description="Open the page.")
        await interaction.edit_original_response(embed=embed, view=PromptView())

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
        wanted_intents = discord.Intents(guilds=True, guild_messages=True, dm_messages=True, **intents)
        super().__init__(commands.when_mentioned, intents=wanted_intents, guild_ready_timeout=0.05)
        self.resume_count = 0

    async def setup_hook(self) -> None:
        await self.add_cog(Cog())
        self.add_view(PromptView())
        self.add_dynamic_items(LoginButton)
        await self.tree.sync()

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """Do not wait. The default implementation waits five seconds before it identifies again."""

    async def on_resumed(self) -> None:
        self.resume_count += 1


class LocalDiscord:
    def __init__(self, api: DiscordApi) -> None:
        self.api = api
        self.ada: User = api.add_user("ada")
        self.bob: User = api.add_user("bob", dms_open=False)
        self.guild: Guild = api.add_guild("Home", [self.ada, self.bob], roles={"admins": [self.ada]})
        self.general: Channel = self.guild.channel("general")

    def wait_for_prompt(self, user: User | None = None) -> Any:
        return self.api.wait_for_response(
            self.api.slash(user or self.ada, self.general, "connect", server="notes")
        )


@pytest.fixture
def local_discord(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalDiscord]:
    # discord.py waits up to two seconds before it retries a refused connection.
    monkeypatch.setattr("discord.backoff.ExponentialBackoff.delay", lambda _: 0.01)
    with serve_discord_api() as api:
        yield LocalDiscord(api)


def test_user_logs_in_by_command_button_and_modal(local_discord: LocalDiscord) -> None:
    api = local_discord.api
    with run_bot(api, Bot):
        assert api.autocomplete(local_discord.ada, local_discord.general, "connect", "server", "no") == [
            "notes",
            "nodes",
        ]
        prompt = local_discord.wait_for_prompt()
        assert prompt.ephemeral
        assert prompt.labels == ["Paste", "Show QR", "Write to me", "Open"]
        assert api.messages(local_discord.general, seen_by=local_discord.bob) == []
        modal = api.wait_for_modal(api.press(local_discord.ada, prompt, "Paste"))
        transcript = api.transcript(local_discord.general, seen_by=local_discord.ada)
        submitted = api.submit(local_discord.ada, modal, {"Where you were sent": "x" * 30, "A note": "none"})
        assert api.wait_for_response(submitted).content == "got 30"
        assert api.current(prompt).labels == []
    width = 74
    assert transcript.splitlines() == [
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
    assert api.command_changes == 1


def test_embed_shows_an_attached_image(local_discord: LocalDiscord) -> None:
    with run_bot(local_discord.api, Bot):
        picture = local_discord.api.wait_for_response(
            local_discord.api.press(local_discord.ada, local_discord.wait_for_prompt(), "Show QR")
        )
    assert local_discord.api.attachment_content(picture) == PNG_BYTES
    assert picture.embeds[0]["image"]["url"] == picture.attachments[0]["url"]
    assert "(qr.png)" in local_discord.api.transcript(local_discord.general, seen_by=local_discord.ada)


def test_a_direct_message_arrives_and_its_button_works_after_a_restart(local_discord: LocalDiscord) -> None:
    api = local_discord.api
    with run_bot(api, Bot):
        prompt = local_discord.wait_for_prompt()
        api.press(local_discord.ada, prompt, "Write to me")
        api.wait(lambda: api.current(prompt).content == "sent")
    (direct,) = api.messages(api.dm(local_discord.ada), seen_by=local_discord.ada)
    assert (direct.content, direct.labels) == ("hello again", ["Carried"])
    assert api.messages(api.dm(local_discord.ada), seen_by=local_discord.bob) == []
    with run_bot(api, Bot):
        assert api.wait_for_response(api.press(local_discord.ada, direct, "Carried")).content == "carried abc"


def test_closed_dms_raise_forbidden_in_discord_py(local_discord: LocalDiscord) -> None:
    with run_bot(local_discord.api, Bot):
        prompt = local_discord.wait_for_prompt(local_discord.bob)
        local_discord.api.press(local_discord.bob, prompt, "Write to me")
        local_discord.api.wait(lambda: local_discord.api.current(prompt).content == "not sent: 50007")


def test_bot_deletes_messages_only_with_permission_and_never_in_a_dm(local_discord: LocalDiscord) -> None:
    api = local_discord.api
    managed_channel = api.add_guild(
        "Ruled", [local_discord.ada], bot_permissions=discord.Permissions.all().value
    ).channel("general")
    with run_bot(api, Bot):
        for channel, expected in ((local_discord.general, 50013), (api.dm(local_discord.ada), 50003)):
            message = api.say(local_discord.ada, channel, "secret")
            api.wait(lambda: len(api.messages(channel)) == 2)  # noqa: B023 called inside the loop
            assert api.messages(channel)[1].content == f"not deleted: {expected}"
            assert not api.current(message).deleted
        message = api.say(local_discord.ada, managed_channel, "secret")
        api.wait(lambda: api.current(message).deleted)


def test_members_roles_and_followups_reach_discord_py(local_discord: LocalDiscord) -> None:
    with run_bot(local_discord.api, Bot):
        answer = local_discord.api.wait_for_response(
            local_discord.api.slash(local_discord.ada, local_discord.general, "who", other=local_discord.bob)
        )
        assert answer.content == f"{local_discord.ada.id} ['@everyone', 'admins'] {local_discord.bob.id}"
        local_discord.api.wait(
            lambda: len(local_discord.api.messages(local_discord.general, seen_by=local_discord.ada)) == 2
        )
        assert len(local_discord.api.messages(local_discord.general, seen_by=local_discord.bob)) == 1
        direct = local_discord.api.wait_for_response(
            local_discord.api.slash(local_discord.ada, local_discord.api.dm(local_discord.ada), "who")
        )
        assert direct.content == f"{local_discord.ada.id} [] None"


def fault_for(name: str) -> Callable[[DiscordApi], None]:
    return {
        "drop": DiscordApi.abort_gateway,
        "reconnect": DiscordApi.request_reconnect,
        "resumable": lambda api: api.invalidate_session(resumable=True),
        "code": lambda api: api.close_gateway(4000),
    }[name]


@pytest.mark.parametrize("name", ["drop", "reconnect", "resumable", "code"])
def test_discord_py_resumes_and_receives_missed_events(local_discord: LocalDiscord, name: str) -> None:
    api = local_discord.api
    with run_bot(api, Bot) as bot:
        prompt = local_discord.wait_for_prompt()
        if name == "drop":
            api.refuse_connections(2)
        fault_for(name)(api)
        modal = api.wait_for_modal(api.press(local_discord.ada, prompt, "Paste"))
        api.wait(lambda: bot.resume_count == 1)
        submitted = api.submit(local_discord.ada, modal, {"Where you were sent": "x"})
        assert api.wait_for_response(submitted).content == "got 1"
    assert (api.gateway.identify_count, api.gateway.resume_count) == (1, 1)


def test_discord_py_identifies_again_after_an_invalid_session(local_discord: LocalDiscord) -> None:
    with run_bot(local_discord.api, Bot) as bot:
        prompt = local_discord.wait_for_prompt()
        local_discord.api.invalidate_session()
        local_discord.api.wait(lambda: local_discord.api.gateway.ready_count == 2)
        assert (
            local_discord.api.wait_for_modal(
                local_discord.api.press(local_discord.ada, prompt, "Paste")
            ).title
            == "Paste"
        )
    assert (bot.resume_count, local_discord.api.gateway.identify_count) == (0, 2)


def test_wrong_token_and_ungranted_intent_stop_discord_py() -> None:
    with (
        serve_discord_api(privileged_intents=0) as api,
        pytest.raises(discord.PrivilegedIntentsRequired),
        run_bot(api, lambda: Bot(message_content=True)),
    ):
        pass
    with serve_discord_api() as api, api.patch_discord_py():

        async def login() -> None:
            async with Bot() as bot:
                await bot.login("wrong")

        with pytest.raises(discord.LoginFailure):
            asyncio.run(login())


def test_discord_py_waits_for_a_rate_limit(local_discord: LocalDiscord) -> None:
    api = local_discord.api
    with run_bot(api, Bot):
        api.rate_limit_next("PATCH", "/webhooks/", 0.01)
        api.rate_limit_next("POST", "/users/@me/channels", 0.01, is_global=True)
        prompt = local_discord.wait_for_prompt()
        api.press(local_discord.ada, prompt, "Write to me")
        api.wait(lambda: api.current(prompt).content == "sent")
    assert [call.status for call in api.calls].count(429) == 2


def test_discord_py_stays_within_enforced_limits(local_discord: LocalDiscord) -> None:
    api = local_discord.api

    class Talker(Bot):
        async def on_ready(self) -> None:
            channel = self.get_channel(int(local_discord.general.id))
            assert isinstance(channel, discord.TextChannel)
            await asyncio.gather(*(channel.send(f"{number}") for number in range(7)))

    api.enforce_rate_limits(scale=0.1)
    with run_bot(api, Talker):
        api.wait(lambda: len(api.messages(local_discord.general)) == 7, 30)
    assert api.rate_limit_refusals == 0


def test_heartbeats_keep_a_connection_open() -> None:
    with serve_discord_api(heartbeat_seconds=0.05) as api:
        local_discord = LocalDiscord(api)
        with run_bot(api, Bot):
            api.wait(lambda: [frame["op"] for frame in api.gateway.received_frames].count(1) > 10)
            assert local_discord.wait_for_prompt().ephemeral
        assert api.gateway.attempt_count == 1


def test_100_concurrent_commands_get_responses(local_discord: LocalDiscord) -> None:
    with run_bot(local_discord.api, Bot):
        interactions = [
            local_discord.api.slash(local_discord.ada, local_discord.general, "connect", server=f"{number}")
            for number in range(100)
        ]
        titles = {
            local_discord.api.wait_for_response(interaction, seconds=30).embeds[0]["title"]
            for interaction in interactions
        }
    assert titles == {f"Connect {number}" for number in range(100)}


def test_no_thread_or_connection_remains() -> None:
    previous_threads = set(threading.enumerate())
    with serve_discord_api() as api, run_bot(api, Bot):
        pass
    api.wait(lambda: set(threading.enumerate()) <= previous_threads)
    assert not api.gateway.connections
