"""Tests of the real browser and of missing programs."""

from __future__ import annotations

import pytest
from playwright.sync_api import Error

from tests.parts.chromium import open_chromium
from tests.parts.oauth_client import REDIRECT_URI, register_oauth_client
from tests.parts.oidc_provider import OidcOptions, run_oidc_provider
from tests.parts.requirements import MissingDependency, find_program

pytestmark = pytest.mark.slow


@pytest.mark.browser
@pytest.mark.node
def test_user_signs_in_with_a_real_browser_over_https() -> None:
    with (
        run_oidc_provider(OidcOptions(https=True)) as op,
        register_oauth_client(op) as client,
        open_chromium(ignore_https_errors=True) as page,
    ):
        page.route(f"{REDIRECT_URI}*", lambda route: route.fulfill(status=200, body="back again"))
        page.goto(
            client.authorization_url(client.authorization_parameters("mcp:tools", "http://127.0.0.1:9/mcp"))
        )
        page.fill("[name=login]", "ada")
        page.fill("[name=password]", "any")
        page.click("text=Sign-in >> nth=-1")
        page.click("text=Continue")
        page.wait_for_url(f"{REDIRECT_URI}*")
        assert client.exchange_code(page.url).json()["scope"] == "mcp:tools"


@pytest.mark.browser
def test_browser_reaches_only_this_machine() -> None:
    with open_chromium() as page, pytest.raises(Error, match="ERR_NAME_NOT_RESOLVED"):
        page.goto("http://example.org/")


def test_missing_program_error_names_the_debian_package() -> None:
    with pytest.raises(
        MissingDependency, match=r"^no-such-program is missing; install the Debian package nothing\.$"
    ):
        find_program("no-such-program", "nothing")
