"""Quirks 14 to 29: registration, redirect URIs, scopes and parameters."""

from __future__ import annotations

import httpx
import pytest

from hermes_mcp_auth_remote.errors import (
    AuthorizationDenied,
    LoginError,
    RegistrationError,
)
from tests.quirks.stage import Stage, quirk


@quirk(14, "no registration endpoint: the login fails and says what to set; /register is never guessed")
def no_registration(stage: Stage) -> None:
    stage.plays(with_registration=False)
    with pytest.raises(RegistrationError) as refused:
        stage.begin()
    assert "oauth.client_id" in refused.value.advice
    assert "/callback" in f"{refused.value} {refused.value.advice}"
    assert stage.asked("registration") == []


@quirk(15, "registration gives 403 Forbidden in plain text: the error suggests another client_name")
def forbidden(stage: Stage) -> None:
    stage.demo.authorization_server.fail_next("registration", status=403, body=b"Forbidden", times=None)
    with pytest.raises(RegistrationError) as refused:
        stage.begin()
    assert "client_name" in refused.value.advice
    stage.demo.authorization_server.clear_faults()
    stage.configure(client_name="A name they know")
    stage.connect()
    assert b"A name they know" in stage.asked("registration")[-1].body


@quirk(16, "the server sends a client_secret that was not requested: stored and used")
def secret_anyway(stage: Stage) -> None:
    stage.plays(auth_methods=("client_secret_post",))
    stage.connect()
    assert stage.stored.client is not None
    assert stage.stored.client.client_secret is not None
    assert stage.asked("token")[0].form["client_secret"] == stage.stored.client.client_secret.reveal()


@quirk(17, "only client_secret_post is listed: never Basic")
def never_basic(stage: Stage) -> None:
    stage.plays(auth_methods=("client_secret_post",))
    stage.connect()
    stage.clock.now += 3600
    stage.header()
    for request in (*stage.asked("token"), *stage.asked("refresh")):
        assert "authorization" not in request.headers
        assert "client_secret" in request.form


@quirk(18, "a registered client: the next login uses the registered loopback port again")
def registered_port(stage: Stage) -> None:
    stage.connect()
    stage.connect()
    # The second login checks the authorization page before the user sees it.
    assert len({request.query["redirect_uri"] for request in stage.asked("authorization")}) == 1
    assert len(stage.asked("registration")) == 1


@quirk(
    19,
    "the server forgot the client: registered again before the login, old tokens kept until then",
)
def forgotten(stage: Stage) -> None:
    stage.connect()
    before = stage.stored.tokens
    stage.demo.authorization_server.ledger.forget_clients()
    login = stage.begin()
    assert len(stage.asked("registration")) == 2
    assert stage.stored.tokens == before
    stage.finish(login)
    assert stage.stored.tokens != before


@quirk(20, "a client ID metadata document is advertised but refused: registration instead, and remembered")
def document_refused(stage: Stage) -> None:
    stage.plays(cimd_supported=True, with_par=True)
    stage.configure(client_metadata_url="https://hermes.example/client.json")
    stage.connect()
    assert stage.stored.client is not None
    assert stage.stored.client.is_registered
    assert len(stage.asked("registration")) == 1


@quirk(21, "token_type is bearer: Authorization says Bearer")
def lower_case(stage: Stage) -> None:
    stage.plays(token_overrides={"token_type": "bearer"}, exact_bearer=True)
    stage.connect()
    assert httpx.get(stage.demo.ping_url, headers={"Authorization": stage.header()}).status_code == 200


@quirk(
    22,
    "the server accepts one loopback host or none: redirect_host works, or the error names redirect_uri",
)
def redirect_policy(stage: Stage) -> None:
    for host in ("localhost", "127.0.0.1"):
        stage.plays(redirect_hosts=(host,))
        stage.configure(redirect_host=host)
        stage.connect()
    stage.plays(redirect_hosts=())
    stage.server = type(stage.server)("fresh", stage.server.url)
    with pytest.raises(RegistrationError) as refused:
        stage.begin()
    assert "redirect_uri" in refused.value.advice


@quirk(23, "a client registered without the device grant: registered again with it")
def device_grant(stage: Stage) -> None:
    stage.connect()
    stage.plays(with_device=True)
    login = stage.begin("device")
    assert login.poll_state is not None
    assert b"device_code" in stage.asked("registration")[-1].body
    assert len(stage.asked("registration")) == 2


@quirk(24, "offline_access is requested only if the authorization server lists it")
def offline_access(stage: Stage) -> None:
    stage.connect()
    stage.plays(scopes_supported=("mcp:tools", "mcp:write"))
    stage.connect()
    first, *_, last = (request.query["scope"].split() for request in stage.asked("authorization"))
    assert "offline_access" in first
    assert "offline_access" not in last


@quirk(25, "an advertised scope is refused as invalid_scope: the error says what to set; then it works")
def refused_scope(stage: Stage) -> None:
    login = stage.begin()
    state = login.request.state.reveal()
    back = f"{login.request.redirect_uri}?error=invalid_scope&state={state}&iss={stage.demo.issuer}"
    with pytest.raises(AuthorizationDenied) as denied:
        stage.finish(login, back)
    assert denied.value.error == "invalid_scope"
    assert "oauth.scope" in denied.value.advice
    stage.configure(scope=frozenset({"mcp:tools"}))
    assert stage.connect().scope == frozenset({"mcp:tools"})


@quirk(26, "scopes_supported is [] or ['']: no scope is sent, or the configured one, never all")
def empty_scopes(stage: Stage) -> None:
    stage.plays(challenge_names_scope=False, scopes_supported=("mcp:tools", "mcp:write"))
    for listed in ([], [""]):
        stage.plays(resource_overrides={"scopes_supported": listed})
        stage.begin()
    stage.plays(require_scope=True)
    stage.configure(scope=frozenset({"mcp:tools"}))
    stage.connect()
    assert stage.asked("authorization")[-1].query["scope"] == "mcp:tools"
    assert all("mcp:write" not in request.target for request in stage.asked("authorization"))


@quirk(27, "access_type and prompt can be set; a login without a refresh token keeps the old one")
def google(stage: Stage) -> None:
    stage.configure(authorize_params={"access_type": "offline", "prompt": "consent"})
    stage.connect()
    query = stage.asked("authorization")[0].query
    assert (query["access_type"], query["prompt"]) == ("offline", "consent")
    before = stage.stored.tokens
    stage.plays(token_overrides={"refresh_token": None})
    assert stage.connect().can_refresh
    after = stage.stored.tokens
    assert before is not None
    assert after is not None
    assert after.access_token != before.access_token
    assert after.refresh_token == before.refresh_token
    # A login of another account does not keep it.
    stage.plays(account="eve@example.com")
    assert not stage.connect().can_refresh


@quirk(28, "the server refuses the resource parameter: it can be turned off")
def no_resource(stage: Stage) -> None:
    stage.plays(accepts_resource=False)
    login = stage.begin()
    with pytest.raises(LoginError):
        stage.finish(login)
    stage.configure(resource=False)
    stage.connect()
    assert "resource" not in stage.asked("token")[-1].form


@quirk(29, "a refresh carries the same resource as the login")
def same_resource(stage: Stage) -> None:
    stage.connect()
    stage.clock.now += 3600
    stage.header()
    named = {request.form["resource"] for request in (*stage.asked("token"), *stage.asked("refresh"))}
    assert named == {stage.demo.ping_url}
    assert len(stage.asked("refresh")) == 1
