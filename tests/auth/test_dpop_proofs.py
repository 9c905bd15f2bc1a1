"""DPoP proofs: one for each request, with the server's nonce; none for a bearer token."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import httpx
import jwt
import pytest

from hermes_mcp_auth_remote.auth.httpx import McpAuth
from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.signing import load_prover, new_proof_key
from hermes_mcp_auth_remote.values import Server
from tests.requirements import covers

URL = "https://mcp.example/mcp"
NONCE_CHALLENGE = {"www-authenticate": 'DPoP error="use_dpop_nonce"', "dpop-nonce": "n-1"}


class BoundSession:
    """A session whose only token is bound to a key."""

    server = Server("bound", URL)

    def __init__(self) -> None:
        numbers = itertools.count()
        self.prover: Prover | None = load_prover(
            new_proof_key(), lambda: 0.0, lambda _: f"jti-{next(numbers)}"
        )
        self.challenges = 0

    def header_now(self) -> str:
        return "DPoP t0ken"

    async def header(self) -> str:
        raise AssertionError

    def header_blocking(self) -> str:
        raise AssertionError

    def report_retry(self, header: str, *, is_accepted: bool) -> None:
        pass

    async def handle_challenge(self, *_: Any) -> None:
        self.challenges += 1

    def handle_challenge_blocking(self, *_: Any) -> None:
        self.challenges += 1


class RecordingTransport(httpx.MockTransport):
    """Sends the responses in order, and records the claims of the proofs."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.claims: list[dict[str, Any]] = []
        self.requests: list[httpx.Request] = []
        left = iter(answers)

        def answer(request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            if "dpop" in request.headers:
                self.claims.append(jwt.decode(request.headers["dpop"], options={"verify_signature": False}))
            return next(left)

        super().__init__(answer)


def send_request(session: BoundSession, resource: RecordingTransport, *, blocking: bool) -> int:
    auth = McpAuth(session)
    if blocking:
        with httpx.Client(transport=resource, auth=auth) as client:
            return client.post(URL).status_code

    async def send_async() -> int:
        async with httpx.AsyncClient(transport=resource, auth=auth) as client:
            return (await client.post(URL)).status_code

    return asyncio.run(send_async())


@covers("dpop-nonce", "dpop-proof")
@pytest.mark.parametrize("blocking", [False, True])
def test_the_nonce_of_a_protected_resource_is_used_without_a_refresh(*, blocking: bool) -> None:
    session = BoundSession()
    resource = RecordingTransport(
        httpx.Response(401, headers=NONCE_CHALLENGE),
        httpx.Response(200, headers={"dpop-nonce": "n-2"}),
        httpx.Response(200),
    )
    assert send_request(session, resource, blocking=blocking) == 200
    assert send_request(session, resource, blocking=blocking) == 200
    assert session.challenges == 0
    assert [claims.get("nonce") for claims in resource.claims] == [None, "n-1", "n-2"]
    assert len({claims["jti"] for claims in resource.claims}) == 3
    assert {(claims["htm"], claims["htu"]) for claims in resource.claims} == {("POST", URL)}
    assert {request.headers["authorization"] for request in resource.requests} == {"DPoP t0ken"}


@covers("dpop-nonce")
@pytest.mark.parametrize("blocking", [False, True])
def test_a_resource_that_refuses_every_proof_gets_two_requests(*, blocking: bool) -> None:
    session = BoundSession()
    again = {**NONCE_CHALLENGE, "dpop-nonce": "n-2"}
    resource = RecordingTransport(
        httpx.Response(401, headers=NONCE_CHALLENGE), httpx.Response(401, headers=again)
    )
    assert send_request(session, resource, blocking=blocking) == 401
    assert session.challenges == 1


@covers("dpop-proof")
@pytest.mark.parametrize("blocking", [False, True])
def test_a_bearer_token_is_sent_without_a_proof(*, blocking: bool) -> None:
    session = BoundSession()
    session.prover = None
    resource = RecordingTransport(httpx.Response(200, headers={"dpop-nonce": "n-1"}))
    assert send_request(session, resource, blocking=blocking) == 200
    assert resource.claims == []
