"""REST, version 10: serves and records requests; the routes of channels and messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from . import entities
from .entities import Channel, Json
from .form_errors import ApiError, api_error
from .limits import COMPONENTS_V2, SILENT, SUPPRESS_EMBEDS, check_message
from .messages import Message
from .payloads import message_payload
from .ratelimits import RateLimits
from .state import Call, ResponseOverride, State
from .wire import ApiRequest, Files, Handler, HandlerResult, build_response, read_request, require_object


class RestApi:
    """The routes of channels. `overrides` replace the responses to the next requests."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.limits = RateLimits()
        self.overrides: list[ResponseOverride] = []

    def routes(self) -> list[tuple[str, str, Handler]]:
        messages = "/channels/{channel_id}/messages"
        message = f"{messages}/{{message_id}}"
        return [
            ("GET", "/channels/{channel_id}", self.get_channel),
            ("POST", "/channels/{channel_id}/typing", self.start_typing),
            ("POST", "/channels/{channel_id}/threads", self.start_thread),
            ("POST", message + "/threads", self.start_thread),
            ("GET", messages, self.list_messages),
            ("POST", messages, self.send_message),
            ("GET", message, self.get_message),
            ("PATCH", message, self.edit_message),
            ("DELETE", message, self.delete_message),
            ("PUT", message + "/reactions/{emoji}/@me", self.add_reaction),
            ("DELETE", message + "/reactions/{emoji}/@me", self.add_reaction),
        ]

    def make_handler(
        self, method: str, template: str, handler: Handler, *, open_to_all: bool
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Return an aiohttp handler that reads, checks, handles and records a request.

        It requires the bot's token unless the route is `open_to_all`.
        """

        async def handle(request: web.Request) -> web.Response:
            headers: dict[str, str] = {}
            body: Any = None
            files: Files = ()
            try:
                body, files = await read_request(request)
                if not open_to_all and request.headers.get("Authorization") != f"Bot {self.state.token}":
                    raise api_error(0)
                self._apply_override(method, request.path)
                if not template.startswith("/interactions"):
                    headers = self.limits.count_request(method, template, dict(request.match_info))
                api_request = ApiRequest(dict(request.match_info), dict(request.query), body, files)
                result = handler(api_request)
                status, result = result if isinstance(result, tuple) else (200, result)
                status = 204 if result is None else status
            except ApiError as error:
                status, result = error.status, error.body
                headers |= error.headers
            path = request.path_qs.removeprefix("/api/v10")
            self.state.calls.append(Call(method, path, body, files, status, result, self.state.clock()))
            return build_response(status, result, headers)

        return handle

    def _apply_override(self, method: str, path: str) -> None:
        for override in self.overrides:
            if override.method in {method, "*"} and override.path_part in path:
                override.remaining -= 1
                self.overrides = [
                    remaining_override
                    for remaining_override in self.overrides
                    if remaining_override.remaining > 0
                ]
                raise ApiError(override.status, override.body, override.headers)

    def _permitted_channel(self, request: ApiRequest, *needed: int) -> Channel:
        channel = self.state.channel(request.path_parameters["channel_id"])
        permissions = self.state.bot_permissions(channel)
        if any(not permissions & permission for permission in needed):
            raise api_error(50013)
        return channel

    def _addressed_message(self, request: ApiRequest) -> Message:
        return self.state.message(self._permitted_channel(request).id, request.path_parameters["message_id"])

    def get_channel(self, request: ApiRequest) -> Json:
        channel = self._permitted_channel(request)
        if channel.guild_id is None:
            return channel.payload()
        return self.state.guilds[channel.guild_id].channel_payload(channel, self.state.bot.id)

    def start_typing(self, request: ApiRequest) -> None:
        self._permitted_channel(request, entities.SEND_MESSAGES)

    def start_thread(self, request: ApiRequest) -> HandlerResult:
        channel = self._permitted_channel(request, entities.CREATE_PUBLIC_THREADS)
        if channel.guild_id is None:
            raise api_error(50003)
        name = str(require_object(request.body).get("name"))
        # A thread started from a message has that message's id.
        thread_id = request.path_parameters.get("message_id") or self.state.new_id()
        now = self.state.clock()
        thread = Channel(thread_id, name, channel.guild_id, parent_id=channel.id, created_at=now)
        self.state.channels[thread.id] = self.state.guilds[channel.guild_id].channels[thread.id] = thread
        self.state.gateway.send_guild_event("THREAD_CREATE", {**thread.payload(), "newly_created": True})
        return 201, thread.payload()

    def list_messages(self, request: ApiRequest) -> HandlerResult:
        channel = self._permitted_channel(request, entities.READ_MESSAGE_HISTORY)
        messages = [one for one in self.state.visible_messages(channel.id, None) if not one.ephemeral]
        if "before" in request.query:
            messages = [one for one in messages if int(one.id) < int(request.query["before"])]
        if "after" in request.query:
            messages = [one for one in messages if int(one.id) > int(request.query["after"])]
        limit = int(request.query.get("limit", "50"))
        return [message_payload(self.state, one) for one in reversed(messages[-limit:])]

    def send_message(self, request: ApiRequest) -> Json:
        body = require_object(request.body)
        needed = [entities.SEND_MESSAGES]
        if body.get("embeds"):
            needed.append(entities.EMBED_LINKS)
        if request.files:
            needed.append(entities.ATTACH_FILES)
        channel = self._permitted_channel(request, *needed)
        check_message(body, files=len(request.files))
        if channel.recipient is not None and channel.recipient.id in self.state.users_with_closed_dms:
            raise api_error(50007)
        flags = int(body.get("flags") or 0) & (SUPPRESS_EMBEDS | SILENT | COMPONENTS_V2)
        message = self.state.create_message(channel, self.state.bot, body, request.files, flags=flags)
        return message_payload(self.state, message)

    def get_message(self, request: ApiRequest) -> Json:
        self._permitted_channel(request, entities.READ_MESSAGE_HISTORY)
        return message_payload(self.state, self._addressed_message(request))

    def edit_message(self, request: ApiRequest) -> Json:
        message, body = self._addressed_message(request), require_object(request.body)
        if message.author != self.state.bot:
            raise api_error(50005)
        check_message(body, files=len(request.files), edit=True)
        return message_payload(self.state, self.state.edit_message(message, body, request.files))

    def delete_message(self, request: ApiRequest) -> None:
        message = self._addressed_message(request)
        if message.author != self.state.bot:
            if self.state.channels[message.channel_id].guild_id is None:
                raise api_error(50003)
            self._permitted_channel(request, entities.MANAGE_MESSAGES)
        self.state.delete_message(message)

    def add_reaction(self, request: ApiRequest) -> None:
        self._permitted_channel(request, entities.ADD_REACTIONS, entities.READ_MESSAGE_HISTORY)
        self._addressed_message(request).reactions.append(
            (self.state.bot.id, request.path_parameters["emoji"])
        )
