"""Pending consent requests. A cookie binds each request to the browser that shows it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from hermes_mcp_auth_remote.demo.ledger import Ledger
from hermes_mcp_auth_remote.demo.pages import error_page, page_headers

T = TypeVar("T")

CONSENT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class ConsentRequest(Generic[T]):
    """A pending consent request: its subject, and the two hidden values of its form."""

    subject: T
    request_id: str
    csrf_token: str
    expires_at: float


class PendingConsents(Generic[T]):
    """The pending consent requests of the page at `path`."""

    def __init__(self, ledger: Ledger, path: str) -> None:
        self._ledger = ledger
        self._path = path
        self._requests: dict[str, ConsentRequest[T]] = {}

    def create(self, subject: T) -> ConsentRequest[T]:
        """Create a consent request for a subject."""
        request_id, csrf_token = self._ledger.entropy(16), self._ledger.entropy(24)
        consent_request = ConsentRequest(
            subject, request_id, csrf_token, self._ledger.clock() + CONSENT_SECONDS
        )
        self._requests[request_id] = consent_request
        return consent_request

    def set_cookie(self, consent_request: ConsentRequest[T], response: Response, *, secure: bool) -> Response:
        """Set the cookie that a browser needs to answer the consent request."""
        response.set_cookie(
            _cookie_name(consent_request.request_id),
            consent_request.csrf_token,
            path=self._path,
            secure=secure,
            httponly=True,
            samesite="strict",
        )
        return response

    def take_subject(self, form: Mapping[str, str], request: Request) -> T | None:
        """Remove the consent request that a form answers and return its subject.

        Return None if the form is late, repeated or from another browser.
        """
        consent_request = self._requests.pop(form.get("request", ""), None)
        submitted_tokens = (
            form.get("csrf", ""),
            request.cookies.get(_cookie_name(form.get("request", "")), ""),
        )
        if (
            consent_request is None
            or not all(
                secrets.compare_digest(text.encode(), consent_request.csrf_token.encode())
                for text in submitted_tokens
            )
            or self._ledger.clock() >= consent_request.expires_at
        ):
            return None
        return consent_request.subject


def stale_page() -> Response:
    """Return the page for a form that is repeated or late."""
    return refusal_page("This page was answered already, or has expired.")


def refusal_page(text: str) -> Response:
    """Return an error page with status 400."""
    return HTMLResponse(error_page(text), 400, page_headers())


def _cookie_name(request_id: str) -> str:
    return f"consent-{request_id}"
