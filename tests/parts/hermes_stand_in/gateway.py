"""The gateway of the later Hermes, as far as the plugin sees it: events, turns, plugins, slash commands."""

from __future__ import annotations

import asyncio
import contextvars
import importlib.metadata
import importlib.util
import inspect
import json
import logging
import os
import queue
import sqlite3
import sys
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from tests.parts.hermes_stand_in import mcp_client, scopes

log = logging.getLogger("gateway.run")

BOUNDED_HOOKS = {"transform_tool_result"}
SUPPRESSED_SECONDS = 60.0
DM_CHAT_TYPES = {"dm", "direct", "private"}


class Platform(Enum):
    """The names of chat platforms."""

    TELEGRAM = "telegram"
    DISCORD = "discord"
    SLACK = "slack"


@dataclass
class SessionSource:
    """Where a message comes from."""

    platform: Platform
    chat_id: str
    chat_type: str = "dm"
    user_id: str | None = None
    user_name: str | None = None
    thread_id: str | None = None
    profile: str | None = None
    message_id: str | None = None
    guild_id: str | None = None
    role_authorized: bool = False


@dataclass
class MessageEvent:
    """A message of a user."""

    text: str
    source: SessionSource
    message_id: str | None = None
    raw_message: Any = None
    reply_to_message_id: str | None = None
    reply_to_text: str | None = None
    media_urls: list[str] = field(default_factory=list[str])
    media_types: list[str] = field(default_factory=list[str])
    channel_context: str | None = None
    internal: bool = False


@dataclass(frozen=True)
class SendResult:
    success: bool
    message_id: str | None = None


@dataclass(frozen=True)
class PlatformConfig:
    extra: Mapping[str, Any]


@dataclass
class GatewayConfig:
    platforms: dict[Platform, PlatformConfig] = field(default_factory=dict[Platform, PlatformConfig])


class SlashAccessPolicy:
    """The users who may run commands in one kind of chat. If no administrator is named, every user is one."""

    def __init__(self, extra: Mapping[str, Any], prefix: str) -> None:
        self.admin_user_ids = frozenset(str(user) for user in extra.get(f"{prefix}allow_admin_from") or ())
        self.enabled = bool(self.admin_user_ids)
        self._commands = frozenset(extra.get(f"{prefix}user_allowed_commands") or ())

    def is_admin(self, user_id: str | None) -> bool:
        return not self.enabled or str(user_id) in self.admin_user_ids

    def can_run(self, user_id: str | None, command: str) -> bool:
        return self.is_admin(user_id) or command in self._commands


def policy_for_source(config: GatewayConfig, source: SessionSource) -> SlashAccessPolicy:
    settings = config.platforms.get(source.platform)
    prefix = "" if source.chat_type in DM_CHAT_TYPES else "group_"
    return SlashAccessPolicy(settings.extra if settings else {}, prefix)


def get_document_cache_dir() -> Path:
    folder = scopes.get_hermes_home() / "cache" / "documents"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def resolve_hook_callback_timeout() -> float:
    """Return how long a bounded hook may take. A setting says it; the default is 30 seconds."""
    path = scopes.get_hermes_home() / "config.yaml"
    settings = (yaml.safe_load(path.read_text()) or {}).get("plugins") or {}
    return float(settings.get("hook_callback_timeout", 30.0))


def _call(callback: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    return callback(**values)


class Plugins:
    """The enabled plugins: their hooks, tools and commands. It is also the `ctx` of `register`."""

    def __init__(self) -> None:
        self.hooks: dict[str, list[Callable[..., Any]]] = {}
        self._suppressed_until = 0.0
        self.commands: dict[str, Callable[[str], Any]] = {}
        self.cli_commands: dict[str, tuple[Callable[[Any], None], Callable[[Any], None]]] = {}

    def load(self, home: Path) -> None:
        settings = yaml.safe_load((home / "config.yaml").read_text()) or {}
        for name in (settings.get("plugins") or {}).get("enabled") or ():
            folder = home / "plugins" / name
            if (folder / "__init__.py").exists():
                self._load_folder(name, folder)
            else:
                (entry_point,) = importlib.metadata.entry_points(group="hermes_agent.plugins", name=name)
                entry_point.load().register(self)

    def _load_folder(self, name: str, folder: Path) -> None:
        module_name = f"hermes_plugins.{name.replace('-', '_')}"
        spec = importlib.util.spec_from_file_location(
            module_name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        spec.loader.exec_module(module)
        module.register(self)

    def register_hook(self, name: str, callback: Callable[..., Any]) -> None:
        self.hooks.setdefault(name, []).append(callback)

    def register_tool(
        self, name: str, _toolset: str, schema: Mapping[str, Any], handler: Callable[..., str], **_: object
    ) -> None:
        mcp_client.registry.register(name, schema, handler)

    def register_command(self, name: str, handler: Callable[[str], Any], **_: object) -> None:
        self.commands[name] = handler

    def register_cli_command(
        self,
        name: str,
        _help: str,
        setup_fn: Callable[[Any], None],
        handler_fn: Callable[[Any], None],
        **_: object,
    ) -> None:
        self.cli_commands[name] = (setup_fn, handler_fn)

    def invoke(self, name: str, **values: Any) -> list[Any]:
        run = self._call_bounded if name in BOUNDED_HOOKS else _call
        results = [run(callback, values) for callback in self.hooks.get(name, [])]
        return [result for result in results if result is not None]

    def _call_bounded(self, callback: Callable[..., Any], values: Mapping[str, Any]) -> Any:
        """Call a hook in a thread; skip it for a minute if it takes longer than Hermes allows."""
        if time.monotonic() < self._suppressed_until:
            return None
        results: queue.Queue[Any] = queue.Queue()
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=lambda: results.put(context.run(callback, **values)), name="hook", daemon=True
        )
        thread.start()
        try:
            return results.get(timeout=resolve_hook_callback_timeout())
        except queue.Empty:
            self._suppressed_until = time.monotonic() + SUPPRESSED_SECONDS
            log.warning("A hook took too long.")
            return None


class BaseAdapter:
    """An adapter. It handles one message of a chat at a time. Messages during a turn wait until it ends."""

    def __init__(self) -> None:
        self._busy_session_handler: Callable[[MessageEvent, str], Awaitable[bool]] | None = None
        self._message_handler: Callable[[MessageEvent], Awaitable[str | None]] | None = None
        self._active: dict[str, list[MessageEvent]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def set_message_handler(self, handler: Callable[[MessageEvent], Awaitable[str | None]]) -> None:
        self._message_handler = handler

    def set_busy_session_handler(self, handler: Callable[[MessageEvent, str], Awaitable[bool]]) -> None:
        self._busy_session_handler = handler

    async def handle_message(self, event: MessageEvent) -> None:
        key = session_key(event.source)
        if key in self._active:
            handler = self._busy_session_handler
            if handler is None or not await handler(event, key):
                self._active[key].append(event)
            return
        self._active[key] = []
        task = asyncio.create_task(self._process(key, event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _process(self, key: str, event: MessageEvent) -> None:
        assert self._message_handler is not None
        try:
            waiting = [event]
            while waiting:
                event = waiting.pop(0)
                reply = await self._message_handler(event)
                if reply:
                    metadata = {"thread_id": event.source.thread_id} if event.source.thread_id else None
                    await self.send(event.source.chat_id, reply, event.message_id, metadata)
                waiting += self._active[key]
                self._active[key].clear()
        finally:
            del self._active[key]

    async def send(
        self,
        chat_id: str,
        content: str,
        reply_to: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> SendResult:
        raise NotImplementedError


def session_key(source: SessionSource) -> str:
    return f"{source.profile or 'main'}:{source.platform.value}:{source.chat_id}:{source.thread_id or ''}"


@dataclass(eq=False)
class Agent:
    """One chat's conversation with the model. `tools` is a snapshot of the registry."""

    key: str
    messages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    tools: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    thread_id: int = 0

    def run_turn(self, text: str, model: Mapping[str, Any], plugins: Plugins) -> str:
        """Run a turn in this thread and return the model's text."""
        self.thread_id = threading.get_ident()
        scopes.set_interrupt(False)
        refresh_agent_mcp_tools(self)
        self.messages.append({"role": "user", "content": text})
        while True:
            message = self._ask(model)
            self.messages.append(message)
            calls = message.get("tool_calls") or []
            if not calls or scopes.is_interrupted():
                return str(message.get("content") or "")
            for call in calls:
                name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
                result = mcp_client.registry.dispatch(name, arguments)
                status = "error" if '"error"' in result else "ok"
                replaced = plugins.invoke(
                    "transform_tool_result",
                    tool_name=name,
                    args=arguments,
                    result=result,
                    status=status,
                    duration_ms=0,
                )
                self.messages.append(
                    {
                        "role": "tool",
                        "tool_call_id": call["id"],
                        "content": next(iter(replaced), result),
                    }
                )

    def _ask(self, model: Mapping[str, Any]) -> dict[str, Any]:
        body = {"model": model["default"], "messages": self.messages, "tools": self.tools}
        request = urllib.request.Request(
            f"{model['base_url']}/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            answer: dict[str, Any] = json.load(response)["choices"][0]["message"]
        return answer


def refresh_agent_mcp_tools(agent: Agent, *, preserve_prefix: bool = False) -> set[str]:
    fresh = {tool["function"]["name"]: tool for tool in mcp_client.registry.definitions()}
    current_names = [tool["function"]["name"] for tool in agent.tools]
    order = [name for name in current_names if name in fresh] if preserve_prefix else []
    agent.tools = [fresh[name] for name in (*order, *(name for name in fresh if name not in order))]
    return set(fresh) - set(current_names)


class GatewayRunner:
    """The gateway: adapters, sessions and turns."""

    def __init__(self, home: Path, plugins: Plugins) -> None:
        self.home = home
        self.plugins = plugins
        self.adapters: dict[Platform, BaseAdapter] = {}
        self._profile_adapters: dict[str, dict[Platform, BaseAdapter]] = {}
        self.config = GatewayConfig()
        self.session_store = object()
        # What plugins get as the gateway.
        self.shown_to_plugins: Any = self
        self._gateway_loop: asyncio.AbstractEventLoop | None = None
        self._running_agents: dict[str, Agent] = {}
        self._agents: dict[str, Agent] = {}

    def settings(self, profile: str | None = None) -> dict[str, Any]:
        home = self.home if not profile else scopes.get_profile_dir(profile)
        loaded: dict[str, Any] = yaml.safe_load((home / "config.yaml").read_text()) or {}
        return loaded

    def add_adapter(self, platform: Platform, adapter: BaseAdapter, profile: str = "") -> None:
        adapter.set_message_handler(self._handle_message)
        adapter.set_busy_session_handler(self._handle_busy_message)
        by_platform = self._profile_adapters.setdefault(profile, {}) if profile else self.adapters
        by_platform[platform] = adapter

    def _adapter_for_source(self, source: SessionSource) -> BaseAdapter | None:
        by_platform = (
            self._profile_adapters.get(source.profile or "", {}) if source.profile else self.adapters
        )
        return by_platform.get(source.platform)

    def _is_user_authorized(self, source: SessionSource) -> bool:
        name = source.platform.value.upper()
        groups = os.environ.get(f"{name}_GROUP_ALLOWED_CHATS", "").split(",")
        if source.chat_type not in DM_CHAT_TYPES and source.chat_id in groups:
            return True
        return str(source.user_id) in os.environ.get(f"{name}_ALLOWED_USERS", "").split(",")

    async def _handle_busy_message(self, _event: MessageEvent, _key: str) -> bool:
        return False

    async def _handle_message(self, event: MessageEvent) -> str | None:
        actions = self.plugins.invoke(
            "pre_gateway_dispatch",
            event=event,
            gateway=self.shown_to_plugins,
            session_store=self.session_store,
        )
        for action in actions:
            if action.get("action") == "skip":
                return None
            if action.get("action") == "rewrite":
                event = replace(event, text=action["text"])
        source = event.source
        if not self._is_user_authorized(source):
            log.warning("Unauthorized user: %s", source.user_id)
            return None
        scopes.set_session_vars(
            platform=source.platform.value,
            chat_id=source.chat_id,
            thread_id=source.thread_id or "",
            user_id=source.user_id or "",
            key=session_key(source),
            profile=source.profile or "",
        )
        if event.text.startswith("/"):
            return await self._run_command(event)
        return await self._run_turn(event)

    async def _run_command(self, event: MessageEvent) -> str | None:
        word, _, rest = event.text[1:].partition(" ")
        name = word.partition("@")[0]
        if not policy_for_source(self.config, event.source).can_run(event.source.user_id, name):
            return f"/{name} is admin-only here."
        if name == "reload-mcp":
            await asyncio.to_thread(mcp_client.shutdown_mcp_servers)
            await asyncio.to_thread(mcp_client.discover_mcp_tools)
            return "MCP Servers Reloaded"
        if name in self.plugins.commands:
            result = self.plugins.commands[name](rest)
            reply: str | None = await result if inspect.isawaitable(result) else result
            return reply
        return await self._run_turn(event)

    async def _run_turn(self, event: MessageEvent) -> str:
        key = session_key(event.source)
        agent = self._agents.setdefault(key, Agent(key))
        self._running_agents[key] = agent
        token = None
        if event.source.profile:
            token = scopes.set_hermes_home_override(str(scopes.get_profile_dir(event.source.profile)))
        context = contextvars.copy_context()
        if token is not None:
            scopes.reset_hermes_home_override(token)
        try:
            quoted_parts = [part for part in (event.channel_context, event.reply_to_text) if part]
            text = "\n".join([*(f"[{part}]" for part in quoted_parts), event.text])
            model = self.settings()["model"]
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(None, context.run, agent.run_turn, text, model, self.plugins)
        except Exception as error:  # noqa: BLE001
            log.warning("The turn failed: %s", type(error).__name__)
            return "The turn failed."
        finally:
            del self._running_agents[key]
            await asyncio.to_thread(self._store, key, agent)

    def _store(self, key: str, agent: Agent) -> None:
        """Write the conversation where the later Hermes does: a session file and state.db."""
        folder = self.home / "sessions"
        folder.mkdir(exist_ok=True)
        text = "".join(json.dumps(message) + "\n" for message in agent.messages)
        (folder / f"{key.replace(':', '_')}.jsonl").write_text(text)
        with sqlite3.connect(self.home / "state.db") as database:
            database.execute("CREATE TABLE IF NOT EXISTS messages (key TEXT PRIMARY KEY, content TEXT)")
            database.execute("INSERT OR REPLACE INTO messages VALUES (?, ?)", (key, text))
        database.close()
