"""The context of a turn or a thread of the later Hermes: its chat, its profile, its interrupt."""

from __future__ import annotations

import os
import threading
from contextvars import ContextVar, Token
from pathlib import Path
from typing import Any

SESSION_NAMES = ("PLATFORM", "CHAT_ID", "CHAT_TYPE", "THREAD_ID", "USER_ID", "KEY", "ID", "PROFILE")

_home_override: ContextVar[str | None] = ContextVar("home", default=None)
_secrets: ContextVar[dict[str, str] | None] = ContextVar("secrets", default=None)
_session: ContextVar[dict[str, str]] = ContextVar("session")
_interrupted_threads: set[int] = set()


def get_hermes_home() -> Path:
    return Path(_home_override.get() or os.environ["HERMES_HOME"])


def home_override() -> str | None:
    return _home_override.get()


def set_hermes_home_override(home: str) -> Token[str | None]:
    return _home_override.set(home)


def reset_hermes_home_override(token: Token[str | None]) -> None:
    _home_override.reset(token)


def build_profile_secret_scope(home: Path) -> dict[str, str]:
    path = home / ".env"
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(line.split("=", 1) for line in lines if "=" in line)


def set_secret_scope(secrets: dict[str, str]) -> Token[dict[str, str] | None]:
    return _secrets.set(secrets)


def reset_secret_scope(token: Token[dict[str, str] | None]) -> None:
    _secrets.reset(token)


def get_profile_dir(profile: str) -> Path:
    return Path(os.environ["HERMES_HOME"]) / "profiles" / profile


def set_session_vars(**values: str) -> None:
    _session.set({f"HERMES_SESSION_{name.upper()}": value for name, value in values.items()})


def get_session_env(name: str, default: str = "") -> str:
    return _session.get({}).get(name, default)


def is_interrupted() -> bool:
    return threading.get_ident() in _interrupted_threads


def set_interrupt(active: bool, thread_id: int | None = None) -> None:  # noqa: FBT001
    change: Any = _interrupted_threads.add if active else _interrupted_threads.discard
    change(thread_id or threading.get_ident())
