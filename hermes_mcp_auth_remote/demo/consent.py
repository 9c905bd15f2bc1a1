"""Questions that wait for a person, and proof that the answer comes from the browser that was asked."""

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
    """One question: what it is about, and the two texts that its form carries."""

    subject: T
    request_id: str
    csrf_token: str
    expires_at: float


class PendingConsents(Generic[T]):
    """The questions of one page, which is at `path`."""

    def __init__(self, ledger: Ledger, path: str) -> None:
        self._ledger = ledger
        self._path = path
        self._requests: dict[str, ConsentRequest[T]] = {}

    def create(self, subject: T) -> ConsentRequest[T]:
        """Begin a question."""
        request_id, csrf_token = self._ledger.entropy(16), self._ledger.entropy(24)
        question = ConsentRequest(subject, request_id, csrf_token, self._ledger.clock() + CONSENT_SECONDS)
        self._requests[request_id] = question
        return question

    def set_cookie(self, consent_request: ConsentRequest[T], response: Response, *, secure: bool) -> Response:
        """Let the browser that is shown the page, and no other, answer it."""
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
        """Return what an answer is about, once; None where it is late, repeated, or another browser's."""
        question = self._requests.pop(form.get("request", ""), None)
        said = (form.get("csrf", ""), request.cookies.get(_cookie_name(form.get("request", "")), ""))
        if (
            question is None
            or not all(secrets.compare_digest(text.encode(), question.csrf_token.encode()) for text in said)
            or self._ledger.clock() >= question.expires_at
        ):
            return None
        return question.subject


def stale_page() -> Response:
    """Say that an answer did not count."""
    return refusal_page("This page was answered already, or has expired.")


def refusal_page(text: str) -> Response:
    """Say no, on a page."""
    return HTMLResponse(error_page(text), 400, page_headers())


def _cookie_name(request_id: str) -> str:
    return f"consent-{request_id}"
