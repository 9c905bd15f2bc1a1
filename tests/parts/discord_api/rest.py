"""REST, version 10: serves and records requests; the routes of channels and messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from . import world
from .form import Refused, refused
from .limits import COMPONENTS_V2, SILENT, SUPPRESS_EMBEDS, check_message
from .messages import Message
from .payloads import message_payload
from .ratelimits import RateLimits
from .state import Call, Instead, State
from .wire import Answer, Asked, Files, Handler, an_object, read, response
from .world import Channel, Json


class Rest:
    """The routes of channels. `overrides` replace the responses to the next requests."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.limits = RateLimits()
        self.knobs: list[Instead] = []

    def routes(self) -> list[tuple[str, str, Handler]]:
        messages = "/channels/{channel_id}/messages"
        message = f"{messages}/{{message_id}}"
        return [
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
        ]

    def handler(
        self, method: str, template: str, act: Handler, *, open_to_all: bool
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Return an aiohttp handler that reads, checks, handles and records a request.

        It requires the bot's token unless the route is `open_to_all`.
        """

        async def handle(request: web.Request) -> web.Response:
            headers: dict[str, str] = {}
            body: Any = None
            files: Files = ()
            try:
                body, files = await read(request)
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
            return response(status, answer, headers)

        return handle

    def _knob(self, method: str, path: str) -> None:
        for instead in self.knobs:
            if instead.method in {method, "*"} and instead.part in path:
                instead.times -= 1
                self.knobs = [one for one in self.knobs if one.times > 0]
                raise Refused(instead.status, instead.body, instead.headers)

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
        name = str(an_object(asked.body).get("name"))
        # A thread started from a message has that message's id.
        thread_id = asked.at.get("message_id") or self.state.new_id()
        now = self.state.clock()
        thread = Channel(thread_id, name, channel.guild_id, parent_id=channel.id, created_at=now)
        self.state.channels[thread.id] = self.state.guilds[channel.guild_id].channels[thread.id] = thread
        self.state.gateway.tell_guilds("THREAD_CREATE", {**thread.payload(), "newly_created": True})
        return 201, thread.payload()

    def history(self, asked: Asked) -> Answer:
        channel = self._channel(asked, world.HISTORY)
        shown = [one for one in self.state.shown(channel.id, None) if not one.ephemeral]
        if "before" in asked.query:
            shown = [one for one in shown if int(one.id) < int(asked.query["before"])]
        if "after" in asked.query:
            shown = [one for one in shown if int(one.id) > int(asked.query["after"])]
        limit = int(asked.query.get("limit", "50"))
        return [message_payload(self.state, one) for one in reversed(shown[-limit:])]

    def send(self, asked: Asked) -> Json:
        body = an_object(asked.body)
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
        message, body = self._message(asked), an_object(asked.body)
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
