"""Quirks 14 to 29: registration, redirect URIs, scopes and parameters."""

from __future__ import annotations

import httpx
import pytest

from hermes_mcp_auth_remote.errors import (
    AuthorizationDenied,
    LoginError,
    RegistrationError,
)
from tests.quirks.harness import QuirkHarness, quirk_case


@quirk_case(14, "no registration endpoint: the login fails and says what to set; /register is never guessed")
def no_registration(harness: QuirkHarness) -> None:
    harness.change_behaviour(with_registration=False)
    with pytest.raises(RegistrationError) as refused:
        harness.start_login()
    assert "oauth.client_id" in refused.value.advice
    assert "/callback" in f"{refused.value} {refused.value.advice}"
    assert harness.requests_of("registration") == []


@quirk_case(15, "registration gives 403 Forbidden in plain text: the error suggests another client_name")
def forbidden_registration(harness: QuirkHarness) -> None:
    harness.demo.authorization_server.fail_next("registration", status=403, body=b"Forbidden", times=None)
    with pytest.raises(RegistrationError) as refused:
        harness.start_login()
    assert "client_name" in refused.value.advice
    harness.demo.authorization_server.clear_faults()
    harness.configure(client_name="A name they know")
    harness.log_in()
    assert b"A name they know" in harness.requests_of("registration")[-1].body


@quirk_case(16, "the server sends a client_secret that was not requested: stored and used")
def unrequested_secret(harness: QuirkHarness) -> None:
    harness.change_behaviour(auth_methods=("client_secret_post",))
    harness.log_in()
    assert harness.credentials.client is not None
    assert harness.credentials.client.client_secret is not None
    assert (
        harness.requests_of("token")[0].form["client_secret"]
        == harness.credentials.client.client_secret.reveal()
    )


@quirk_case(17, "only client_secret_post is listed: never Basic")
def never_basic(harness: QuirkHarness) -> None:
    harness.change_behaviour(auth_methods=("client_secret_post",))
    harness.log_in()
    harness.clock.now += 3600
    harness.authorization_header()
    for request in (*harness.requests_of("token"), *harness.requests_of("refresh")):
        assert "authorization" not in request.headers
        assert "client_secret" in request.form


@quirk_case(18, "a registered client: the next login uses the registered loopback port again")
def registered_port(harness: QuirkHarness) -> None:
    harness.log_in()
    harness.log_in()
    # The second login checks the authorization page before the user sees it.
    assert len({request.query["redirect_uri"] for request in harness.requests_of("authorization")}) == 1
    assert len(harness.requests_of("registration")) == 1


@quirk_case(
    19,
    "the server forgot the client: registered again before the login, old tokens kept until then",
)
def forgotten_client(harness: QuirkHarness) -> None:
    harness.log_in()
    before = harness.credentials.tokens
    harness.demo.authorization_server.ledger.forget_clients()
    login = harness.start_login()
    assert len(harness.requests_of("registration")) == 2
    assert harness.credentials.tokens == before
    harness.complete_login(login)
    assert harness.credentials.tokens != before


@quirk_case(
    20, "a client ID metadata document is advertised but refused: registration instead, and remembered"
)
def refused_metadata_document(harness: QuirkHarness) -> None:
    harness.change_behaviour(cimd_supported=True, with_par=True)
    harness.configure(client_metadata_url="https://hermes.example/client.json")
    harness.log_in()
    assert harness.credentials.client is not None
    assert harness.credentials.client.is_registered
    assert len(harness.requests_of("registration")) == 1


@quirk_case(21, "token_type is bearer: Authorization says Bearer")
def lower_case_token_type(harness: QuirkHarness) -> None:
    harness.change_behaviour(token_overrides={"token_type": "bearer"}, exact_bearer=True)
    harness.log_in()
    assert (
        httpx.get(
            harness.demo.ping_url, headers={"Authorization": harness.authorization_header()}
        ).status_code
        == 200
    )


@quirk_case(
    22,
    "the server accepts one loopback host or none: redirect_host works, or the error names redirect_uri",
)
def redirect_policy(harness: QuirkHarness) -> None:
    for host in ("localhost", "127.0.0.1"):
        harness.change_behaviour(redirect_hosts=(host,))
        harness.configure(redirect_host=host)
        harness.log_in()
    harness.change_behaviour(redirect_hosts=())
    harness.server = type(harness.server)("fresh", harness.server.url)
    with pytest.raises(RegistrationError) as refused:
        harness.start_login()
    assert "redirect_uri" in refused.value.advice


@quirk_case(23, "a client registered without the device grant: registered again with it")
def device_grant(harness: QuirkHarness) -> None:
    harness.log_in()
    harness.change_behaviour(with_device=True)
    login = harness.start_login("device")
    assert login.poll_state is not None
    assert b"device_code" in harness.requests_of("registration")[-1].body
    assert len(harness.requests_of("registration")) == 2


@quirk_case(24, "offline_access is requested only if the authorization server lists it")
def offline_access(harness: QuirkHarness) -> None:
    harness.log_in()
    harness.change_behaviour(scopes_supported=("mcp:tools", "mcp:write"))
    harness.log_in()
    first, *_, last = (request.query["scope"].split() for request in harness.requests_of("authorization"))
    assert "offline_access" in first
    assert "offline_access" not in last


@quirk_case(25, "an advertised scope is refused as invalid_scope: the error says what to set; then it works")
def refused_scope(harness: QuirkHarness) -> None:
    login = harness.start_login()
    state = login.request.state.reveal()
    redirect = f"{login.request.redirect_uri}?error=invalid_scope&state={state}&iss={harness.demo.issuer}"
    with pytest.raises(AuthorizationDenied) as denied:
        harness.complete_login(login, redirect)
    assert denied.value.error == "invalid_scope"
    assert "oauth.scope" in denied.value.advice
    harness.configure(scope=frozenset({"mcp:tools"}))
    assert harness.log_in().scope == frozenset({"mcp:tools"})


@quirk_case(26, "scopes_supported is [] or ['']: no scope is sent, or the configured one, never all")
def empty_scopes(harness: QuirkHarness) -> None:
    harness.change_behaviour(challenge_names_scope=False, scopes_supported=("mcp:tools", "mcp:write"))
    for listed in ([], [""]):
        harness.change_behaviour(resource_overrides={"scopes_supported": listed})
        harness.start_login()
    harness.change_behaviour(require_scope=True)
    harness.configure(scope=frozenset({"mcp:tools"}))
    harness.log_in()
    assert harness.requests_of("authorization")[-1].query["scope"] == "mcp:tools"
    assert all("mcp:write" not in request.target for request in harness.requests_of("authorization"))


@quirk_case(27, "access_type and prompt can be set; a login without a refresh token keeps the old one")
def google_parameters(harness: QuirkHarness) -> None:
    harness.configure(authorize_params={"access_type": "offline", "prompt": "consent"})
    harness.log_in()
    query = harness.requests_of("authorization")[0].query
    assert (query["access_type"], query["prompt"]) == ("offline", "consent")
    before = harness.credentials.tokens
    harness.change_behaviour(token_overrides={"refresh_token": None})
    assert harness.log_in().can_refresh
    after = harness.credentials.tokens
    assert before is not None
    assert after is not None
    assert after.access_token != before.access_token
    assert after.refresh_token == before.refresh_token
    # A login of another account does not keep the old refresh token.
    harness.change_behaviour(account="eve@example.com")
    assert not harness.log_in().can_refresh


@quirk_case(28, "the server refuses the resource parameter: it can be turned off")
def no_resource(harness: QuirkHarness) -> None:
    harness.change_behaviour(accepts_resource=False)
    login = harness.start_login()
    with pytest.raises(LoginError):
        harness.complete_login(login)
    harness.configure(resource=False)
    harness.log_in()
    assert "resource" not in harness.requests_of("token")[-1].form


@quirk_case(29, "a refresh carries the same resource as the login")
def same_resource(harness: QuirkHarness) -> None:
    harness.log_in()
    harness.clock.now += 3600
    harness.authorization_header()
    named = {
        request.form["resource"]
        for request in (*harness.requests_of("token"), *harness.requests_of("refresh"))
    }
    assert named == {harness.demo.ping_url}
    assert len(harness.requests_of("refresh")) == 1
