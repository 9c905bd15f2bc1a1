"""Inside Hermes, the plugin judges a message once, and reads no file for this on the gateway's event loop."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway_hooks.dialog import intents
from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.hermes import adapter as adapter_module
from gateway_hooks.hermes import internals
from gateway_hooks.hermes.adapter import HermesAdapter
from gateway_hooks.hermes.agent_tool import request_login
from gateway_hooks.hermes.commands import SKIP
from gateway_hooks.hermes.internals import AdapterRef
from gateway_hooks.hermes.login_cache import LoginCache
from gateway_hooks.hermes.policy import HermesPolicy
from gateway_hooks.runtime import dispatcher as dispatcher_module
from gateway_hooks.runtime import held_parts
from gateway_hooks.runtime.config_servers import ConfigServers
from gateway_hooks.runtime.login_actions import LoginActions
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from tests.consent_form import approve
from tests.parts.authorization_server import Demo
from tests.parts.watched_store import LoopWatch
from tests.requirements import covers

FILE_EVENTS = frozenset({"open", "os.listdir", "os.scandir", "os.remove", "os.rename"})


class FileWatch:
    """The paths below a folder that this process reads on one thread, while `is_on`."""

    def __init__(self) -> None:
        self.folder = ""
        self.thread_id = 0
        self.paths: list[str] = []
        sys.addaudithook(self._on_event)

    def _on_event(self, name: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder or name not in FILE_EVENTS or threading.get_ident() != self.thread_id:
            return
        path = arguments[0] if arguments else ""
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if text.startswith(self.folder):
            self.paths.append(f"{name} {text}")


# An audit hook cannot be removed.
watch = FileWatch()


@contextmanager
def watch_files_of_this_thread(folder: Path) -> Iterator[list[str]]:
    watch.folder, watch.thread_id, watch.paths = str(folder), threading.get_ident(), []
    try:
        yield watch.paths
    finally:
        watch.folder = ""


class PlainAdapter:
    """An adapter of Hermes that sends nothing, and records the events that it gets back."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.has_sent = asyncio.Event()
        self.returned: list[Any] = []

    async def send(self, _chat_id: str, text: str, **_: object) -> SimpleNamespace:
        self.sent.append(text)
        self.has_sent.set()
        return SimpleNamespace(success=True, message_id=str(len(self.sent)))

    async def edit_message(self, _chat_id: str, _message_id: str, text: str) -> SimpleNamespace:
        self.sent.append(text)
        return SimpleNamespace(success=True, message_id="1")

    async def delete_message(self, _chat_id: str, _message_id: str) -> bool:
        return True

    async def handle_message(self, event: Any) -> None:
        self.returned.append(event)


class Policy(HermesPolicy):
    def may_talk(self, _sender: object) -> bool:
        return True

    def may_run(self, _sender: object) -> bool:
        return True

    def may_change(self, _sender: object) -> bool:
        return True


def write_settings(home: Path, demo: Demo) -> None:
    home.mkdir(exist_ok=True)
    (home / "config.yaml").write_text(f"mcp_servers:\n  notes: {{url: '{demo.mcp_url}', auth: oauth}}\n")


def make_adapter(
    home: Path, monkeypatch: pytest.MonkeyPatch, service: AuthService | None = None
) -> tuple[HermesAdapter, PlainAdapter]:
    monkeypatch.setattr(adapter_module, "HermesPolicy", Policy)
    monkeypatch.setattr(internals, "make_source", lambda *_, **__: make_event("").source)
    platform_adapter = PlainAdapter()
    ref = AdapterRef(platform_adapter, SimpleNamespace(value="signal"))
    cache = LoginCache(service or AuthService(home), ConfigServers(home))
    return HermesAdapter(SimpleNamespace(config=None), ref, cache), platform_adapter


def make_event(text: str, **fields: object) -> Any:
    source = SimpleNamespace(
        user_id="42", chat_id="42", chat_type="dm", thread_id=None, profile=None, platform="signal"
    )
    return SimpleNamespace(source=source, text=text, message_id="7", **fields)


async def settle(adapter: HermesAdapter) -> None:
    while adapter._tasks:
        await asyncio.gather(*list(adapter._tasks))
        # On Python 3.12, `gather` of finished tasks does not yield, and their callbacks remove them.
        await asyncio.sleep(0)


@covers("hermes-loop")
def test_messages_are_judged_without_reading_a_file_on_the_event_loop(
    tmp_path: Path, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_settings(tmp_path, demo)

    async def main() -> None:
        adapter, platform_adapter = make_adapter(tmp_path, monkeypatch)
        await adapter.login_cache.refresh()
        with watch_files_of_this_thread(tmp_path) as paths:
            assert adapter.handle_event(make_event("/mcpauth notes")) == SKIP
            await settle(adapter)
            prompt = platform_adapter.sent[-1]
            url = next(word for word in prompt.split() if "code_challenge" in word)
            assert adapter.handle_event(make_event("hello\nhow are you?\nwell?")) is None
            address = await asyncio.to_thread(approve, url)
            # Send a merged message. The cache has the login, because it was read before the prompt was sent.
            action = adapter.handle_event(make_event(f"here\n{address}\nthat was it"))
            assert action == {"action": "rewrite", "text": "here\nthat was it"}
            await settle(adapter)
            assert paths == []
        assert (tmp_path / "mcp-tokens" / "notes.json").exists()

    asyncio.run(main())


@covers("hermes-loop", "loop-and-store")
def test_a_login_never_calls_the_store_on_the_event_loop(
    tmp_path: Path, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_settings(tmp_path, demo)
    watch = LoopWatch()
    service = AuthService(store=watch.wrap(FileStore(tmp_path)))

    async def main() -> None:
        watch.watch_this_loop()
        adapter, platform_adapter = make_adapter(tmp_path, monkeypatch, service)
        for text in ("hello", "/mcpauth notes"):
            adapter.handle_event(make_event(text))
            await settle(adapter)
        url = next(word for word in platform_adapter.sent[-1].split() if "code_challenge" in word)
        adapter.handle_event(make_event(await asyncio.to_thread(approve, url)))
        await settle(adapter)
        await adapter.login_cache.refresh()
        assert [key.server_name for key in await service.keys()] == ["notes"]

    asyncio.run(main())
    assert watch.blocking_calls == []


@covers("hermes-loop")
def test_a_message_is_judged_once_and_the_result_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []
    parse = intents.parse_intent

    def count(event: Any, *arguments: Any, **options: Any) -> Any:
        judged.append(event.text)
        return parse(event, *arguments, **options)

    async def reject(*_: object) -> None:
        """Do nothing. This function replaces an action that is not under test."""

    monkeypatch.setattr(adapter_module, "parse_intent", count)
    monkeypatch.setattr(dispatcher_module, "parse_intent", count)
    monkeypatch.setattr(LoginActions, "reject_unmatched_answer", reject)

    async def main() -> None:
        adapter, _ = make_adapter(tmp_path, monkeypatch)
        adapter.login_cache.load()
        address = "http://127.0.0.1:1/callback?code=a-code&state=a-state"
        assert adapter.handle_event(make_event(address)) == SKIP
        await settle(adapter)
        assert judged == [address]
        judged.clear()
        assert adapter.handle_event(make_event(f"one\n{address}\ntwo")) is not None
        await settle(adapter)
        assert sorted(judged) == sorted(["one", address, "two"])

    asyncio.run(main())


@covers("hermes-loop")
def test_a_first_message_waits_for_the_logins_and_goes_back_if_it_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        adapter, platform_adapter = make_adapter(tmp_path, monkeypatch)
        event = make_event("hello")
        with watch_files_of_this_thread(tmp_path) as paths:
            assert adapter.handle_event(event) == SKIP
            await settle(adapter)
            assert paths == []
        assert platform_adapter.returned == [event]
        # Hermes calls the hook again for the event that it got back.
        assert adapter.handle_event(event) is None
        assert adapter.handle_event(make_event("hello")) is None

    asyncio.run(main())


@covers("hermes-loop")
@pytest.mark.parametrize("has_code", [True, False])
def test_a_text_file_of_a_message_is_read_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_code: bool
) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    path = folder / "note.txt"
    path.write_text("http://127.0.0.1:1/callback?code=a-code&state=a-state" if has_code else "a note")
    monkeypatch.setattr(internals, "document_cache_dir", lambda: folder)

    async def main() -> None:
        adapter, platform_adapter = make_adapter(tmp_path, monkeypatch)
        adapter.login_cache.load()
        event = make_event("see this", media_urls=[str(path)], media_types=["text/plain"])
        with watch_files_of_this_thread(tmp_path) as paths:
            assert adapter.handle_event(event) == SKIP
            await settle(adapter)
            assert paths == []
        assert platform_adapter.returned == ([] if has_code else [event])
        assert path.exists() is not has_code

    asyncio.run(main())


@covers("hermes-loop", "hermes-asks")
def test_a_call_that_waits_for_a_login_reads_no_file_on_the_event_loop(
    tmp_path: Path, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_settings(tmp_path, demo)
    connected: list[str] = []

    class Runtime:
        async def connect_server(self, name: str, _profile: str) -> bool:
            connected.append(name)
            return True

    async def main() -> None:
        adapter, platform_adapter = make_adapter(tmp_path, monkeypatch)
        await adapter.login_cache.refresh()
        adapter.handle_event(make_event("hello"))
        runtime: Any = Runtime()
        with watch_files_of_this_thread(tmp_path) as paths:
            call = asyncio.create_task(
                request_login(adapter, "notes", make_event("").source, runtime, wait_seconds=30.0)
            )
            await platform_adapter.has_sent.wait()
            await adapter.login_cache.refresh()
            url = next(word for word in platform_adapter.sent[-1].split() if "code_challenge" in word)
            address = await asyncio.to_thread(approve, url)
            assert adapter.handle_event(make_event(address)) == SKIP
            outcome = await call
            assert paths == []
        assert outcome.state == "connected"
        assert connected == ["notes"]
        await adapter.stop()

    asyncio.run(main())


@covers("chat-answer-repaired", "hermes-loop")
@pytest.mark.parametrize("is_merged", [False, True], ids=["two messages", "one merged message"])
def test_an_answer_in_two_messages_is_joined(
    tmp_path: Path, demo: Demo, monkeypatch: pytest.MonkeyPatch, *, is_merged: bool
) -> None:
    write_settings(tmp_path, demo)
    # The second part ends the wait; a test that needs the whole time fails.
    monkeypatch.setattr(held_parts, "PART_WAIT_SECONDS", 30.0)

    async def main() -> None:
        adapter, platform_adapter = make_adapter(tmp_path, monkeypatch)
        await adapter.login_cache.refresh()
        adapter.handle_event(make_event("/mcpauth notes"))
        await settle(adapter)
        (login,) = adapter.service.blocking.waiting_logins()
        answer = await asyncio.to_thread(approve, login.authorization_url)
        cut_at = answer.index("state=") + 10
        parts = [answer[:cut_at], answer[cut_at:]]
        if is_merged:
            assert adapter.handle_event(make_event("\n".join(parts))) == SKIP
        else:
            assert adapter.handle_event(make_event(parts[0])) == SKIP
            first_tasks = set(adapter._tasks)
            await asyncio.sleep(0)
            assert adapter.service.blocking.login(login.id).paste_attempts == 0
            assert adapter.handle_event(make_event(parts[1])) == SKIP
            for task in first_tasks:
                task.cancel()
        await asyncio.gather(*list(adapter._tasks), return_exceptions=True)
        assert adapter.service.blocking.login(login.id).status == "done"
        assert adapter.service.blocking.login(login.id).paste_attempts == 0
        assert platform_adapter.returned == []

    asyncio.run(main())


@covers("chat-answer-repaired", "hermes-loop")
def test_half_an_answer_without_another_part_is_refused_after_a_second(
    tmp_path: Path, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_settings(tmp_path, demo)
    monkeypatch.setattr(held_parts, "PART_WAIT_SECONDS", 0.01)

    async def main() -> None:
        adapter, platform_adapter = make_adapter(tmp_path, monkeypatch)
        await adapter.login_cache.refresh()
        adapter.handle_event(make_event("/mcpauth notes"))
        await settle(adapter)
        (login,) = adapter.service.blocking.waiting_logins()
        answer = await asyncio.to_thread(approve, login.authorization_url)
        assert adapter.handle_event(make_event(answer[: answer.index("state=") + 10])) == SKIP
        await settle(adapter)
        assert adapter.service.blocking.login(login.id).status == "waiting"
        assert "Your answer did not complete the login" in platform_adapter.sent[-1]
        # Another word is no second part any more: it is for Hermes.
        assert adapter.handle_event(make_event("hello-there")) is None

    asyncio.run(main())


@covers("chat-url")
@pytest.mark.parametrize(
    "command", ["/mcpauth https://mcp.example.com/mcp", "/mcpauth connect https://mcp.example.com/mcp"]
)
def test_only_configured_servers_are_connected_inside_hermes(
    tmp_path: Path, demo: Demo, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    write_settings(tmp_path, demo)

    async def main() -> None:
        adapter, platform_adapter = make_adapter(tmp_path, monkeypatch)
        await adapter.login_cache.refresh()
        assert adapter.handle_event(make_event(command)) == SKIP
        await settle(adapter)
        assert platform_adapter.sent == [f"**{ENGLISH.address_refused_title}**\n\n{ENGLISH.addresses_off}"]
        assert adapter.service.blocking.waiting_logins() == []
        # The address of a configured server means that server.
        assert adapter.handle_event(make_event(f"/mcpauth {demo.mcp_url}")) == SKIP
        await settle(adapter)
        assert "Connect notes" in platform_adapter.sent[-1]

    asyncio.run(main())


@covers("card-reason", "chat-asks")
@pytest.mark.parametrize(
    ("wait_seconds", "sentence"), [(30.0, ENGLISH.agent_continues), (0.0, ENGLISH.ask_agent_again)]
)
def test_the_card_says_whether_the_agents_call_has_waited(
    tmp_path: Path, demo: Demo, monkeypatch: pytest.MonkeyPatch, wait_seconds: float, sentence: str
) -> None:
    write_settings(tmp_path, demo)

    class Runtime:
        async def connect_server(self, *_: str) -> bool:
            return True

    async def main() -> None:
        adapter, platform_adapter = make_adapter(tmp_path, monkeypatch)
        await adapter.login_cache.refresh()
        adapter.handle_event(make_event("hello"))
        runtime: Any = Runtime()
        source = make_event("").source
        call = asyncio.create_task(request_login(adapter, "notes", source, runtime, wait_seconds))
        await platform_adapter.has_sent.wait()
        async with asyncio.timeout(20):
            while not any(login.message_ids for login in adapter.logins()):
                await adapter.login_cache.refresh()
        if not wait_seconds:
            assert (await call).state == "prompted"
        (login,) = adapter.service.blocking.waiting_logins()
        address = await asyncio.to_thread(approve, login.authorization_url)
        assert adapter.handle_event(make_event(address)) == SKIP
        prompt_messages = adapter.dispatcher.prompt_messages
        async with asyncio.timeout(20):
            while not any("notes: connected" in text for text in platform_adapter.sent):
                await adapter.login_cache.refresh()
                await prompt_messages.sync()
                await asyncio.sleep(0)
        assert [sentence in text for text in platform_adapter.sent if "notes: connected" in text] == [True]
        await call
        await adapter.stop()

    asyncio.run(main())
