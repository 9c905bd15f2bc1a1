"""The command that installs packages into the environment that this process runs in."""

from __future__ import annotations

import shlex
import sys


def install_command(*requirements: str) -> str:
    """Return the command that installs packages for this Python, quoted for a shell.

    It begins with `pip` only if the shell's `pip` installs into this environment. It names the Python of this
    environment if the shell has another `pip`, for example if the environment is not activated, or if pipx
    created it. An environment without pip, such as one of `uv tool`, needs uv.
    """
    # Import late: only an error needs these.
    from importlib.util import find_spec  # noqa: PLC0415
    from shutil import which  # noqa: PLC0415
    from sysconfig import get_path  # noqa: PLC0415

    pip = which("pip")
    if not sys.executable or (pip is not None and pip == which("pip", path=get_path("scripts"))):
        command = ["pip", "install"]
    elif find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip", "install"]
    else:
        command = ["uv", "pip", "install", "--python", sys.executable]
    return shlex.join([*command, *requirements])
