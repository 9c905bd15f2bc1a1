"""Login preparation: the selected client and the requests before the user sees the authorization URL."""

from __future__ import annotations

import pytest

from hermes_mcp_auth_remote.errors import DiscoveryFailed, RegistrationError, TimedOut, TokenError
from hermes_mcp_auth_remote.flows.client_selection import PreviousLogin
from hermes_mcp_auth_remote.flows.login_preparation import LoginNonces, PreparedLogin, prepare_login
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.values import Secret, Server, ServerOptions
from tests.oauth.parties import ISSUER, NOW, REDIRECT_URI, STATE, VERIFIER, client, metadata
from tests.playbook import Play, play
from tests.requirements import covers

URL = "https://mcp.example/mcp"
PRM = "https://mcp.example/.well-known/oauth-protected-resource"
HELD = PreviousLogin(client(is_registered=True, client_id="held"), ISSUER)
DOCUMENT = "https://hermes.example/client.json"


def preparing(
    held: PreviousLogin | None = None, options: ServerOptions | None = None, **members: object
) -> Play[PreparedLogin]:
    """Script up to the authorization server's metadata; the members override it."""
    server = Server("x", URL, options or ServerOptions())
    chance = LoginNonces(Secret(STATE), Secret(VERIFIER))
    script = play(
        prepare_login(
            server, chance, REDIRECT_URI, NOW, previous_login=held, challenge=Challenge((f"{PRM}/mcp",))
        )
    )
    script.expects(f"GET {PRM}/mcp").answers(200, {"resource": URL, "authorization_servers": [ISSUER]})
    script.expects(f"GET {ISSUER}/.well-known/oauth-authorization-server")
    return script.answers(200, metadata(**members))  # type: ignore[arg-type]


def page(script: Play[PreparedLogin], client_id: str, status: int) -> Play[PreparedLogin]:
    """Expect the request that checks the authorization page with a stored client."""
    shown = preparing(options=ServerOptions(client_id=client_id)).returns().request.url
    return script.expects(f"GET {shown}").answers(status)


@covers("client-priority")
def test_a_configured_client_comes_before_a_held_one() -> None:
    options = ServerOptions(client_id="mine", client_secret=Secret("s3cret"), client_metadata_url=DOCUMENT)
    made = preparing(HELD, options, client_id_metadata_document_supported=True).returns().request
    assert (made.client.client_id, made.client.auth_method) == ("mine", "client_secret_basic")


@covers("client-priority")
def test_a_held_client_comes_before_a_new_registration() -> None:
    assert page(preparing(HELD), "held", 200).returns().request.client == HELD.client


@covers("client-priority", "cimd-flag")
def test_quirk_20_a_metadata_document_comes_before_registration_unless_it_was_refused() -> None:
    options = ServerOptions(client_metadata_url=DOCUMENT)
    advertised = preparing(None, options, client_id_metadata_document_supported=True)
    assert advertised.returns().request.client.client_id == DOCUMENT
    for held, flag in ((PreviousLogin(is_cimd_disabled=True), True), (None, None)):
        script = preparing(held, options, client_id_metadata_document_supported=flag)
        script.expects(f"POST {ISSUER}/register").answers(201, {"client_id": "new"})
        assert script.returns().request.client.client_id == "new"


@covers("stale-client")
@pytest.mark.parametrize("status", [422, 500])
def test_quirk_19_a_forgotten_client_is_registered_anew_before_a_person_sees_the_page(status: int) -> None:
    script = page(preparing(HELD), "held", status)
    script.expects(f"POST {ISSUER}/register").answers(201, {"client_id": "new"})
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
def test_a_held_client_that_does_not_fit_is_registered_anew(previous_login: PreviousLogin) -> None:
    script = preparing(previous_login).expects(
        f"POST {ISSUER}/register", json={"redirect_uris": [REDIRECT_URI]}
    )
    assert script.answers(201, {"client_id": "new"}).returns().request.client.client_id == "new"


@covers("client-binding")
def test_a_configured_client_does_not_follow_a_server_that_moved_to_another_issuer() -> None:
    options = ServerOptions(client_id="mine", client_secret=Secret("s3cret"))
    before = PreviousLogin(client(client_id="mine"), "https://before.example")
    error = preparing(before, options).raises(RegistrationError, "before.example")
    assert "s3cret" not in f"{error} {error.advice}"
    anew = PreviousLogin(client(client_id="earlier"), "https://before.example")
    assert preparing(anew, options).returns().request.client.client_id == "mine"


@covers("login-without-401")
def test_quirk_4_a_server_that_answers_200_and_publishes_nothing_is_not_sent_to_a_guessed_endpoint() -> None:
    chance = LoginNonces(Secret(STATE), Secret(VERIFIER))
    script = play(prepare_login(Server("x", URL), chance, REDIRECT_URI, NOW))
    script.expects(f"POST {URL}", json={"method": "initialize"}).answers(200, {"jsonrpc": "2.0"})
    for place in (f"{PRM}/mcp", PRM):
        script.expects(f"GET {place}").answers(404)
    for place in ("oauth-authorization-server", "openid-configuration"):
        script.expects(f"GET https://mcp.example/.well-known/{place}").answers(404)
    script.raises(DiscoveryFailed, "asks for no authorization")


@pytest.mark.parametrize("asked_first", [True, False], ids=["without a challenge", "with one"])
def test_cold_four_requests_before_the_person_three_where_the_challenge_is_known(
    *, asked_first: bool
) -> None:
    challenge = None if asked_first else Challenge((f"{PRM}/mcp",))
    script = play(
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
        script.answers(401, headers={"www-authenticate": f'Bearer resource_metadata="{PRM}/mcp"'})
    script.expects(f"GET {PRM}/mcp").answers(200, {"resource": URL, "authorization_servers": [ISSUER]})
    script.expects(f"GET {ISSUER}/.well-known/oauth-authorization-server").answers(200, metadata())
    script.expects(f"POST {ISSUER}/register", json={"redirect_uris": [REDIRECT_URI]})
    made = script.answers(201, {"client_id": "new"}).returns()
    assert made.request.client.client_id == "new"
    assert made.request.resource == URL


@covers("login-without-401")
@pytest.mark.parametrize("status", [200, 404, 500])
def test_quirk_4_discovery_goes_on_where_the_first_request_is_answered_without_a_401(status: int) -> None:
    script = play(
        prepare_login(Server("x", URL), LoginNonces(Secret(STATE), Secret(VERIFIER)), REDIRECT_URI, NOW)
    )
    script.expects(f"POST {URL}").answers(status, "<html>")
    script.expects(f"GET {PRM}/mcp").answers(200, {"resource": URL, "authorization_servers": [ISSUER]})
    script.expects(f"GET {ISSUER}/.well-known/oauth-authorization-server").answers(200, metadata())
    script.expects(f"POST {ISSUER}/register").answers(201, {"client_id": "new"})
    assert script.returns().authorization_server.issuer == ISSUER


def test_the_first_request_carries_the_operator_s_own_headers_and_no_other_does() -> None:
    # Headers that would change the request's framing are never sent.
    broken = {"Content-Length": Secret("1"), "Transfer-Encoding": Secret("chunked"), "Host": Secret("else")}
    server = Server("x", URL, headers={"X-Tenant": Secret("t3nant"), **broken})
    script = play(prepare_login(server, LoginNonces(Secret(STATE), Secret(VERIFIER)), REDIRECT_URI, NOW))
    sent = {"x-tenant": "t3nant", "content-length": None, "transfer-encoding": None, "host": None}
    script.expects(f"POST {URL}", headers=sent).answers(401)
    for place, document in (
        (f"{PRM}/mcp", {"resource": URL, "authorization_servers": [ISSUER]}),
        (f"{ISSUER}/.well-known/oauth-authorization-server", metadata()),
    ):
        script.expects(f"GET {place}", headers={"x-tenant": None}).answers(200, document)
    script.expects(f"POST {ISSUER}/register", headers={"x-tenant": None}).answers(201, {"client_id": "new"})
    script.returns()


PUSH = f"{ISSUER}/par"
TAKEN: dict[str, object] = {"request_uri": "urn:pushed:1", "expires_in": 300}


def pushing(
    held: PreviousLogin | None = None, options: ServerOptions | None = None, **members: object
) -> Play[PreparedLogin]:
    """Script up to the pushed request."""
    return preparing(held, options, pushed_authorization_request_endpoint=PUSH, **members)


@covers("pushed")
def test_a_pushed_request_of_a_held_client_is_not_looked_at_which_would_use_it_up() -> None:
    script = pushing(HELD).expects(f"POST {PUSH}", form={"client_id": "held"})
    made = script.answers(201, TAKEN).returns().request
    assert made.url == f"{ISSUER}/authorize?client_id=held&request_uri=urn%3Apushed%3A1"


@covers("pushed", "stale-client")
def test_quirk_19_a_forgotten_client_whose_request_is_pushed_is_registered_anew_once() -> None:
    script = pushing(HELD).expects(f"POST {PUSH}").answers(401, {"error": "invalid_client"})
    script.expects(f"POST {ISSUER}/register").answers(201, {"client_id": "new"})
    script.expects(f"POST {PUSH}", form={"client_id": "new"}).answers(201, TAKEN)
    assert script.returns().request.client.client_id == "new"
    again = pushing(HELD).expects(f"POST {PUSH}").answers(401, {"error": "invalid_client"})
    again.expects(f"POST {ISSUER}/register").answers(201, {"client_id": "new"})
    again.expects(f"POST {PUSH}").answers(401, {"error": "invalid_client"})
    again.raises(TokenError, "invalid_client")


@covers("pushed", "cimd-flag")
def test_quirk_20_a_metadata_document_that_is_refused_when_pushed_gives_way_to_registration() -> None:
    options = ServerOptions(client_metadata_url=DOCUMENT)
    script = pushing(None, options, client_id_metadata_document_supported=True)
    script.expects(f"POST {PUSH}", form={"client_id": DOCUMENT}).answers(401, {"error": "invalid_client"})
    script.expects(f"POST {ISSUER}/register").answers(201, {"client_id": "new"})
    script.expects(f"POST {PUSH}", form={"client_id": "new"}).answers(201, TAKEN)
    assert script.returns().request.client.client_id == "new"


@pytest.mark.parametrize("options", [ServerOptions(client_id="mine"), None], ids=["configured", "new"])
def test_a_client_that_registration_would_not_better_ends_the_login(options: ServerOptions | None) -> None:
    script = pushing(None, options)
    if options is None:
        script.expects(f"POST {ISSUER}/register").answers(201, {"client_id": "new"})
    script.expects(f"POST {PUSH}").answers(401, {"error": "invalid_client"})
    script.raises(TokenError, "invalid_client")


def test_a_look_at_the_page_that_fails_on_its_way_stops_nothing() -> None:
    shown = preparing(options=ServerOptions(client_id="held")).returns().request.url
    script = preparing(HELD).expects(f"GET {shown}").fails(TimedOut("No answer."))
    assert script.returns().request.client.client_id == "held"


@covers("step-up")
def test_quirk_38_a_step_up_asks_for_what_was_granted_as_well() -> None:
    challenge = Challenge((f"{PRM}/mcp",), frozenset({"write"}), "insufficient_scope")
    held = PreviousLogin(scope=frozenset({"read"}))
    chance = LoginNonces(Secret(STATE), Secret(VERIFIER))
    script = play(
        prepare_login(Server("x", URL), chance, REDIRECT_URI, NOW, previous_login=held, challenge=challenge)
    )
    script.expects(f"GET {PRM}/mcp").answers(200, {"resource": URL, "authorization_servers": [ISSUER]})
    script.expects(f"GET {ISSUER}/.well-known/oauth-authorization-server").answers(200, metadata())
    script.expects(f"POST {ISSUER}/register", json={"scope": "read write"}).answers(201, {"client_id": "new"})
    assert script.returns().request.scope == frozenset({"read", "write"})
