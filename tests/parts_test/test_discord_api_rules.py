"""The rules of the local Discord, tested with plain HTTP and plain websockets."""

from __future__ import annotations

import asyncio
import json
import urllib.request
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.error import HTTPError

import aiohttp
import pytest

from tests.parts.discord_api import (
    Channel,
    DiscordApi,
    Guild,
    Interaction,
    NotOffered,
    User,
    serve_discord_api,
)

Json = dict[str, Any]
SERVER_OPTION: Json = {
    "type": 3,
    "name": "server",
    "description": "Which",
    "required": True,
    "autocomplete": True,
}
CONNECT_COMMAND: Json = {"name": "connect", "description": "Connect a server", "options": [SERVER_OPTION]}
FULL_ROW = {
    "type": 1,
    "components": [{"type": 2, "style": 1, "label": "a", "custom_id": f"{n}"} for n in range(5)],
}


class ManualClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class LocalDiscord:
    """A local Discord with one guild, two users and a registered command."""

    def __init__(self, api: DiscordApi, clock: ManualClock) -> None:
        self.api, self.clock = api, clock
        self.ada: User = api.add_user("ada")
        self.bob: User = api.add_user("bob")
        self.guild: Guild = api.add_guild("Home", [self.ada, self.bob])
        self.general: Channel = self.guild.channel("general")
        status, _ = self.call("PUT", f"/applications/{api.bot.id}/commands", [CONNECT_COMMAND])
        assert status == 200

    def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, raw: bytes | None = None
    ) -> tuple[int, Any]:
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.api.url + path, data, method=method)
        request.add_header("Authorization", f"Bot {token or self.api.token}")
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                self.headers = answer.headers
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except HTTPError as error:
            with error:
                self.headers = error.headers
                return error.code, json.loads(error.read())

    def send_message(self, body: Json, channel: Channel | None = None) -> tuple[int, Any]:
        return self.call("POST", f"/channels/{(channel or self.general).id}/messages", body)

    def send_connect_command(self, user: User | None = None) -> Interaction:
        return self.api.slash(user or self.ada, self.general, "connect", server="notes")

    def respond(self, interaction: Interaction, kind: int, data: Json | None = None) -> tuple[int, Any]:
        path = f"/interactions/{interaction.id}/{interaction.token}/callback?with_response=1"
        return self.call("POST", path, {"type": kind, **({"data": data} if data is not None else {})})

    def call_webhook(
        self, interaction: Interaction, method: str, rest: str = "", body: Any = None
    ) -> tuple[int, Any]:
        return self.call(method, f"/webhooks/{self.api.bot.id}/{interaction.token}{rest}", body)


@pytest.fixture
def local_discord() -> Iterator[LocalDiscord]:
    clock = ManualClock()
    with serve_discord_api(clock=clock) as api:
        yield LocalDiscord(api, clock)


def status_and_code(answer: tuple[int, Any]) -> tuple[int, int]:
    return answer[0], answer[1]["code"]


def form_errors(errors: Json, path: str = "") -> set[tuple[str, str]]:
    """Return every error of an "Invalid Form Body" response as (path, code)."""
    errors_by_path = {(path, error["code"]) for error in errors.get("_errors", [])}
    for step, inner in errors.items():
        if step != "_errors":
            errors_by_path |= form_errors(inner, f"{path}.{step}".lstrip("."))
    return errors_by_path


def button_payload(**changes: Any) -> Json:
    return {"type": 2, "style": 1, "label": "Paste", "custom_id": "one", **changes}


def link_payload(**changes: Any) -> Json:
    return {"type": 2, "style": 5, "label": "Open", "url": "https://as.example/", **changes}


def row_payload(*parts: Json) -> Json:
    return {"components": [{"type": 1, "components": list(parts)}]}


BUTTONS_PATH = "components.0.components"


@pytest.mark.parametrize(
    ("body", "path", "code"),
    [
        ({"content": "x" * 2001}, "content", "BASE_TYPE_MAX_LENGTH"),
        ({"embeds": [{"title": "x"}] * 11}, "embeds", "BASE_TYPE_MAX_LENGTH"),
        ({"embeds": [{"title": "x" * 257}]}, "embeds.0.title", "BASE_TYPE_MAX_LENGTH"),
        ({"embeds": [{"description": "x" * 4097}]}, "embeds.0.description", "BASE_TYPE_MAX_LENGTH"),
        ({"embeds": [{"description": "x" * 3001}] * 2}, "embeds", "MAX_EMBED_SIZE_EXCEEDED"),
        ({"embeds": [{}]}, "embeds.0.description", "BASE_TYPE_REQUIRED"),
        (
            {"embeds": [{"fields": [{"name": "a", "value": "b"}] * 26}]},
            "embeds.0.fields",
            "BASE_TYPE_MAX_LENGTH",
        ),
        (
            {"embeds": [{"fields": [{"name": "x" * 257, "value": "b"}]}]},
            "embeds.0.fields.0.name",
            "BASE_TYPE_MAX_LENGTH",
        ),
        (
            {"embeds": [{"fields": [{"name": "a", "value": "x" * 1025}]}]},
            "embeds.0.fields.0.value",
            "BASE_TYPE_MAX_LENGTH",
        ),
        (
            {"embeds": [{"fields": [{"name": "a", "value": ""}]}]},
            "embeds.0.fields.0.value",
            "BASE_TYPE_REQUIRED",
        ),
        (
            {"embeds": [{"title": "a", "footer": {"text": "x" * 2049}}]},
            "embeds.0.footer.text",
            "BASE_TYPE_MAX_LENGTH",
        ),
        ({"embeds": [{"title": "a", "url": "ftp://x/"}]}, "embeds.0.url", "URL_TYPE_INVALID_SCHEME"),
        ({"components": [FULL_ROW] * 6}, "components", "BASE_TYPE_MAX_LENGTH"),
        (
            row_payload(*(button_payload(custom_id=f"{n}") for n in range(6))),
            BUTTONS_PATH,
            "BASE_TYPE_BAD_LENGTH",
        ),
        ({"components": [button_payload()]}, "components.0.type", "BASE_TYPE_CHOICES"),
        (row_payload(button_payload(label="x" * 81)), f"{BUTTONS_PATH}.0.label", "BASE_TYPE_MAX_LENGTH"),
        (row_payload(button_payload(label=None)), f"{BUTTONS_PATH}.0", "BUTTON_COMPONENT_LABEL_REQUIRED"),
        (row_payload(button_payload(style=7)), f"{BUTTONS_PATH}.0.style", "BASE_TYPE_CHOICES"),
        (
            row_payload(button_payload(custom_id="x" * 101)),
            f"{BUTTONS_PATH}.0.custom_id",
            "BASE_TYPE_BAD_LENGTH",
        ),
        (row_payload(button_payload(custom_id="")), f"{BUTTONS_PATH}.0.custom_id", "BASE_TYPE_REQUIRED"),
        (
            row_payload(button_payload(), button_payload()),
            f"{BUTTONS_PATH}.1.custom_id",
            "COMPONENT_CUSTOM_ID_DUPLICATED",
        ),
        (
            row_payload(button_payload(url="https://x.example/")),
            f"{BUTTONS_PATH}.0.url",
            "BUTTON_COMPONENT_INVALID_URL",
        ),
        (
            row_payload(link_payload(url="https://x.example/" + "x" * 495)),
            f"{BUTTONS_PATH}.0.url",
            "BASE_TYPE_MAX_LENGTH",
        ),
        (
            row_payload(link_payload(url="javascript:alert(1)")),
            f"{BUTTONS_PATH}.0.url",
            "URL_TYPE_INVALID_SCHEME",
        ),
        (row_payload(link_payload(url="https://")), f"{BUTTONS_PATH}.0.url", "URL_TYPE_INVALID_URL"),
        (row_payload(link_payload(url=None)), f"{BUTTONS_PATH}.0.url", "BASE_TYPE_REQUIRED"),
        (
            row_payload(link_payload(custom_id="a")),
            f"{BUTTONS_PATH}.0.custom_id",
            "BUTTON_COMPONENT_CUSTOM_ID_URL_MUTUALLY_EXCLUSIVE",
        ),
        (
            row_payload(
                {"type": 3, "custom_id": "m", "options": [{"label": "a", "value": f"{n}"} for n in range(26)]}
            ),
            f"{BUTTONS_PATH}.0.options",
            "BASE_TYPE_BAD_LENGTH",
        ),
        (
            row_payload({"type": 3, "custom_id": "m", "options": [{"label": "a", "value": "a"}] * 2}),
            f"{BUTTONS_PATH}.0.options.1.value",
            "SELECT_COMPONENT_OPTION_VALUE_DUPLICATED",
        ),
        (
            {"content": "x", "allowed_mentions": {"parse": ["anybody"]}},
            "allowed_mentions.parse.0",
            "BASE_TYPE_CHOICES",
        ),
        (
            {"content": "x", "allowed_mentions": {"parse": ["users"], "users": ["1"]}},
            "allowed_mentions",
            "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE",
        ),
        (
            {"content": "x", "flags": 1 << 15, "components": [{"type": 10, "content": "y"}]},
            "content",
            "MESSAGE_CANNOT_USE_LEGACY_FIELDS_WITH_COMPONENTS_V2",
        ),
    ],
)
def test_message_beyond_a_limit_is_refused_with_the_path(
    local_discord: LocalDiscord, body: Json, path: str, code: str
) -> None:
    body = {"content": "x", **body} if "components" in body and "flags" not in body else body
    status, answer = local_discord.send_message(body)
    assert (status, answer["code"], answer["message"]) == (400, 50035, "Invalid Form Body")
    assert (path, code) in form_errors(answer["errors"])
    # In an interaction response, the path of the same error starts with "data".
    status, answer = local_discord.respond(local_discord.send_connect_command(), 4, body)
    assert (status, answer["code"]) == (400, 50035)
    assert (f"data.{path}", code) in form_errors(answer["errors"])
    assert local_discord.api.messages(local_discord.general) == []


@pytest.mark.parametrize(
    "body",
    [
        {"content": "x" * 2000},
        {"embeds": [{"title": "x" * 256, "description": "x" * 4096}]},
        {"embeds": [{"fields": [{"name": "x" * 200, "value": "y"}] * 25}]},
        {
            "components": [
                {**FULL_ROW, "components": [button_payload(custom_id=f"{r}{n}") for n in range(5)]}
                for r in range(5)
            ]
        },
        row_payload(
            button_payload(label="x" * 80, custom_id="x" * 100),
            link_payload(url="https://x.example/" + "x" * 494),
        ),
        row_payload(link_payload(url="discord://-/channels/1/2")),
        {"flags": 1 << 15, "components": [{"type": 17, "components": [{"type": 10, "content": "hello"}]}]},
    ],
)
def test_message_at_the_limits_is_accepted(local_discord: LocalDiscord, body: Json) -> None:
    assert local_discord.send_message(body)[0] == 200


def test_empty_message_is_refused(local_discord: LocalDiscord) -> None:
    assert status_and_code(local_discord.send_message({"content": "  "})) == (400, 50006)
    _, sent = local_discord.send_message({"content": "x"})
    path = f"/channels/{local_discord.general.id}/messages/{sent['id']}"
    assert status_and_code(local_discord.call("PATCH", path, {"content": None})) == (400, 50006)


def input_payload(**changes: Any) -> Json:
    return {"type": 4, "style": 2, "label": "Address", "custom_id": "address", **changes}


def modal_payload(*fields: Json, **changes: Any) -> Json:
    rows = [{"type": 1, "components": [text_field]} for text_field in fields or (input_payload(),)]
    return {"title": "Paste", "custom_id": "paste:1", "components": rows, **changes}


INPUT_PATH = "data.components.0.components.0"


@pytest.mark.parametrize(
    ("modal", "path", "code"),
    [
        (modal_payload(title="x" * 46), "data.title", "BASE_TYPE_BAD_LENGTH"),
        (modal_payload(title=""), "data.title", "BASE_TYPE_REQUIRED"),
        (modal_payload(custom_id="x" * 101), "data.custom_id", "BASE_TYPE_BAD_LENGTH"),
        (
            modal_payload(*[input_payload(custom_id=f"{n}") for n in range(6)]),
            "data.components",
            "BASE_TYPE_BAD_LENGTH",
        ),
        (modal_payload(components=[]), "data.components", "BASE_TYPE_BAD_LENGTH"),
        (modal_payload(button_payload()), f"{INPUT_PATH}.type", "BASE_TYPE_CHOICES"),
        (modal_payload(input_payload(label="x" * 46)), f"{INPUT_PATH}.label", "BASE_TYPE_BAD_LENGTH"),
        (
            modal_payload(input_payload(placeholder="x" * 101)),
            f"{INPUT_PATH}.placeholder",
            "BASE_TYPE_MAX_LENGTH",
        ),
        (modal_payload(input_payload(value="x" * 4001)), f"{INPUT_PATH}.value", "BASE_TYPE_MAX_LENGTH"),
        (modal_payload(input_payload(max_length=4001)), f"{INPUT_PATH}.max_length", "NUMBER_TYPE_RANGE"),
        (
            modal_payload(
                components=[{"type": 18, "label": "x" * 46, "component": input_payload(label=None)}]
            ),
            "data.components.0.label",
            "BASE_TYPE_BAD_LENGTH",
        ),
        (
            modal_payload(input_payload(), input_payload()),
            "data.components.1.components.0.custom_id",
            "COMPONENT_CUSTOM_ID_DUPLICATED",
        ),
    ],
)
def test_modal_beyond_a_limit_is_refused(
    local_discord: LocalDiscord, modal: Json, path: str, code: str
) -> None:
    status, answer = local_discord.respond(local_discord.send_connect_command(), 9, modal)
    assert (status, answer["code"]) == (400, 50035)
    assert (path, code) in form_errors(answer["errors"])
    assert local_discord.api.open_modals(local_discord.ada) == []


def test_submitted_modal_cannot_open_a_modal(local_discord: LocalDiscord) -> None:
    interaction = local_discord.send_connect_command()
    assert local_discord.respond(interaction, 9, modal_payload(input_payload(max_length=4000)))[0] == 200
    submitted = local_discord.api.submit(
        local_discord.ada, local_discord.api.open_modals(local_discord.ada)[0], {"Address": "x" * 4000}
    )
    status, answer = local_discord.respond(submitted, 9, modal_payload())
    assert (status, answer["code"]) == (400, 50035)
    assert form_errors(answer["errors"]) == {("type", "BASE_TYPE_CHOICES")}
    assert local_discord.respond(submitted, 4, {"content": "thanks", "flags": 64})[0] == 200


def test_modal_accepts_only_valid_field_values(local_discord: LocalDiscord) -> None:
    local_discord.respond(
        local_discord.send_connect_command(), 9, modal_payload(input_payload(min_length=3, max_length=5))
    )
    (modal,) = local_discord.api.open_modals(local_discord.ada)
    for text in ("", "ab", "abcdef"):
        with pytest.raises(NotOffered):
            local_discord.api.submit(local_discord.ada, modal, {"Address": text})
    with pytest.raises(NotOffered):
        local_discord.api.submit(local_discord.bob, modal, {"Address": "abcd"})
    with pytest.raises(NotOffered):
        local_discord.api.submit(local_discord.ada, modal, {"Addres": "abcd"})
    local_discord.api.submit(local_discord.ada, modal, {"address": "abcd"})
    assert local_discord.api.open_modals(local_discord.ada) == []


def test_an_interaction_is_acknowledged_once_and_within_three_seconds(local_discord: LocalDiscord) -> None:
    interaction = local_discord.send_connect_command()
    local_discord.clock.now += 3
    assert local_discord.respond(interaction, 5)[0] == 200
    assert status_and_code(local_discord.respond(interaction, 4, {"content": "x"})) == (400, 40060)
    late_interaction = local_discord.send_connect_command()
    assert not local_discord.api.has_failed(late_interaction)
    local_discord.clock.now += 3.1
    assert status_and_code(local_discord.respond(late_interaction, 5)) == (404, 10062)
    assert local_discord.api.has_failed(late_interaction)
    assert "! The application did not respond" in local_discord.api.transcript(
        local_discord.general, seen_by=local_discord.ada
    )
    assert "! The application" not in local_discord.api.transcript(
        local_discord.general, seen_by=local_discord.bob
    )


def test_interaction_token_is_valid_for_15_minutes(local_discord: LocalDiscord) -> None:
    interaction = local_discord.send_connect_command()
    local_discord.respond(interaction, 5, {"flags": 64})
    assert "is thinking" in local_discord.api.transcript(local_discord.general, seen_by=local_discord.ada)
    local_discord.clock.now += 15 * 60
    assert (
        local_discord.call_webhook(interaction, "PATCH", "/messages/@original", {"content": "still"})[0]
        == 200
    )
    local_discord.clock.now += 1
    for method, rest in (("PATCH", "/messages/@original"), ("GET", "/messages/@original"), ("POST", "")):
        assert status_and_code(local_discord.call_webhook(interaction, method, rest, {"content": "x"})) == (
            401,
            50027,
        )


def test_webhook_call_needs_an_acknowledgement_and_the_right_application(local_discord: LocalDiscord) -> None:
    interaction = local_discord.send_connect_command()
    assert status_and_code(local_discord.call_webhook(interaction, "POST", "", {"content": "x"})) == (
        404,
        10015,
    )
    assert status_and_code(
        local_discord.call("POST", f"/webhooks/1/{interaction.token}", {"content": "x"})
    ) == (404, 10015)
    path = f"/interactions/{interaction.id}/wrong/callback"
    assert status_and_code(local_discord.call("POST", path, {"type": 5})) == (404, 10062)


def test_first_followup_replaces_a_deferred_response(local_discord: LocalDiscord) -> None:
    interaction = local_discord.send_connect_command()
    local_discord.respond(interaction, 5, {"flags": 64})
    assert local_discord.call_webhook(interaction, "POST", "", {"content": "first"})[0] == 200
    assert local_discord.call_webhook(interaction, "POST", "", {"content": "second", "flags": 64})[0] == 200
    messages = local_discord.api.messages(local_discord.general, seen_by=local_discord.ada)
    assert [one.content for one in messages] == ["first", "second"]
    assert all(one.ephemeral for one in messages)
    assert local_discord.call_webhook(interaction, "DELETE", f"/messages/{messages[1].id}")[0] == 204
    assert local_discord.call_webhook(interaction, "DELETE", "/messages/@original")[0] == 204
    assert status_and_code(local_discord.call_webhook(interaction, "GET", "/messages/@original")) == (
        404,
        10008,
    )


def test_only_the_user_and_the_token_can_access_an_ephemeral_message(local_discord: LocalDiscord) -> None:
    interaction = local_discord.send_connect_command()
    _, answer = local_discord.respond(
        interaction, 4, {"content": "for you", "flags": 64, **row_payload(button_payload())}
    )
    message_id = answer["resource"]["message"]["id"]
    assert answer["interaction"]["response_message_ephemeral"] is True
    path = f"/channels/{local_discord.general.id}/messages/{message_id}"
    for method in ("GET", "PATCH", "DELETE"):
        assert status_and_code(local_discord.call(method, path, {"content": "x"})) == (404, 10008)
    (message,) = local_discord.api.messages(local_discord.general, seen_by=local_discord.ada)
    assert local_discord.api.messages(local_discord.general, seen_by=local_discord.bob) == []
    with pytest.raises(NotOffered):
        local_discord.api.press(local_discord.bob, message, "Paste")
    local_discord.api.remove(local_discord.ada, message)
    assert local_discord.api.messages(local_discord.general, seen_by=local_discord.ada) == []
    assert local_discord.api.messages_containing("for you") == []


def test_every_user_who_sees_an_enabled_button_may_press_it(local_discord: LocalDiscord) -> None:
    local_discord.send_message(
        {
            "content": "x",
            **row_payload(
                button_payload(), link_payload(), button_payload(label="Off", custom_id="off", disabled=True)
            ),
        }
    )
    (message,) = local_discord.api.messages(local_discord.general, seen_by=local_discord.bob)
    assert local_discord.api.press(local_discord.bob, message, "Paste").user == local_discord.bob
    for name in ("Open", "Off", "Nothing"):
        with pytest.raises(NotOffered):
            local_discord.api.press(local_discord.bob, message, name)
    stranger = local_discord.api.add_user("eve")
    with pytest.raises(NotOffered):
        local_discord.api.press(stranger, message, "Paste")


def test_only_the_options_of_a_menu_can_be_chosen(local_discord: LocalDiscord) -> None:
    options = [{"label": "Notes", "value": "1"}, {"label": "Tickets", "value": "2"}]
    local_discord.send_message(
        {"content": "x", **row_payload({"type": 3, "custom_id": "which", "options": options})}
    )
    (message,) = local_discord.api.messages(local_discord.general, seen_by=local_discord.ada)
    for custom_id, value in (("which", "3"), ("what", "1")):
        with pytest.raises(NotOffered):
            local_discord.api.choose(local_discord.ada, message, custom_id, value)
    interaction = local_discord.api.choose(local_discord.ada, message, "which", "Tickets")
    assert interaction.data["values"] == ["2"]
    assert local_discord.respond(interaction, 7, {"content": "Tickets it is", "components": []})[0] == 200
    assert local_discord.api.wait_for_response(interaction).content == "Tickets it is"


def test_thread_has_its_own_messages_and_the_permissions_of_its_channel(local_discord: LocalDiscord) -> None:
    starter = local_discord.api.say(local_discord.ada, local_discord.general, "hello")
    path = f"/channels/{local_discord.general.id}/messages/{starter.id}/threads"
    status, thread_json = local_discord.call("POST", path, {"name": "aside"})
    assert (status, thread_json["id"], thread_json["parent_id"]) == (
        201,
        starter.id,
        local_discord.general.id,
    )
    thread = local_discord.guild.channel("aside")
    assert local_discord.send_message({"content": "in here"}, thread)[0] == 200
    answer = local_discord.api.say(local_discord.bob, thread, "and I")
    assert status_and_code(local_discord.call("DELETE", f"/channels/{thread.id}/messages/{answer.id}")) == (
        403,
        50013,
    )
    assert [message.content for message in local_discord.api.messages(thread, seen_by=local_discord.ada)] == [
        "in here",
        "and I",
    ]


def test_command_refuses_update_and_autocomplete_responses(local_discord: LocalDiscord) -> None:
    for kind in (6, 7, 8, 1, 99):
        assert status_and_code(
            local_discord.respond(local_discord.send_connect_command(), kind, {"content": "x"})
        ) == (400, 50035)


def test_more_than_25_choices_are_refused(local_discord: LocalDiscord) -> None:
    def respond_with_choices(count: int) -> tuple[tuple[int, Any], list[Any]]:
        with ThreadPoolExecutor(1) as pool:
            previous_count = len(local_discord.api.interactions)
            typing = pool.submit(
                local_discord.api.autocomplete,
                local_discord.ada,
                local_discord.general,
                "connect",
                "server",
                "n",
            )
            local_discord.api.wait(lambda: len(local_discord.api.interactions) > previous_count)
            interaction = local_discord.api.interactions[-1]
            listed = [{"name": f"{number}", "value": f"{number}"} for number in range(count)]
            answer = local_discord.respond(interaction, 8, {"choices": listed})
            if answer[0] != 200:
                local_discord.respond(interaction, 8, {"choices": []})
            return answer, typing.result(20)

    answer, _ = respond_with_choices(26)
    assert status_and_code(answer) == (400, 50035)
    answer, values = respond_with_choices(25)
    assert (answer[0], len(values)) == (200, 25)


@pytest.mark.parametrize(
    ("change", "path", "code"),
    [
        ({"name": "Connect"}, "0.name", "APPLICATION_COMMAND_INVALID_NAME"),
        ({"name": "a b"}, "0.name", "APPLICATION_COMMAND_INVALID_NAME"),
        ({"name": "x" * 33}, "0.name", "BASE_TYPE_BAD_LENGTH"),
        ({"description": "x" * 101}, "0.description", "BASE_TYPE_BAD_LENGTH"),
        ({"description": ""}, "0.description", "BASE_TYPE_REQUIRED"),
        ({"contexts": [3]}, "0.contexts.0", "BASE_TYPE_CHOICES"),
        ({"integration_types": [2]}, "0.integration_types.0", "BASE_TYPE_CHOICES"),
        ({"options": [{"type": 3, "name": "a", "description": "b"}] * 2}, "0.options.1.name", "*"),
        (
            {"options": [{"type": 3, "name": "a", "description": "b"}, SERVER_OPTION]},
            "0.options.1.required",
            "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID",
        ),
        (
            {"options": [{"type": 99, "name": "a", "description": "b"}]},
            "0.options.0.type",
            "BASE_TYPE_CHOICES",
        ),
        (
            {
                "options": [
                    {"type": 3, "name": "a", "description": "b", "choices": [{"name": "c", "value": ""}] * 26}
                ]
            },
            "0.options.0.choices",
            "BASE_TYPE_MAX_LENGTH",
        ),
    ],
)
def test_a_command_beyond_a_limit_is_not_registered(
    local_discord: LocalDiscord, change: Json, path: str, code: str
) -> None:
    status, answer = local_discord.call(
        "PUT", f"/applications/{local_discord.api.bot.id}/commands", [{**CONNECT_COMMAND, **change}]
    )
    assert (status, answer["code"]) == (400, 50035)
    assert any(
        error_path == path and code in {"*", error_code}
        for error_path, error_code in form_errors(answer["errors"])
    )
    assert local_discord.api.command_changes == 1


def test_commands_keep_their_ids_and_can_be_changed_singly(local_discord: LocalDiscord) -> None:
    base = f"/applications/{local_discord.api.bot.id}/commands"
    (original,) = local_discord.api.commands
    _, overwritten = local_discord.call("PUT", base, [CONNECT_COMMAND])
    assert overwritten[0]["id"] == original["id"]
    status, added = local_discord.call("POST", base, {"name": "who", "description": "Who"})
    assert status == 201
    assert local_discord.call("POST", base, {"name": "who", "description": "Who is it"})[0] == 200
    assert (
        local_discord.call("PATCH", f"{base}/{added['id']}", {"description": "Which"})[1]["description"]
        == "Which"
    )
    assert local_discord.call("DELETE", f"{base}/{added['id']}")[0] == 204
    assert status_and_code(local_discord.call("GET", f"{base}/{added['id']}")) == (404, 10063)
    assert local_discord.api.command_changes == 6
    guild = f"/applications/{local_discord.api.bot.id}/guilds/{local_discord.guild.id}/commands"
    assert local_discord.call("PUT", guild, [{"name": "here", "description": "Only here"}])[0] == 200
    assert [command["name"] for command in local_discord.api.guild_commands(local_discord.guild)] == ["here"]
    assert status_and_code(local_discord.call("GET", "/applications/1/commands")) == (404, 10002)


def test_commands_of_an_earlier_run_do_not_count_as_changes(local_discord: LocalDiscord) -> None:
    local_discord.api.register_commands({"name": "before", "description": "Before"})
    assert [command["name"] for command in local_discord.api.commands] == ["before"]
    assert local_discord.api.command_changes == 1


def test_client_offers_only_registered_and_permitted_commands(local_discord: LocalDiscord) -> None:
    with pytest.raises(NotOffered):
        local_discord.api.slash(local_discord.ada, local_discord.general, "nothing")
    with pytest.raises(NotOffered):
        local_discord.api.slash(local_discord.ada, local_discord.general, "connect")
    with pytest.raises(NotOffered):
        local_discord.api.slash(local_discord.ada, local_discord.general, "connect", server="a", other="b")
    base = f"/applications/{local_discord.api.bot.id}/commands"
    local_discord.call("PUT", base, [{**CONNECT_COMMAND, "contexts": [0], "default_member_permissions": "8"}])
    with pytest.raises(NotOffered):
        local_discord.send_connect_command()
    with pytest.raises(NotOffered):
        local_discord.api.slash(
            local_discord.ada, local_discord.api.dm(local_discord.ada), "connect", server="a"
        )


def test_missing_permissions_and_closed_dms_are_refused(local_discord: LocalDiscord) -> None:
    closed_user = local_discord.api.add_user("shut", dms_open=False)
    status, channel = local_discord.call("POST", "/users/@me/channels", {"recipient_id": closed_user.id})
    assert status == 200
    messages = f"/channels/{channel['id']}/messages"
    assert local_discord.call("POST", messages, {"content": "x"}) == (
        403,
        {"message": "Cannot send messages to this user", "code": 50007},
    )
    local_discord.api.set_dms_open(closed_user, dms_open=True)
    assert local_discord.call("POST", messages, {"content": "x"})[0] == 200
    message = local_discord.api.say(closed_user, local_discord.api.dm(closed_user), "mine")
    assert status_and_code(local_discord.call("DELETE", f"{messages}/{message.id}")) == (403, 50003)
    assert status_and_code(local_discord.call("PATCH", f"{messages}/{message.id}", {"content": "x"})) == (
        403,
        50005,
    )
    guild_message = local_discord.api.say(local_discord.ada, local_discord.general, "mine")
    assert status_and_code(
        local_discord.call("DELETE", f"/channels/{local_discord.general.id}/messages/{guild_message.id}")
    ) == (403, 50013)
    assert status_and_code(local_discord.call("POST", "/users/@me/channels", {"recipient_id": "5"})) == (
        404,
        10013,
    )
    assert status_and_code(local_discord.call("GET", "/channels/5")) == (404, 10003)
    read_only_channel = local_discord.api.add_guild(
        "Mute", [local_discord.ada], bot_permissions=1 << 10
    ).channel("general")
    assert status_and_code(local_discord.send_message({"content": "x"}, read_only_channel)) == (403, 50013)
    hidden_channel = local_discord.api.add_guild("Hidden", [local_discord.ada], bot_permissions=0).channel(
        "general"
    )
    assert status_and_code(local_discord.send_message({"content": "x"}, hidden_channel)) == (403, 50001)
    managed_channel = local_discord.api.add_guild(
        "Ruled", [local_discord.ada], bot_permissions=1 << 10 | 1 << 13
    ).channel("general")
    message = local_discord.api.say(local_discord.ada, managed_channel, "theirs")
    assert local_discord.call("DELETE", f"/channels/{managed_channel.id}/messages/{message.id}")[0] == 204
    assert local_discord.api.current(message).deleted


def test_members_and_roles_are_listed(local_discord: LocalDiscord) -> None:
    guild = local_discord.api.add_guild(
        "Roles", [local_discord.ada], roles={"admins": [local_discord.ada]}, role_permissions={"admins": 8}
    )
    status, member = local_discord.call("GET", f"/guilds/{guild.id}/members/{local_discord.ada.id}")
    assert (status, member["roles"]) == (200, [guild.role("admins").id])
    assert status_and_code(
        local_discord.call("GET", f"/guilds/{guild.id}/members/{local_discord.bob.id}")
    ) == (404, 10007)
    assert guild.permissions(local_discord.ada.id) & 1 << 13
    _, roles = local_discord.call("GET", f"/guilds/{guild.id}/roles")
    assert [role["name"] for role in roles] == ["@everyone", "admins"]
    _, members = local_discord.call("GET", f"/guilds/{guild.id}/members?limit=1000")
    assert {listed_member["user"]["username"] for listed_member in members} == {"ada", "bot"}
    assert status_and_code(local_discord.call("GET", "/guilds/5")) == (404, 10004)


def test_wrong_token_unknown_path_and_invalid_json_are_refused(local_discord: LocalDiscord) -> None:
    response = local_discord.call("GET", "/users/@me", token="wrong")
    assert response == (401, {"message": "401: Unauthorized", "code": 0})
    assert local_discord.call("GET", "/nowhere") == (404, {"message": "404: Not Found", "code": 0})
    assert local_discord.headers["Content-Type"] == "application/json"
    assert status_and_code(local_discord.call("POST", "/users/@me/channels", raw=b"{")) == (400, 50109)


def test_allowed_mentions_limit_pings(local_discord: LocalDiscord) -> None:
    text = {"content": f"hello <@{local_discord.ada.id}>"}
    assert [one["id"] for one in local_discord.send_message(text)[1]["mentions"]] == [local_discord.ada.id]
    assert local_discord.send_message({**text, "allowed_mentions": {"parse": []}})[1]["mentions"] == []
    named = {"parse": [], "users": [local_discord.ada.id]}
    assert [
        one["id"] for one in local_discord.send_message({**text, "allowed_mentions": named})[1]["mentions"]
    ] == [local_discord.ada.id]


def test_responses_name_their_bucket_and_excess_requests_are_refused(local_discord: LocalDiscord) -> None:
    local_discord.send_message({"content": "x"})
    names = ("Limit", "Remaining", "Reset", "Reset-After", "Bucket")
    assert all(local_discord.headers[f"X-RateLimit-{name}"] for name in names)
    local_discord.api.enforce_rate_limits()
    statuses = [local_discord.send_message({"content": "x"})[0] for _ in range(7)]
    assert statuses[0] == 200
    assert 429 in statuses
    status, answer = next(
        (call.status, call.response) for call in local_discord.api.calls if call.status == 429
    )
    assert status == 429
    assert answer["message"] == "You are being rate limited."
    assert 0 < answer["retry_after"] <= 5
    assert local_discord.headers["Via"]
    # Another channel has its own bucket.
    other = local_discord.api.add_guild("Other", [local_discord.ada]).channel("general")
    assert local_discord.send_message({"content": "x"}, other)[0] == 200
    assert local_discord.api.rate_limit_refusals >= 1


def test_injected_faults_refuse_the_next_requests(local_discord: LocalDiscord) -> None:
    local_discord.api.rate_limit_next("POST", "/messages", 0.01, is_global=True)
    status, answer = local_discord.send_message({"content": "x"})
    assert (status, answer["global"]) == (429, True)
    assert local_discord.headers["X-RateLimit-Global"] == "true"
    assert local_discord.headers["Retry-After"]
    local_discord.api.fail_next("*", "/messages", 502, times=2)
    assert [local_discord.send_message({"content": "x"})[0] for _ in range(3)] == [502, 502, 200]


def test_find_searches_all_traffic(local_discord: LocalDiscord) -> None:
    interaction = local_discord.send_connect_command()
    local_discord.respond(interaction, 4, {"embeds": [{"description": 'a "quoted" thing'}], "flags": 64})
    assert local_discord.api.find('"quoted" thing') == [
        f"POST /interactions/{interaction.id}/{interaction.token}/callback?with_response=1",
        *local_discord.api.find('"quoted" thing')[1:],
    ]
    assert [message.visible_to for message in local_discord.api.messages_containing('"quoted"')] == [
        local_discord.ada.id
    ]
    assert local_discord.api.find("never said") == []
    assert interaction.token not in f"{interaction!r}{local_discord.api.calls!r}"
    assert local_discord.api.token not in repr(local_discord.api.calls)


# The gateway.


class RawGateway:
    """A gateway connection without discord.py: JSON or zlib-stream."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.inflate = zlib.decompressobj()

    async def receive_frame(self) -> Json:
        received = await self.socket.receive(10)
        if received.type is aiohttp.WSMsgType.BINARY:
            assert received.data.endswith(b"\x00\x00\xff\xff")
            return dict(json.loads(self.inflate.decompress(received.data)))
        if received.type is aiohttp.WSMsgType.TEXT:
            return dict(json.loads(received.data))
        return {"op": "closed", "code": self.socket.close_code}

    async def receive_until(self, *events: object) -> Json:
        while True:
            frame = await self.receive_frame()
            if frame["op"] in events or frame.get("t") in events:
                return frame
            if frame["op"] == "closed":
                raise AssertionError(f"closed with {frame['code']}")

    async def send_frame(self, op: int, data: Any) -> None:
        await self.socket.send_str(json.dumps({"op": op, "d": data}))

    async def identify(
        self, api: DiscordApi, intents: int = 1 << 0 | 1 << 9, token: str | None = None
    ) -> None:
        await self.send_frame(2, {"token": token or api.token, "intents": intents, "properties": {}})


def connect_gateway(
    api: DiscordApi, action: Any, query: str = "?v=10&encoding=json", url: str | None = None
) -> Any:
    async def main() -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect((url or api.gateway_url) + query) as socket,
        ):
            return await action(RawGateway(socket))

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"op": 2, "d": {"token": "wrong", "intents": 1, "properties": {}}}, 4004),
        ({"op": 2, "d": {"token": "right", "intents": 1 << 15, "properties": {}}}, 4014),
        ({"op": 2, "d": {"token": "right", "intents": 1 << 40, "properties": {}}}, 4013),
        ({"op": 6, "d": {"token": "wrong", "session_id": "a", "seq": 1}}, 4004),
        ({"op": 99, "d": {}}, 4001),
        ({"op": 3, "d": {}}, 4003),
        ({"op": 1, "d": "x" * 5000}, 4002),
        ("nonsense", 4002),
    ],
)
def test_invalid_frame_closes_the_gateway_with_its_code(frame: Any, code: int) -> None:
    async def act(raw: RawGateway) -> object:
        assert (await raw.receive_frame())["op"] == 10
        await raw.socket.send_str(frame if isinstance(frame, str) else json.dumps(frame))
        while (last_frame := await raw.receive_frame())["op"] != "closed":
            pass
        return last_frame["code"]

    with serve_discord_api(token="right", privileged_intents=0) as api:
        assert connect_gateway(api, act) == code


def test_missing_heartbeats_end_the_session() -> None:
    async def act(raw: RawGateway) -> tuple[object, str]:
        await raw.identify(api)
        session = (await raw.receive_until("READY"))["d"]["session_id"]
        while (last_frame := await raw.receive_frame())["op"] != "closed":
            pass
        return last_frame["code"], session

    async def resume(raw: RawGateway) -> Json:
        await raw.send_frame(6, {"token": api.token, "session_id": session, "seq": 1})
        return await raw.receive_until(9)

    with serve_discord_api(heartbeat_seconds=0.3, heartbeat_grace_seconds=0) as api:
        code, session = connect_gateway(api, act)
        assert code == 4009
        # The second connection sends no heartbeat either.
        api.gateway.heartbeat_seconds = 60
        assert connect_gateway(api, resume)["d"] is False


@pytest.mark.parametrize("query", ["?v=10&encoding=json", "?v=10&encoding=json&compress=zlib-stream"])
def test_resume_replays_missed_events(local_discord: LocalDiscord, query: str) -> None:
    async def connect_first(raw: RawGateway) -> Json:
        await raw.identify(local_discord.api)
        ready = (await raw.receive_until("READY"))["d"]
        await raw.receive_until("GUILD_CREATE")
        # A client that will resume does not close with code 1000.
        await raw.socket.close(code=4000)
        return dict(ready)

    async def resume_session(raw: RawGateway) -> list[object]:
        await raw.send_frame(
            6, {"token": local_discord.api.token, "session_id": ready["session_id"], "seq": 2}
        )
        frames = [
            await raw.receive_until("INTERACTION_CREATE"),
            await raw.receive_until("MESSAGE_CREATE"),
            await raw.receive_until("RESUMED"),
        ]
        return [(frame["s"], frame["t"]) for frame in frames]

    async def resume_with_wrong_sequence(raw: RawGateway) -> object:
        await raw.send_frame(
            6, {"token": local_discord.api.token, "session_id": ready["session_id"], "seq": 99}
        )
        while (last_frame := await raw.receive_frame())["op"] != "closed":
            pass
        return last_frame["code"]

    ready = connect_gateway(local_discord.api, connect_first, query)
    local_discord.send_connect_command()
    local_discord.api.say(local_discord.ada, local_discord.general, "hello")
    expected = [(3, "INTERACTION_CREATE"), (4, "MESSAGE_CREATE"), (5, "RESUMED")]
    assert connect_gateway(local_discord.api, resume_with_wrong_sequence, query) == 4007
    assert connect_gateway(local_discord.api, resume_session, query, ready["resume_gateway_url"]) == expected


def test_content_needs_the_intent_a_mention_or_a_direct_message(local_discord: LocalDiscord) -> None:
    async def act(raw: RawGateway) -> list[str]:
        await raw.identify(
            local_discord.api, 1 << 0 | 1 << 9 | 1 << 12 | (1 << 15 if has_content_intent else 0)
        )
        await raw.receive_until("GUILD_CREATE")
        local_discord.api.say(local_discord.ada, local_discord.general, "plain")
        local_discord.api.say(
            local_discord.ada, local_discord.general, f"<@{local_discord.api.bot.id}> named"
        )
        local_discord.api.say(local_discord.ada, local_discord.api.dm(local_discord.ada), "direct")
        local_discord.send_message({"content": "own"})
        return [(await raw.receive_until("MESSAGE_CREATE"))["d"]["content"] for _ in range(4)]

    other_contents = [f"<@{local_discord.api.bot.id}> named", "direct", "own"]
    for has_content_intent in (False, True):
        assert connect_gateway(local_discord.api, act) == [
            "plain" if has_content_intent else "",
            *other_contents,
        ]


def test_events_without_their_intent_are_not_sent(local_discord: LocalDiscord) -> None:
    async def act(raw: RawGateway) -> list[str]:
        await raw.identify(local_discord.api, 1 << 9)
        await raw.receive_until("READY")
        message = local_discord.api.say(local_discord.ada, local_discord.api.dm(local_discord.ada), "direct")
        message = local_discord.api.say(local_discord.ada, local_discord.general, "here")
        local_discord.api.remove(local_discord.ada, message)
        return [(await raw.receive_frame())["t"] for _ in range(2)]

    assert connect_gateway(local_discord.api, act) == ["MESSAGE_CREATE", "MESSAGE_DELETE"]


def test_refuse_connections_refuses_that_many_attempts(local_discord: LocalDiscord) -> None:
    async def act(raw: RawGateway) -> Json:
        return await raw.receive_frame()

    local_discord.api.refuse_connections(2)
    for _ in range(2):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            connect_gateway(local_discord.api, act)
    assert connect_gateway(local_discord.api, act)["op"] == 10
    assert local_discord.call("GET", "/gateway")[1] == {"url": local_discord.api.gateway_url}
    assert local_discord.call("GET", "/gateway/bot")[1]["shards"] == 1
