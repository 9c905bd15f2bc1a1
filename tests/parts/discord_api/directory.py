"""REST routes for the bot, users, guilds and registered commands."""

from __future__ import annotations

from . import world
from .commands import Commands
from .form import refused
from .payloads import guild_payload
from .sessions import MEMBERS
from .state import State
from .wire import Answer, Asked, Handler, an_object
from .world import Json


class Directory:
    """All routes except those of channels and interactions."""

    def __init__(self, state: State) -> None:
        self.state = state

    def routes(self) -> list[tuple[str, str, Handler]]:
        commands, command = "/applications/{application_id}/commands", "/{command_id}"
        ours = "/applications/{application_id}/guilds/{guild_id}/commands"
        return [
            ("GET", "/gateway/bot", self.gateway_bot),
            ("GET", "/users/@me", lambda _: self.state.bot.payload()),
            ("GET", "/users/{user_id}", self.user),
            ("GET", "/applications/@me", self.application),
            ("GET", "/oauth2/applications/@me", self.application),
            ("POST", "/users/@me/channels", self.open_dm),
            *(
                route
                for base in (commands, ours)
                for route in (
                    ("GET", base, self.list_commands),
                    ("PUT", base, self.overwrite_commands),
                    ("POST", base, self.upsert_command),
                    ("GET", base + command, self.get_command),
                    ("PATCH", base + command, self.edit_command),
                    ("DELETE", base + command, self.delete_command),
                )
            ),
            ("GET", "/guilds/{guild_id}", self.guild),
            ("GET", "/guilds/{guild_id}/channels", self.guild_channels),
            ("GET", "/guilds/{guild_id}/roles", self.roles),
            ("GET", "/guilds/{guild_id}/members", self.members),
            ("GET", "/guilds/{guild_id}/members/{user_id}", self.member),
        ]

    def gateway_bot(self, _: Asked) -> Json:
        limit = {"total": 1000, "remaining": 1000, "reset_after": 86_400_000, "max_concurrency": 1}
        return {"url": self.state.gateway.url, "shards": 1, "session_start_limit": limit}

    def application(self, _: Asked) -> Json:
        return {
            "id": self.state.bot.id,
            "name": self.state.bot.name,
            "icon": None,
            "description": "",
            "bot_public": True,
            "bot_require_code_grant": False,
            "owner": self.state.owner.payload(),
            "verify_key": "00" * 32,
            "flags": 1 << 23,
            "team": None,
            "summary": "",
        }

    def user(self, asked: Asked) -> Json:
        if asked.at["user_id"] not in self.state.users:
            raise refused(10013)
        return self.state.users[asked.at["user_id"]].payload()

    def open_dm(self, asked: Asked) -> Json:
        recipient = self.state.users.get(str(an_object(asked.body).get("recipient_id")))
        if recipient is None or recipient.bot:
            raise refused(10013)
        return self.state.dm(recipient).payload()

    def _scope(self, asked: Asked) -> Commands:
        if asked.at["application_id"] != self.state.bot.id:
            raise refused(10002)
        return self.state.scope(asked.at.get("guild_id"))

    def list_commands(self, asked: Asked) -> Answer:
        return self._scope(asked).listed

    def overwrite_commands(self, asked: Asked) -> Answer:
        return self._scope(asked).overwrite(asked.body, self.state.new_id)

    def upsert_command(self, asked: Asked) -> Answer:
        return self._scope(asked).upsert(an_object(asked.body), self.state.new_id())

    def get_command(self, asked: Asked) -> Answer:
        return self._scope(asked).get(asked.at["command_id"])

    def edit_command(self, asked: Asked) -> Answer:
        body, new_id = an_object(asked.body), self.state.new_id()
        return self._scope(asked).edit(asked.at["command_id"], body, new_id)

    def delete_command(self, asked: Asked) -> None:
        self._scope(asked).delete(asked.at["command_id"])

    def guild(self, asked: Asked) -> Json:
        return guild_payload(self.state, self.state.guild(asked.at["guild_id"]).id)

    def guild_channels(self, asked: Asked) -> Answer:
        guild = self.state.guild(asked.at["guild_id"])
        return [guild.channel_payload(one, self.state.bot.id) for one in guild.channels.values()]

    def roles(self, asked: Asked) -> Answer:
        guild = self.state.guild(asked.at["guild_id"])
        everyone = world.Role(guild.id, "@everyone", world.EVERYBODY)
        return [role.payload() for role in (everyone, *guild.roles.values())]

    def members(self, asked: Asked) -> Answer:
        guild = self.state.guild(asked.at["guild_id"])
        if not self.state.gateway.allowed_intents & MEMBERS:
            raise refused(50001)
        after = int(asked.query.get("after", "0"))
        listed = sorted(
            (one for one in guild.members.values() if int(one.id) > after), key=lambda one: int(one.id)
        )
        return [guild.member(user) for user in listed[: int(asked.query.get("limit", "1"))]]

    def member(self, asked: Asked) -> Json:
        guild = self.state.guild(asked.at["guild_id"])
        if asked.at["user_id"] not in guild.members:
            raise refused(10007)
        return guild.member(guild.members[asked.at["user_id"]])
