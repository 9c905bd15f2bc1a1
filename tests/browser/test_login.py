"""A login on a desktop: the command opens the browser, the user approves, and the command exits."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.cli.commands import Cli
from tests.parts.authorization_server import serve_demo
from tests.parts.chromium import chromium
from tests.tripwire import guard

# A browser that passes its argument, the URL, to the test.
BROWSER = """#!/bin/sh
printf '%s' "$1" > "${0%/*}/asked"
"""


@pytest.mark.browser
@pytest.mark.parametrize("decision", ["Approve", "Deny"])
def test_the_browser_ends_on_our_page_and_the_command_by_itself(tmp_path: Path, decision: str) -> None:
    browser, asked = tmp_path / "browser", tmp_path / "asked"
    browser.write_text(BROWSER)
    browser.chmod(0o700)
    os.mkfifo(asked)
    with serve_demo() as demo, chromium() as page:
        guard(demo.authorization_server.minted_secrets)
        cli = Cli(tmp_path / "home", demo.authorization_server.minted_secrets)
        cli.configure(demo.mcp_url)
        with cli.started("login", "demo", "--json", env={"BROWSER": str(browser)}) as login:
            waiting = login.event()
            assert waiting["browser_opened"] is True
            # Opening the pipe waits for the script. If the script does not run, the timer ends the wait.
            rescue = threading.Timer(20, lambda: asked.write_text("about:blank"))
            rescue.start()
            url = asked.read_text()
            rescue.cancel()
            assert url == waiting["authorization_url"]
            page.goto(url)
            page.click(f"text={decision} >> nth=0" if decision == "Deny" else "button.go")
            page.wait_for_url(f"{waiting['redirect_uri']}*")
            text = page.inner_text("main")
            said = login.event()
            code = login.process.wait(20)
    if decision == "Approve":
        assert text.splitlines()[0] == "You are logged in"
        assert (code, said["event"]) == (0, "connected")
    else:
        assert text.splitlines()[0] == "The login failed"
        assert (code, said["error"]) == (5, "authorization_denied")
