"""The pages for users are escaped, self-contained, and usable in a real browser."""

from __future__ import annotations

import re
import shutil
import socket
from pathlib import Path

import httpx
import pytest

from hermes_mcp_auth_remote.demo.pages import consent_page, error_page, page_headers
from tests.demo.player import Player, parameters_of
from tests.parts.authorization_server import Behaviour, serve_demo

pytestmark = pytest.mark.slow

HOSTILE = "\"><script>alert('x')</script>&amp;"


def test_everything_from_outside_is_escaped() -> None:
    page = consent_page(
        client=HOSTILE,
        account=HOSTILE,
        scope=[HOSTILE],
        resource=HOSTILE,
        redirect_uri=f"https://host{HOSTILE}/callback",
        request_id=HOSTILE,
        csrf_token=HOSTILE,
    ) + error_page(HOSTILE)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 8
    assert not re.search(r'value="[^"]*"[^>\s]', page)


def test_the_pages_load_nothing_and_may_not_be_framed_or_remembered() -> None:
    page = error_page("x")
    assert not re.findall(r"(?:src|href|url\()", page)
    headers = page_headers("http://127.0.0.1:5000/callback")
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store"
    policy = headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(policy)
    assert "form-action 'self' http://127.0.0.1:5000" in policy
    assert "form-action 'none'" in page_headers()["Content-Security-Policy"]


def test_the_server_sends_these_headers_with_both_pages() -> None:
    with serve_demo() as demo:
        player = Player(demo)
        for answer in (player.authorize(), player.authorize(client_id="nobody")):
            assert answer.headers["x-frame-options"] == "DENY"
            assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "Player" in player.authorize().text


@pytest.mark.browser
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_person_with_a_browser_approves_and_lands_on_the_redirect_uri(tmp_path: Path, host: str) -> None:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    assert chromium, "This test needs chromium: apt-get install chromium"
    family = socket.AF_INET6 if "[" in host else socket.AF_INET
    # A server must listen on the redirect URI, or the browser shows an error page instead.
    with (
        serve_demo(Behaviour()) as demo,
        socket.create_server((host.strip("[]"), 0), family=family) as landing,
    ):
        redirect_uri = f"http://{host}:{landing.getsockname()[1]}/callback"
        player = Player(demo, redirect_uris=[redirect_uri])
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=flags)
            try:
                page = browser.new_page(viewport={"width": 390, "height": 780}, color_scheme="dark")
                trouble: list[str] = []
                page.on("console", lambda message: trouble.append(message.text))
                page.goto(player.url(redirect_uri=redirect_uri))
                assert page.evaluate("document.documentElement.scrollWidth") <= 390
                assert (
                    page.evaluate("getComputedStyle(document.querySelector('main')).borderRadius") == "14px"
                )
                page.screenshot(path=tmp_path / "consent.png", full_page=True)
                page.get_by_role("button", name="Approve").press("Enter", no_wait_after=True)
                connection, _ = landing.accept()
                with connection:
                    connection.settimeout(20)
                    target = connection.recv(65536).split()[1].decode()
                    connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            finally:
                browser.close()
        assert trouble == []
        code = parameters_of(f"http://{host}{target}")["code"]
        assert player.exchange(code, redirect_uri=redirect_uri).status_code == 200


def test_a_page_that_was_refused_says_so_in_words() -> None:
    with serve_demo() as demo:
        answer = httpx.get(f"{demo.issuer}/authorize")
        assert answer.status_code == 400
        assert "is not registered" in answer.text
