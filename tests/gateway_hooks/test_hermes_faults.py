"""What Hermes hands over when something is not as it should be: no code goes on, and nobody is somebody."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gateway_hooks.hermes.runtime
from gateway_hooks.hermes import Plugin, internals
from gateway_hooks.hermes.agent_tool import NO_USER_TO_PROMPT, AgentLogins
from gateway_hooks.hermes.commands import SKIP
from gateway_hooks.hermes.runtime import GatewayRuntime
from tests.gateway_hooks.test_attacks import ADDRESS, place, seat
from tests.requirements import covers


@covers("chat-ours")
def test_a_fault_at_a_message_of_hermes_lets_no_code_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inside = object.__new__(GatewayRuntime)
    monkeypatch.setattr(GatewayRuntime, "sync_adapters", lambda _: 1 / 0)
    assert inside.handle_event(SimpleNamespace(text="hello", source=None)) is None
    assert inside.handle_event(SimpleNamespace(text=ADDRESS, source=None)) == SKIP
    assert inside.handle_event(SimpleNamespace(text="right?", reply_to_text=ADDRESS, source=None)) == SKIP


@covers("chat-ours")
def test_a_gateway_that_cannot_be_attended_lets_no_code_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plugin, "ensure_started", lambda *_: 1 / 0)
    plugin = Plugin()
    for event in (SimpleNamespace(text=ADDRESS), SimpleNamespace(text="right?", reply_to_text=ADDRESS)):
        assert plugin.on_pre_gateway_dispatch(event, gateway=object()) == SKIP
    assert plugin.on_pre_gateway_dispatch(SimpleNamespace(text="hello"), gateway=object()) is None


@covers("chat-ours")
def test_where_nothing_can_be_told_from_a_code_nothing_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plugin, "ensure_started", lambda *_: 1 / 0)
    monkeypatch.setattr("gateway_hooks.hermes.commands.skip_if_code", lambda _: 1 / 0)
    said = Plugin().on_pre_gateway_dispatch(SimpleNamespace(text="hello"), gateway=object())
    assert said is not None
    assert said["action"] == "skip"


@covers("chat-ours")
@pytest.mark.parametrize(("platform", "said"), [("telegram", SKIP), ("webhook", None)])
def test_an_adapter_that_is_not_known_yet_lets_no_person_s_code_through(
    platform: str, said: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = object.__new__(GatewayRuntime)
    monkeypatch.setattr(GatewayRuntime, "sync_adapters", lambda _: None)
    monkeypatch.setattr(GatewayRuntime, "adapter_for_source", lambda *_: None)
    source = SimpleNamespace(platform=SimpleNamespace(value=platform))
    assert inside.handle_event(SimpleNamespace(text=ADDRESS, source=source)) == said
    assert inside.handle_event(SimpleNamespace(text="hello", source=source)) is None


@covers("hermes-moved")
def test_a_gateway_that_could_not_be_attended_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late:
        starts = 0

        def __init__(self, gateway: object) -> None:
            self.gateway = gateway

        def start(self) -> None:
            Late.starts += 1
            if Late.starts == 1:
                raise RuntimeError("not yet")

        def hear(self, _event: object) -> None:
            """Take nothing."""

    monkeypatch.setattr(gateway_hooks.hermes.runtime, "GatewayRuntime", Late)
    plugin, gateway = Plugin(), object()
    for _ in range(3):
        assert plugin.on_pre_gateway_dispatch(SimpleNamespace(text="hello"), gateway=gateway) is None
    assert Late.starts == 2
    assert plugin.runtime is not None


@covers("hermes-kept-out")
@pytest.mark.parametrize(
    ("platform", "user", "speaker"),
    [
        ("telegram", "42", "42"),
        ("telegram", "1087968824", ""),
        ("telegram", "136817688", ""),
        ("telegram", "777000", ""),
        ("telegram", "-1001234", ""),
        ("telegram", None, ""),
        ("signal", "-1001234", "-1001234"),
        ("signal", "777000", "777000"),
    ],
)
def test_groups_and_channels_are_nobody(tmp_path: Path, platform: str, user: Any, speaker: str) -> None:
    assert seat(tmp_path, platform).user_id_of(place("-1001234", user)) == speaker


@covers("hermes-asks")
def test_where_nobody_speaks_the_agent_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    telegram, inside = seat(tmp_path, "telegram", listens=True), object.__new__(GatewayRuntime)
    turn = {"PLATFORM": "telegram", "USER_ID": "1087968824", "CHAT_ID": "-1001"}
    monkeypatch.setattr(internals, "session_value", lambda name: turn.get(name, ""))
    monkeypatch.setattr(internals, "make_source", lambda *_, **__: place("-1001", "1087968824"))
    for find in ("adapter_for_platform", "adapter_for_source"):
        monkeypatch.setattr(GatewayRuntime, find, lambda *_: telegram)
    asks = AgentLogins(inside)
    assert asks.request_login("notes") == NO_USER_TO_PROMPT.format(server="notes")
    assert (
        asks.transform_tool_result(
            "mcp__notes__whoami", {"error": "needs a login", "needs_reauth": True}, "error"
        )
        is None
    )
    assert telegram.service.logins() == []
