"""Access to names in Hermes that Hermes does not document for plugins. No other module uses such a name.

A version of Hermes may change them; this module was checked with Hermes 0.19.0. If a name is missing, a
function here returns None, False or nothing, and logs one warning. Only `telegram_application` and
`discord_client` raise AttributeError instead.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, cast

from gateway_hooks.dialog.platform import ChatError
from hermes_mcp_auth_remote.config import hermes_home_path

COMMAND = "mcpauth"
# Hermes names a tool "mcp__SERVER__TOOL".
MCP_TOOL_PREFIX = "mcp__"
# The id that this package gives a message if the platform returns none.
UNKNOWN_MESSAGE_ID = "?"

BusyHandler = Callable[[Any, str], Awaitable[bool]]

_MCP_TOOL_MODULE = "tools.mcp_tool"
_TOOLS_CONSEQUENCE = "tools appear only after /reload-mcp"
_AGENT_CONSEQUENCE = "the agent cannot ask for logins by itself"

log = logging.getLogger(__name__)

_logged_warnings: set[str] = set()


def warn_once(message: str) -> None:
    """Log a warning, at most once per process."""
    if message not in _logged_warnings:
        _logged_warnings.add(message)
        log.warning("%s", message)


def _import_attribute(module_name: str, name: str, consequence: str) -> Any:  # noqa: ANN401  untyped in Hermes
    """Return an attribute of a Hermes module; if there is none, warn once and return None."""
    try:
        return getattr(import_module(module_name), name)
    except Exception:  # noqa: BLE001  an import may raise anything
        warn_once(f"Hermes has no {module_name}.{name}: {consequence}.")
        return None


# The gateway and its adapters


def running_gateway() -> Any:  # noqa: ANN401  untyped in Hermes
    """Return the gateway of this process once it runs and has platforms; None before."""
    for module in ("gateway.run", "__main__"):
        reference = getattr(sys.modules.get(module), "_gateway_runner_ref", None)
        gateway = reference() if callable(reference) else None
        if gateway is not None and getattr(gateway, "adapters", None):
            return gateway
    return None


def event_loop_of(gateway: Any) -> asyncio.AbstractEventLoop | None:  # noqa: ANN401
    """Return the gateway's event loop; None until it runs."""
    loop: asyncio.AbstractEventLoop | None = getattr(gateway, "_gateway_loop", None)
    return loop


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """An adapter of the gateway, its platform (Hermes's enum member) and its profile ("": the main one)."""

    platform_adapter: Any
    platform: Any
    profile: str = ""

    @property
    def platform_name(self) -> str:
        """The platform's name, such as "telegram"."""
        return name_of_platform(self.platform)


def name_of_platform(platform: object) -> str:
    """Return the name of a platform of Hermes, given as a member of its enum or as a string."""
    return str(getattr(platform, "value", platform))


def adapter_refs(gateway: Any) -> Iterator[AdapterRef]:  # noqa: ANN401
    """Yield the gateway's present adapters. Hermes replaces an adapter by another object on a reconnect."""
    main: dict[Any, Any] = getattr(gateway, "adapters", None) or {}
    for platform, adapter in list(main.items()):
        yield AdapterRef(adapter, platform)
    by_profile: dict[str, dict[Any, Any]] = getattr(gateway, "_profile_adapters", None) or {}
    for profile, adapters in list(by_profile.items()):
        for platform, adapter in list(adapters.items()):
            yield AdapterRef(adapter, platform, profile)


def platform_adapter_for(gateway: Any, source: Any) -> Any:  # noqa: ANN401
    """Return the adapter that a SessionSource belongs to; None if there is none."""
    try:
        return gateway._adapter_for_source(source)
    except Exception:  # noqa: BLE001  the method may have moved
        adapters: dict[Any, Any] = getattr(gateway, "adapters", None) or {}
        return adapters.get(source.platform)


def telegram_application(platform_adapter: Any) -> Any:  # noqa: ANN401
    """Return the Telegram adapter's application, None until it is connected; raises AttributeError."""
    return platform_adapter._app


def has_telegram_application(platform_adapter: Any, application: object) -> bool:  # noqa: ANN401
    """Return whether the Telegram adapter still uses this application."""
    return getattr(platform_adapter, "_app", None) is application


def discord_client(platform_adapter: Any) -> Any:  # noqa: ANN401
    """Return the Discord adapter's client, None until it is connected; raises AttributeError."""
    return platform_adapter._client


def has_discord_client(platform_adapter: Any, client: object) -> bool:  # noqa: ANN401
    """Return whether the Discord adapter still uses this client."""
    return getattr(platform_adapter, "_client", None) is client


def is_allowed_by_discord_role(platform_adapter: Any, user_id: str, guild: Any) -> bool:  # noqa: ANN401
    """Return whether Hermes admits a Discord user by a role in this guild (None: in a direct message)."""
    try:
        return bool(platform_adapter._is_allowed_user(user_id, guild=guild, is_dm=guild is None))
    except Exception:  # noqa: BLE001  the method may have moved: admit no user
        warn_once("Hermes's Discord adapter cannot check roles: no role allows a user to log in.")
        return False


def wrap_busy_handler(
    platform_adapter: Any,  # noqa: ANN401
    claim: Callable[[Any], dict[str, str] | None],
) -> None:
    """Pass messages that arrive during a turn to `claim` first: Hermes calls no hook for them.

    `claim` returns a hook action of Hermes, or None to leave the event to Hermes. A second call does nothing.
    """
    wrapped_handler: BusyHandler | None = getattr(platform_adapter, "_busy_session_handler", None)
    set_handler = getattr(platform_adapter, "set_busy_session_handler", None)
    if set_handler is None:
        warn_once("Hermes's adapters have no handler for messages that arrive during a turn.")
    if wrapped_handler is None or set_handler is None or getattr(wrapped_handler, "of_mcp_auth", False):
        return
    hermes_handler: BusyHandler = wrapped_handler

    async def handle_busy_event(hermes_event: Any, session_key: str) -> bool:  # noqa: ANN401
        action = claim(hermes_event)
        if action is None:
            return await hermes_handler(hermes_event, session_key)
        if action.get("action") == "rewrite":
            hermes_event.text = action["text"]
            return await hermes_handler(hermes_event, session_key)
        return True

    handle_busy_event.of_mcp_auth = True  # type: ignore[attr-defined]
    set_handler(handle_busy_event)


async def call_adapter(
    platform_adapter: Any,  # noqa: ANN401
    method_name: Literal["send", "send_image_file", "edit_message"],
    *arguments: object,
    **options: object,
) -> str:
    """Call an adapter's method that returns a SendResult; return the message's id, or UNKNOWN_MESSAGE_ID.

    Raises ChatError, without the adapter's text: it may contain request data.
    """
    try:
        result = await getattr(platform_adapter, method_name)(*arguments, **options)
    except Exception as error:  # noqa: BLE001  adapters raise what their libraries raise
        raise ChatError(f"The platform refused a call: {type(error).__name__}.") from None
    if not getattr(result, "success", False):
        raise ChatError("The platform did not accept a message.")
    return str(getattr(result, "message_id", None) or UNKNOWN_MESSAGE_ID)


async def delete_message(platform_adapter: Any, chat_id: str, message_id: str) -> bool:  # noqa: ANN401
    """Delete a message through an adapter; return False if the adapter cannot."""
    try:
        return bool(await platform_adapter.delete_message(chat_id, message_id))
    except Exception:  # noqa: BLE001  adapters raise what their libraries raise
        return False


# Events and their sources


def event_texts(hermes_event: Any) -> tuple[str, str, str]:  # noqa: ANN401
    """Return an event's text, quoted text and channel context; "" for each that it does not have."""
    return (
        str(getattr(hermes_event, "text", None) or ""),
        str(getattr(hermes_event, "reply_to_text", None) or ""),
        str(getattr(hermes_event, "channel_context", None) or ""),
    )


def clear_quoted_text(hermes_event: Any) -> None:  # noqa: ANN401
    """Remove the quoted message's text from an event."""
    hermes_event.reply_to_text = None


def set_channel_context(hermes_event: Any, text: str | None) -> None:  # noqa: ANN401
    """Set the earlier channel messages of an event, which Hermes also shows to the model."""
    hermes_event.channel_context = text


def document_cache_dir() -> Path | None:
    """Return the folder in which Hermes caches files of messages; None if Hermes has no such function."""
    get_folder = _import_attribute(
        "gateway.platforms.base", "get_document_cache_dir", "cached files with codes are not deleted"
    )
    return None if get_folder is None else Path(get_folder())


def make_source(
    adapter_ref: AdapterRef, user_id: str, chat_id: str = "", chat_type: str = "dm", **fields: object
) -> Any:  # noqa: ANN401
    """Make a SessionSource, by default of the user's private chat; None if Hermes has no such class."""
    source_class = _import_attribute("gateway.session", "SessionSource", "no user can be authorised")
    if source_class is None:
        return None
    profile = adapter_ref.profile or None
    return source_class(
        platform=adapter_ref.platform,
        chat_id=chat_id or user_id,
        chat_type=chat_type,
        user_id=user_id,
        profile=profile,
        **fields,
    )


def session_value(name: str) -> str:
    """Return a value of the chat whose turn runs, such as "CHAT_ID"; "" if no chat's turn runs."""
    get_session_env = _import_attribute("gateway.session_context", "get_session_env", _AGENT_CONSEQUENCE)
    return "" if get_session_env is None else str(get_session_env(f"HERMES_SESSION_{name}", "") or "")


# Rules and profiles


def is_user_authorized(gateway: Any, source: Any) -> bool:  # noqa: ANN401
    """Return whether the user of a SessionSource may talk to Hermes there; False if that cannot be read."""
    try:
        return bool(gateway._is_user_authorized(source))
    except Exception:  # noqa: BLE001  the method may have moved: admit no user
        warn_once("Hermes's gateway does not say who is authorised: no user may log in from a chat.")
        return False


def slash_policy(gateway: Any, source: Any) -> Any:  # noqa: ANN401
    """Return Hermes's SlashAccessPolicy for a SessionSource; None if it cannot be read."""
    policy_for_source = _import_attribute(
        "gateway.slash_access", "policy_for_source", "chats can only list connections"
    )
    try:
        return None if policy_for_source is None else policy_for_source(gateway.config, source)
    except Exception:  # noqa: BLE001  the configuration may have moved
        warn_once("Hermes's rules about commands cannot be read: chats can only list connections.")
        return None


def home_of(profile: str) -> Path:
    """Return the HERMES_HOME of a profile; for the main one (""), that of this process."""
    if profile:
        get_profile_dir = _import_attribute(
            "hermes_cli.profiles", "get_profile_dir", "all profiles use the main profile's servers"
        )
        if get_profile_dir is not None:
            return Path(get_profile_dir(profile))
    return hermes_home_path(os.environ)


# MCP servers


def has_mcp_discovery() -> bool:
    """Return whether this Hermes can discover the tools of MCP servers again."""
    return _import_attribute(_MCP_TOOL_MODULE, "discover_mcp_tools", _TOOLS_CONSEQUENCE) is not None


def discover_mcp_tools() -> bool:
    """Connect the servers that are not connected; return False if Hermes has no such function. Blocks."""
    discover = _import_attribute(_MCP_TOOL_MODULE, "discover_mcp_tools", _TOOLS_CONSEQUENCE)
    if discover is None:
        return False
    discover()
    return True


def shut_down_mcp_servers() -> bool:
    """Disconnect all MCP servers; return False if Hermes has no such function. Blocks."""
    shut_down = _import_attribute(_MCP_TOOL_MODULE, "shutdown_mcp_servers", _TOOLS_CONSEQUENCE)
    if shut_down is None:
        return False
    shut_down()
    return True


def mcp_session_state(server_name: str) -> Literal["unknown", "closed", "open"]:
    """Return whether Hermes has a session with a server; "unknown" if Hermes does not know the server."""
    servers: dict[str, Any] = _import_attribute(_MCP_TOOL_MODULE, "_servers", _TOOLS_CONSEQUENCE) or {}
    server = servers.get(server_name)
    if server is None:
        return "unknown"
    return "closed" if getattr(server, "session", None) is None else "open"


def connected_mcp_servers() -> frozenset[str]:
    """Return the names of the servers that Hermes reports as connected."""
    get_status = _import_attribute(_MCP_TOOL_MODULE, "get_mcp_status", _TOOLS_CONSEQUENCE)
    statuses = cast("list[dict[str, Any]]", [] if get_status is None else get_status())
    return frozenset(str(status.get("name")) for status in statuses if status.get("connected"))


def mcp_tool_prefix(server_name: str) -> str | None:
    """Return what the names of a server's tools begin with, such as "mcp__notes__"; None if unknown."""
    sanitize = _import_attribute(_MCP_TOOL_MODULE, "sanitize_mcp_name_component", _AGENT_CONSEQUENCE)
    return None if sanitize is None else f"{MCP_TOOL_PREFIX}{sanitize(server_name)}__"
