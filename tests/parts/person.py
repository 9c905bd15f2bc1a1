"""A simulated user of a browser: signs in, consents and types a user code.

The user fills in the first form of each page and follows it until a redirect leads to another origin (the
redirect URI, which is not fetched) or until a page has no form.
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
    abort: str | None = None

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
            self.abort = values["href"]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


class Person:
    """One user with one cookie jar: a second login needs no second sign-in."""

    def __init__(self, name: str = "ada", ca_file: Path | None = None) -> None:
        trust = ssl.create_default_context(cafile=str(ca_file)) if ca_file else None
        self.name = name
        self._open = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=trust),
            urllib.request.HTTPCookieProcessor(CookieJar()),
            _NoRedirect(),
        ).open

    def approve(self, url: str) -> str:
        """Sign in and consent; return the redirect URI with its parameters. Do not fetch it."""
        return _redirect_of(self._walk(url, {}))

    def deny(self, url: str) -> str:
        """Follow the page's [ Cancel ] link; return the redirect URI with its error."""
        return _redirect_of(self._walk(url, {}, deny=True))

    def approve_device(self, verification_uri: str, user_code: str | None = None) -> Page:
        """Open the device page, type the code if there is one, confirm, sign in and consent."""
        end = self._walk(verification_uri, {"user_code": user_code} if user_code else {})
        if isinstance(end, str) or end.status != 200 or "Sign-in Success" not in end.text:
            raise AssertionError(f"The device was not approved: {end}")
        return end

    def _walk(self, url: str, typed: dict[str, str], *, deny: bool = False) -> str | Page:
        origin, form, asked = urlsplit(url)[:2], None, set[str]()
        for _ in range(MAX_STEPS):
            page, location = self._fetch(url, form)
            form = None
            if location is not None:
                url = urljoin(url, location)
                if urlsplit(url)[:2] != origin:
                    return url
                continue
            seen = Form()
            seen.feed(page.text)
            if deny and seen.abort is not None:
                url = urljoin(url, seen.abort)
            elif seen.action is None or page.status != 200 or seen.text_fields & asked:
                # A page that shows the same field again has refused the value.
                return page
            else:
                url = urljoin(url, seen.action)
                asked |= seen.text_fields
                form = seen.fields | {
                    name: value
                    for name, value in {"login": self.name, "password": "any", **typed}.items()
                    if name in seen.fields
                }
        raise AssertionError(f"No end after {MAX_STEPS} steps; now at {url}.")

    def _fetch(self, url: str, form: dict[str, str] | None) -> tuple[Page, str | None]:
        request = urllib.request.Request(url, urlencode(form).encode() if form is not None else None)
        try:
            answer = cast("HTTPResponse | HTTPError", self._open(request, timeout=30))
        except HTTPError as error:
            answer = error
        with answer:
            page = Page(url, answer.status or 0, answer.read().decode("utf-8", "replace"))
            redirected = page.status in {301, 302, 303, 307, 308}
            return page, answer.headers["Location"] if redirected else None


def _redirect_of(end: str | Page) -> str:
    if isinstance(end, str):
        return end
    raise AssertionError(f"No redirect, but a page at {end.url} ({end.status}):\n{end.text}")


def approve_oidc(url: str, *, name: str = "ada", ca_file: Path | None = None) -> str:
    """Sign in at an authorization URL and consent; return the redirect URI with its parameters."""
    return Person(name, ca_file).approve(url)


def deny_oidc(url: str, *, name: str = "ada", ca_file: Path | None = None) -> str:
    """Cancel at an authorization URL; return the redirect URI with its error."""
    return Person(name, ca_file).deny(url)


def approve_device(
    verification_uri: str, user_code: str | None = None, *, name: str = "ada", ca_file: Path | None = None
) -> Page:
    """Approve a device at `verification_uri_complete`, or at `verification_uri` with the user code."""
    return Person(name, ca_file).approve_device(verification_uri, user_code)
