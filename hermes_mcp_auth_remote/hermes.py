"""Hermes's own rules: where its home is, how its token files are named. Imports next to nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping


def hermes_home(environ: Mapping[str, str]) -> str:
    """Return Hermes's home: HERMES_HOME, else ~/.hermes."""
    return os.path.expanduser(environ.get("HERMES_HOME", "").strip() or "~/.hermes")  # noqa: PTH111


def file_stem(server: str) -> str:
    """Turn a server's name into Hermes's file stem. Not reversible: `my.server` and `my_server` share one."""
    return re.sub(r"[^\w\-]", "_", server).strip("_")[:128] or "default"
