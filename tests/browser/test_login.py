"""A login on a desktop: the command opens the browser, the user approves, and the command exits."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.cli.commands import Cli
from tests.leak_check import watch_secrets
from tests.parts.authorization_server import serve_demo
from tests.parts.chromium import open_chromium

# A browser that passes its argument, the URL, to the test.
BROWSER_SCRIPT = """#!/bin/sh
printf '%s' "$1" > "${0%/*}/asked"
"""


@pytest.mark.browser
@pytest.mark.parametrize("decision", ["Approve", "Deny"])
def test_the_browser_ends_on_the_result_page_and_the_command_exits(tmp_path: Path, decision: str) -> None:
    browser, opened_url = tmp_path / "browser", tmp_path / "asked"
    browser.write_text(BROWSER_SCRIPT)
    browser.chmod(0o700)
    os.mkfifo(opened_url)
    with serve_demo() as demo, open_chromium() as page:
        watch_secrets(demo.authorization_server.minted_secrets)
        cli = Cli(tmp_path / "home", demo.authorization_server.minted_secrets)
        cli.configure(demo.mcp_url)
        with cli.start("login", "demo", "--json", env={"BROWSER": str(browser)}) as login:
            waiting = login.read_event()
            assert waiting["browser_opened"] is True
            # Opening the pipe waits for the script. If the script does not run, the timer ends the wait.
            timer = threading.Timer(20, lambda: opened_url.write_text("about:blank"))
            timer.start()
            url = opened_url.read_text()
            timer.cancel()
            assert url == waiting["authorization_url"]
            page.goto(url)
            page.click(f"text={decision} >> nth=0" if decision == "Deny" else "button.go")
            page.wait_for_url(f"{waiting['redirect_uri']}*")
            text = page.inner_text("main")
            event = login.read_event()
            exit_code = login.process.wait(20)
    if decision == "Approve":
        assert text.splitlines()[0] == "You are logged in"
        assert (exit_code, event["event"]) == (0, "connected")
    else:
        assert text.splitlines()[0] == "The login failed"
        assert (exit_code, event["error"]) == (5, "authorization_denied")
