"""REST routes for the bot, users, guilds and registered commands."""

from __future__ import annotations

from . import entities
from .commands import CommandScope
from .entities import Json
from .form_errors import api_error
from .payloads import guild_payload
from .sessions import GUILD_MEMBERS
from .state import State
from .wire import ApiRequest, Handler, HandlerResult, require_object


class Directory:
    """All routes except those of channels and interactions."""

    def __init__(self, state: State) -> None:
        self.state = state

    def routes(self) -> list[tuple[str, str, Handler]]:
        commands, command = "/applications/{application_id}/commands", "/{command_id}"
        guild_commands = "/applications/{application_id}/guilds/{guild_id}/commands"
        return [
            ("GET", "/gateway/bot", self.get_gateway_bot),
            ("GET", "/users/@me", lambda _: self.state.bot.payload()),
            ("GET", "/users/{user_id}", self.get_user),
            ("GET", "/applications/@me", self.get_application),
            ("GET", "/oauth2/applications/@me", self.get_application),
            ("POST", "/users/@me/channels", self.open_dm),
            *(
                route
                for base in (commands, guild_commands)
                for route in (
                    ("GET", base, self.list_commands),
                    ("PUT", base, self.overwrite_commands),
                    ("POST", base, self.upsert_command),
                    ("GET", base + command, self.get_command),
                    ("PATCH", base + command, self.edit_command),
                    ("DELETE", base + command, self.delete_command),
                )
            ),
            ("GET", "/guilds/{guild_id}", self.get_guild),
            ("GET", "/guilds/{guild_id}/channels", self.list_channels),
            ("GET", "/guilds/{guild_id}/roles", self.list_roles),
            ("GET", "/guilds/{guild_id}/members", self.list_members),
            ("GET", "/guilds/{guild_id}/members/{user_id}", self.get_member),
        ]

    def get_gateway_bot(self, _: ApiRequest) -> Json:
        limit = {"total": 1000, "remaining": 1000, "reset_after": 86_400_000, "max_concurrency": 1}
        return {"url": self.state.gateway.url, "shards": 1, "session_start_limit": limit}

    def get_application(self, _: ApiRequest) -> Json:
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

    def get_user(self, request: ApiRequest) -> Json:
        if request.path_parameters["user_id"] not in self.state.users:
            raise api_error(10013)
        return self.state.users[request.path_parameters["user_id"]].payload()

    def open_dm(self, request: ApiRequest) -> Json:
        recipient = self.state.users.get(str(require_object(request.body).get("recipient_id")))
        if recipient is None or recipient.bot:
            raise api_error(10013)
        return self.state.dm(recipient).payload()

    def _command_scope(self, request: ApiRequest) -> CommandScope:
        if request.path_parameters["application_id"] != self.state.bot.id:
            raise api_error(10002)
        return self.state.command_scope(request.path_parameters.get("guild_id"))

    def list_commands(self, request: ApiRequest) -> HandlerResult:
        return self._command_scope(request).commands

    def overwrite_commands(self, request: ApiRequest) -> HandlerResult:
        return self._command_scope(request).overwrite(request.body, self.state.new_id)

    def upsert_command(self, request: ApiRequest) -> HandlerResult:
        return self._command_scope(request).upsert(require_object(request.body), self.state.new_id())

    def get_command(self, request: ApiRequest) -> HandlerResult:
        return self._command_scope(request).get(request.path_parameters["command_id"])

    def edit_command(self, request: ApiRequest) -> HandlerResult:
        body, new_id = require_object(request.body), self.state.new_id()
        return self._command_scope(request).edit(request.path_parameters["command_id"], body, new_id)

    def delete_command(self, request: ApiRequest) -> None:
        self._command_scope(request).delete(request.path_parameters["command_id"])

    def get_guild(self, request: ApiRequest) -> Json:
        return guild_payload(self.state, self.state.guild(request.path_parameters["guild_id"]).id)

    def list_channels(self, request: ApiRequest) -> HandlerResult:
        guild = self.state.guild(request.path_parameters["guild_id"])
        return [guild.channel_payload(channel, self.state.bot.id) for channel in guild.channels.values()]

    def list_roles(self, request: ApiRequest) -> HandlerResult:
        guild = self.state.guild(request.path_parameters["guild_id"])
        everyone = entities.Role(guild.id, "@everyone", entities.DEFAULT_PERMISSIONS)
        return [role.payload() for role in (everyone, *guild.roles.values())]

    def list_members(self, request: ApiRequest) -> HandlerResult:
        guild = self.state.guild(request.path_parameters["guild_id"])
        if not self.state.gateway.allowed_intents & GUILD_MEMBERS:
            raise api_error(50001)
        after = int(request.query.get("after", "0"))
        listed = sorted(
            (one for one in guild.members.values() if int(one.id) > after), key=lambda one: int(one.id)
        )
        return [guild.member_payload(user) for user in listed[: int(request.query.get("limit", "1"))]]

    def get_member(self, request: ApiRequest) -> Json:
        guild = self.state.guild(request.path_parameters["guild_id"])
        if request.path_parameters["user_id"] not in guild.members:
            raise api_error(10007)
        return guild.member_payload(guild.members[request.path_parameters["user_id"]])
