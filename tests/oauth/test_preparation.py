"""From a server to a request that a person can be shown: which client, and what is asked of whom."""

from __future__ import annotations

import pytest

from hermes_mcp_auth_remote.errors import DiscoveryFailed, RegistrationRefused
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.preparation import Chance, Held, Prepared, prepare
from hermes_mcp_auth_remote.values import Secret, Server, ServerOptions
from tests.oauth.parties import ISSUER, NOW, REDIRECT_URI, STATE, VERIFIER, client, metadata
from tests.playbook import Play, play
from tests.requirements import covers

URL = "https://mcp.example/mcp"
PRM = "https://mcp.example/.well-known/oauth-protected-resource"
HELD = Held(client(registered=True, client_id="held"), ISSUER)
DOCUMENT = "https://hermes.example/client.json"


def preparing(
    held: Held | None = None, options: ServerOptions | None = None, **members: object
) -> Play[Prepared]:
    """Play up to the authorization server's metadata, which differs by these members."""
    server = Server("x", URL, options or ServerOptions())
    chance = Chance(Secret(STATE), Secret(VERIFIER))
    script = play(prepare(server, chance, REDIRECT_URI, NOW, held=held, challenge=Challenge((f"{PRM}/mcp",))))
    script.expects(f"GET {PRM}/mcp").answers(200, {"resource": URL, "authorization_servers": [ISSUER]})
    script.expects(f"GET {ISSUER}/.well-known/oauth-authorization-server")
    return script.answers(200, metadata(**members))  # type: ignore[arg-type]


def page(script: Play[Prepared], client_id: str, status: int) -> Play[Prepared]:
    """Expect the look at the authorization page for a client that is known."""
    shown = preparing(options=ServerOptions(client_id=client_id)).returns().request.url
    return script.expects(f"GET {shown}").answers(status)


@covers("client-priority")
def test_a_configured_client_comes_before_a_held_one() -> None:
    options = ServerOptions(client_id="mine", client_secret=Secret("s3cret"), client_metadata_url=DOCUMENT)
    made = preparing(HELD, options, client_id_metadata_document_supported=True).returns().request
    assert (made.client.client_id, made.client.method) == ("mine", "client_secret_basic")


@covers("client-priority")
def test_a_held_client_comes_before_a_new_registration() -> None:
    assert page(preparing(HELD), "held", 200).returns().request.client == HELD.client


@covers("client-priority", "cimd-flag")
def test_quirk_20_a_metadata_document_comes_before_registration_unless_it_was_refused() -> None:
    options = ServerOptions(client_metadata_url=DOCUMENT)
    advertised = preparing(None, options, client_id_metadata_document_supported=True)
    assert advertised.returns().request.client.client_id == DOCUMENT
    for held, flag in ((Held(metadata_document_refused=True), True), (None, None)):
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
    "held",
    [
        Held(client(registered=True, redirect_uris=("http://127.0.0.1:1/callback",)), ISSUER),
        Held(client(registered=True), "https://other.example"),
        Held(client(registered=True, secret_expires_at=NOW), ISSUER),
        Held(client(registered=False), ISSUER),
    ],
    ids=["another redirect URI (quirk 18)", "another issuer", "its secret expired", "not registered"],
)
def test_a_held_client_that_does_not_fit_is_registered_anew(held: Held) -> None:
    script = preparing(held).expects(f"POST {ISSUER}/register", json={"redirect_uris": [REDIRECT_URI]})
    assert script.answers(201, {"client_id": "new"}).returns().request.client.client_id == "new"


@covers("client-binding")
def test_a_configured_client_does_not_follow_a_server_that_moved_to_another_issuer() -> None:
    options = ServerOptions(client_id="mine", client_secret=Secret("s3cret"))
    before = Held(client(client_id="mine"), "https://before.example")
    error = preparing(before, options).raises(RegistrationRefused, "before.example")
    assert "s3cret" not in f"{error} {error.advice}"
    anew = Held(client(client_id="earlier"), "https://before.example")
    assert preparing(anew, options).returns().request.client.client_id == "mine"


@covers("login-without-401")
def test_quirk_4_a_server_that_answers_200_and_publishes_nothing_is_not_sent_to_a_guessed_endpoint() -> None:
    chance = Chance(Secret(STATE), Secret(VERIFIER))
    script = play(prepare(Server("x", URL), chance, REDIRECT_URI, NOW))
    script.expects(f"POST {URL}", json={"method": "initialize"}).answers(200, {"jsonrpc": "2.0"})
    for place in (f"{PRM}/mcp", PRM):
        script.expects(f"GET {place}").answers(404)
    for place in ("oauth-authorization-server", "openid-configuration"):
        script.expects(f"GET https://mcp.example/.well-known/{place}").answers(404)
    script.raises(DiscoveryFailed, "asks for no authorization")
