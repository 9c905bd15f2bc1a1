"""The pages for users are escaped, self-contained, and usable in a real browser."""

from __future__ import annotations

import re
import shutil
import socket
from pathlib import Path

import httpx
import pytest

from hermes_mcp_auth_remote.demo.pages import consent_page, error_page, page_headers
from tests.demo.manual_client import ManualClient, parameters_of
from tests.parts.authorization_server import Behaviour, serve_demo

pytestmark = pytest.mark.slow

HOSTILE = "\"><script>alert('x')</script>&amp;"


def test_pages_escape_external_text() -> None:
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


def test_pages_load_no_resources_and_forbid_framing_and_caching() -> None:
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
        client = ManualClient(demo)
        for response in (client.authorize(), client.authorize(client_id="nobody")):
            assert response.headers["x-frame-options"] == "DENY"
            assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "Player" in client.authorize().text


@pytest.mark.browser
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_user_approves_in_a_browser_and_reaches_the_redirect_uri(tmp_path: Path, host: str) -> None:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    assert chromium, "This test needs chromium: apt-get install chromium"
    family = socket.AF_INET6 if "[" in host else socket.AF_INET
    # A server must listen on the redirect URI. If none does, the browser shows an error page.
    with (
        serve_demo(Behaviour()) as demo,
        socket.create_server((host.strip("[]"), 0), family=family) as listener,
    ):
        redirect_uri = f"http://{host}:{listener.getsockname()[1]}/callback"
        client = ManualClient(demo, redirect_uris=[redirect_uri])
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=flags)
            try:
                page = browser.new_page(viewport={"width": 390, "height": 780}, color_scheme="dark")
                console_messages: list[str] = []
                page.on("console", lambda message: console_messages.append(message.text))
                page.goto(client.authorization_url(redirect_uri=redirect_uri))
                assert page.evaluate("document.documentElement.scrollWidth") <= 390
                assert (
                    page.evaluate("getComputedStyle(document.querySelector('main')).borderRadius") == "14px"
                )
                page.screenshot(path=tmp_path / "consent.png", full_page=True)
                page.get_by_role("button", name="Approve").press("Enter", no_wait_after=True)
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(20)
                    target = connection.recv(65536).split()[1].decode()
                    connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            finally:
                browser.close()
        assert console_messages == []
        code = parameters_of(f"http://{host}{target}")["code"]
        assert client.exchange(code, redirect_uri=redirect_uri).status_code == 200


def test_an_error_page_names_the_reason() -> None:
    with serve_demo() as demo:
        response = httpx.get(f"{demo.issuer}/authorize")
        assert response.status_code == 400
        assert "is not registered" in response.text
