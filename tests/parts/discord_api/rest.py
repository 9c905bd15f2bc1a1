"""REST, version 10: users, channels, messages, guilds, commands. Each answer is recorded."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import BodyPartReader, web

from . import world
from .form import Refused, not_found, refused
from .limits import ATTACHMENT_BYTES, COMPONENTS_V2, SILENT, SUPPRESS_EMBEDS, check_message
from .payloads import guild_payload, message_payload
from .ratelimits import RateLimits
from .state import Call, Instead, State
from .world import Channel, Json, Message

Answer = Json | list[Any] | tuple[int, Any] | None
Files = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, read: `at` are the parameters of its path."""

    at: dict[str, str]
    query: dict[str, str]
    body: Any
    files: Files


Handler = Callable[[Asked], Answer]


class Rest:
    """The routes; `knobs` are answers that are given instead of the real ones."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.limits = RateLimits()
        self.knobs: list[Instead] = []

    def routes(self) -> list[tuple[str, str, Handler]]:
        commands, command = "/applications/{application_id}/commands", "/{command_id}"
        ours = "/applications/{application_id}/guilds/{guild_id}/commands"
        messages = "/channels/{channel_id}/messages"
        message = f"{messages}/{{message_id}}"
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
            ("GET", "/channels/{channel_id}", self.get_channel),
            ("POST", "/channels/{channel_id}/typing", self.typing),
            ("POST", "/channels/{channel_id}/threads", self.start_thread),
            ("POST", message + "/threads", self.start_thread),
            ("GET", messages, self.history),
            ("POST", messages, self.send),
            ("GET", message, self.get_message),
            ("PATCH", message, self.edit),
            ("DELETE", message, self.delete),
            ("PUT", message + "/reactions/{emoji}/@me", self.react),
            ("DELETE", message + "/reactions/{emoji}/@me", self.react),
            ("GET", "/guilds/{guild_id}", self.guild),
            ("GET", "/guilds/{guild_id}/channels", self.guild_channels),
            ("GET", "/guilds/{guild_id}/roles", self.roles),
            ("GET", "/guilds/{guild_id}/members", self.members),
            ("GET", "/guilds/{guild_id}/members/{user_id}", self.member),
        ]

    def handler(
        self, method: str, template: str, act: Handler, *, open_to_all: bool
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """What aiohttp calls: reads, checks, acts, records; the bot's token is asked unless it is open."""

        async def handle(request: web.Request) -> web.Response:
            headers: dict[str, str] = {}
            body: Any = None
            files: Files = ()
            try:
                body, files = await _read(request)
                if not open_to_all and request.headers.get("Authorization") != f"Bot {self.state.token}":
                    raise refused(0)
                self._knob(method, request.path)
                if not template.startswith("/interactions"):
                    headers = self.limits.headers(method, template, dict(request.match_info))
                asked = Asked(dict(request.match_info), dict(request.query), body, files)
                answer = act(asked)
                status, answer = answer if isinstance(answer, tuple) else (200, answer)
                status = 204 if answer is None else status
            except Refused as error:
                status, answer = error.status, error.body
                headers |= error.headers
            path = request.path_qs.removeprefix("/api/v10")
            self.state.calls.append(Call(method, path, body, files, status, answer, self.state.clock()))
            return _response(status, answer, headers)

        return handle

    def _knob(self, method: str, path: str) -> None:
        for instead in self.knobs:
            if instead.method in {method, "*"} and instead.part in path:
                instead.times -= 1
                self.knobs = [one for one in self.knobs if one.times > 0]
                raise Refused(instead.status, instead.body, instead.headers)

    # Who we are.

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
        recipient = self.state.users.get(str(_object(asked.body).get("recipient_id")))
        if recipient is None or recipient.bot:
            raise refused(10013)
        return self.state.dm(recipient).payload()

    # Commands.

    def _scope(self, asked: Asked) -> Any:
        if asked.at["application_id"] != self.state.bot.id:
            raise refused(10002)
        return self.state.scope(asked.at.get("guild_id"))

    def list_commands(self, asked: Asked) -> Answer:
        listed: list[Any] = self._scope(asked).listed
        return listed

    def overwrite_commands(self, asked: Asked) -> Answer:
        listed: list[Any] = self._scope(asked).overwrite(asked.body, self.state.new_id)
        return listed

    def upsert_command(self, asked: Asked) -> Answer:
        stored: tuple[int, Json] = self._scope(asked).upsert(_object(asked.body), self.state.new_id())
        return stored

    def get_command(self, asked: Asked) -> Answer:
        found: Json = self._scope(asked).get(asked.at["command_id"])
        return found

    def edit_command(self, asked: Asked) -> Answer:
        body, new_id = _object(asked.body), self.state.new_id()
        edited: Json = self._scope(asked).edit(asked.at["command_id"], body, new_id)
        return edited

    def delete_command(self, asked: Asked) -> None:
        self._scope(asked).delete(asked.at["command_id"])

    # Channels and messages.

    def _channel(self, asked: Asked, *needed: int) -> Channel:
        channel = self.state.channel(asked.at["channel_id"])
        held = self.state.bot_permissions(channel)
        if any(not held & one for one in needed):
            raise refused(50013)
        return channel

    def _message(self, asked: Asked) -> Message:
        return self.state.message(self._channel(asked).id, asked.at["message_id"])

    def get_channel(self, asked: Asked) -> Json:
        channel = self._channel(asked)
        if channel.guild_id is None:
            return channel.payload()
        return self.state.guilds[channel.guild_id].channel_payload(channel, self.state.bot.id)

    def typing(self, asked: Asked) -> None:
        self._channel(asked, world.SEND)

    def start_thread(self, asked: Asked) -> Answer:
        channel = self._channel(asked, world.THREADS)
        if channel.guild_id is None:
            raise refused(50003)
        name = str(_object(asked.body).get("name"))
        # A thread that starts from a message has that message's id.
        thread_id = asked.at.get("message_id") or self.state.new_id()
        now = self.state.clock()
        thread = Channel(thread_id, name, channel.guild_id, parent_id=channel.id, created_at=now)
        self.state.channels[thread.id] = self.state.guilds[channel.guild_id].channels[thread.id] = thread
        self.state.gateway.tell_guilds("THREAD_CREATE", {**thread.payload(), "newly_created": True})
        return 201, thread.payload()

    def history(self, asked: Asked) -> list[Any]:
        channel = self._channel(asked, world.HISTORY)
        shown = [one for one in self.state.shown(channel.id, None) if not one.ephemeral]
        if "before" in asked.query:
            shown = [one for one in shown if int(one.id) < int(asked.query["before"])]
        if "after" in asked.query:
            shown = [one for one in shown if int(one.id) > int(asked.query["after"])]
        limit = int(asked.query.get("limit", "50"))
        return [message_payload(self.state, one) for one in reversed(shown[-limit:])]

    def send(self, asked: Asked) -> Json:
        body = _object(asked.body)
        needed = [world.SEND]
        if body.get("embeds"):
            needed.append(world.EMBED_LINKS)
        if asked.files:
            needed.append(world.ATTACH)
        channel = self._channel(asked, *needed)
        check_message(body, files=len(asked.files))
        if channel.recipient is not None and channel.recipient.id in self.state.dms_closed:
            raise refused(50007)
        flags = int(body.get("flags") or 0) & (SUPPRESS_EMBEDS | SILENT | COMPONENTS_V2)
        message = self.state.write(channel, self.state.bot, body, asked.files, flags=flags)
        return message_payload(self.state, message)

    def get_message(self, asked: Asked) -> Json:
        self._channel(asked, world.HISTORY)
        return message_payload(self.state, self._message(asked))

    def edit(self, asked: Asked) -> Json:
        message, body = self._message(asked), _object(asked.body)
        if message.author != self.state.bot:
            raise refused(50005)
        check_message(body, files=len(asked.files), edit=True)
        return message_payload(self.state, self.state.change(message, body, asked.files))

    def delete(self, asked: Asked) -> None:
        message = self._message(asked)
        if message.author != self.state.bot:
            if self.state.channels[message.channel_id].guild_id is None:
                raise refused(50003)
            self._channel(asked, world.MANAGE_MESSAGES)
        self.state.delete(message)

    def react(self, asked: Asked) -> None:
        self._channel(asked, world.REACT, world.HISTORY)
        self._message(asked).reactions.append((self.state.bot.id, asked.at["emoji"]))

    # Guilds.

    def guild(self, asked: Asked) -> Json:
        return guild_payload(self.state, self.state.guild(asked.at["guild_id"]).id)

    def guild_channels(self, asked: Asked) -> list[Any]:
        guild = self.state.guild(asked.at["guild_id"])
        return [guild.channel_payload(one, self.state.bot.id) for one in guild.channels.values()]

    def roles(self, asked: Asked) -> list[Any]:
        guild = self.state.guild(asked.at["guild_id"])
        everyone = world.Role(guild.id, "@everyone", world.EVERYBODY)
        return [role.payload() for role in (everyone, *guild.roles.values())]

    def members(self, asked: Asked) -> list[Any]:
        guild = self.state.guild(asked.at["guild_id"])
        if not self.state.gateway.allowed_intents & 1 << 1:
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


def _object(body: Any) -> Json:
    if not isinstance(body, dict):
        raise refused(50109)
    return body


async def _read(request: web.Request) -> tuple[Any, Files]:
    """A request's JSON and its files; raises Refused for a body that is not what it says."""
    if not request.can_read_body:
        return None, ()
    files: list[tuple[str, bytes]] = []
    text = ""
    if request.content_type == "multipart/form-data":
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise refused(50109)
            content = bytes(await part.read())
            if part.name == "payload_json":
                text = content.decode()
            elif (part.name or "").startswith("files["):
                files.append((part.filename or "file", content))
    elif request.content_type == "application/json":
        text = await request.text()
    else:
        # Other forms are read by nothing here.
        raise refused(50109)
    if sum(len(content) for _, content in files) > ATTACHMENT_BYTES:
        raise refused(40005)
    try:
        return json.loads(text) if text else None, tuple(files)
    except ValueError:
        raise refused(50109) from None


def _response(status: int, answer: Any, headers: dict[str, str]) -> web.Response:
    # Without Via, discord.py takes a 429 for a ban. The type goes without a charset, as the real one's.
    headers = {"Via": "1.1 google", **headers}
    if status == 204:
        return web.Response(status=204, headers=headers)
    body = json.dumps(answer).encode()
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


async def unknown(_: web.Request) -> web.Response:
    return _response(404, not_found().body, {})
