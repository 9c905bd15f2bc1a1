"""What the plugin reaches inside Hermes, by name and nowhere else; what is not found is said once.

None of it is a contract of Hermes's. Measured with 0.19.0. Every function here copes with what has moved: it
returns nothing, or refuses, and the log says in a sentence what was not found.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from hermes_mcp_auth_remote.config import hermes_home_path

COMMAND = "mcpauth"

log = logging.getLogger(__name__)

_logged_warnings: set[str] = set()


def warn_once(message: str) -> None:
    """Tell the operator what this Hermes does not have, the first time that it is missed."""
    if message not in _logged_warnings:
        _logged_warnings.add(message)
        log.warning("%s", message)


def import_attribute(module_name: str, name: str, consequence: str) -> Any:  # noqa: ANN401  Hermes's own, untyped
    """Return what a module of Hermes's has under a name; None, said once with its consequence, without it."""
    try:
        return getattr(import_module(module_name), name)
    except Exception:  # noqa: BLE001  an import may raise anything
        warn_once(f"Hermes has no {module_name}.{name}: {consequence}.")
        return None


def running_gateway() -> Any:  # noqa: ANN401  Hermes's own, untyped
    """Return the gateway of this process once it runs and has platforms; None before."""
    for module in ("gateway.run", "__main__"):
        reference = getattr(sys.modules.get(module), "_gateway_runner_ref", None)
        gateway = reference() if callable(reference) else None
        if gateway is not None and getattr(gateway, "adapters", None):
            return gateway
    return None


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """One adapter of the gateway's: its platform (Hermes's enum), and its profile, "" for the main one."""

    platform_adapter: Any
    platform: Any
    profile: str = ""

    @property
    def platform_name(self) -> str:
        """The platform's name, "telegram" and the like."""
        return name_of_platform(self.platform)


def name_of_platform(platform: object) -> str:
    """Return the name of one of Hermes's platforms, a member of its enumeration or a word."""
    return str(getattr(platform, "value", platform))


def adapter_refs(gateway: Any) -> Iterator[AdapterRef]:  # noqa: ANN401
    """Yield the adapters that are there now; another object takes an adapter's place when it reconnects."""
    main: dict[Any, Any] = getattr(gateway, "adapters", None) or {}
    for platform, adapter in list(main.items()):
        yield AdapterRef(adapter, platform)
    others: dict[str, dict[Any, Any]] = getattr(gateway, "_profile_adapters", None) or {}
    for profile, held in list(others.items()):
        for platform, adapter in list(held.items()):
            yield AdapterRef(adapter, platform, profile)


def home_of(profile: str) -> Path:
    """Return the HERMES_HOME of a profile; that of this process for the main one."""
    if profile:
        folder = import_attribute(
            "hermes_cli.profiles", "get_profile_dir", "profiles share the main one's servers"
        )
        if folder is not None:
            return Path(folder(profile))
    return hermes_home_path(os.environ)


def make_source(
    adapter_ref: AdapterRef, user_id: str, chat_id: str = "", chat_type: str = "dm", **fields: object
) -> Any:  # noqa: ANN401
    """Make Hermes's description of where somebody speaks, by default in private; None where it has moved."""
    made = import_attribute("gateway.session", "SessionSource", "nobody can be authorised")
    if made is None:
        return None
    profile = adapter_ref.profile or None
    return made(
        platform=adapter_ref.platform,
        chat_id=chat_id or user_id,
        chat_type=chat_type,
        user_id=user_id,
        profile=profile,
        **fields,
    )


def is_user_authorized(gateway: Any, source: Any) -> bool:  # noqa: ANN401
    """Ask Hermes whether that person may talk to it there; False where it cannot be asked."""
    try:
        return bool(gateway._is_user_authorized(source))  # noqa: SLF001
    except Exception:  # noqa: BLE001  whatever has moved: nobody may
        warn_once("Hermes's gateway cannot be asked who is authorised: nobody may log in from a chat.")
        return False


def slash_policy(gateway: Any, source: Any) -> Any:  # noqa: ANN401
    """Return Hermes's rules about commands there; None where they have moved."""
    found = import_attribute("gateway.slash_access", "policy_for_source", "only listing is left to chats")
    try:
        return None if found is None else found(gateway.config, source)
    except Exception:  # noqa: BLE001  whatever has moved
        warn_once("Hermes's rules about commands cannot be read: only listing is left to chats.")
        return None


def session_value(name: str) -> str:
    """Return what Hermes knows of the chat whose turn it is, such as "CHAT_ID"; "" where it is nobody's."""
    found = import_attribute(
        "gateway.session_context", "get_session_env", "the agent cannot ask for logins by itself"
    )
    return "" if found is None else str(found(f"HERMES_SESSION_{name}", "") or "")
