"""REST routes for interaction responses: the first within 3 seconds, others for 15 minutes."""

from __future__ import annotations

from typing import Any

from .commands import check_choices
from .components import assign_ids, check_modal
from .entities import Json
from .form_errors import FormErrors, api_error
from .limits import COMPONENTS_V2, EPHEMERAL, LOADING, SILENT, SUPPRESS_EMBEDS, check_message
from .messages import ACKNOWLEDGE_SECONDS, TOKEN_SECONDS, Interaction, Message, Modal
from .payloads import message_payload
from .state import State
from .wire import ApiRequest, Files, Handler, HandlerResult

COMMAND, COMPONENT, AUTOCOMPLETE, SUBMIT = 2, 3, 4, 5
# Interaction callback types.
MESSAGE, DEFERRED, DEFERRED_UPDATE, UPDATE, CHOICES, MODAL = 4, 5, 6, 7, 8, 9
ALLOWED_RESPONSES = {
    COMMAND: (MESSAGE, DEFERRED, MODAL),
    COMPONENT: (MESSAGE, DEFERRED, DEFERRED_UPDATE, UPDATE, MODAL),
    AUTOCOMPLETE: (CHOICES,),
    SUBMIT: (MESSAGE, DEFERRED, DEFERRED_UPDATE, UPDATE),
}


class InteractionRoutes:
    """The routes that need no bot token: the interaction's token authorizes the caller."""

    def __init__(self, state: State) -> None:
        self.state = state

    def routes(self) -> list[tuple[str, str, Handler]]:
        webhook = "/webhooks/{webhook_id}/{webhook_token}"
        message = webhook + "/messages/{message_id}"
        return [
            ("POST", "/interactions/{webhook_id}/{webhook_token}/callback", self.respond),
            ("POST", webhook, self.create_followup),
            ("GET", message, self.get_message),
            ("PATCH", message, self.edit_message),
            ("DELETE", message, self.delete_message),
        ]

    def respond(self, request: ApiRequest) -> HandlerResult:
        """Accept the first response. Raises ApiError for a late, second or malformed one."""
        interaction = self.state.interactions.get(request.path_parameters["webhook_id"])
        if interaction is None or interaction.token != request.path_parameters["webhook_token"]:
            raise api_error(10062)
        now = self.state.clock()
        if interaction.acknowledged_at is not None:
            raise api_error(40060)
        if now - interaction.created_at > ACKNOWLEDGE_SECONDS:
            raise api_error(10062)
        body = request.body if isinstance(request.body, dict) else {}
        kind, data = body.get("type", 0), body.get("data") or {}
        form = FormErrors()
        allowed = ALLOWED_RESPONSES[interaction.kind]
        if interaction.kind == SUBMIT and interaction.message is None:
            # If a command opened the modal, there is no message to update.
            allowed = (MESSAGE, DEFERRED)
        form.check_choice(("type",), kind, allowed)
        form.raise_errors()
        self._apply_response(interaction, int(kind), data, request.files)
        interaction.acknowledged_at, interaction.response_type = now, kind
        if request.query.get("with_response") not in {"1", "true"}:
            return None
        return self._callback_response(interaction)

    def _apply_response(self, interaction: Interaction, kind: int, data: Json, files: Files) -> None:
        channel = self.state.channels[interaction.channel_id]
        if kind == MESSAGE:
            check_message(data, ("data",), files=len(files))
            interaction.original = self._create_message(interaction, data, files)
        elif kind == DEFERRED:
            flags = int(data.get("flags") or 0) & EPHEMERAL | LOADING
            interaction.original = self.state.create_message(
                channel,
                self.state.bot,
                {},
                interaction=interaction,
                flags=flags,
                kind=_message_type(interaction),
            )
        elif kind in {UPDATE, DEFERRED_UPDATE} and interaction.message is not None:
            interaction.original = interaction.message
            if kind == UPDATE:
                check_message(data, ("data",), files=len(files), edit=True)
                self.state.edit_message(interaction.message, data, files)
        elif kind == CHOICES:
            form = FormErrors()
            check_choices(form, ("data", "choices"), data.get("choices") or [], _focused_type(interaction))
            form.raise_errors()
            interaction.choices = data.get("choices") or []
        elif kind == MODAL:
            check_modal(data)
            components = assign_ids(data["components"])
            modal = Modal(data["title"], data["custom_id"], components, interaction.user, interaction)
            interaction.modal = modal
            self.state.modals.append(modal)

    def _create_message(
        self, interaction: Interaction, body: Json, files: Files, ephemeral: int = 0
    ) -> Message:
        channel = self.state.channels[interaction.channel_id]
        settable_flags = SUPPRESS_EMBEDS | EPHEMERAL | SILENT | COMPONENTS_V2
        flags = int(body.get("flags") or 0) & settable_flags | ephemeral
        kind = _message_type(interaction)
        return self.state.create_message(
            channel, self.state.bot, body, files, interaction=interaction, flags=flags, kind=kind
        )

    def _callback_response(self, interaction: Interaction) -> Json:
        interaction_json: Json = {"id": interaction.id, "type": interaction.kind}
        resource: Json = {"type": interaction.response_type}
        if interaction.original is not None:
            interaction_json["response_message_id"] = interaction.original.id
            interaction_json["response_message_loading"] = interaction.original.loading
            interaction_json["response_message_ephemeral"] = interaction.original.ephemeral
            if interaction.response_type in {MESSAGE, UPDATE, DEFERRED}:
                resource["message"] = message_payload(self.state, interaction.original)
        return {"interaction": interaction_json, "resource": resource}

    def _interaction_of_token(self, request: ApiRequest) -> Interaction:
        """Return the acknowledged interaction of a token; raise ApiError if it is unknown or expired."""
        interactions = [
            interaction
            for interaction in self.state.interactions.values()
            if interaction.token == request.path_parameters["webhook_token"]
        ]
        if request.path_parameters["webhook_id"] != self.state.bot.id or not interactions:
            raise api_error(10015)
        if self.state.clock() - interactions[0].created_at > TOKEN_SECONDS:
            raise api_error(50027)
        if interactions[0].acknowledged_at is None or interactions[0].kind == AUTOCOMPLETE:
            raise api_error(10015)
        return interactions[0]

    def _addressed_message(self, request: ApiRequest) -> Message:
        interaction = self._interaction_of_token(request)
        message_id = request.path_parameters["message_id"]
        if message_id == "@original":
            message = interaction.original
        else:
            original_ids = {interaction.original.id} if interaction.original is not None else set[str]()
            is_own = message_id in original_ids | set(interaction.followups)
            message = self.state.messages.get(message_id) if is_own else None
        if message is None or message.deleted:
            raise api_error(10008)
        return message

    def create_followup(self, request: ApiRequest) -> HandlerResult:
        """Create a followup message. After a deferral, the first followup replaces "is thinking"."""
        interaction = self._interaction_of_token(request)
        body = request.body if isinstance(request.body, dict) else {}
        check_message(body, files=len(request.files))
        original = interaction.original
        if original is not None and original.loading and not original.deleted:
            message = self.state.edit_message(original, body, request.files)
        else:
            message = self._create_message(interaction, body, request.files)
        interaction.followups.append(message.id)
        return message_payload(self.state, message)

    def get_message(self, request: ApiRequest) -> HandlerResult:
        return message_payload(self.state, self._addressed_message(request))

    def edit_message(self, request: ApiRequest) -> HandlerResult:
        message = self._addressed_message(request)
        body = request.body if isinstance(request.body, dict) else {}
        check_message(body, files=len(request.files), edit=True)
        return message_payload(self.state, self.state.edit_message(message, body, request.files))

    def delete_message(self, request: ApiRequest) -> None:
        self.state.delete_message(self._addressed_message(request))


def _message_type(interaction: Interaction) -> int:
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
