"""Whether a browser can be opened on this machine, and opening it: RFC 8252 §7.3 needs one right here."""

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

# They need a terminal of their own, and ours is taken.
_TEXT_BROWSERS = {"elinks", "links", "lynx", "w3m", "www-browser"}
# Enough for any URL. What is missing means something to a shell, to PowerShell or to cmd, or ends
# a list in a desktop file: openers are scripts, and quote as well as their authors thought of it.
_UNESCAPED_CHARS = "/?:@=&+~-._#%"
_RUNDLL_URL_HANDLER = "url.dll,FileProtocolHandler"
_SSH_VARIABLES = ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY")
_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")


@dataclass(frozen=True, slots=True)
class BrowserSupport:
    """Whether a browser can be opened here, and the reason, as the end of a sentence ("because …")."""

    can_open: bool
    reason: str


def detect_browser_support(
    environ: Mapping[str, str], platform: str, path_exists: Callable[[str], bool]
) -> BrowserSupport:
    """Judge by the environment, `sys.platform` and which files there are; looks at nothing else.

    SSH counts before a display: a forwarded or left-over display is not where the person sits, and a
    redirect to this machine would not reach it. Who knows better asks for the loopback flow outright.
    """
    # Editors that run in a container or on a remote machine set it to what opens the person's own browser.
    asked = bool(_read_browser_variable(environ))
    contained = bool(environ.get("container")) or any(map(path_exists, _CONTAINER_FILES))
    has_display = bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))
    judgements = (
        (
            any(environ.get(name) for name in _SSH_VARIABLES),
            BrowserSupport(can_open=False, reason="this is an SSH session"),
        ),
        (asked, BrowserSupport(can_open=True, reason="BROWSER is set")),
        (bool(environ.get("CODESPACES")), BrowserSupport(can_open=False, reason="this is a codespace")),
        (contained, BrowserSupport(can_open=False, reason="this is a container")),
        (platform in {"darwin", "win32"}, BrowserSupport(can_open=True, reason="this is a desktop system")),
        (
            bool(environ.get("WSL_DISTRO_NAME")),
            BrowserSupport(can_open=True, reason="Windows is around this Linux"),
        ),
        (has_display, BrowserSupport(can_open=True, reason="there is a display")),
    )
    no_display = BrowserSupport(can_open=False, reason="there is no display")
    return next((judgement for holds, judgement in judgements if holds), no_display)


def browser_command(
    environ: Mapping[str, str], platform: str, which: Callable[[str], str | None]
) -> tuple[str, ...] | None:
    """Return the arguments that open a browser, "%s" standing for the URL; None where nothing would."""
    for command in _read_browser_variable(environ):
        if program := which(command[0]):
            return (program, *command[1:])
    if platform == "win32":
        # By its full path: Windows looks into the current directory first. Never `cmd /c start`.
        root = environ.get("SystemRoot") or r"C:\Windows"
        return (root + r"\System32\rundll32.exe", _RUNDLL_URL_HANDLER, "%s")
    names: tuple[str, ...] = ("xdg-open",)
    if platform == "darwin":
        names = ("open",)
    elif environ.get("WSL_DISTRO_NAME"):
        # The first one goes through no PowerShell command.
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
) -> bool:
    """Hand a URL to the browser as one argument, never through a shell; True where something was started.

    Whether a page then opens is not known, so show the URL all the same. Raises UnsafeUrl for a URL that is
    neither https nor http on this machine.
    """
    checked = escape_url(safe_url(url, "address to open"))
    environ = os.environ if environ is None else environ
    command = browser_command(environ, platform, which)
    if command is None:
        return False
    # Other users of this machine can read it in the process list: no token and no code_verifier, but the
    # state. Whoever takes that can answer this login with an account of their own (SECURITY.md).
    arguments = [checked if part == "%s" else part for part in command]
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
    # Some openers stay until the browser is closed; when one ends, nothing of it must be left.
    threading.Thread(target=child.wait, daemon=True).start()
    return True


def _read_browser_variable(environ: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Read BROWSER: commands with `os.pathsep` between them, each with or without "%s" for the URL.

    Where "%s" is only part of a word, as in `sh -c 'browser %s'`, something else reads that word once more,
    and a URL can be written for it: such a command is left out.
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
    """Percent-encode what an opener might take for more than a URL; servers read it as before."""
    parts = urlsplit(url)
    path, query, fragment = (
        quote(part, safe=_UNESCAPED_CHARS) for part in (parts.path, parts.query, parts.fragment)
    )
    return urlunsplit(parts._replace(path=path, query=query, fragment=fragment))
