"""Login preparation: the selected client and the requests before the user sees the authorization URL."""

from __future__ import annotations

import pytest

from hermes_mcp_auth_remote.errors import DiscoveryFailed, RegistrationError, TimedOut, TokenError
from hermes_mcp_auth_remote.flows.client_selection import PreviousLogin
from hermes_mcp_auth_remote.flows.login_preparation import LoginNonces, PreparedLogin, prepare_login
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.values import Secret, Server, ServerOptions
from tests.exchange_script import ExchangeScript, script_exchange
from tests.oauth.builders import ISSUER, NOW, REDIRECT_URI, STATE, VERIFIER, client, metadata
from tests.requirements import covers

URL = "https://mcp.example/mcp"
PRM = "https://mcp.example/.well-known/oauth-protected-resource"
PREVIOUS_LOGIN = PreviousLogin(client(is_registered=True, client_id="held"), ISSUER)
METADATA_DOCUMENT_URL = "https://hermes.example/client.json"


def script_preparation(
    previous_login: PreviousLogin | None = None, options: ServerOptions | None = None, **members: object
) -> ExchangeScript[PreparedLogin]:
    """Script the requests up to the authorization server's metadata; `members` override its members."""
    server = Server("x", URL, options or ServerOptions())
    nonces = LoginNonces(Secret(STATE), Secret(VERIFIER))
    script = script_exchange(
        prepare_login(
            server,
            nonces,
            REDIRECT_URI,
            NOW,
            previous_login=previous_login,
            challenge=Challenge((f"{PRM}/mcp",)),
        )
    )
    script.expects(f"GET {PRM}/mcp").responds(200, {"resource": URL, "authorization_servers": [ISSUER]})
    script.expects(f"GET {ISSUER}/.well-known/oauth-authorization-server")
    return script.responds(200, metadata(**members))  # type: ignore[arg-type]


def expect_page_check(
    script: ExchangeScript[PreparedLogin], client_id: str, status: int
) -> ExchangeScript[PreparedLogin]:
    """Expect the request that checks the authorization page with a stored client."""
    authorization_url = script_preparation(options=ServerOptions(client_id=client_id)).returns().request.url
    return script.expects(f"GET {authorization_url}").responds(status)


@covers("client-priority")
def test_a_configured_client_has_priority_over_a_stored_one() -> None:
    options = ServerOptions(
        client_id="mine", client_secret=Secret("s3cret"), client_metadata_url=METADATA_DOCUMENT_URL
    )
    login_request = (
        script_preparation(PREVIOUS_LOGIN, options, client_id_metadata_document_supported=True)
        .returns()
        .request
    )
    assert (login_request.client.client_id, login_request.client.auth_method) == (
        "mine",
        "client_secret_basic",
    )


@covers("client-priority")
def test_a_stored_client_has_priority_over_a_new_registration() -> None:
    assert (
        expect_page_check(script_preparation(PREVIOUS_LOGIN), "held", 200).returns().request.client
        == PREVIOUS_LOGIN.client
    )


@covers("client-priority", "cimd-flag")
def test_quirk_20_a_metadata_document_has_priority_unless_it_was_refused() -> None:
    options = ServerOptions(client_metadata_url=METADATA_DOCUMENT_URL)
    advertised = script_preparation(None, options, client_id_metadata_document_supported=True)
    assert advertised.returns().request.client.client_id == METADATA_DOCUMENT_URL
    for previous_login, flag in ((PreviousLogin(is_cimd_disabled=True), True), (None, None)):
        script = script_preparation(previous_login, options, client_id_metadata_document_supported=flag)
        script.expects(f"POST {ISSUER}/register").responds(201, {"client_id": "new"})
        assert script.returns().request.client.client_id == "new"


@covers("stale-client")
@pytest.mark.parametrize("status", [422, 500])
def test_quirk_19_a_forgotten_client_is_registered_again_before_the_login(status: int) -> None:
    script = expect_page_check(script_preparation(PREVIOUS_LOGIN), "held", status)
    script.expects(f"POST {ISSUER}/register").responds(201, {"client_id": "new"})
    assert script.returns().request.client.client_id == "new"


@covers("registered-uri", "client-binding")
@pytest.mark.parametrize(
    "previous_login",
    [
        PreviousLogin(client(is_registered=True, redirect_uris=("http://127.0.0.1:1/callback",)), ISSUER),
        PreviousLogin(client(is_registered=True), "https://other.example"),
        PreviousLogin(client(is_registered=True, secret_expires_at=NOW), ISSUER),
        PreviousLogin(client(is_registered=False), ISSUER),
    ],
    ids=["another redirect URI (quirk 18)", "another issuer", "its secret expired", "not registered"],
)
def test_a_stored_client_that_does_not_match_is_registered_again(previous_login: PreviousLogin) -> None:
    script = script_preparation(previous_login).expects(
        f"POST {ISSUER}/register", json={"redirect_uris": [REDIRECT_URI]}
    )
    assert script.responds(201, {"client_id": "new"}).returns().request.client.client_id == "new"


@covers("client-binding")
def test_a_configured_client_is_not_used_at_another_issuer() -> None:
    options = ServerOptions(client_id="mine", client_secret=Secret("s3cret"))
    previous_login = PreviousLogin(client(client_id="mine"), "https://before.example")
    error = script_preparation(previous_login, options).raises(RegistrationError, "before.example")
    assert "s3cret" not in f"{error} {error.advice}"
    without_binding = PreviousLogin(client(client_id="earlier"), "https://before.example")
    assert script_preparation(without_binding, options).returns().request.client.client_id == "mine"


@covers("login-without-401")
def test_quirk_4_no_endpoint_is_guessed_for_a_server_that_answers_200() -> None:
    nonces = LoginNonces(Secret(STATE), Secret(VERIFIER))
    script = script_exchange(prepare_login(Server("x", URL), nonces, REDIRECT_URI, NOW))
    script.expects(f"POST {URL}", json={"method": "initialize"}).responds(200, {"jsonrpc": "2.0"})
    for name in (f"{PRM}/mcp", PRM):
        script.expects(f"GET {name}").responds(404)
    for name in ("oauth-authorization-server", "openid-configuration"):
        script.expects(f"GET https://mcp.example/.well-known/{name}").responds(404)
    script.raises(DiscoveryFailed, "asks for no authorization")


@covers("login-without-401")
@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_a_server_with_a_temporary_problem_is_not_said_to_need_no_login(status: int) -> None:
    nonces = LoginNonces(Secret(STATE), Secret(VERIFIER))
    script = script_exchange(prepare_login(Server("x", URL), nonces, REDIRECT_URI, NOW))
    script.expects(f"POST {URL}", json={"method": "initialize"}).responds(
        status, headers={"retry-after": "30"}
    )
    for name in (f"{PRM}/mcp", PRM):
        script.expects(f"GET {name}").responds(404)
    for name in ("oauth-authorization-server", "openid-configuration"):
        script.expects(f"GET https://mcp.example/.well-known/{name}").responds(404)
    error = script.raises(DiscoveryFailed, f"mcp.example responded to the first request with status {status}")
    assert error.advice.startswith("Try again in 30 seconds;")


@pytest.mark.parametrize("asked_first", [True, False], ids=["without a challenge", "with one"])
def test_preparation_takes_four_requests_or_three_with_a_challenge(*, asked_first: bool) -> None:
    challenge = None if asked_first else Challenge((f"{PRM}/mcp",))
    script = script_exchange(
        prepare_login(
            Server("x", URL),
            LoginNonces(Secret(STATE), Secret(VERIFIER)),
            REDIRECT_URI,
            NOW,
            challenge=challenge,
        )
    )
    if asked_first:
        script.expects(f"POST {URL}", headers={"accept": "application/json, text/event-stream"})
        script.responds(401, headers={"www-authenticate": f'Bearer resource_metadata="{PRM}/mcp"'})
    script.expects(f"GET {PRM}/mcp").responds(200, {"resource": URL, "authorization_servers": [ISSUER]})
    script.expects(f"GET {ISSUER}/.well-known/oauth-authorization-server").responds(200, metadata())
    script.expects(f"POST {ISSUER}/register", json={"redirect_uris": [REDIRECT_URI]})
    prepared = script.responds(201, {"client_id": "new"}).returns()
    assert prepared.request.client.client_id == "new"
    assert prepared.request.resource == URL


@covers("login-without-401")
@pytest.mark.parametrize("status", [200, 404, 500])
def test_quirk_4_discovery_continues_if_the_first_response_is_not_401(status: int) -> None:
    script = script_exchange(
        prepare_login(Server("x", URL), LoginNonces(Secret(STATE), Secret(VERIFIER)), REDIRECT_URI, NOW)
    )
    script.expects(f"POST {URL}").responds(status, "<html>")
    script.expects(f"GET {PRM}/mcp").responds(200, {"resource": URL, "authorization_servers": [ISSUER]})
    script.expects(f"GET {ISSUER}/.well-known/oauth-authorization-server").responds(200, metadata())
    script.expects(f"POST {ISSUER}/register").responds(201, {"client_id": "new"})
    assert script.returns().authorization_server.issuer == ISSUER


def test_only_the_first_request_carries_the_configured_headers() -> None:
    # Headers that would change the request's framing are never sent.
    broken = {"Content-Length": Secret("1"), "Transfer-Encoding": Secret("chunked"), "Host": Secret("else")}
    server = Server("x", URL, headers={"X-Tenant": Secret("t3nant"), **broken})
    script = script_exchange(
        prepare_login(server, LoginNonces(Secret(STATE), Secret(VERIFIER)), REDIRECT_URI, NOW)
    )
    sent = {"x-tenant": "t3nant", "content-length": None, "transfer-encoding": None, "host": None}
    script.expects(f"POST {URL}", headers=sent).responds(401)
    for url, document in (
        (f"{PRM}/mcp", {"resource": URL, "authorization_servers": [ISSUER]}),
        (f"{ISSUER}/.well-known/oauth-authorization-server", metadata()),
    ):
        script.expects(f"GET {url}", headers={"x-tenant": None}).responds(200, document)
    script.expects(f"POST {ISSUER}/register", headers={"x-tenant": None}).responds(201, {"client_id": "new"})
    script.returns()


PUSH_ENDPOINT = f"{ISSUER}/par"
PUSH_RESPONSE: dict[str, object] = {"request_uri": "urn:pushed:1", "expires_in": 300}


def script_push(
    previous_login: PreviousLogin | None = None, options: ServerOptions | None = None, **members: object
) -> ExchangeScript[PreparedLogin]:
    """Script up to the pushed request."""
    return script_preparation(
        previous_login, options, pushed_authorization_request_endpoint=PUSH_ENDPOINT, **members
    )


@covers("pushed")
def test_the_authorization_page_of_a_pushed_request_is_not_checked() -> None:
    script = script_push(PREVIOUS_LOGIN).expects(f"POST {PUSH_ENDPOINT}", form={"client_id": "held"})
    login_request = script.responds(201, PUSH_RESPONSE).returns().request
    assert login_request.url == f"{ISSUER}/authorize?client_id=held&request_uri=urn%3Apushed%3A1"


@covers("pushed", "stale-client")
def test_quirk_19_a_client_that_a_push_refuses_is_registered_again_once() -> None:
    script = (
        script_push(PREVIOUS_LOGIN)
        .expects(f"POST {PUSH_ENDPOINT}")
        .responds(401, {"error": "invalid_client"})
    )
    script.expects(f"POST {ISSUER}/register").responds(201, {"client_id": "new"})
    script.expects(f"POST {PUSH_ENDPOINT}", form={"client_id": "new"}).responds(201, PUSH_RESPONSE)
    assert script.returns().request.client.client_id == "new"
    second_script = (
        script_push(PREVIOUS_LOGIN)
        .expects(f"POST {PUSH_ENDPOINT}")
        .responds(401, {"error": "invalid_client"})
    )
    second_script.expects(f"POST {ISSUER}/register").responds(201, {"client_id": "new"})
    second_script.expects(f"POST {PUSH_ENDPOINT}").responds(401, {"error": "invalid_client"})
    second_script.raises(TokenError, "invalid_client")


@covers("pushed", "cimd-flag")
def test_quirk_20_a_metadata_document_that_a_push_refuses_is_replaced() -> None:
    options = ServerOptions(client_metadata_url=METADATA_DOCUMENT_URL)
    script = script_push(None, options, client_id_metadata_document_supported=True)
    script.expects(f"POST {PUSH_ENDPOINT}", form={"client_id": METADATA_DOCUMENT_URL}).responds(
        401, {"error": "invalid_client"}
    )
    script.expects(f"POST {ISSUER}/register").responds(201, {"client_id": "new"})
    script.expects(f"POST {PUSH_ENDPOINT}", form={"client_id": "new"}).responds(201, PUSH_RESPONSE)
    assert script.returns().request.client.client_id == "new"


@pytest.mark.parametrize("options", [ServerOptions(client_id="mine"), None], ids=["configured", "new"])
def test_a_refused_configured_or_new_client_is_not_registered_again(options: ServerOptions | None) -> None:
    script = script_push(None, options)
    if options is None:
        script.expects(f"POST {ISSUER}/register").responds(201, {"client_id": "new"})
    script.expects(f"POST {PUSH_ENDPOINT}").responds(401, {"error": "invalid_client"})
    script.raises(TokenError, "invalid_client")


def test_a_failed_check_of_the_authorization_page_is_ignored() -> None:
    authorization_url = script_preparation(options=ServerOptions(client_id="held")).returns().request.url
    script = (
        script_preparation(PREVIOUS_LOGIN).expects(f"GET {authorization_url}").fails(TimedOut("No answer."))
    )
    assert script.returns().request.client.client_id == "held"


@covers("step-up")
def test_quirk_38_a_step_up_includes_the_granted_scope() -> None:
    challenge = Challenge((f"{PRM}/mcp",), frozenset({"write"}), "insufficient_scope")
    previous_login = PreviousLogin(scope=frozenset({"read"}))
    nonces = LoginNonces(Secret(STATE), Secret(VERIFIER))
    script = script_exchange(
        prepare_login(
            Server("x", URL), nonces, REDIRECT_URI, NOW, previous_login=previous_login, challenge=challenge
        )
    )
    script.expects(f"GET {PRM}/mcp").responds(200, {"resource": URL, "authorization_servers": [ISSUER]})
    script.expects(f"GET {ISSUER}/.well-known/oauth-authorization-server").responds(200, metadata())
    script.expects(f"POST {ISSUER}/register", json={"scope": "read write"}).responds(
        201, {"client_id": "new"}
    )
    assert script.returns().request.scope == frozenset({"read", "write"})
