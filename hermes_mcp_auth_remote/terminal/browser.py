"""Detect and open a browser on this machine. A loopback redirect (RFC 8252 §7.3) needs a local browser."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

from hermes_mcp_auth_remote.oauth.urls import safe_url

# Text browsers need the terminal that this process uses.
_TEXT_BROWSERS = {"elinks", "links", "lynx", "w3m", "www-browser"}
# These characters and letters are enough for any URL. The others have a meaning in a shell, in PowerShell, in
# cmd or in the lists of a desktop file. Openers are scripts, and some do not quote their arguments correctly.
_UNESCAPED_CHARS = "/?:@=&+~-._#%"
_RUNDLL_URL_HANDLER = "url.dll,FileProtocolHandler"
_SSH_VARIABLES = ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY")
# A command that finds no browser fails within this time. Some commands run as long as the browser.
_MAX_OPENING_SECONDS = 1.0
_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")


@dataclass(frozen=True, slots=True)
class BrowserSupport:
    """Whether this machine can open a browser, and why, as the end of a sentence ("because …")."""

    can_open: bool
    reason: str


def is_ssh_session(environ: Mapping[str, str]) -> bool:
    """True if this program runs in an SSH session."""
    return any(environ.get(name) for name in _SSH_VARIABLES)


def detect_browser_support(
    environ: Mapping[str, str], platform: str, path_exists: Callable[[str], bool]
) -> BrowserSupport:
    """Detect if this machine can open a browser for the user.

    Reads only the environment, `sys.platform` (`platform`) and the existence of files. SSH takes precedence
    over a display: a forwarded display belongs to another machine, whose browser cannot reach the listener on
    this machine. VS Code is an exception: in its SSH session, BROWSER opens the browser of the user's own
    machine, and VS Code forwards the port of the redirect. A user can override the result with
    `--flow loopback`.
    """
    # Editors in a container or on a remote machine set BROWSER to a command that opens the user's browser.
    has_browser_variable = bool(_read_browser_variable(environ))
    is_in_container = bool(environ.get("container")) or any(map(path_exists, _CONTAINER_FILES))
    has_display = bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))
    is_vscode_terminal = has_browser_variable and bool(environ.get("VSCODE_IPC_HOOK_CLI"))
    rules = (
        (
            is_vscode_terminal,
            BrowserSupport(can_open=True, reason="VS Code opens the browser of your own machine"),
        ),
        (
            is_ssh_session(environ),
            BrowserSupport(can_open=False, reason="this is an SSH session"),
        ),
        (has_browser_variable, BrowserSupport(can_open=True, reason="BROWSER is set")),
        (bool(environ.get("CODESPACES")), BrowserSupport(can_open=False, reason="this is a codespace")),
        (is_in_container, BrowserSupport(can_open=False, reason="this is a container")),
        (platform in {"darwin", "win32"}, BrowserSupport(can_open=True, reason="this is a desktop system")),
        (
            bool(environ.get("WSL_DISTRO_NAME")),
            BrowserSupport(can_open=True, reason="this is Linux on Windows (WSL)"),
        ),
        (has_display, BrowserSupport(can_open=True, reason="there is a display")),
    )
    no_display = BrowserSupport(can_open=False, reason="there is no display")
    return next((support for applies, support in rules if applies), no_display)


def browser_command(
    environ: Mapping[str, str], platform: str, which: Callable[[str], str | None]
) -> tuple[str, ...] | None:
    """Return the command that opens a browser, with "%s" for the URL. Return None if there is none."""
    for command in _read_browser_variable(environ):
        if program := which(command[0]):
            return (program, *command[1:])
    if platform == "win32":
        # Use the full path: Windows searches the current directory first. Never use `cmd /c start`.
        root = environ.get("SystemRoot") or r"C:\Windows"
        return (root + r"\System32\rundll32.exe", _RUNDLL_URL_HANDLER, "%s")
    names: tuple[str, ...] = ("xdg-open",)
    if platform == "darwin":
        names = ("open",)
    elif environ.get("WSL_DISTRO_NAME"):
        # Prefer rundll32.exe: wslview passes the URL through a PowerShell command.
        names = ("rundll32.exe", "wslview", "xdg-open")
    for name in names:
        if program := which(name):
            return (program, _RUNDLL_URL_HANDLER, "%s") if name == "rundll32.exe" else (program, "%s")
    return None


def open_browser(
    url: str,
    environ: Mapping[str, str] | None = None,
    platform: str = sys.platform,
    which: Callable[[str], str | None] = shutil.which,
    max_wait_seconds: float = _MAX_OPENING_SECONDS,
) -> bool:
    """Open a URL in the browser. Return False if the command cannot start or fails at once.

    Blocks until the command ends, `max_wait_seconds` at most, so an event loop calls it with
    `threads.run_in_own_thread`. The URL is one argument and never passes through a shell. True does not mean
    that a page opened: show the URL in any case. Raises UnsafeUrl if the URL is neither https nor http on
    loopback.
    """
    escaped_url = escape_url(safe_url(url, "address to open"))
    environ = os.environ if environ is None else environ
    command = browser_command(environ, platform, which)
    if command is None:
        return False
    # Other users of this machine can read the URL in the process list. It contains no token and no
    # code_verifier, but it contains the state. With the state, another user can complete this login with
    # their own account (SECURITY.md).
    arguments = [escaped_url if part == "%s" else part for part in command]
    try:
        child = subprocess.Popen(  # noqa: S603  a list of arguments, and the URL is checked
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError):
        return False
    try:
        exit_code = child.wait(max_wait_seconds)
    except subprocess.TimeoutExpired:
        # Reap the process when it ends.
        threading.Thread(target=child.wait, daemon=True).start()
        return True
    # rundll32 defines no exit code.
    return exit_code == 0 or _RUNDLL_URL_HANDLER in command


def _read_browser_variable(environ: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Read BROWSER: commands separated by `os.pathsep`, each with or without "%s" for the URL.

    Skip a command in which "%s" is only part of a word, as in `sh -c 'browser %s'`: another program parses
    that word again, so a crafted URL could inject a command.
    """
    commands: list[tuple[str, ...]] = []
    for text in environ.get("BROWSER", "").split(os.pathsep):
        try:
            words = tuple(shlex.split(text, posix=os.name != "nt"))
        except ValueError:
            continue
        if not words or os.path.basename(words[0]) in _TEXT_BROWSERS:  # noqa: PTH119  also of a bare name
            continue
        if all(word == "%s" or "%s" not in word for word in words):
            commands.append(words if "%s" in words else (*words, "%s"))
    return commands


def escape_url(url: str) -> str:
    """Percent-encode the characters that an opener could interpret. The URL keeps its meaning."""
    parts = urlsplit(url)
    path, query, fragment = (
        quote(part, safe=_UNESCAPED_CHARS) for part in (parts.path, parts.query, parts.fragment)
    )
    return urlunsplit(parts._replace(path=path, query=query, fragment=fragment))
