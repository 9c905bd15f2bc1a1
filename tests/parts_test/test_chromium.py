"""Tests of the real browser and of missing programs."""

from __future__ import annotations

import pytest
from playwright.sync_api import Error

from tests.parts.chromium import chromium
from tests.parts.needs import MissingPart, program
from tests.parts.oauth_client import REDIRECT_URI, oauth_client
from tests.parts.oidc_provider import OidcOptions, oidc_provider

pytestmark = pytest.mark.slow


@pytest.mark.browser
@pytest.mark.node
def test_a_person_signs_in_with_a_real_browser_over_https() -> None:
    with (
        oidc_provider(OidcOptions(https=True)) as op,
        oauth_client(op) as client,
        chromium(ignore_https_errors=True) as page,
    ):
        page.route(f"{REDIRECT_URI}*", lambda route: route.fulfill(status=200, body="back again"))
        page.goto(client.authorization_url(client.parameters("mcp:tools", "http://127.0.0.1:9/mcp")))
        page.fill("[name=login]", "ada")
        page.fill("[name=password]", "any")
        page.click("text=Sign-in >> nth=-1")
        page.click("text=Continue")
        page.wait_for_url(f"{REDIRECT_URI}*")
        assert client.redeem(page.url).json()["scope"] == "mcp:tools"


@pytest.mark.browser
def test_the_browser_reaches_nothing_beyond_this_machine() -> None:
    with chromium() as page, pytest.raises(Error, match="ERR_NAME_NOT_RESOLVED"):
        page.goto("http://example.org/")


def test_a_missing_program_is_named_with_the_package_that_has_it() -> None:
    with pytest.raises(
        MissingPart, match=r"^no-such-program is missing; install the Debian package nothing\.$"
    ):
        program("no-such-program", "nothing")
