"""The time since the system started: Linux's CLOCK_BOOTTIME, which includes sleep and cannot be set."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from hermes_mcp_auth_remote.values import BootTime

_BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")


def read_boot_time() -> BootTime | None:
    """Return the time since this boot, None if the system has no such clock or no boot id."""
    boot_id = _boot_id()
    clock_id: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    if boot_id is None or clock_id is None:
        return None
    with suppress(OSError):
        return BootTime(boot_id, time.clock_gettime(clock_id))
    return None


@lru_cache(maxsize=1)
def _boot_id() -> str | None:
    with suppress(OSError, UnicodeDecodeError):
        return _BOOT_ID_PATH.read_text("ascii").strip() or None
    return None
