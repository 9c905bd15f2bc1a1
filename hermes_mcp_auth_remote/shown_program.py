"""The program's name in the commands that a screen prints, so that each command runs exactly as printed.

If the shell does not find the program by its name, a screen shows how it was started: the path of the script
in an environment that is not activated, for example. Texts for chats, models and programs keep the name.
"""

from __future__ import annotations

import os
import re
import sys

from hermes_mcp_auth_remote.commands import PROGRAM

_COMMAND = re.compile(rf"(?<![\w/.-]){PROGRAM}(?= [a-z])")
# How the program was started; None if the name is shown.
_shown_program: str | None = None


def show_how_started() -> None:
    """Let the screens of this process show how the program was started, if the shell does not find its name.

    Only the command line calls this: in another program, `sys.argv` names that program.
    """
    global _shown_program  # noqa: PLW0603  a process has one command line
    paths = [f"{folder}/{PROGRAM}" for folder in os.get_exec_path()]
    is_found = any(os.path.isfile(path) and os.access(path, os.X_OK) for path in paths)  # noqa: PTH113  faster
    _shown_program = None if is_found or sys.platform == "win32" else started_program()


def started_program() -> str:
    """Return the command that starts this program as it was started, in any folder; quoted for a shell."""
    # Import late: with an installed program, nothing needs them.
    import shlex  # noqa: PLC0415
    import shutil  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    program = Path(sys.argv[0])
    if program.stem not in {PROGRAM, "hermes-mcp-auth-remote"}:
        # `python -m`, or a program that calls `cli.__main__.run`.
        return shlex.join([sys.executable, "-m", "hermes_mcp_auth_remote.cli"])
    path_on_search_path = shutil.which(program.name)
    if path_on_search_path is not None and program.exists() and Path(path_on_search_path).samefile(program):
        return program.name
    # The user may type the command in another folder.
    return shlex.quote(str(program.absolute()))


def with_shown_program(text: str) -> str:
    """Return a text for a screen, in which each command of this program runs as it is printed."""
    shown_program = _shown_program
    if shown_program is None or PROGRAM not in text:
        return text
    return _COMMAND.sub(lambda _: shown_program, text)
