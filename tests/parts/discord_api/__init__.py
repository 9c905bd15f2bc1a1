"""A local Discord server for the real discord.py: REST v10 and gateway v10, as strict as Discord.

    with serve_discord_api() as api, api.patch_discord_py():
        ada = api.add_user("ada")
        guild = api.add_guild("Home", [ada], roles={"admins": [ada]}, channels=["general"])
        ...  # run a bot with api.token: `run_bot` of .bot, or another process
        interaction = api.slash(ada, guild.channel("general"), "connect", server="notes")
        prompt = api.wait_for_response(interaction)      # a message: .content .embeds .labels
        modal = api.wait_for_modal(api.press(ada, prompt, "Paste"))
        api.submit(ada, modal, {"Where you were sent": "http://127.0.0.1/..."})
        print(api.transcript(guild.channel("general"), seen_by=ada))

Another process sets the `Route.BASE` and `DEFAULT_GATEWAY` of its discord.py to `api.url` and
`api.gateway_url`. An ephemeral message is visible only to its addressee. `api.find(text)` lists the requests
and events that contained a text. `api.abort_gateway()`, `api.rate_limit_next(...)` and similar methods inject
faults. A `clock` controls the time limits of an interaction: the bot has 3 seconds to acknowledge it, and the
token is valid for 15 minutes.
"""

from .api import DiscordApi
from .client_actions import NotOffered
from .entities import Channel, Guild, Role, User
from .messages import Interaction, Message, Modal
from .server import serve_discord_api
from .state import Call

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
    "serve_discord_api",
]
