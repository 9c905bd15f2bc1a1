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

from tests.parts.discord_api import Channel, DiscordApi, Guild, Interaction, NotOffered, User, running

Json = dict[str, Any]
WHICH: Json = {"type": 3, "name": "server", "description": "Which", "required": True, "autocomplete": True}
COMMAND: Json = {"name": "connect", "description": "Connect a server", "options": [WHICH]}
FULL_ROW = {
    "type": 1,
    "components": [{"type": 2, "style": 1, "label": "a", "custom_id": f"{n}"} for n in range(5)],
}


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Home:
    """A local Discord with one guild, two users and a registered command."""

    def __init__(self, api: DiscordApi, clock: Clock) -> None:
        self.api, self.clock = api, clock
        self.ada: User = api.user("ada")
        self.bob: User = api.user("bob")
        self.guild: Guild = api.guild("Home", [self.ada, self.bob])
        self.general: Channel = self.guild.channel("general")
        status, _ = self.call("PUT", f"/applications/{api.bot.id}/commands", [COMMAND])
        assert status == 200

    def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, raw: bytes | None = None
    ) -> tuple[int, Any]:
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.api.url + path, data, method=method)
        request.add_header("Authorization", f"Bot {token or self.api.token}")
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                self.headers = answer.headers
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except HTTPError as error:
            with error:
                self.headers = error.headers
                return error.code, json.loads(error.read())

    def send(self, body: Json, channel: Channel | None = None) -> tuple[int, Any]:
        return self.call("POST", f"/channels/{(channel or self.general).id}/messages", body)

    def connect(self, user: User | None = None) -> Interaction:
        return self.api.slash(user or self.ada, self.general, "connect", server="notes")

    def answer(self, asked: Interaction, kind: int, data: Json | None = None) -> tuple[int, Any]:
        path = f"/interactions/{asked.id}/{asked.token}/callback?with_response=1"
        return self.call("POST", path, {"type": kind, **({"data": data} if data is not None else {})})

    def hook(self, asked: Interaction, method: str, rest: str = "", body: Any = None) -> tuple[int, Any]:
        return self.call(method, f"/webhooks/{self.api.bot.id}/{asked.token}{rest}", body)


@pytest.fixture
def home() -> Iterator[Home]:
    clock = Clock()
    with running(clock=clock) as api:
        yield Home(api, clock)


def refusal(answer: tuple[int, Any]) -> tuple[int, int]:
    return answer[0], answer[1]["code"]


def mistakes(errors: Json, path: str = "") -> set[tuple[str, str]]:
    """Return every error of an "Invalid Form Body" response as (path, code)."""
    found = {(path, one["code"]) for one in errors.get("_errors", [])}
    for step, inner in errors.items():
        if step != "_errors":
            found |= mistakes(inner, f"{path}.{step}".lstrip("."))
    return found


def button(**changes: Any) -> Json:
    return {"type": 2, "style": 1, "label": "Paste", "custom_id": "one", **changes}


def link(**changes: Any) -> Json:
    return {"type": 2, "style": 5, "label": "Open", "url": "https://as.example/", **changes}


def row(*parts: Json) -> Json:
    return {"components": [{"type": 1, "components": list(parts)}]}


B = "components.0.components"


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
        (row(*(button(custom_id=f"{n}") for n in range(6))), B, "BASE_TYPE_BAD_LENGTH"),
        ({"components": [button()]}, "components.0.type", "BASE_TYPE_CHOICES"),
        (row(button(label="x" * 81)), f"{B}.0.label", "BASE_TYPE_MAX_LENGTH"),
        (row(button(label=None)), f"{B}.0", "BUTTON_COMPONENT_LABEL_REQUIRED"),
        (row(button(style=7)), f"{B}.0.style", "BASE_TYPE_CHOICES"),
        (row(button(custom_id="x" * 101)), f"{B}.0.custom_id", "BASE_TYPE_BAD_LENGTH"),
        (row(button(custom_id="")), f"{B}.0.custom_id", "BASE_TYPE_REQUIRED"),
        (row(button(), button()), f"{B}.1.custom_id", "COMPONENT_CUSTOM_ID_DUPLICATED"),
        (row(button(url="https://x.example/")), f"{B}.0.url", "BUTTON_COMPONENT_INVALID_URL"),
        (row(link(url="https://x.example/" + "x" * 495)), f"{B}.0.url", "BASE_TYPE_MAX_LENGTH"),
        (row(link(url="javascript:alert(1)")), f"{B}.0.url", "URL_TYPE_INVALID_SCHEME"),
        (row(link(url="https://")), f"{B}.0.url", "URL_TYPE_INVALID_URL"),
        (row(link(url=None)), f"{B}.0.url", "BASE_TYPE_REQUIRED"),
        (row(link(custom_id="a")), f"{B}.0.custom_id", "BUTTON_COMPONENT_CUSTOM_ID_URL_MUTUALLY_EXCLUSIVE"),
        (
            row(
                {"type": 3, "custom_id": "m", "options": [{"label": "a", "value": f"{n}"} for n in range(26)]}
            ),
            f"{B}.0.options",
            "BASE_TYPE_BAD_LENGTH",
        ),
        (
            row({"type": 3, "custom_id": "m", "options": [{"label": "a", "value": "a"}] * 2}),
            f"{B}.0.options.1.value",
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
def test_a_message_beyond_a_limit_is_refused_in_its_place(
    home: Home, body: Json, path: str, code: str
) -> None:
    body = {"content": "x", **body} if "components" in body and "flags" not in body else body
    status, answer = home.send(body)
    assert (status, answer["code"], answer["message"]) == (400, 50035, "Invalid Form Body")
    assert (path, code) in mistakes(answer["errors"])
    # In an interaction response, the path of the same error starts with "data".
    status, answer = home.answer(home.connect(), 4, body)
    assert (status, answer["code"]) == (400, 50035)
    assert (f"data.{path}", code) in mistakes(answer["errors"])
    assert home.api.messages(home.general) == []


@pytest.mark.parametrize(
    "body",
    [
        {"content": "x" * 2000},
        {"embeds": [{"title": "x" * 256, "description": "x" * 4096}]},
        {"embeds": [{"fields": [{"name": "x" * 200, "value": "y"}] * 25}]},
        {
            "components": [
                {**FULL_ROW, "components": [button(custom_id=f"{r}{n}") for n in range(5)]} for r in range(5)
            ]
        },
        row(button(label="x" * 80, custom_id="x" * 100), link(url="https://x.example/" + "x" * 494)),
        row(link(url="discord://-/channels/1/2")),
        {"flags": 1 << 15, "components": [{"type": 17, "components": [{"type": 10, "content": "hello"}]}]},
    ],
)
def test_a_message_at_its_limits_is_taken(home: Home, body: Json) -> None:
    assert home.send(body)[0] == 200


def test_nothing_is_not_a_message(home: Home) -> None:
    assert refusal(home.send({"content": "  "})) == (400, 50006)
    _, sent = home.send({"content": "x"})
    path = f"/channels/{home.general.id}/messages/{sent['id']}"
    assert refusal(home.call("PATCH", path, {"content": None})) == (400, 50006)


def text_input(**changes: Any) -> Json:
    return {"type": 4, "style": 2, "label": "Address", "custom_id": "address", **changes}


def window(*fields: Json, **changes: Any) -> Json:
    rows = [{"type": 1, "components": [one]} for one in fields or (text_input(),)]
    return {"title": "Paste", "custom_id": "paste:1", "components": rows, **changes}


M = "data.components.0.components.0"


@pytest.mark.parametrize(
    ("modal", "path", "code"),
    [
        (window(title="x" * 46), "data.title", "BASE_TYPE_BAD_LENGTH"),
        (window(title=""), "data.title", "BASE_TYPE_REQUIRED"),
        (window(custom_id="x" * 101), "data.custom_id", "BASE_TYPE_BAD_LENGTH"),
        (
            window(*[text_input(custom_id=f"{n}") for n in range(6)]),
            "data.components",
            "BASE_TYPE_BAD_LENGTH",
        ),
        (window(components=[]), "data.components", "BASE_TYPE_BAD_LENGTH"),
        (window(button()), f"{M}.type", "BASE_TYPE_CHOICES"),
        (window(text_input(label="x" * 46)), f"{M}.label", "BASE_TYPE_BAD_LENGTH"),
        (window(text_input(placeholder="x" * 101)), f"{M}.placeholder", "BASE_TYPE_MAX_LENGTH"),
        (window(text_input(value="x" * 4001)), f"{M}.value", "BASE_TYPE_MAX_LENGTH"),
        (window(text_input(max_length=4001)), f"{M}.max_length", "NUMBER_TYPE_RANGE"),
        (
            window(components=[{"type": 18, "label": "x" * 46, "component": text_input(label=None)}]),
            "data.components.0.label",
            "BASE_TYPE_BAD_LENGTH",
        ),
        (
            window(text_input(), text_input()),
            "data.components.1.components.0.custom_id",
            "COMPONENT_CUSTOM_ID_DUPLICATED",
        ),
    ],
)
def test_a_window_beyond_a_limit_is_refused(home: Home, modal: Json, path: str, code: str) -> None:
    status, answer = home.answer(home.connect(), 9, modal)
    assert (status, answer["code"]) == (400, 50035)
    assert (path, code) in mistakes(answer["errors"])
    assert home.api.modals(home.ada) == []


def test_a_window_may_not_answer_a_window(home: Home) -> None:
    asked = home.connect()
    assert home.answer(asked, 9, window(text_input(max_length=4000)))[0] == 200
    submitted = home.api.submit(home.ada, home.api.modals(home.ada)[0], {"Address": "x" * 4000})
    status, answer = home.answer(submitted, 9, window())
    assert (status, answer["code"]) == (400, 50035)
    assert mistakes(answer["errors"]) == {("type", "BASE_TYPE_CHOICES")}
    assert home.answer(submitted, 4, {"content": "thanks", "flags": 64})[0] == 200


def test_a_window_takes_what_its_fields_allow(home: Home) -> None:
    home.answer(home.connect(), 9, window(text_input(min_length=3, max_length=5)))
    (modal,) = home.api.modals(home.ada)
    for text in ("", "ab", "abcdef"):
        with pytest.raises(NotOffered):
            home.api.submit(home.ada, modal, {"Address": text})
    with pytest.raises(NotOffered):
        home.api.submit(home.bob, modal, {"Address": "abcd"})
    with pytest.raises(NotOffered):
        home.api.submit(home.ada, modal, {"Addres": "abcd"})
    home.api.submit(home.ada, modal, {"address": "abcd"})
    assert home.api.modals(home.ada) == []


def test_an_interaction_is_acknowledged_once_and_within_three_seconds(home: Home) -> None:
    asked = home.connect()
    home.clock.now += 3
    assert home.answer(asked, 5)[0] == 200
    assert refusal(home.answer(asked, 4, {"content": "x"})) == (400, 40060)
    late = home.connect()
    assert not home.api.failed(late)
    home.clock.now += 3.1
    assert refusal(home.answer(late, 5)) == (404, 10062)
    assert home.api.failed(late)
    assert "! The application did not respond" in home.api.transcript(home.general, seen_by=home.ada)
    assert "! The application" not in home.api.transcript(home.general, seen_by=home.bob)


def test_an_interactions_token_lasts_fifteen_minutes(home: Home) -> None:
    asked = home.connect()
    home.answer(asked, 5, {"flags": 64})
    assert "is thinking" in home.api.transcript(home.general, seen_by=home.ada)
    home.clock.now += 15 * 60
    assert home.hook(asked, "PATCH", "/messages/@original", {"content": "still"})[0] == 200
    home.clock.now += 1
    for method, rest in (("PATCH", "/messages/@original"), ("GET", "/messages/@original"), ("POST", "")):
        assert refusal(home.hook(asked, method, rest, {"content": "x"})) == (401, 50027)


def test_a_token_answers_nothing_before_the_acknowledgement_and_no_other_application(home: Home) -> None:
    asked = home.connect()
    assert refusal(home.hook(asked, "POST", "", {"content": "x"})) == (404, 10015)
    assert refusal(home.call("POST", f"/webhooks/1/{asked.token}", {"content": "x"})) == (404, 10015)
    path = f"/interactions/{asked.id}/wrong/callback"
    assert refusal(home.call("POST", path, {"type": 5})) == (404, 10062)


def test_the_first_followup_takes_the_place_of_a_deferred_answer(home: Home) -> None:
    asked = home.connect()
    home.answer(asked, 5, {"flags": 64})
    assert home.hook(asked, "POST", "", {"content": "first"})[0] == 200
    assert home.hook(asked, "POST", "", {"content": "second", "flags": 64})[0] == 200
    shown = home.api.messages(home.general, seen_by=home.ada)
    assert [one.content for one in shown] == ["first", "second"]
    assert all(one.ephemeral for one in shown)
    assert home.hook(asked, "DELETE", f"/messages/{shown[1].id}")[0] == 204
    assert home.hook(asked, "DELETE", "/messages/@original")[0] == 204
    assert refusal(home.hook(asked, "GET", "/messages/@original")) == (404, 10008)


def test_an_ephemeral_message_is_its_users_and_its_tokens_alone(home: Home) -> None:
    asked = home.connect()
    _, answer = home.answer(asked, 4, {"content": "for you", "flags": 64, **row(button())})
    message_id = answer["resource"]["message"]["id"]
    assert answer["interaction"]["response_message_ephemeral"] is True
    path = f"/channels/{home.general.id}/messages/{message_id}"
    for method in ("GET", "PATCH", "DELETE"):
        assert refusal(home.call(method, path, {"content": "x"})) == (404, 10008)
    (seen,) = home.api.messages(home.general, seen_by=home.ada)
    assert home.api.messages(home.general, seen_by=home.bob) == []
    with pytest.raises(NotOffered):
        home.api.press(home.bob, seen, "Paste")
    home.api.remove(home.ada, seen)
    assert home.api.messages(home.general, seen_by=home.ada) == []
    assert home.api.standing("for you") == []


def test_anybody_who_sees_a_button_may_press_it_unless_it_is_disabled(home: Home) -> None:
    home.send({"content": "x", **row(button(), link(), button(label="Off", custom_id="off", disabled=True))})
    (message,) = home.api.messages(home.general, seen_by=home.bob)
    assert home.api.press(home.bob, message, "Paste").user == home.bob
    for name in ("Open", "Off", "Nothing"):
        with pytest.raises(NotOffered):
            home.api.press(home.bob, message, name)
    stranger = home.api.user("eve")
    with pytest.raises(NotOffered):
        home.api.press(stranger, message, "Paste")


def test_a_menu_offers_its_options(home: Home) -> None:
    options = [{"label": "Notes", "value": "1"}, {"label": "Tickets", "value": "2"}]
    home.send({"content": "x", **row({"type": 3, "custom_id": "which", "options": options})})
    (message,) = home.api.messages(home.general, seen_by=home.ada)
    for custom_id, value in (("which", "3"), ("what", "1")):
        with pytest.raises(NotOffered):
            home.api.choose(home.ada, message, custom_id, value)
    picked = home.api.choose(home.ada, message, "which", "Tickets")
    assert picked.data["values"] == ["2"]
    assert home.answer(picked, 7, {"content": "Tickets it is", "components": []})[0] == 200
    assert home.api.answer(picked).content == "Tickets it is"


def test_a_thread_is_a_channel_under_the_permissions_of_its_own(home: Home) -> None:
    said = home.api.say(home.ada, home.general, "hello")
    path = f"/channels/{home.general.id}/messages/{said.id}/threads"
    status, made = home.call("POST", path, {"name": "aside"})
    assert (status, made["id"], made["parent_id"]) == (201, said.id, home.general.id)
    thread = home.guild.channel("aside")
    assert home.send({"content": "in here"}, thread)[0] == 200
    answer = home.api.say(home.bob, thread, "and I")
    assert refusal(home.call("DELETE", f"/channels/{thread.id}/messages/{answer.id}")) == (403, 50013)
    assert [one.content for one in home.api.messages(thread, seen_by=home.ada)] == ["in here", "and I"]


def test_an_update_is_no_answer_to_a_command_and_choices_only_to_typing(home: Home) -> None:
    for kind in (6, 7, 8, 1, 99):
        assert refusal(home.answer(home.connect(), kind, {"content": "x"})) == (400, 50035)


def test_more_than_25_choices_are_refused(home: Home) -> None:
    def typed(count: int) -> tuple[tuple[int, Any], list[Any]]:
        with ThreadPoolExecutor(1) as pool:
            known = len(home.api.interactions)
            typing = pool.submit(home.api.autocomplete, home.ada, home.general, "connect", "server", "n")
            home.api.wait(lambda: len(home.api.interactions) > known)
            asked = home.api.interactions[-1]
            listed = [{"name": f"{number}", "value": f"{number}"} for number in range(count)]
            answer = home.answer(asked, 8, {"choices": listed})
            if answer[0] != 200:
                home.answer(asked, 8, {"choices": []})
            return answer, typing.result(10)

    answer, _ = typed(26)
    assert refusal(answer) == (400, 50035)
    answer, values = typed(25)
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
            {"options": [{"type": 3, "name": "a", "description": "b"}, WHICH]},
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
def test_a_command_beyond_a_limit_is_not_registered(home: Home, change: Json, path: str, code: str) -> None:
    status, answer = home.call("PUT", f"/applications/{home.api.bot.id}/commands", [{**COMMAND, **change}])
    assert (status, answer["code"]) == (400, 50035)
    assert any(where == path and code in {"*", what} for where, what in mistakes(answer["errors"]))
    assert home.api.syncs == 1


def test_commands_keep_their_ids_and_are_changed_one_by_one(home: Home) -> None:
    base = f"/applications/{home.api.bot.id}/commands"
    (before,) = home.api.commands
    _, again = home.call("PUT", base, [COMMAND])
    assert again[0]["id"] == before["id"]
    status, added = home.call("POST", base, {"name": "who", "description": "Who"})
    assert status == 201
    assert home.call("POST", base, {"name": "who", "description": "Who is it"})[0] == 200
    assert home.call("PATCH", f"{base}/{added['id']}", {"description": "Which"})[1]["description"] == "Which"
    assert home.call("DELETE", f"{base}/{added['id']}")[0] == 204
    assert refusal(home.call("GET", f"{base}/{added['id']}")) == (404, 10063)
    assert home.api.syncs == 6
    guild = f"/applications/{home.api.bot.id}/guilds/{home.guild.id}/commands"
    assert home.call("PUT", guild, [{"name": "here", "description": "Only here"}])[0] == 200
    assert [one["name"] for one in home.api.guild_commands(home.guild)] == ["here"]
    assert refusal(home.call("GET", "/applications/1/commands")) == (404, 10002)


def test_commands_of_an_earlier_run_are_no_sync(home: Home) -> None:
    home.api.register({"name": "before", "description": "Before"})
    assert [one["name"] for one in home.api.commands] == ["before"]
    assert home.api.syncs == 1


def test_a_client_offers_what_is_registered_and_allowed(home: Home) -> None:
    with pytest.raises(NotOffered):
        home.api.slash(home.ada, home.general, "nothing")
    with pytest.raises(NotOffered):
        home.api.slash(home.ada, home.general, "connect")
    with pytest.raises(NotOffered):
        home.api.slash(home.ada, home.general, "connect", server="a", other="b")
    base = f"/applications/{home.api.bot.id}/commands"
    home.call("PUT", base, [{**COMMAND, "contexts": [0], "default_member_permissions": "8"}])
    with pytest.raises(NotOffered):
        home.connect()
    with pytest.raises(NotOffered):
        home.api.slash(home.ada, home.api.dm(home.ada), "connect", server="a")


def test_permissions_and_direct_messages(home: Home) -> None:
    shut = home.api.user("shut", dms_open=False)
    status, channel = home.call("POST", "/users/@me/channels", {"recipient_id": shut.id})
    assert status == 200
    messages = f"/channels/{channel['id']}/messages"
    assert home.call("POST", messages, {"content": "x"}) == (
        403,
        {"message": "Cannot send messages to this user", "code": 50007},
    )
    home.api.set_dms_open(shut, dms_open=True)
    assert home.call("POST", messages, {"content": "x"})[0] == 200
    said = home.api.say(shut, home.api.dm(shut), "mine")
    assert refusal(home.call("DELETE", f"{messages}/{said.id}")) == (403, 50003)
    assert refusal(home.call("PATCH", f"{messages}/{said.id}", {"content": "x"})) == (403, 50005)
    theirs = home.api.say(home.ada, home.general, "mine")
    assert refusal(home.call("DELETE", f"/channels/{home.general.id}/messages/{theirs.id}")) == (403, 50013)
    assert refusal(home.call("POST", "/users/@me/channels", {"recipient_id": "5"})) == (404, 10013)
    assert refusal(home.call("GET", "/channels/5")) == (404, 10003)
    mute = home.api.guild("Mute", [home.ada], bot_permissions=1 << 10).channel("general")
    assert refusal(home.send({"content": "x"}, mute)) == (403, 50013)
    hidden = home.api.guild("Hidden", [home.ada], bot_permissions=0).channel("general")
    assert refusal(home.send({"content": "x"}, hidden)) == (403, 50001)
    ruled = home.api.guild("Ruled", [home.ada], bot_permissions=1 << 10 | 1 << 13).channel("general")
    said = home.api.say(home.ada, ruled, "theirs")
    assert home.call("DELETE", f"/channels/{ruled.id}/messages/{said.id}")[0] == 204
    assert home.api.fresh(said).deleted


def test_members_and_roles(home: Home) -> None:
    guild = home.api.guild("Roles", [home.ada], roles={"admins": [home.ada]}, role_permissions={"admins": 8})
    status, member = home.call("GET", f"/guilds/{guild.id}/members/{home.ada.id}")
    assert (status, member["roles"]) == (200, [guild.role("admins").id])
    assert refusal(home.call("GET", f"/guilds/{guild.id}/members/{home.bob.id}")) == (404, 10007)
    assert guild.permissions(home.ada.id) & 1 << 13
    _, roles = home.call("GET", f"/guilds/{guild.id}/roles")
    assert [role["name"] for role in roles] == ["@everyone", "admins"]
    _, members = home.call("GET", f"/guilds/{guild.id}/members?limit=1000")
    assert {one["user"]["username"] for one in members} == {"ada", "bot"}
    assert refusal(home.call("GET", "/guilds/5")) == (404, 10004)


def test_who_does_not_say_the_token_is_nobody(home: Home) -> None:
    wrong = home.call("GET", "/users/@me", token="wrong")
    assert wrong == (401, {"message": "401: Unauthorized", "code": 0})
    assert home.call("GET", "/nowhere") == (404, {"message": "404: Not Found", "code": 0})
    assert home.headers["Content-Type"] == "application/json"
    assert refusal(home.call("POST", "/users/@me/channels", raw=b"{")) == (400, 50109)


def test_a_ping_is_one_that_allowed_mentions_lets_through(home: Home) -> None:
    text = {"content": f"hello <@{home.ada.id}>"}
    assert [one["id"] for one in home.send(text)[1]["mentions"]] == [home.ada.id]
    assert home.send({**text, "allowed_mentions": {"parse": []}})[1]["mentions"] == []
    named = {"parse": [], "users": [home.ada.id]}
    assert [one["id"] for one in home.send({**text, "allowed_mentions": named})[1]["mentions"]] == [
        home.ada.id
    ]


def test_every_answer_tells_its_bucket_and_too_many_are_refused(home: Home) -> None:
    home.send({"content": "x"})
    names = ("Limit", "Remaining", "Reset", "Reset-After", "Bucket")
    assert all(home.headers[f"X-RateLimit-{name}"] for name in names)
    home.api.enforce_rate_limits()
    statuses = [home.send({"content": "x"})[0] for _ in range(7)]
    assert statuses[0] == 200
    assert 429 in statuses
    status, answer = next((call.status, call.answer) for call in home.api.calls if call.status == 429)
    assert status == 429
    assert answer["message"] == "You are being rate limited."
    assert 0 < answer["retry_after"] <= 5
    assert home.headers["Via"]
    # Another channel has its own bucket.
    other = home.api.guild("Other", [home.ada]).channel("general")
    assert home.send({"content": "x"}, other)[0] == 200
    assert home.api.refused_by_rate_limit >= 1


def test_knobs_refuse_the_next_requests(home: Home) -> None:
    home.api.limit_next("POST", "/messages", 0.01, everywhere=True)
    status, answer = home.send({"content": "x"})
    assert (status, answer["global"]) == (429, True)
    assert home.headers["X-RateLimit-Global"] == "true"
    assert home.headers["Retry-After"]
    home.api.fail_next("*", "/messages", 502, times=2)
    assert [home.send({"content": "x"})[0] for _ in range(3)] == [502, 502, 200]


def test_what_was_ever_said_is_found(home: Home) -> None:
    asked = home.connect()
    home.answer(asked, 4, {"embeds": [{"description": 'a "quoted" thing'}], "flags": 64})
    assert home.api.find('"quoted" thing') == [
        f"POST /interactions/{asked.id}/{asked.token}/callback?with_response=1",
        *home.api.find('"quoted" thing')[1:],
    ]
    assert [one.only_for for one in home.api.standing('"quoted"')] == [home.ada.id]
    assert home.api.find("never said") == []
    assert asked.token not in f"{asked!r}{home.api.calls!r}"
    assert home.api.token not in repr(home.api.calls)


# The gateway.


class Raw:
    """A gateway connection without discord.py: JSON or zlib-stream."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.inflate = zlib.decompressobj()

    async def frame(self) -> Json:
        received = await self.socket.receive(10)
        if received.type is aiohttp.WSMsgType.BINARY:
            assert received.data.endswith(b"\x00\x00\xff\xff")
            return dict(json.loads(self.inflate.decompress(received.data)))
        if received.type is aiohttp.WSMsgType.TEXT:
            return dict(json.loads(received.data))
        return {"op": "closed", "code": self.socket.close_code}

    async def until(self, *events: object) -> Json:
        while True:
            frame = await self.frame()
            if frame["op"] in events or frame.get("t") in events:
                return frame
            if frame["op"] == "closed":
                raise AssertionError(f"closed with {frame['code']}")

    async def send(self, op: int, data: Any) -> None:
        await self.socket.send_str(json.dumps({"op": op, "d": data}))

    async def identify(
        self, api: DiscordApi, intents: int = 1 << 0 | 1 << 9, token: str | None = None
    ) -> None:
        await self.send(2, {"token": token or api.token, "intents": intents, "properties": {}})


def gateway(api: DiscordApi, act: Any, query: str = "?v=10&encoding=json", url: str | None = None) -> Any:
    async def main() -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect((url or api.gateway_url) + query) as socket,
        ):
            return await act(Raw(socket))

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
def test_a_wrong_frame_closes_the_gateway_with_its_code(frame: Any, code: int) -> None:
    async def act(raw: Raw) -> object:
        assert (await raw.frame())["op"] == 10
        await raw.socket.send_str(frame if isinstance(frame, str) else json.dumps(frame))
        while (got := await raw.frame())["op"] != "closed":
            pass
        return got["code"]

    with running(token="right", privileged_intents=0) as api:
        assert gateway(api, act) == code


def test_who_does_not_beat_is_closed_and_must_begin_anew() -> None:
    async def act(raw: Raw) -> tuple[object, str]:
        await raw.identify(api)
        session = (await raw.until("READY"))["d"]["session_id"]
        while (got := await raw.frame())["op"] != "closed":
            pass
        return got["code"], session

    async def resume(raw: Raw) -> Json:
        await raw.send(6, {"token": api.token, "session_id": session, "seq": 1})
        return await raw.until(9)

    with running(heartbeat_seconds=0.05, heartbeat_grace_seconds=0) as api:
        code, session = gateway(api, act)
        assert code == 4009
        assert gateway(api, resume)["d"] is False


@pytest.mark.parametrize("query", ["?v=10&encoding=json", "?v=10&encoding=json&compress=zlib-stream"])
def test_what_was_missed_is_told_after_a_resume(home: Home, query: str) -> None:
    async def first(raw: Raw) -> Json:
        await raw.identify(home.api)
        ready = (await raw.until("READY"))["d"]
        await raw.until("GUILD_CREATE")
        # Like a client that will resume: not with close code 1000.
        await raw.socket.close(code=4000)
        return dict(ready)

    async def second(raw: Raw) -> list[object]:
        await raw.send(6, {"token": home.api.token, "session_id": ready["session_id"], "seq": 2})
        told = [
            await raw.until("INTERACTION_CREATE"),
            await raw.until("MESSAGE_CREATE"),
            await raw.until("RESUMED"),
        ]
        return [(one["s"], one["t"]) for one in told]

    async def late(raw: Raw) -> object:
        await raw.send(6, {"token": home.api.token, "session_id": ready["session_id"], "seq": 99})
        while (got := await raw.frame())["op"] != "closed":
            pass
        return got["code"]

    ready = gateway(home.api, first, query)
    home.connect()
    home.api.say(home.ada, home.general, "hello")
    expected = [(3, "INTERACTION_CREATE"), (4, "MESSAGE_CREATE"), (5, "RESUMED")]
    assert gateway(home.api, late, query) == 4007
    assert gateway(home.api, second, query, ready["resume_gateway_url"]) == expected


def test_content_is_told_where_the_intent_or_a_mention_or_a_direct_message_lets_it(home: Home) -> None:
    async def act(raw: Raw) -> list[str]:
        await raw.identify(home.api, 1 << 0 | 1 << 9 | 1 << 12 | (1 << 15 if content else 0))
        await raw.until("GUILD_CREATE")
        home.api.say(home.ada, home.general, "plain")
        home.api.say(home.ada, home.general, f"<@{home.api.bot.id}> named")
        home.api.say(home.ada, home.api.dm(home.ada), "direct")
        home.send({"content": "own"})
        return [(await raw.until("MESSAGE_CREATE"))["d"]["content"] for _ in range(4)]

    told = [f"<@{home.api.bot.id}> named", "direct", "own"]
    for content in (False, True):
        assert gateway(home.api, act) == ["plain" if content else "", *told]


def test_a_message_that_nobody_asked_for_is_not_told(home: Home) -> None:
    async def act(raw: Raw) -> list[str]:
        await raw.identify(home.api, 1 << 9)
        await raw.until("READY")
        said = home.api.say(home.ada, home.api.dm(home.ada), "direct")
        said = home.api.say(home.ada, home.general, "here")
        home.api.remove(home.ada, said)
        return [(await raw.frame())["t"] for _ in range(2)]

    assert gateway(home.api, act) == ["MESSAGE_CREATE", "MESSAGE_DELETE"]


def test_a_refused_connection_is_refused_as_often_as_asked(home: Home) -> None:
    async def act(raw: Raw) -> Json:
        return await raw.frame()

    home.api.refuse_connections(2)
    for _ in range(2):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            gateway(home.api, act)
    assert gateway(home.api, act)["op"] == 10
    assert home.call("GET", "/gateway")[1] == {"url": home.api.gateway_url}
    assert home.call("GET", "/gateway/bot")[1]["shards"] == 1
