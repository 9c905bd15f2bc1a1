"""A user without a browser: open the consent page, submit its form, and stop at the redirect."""

from __future__ import annotations

import ssl
from html.parser import HTMLParser
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from urllib.parse import urlencode, urljoin, urlsplit


class ConsentRefused(AssertionError):
    """The authorization server showed an error page instead of a redirect or a form."""


def approve(authorization_url: str, *, ca_file: str | None = None) -> str:
    """Approve, and return the redirect URL without fetching it."""
    return _submit_consent(authorization_url, "approve", ca_file)


def deny(authorization_url: str, *, ca_file: str | None = None) -> str:
    """Deny, and return the redirect URL without fetching it."""
    return _submit_consent(authorization_url, "deny", ca_file)


def approve_device(url: str, user_code: str | None = None, *, ca_file: str | None = None) -> str:
    """Enter the user code unless the URL contains it, approve, and return the next page."""
    return _submit_device_consent(url, user_code, "approve", ca_file)


def deny_device(url: str, user_code: str | None = None, *, ca_file: str | None = None) -> str:
    """Enter the user code unless the URL contains it, deny, and return the next page."""
    return _submit_device_consent(url, user_code, "deny", ca_file)


def _submit_device_consent(url: str, user_code: str | None, decision: str, ca_file: str | None) -> str:
    if user_code is not None:
        action, _ = read_consent_form(_fetch_page("GET", url, ca_file=ca_file)[1])
        url = f"{urljoin(url, action)}?{urlencode({'user_code': user_code})}"
    headers, page = _fetch_page("GET", url, ca_file=ca_file)
    action, fields = read_consent_form(page)
    if not fields:
        # With `auto_approve`, the demo shows no form.
        return page
    cookie = headers.get("set-cookie", "").partition(";")[0]
    body = urlencode({**fields, "decision": decision})
    return _fetch_page("POST", urljoin(url, action), body, cookie, ca_file=ca_file)[1]


def _fetch_page(
    method: str, url: str, form: str | None = None, cookie: str = "", *, ca_file: str | None
) -> tuple[dict[str, str], str]:
    status, headers, page = fetch(method, url, form, cookie, ca_file=ca_file)
    if status != 200:
        raise ConsentRefused(f"The authorization server answered {status}:\n{page}")
    return headers, page


def _submit_consent(url: str, decision: str, ca_file: str | None) -> str:
    status, headers, page = fetch("GET", url, ca_file=ca_file)
    if "location" in headers:
        return headers["location"]
    if status != 200:
        raise ConsentRefused(f"The authorization server answered {status}:\n{page}")
    action, fields = read_consent_form(page)
    cookie = headers.get("set-cookie", "").partition(";")[0]
    body = urlencode({**fields, "decision": decision})
    status, headers, page = fetch("POST", urljoin(url, action), body, cookie, ca_file=ca_file)
    if status != 303:
        raise ConsentRefused(f"The consent page answered {status}:\n{page}")
    return headers["location"]


def read_consent_form(page: str) -> tuple[str, dict[str, str]]:
    """Return the action and the hidden fields of the consent page's form."""
    form = _FormParser()
    form.feed(page)
    return form.action, form.fields


def fetch(
    method: str, url: str, form: str | None = None, cookie: str = "", *, ca_file: str | None = None
) -> tuple[int, dict[str, str], str]:
    """Send one request and follow no redirect. Return status, headers (lower-case names) and text."""
    parts = urlsplit(url)
    host, headers = parts.hostname or "", {"Accept": "text/html"}
    if cookie:
        headers["Cookie"] = cookie
    if form is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca_file)
        connection: HTTPConnection = HTTPSConnection(host, parts.port, timeout=20, context=context)
    else:
        connection = HTTPConnection(host, parts.port, timeout=20)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body=form, headers=headers)
        response: HTTPResponse = connection.getresponse()
        text = response.read().decode()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, text
    finally:
        connection.close()


class _FormParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = attributes["action"]
        elif tag == "input" and attributes.get("type") == "hidden":
            self.fields[attributes["name"]] = attributes["value"]
