"""Bugs, and unknown users in Hermes's events: no code reaches the model, and a group is no user."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gateway_hooks.hermes.runtime
from gateway_hooks.hermes import Plugin, internals
from gateway_hooks.hermes.agent_tool import NO_USER_TO_PROMPT, AgentLogins, ToolCall
from gateway_hooks.hermes.commands import SKIP
from gateway_hooks.hermes.runtime import GatewayRuntime
from tests.gateway_hooks.test_attacks import ANSWER_URL, make_adapter, make_source
from tests.requirements import covers


@covers("chat-ours")
def test_a_bug_while_reading_an_event_lets_no_code_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = object.__new__(GatewayRuntime)
    monkeypatch.setattr(GatewayRuntime, "sync_adapters", lambda _: 1 / 0)
    assert runtime.handle_event(SimpleNamespace(text="hello", source=None)) is None
    assert runtime.handle_event(SimpleNamespace(text=ANSWER_URL, source=None)) == SKIP
    assert runtime.handle_event(SimpleNamespace(text="right?", reply_to_text=ANSWER_URL, source=None)) == SKIP


@covers("chat-ours")
def test_a_runtime_that_cannot_start_lets_no_code_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plugin, "ensure_started", lambda *_: 1 / 0)
    plugin = Plugin()
    for event in (SimpleNamespace(text=ANSWER_URL), SimpleNamespace(text="right?", reply_to_text=ANSWER_URL)):
        assert plugin.on_pre_gateway_dispatch(event, gateway=object()) == SKIP
    assert plugin.on_pre_gateway_dispatch(SimpleNamespace(text="hello"), gateway=object()) is None


@covers("chat-ours")
def test_an_event_that_cannot_be_checked_for_a_code_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plugin, "ensure_started", lambda *_: 1 / 0)
    monkeypatch.setattr("gateway_hooks.hermes.commands.skip_if_code", lambda _: 1 / 0)
    action = Plugin().on_pre_gateway_dispatch(SimpleNamespace(text="hello"), gateway=object())
    assert action is not None
    assert action["action"] == "skip"


@covers("chat-ours")
@pytest.mark.parametrize(("platform", "action"), [("telegram", SKIP), ("webhook", None)])
def test_an_unknown_adapter_of_a_platform_with_users_lets_no_code_through(
    platform: str, action: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = object.__new__(GatewayRuntime)
    monkeypatch.setattr(GatewayRuntime, "sync_adapters", lambda _: None)
    monkeypatch.setattr(GatewayRuntime, "adapter_for_source", lambda *_: None)
    source = SimpleNamespace(platform=SimpleNamespace(value=platform))
    assert runtime.handle_event(SimpleNamespace(text=ANSWER_URL, source=source)) == action
    assert runtime.handle_event(SimpleNamespace(text="hello", source=source)) is None


@covers("hermes-moved")
def test_a_runtime_that_could_not_start_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class LateRuntime:
        starts = 0

        def __init__(self, gateway: object) -> None:
            self.gateway = gateway

        def start(self) -> None:
            LateRuntime.starts += 1
            if LateRuntime.starts == 1:
                raise RuntimeError("not yet")

        def handle_event(self, _event: object) -> None:
            """Claim nothing."""

    monkeypatch.setattr(gateway_hooks.hermes.runtime, "GatewayRuntime", LateRuntime)
    plugin, gateway = Plugin(), object()
    for _ in range(3):
        assert plugin.on_pre_gateway_dispatch(SimpleNamespace(text="hello"), gateway=gateway) is None
    assert LateRuntime.starts == 2
    assert plugin.runtime is not None


@covers("hermes-kept-out")
@pytest.mark.parametrize(
    ("platform", "source_user_id", "user_id"),
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
def test_groups_and_channels_have_no_user_id(
    tmp_path: Path, platform: str, source_user_id: Any, user_id: str
) -> None:
    assert make_adapter(tmp_path, platform).user_id_of(make_source("-1001234", source_user_id)) == user_id


@covers("hermes-asks")
def test_the_agent_prompts_no_user_in_a_turn_without_a_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    telegram, runtime = (
        make_adapter(tmp_path, "telegram", authorizes_users=True),
        object.__new__(GatewayRuntime),
    )
    turn = {"PLATFORM": "telegram", "USER_ID": "1087968824", "CHAT_ID": "-1001"}
    monkeypatch.setattr(internals, "session_value", lambda name: turn.get(name, ""))
    monkeypatch.setattr(internals, "make_source", lambda *_, **__: make_source("-1001", "1087968824"))
    for method_name in ("adapter_for_platform", "adapter_for_source"):
        monkeypatch.setattr(GatewayRuntime, method_name, lambda *_: telegram)
    agent_logins = AgentLogins(runtime)
    assert agent_logins.request_login("notes") == NO_USER_TO_PROMPT.format(server="notes")
    assert (
        agent_logins.transform_tool_result(
            ToolCall("mcp__notes__whoami", {}), {"error": "needs a login", "needs_reauth": True}, "error"
        )
        is None
    )
    assert telegram.service.blocking.logins() == []
