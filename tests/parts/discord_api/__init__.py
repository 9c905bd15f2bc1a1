"""A Discord on loopback, for the real discord.py: REST v10 and gateway v10, as strict as the real one.

    with running() as api, api.used_by_discord_py():
        ada = api.user("ada")
        guild = api.guild("Home", [ada], roles={"admins": [ada]}, channels=["general"])
        ...  # run a bot with api.token: `running_bot` of .bot, or another process
        asked = api.slash(ada, guild.channel("general"), "connect", server="notes")
        prompt = api.answer(asked)                       # waits for the message; .content .embeds .labels
        window = api.modal(api.press(ada, prompt, "Paste"))
        api.submit(ada, window, {"Where you were sent": "http://127.0.0.1/..."})
        print(api.transcript(guild.channel("general"), seen_by=ada))

Another process is told `api.url` and `api.gateway_url` (its discord.py: `Route.BASE`, `DEFAULT_GATEWAY`).
Nobody's ephemeral messages are others' to see, `api.find(text)` says where a text ever went, `api.drop()`,
`api.limit_next(...)` and their like make trouble, and a `clock` moves the 3 seconds and the 15 minutes.
"""

from .api import DiscordApi
from .messages import Interaction, Message, Modal
from .person import NotOffered
from .server import running
from .state import Call
from .world import Channel, Guild, Role, User

__all__ = [
    "Call",
    "Channel",
    "DiscordApi",
    "Guild",
    "Interaction",
    "Message",
    "Modal",
    "NotOffered",
    "Role",
    "User",
    "running",
]
