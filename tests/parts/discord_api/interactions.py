"""REST routes for interaction responses: the first within 3 seconds, others for 15 minutes."""

from __future__ import annotations

from typing import Any

from .commands import check_choices
from .components import check_modal, numbered
from .form import Form, refused
from .limits import COMPONENTS_V2, EPHEMERAL, LOADING, SILENT, SUPPRESS_EMBEDS, check_message
from .messages import ACKNOWLEDGE_SECONDS, TOKEN_SECONDS, Interaction, Message, Modal
from .payloads import message_payload
from .state import State
from .wire import Answer, Asked, Files, Handler
from .world import Json

COMMAND, COMPONENT, AUTOCOMPLETE, SUBMIT = 2, 3, 4, 5
# Interaction callback types.
MESSAGE, DEFERRED, DEFERRED_UPDATE, UPDATE, CHOICES, MODAL = 4, 5, 6, 7, 8, 9
ALLOWED = {
    COMMAND: (MESSAGE, DEFERRED, MODAL),
    COMPONENT: (MESSAGE, DEFERRED, DEFERRED_UPDATE, UPDATE, MODAL),
    AUTOCOMPLETE: (CHOICES,),
    SUBMIT: (MESSAGE, DEFERRED, DEFERRED_UPDATE, UPDATE),
}


class Interactions:
    """The routes that need no bot token: the interaction's token authorizes the caller."""

    def __init__(self, state: State) -> None:
        self.state = state

    def routes(self) -> list[tuple[str, str, Handler]]:
        hook = "/webhooks/{webhook_id}/{webhook_token}"
        message = hook + "/messages/{message_id}"
        return [
            ("POST", "/interactions/{webhook_id}/{webhook_token}/callback", self.callback),
            ("POST", hook, self.follow_up),
            ("GET", message, self.get),
            ("PATCH", message, self.edit),
            ("DELETE", message, self.delete),
        ]

    def callback(self, asked: Asked) -> Answer:
        """Accept the first response. Raises ApiError for a late, second or malformed one."""
        interaction = self.state.interactions.get(asked.at["webhook_id"])
        if interaction is None or interaction.token != asked.at["webhook_token"]:
            raise refused(10062)
        now = self.state.clock()
        if interaction.acknowledged_at is not None:
            raise refused(40060)
        if now - interaction.created_at > ACKNOWLEDGE_SECONDS:
            raise refused(10062)
        body = asked.body if isinstance(asked.body, dict) else {}
        kind, data = body.get("type", 0), body.get("data") or {}
        form = Form()
        allowed = ALLOWED[interaction.kind]
        if interaction.kind == SUBMIT and interaction.message is None:
            # If a command opened the modal, there is no message to update.
            allowed = (MESSAGE, DEFERRED)
        form.choice(("type",), kind, allowed)
        form.check()
        self._act(interaction, int(kind), data, asked.files)
        interaction.acknowledged_at, interaction.answer_type = now, kind
        if asked.query.get("with_response") not in {"1", "true"}:
            return None
        return self._response(interaction)

    def _act(self, interaction: Interaction, kind: int, data: Json, files: Files) -> None:
        channel = self.state.channels[interaction.channel_id]
        if kind == MESSAGE:
            check_message(data, ("data",), files=len(files))
            interaction.original = self._write(interaction, data, files)
        elif kind == DEFERRED:
            flags = int(data.get("flags") or 0) & EPHEMERAL | LOADING
            interaction.original = self.state.write(
                channel, self.state.bot, {}, interaction=interaction, flags=flags, kind=_kind(interaction)
            )
        elif kind in {UPDATE, DEFERRED_UPDATE} and interaction.message is not None:
            interaction.original = interaction.message
            if kind == UPDATE:
                check_message(data, ("data",), files=len(files), edit=True)
                self.state.change(interaction.message, data, files)
        elif kind == CHOICES:
            form = Form()
            check_choices(form, ("data", "choices"), data.get("choices") or [], _focused_type(interaction))
            form.check()
            interaction.choices = data.get("choices") or []
        elif kind == MODAL:
            check_modal(data)
            components = numbered(data["components"])
            modal = Modal(data["title"], data["custom_id"], components, interaction.user, interaction)
            interaction.modal = modal
            self.state.modals.append(modal)

    def _write(self, interaction: Interaction, body: Json, files: Files, ephemeral: int = 0) -> Message:
        channel = self.state.channels[interaction.channel_id]
        settable = SUPPRESS_EMBEDS | EPHEMERAL | SILENT | COMPONENTS_V2
        flags = int(body.get("flags") or 0) & settable | ephemeral
        kind = _kind(interaction)
        return self.state.write(
            channel, self.state.bot, body, files, interaction=interaction, flags=flags, kind=kind
        )

    def _response(self, interaction: Interaction) -> Json:
        about: Json = {"id": interaction.id, "type": interaction.kind}
        resource: Json = {"type": interaction.answer_type}
        if interaction.original is not None:
            about["response_message_id"] = interaction.original.id
            about["response_message_loading"] = interaction.original.loading
            about["response_message_ephemeral"] = interaction.original.ephemeral
            if interaction.answer_type in {MESSAGE, UPDATE, DEFERRED}:
                resource["message"] = message_payload(self.state, interaction.original)
        return {"interaction": about, "resource": resource}

    def _by_token(self, asked: Asked) -> Interaction:
        """Return the acknowledged interaction of a token; raise ApiError if it is unknown or expired."""
        found = [one for one in self.state.interactions.values() if one.token == asked.at["webhook_token"]]
        if asked.at["webhook_id"] != self.state.bot.id or not found:
            raise refused(10015)
        if self.state.clock() - found[0].created_at > TOKEN_SECONDS:
            raise refused(50027)
        if found[0].acknowledged_at is None or found[0].kind == AUTOCOMPLETE:
            raise refused(10015)
        return found[0]

    def _message(self, asked: Asked) -> Message:
        interaction = self._by_token(asked)
        message_id = asked.at["message_id"]
        if message_id == "@original":
            message = interaction.original
        else:
            own = {interaction.original.id} if interaction.original is not None else set[str]()
            known = message_id in own | set(interaction.followups)
            message = self.state.messages.get(message_id) if known else None
        if message is None or message.deleted:
            raise refused(10008)
        return message

    def follow_up(self, asked: Asked) -> Answer:
        """Create a followup message. The first one after a deferral replaces "is thinking"."""
        interaction = self._by_token(asked)
        body = asked.body if isinstance(asked.body, dict) else {}
        check_message(body, files=len(asked.files))
        original = interaction.original
        if original is not None and original.loading and not original.deleted:
            message = self.state.change(original, body, asked.files)
        else:
            message = self._write(interaction, body, asked.files)
        interaction.followups.append(message.id)
        return message_payload(self.state, message)

    def get(self, asked: Asked) -> Answer:
        return message_payload(self.state, self._message(asked))

    def edit(self, asked: Asked) -> Answer:
        message = self._message(asked)
        body = asked.body if isinstance(asked.body, dict) else {}
        check_message(body, files=len(asked.files), edit=True)
        return message_payload(self.state, self.state.change(message, body, asked.files))

    def delete(self, asked: Asked) -> None:
        self.state.delete(self._message(asked))


def _kind(interaction: Interaction) -> int:
    """Return the message type of a response: 20 (CHAT_INPUT_COMMAND) to a command, otherwise 0."""
    return 20 if interaction.kind == COMMAND else 0


def _focused_type(interaction: Interaction) -> Any:
    options = list(interaction.data.get("options") or [])
    while options:
        option = options.pop()
        if option.get("focused"):
            return option["type"]
        options += option.get("options") or []
    return 3
