"""A simulated user of a browser: signs in, consents and types a user code.

The user fills in and submits the first form of each page, until a page has no form or until a redirect
leads to another origin: that is the redirect URI, which is not fetched.
"""

from __future__ import annotations

import ssl
import urllib.request
from dataclasses import dataclass, field
from email.message import Message
from html.parser import HTMLParser
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from pathlib import Path
from typing import IO, cast
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin, urlsplit

MAX_STEPS = 20  # a login takes about eight steps


@dataclass(frozen=True, slots=True)
class Page:
    """The last page: `url` is its address, `text` its HTML."""

    url: str
    status: int
    text: str


@dataclass
class Form(HTMLParser):
    """The first form of a page: its action, and its fields with their values."""

    action: str | None = None
    fields: dict[str, str] = field(default_factory=dict[str, str])
    text_fields: set[str] = field(default_factory=set[str])
    abort_url: str | None = None

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form" and self.action is None:
            self.action = values.get("action", "")
        elif tag == "input" and self.action is not None and "name" in values:
            self.fields[values["name"]] = values.get("value", "")
            if values.get("type") == "text":
                self.text_fields.add(values["name"])
        elif tag == "a" and values.get("href", "").endswith("/abort"):
            self.abort_url = values["href"]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


class BrowserUser:
    """One user with one cookie jar: a second login needs no second sign-in."""

    def __init__(self, name: str = "ada", ca_file: Path | None = None) -> None:
        context = ssl.create_default_context(cafile=str(ca_file)) if ca_file else None
        self.name = name
        self._open_url = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=context),
            urllib.request.HTTPCookieProcessor(CookieJar()),
            _NoRedirect(),
        ).open

    def approve(self, url: str) -> str:
        """Sign in and consent; return the redirect URI with its parameters. Do not fetch it."""
        return _redirect_url(self._follow_pages(url, {}))

    def deny(self, url: str) -> str:
        """Follow the page's [ Cancel ] link; return the redirect URI with its error."""
        return _redirect_url(self._follow_pages(url, {}, deny=True))

    def approve_device(self, verification_uri: str, user_code: str | None = None) -> Page:
        """Open the device page, type the code if there is one, confirm, sign in and consent."""
        last_page = self._follow_pages(verification_uri, {"user_code": user_code} if user_code else {})
        if isinstance(last_page, str) or last_page.status != 200 or "Sign-in Success" not in last_page.text:
            raise AssertionError(f"The device was not approved: {last_page}")
        return last_page

    def _follow_pages(self, url: str, typed_values: dict[str, str], *, deny: bool = False) -> str | Page:
        origin, form, filled_fields = urlsplit(url)[:2], None, set[str]()
        for _ in range(MAX_STEPS):
            page, location = self._fetch(url, form)
            form = None
            if location is not None:
                url = urljoin(url, location)
                if urlsplit(url)[:2] != origin:
                    return url
                continue
            parser = Form()
            parser.feed(page.text)
            if deny and parser.abort_url is not None:
                url = urljoin(url, parser.abort_url)
            elif parser.action is None or page.status != 200 or parser.text_fields & filled_fields:
                # If the page shows the same field again, it has refused the value.
                return page
            else:
                url = urljoin(url, parser.action)
                filled_fields |= parser.text_fields
                form = parser.fields | {
                    name: value
                    for name, value in {"login": self.name, "password": "any", **typed_values}.items()
                    if name in parser.fields
                }
        raise AssertionError(f"No end after {MAX_STEPS} steps; now at {url}.")

    def _fetch(self, url: str, form: dict[str, str] | None) -> tuple[Page, str | None]:
        request = urllib.request.Request(url, urlencode(form).encode() if form is not None else None)
        try:
            response = cast("HTTPResponse | HTTPError", self._open_url(request, timeout=30))
        except HTTPError as error:
            response = error
        with response:
            page = Page(url, response.status or 0, response.read().decode("utf-8", "replace"))
            is_redirect = page.status in {301, 302, 303, 307, 308}
            return page, response.headers["Location"] if is_redirect else None


def _redirect_url(last_page: str | Page) -> str:
    if isinstance(last_page, str):
        return last_page
    raise AssertionError(
        f"No redirect, but a page at {last_page.url} ({last_page.status}):\n{last_page.text}"
    )


def approve_oidc(url: str, *, name: str = "ada", ca_file: Path | None = None) -> str:
    """Sign in at an authorization URL and consent; return the redirect URI with its parameters."""
    return BrowserUser(name, ca_file).approve(url)


def deny_oidc(url: str, *, name: str = "ada", ca_file: Path | None = None) -> str:
    """Cancel at an authorization URL; return the redirect URI with its error."""
    return BrowserUser(name, ca_file).deny(url)


def approve_device(
    verification_uri: str, user_code: str | None = None, *, name: str = "ada", ca_file: Path | None = None
) -> Page:
    """Approve a device at `verification_uri_complete`, or at `verification_uri` with the user code."""
    return BrowserUser(name, ca_file).approve_device(verification_uri, user_code)
