"""Detect whether a browser can be opened, and open it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_mcp_auth_remote.errors import UnsafeUrl
from hermes_mcp_auth_remote.oauth.urls import safe_url
from hermes_mcp_auth_remote.terminal.browser import (
    BrowserSupport,
    browser_command,
    detect_browser_support,
    escape_url,
    open_browser,
)
from tests.requirements import covers

URL = "https://login.example/authorize?a=1&b=$(touch%20/tmp/x);c='d'"

# The same URL without special characters of a shell, PowerShell or cmd.
ESCAPED_URL = "https://login.example/authorize?a=1&b=%24%28touch%20/tmp/x%29%3Bc=%27d%27"


def detect_support(environ: Mapping[str, str], platform: str = "linux", *files: str) -> BrowserSupport:
    return detect_browser_support(environ, platform, lambda path: path in files)


@pytest.mark.parametrize(
    ("environ", "platform", "files", "can_open", "reason"),
    [
        ({}, "linux", (), False, "there is no display"),
        ({"DISPLAY": ""}, "linux", (), False, "there is no display"),
        ({"DISPLAY": ":0"}, "linux", (), True, "there is a display"),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", (), True, "there is a display"),
        ({"WSL_DISTRO_NAME": "Debian"}, "linux", (), True, "this is Linux on Windows (WSL)"),
        ({}, "darwin", (), True, "this is a desktop system"),
        ({}, "win32", (), True, "this is a desktop system"),
        (
            {"DISPLAY": "localhost:10.0", "SSH_CONNECTION": "a b"},
            "linux",
            (),
            False,
            "this is an SSH session",
        ),
        ({"SSH_TTY": "/dev/pts/1"}, "darwin", (), False, "this is an SSH session"),
        ({"SSH_CLIENT": "a", "BROWSER": "firefox"}, "linux", (), False, "this is an SSH session"),
        (
            {"SSH_CLIENT": "a", "BROWSER": "/v/browser.sh", "VSCODE_IPC_HOOK_CLI": "/run/vscode.sock"},
            "linux",
            (),
            True,
            "VS Code opens the browser of your own machine",
        ),
        ({"SSH_CLIENT": "a", "VSCODE_IPC_HOOK_CLI": "/x"}, "linux", (), False, "this is an SSH session"),
        (
            {"SSH_CLIENT": "a", "BROWSER": "lynx", "VSCODE_IPC_HOOK_CLI": "/x"},
            "linux",
            (),
            False,
            "this is an SSH session",
        ),
        ({"DISPLAY": ":0"}, "linux", ("/.dockerenv",), False, "this is a container"),
        ({"DISPLAY": ":0"}, "linux", ("/run/.containerenv",), False, "this is a container"),
        ({"container": "podman"}, "linux", (), False, "this is a container"),
        ({"CODESPACES": "true"}, "linux", (), False, "this is a codespace"),
        ({"CODESPACES": "true", "BROWSER": "/x/browser.sh"}, "linux", (), True, "BROWSER is set"),
        ({"BROWSER": "/x/browser.sh"}, "linux", ("/.dockerenv",), True, "BROWSER is set"),
        ({"BROWSER": "lynx"}, "linux", (), False, "there is no display"),
        ({"BROWSER": "/usr/bin/w3m:unbalanced '"}, "linux", (), False, "there is no display"),
    ],
)
def test_browser_support_depends_on_the_environment(
    environ: Mapping[str, str], platform: str, files: tuple[str, ...], can_open: object, reason: str
) -> None:
    assert detect_support(environ, platform, *files) == BrowserSupport(bool(can_open), reason)


@pytest.mark.parametrize(
    ("environ", "platform", "programs", "arguments"),
    [
        ({}, "linux", {"xdg-open"}, ("/bin/xdg-open", "%s")),
        ({}, "linux", set(), None),
        ({}, "darwin", {"open", "xdg-open"}, ("/bin/open", "%s")),
        ({"WSL_DISTRO_NAME": "x"}, "linux", {"wslview", "xdg-open"}, ("/bin/wslview", "%s")),
        (
            {"WSL_DISTRO_NAME": "x"},
            "linux",
            {"rundll32.exe", "wslview", "xdg-open"},
            ("/bin/rundll32.exe", "url.dll,FileProtocolHandler", "%s"),
        ),
        (
            {"SystemRoot": r"D:\Win"},
            "win32",
            set(),
            (r"D:\Win\System32\rundll32.exe", "url.dll,FileProtocolHandler", "%s"),
        ),
        ({"BROWSER": "firefox --new-tab"}, "linux", {"firefox"}, ("/bin/firefox", "--new-tab", "%s")),
        (
            {"BROWSER": "gone:chromium --app %s -x"},
            "linux",
            {"chromium"},
            ("/bin/chromium", "--app", "%s", "-x"),
        ),
        ({"BROWSER": "sh -c 'firefox %s'"}, "linux", {"sh", "xdg-open"}, ("/bin/xdg-open", "%s")),
        ({"BROWSER": "chromium --app=%s"}, "linux", {"chromium"}, None),
        ({"BROWSER": "'my browser'"}, "linux", {"my browser"}, ("/bin/my browser", "%s")),
        ({"BROWSER": "gone"}, "linux", {"xdg-open"}, ("/bin/xdg-open", "%s")),
    ],
)
def test_the_browser_command(
    environ: Mapping[str, str], platform: str, programs: set[str], arguments: tuple[str, ...] | None
) -> None:
    assert (
        browser_command(environ, platform, lambda name: f"/bin/{name}" if name in programs else None)
        == arguments
    )


def write_browser(tmp_path: Path) -> tuple[Path, Path]:
    """Write a program that sends its arguments through a FIFO, so that a test can wait for them."""
    import os

    fifo, program = tmp_path / "fifo", tmp_path / "a browser"
    os.mkfifo(fifo)
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "print('noise'); print('noise', file=sys.stderr)\n"
        f"open({str(fifo)!r}, 'w').write('\\0'.join([str(os.getsid(0)), sys.stdin.read(), *sys.argv[1:]]))\n",
        encoding="utf-8",
    )
    program.chmod(0o700)
    return fifo, program


def test_the_browser_gets_one_argument_and_its_output_is_dropped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import os

    fifo, program = write_browser(tmp_path)
    # The program runs until its arguments are read.
    environ = {"BROWSER": f"'{program}' --flag"}
    assert open_browser(URL, environ, "linux", lambda name: name, max_wait_seconds=0)
    session, stdin, *arguments = fifo.read_text(encoding="utf-8").split("\0")
    assert arguments == ["--flag", ESCAPED_URL]
    assert stdin == ""
    assert int(session) != os.getsid(0)
    assert capfd.readouterr() == ("", "")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='\\<>"^`{|}%')))
def test_an_escaped_url_is_equivalent_and_has_no_shell_characters(text: str) -> None:
    original_url = safe_url(f"https://as.example/{text}", "address")
    url = escape_url(original_url)
    assert not set(url) & set("$'();!*,`|<>\"\\^{} \n")
    assert unquote(url) == unquote(original_url)
    assert escape_url(url) == url


@pytest.mark.parametrize(
    "url",
    ["http://far.example/", "file:///etc/passwd", "-h", "https://a.example/\n-x", "javascript:alert(1)"],
)
def test_an_unsafe_url_is_never_opened(tmp_path: Path, url: str) -> None:
    marker = tmp_path / "ran"
    with pytest.raises(UnsafeUrl):
        open_browser(url, {"BROWSER": f"touch {marker}"})
    assert not marker.exists()


def test_open_browser_returns_false_if_no_program_starts(tmp_path: Path) -> None:
    assert not open_browser(URL, {}, "linux", lambda name: None)
    assert not open_browser(URL, {"BROWSER": "x"}, "linux", lambda name: str(tmp_path / "missing"))


@covers("browser-failure")
@pytest.mark.parametrize(
    ("environ", "program", "is_opened"),
    [
        ({"BROWSER": "x"}, "/bin/true", True),
        # xdg-open without a display and without a browser ends in the same way.
        ({"BROWSER": "x"}, "/bin/false", False),
        # Windows defines no exit code of rundll32.
        ({"WSL_DISTRO_NAME": "x"}, "/bin/false", True),
    ],
)
def test_a_command_that_fails_at_once_has_opened_no_browser(
    environ: Mapping[str, str], program: str, *, is_opened: bool
) -> None:
    assert open_browser(URL, environ, "linux", lambda _: program, max_wait_seconds=60) is is_opened
