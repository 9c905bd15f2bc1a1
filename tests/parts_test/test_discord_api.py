"""The local Discord, driven by the real discord.py: first what works, then each rule by breaking it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import discord
import pytest
from discord import app_commands, ui
from discord.ext import commands

from tests.parts.discord_api import DiscordApi, running
from tests.parts.discord_api.bot import running_bot


class Paste(ui.Modal, title="Paste"):
    address: ui.TextInput[Paste] = ui.TextInput(
        label="Where you were sent", placeholder="http://", max_length=4000
    )
    note: ui.Label[Paste] = ui.Label(text="A note", component=ui.TextInput(required=False))

    async def on_submit(self, interaction: discord.Interaction) -> None:
        await interaction.response.edit_message(content=f"got {len(self.address.value)}", view=None)


class Prompt(ui.View):
    def __init__(self) -> None:
        super().__init__(timeout=None)
        self.add_item(ui.Button(label="Open", url="https://as.example/authorize"))

    @ui.button(label="Paste", custom_id="paste:1")
    async def paste(self, interaction: discord.Interaction, _: ui.Button[Prompt]) -> None:
        await interaction.response.send_modal(Paste())

    @ui.button(label="Write to me", custom_id="dm:1")
    async def write(self, interaction: discord.Interaction, _: ui.Button[Prompt]) -> None:
        await interaction.response.defer()
        await interaction.user.send("hello")
        await interaction.edit_original_response(content="sent")


class Cog(commands.Cog):
    @app_commands.command(description="Connect a server")
    async def connect(self, interaction: discord.Interaction, server: str) -> None:
        await interaction.response.defer(ephemeral=True)
        embed = discord.Embed(title=f"Connect {server}", description="Open the page.")
        await interaction.edit_original_response(embed=embed, view=Prompt())

    @connect.autocomplete("server")
    async def _servers(self, _: discord.Interaction, current: str) -> list[app_commands.Choice[str]]:
        names = ("notes", "nodes", "tickets")
        return [app_commands.Choice(name=name, value=name) for name in names if name.startswith(current)]


class Bot(commands.Bot):
    def __init__(self, **options: Any) -> None:
        intents = discord.Intents.default()
        super().__init__(commands.when_mentioned, intents=intents, guild_ready_timeout=0.05, **options)

    async def setup_hook(self) -> None:
        await self.add_cog(Cog())
        await self.tree.sync()


@pytest.fixture
def api() -> Iterator[DiscordApi]:
    with running() as running_api:
        yield running_api


def test_a_login_by_command_button_window_and_direct_message(api: DiscordApi) -> None:
    ada, bob = api.user("ada"), api.user("bob")
    guild = api.guild("Home", [ada, bob], channels=["general"])
    general = guild.channel("general")
    with running_bot(api, Bot):
        assert api.autocomplete(ada, general, "connect", "server", "no") == ["notes", "nodes"]
        prompt = api.answer(api.slash(ada, general, "connect", server="notes"))
        assert prompt.ephemeral
        assert prompt.labels == ["Paste", "Write to me", "Open"]
        assert api.messages(general, seen_by=bob) == []
        window = api.modal(api.press(ada, prompt, "Paste"))
        print(api.transcript(general, seen_by=ada))
        submitted = api.submit(ada, window, {"Where you were sent": "x" * 30, "A note": "none"})
        assert api.answer(submitted).content == "got 30"
        assert api.fresh(prompt).labels == []
        again = api.answer(api.slash(ada, general, "connect", server="notes"))
        api.press(ada, again, "dm:1")
        api.wait(lambda: api.messages(api.dm(ada), seen_by=ada))
        api.wait(lambda: api.fresh(again).content == "sent")
    print(api.transcript(general, seen_by=ada))
    assert api.syncs == 1
