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
from tests.browserless import approve
from tests.quirks.stage import Stage, quirk
from tests.service.given import TERMINAL, rotated_elsewhere


@quirk(30, "a form-encoded token response although JSON was requested: read")
def form(stage: Stage) -> None:
    stage.plays(form_encoded_tokens=True)
    stage.connect()
    assert stage.asked("token")[0].headers["accept"] == "application/json"


@quirk(31, "200 with an error, or an empty access_token: a failure, nothing stored")
def error_in_200(stage: Stage) -> None:
    for answer in ({"error": "invalid_request"}, {"access_token": ""}, {"access_token": None}):
        stage.plays(token_overrides=answer)
        with pytest.raises(ServerError):
            stage.connect()
    assert stage.stored.tokens is None


@quirk(32, "expires_in is missing, 0, '3600', null or junk: never a crash, refreshed on a 401 only")
def expires_in(stage: Stage) -> None:
    for value, known in ((None, False), (0, False), ("3600", True), ("junk", False), ([], False)):
        stage.plays(token_overrides={"expires_in": value})
        assert (stage.connect().expires_at is not None) is known
    stage.plays(token_overrides={"expires_in": None})
    stage.connect()
    stage.clock.now += 1_000_000
    stage.header()
    assert stage.asked("refresh") == []


@quirk(33, "a refresh response without refresh_token: the old one is kept; a new one is stored before use")
def no_rotation(stage: Stage) -> None:
    stage.connect()
    before = stage.stored.tokens
    stage.plays(rotate=False, token_overrides={"refresh_token": None})
    stage.clock.now += 3600
    stage.header()
    assert before is not None
    assert stage.stored.tokens is not None
    assert stage.stored.tokens.refresh_token == before.refresh_token
    stage.plays(rotate=True, token_overrides={})
    stage.clock.now += 3600
    assert stage.header() == stage.stored.tokens.authorization_header
    assert stage.stored.tokens.refresh_token != before.refresh_token


@quirk(34, "a refresh gives 5xx or HTML: all is kept; invalid_grant marks the session and deletes nothing")
def refresh_trouble(stage: Stage) -> None:
    stage.connect()
    before = stage.stored.tokens
    stage.clock.now += 3600
    for status, body in ((503, b""), (500, b"<html>"), (200, b"<html>")):
        stage.demo.authorization_server.fail_next("refresh", status=status, body=body)
        with pytest.raises(McpAuthError) as trouble:
            stage.header()
        assert not isinstance(trouble.value, AuthorizationRequired)
        assert stage.stored.tokens == before
        # Each call is another process; all processes respect the stored pause.
        stage.clock.now += 60
    stage.header()
    stage.demo.authorization_server.ledger.revoke_everything()
    stage.clock.now += 3600
    with pytest.raises(AuthorizationRequired):
        stage.header()
    assert stage.stored.tokens is not None
    assert stage.stored.binding is not None
    assert stage.stored.binding.login_needed is not None


@quirk(35, "401 with an unexpired local token: the store is read again, then a refresh, then a login")
def refused_token(stage: Stage) -> None:
    stage.connect()
    session = AuthService(stage.home, clock=stage.clock).session(stage.server)
    refused = asyncio.run(session.header())
    lines = ['Bearer error="invalid_token"']
    adopted = f"Bearer {rotated_elsewhere(stage.home, stage.demo)}"
    assert asyncio.run(session.handle_challenge(refused, 401, lines)) == adopted
    assert stage.asked("refresh") == []
    refreshed = asyncio.run(session.handle_challenge(adopted, 401, lines))
    assert len(stage.asked("refresh")) == 1
    stage.demo.authorization_server.ledger.revoke_everything()
    with pytest.raises(AuthorizationRequired):
        asyncio.run(session.handle_challenge(refreshed or "", 401, lines))


@quirk(37, "a tool's result with status 200 says 'token expired': no refresh")
def expired_in_200(stage: Stage) -> None:
    stage.connect()

    async def call() -> httpx.Response:
        said = httpx.Response(200, json={"content": [{"type": "text", "text": "token expired"}]})
        auth = McpAuth(stage.service.session(stage.server))
        async with httpx.AsyncClient(auth=auth, transport=httpx.MockTransport(lambda _: said)) as client:
            return await client.post(stage.server.url)

    assert asyncio.run(call()).json()["content"][0]["text"] == "token expired"
    assert stage.asked("refresh") == []


@quirk(38, "403 insufficient_scope: a login with the union, no refresh")
def step_up(stage: Stage) -> None:
    stage.configure(scope=frozenset({"mcp:tools"}))
    stage.connect()
    stage.configure()
    session = stage.service.session(stage.server)
    lines = ['Bearer error="insufficient_scope", scope="mcp:write"']
    with pytest.raises(AuthorizationRequired) as needed:
        asyncio.run(session.handle_challenge(asyncio.run(session.header()), 403, lines))
    challenge = needed.value.challenge
    login = asyncio.run(stage.service.start_login(stage.server, TERMINAL, challenge=challenge))  # type: ignore[arg-type]
    assert {"mcp:tools", "mcp:write"} <= (login.request.scope or frozenset())
    assert stage.asked("refresh") == []


@quirk(39, "the redirect has another iss: refused without its error text, unless the iss is trusted")
def wrong_iss(stage: Stage) -> None:
    stage.plays(iss_value="https://authorize.example")
    login = stage.begin()
    back = approve(login.authorization_url)
    with pytest.raises(PasteRefused) as refused:
        stage.finish(login, f"{back}&error_description=call+this+number")
    assert "call this number" not in f"{refused.value} {refused.value.advice}"
    stage.configure(trusted_issuers=frozenset({"https://authorize.example", stage.demo.issuer}))
    stage.connect()


@quirk(40, "a paste in <>, quotes, with spaces, line breaks or &amp;: the same code; two codes are refused")
def mangled(stage: Stage) -> None:
    for wrap in ("<{}>", '"{}"', "  {}\n", "`{}`", "[here]({})"):
        login = stage.begin()
        stage.finish(login, wrap.format(approve(login.authorization_url)))
    login = stage.begin()
    back = approve(login.authorization_url)
    with pytest.raises(PasteRefused):
        stage.finish(login, f"{back}&code=another")
    stage.finish(login, back.replace("&", "&amp;"))


@quirk(41, "a wrong or old address is pasted: refused, the login still waits, the next paste works")
def wrong_paste(stage: Stage) -> None:
    old = stage.begin()
    before = approve(old.authorization_url)
    stage.finish(old, before)
    login = stage.begin()
    for wrong in (before, "https://example.com/", "hello"):
        with pytest.raises(PasteRefused):
            stage.finish(login, wrong)
    stage.finish(login)


@quirk(
    42,
    "the token response is lost: no code is sent twice, a new login works",
)
def lost_answer(stage: Stage) -> None:
    stage.demo.authorization_server.fail_next("token", hang_up=True, after_processing=True)
    login = stage.begin()
    back = approve(login.authorization_url)
    with pytest.raises(NetworkError):
        stage.finish(login, back)
    with pytest.raises(McpAuthError):
        stage.finish(login, back)
    assert len(stage.asked("token")) == 1
    stage.connect()


@quirk(43, "two concurrent logins at one server: own state and verifier, both can be completed")
def two_logins(stage: Stage) -> None:
    one, two = stage.begin(), stage.begin()
    assert one.request.state != two.request.state
    assert one.request.code_verifier != two.request.code_verifier
    stage.finish(two)
    stage.finish(one)


@quirk(44, "the phone says that the page cannot be reached: the prompt said so beforehand")
def unreachable(stage: Stage) -> None:
    said = next_step(stage.begin(), browser_opened=False, port=None)
    said = " ".join(said.split())
    assert "page that cannot be reached: that is expected" in said
    assert "Copy that page's whole address" in said


@quirk(46, "the device endpoint is only in the OpenID document, without an interval: found, polled every 5 s")
def device(stage: Stage) -> None:
    stage.plays(
        with_device=True,
        device_only_in_openid=True,
        device_interval_seconds=None,
        metadata_locations=("rfc8414", "openid_inserted"),
    )
    login = stage.begin("device")
    assert login.poll_state is not None
    assert login.poll_state.interval_seconds == 5


@quirk(47, "the device flow refuses the scope: the same login goes on with pasting")
def device_scope(stage: Stage) -> None:
    stage.plays(with_device=True, device_scopes=frozenset[str]())
    login = stage.begin("auto")
    assert login.poll_state is None
    stage.finish(login)
