"""Machine grants: the requests, their recipients, and the secrets that they must not contain."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from hermes_mcp_auth_remote.errors import ConfigError, MalformedResponse, RegistrationError, TokenError
from hermes_mcp_auth_remote.flows.client_selection import PreviousLogin
from hermes_mcp_auth_remote.flows.machine_grants import (
    ID_JAG,
    JWT_BEARER,
    TOKEN_EXCHANGE,
    GrantInputs,
    GrantResult,
    obtain_tokens,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.signing import load_prover, new_proof_key
from hermes_mcp_auth_remote.values import IdentityProvider, Secret, Server, ServerOptions
from tests.oauth.parties import GRANTED, ISSUER, NAMED, NOW, PRM, RFC8414, TOKEN, URL, metadata, prm
from tests.playbook import Play, form_of, play
from tests.requirements import covers

OWN = ServerOptions(client_id="job-7", client_secret=Secret("s3cret-of-job"), grant="client_credentials")
WORKLOAD = ServerOptions(client_id="job-7", grant="jwt_bearer", assertion_file="unread")
PROVIDER = IdentityProvider("https://idp.example/token", "unread", "at-idp", Secret("s3cret-at-idp"))
ENTERPRISE = replace(OWN, grant="enterprise", identity_provider=PROVIDER)
EXCHANGE = "POST https://idp.example/token"
ID_TOKEN = Secret("id-token-of-ada")
JAG: dict[str, object] = {"access_token": "the-id-jag", "issued_token_type": ID_JAG, "token_type": "N_A"}


def workload_jwt(**claims: object) -> Secret:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return Secret(f"e30.{payload}.c2ln")


def obtaining(
    options: ServerOptions,
    means: GrantInputs | None = None,
    *,
    challenge: Challenge = NAMED,
    held: PreviousLogin | None = None,
    resource: dict[str, object] | None = None,
    **members: object,
) -> Play[GrantResult]:
    """Script up to the authorization server's metadata."""
    script = play(
        obtain_tokens(
            Server("job", URL, options), means or GrantInputs(), NOW, challenge=challenge, previous_login=held
        )
    )
    script = script.expects(f"{PRM}/mcp").answers(200, {**prm(ISSUER), **(resource or {})})
    return script.expects(f"GET {ISSUER}{RFC8414}").answers(200, metadata(ISSUER, **members))


@covers("client-credentials")
def test_a_client_asks_on_its_own_word_and_keeps_no_refresh_token() -> None:
    script = obtaining(OWN, scopes_supported=["offline_access"], resource={"scopes_supported": ["a"]})
    form: dict[str, str | None] = {"grant_type": "client_credentials", "resource": URL, "scope": "a"}
    script = script.expects(TOKEN, form=form, headers={"authorization": "Basic am9iLTc6czNjcmV0LW9mLWpvYg=="})
    granted = script.answers(200, {**GRANTED, "refresh_token": "r"}).returns()
    assert granted.tokens.refresh_token is None
    assert granted.tokens.scope == granted.scope == frozenset("a")
    assert (granted.client.client_id, granted.authorization_server.issuer) == ("job-7", ISSUER)


@covers("client-credentials")
def test_a_key_stands_in_for_the_secret() -> None:
    means = GrantInputs(sign=lambda client_id, audience: Secret(f"{client_id} for {audience}"))
    script = obtaining(replace(OWN, client_secret=None), means)
    script.expects(TOKEN, form={"client_assertion": f"job-7 for {ISSUER}"}).answers(200, GRANTED).returns()


@covers("client-credentials", "client-binding")
def test_the_secret_does_not_follow_a_server_to_another_issuer() -> None:
    held = PreviousLogin(Client("job-7"), "https://before.example")
    obtaining(OWN, held=held).raises(RegistrationError, "before.example")


@covers("client-credentials")
def test_without_a_client_id_nothing_is_asked_for() -> None:
    obtaining(replace(OWN, client_id=None)).raises(ConfigError, "oauth.client_id")


@covers("jwt-bearer")
@pytest.mark.parametrize("audience", [ISSUER, f"{ISSUER}/", f"{ISSUER}/token", ["else", ISSUER]])
def test_a_workload_shows_its_jwt_to_its_addressee(audience: object) -> None:
    assertion = workload_jwt(aud=audience)
    script = obtaining(WORKLOAD, GrantInputs(assertion=assertion)).expects(
        TOKEN, form={"grant_type": JWT_BEARER, "assertion": assertion.reveal(), "client_id": "job-7"}
    )
    script.answers(200, GRANTED).returns()


@covers("jwt-bearer")
@pytest.mark.parametrize("audience", ["https://else.example", [], None, 7, f"{ISSUER}.evil.example"])
def test_a_workloads_jwt_is_never_shown_to_anybody_else(audience: object) -> None:
    script = obtaining(WORKLOAD, GrantInputs(assertion=workload_jwt(aud=audience)))
    script.raises(ConfigError, "not addressed to as.example")


@covers("jwt-bearer", "no-secret")
@pytest.mark.parametrize("text", ["opaque-t0ken", "a.b.c", "e30.W10.c2ln", "e30.é.c2ln", ".." * 9])
def test_what_is_no_jwt_is_shown_to_nobody(text: str) -> None:
    error = obtaining(WORKLOAD, GrantInputs(assertion=Secret(text))).raises(ConfigError, "signed JWT")
    assert "opaque-t0ken" not in f"{error} {error.advice}"


@covers("enterprise")
def test_an_identity_providers_word_becomes_a_token() -> None:
    script = obtaining(ENTERPRISE, GrantInputs(assertion=ID_TOKEN), resource={"scopes_supported": ["a"]})
    form: dict[str, str | None] = {
        "grant_type": TOKEN_EXCHANGE,
        "requested_token_type": ID_JAG,
        "subject_token": ID_TOKEN.reveal(),
        "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
        "audience": ISSUER,
        "resource": URL,
        "scope": "a",
    }
    script = script.expects(EXCHANGE, form=form).answers(200, JAG)
    script = script.expects(
        TOKEN, form={"grant_type": JWT_BEARER, "assertion": "the-id-jag", "resource": URL}
    )
    assert script.answers(200, GRANTED).returns().tokens.access_token == Secret("fresh-access")
    sent = form_of(script.requests[-1])
    assert ID_TOKEN.reveal() not in sent.values(), "the ID token must not reach the authorization server"


@covers("enterprise")
@pytest.mark.parametrize("member", ["access_token", "issued_token_type"])
def test_an_exchange_that_brings_no_id_jag_ends_there(member: str) -> None:
    script = obtaining(ENTERPRISE, GrantInputs(assertion=ID_TOKEN)).expects(EXCHANGE)
    script.answers(200, {**JAG, member: None}).raises(MalformedResponse, "ID-JAG")


@covers("enterprise", "no-secret")
def test_an_identity_provider_that_refuses_says_where_to_sign_in() -> None:
    said = f"{ID_TOKEN.reveal()} is too old"
    script = obtaining(ENTERPRISE, GrantInputs(assertion=ID_TOKEN)).expects(EXCHANGE)
    script = script.answers(400, {"error": "invalid_grant", "error_description": said})
    error = script.raises(TokenError, "Sign in at your identity provider again")
    assert ID_TOKEN.reveal() not in str(error)


@covers("no-person", "step-up")
def test_a_wider_scope_is_asked_for_beside_what_was_granted() -> None:
    wider = replace(NAMED, scope=frozenset({"b"}), error="insufficient_scope")
    script = obtaining(OWN, challenge=wider, held=PreviousLogin(scope=frozenset({"a"})))
    script.expects(TOKEN, form={"scope": "a b"}).answers(200, GRANTED).returns()


@covers("dpop-choice")
@pytest.mark.parametrize(
    ("dpop", "listed", "is_required", "bound"),
    [
        (None, ["ES256"], True, True),
        (None, ["ES256"], False, False),
        (None, [], True, False),
        (True, [], False, True),
        (False, ["ES256"], True, False),
    ],
)
def test_tokens_are_bound_where_both_servers_take_that(
    *, dpop: bool | None, listed: list[str], is_required: bool, bound: bool
) -> None:
    proving = load_prover(new_proof_key(), lambda: NOW, lambda _: "jti")
    resource: dict[str, object] = {"dpop_bound_access_tokens_required": is_required}
    script = obtaining(
        replace(OWN, dpop=dpop),
        GrantInputs(prover=proving),
        resource=resource,
        dpop_signing_alg_values_supported=listed,
    )
    script.expects(TOKEN).answers(200, {**GRANTED, "token_type": "DPoP" if bound else "Bearer"}).returns()
    assert ("dpop" in dict(script.requests[-1].headers)) is bound
