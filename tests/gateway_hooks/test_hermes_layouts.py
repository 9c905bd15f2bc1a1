"""The plugin in the layout of a later Hermes, with a plain-text adapter, in this process."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.hermes import internals
from gateway_hooks.hermes.internals import ADAPTER_ATTRIBUTES, GATEWAY_ATTRIBUTES, NAMES, PLATFORM_ATTRIBUTES
from hermes_mcp_auth_remote.service.default import service_at
from tests.consent_form import approve
from tests.parts.authorization_server import Demo
from tests.parts.fake_model import FakeModel, ToolCall, serve_fake_model
from tests.parts.hermes_stand_in import mcp_client
from tests.parts.hermes_stand_in.gateway import MessageEvent, Platform
from tests.parts.hermes_stand_in.plain_text import (
    PlainTextAdapter,
    run_plain_gateway,
    write_settings,
)
from tests.parts.hermes_stand_in.sources import NOT_READ, SOURCES
from tests.requirements import covers

pytestmark = pytest.mark.slow

WHOAMI = ToolCall("mcp__notes__whoami")
CONNECT = ToolCall("connect_mcp_server", {"server": "notes"})
# Without these names, the plugin says that no user can log in from a chat.
NEEDED_FOR_LOGINS = {"SessionSource", "policy_for_source"}
# Without these names, a login works, but the server's tools do not appear.
NEEDED_FOR_TOOLS = {"discover_mcp_tools", "get_mcp_status"}


@pytest.fixture(scope="module")
def model() -> Iterator[FakeModel]:
    with serve_fake_model() as fake_model:
        yield fake_model


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch, model: FakeModel) -> None:
    """Forget what an earlier test has logged, stored in memory and queued."""
    monkeypatch.setattr(internals, "_logged_warnings", set[str]())
    service_at.cache_clear()
    model.reset()


async def log_in(adapter: PlainTextAdapter, user: str = "U1", server: str = "notes") -> str:
    """Log in with the command and a paste; return the id of the message with the paste."""
    await adapter.say(user, f"/mcpauth {server}")
    return await answer_prompt(adapter, user, server)


async def answer_prompt(adapter: PlainTextAdapter, user: str = "U1", server: str = "notes") -> str:
    prompt = await adapter.wait_for(user, f"Connect {server}")
    url = next(word for word in prompt.split() if "code_challenge" in word)
    message_id = await adapter.say(user, await asyncio.to_thread(approve, url))
    await adapter.wait_for(user, f"{server}: connected")
    return message_id


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


async def wait_for_log(caplog: pytest.LogCaptureFixture, text: str, seconds: float = 20.0) -> str:
    """Wait until a log record contains a text; return its message."""

    def messages() -> list[str]:
        return [record.getMessage() for record in list(caplog.records) if text in record.getMessage()]

    await asyncio.to_thread(wait_until, lambda: bool(messages()), seconds)
    return messages()[0]


@covers("hermes-layouts", "hermes-belt", "hermes-waits", "hermes-live")
def test_a_plain_text_platform_from_the_agents_question_to_its_answer(
    tmp_path: Path,
    demo: Demo,
    model: FakeModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_settings(tmp_path, {"notes": demo.mcp_url}, model.url)

    async def main() -> None:
        async with run_plain_gateway(tmp_path, monkeypatch) as gateway:
            slack = gateway.add_adapter()
            # The first connection fails because there is no token, and Hermes pauses.
            await asyncio.to_thread(mcp_client.discover_mcp_tools)
            assert "notes" in mcp_client.connect_retry_after
            model.queue_steps(CONNECT, WHOAMI, "You are Ada.")
            await slack.say("U1", "Who am I?")
            paste_id = await answer_prompt(slack)
            await slack.wait_for("U1", "You are Ada.")
            assert "ada@example.com" in model.tool_results()[-1]
            assert slack.messages[paste_id].is_deleted
            line = await wait_for_log(caplog, "The plugin runs in")
            assert "Hermes Agent 0.21.3, layout 0.21; all its parts were found." in line
            # A group conversation of Slack gets no link.
            await slack.say("U2", "/mcpauth disconnect notes", chat_id="C1")
            await slack.wait_for("U2", "I cannot write to you yet", chat_id="C1")

    asyncio.run(main())


@covers("hermes-waits", "hermes-asks")
def test_a_failed_call_is_repeated_by_the_model_if_a_hook_has_little_time(
    tmp_path: Path,
    demo: Demo,
    model: FakeModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_settings(tmp_path, {"notes": demo.mcp_url}, model.url)

    async def main() -> None:
        async with run_plain_gateway(tmp_path, monkeypatch) as gateway:
            slack = gateway.add_adapter()
            await log_in(slack)
            await wait_for_log(caplog, "The tools of notes are loaded.")
            demo.authorization_server.ledger.revoke_everything()
            model.queue_steps("Hello.")
            await slack.say("U1", "Good morning.")
            await slack.wait_for("U1", "Hello.")
            slack.messages.clear()
            model.queue_steps(WHOAMI, CONNECT, WHOAMI, "You are Ada.")
            await slack.say("U1", "Who am I?")
            await asyncio.to_thread(
                wait_until, lambda: model.has_received("Call the tool connect_mcp_server")
            )
            await answer_prompt(slack)
            await slack.wait_for("U1", "You are Ada.")
            first, second, third = model.tool_results()[-3:]
            assert "Call the tool connect_mcp_server" in first
            assert "Call its tools now." in second
            assert "ada@example.com" in third

    asyncio.run(main())


REMOVABLE = sorted(name for name, hermes_name in NAMES.items() if hermes_name.consequence)


@covers("hermes-moved", "hermes-layouts")
@pytest.mark.parametrize("name", REMOVABLE)
def test_without_one_name_one_line_says_what_is_lost_and_the_rest_works(
    tmp_path: Path,
    demo: Demo,
    model: FakeModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    caplog.set_level(logging.INFO)
    write_settings(tmp_path, {"notes": demo.mcp_url}, model.url)

    async def main() -> None:
        async with run_plain_gateway(tmp_path, monkeypatch, without=[name]) as gateway:
            slack = gateway.add_adapter()
            model.queue_steps("Hello.")
            await slack.say("U1", "Good morning.")
            await slack.wait_for("U1", "Hello.")
            line = await wait_for_log(caplog, "The plugin runs in")
            others = [other for other in REMOVABLE if f"Hermes has no {other} in" in line]
            assert others == [name]
            assert NAMES[name].consequence in line
            if name in NEEDED_FOR_LOGINS:
                return
            await log_in(slack)
            if name not in NEEDED_FOR_TOOLS:
                await wait_for_log(caplog, "The tools of notes are loaded.")
            model.queue_steps("Still here.")
            await slack.say("U1", "Are you there?")
            await slack.wait_for("U1", "Still here.")
            # Only the line at the start reports the missing name.
            warnings = [
                record.getMessage() for record in caplog.records if f"no {name} in" in record.getMessage()
            ]
            assert len(warnings) == 1

    asyncio.run(main())


@covers("hermes-moved", "hermes-layouts")
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(REMOVABLE)))
def test_without_a_name_that_the_plugin_can_do_without_nothing_is_lost(
    tmp_path: Path,
    demo: Demo,
    model: FakeModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    caplog.set_level(logging.INFO)
    write_settings(tmp_path, {"notes": demo.mcp_url}, model.url)

    async def main() -> None:
        async with run_plain_gateway(tmp_path, monkeypatch, without=[name]) as gateway:
            slack = gateway.add_adapter()
            await asyncio.to_thread(mcp_client.discover_mcp_tools)
            await log_in(slack)
            await wait_for_log(caplog, "The tools of notes are loaded.")
            assert "all its parts were found." in await wait_for_log(caplog, "The plugin runs in")
            await assert_agent_uses_tools(slack, model)

    asyncio.run(main())


async def assert_agent_uses_tools(adapter: PlainTextAdapter, model: FakeModel) -> None:
    model.queue_steps(WHOAMI, "You are Ada.")
    await adapter.say("U1", "Who am I?")
    await adapter.wait_for("U1", "You are Ada.")
    assert "ada@example.com" in model.tool_results()[-1]


OWNERS_OF_ATTRIBUTES = {
    **dict.fromkeys(GATEWAY_ATTRIBUTES, "gateway"),
    **dict.fromkeys(ADAPTER_ATTRIBUTES, "slack adapter"),
}


@covers("hermes-moved", "hermes-layouts")
@pytest.mark.parametrize("name", sorted(OWNERS_OF_ATTRIBUTES))
def test_without_one_attribute_one_line_says_what_is_lost_and_the_rest_works(
    tmp_path: Path,
    demo: Demo,
    model: FakeModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    caplog.set_level(logging.INFO)
    write_settings(tmp_path, {"notes": demo.mcp_url}, model.url)
    consequence = {**GATEWAY_ATTRIBUTES, **ADAPTER_ATTRIBUTES}[name]

    async def main() -> None:
        async with run_plain_gateway(tmp_path, monkeypatch, without=[name]) as gateway:
            slack = gateway.add_adapter()
            model.queue_steps("Hello.")
            await slack.say("U1", "Good morning.")
            await slack.wait_for("U1", "Hello.")
            line = await wait_for_log(caplog, "The plugin runs in")
            assert f"Hermes's {OWNERS_OF_ATTRIBUTES[name]} has no {name}: {consequence}." in line
            assert line.count(" has no ") == 1
            if name == "_is_user_authorized":
                await slack.say("U1", "/mcpauth notes")
            elif name == "config":
                await slack.say("U1", "/mcpauth")
                await slack.wait_for("U1", "notes: `not connected`")
            else:
                await log_in(slack)
                await wait_for_log(caplog, "The tools of notes are loaded.")
                await assert_agent_uses_tools(slack, model)
            model.queue_steps("Still here.")
            await slack.say("U1", "Are you there?")
            await slack.wait_for("U1", "Still here.")
            # Without its rules, no user gets a link.
            has_connected = any("notes: connected" in message.text for message in slack.messages.values())
            assert has_connected is (name not in {"_is_user_authorized", "config"})
            assert not any("code_challenge" in message.text for message in slack.messages.values())

    asyncio.run(main())


@covers("hermes-story")
def test_the_command_has_a_help(
    tmp_path: Path, demo: Demo, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_settings(tmp_path, {"notes": demo.mcp_url}, model.url)

    async def main() -> None:
        async with run_plain_gateway(tmp_path, monkeypatch) as gateway:
            slack = gateway.add_adapter()
            await slack.say("U1", "/mcpauth help")
            help_text = await slack.wait_for("U1", ENGLISH.help_title)
            assert "/mcpauth connect" in help_text
            await slack.say("U3", "/mcpauth help")
            await slack.say("U1", "/mcpauth list")
            await slack.wait_for("U1", "Connections")
            assert [message for message in slack.messages.values() if message.chat_id == "DU3"][1:] == []

    asyncio.run(main())


@covers("hermes-layouts")
def test_each_name_that_the_plugin_uses_has_its_source() -> None:
    used = {*NAMES, *GATEWAY_ATTRIBUTES, *ADAPTER_ATTRIBUTES}
    for attributes in PLATFORM_ATTRIBUTES.values():
        used |= set(attributes)
    assert used - set(SOURCES) - NOT_READ == set()
    assert not NOT_READ & set(SOURCES)


class RelayingAdapter(PlainTextAdapter):
    """An adapter of a Hermes that itself reads the pasted addresses of its own logins."""

    def __init__(self, platform: Platform, profile: str = "") -> None:
        super().__init__(platform, profile)
        self.taken: list[str] = []

    async def relay_oauth_callback(self, text: str) -> bool:
        self.taken.append(text)
        return True

    async def handle_message(self, event: MessageEvent) -> None:
        if "state=of-hermes" in event.text:
            await self.relay_oauth_callback(event.text)
            return
        await super().handle_message(event)


@covers("hermes-relay")
def test_the_plugin_leaves_hermes_the_addresses_of_its_own_logins(
    tmp_path: Path,
    demo: Demo,
    model: FakeModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    write_settings(tmp_path, {"notes": demo.mcp_url}, model.url)

    async def main() -> None:
        async with run_plain_gateway(tmp_path, monkeypatch) as gateway:
            adapter = gateway.add_adapter(kind=RelayingAdapter)
            assert isinstance(adapter, RelayingAdapter)
            await log_in(adapter)
            assert "Hermes takes pasted addresses of its own logins" in await wait_for_log(
                caplog, "The plugin runs in"
            )
            count = len(adapter.messages)
            address = "http://127.0.0.1:1/callback?code=a-code-of-hermes&state=of-hermes"
            message_id = await adapter.say("U1", address)
            # This address also reaches the hook, because Hermes's own handler may run after the hook.
            other_id = await adapter.say("U1", address.replace("of-hermes", "of-another"))
            await adapter.wait_for("U1", "Understood.")
            assert adapter.taken == [address]
            assert not adapter.messages[message_id].is_deleted
            assert not adapter.messages[other_id].is_deleted
            assert len(adapter.messages) == count + 3

    asyncio.run(main())


@covers("hermes-profiles")
def test_a_login_of_a_profile_is_stored_and_connected_in_that_profile(
    tmp_path: Path,
    demo: Demo,
    model: FakeModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    profile_home = tmp_path / "profiles" / "work"
    write_settings(tmp_path, {"private": demo.mcp_url}, model.url)
    write_settings(profile_home, {"notes": demo.mcp_url}, model.url)

    async def main() -> None:
        async with run_plain_gateway(tmp_path, monkeypatch) as gateway:
            main_adapter, work = gateway.add_adapter(), gateway.add_adapter(profile="work")
            await main_adapter.say("U1", "/mcpauth notes")
            await main_adapter.wait_for("U1", "Which server")
            assert not any("code_challenge" in message.text for message in main_adapter.messages.values())
            await log_in(work)
            await wait_for_log(caplog, "The tools of notes are loaded.")
            assert (profile_home / "mcp-tokens" / "notes.json").exists()
            assert not (tmp_path / "mcp-tokens" / "notes.json").exists()
            assert (str(profile_home), "notes") in mcp_client.servers
            model.queue_steps(WHOAMI, "You are Ada.")
            await work.say("U1", "Who am I?")
            await work.wait_for("U1", "You are Ada.")
            assert "ada@example.com" in model.tool_results()[-1]

    asyncio.run(main())


@covers("hermes-profiles")
def test_two_gateways_with_their_own_homes_do_not_see_each_others_logins(
    tmp_path: Path, demo: Demo, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(home: Path, *, logs_in: bool) -> None:
        write_settings(home, {"notes": demo.mcp_url}, model.url)
        async with run_plain_gateway(home, monkeypatch) as gateway:
            slack = gateway.add_adapter()
            if logs_in:
                await log_in(slack)
            else:
                await slack.say("U1", "/mcpauth")
                await slack.wait_for("U1", "notes: `not connected`")

    first, second = tmp_path / "first", tmp_path / "second"
    asyncio.run(run(first, logs_in=True))
    asyncio.run(run(second, logs_in=False))
    assert (first / "mcp-tokens" / "notes.json").exists()
    assert not (second / "mcp-tokens" / "notes.json").exists()
