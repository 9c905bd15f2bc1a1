"""Access to names in Hermes that Hermes does not document for plugins. No other module uses such a name.

Hermes moves these names between versions. For each name, `NAMES` lists the modules that may have it, and
what users lose without it. If no module has a name, the function here that needs it returns None or False,
and logs one warning. Only `telegram_application` and `discord_client` raise AttributeError instead. Checked
with Hermes 0.19.0, and with the source text of 0.21.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module, metadata
from inspect import signature
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from gateway_hooks.dialog.platform import ChatError
from hermes_mcp_auth_remote.config import hermes_home_path

COMMAND = "mcpauth"
# Hermes names a tool "mcp__SERVER__TOOL".
MCP_TOOL_PREFIX = "mcp__"
# The id that this package gives to a message if the platform returns no id.
UNKNOWN_MESSAGE_ID = "?"

BusyHandler = Callable[[Any, str], Awaitable[bool]]


class HermesName(NamedTuple):
    """The modules that may have a name (the newest layout first), and what users lose without the name.

    If the consequence is empty, users lose nothing. `is_new`: Hermes 0.19 does not have the name.
    """

    modules: tuple[str, ...]
    consequence: str
    is_new: bool = False


_TOOLS = "tools appear only after /reload-mcp"
_AGENT = "the agent cannot ask for logins by itself"
_BUSY = "outside Telegram and Discord, codes that users send during a turn reach the model"
_PROFILES = "tools of other profiles appear only after /reload-mcp"

NAMES: Mapping[str, HermesName] = {
    "discover_mcp_tools": HermesName(("tools.mcp_tool_discovery", "tools.mcp_tool"), _TOOLS),
    "get_mcp_status": HermesName(("tools.mcp_tool_discovery", "tools.mcp_tool"), _TOOLS),
    "shutdown_mcp_servers": HermesName(
        ("tools.mcp_tool_lifecycle", "tools.mcp_tool"),
        "tools of an ended session appear only after /reload-mcp",
    ),
    "_servers": HermesName(("tools.mcp_tool",), "tools of an ended session appear only after /reload-mcp"),
    "_lock": HermesName(("tools.mcp_tool",), ""),
    "_mcp_registry_scope": HermesName(("tools.mcp_tool",), "", is_new=True),
    "_server_connect_retry_after": HermesName(
        ("tools.mcp_tool",),
        "after a failed connection, tools may appear minutes after the login",
        is_new=True,
    ),
    "_server_connect_failures": HermesName(("tools.mcp_tool",), "", is_new=True),
    "current_mcp_servers": HermesName(("tools.mcp_tool_scope",), "", is_new=True),
    "sanitize_mcp_name_component": HermesName(("tools.mcp_tool_schema", "tools.mcp_tool"), _AGENT),
    "refresh_agent_mcp_tools": HermesName(
        ("tools.mcp_tool_agent", "tools.mcp_tool"), "a new server's tools come with the next message"
    ),
    "registry": HermesName(("tools.registry",), "a call that needed a login is not repeated after it"),
    "is_interrupted": HermesName(("tools.interrupt",), "a call does not wait for its login"),
    "_resolve_hook_callback_timeout": HermesName(
        ("hermes_cli.plugins",), "a failed call waits 20 seconds at most for its login", is_new=True
    ),
    "get_session_env": HermesName(("gateway.session_context",), _AGENT),
    "SessionSource": HermesName(("gateway.session",), "no user can be authorised"),
    "policy_for_source": HermesName(("gateway.slash_access",), "chats can only list connections"),
    "get_document_cache_dir": HermesName(
        ("gateway.platforms.base",), "cached files with codes are not deleted"
    ),
    "get_profile_dir": HermesName(("hermes_cli.profiles",), "all profiles use the main profile's servers"),
    "set_hermes_home_override": HermesName(("hermes_constants",), _PROFILES),
    "reset_hermes_home_override": HermesName(("hermes_constants",), _PROFILES),
    "build_profile_secret_scope": HermesName(("agent.secret_scope",), _PROFILES),
    "set_secret_scope": HermesName(("agent.secret_scope",), _PROFILES),
    "reset_secret_scope": HermesName(("agent.secret_scope",), _PROFILES),
}
# Attributes of the gateway and of its adapters, and what users lose without them.
GATEWAY_ATTRIBUTES: Mapping[str, str] = {
    "_is_user_authorized": "no user may log in from a chat",
    "config": "chats can only list connections",
    "_running_agents": "a new server's tools come with the next message",
}
ADAPTER_ATTRIBUTES: Mapping[str, str] = {
    "set_busy_session_handler": _BUSY,
    "_busy_session_handler": _BUSY,
    "handle_message": "files of messages are read on the event loop",
}
PLATFORM_ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "telegram": {"_app": "logins in Telegram are in plain text"},
    "discord": {
        "_client": "logins in Discord are in plain text",
        "_is_allowed_user": "no Discord role allows a user to log in",
    },
}
# A later Hermes may read pasted addresses itself. Its methods for this would probably have such names.
_PASTE_RELAY = re.compile(r"oauth\w*(relay|paste|callback)|(relay|paste|callback)\w*oauth", re.IGNORECASE)

log = logging.getLogger(__name__)

_logged_warnings: set[str] = set()


def warn_once(message: str) -> None:
    """Log a warning, at most once per process."""
    if message not in _logged_warnings:
        _logged_warnings.add(message)
        log.warning("%s", message)


def _missing_sentence(name: str) -> str:
    hermes_name = NAMES[name]
    return f"Hermes has no {name} in {' or '.join(hermes_name.modules)}: {hermes_name.consequence}."


def _find_name(name: str) -> tuple[Any, str]:
    """Return the value of a name in NAMES and the module's name; (None, "") if no module has the name."""
    for module in NAMES[name].modules:
        # An import may raise any exception.
        with suppress(Exception):
            return getattr(import_module(module), name), module
    return None, ""


def _import_name(name: str) -> Any:  # noqa: ANN401  untyped in Hermes
    """Return the value of a name in NAMES; if no module has the name, return None and warn once."""
    value, module = _find_name(name)
    if not module and NAMES[name].consequence:
        warn_once(_missing_sentence(name))
    return value


def hermes_version() -> str:
    """Return the version of Hermes in this environment; "" if the version is not known."""
    with suppress(Exception):
        return str(import_module("hermes_cli").__version__)
    with suppress(metadata.PackageNotFoundError):
        return metadata.version("hermes-agent")
    return ""


def layout() -> Literal["0.19", "0.21", "unknown"]:
    """Return the layout of Hermes. The module of the function that discovers MCP tools shows the layout."""
    _, module = _find_name("discover_mcp_tools")
    if not module:
        return "unknown"
    return "0.21" if module == NAMES["discover_mcp_tools"].modules[0] else "0.19"


def missing_names() -> list[str]:
    """Return one sentence per missing name: what users lose.

    Imports modules of Hermes: call it in a thread.
    """
    is_old = layout() == "0.19"
    return [
        _missing_sentence(name)
        for name, hermes_name in NAMES.items()
        if hermes_name.consequence and not (is_old and hermes_name.is_new) and not _find_name(name)[1]
    ]


def missing_attributes(gateway: Any) -> list[str]:  # noqa: ANN401
    """Return one sentence per attribute that the gateway or an adapter lacks: what users lose."""
    sentences = [
        f"Hermes's gateway has no {name}: {consequence}."
        for name, consequence in GATEWAY_ATTRIBUTES.items()
        if not hasattr(gateway, name)
    ]
    for adapter_ref in adapter_refs(gateway):
        platform = adapter_ref.platform_name
        attributes = {**ADAPTER_ATTRIBUTES, **PLATFORM_ATTRIBUTES.get(platform, {})}
        sentences += [
            f"Hermes's {platform} adapter has no {name}: {consequence}."
            for name, consequence in attributes.items()
            if not hasattr(adapter_ref.platform_adapter, name)
        ]
    return list(dict.fromkeys(sentences))


def describe_installation(gateway: Any) -> tuple[str, bool]:  # noqa: ANN401
    """Return sentences about this Hermes and its missing names, and True if it has all names.

    Imports modules of Hermes: call it in a thread.
    """
    missing = [*missing_names(), *missing_attributes(gateway)]
    # The caller logs these sentences: do not log them again when a name is needed.
    _logged_warnings.update(missing)
    version = hermes_version() or "of an unknown version"
    summary = f"Hermes Agent {version}, layout {layout()}"
    if any(takes_pastes(gateway, ref.platform_adapter) for ref in adapter_refs(gateway)):
        summary += "; Hermes takes pasted addresses of its own logins, and the plugin leaves those to it"
    return (
        f"{summary}. {' '.join(missing)}" if missing else f"{summary}; all its parts were found."
    ), not missing


def takes_pastes(gateway: Any, platform_adapter: Any) -> bool:  # noqa: ANN401
    """Return whether this Hermes itself reads addresses that users paste in a chat.

    No version did so in November 2026. This function looks for methods whose names suggest it.
    """
    names = [*dir(gateway), *dir(platform_adapter)]
    return any(_PASTE_RELAY.search(name) is not None for name in names)


# The gateway and its adapters


def running_gateway() -> Any:  # noqa: ANN401  untyped in Hermes
    """Return the gateway of this process; None until it runs and has platforms."""
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
    """An adapter of the gateway, its platform (Hermes's enum member) and profile ("": the main profile)."""

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
    """Yield the gateway's current adapters. Hermes replaces an adapter by another object on a reconnect."""
    main: dict[Any, Any] = getattr(gateway, "adapters", None) or {}
    for platform, adapter in list(main.items()):
        yield AdapterRef(adapter, platform)
    by_profile: dict[str, dict[Any, Any]] = getattr(gateway, "_profile_adapters", None) or {}
    for profile, adapters in list(by_profile.items()):
        for platform, adapter in list(adapters.items()):
            yield AdapterRef(adapter, platform, profile)


def platform_adapter_for(gateway: Any, source: Any) -> Any:  # noqa: ANN401
    """Return the adapter that a SessionSource belongs to; None if there is no such adapter."""
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


def can_dispatch_again(platform_adapter: Any) -> bool:  # noqa: ANN401
    """Return whether an event can be given back to this adapter."""
    return callable(getattr(platform_adapter, "handle_message", None))


async def dispatch_again(platform_adapter: Any, hermes_event: Any) -> None:  # noqa: ANN401
    """Give an event back to the adapter that it came from. The adapter handles it as a new event."""
    await platform_adapter.handle_message(hermes_event)


# Events and their sources


def event_texts(hermes_event: Any) -> tuple[str, str, str]:  # noqa: ANN401
    """Return an event's text, quoted text and channel context; "" for each that it does not have."""
    return (
        str(getattr(hermes_event, "text", None) or ""),
        str(getattr(hermes_event, "reply_to_text", None) or ""),
        str(getattr(hermes_event, "channel_context", None) or ""),
    )


def set_text(hermes_event: Any, text: str) -> None:  # noqa: ANN401
    """Set the text of an event."""
    hermes_event.text = text


def clear_quoted_text(hermes_event: Any) -> None:  # noqa: ANN401
    """Remove the quoted message's text from an event."""
    hermes_event.reply_to_text = None


def set_channel_context(hermes_event: Any, text: str | None) -> None:  # noqa: ANN401
    """Set the earlier channel messages of an event, which Hermes also shows to the model."""
    hermes_event.channel_context = text


def document_cache_dir() -> Path | None:
    """Return the folder in which Hermes caches files of messages; None if Hermes has no such function."""
    get_folder = _import_name("get_document_cache_dir")
    return None if get_folder is None else Path(get_folder())


def make_source(
    adapter_ref: AdapterRef, user_id: str, chat_id: str = "", chat_type: str = "dm", **fields: object
) -> Any:  # noqa: ANN401
    """Make a SessionSource, by default for the user's private chat; None if Hermes has no such class."""
    source_class = _import_name("SessionSource")
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
    """Return a value of the chat that the current turn belongs to, such as "CHAT_ID"; "" without a turn."""
    get_session_env = _import_name("get_session_env")
    return "" if get_session_env is None else str(get_session_env(f"HERMES_SESSION_{name}", "") or "")


# Rules and profiles


def is_user_authorized(gateway: Any, source: Any) -> bool:  # noqa: ANN401
    """Return whether the user of a SessionSource may talk to Hermes in its chat; False if this is unknown."""
    try:
        return bool(gateway._is_user_authorized(source))
    except Exception:  # noqa: BLE001  the method may have moved: admit no user
        warn_once("Hermes's gateway does not say who is authorised: no user may log in from a chat.")
        return False


def slash_policy(gateway: Any, source: Any) -> Any:  # noqa: ANN401
    """Return Hermes's SlashAccessPolicy for a SessionSource; None if it cannot be read."""
    policy_for_source = _import_name("policy_for_source")
    try:
        return None if policy_for_source is None else policy_for_source(gateway.config, source)
    except Exception:  # noqa: BLE001  the configuration may have moved
        warn_once("Hermes's rules about commands cannot be read: chats can only list connections.")
        return None


def home_of(profile: str) -> Path:
    """Return the HERMES_HOME of a profile; for the main profile (""), the HERMES_HOME of this process."""
    if profile:
        get_profile_dir = _import_name("get_profile_dir")
        if get_profile_dir is not None:
            return Path(get_profile_dir(profile))
    return hermes_home_path(os.environ)


@contextmanager
def profile_scope(profile: str) -> Generator[None]:
    """Make Hermes read the files and secrets of a profile in this thread; for "", change nothing."""
    setters = [
        _import_name(name)
        for name in ("set_hermes_home_override", "build_profile_secret_scope", "set_secret_scope")
    ]
    reset_home, reset_secrets = _import_name("reset_hermes_home_override"), _import_name("reset_secret_scope")
    if not profile or None in (*setters, reset_home, reset_secrets):
        yield
        return
    set_home, build_secrets, set_secrets = setters
    home = home_of(profile)
    home_token = set_home(str(home))
    try:
        secrets_token = set_secrets(build_secrets(home))
        try:
            yield
        finally:
            reset_secrets(secrets_token)
    finally:
        reset_home(home_token)


# MCP servers


def has_mcp_discovery() -> bool:
    """Return whether this Hermes can discover the tools of MCP servers again."""
    return _import_name("discover_mcp_tools") is not None


def discover_mcp_tools(server_name: str) -> None:
    """Connect a server; with Hermes 0.19, also all other servers that are not connected. Blocks."""
    discover = _import_name("discover_mcp_tools")
    if discover is None:
        return
    _clear_connect_cooldown(server_name)
    if _takes(discover, "allowed_mcp_names"):
        discover(allowed_mcp_names=[server_name])
    else:
        discover()


def shut_down_mcp_server(server_name: str) -> None:
    """Disconnect a server; with Hermes 0.19, all servers. Blocks."""
    shut_down = _import_name("shutdown_mcp_servers")
    if shut_down is None:
        return
    if _takes(shut_down, "names"):
        scope = _find_name("_mcp_registry_scope")[0]
        shut_down(scope=None if scope is None else scope(), names={server_name})
    else:
        shut_down()


def _takes(function: Callable[..., Any], parameter: str) -> bool:
    """Return whether a function of Hermes has a parameter of this name."""
    try:
        return parameter in signature(function).parameters
    except (TypeError, ValueError):
        return False


def _clear_connect_cooldown(server_name: str) -> None:
    """Let Hermes connect a server at once. Later versions wait after a failed attempt, longer each time."""
    if layout() != "0.21":
        return
    with _find_name("_lock")[0] or nullcontext():
        for name in ("_server_connect_retry_after", "_server_connect_failures"):
            by_server: dict[Any, Any] = _import_name(name) or {}
            for key in [key for key in by_server if _server_name_of(key) == server_name]:
                del by_server[key]


def _server_name_of(key: object) -> str:
    """Return the server name in a key of Hermes. With several profiles, such a key is (scope, name)."""
    return str(cast("tuple[object, ...]", key)[-1] if isinstance(key, tuple) else key)


def mcp_session_state(server_name: str) -> Literal["unknown", "closed", "open"]:
    """Return whether Hermes has a session with a server; "unknown" if Hermes does not know the server."""
    current_servers = _find_name("current_mcp_servers")[0]
    servers: dict[Any, Any] = (
        (_import_name("_servers") or {}) if current_servers is None else current_servers()
    )
    server = next((servers[key] for key in list(servers) if _server_name_of(key) == server_name), None)
    if server is None:
        return "unknown"
    return "closed" if getattr(server, "session", None) is None else "open"


def connected_mcp_servers() -> frozenset[str]:
    """Return the names of the servers that Hermes reports as connected."""
    get_status = _import_name("get_mcp_status")
    statuses = cast("list[dict[str, Any]]", [] if get_status is None else get_status())
    return frozenset(str(status.get("name")) for status in statuses if status.get("connected"))


def mcp_tool_prefix(server_name: str) -> str | None:
    """Return the prefix of the names of a server's tools, such as "mcp__notes__"; None if it is not known."""
    sanitize = _import_name("sanitize_mcp_name_component")
    return None if sanitize is None else f"{MCP_TOOL_PREFIX}{sanitize(server_name)}__"


# The turn that runs in this thread


def is_turn_interrupted() -> bool:
    """Return True if the user has stopped the turn that runs in this thread, or if that is not known."""
    is_interrupted = _import_name("is_interrupted")
    return is_interrupted is None or bool(is_interrupted())


def tool_time_limit_seconds() -> float:
    """Return how long Hermes waits for calls that run concurrently: by default 420 seconds (0.19.0)."""
    try:
        seconds = float(os.environ.get("HERMES_CONCURRENT_TOOL_TIMEOUT_S", "") or 420.0)
    except ValueError:
        return 420.0
    return seconds if seconds > 0.0 else float("inf")


def hook_time_limit_seconds() -> float:
    """Return how long Hermes waits for a hook. If a hook takes longer, Hermes skips it for a minute.

    Hermes 0.19 waits without a limit. Hermes 0.21 waits 30 seconds by default
    (`plugins.hook_callback_timeout`).
    """
    if layout() == "0.19":
        return float("inf")
    resolve = _import_name("_resolve_hook_callback_timeout")
    try:
        seconds = 30.0 if resolve is None else float(resolve())
    except Exception:  # noqa: BLE001  Hermes's code
        seconds = 30.0
    return seconds if seconds > 0.0 else float("inf")


def call_tool(name: str, arguments: Mapping[str, object], **ids: str) -> str | None:
    """Call one of the model's tools as Hermes does, but without hooks. Blocks.

    Return the result; None if the call is not possible.
    """
    registry = _import_name("registry")
    try:
        return None if registry is None else str(registry.dispatch(name, dict(arguments), **ids))
    except Exception as error:  # noqa: BLE001  Hermes's code; the text may contain a server's words
        log.warning("The call of %s could not be repeated: %s.", name, type(error).__name__)
        return None


def refresh_turn_tools(gateway: Any) -> bool:  # noqa: ANN401
    """Add the tools of newly connected servers to the turn of this thread; return False on failure."""
    refresh = _import_name("refresh_agent_mcp_tools")
    running: Mapping[str, Any] = getattr(gateway, "_running_agents", None) or {}
    agent = running.get(session_value("KEY"))
    if refresh is None or agent is None:
        return False
    try:
        # Keep the order of the other tools: the model's provider has cached the beginning of the request.
        refresh(agent, **({"preserve_prefix": True} if _takes(refresh, "preserve_prefix") else {}))
    except Exception as error:  # noqa: BLE001  Hermes's code
        log.warning("The tools of this turn could not be read again: %s.", type(error).__name__)
        return False
    return True
