"""Quirks 30 to 47: token responses, pastes, the device flow."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from hermes_mcp_auth_remote.auth.httpx import McpAuth
from hermes_mcp_auth_remote.errors import (
    AuthorizationRequired,
    McpAuthError,
    NetworkError,
    PasteRefused,
    ServerError,
)
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.text import next_step
from tests.consent_form import approve
from tests.quirks.harness import QuirkHarness, quirk_case
from tests.service.helpers import TERMINAL, refresh_elsewhere


@quirk_case(30, "a form-encoded token response although JSON was requested: read")
def form_response(harness: QuirkHarness) -> None:
    harness.change_behaviour(form_encoded_tokens=True)
    harness.log_in()
    assert harness.requests_of("token")[0].headers["accept"] == "application/json"


@quirk_case(31, "200 with an error, or an empty access_token: a failure, nothing stored")
def error_in_200(harness: QuirkHarness) -> None:
    for answer in ({"error": "invalid_request"}, {"access_token": ""}, {"access_token": None}):
        harness.change_behaviour(token_overrides=answer)
        with pytest.raises(ServerError):
            harness.log_in()
    assert harness.credentials.tokens is None


@quirk_case(32, "expires_in is missing, 0, '3600', null or junk: never a crash, refreshed on a 401 only")
def expires_in(harness: QuirkHarness) -> None:
    for value, has_expiry in ((None, False), (0, False), ("3600", True), ("junk", False), ([], False)):
        harness.change_behaviour(token_overrides={"expires_in": value})
        assert (harness.log_in().expires_at is not None) is has_expiry
    harness.change_behaviour(token_overrides={"expires_in": None})
    harness.log_in()
    harness.clock.now += 1_000_000
    harness.authorization_header()
    assert harness.requests_of("refresh") == []


@quirk_case(
    33, "a refresh response without refresh_token: the old one is kept; a new one is stored before use"
)
def no_rotation(harness: QuirkHarness) -> None:
    harness.log_in()
    before = harness.credentials.tokens
    harness.change_behaviour(rotates_refresh_tokens=False, token_overrides={"refresh_token": None})
    harness.clock.now += 3600
    harness.authorization_header()
    assert before is not None
    assert harness.credentials.tokens is not None
    assert harness.credentials.tokens.refresh_token == before.refresh_token
    harness.change_behaviour(rotates_refresh_tokens=True, token_overrides={})
    harness.clock.now += 3600
    assert harness.authorization_header() == harness.credentials.tokens.authorization_header
    assert harness.credentials.tokens.refresh_token != before.refresh_token


@quirk_case(
    34, "a refresh gives 5xx or HTML: all is kept; invalid_grant marks the session and deletes nothing"
)
def failed_refresh(harness: QuirkHarness) -> None:
    harness.log_in()
    before = harness.credentials.tokens
    harness.clock.now += 3600
    for status, body in ((503, b""), (500, b"<html>"), (200, b"<html>")):
        harness.demo.authorization_server.fail_next("refresh", status=status, body=body)
        with pytest.raises(McpAuthError) as failure:
            harness.authorization_header()
        assert not isinstance(failure.value, AuthorizationRequired)
        assert harness.credentials.tokens == before
        # Each call stands for another process. All processes respect the stored pause.
        harness.clock.now += 60
    harness.authorization_header()
    harness.demo.authorization_server.ledger.revoke_everything()
    harness.clock.now += 3600
    with pytest.raises(AuthorizationRequired):
        harness.authorization_header()
    assert harness.credentials.tokens is not None
    assert harness.credentials.binding is not None
    assert harness.credentials.binding.login_needed is not None


@quirk_case(35, "401 with an unexpired local token: the store is read again, then a refresh, then a login")
def refused_token(harness: QuirkHarness) -> None:
    harness.log_in()
    session = AuthService(harness.home, clock=harness.clock).session(harness.server)
    refused = asyncio.run(session.header())
    lines = ['Bearer error="invalid_token"']
    adopted = f"Bearer {refresh_elsewhere(harness.home, harness.demo)}"
    assert asyncio.run(session.handle_challenge(refused, 401, lines)) == adopted
    assert harness.requests_of("refresh") == []
    refreshed = asyncio.run(session.handle_challenge(adopted, 401, lines))
    assert len(harness.requests_of("refresh")) == 1
    harness.demo.authorization_server.ledger.revoke_everything()
    # If another 401 comes soon after a refresh, it causes no refresh: the server may refuse each token.
    harness.clock.now += 60
    with pytest.raises(AuthorizationRequired):
        asyncio.run(session.handle_challenge(refreshed or "", 401, lines))


@quirk_case(37, "a tool's result with status 200 says 'token expired': no refresh")
def expired_in_200(harness: QuirkHarness) -> None:
    harness.log_in()

    async def call() -> httpx.Response:
        text = httpx.Response(200, json={"content": [{"type": "text", "text": "token expired"}]})
        auth = McpAuth(harness.service.session(harness.server))
        async with httpx.AsyncClient(auth=auth, transport=httpx.MockTransport(lambda _: text)) as client:
            return await client.post(harness.server.url)

    assert asyncio.run(call()).json()["content"][0]["text"] == "token expired"
    assert harness.requests_of("refresh") == []


@quirk_case(38, "403 insufficient_scope: a login with the old and the new scopes, no refresh")
def step_up(harness: QuirkHarness) -> None:
    harness.configure(scope=frozenset({"mcp:tools"}))
    harness.log_in()
    harness.configure()
    session = harness.service.session(harness.server)
    lines = ['Bearer error="insufficient_scope", scope="mcp:write"']
    with pytest.raises(AuthorizationRequired) as needed:
        asyncio.run(session.handle_challenge(asyncio.run(session.header()), 403, lines))
    challenge = needed.value.challenge
    login = asyncio.run(harness.service.start_login(harness.server, TERMINAL, challenge=challenge))  # type: ignore[arg-type]
    assert {"mcp:tools", "mcp:write"} <= (login.request.scope or frozenset())
    assert harness.requests_of("refresh") == []


@quirk_case(39, "the redirect has another iss: refused without its error text, unless the iss is trusted")
def wrong_iss(harness: QuirkHarness) -> None:
    harness.change_behaviour(iss_value="https://authorize.example")
    login = harness.start_login()
    redirect = approve(login.authorization_url)
    with pytest.raises(PasteRefused) as refused:
        harness.complete_login(login, f"{redirect}&error_description=call+this+number")
    assert "call this number" not in f"{refused.value} {refused.value.advice}"
    harness.configure(trusted_issuers=frozenset({"https://authorize.example", harness.demo.issuer}))
    harness.log_in()


@quirk_case(
    40, "a paste in <>, quotes, with spaces, line breaks or &amp;: the same code; two codes are refused"
)
def mangled_paste(harness: QuirkHarness) -> None:
    for wrap in ("<{}>", '"{}"', "  {}\n", "`{}`", "[here]({})"):
        login = harness.start_login()
        harness.complete_login(login, wrap.format(approve(login.authorization_url)))
    login = harness.start_login()
    redirect = approve(login.authorization_url)
    with pytest.raises(PasteRefused):
        harness.complete_login(login, f"{redirect}&code=another")
    harness.complete_login(login, redirect.replace("&", "&amp;"))


@quirk_case(41, "a wrong or old address is pasted: refused, the login still waits, the next paste works")
def wrong_paste(harness: QuirkHarness) -> None:
    old = harness.start_login()
    before = approve(old.authorization_url)
    harness.complete_login(old, before)
    login = harness.start_login()
    for wrong in (before, "https://example.com/", "hello"):
        with pytest.raises(PasteRefused):
            harness.complete_login(login, wrong)
    harness.complete_login(login)


@quirk_case(
    42,
    "the token response is lost: no code is sent twice, a new login works",
)
def lost_answer(harness: QuirkHarness) -> None:
    harness.demo.authorization_server.fail_next("token", hang_up=True, after_processing=True)
    login = harness.start_login()
    redirect = approve(login.authorization_url)
    with pytest.raises(NetworkError):
        harness.complete_login(login, redirect)
    with pytest.raises(McpAuthError):
        harness.complete_login(login, redirect)
    assert len(harness.requests_of("token")) == 1
    harness.log_in()


@quirk_case(43, "two concurrent logins at one server: own state and verifier, both can be completed")
def two_logins(harness: QuirkHarness) -> None:
    first, second = harness.start_login(), harness.start_login()
    assert first.request.state != second.request.state
    assert first.request.code_verifier != second.request.code_verifier
    harness.complete_login(second)
    harness.complete_login(first)


@quirk_case(44, "the phone says that the page cannot be reached: the prompt said so beforehand")
def unreachable_page(harness: QuirkHarness) -> None:
    text = next_step(harness.start_login(), browser_opened=False, port=None)
    text = " ".join(text.split())
    assert "page that cannot be reached: that is expected" in text
    assert "Copy that page's whole address" in text


@quirk_case(
    46, "the device endpoint is only in the OpenID document, without an interval: found, polled every 5 s"
)
def device_endpoint(harness: QuirkHarness) -> None:
    harness.change_behaviour(
        with_device=True,
        device_only_in_openid=True,
        device_interval_seconds=None,
        metadata_locations=("rfc8414", "openid_inserted"),
    )
    login = harness.start_login("device")
    assert login.poll_state is not None
    assert login.poll_state.interval_seconds == 5


@quirk_case(47, "the device flow refuses the scope: the same login goes on with pasting")
def device_scope(harness: QuirkHarness) -> None:
    harness.change_behaviour(with_device=True, device_scopes=frozenset[str]())
    login = harness.start_login("auto")
    assert login.poll_state is None
    harness.complete_login(login)
