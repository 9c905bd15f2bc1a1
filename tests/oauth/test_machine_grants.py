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
from tests.exchange_script import ExchangeScript, form_of, script_exchange
from tests.oauth.builders import (
    CHALLENGE,
    ISSUER,
    NOW,
    PRM,
    RFC8414,
    TOKEN_REQUEST,
    TOKEN_RESPONSE,
    URL,
    metadata,
    prm,
)
from tests.requirements import covers

CLIENT_CREDENTIALS = ServerOptions(
    client_id="job-7", client_secret=Secret("s3cret-of-job"), grant="client_credentials"
)
WORKLOAD = ServerOptions(client_id="job-7", grant="jwt_bearer", assertion_file="unread")
IDENTITY_PROVIDER = IdentityProvider("https://idp.example/token", "unread", "at-idp", Secret("s3cret-at-idp"))
ENTERPRISE = replace(CLIENT_CREDENTIALS, grant="enterprise", identity_provider=IDENTITY_PROVIDER)
EXCHANGE_REQUEST = "POST https://idp.example/token"
ID_TOKEN = Secret("id-token-of-ada")
ID_JAG_RESPONSE: dict[str, object] = {
    "access_token": "the-id-jag",
    "issued_token_type": ID_JAG,
    "token_type": "N_A",
}


def make_workload_jwt(**claims: object) -> Secret:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return Secret(f"e30.{payload}.c2ln")


def script_grant(
    options: ServerOptions,
    inputs: GrantInputs | None = None,
    *,
    challenge: Challenge = CHALLENGE,
    previous_login: PreviousLogin | None = None,
    resource: dict[str, object] | None = None,
    **members: object,
) -> ExchangeScript[GrantResult]:
    """Script the requests up to the response with the authorization server's metadata."""
    script = script_exchange(
        obtain_tokens(
            Server("job", URL, options),
            inputs or GrantInputs(),
            NOW,
            challenge=challenge,
            previous_login=previous_login,
        )
    )
    script = script.expects(f"{PRM}/mcp").responds(200, {**prm(ISSUER), **(resource or {})})
    return script.expects(f"GET {ISSUER}{RFC8414}").responds(200, metadata(ISSUER, **members))


@covers("client-credentials")
def test_client_credentials_obtain_tokens_without_a_refresh_token() -> None:
    script = script_grant(
        CLIENT_CREDENTIALS, scopes_supported=["offline_access"], resource={"scopes_supported": ["a"]}
    )
    form: dict[str, str | None] = {"grant_type": "client_credentials", "resource": URL, "scope": "a"}
    script = script.expects(
        TOKEN_REQUEST, form=form, headers={"authorization": "Basic am9iLTc6czNjcmV0LW9mLWpvYg=="}
    )
    result = script.responds(200, {**TOKEN_RESPONSE, "refresh_token": "r"}).returns()
    assert result.tokens.refresh_token is None
    assert result.tokens.scope == result.scope == frozenset("a")
    assert (result.client.client_id, result.authorization_server.issuer) == ("job-7", ISSUER)


@covers("client-credentials")
def test_a_client_can_authenticate_with_a_signed_assertion() -> None:
    inputs = GrantInputs(sign=lambda client_id, audience: Secret(f"{client_id} for {audience}"))
    script = script_grant(replace(CLIENT_CREDENTIALS, client_secret=None), inputs)
    script.expects(TOKEN_REQUEST, form={"client_assertion": f"job-7 for {ISSUER}"}).responds(
        200, TOKEN_RESPONSE
    ).returns()


@covers("client-credentials", "client-binding")
def test_the_client_secret_is_not_sent_to_another_issuer() -> None:
    previous_login = PreviousLogin(Client("job-7"), "https://before.example")
    script_grant(CLIENT_CREDENTIALS, previous_login=previous_login).raises(
        RegistrationError, "before.example"
    )


@covers("client-credentials")
def test_without_a_client_id_no_token_is_requested() -> None:
    script_grant(replace(CLIENT_CREDENTIALS, client_id=None)).raises(ConfigError, "oauth.client_id")


@covers("jwt-bearer")
@pytest.mark.parametrize("audience", [ISSUER, f"{ISSUER}/", f"{ISSUER}/token", ["else", ISSUER]])
def test_a_workload_jwt_is_sent_to_its_audience(audience: object) -> None:
    assertion = make_workload_jwt(aud=audience)
    script = script_grant(WORKLOAD, GrantInputs(assertion=assertion)).expects(
        TOKEN_REQUEST, form={"grant_type": JWT_BEARER, "assertion": assertion.reveal(), "client_id": "job-7"}
    )
    script.responds(200, TOKEN_RESPONSE).returns()


@covers("jwt-bearer")
@pytest.mark.parametrize("audience", ["https://else.example", [], None, 7, f"{ISSUER}.evil.example"])
def test_a_workload_jwt_is_not_sent_to_another_audience(audience: object) -> None:
    script = script_grant(WORKLOAD, GrantInputs(assertion=make_workload_jwt(aud=audience)))
    script.raises(ConfigError, "not addressed to as.example")


@covers("jwt-bearer", "no-secret")
@pytest.mark.parametrize("text", ["opaque-t0ken", "a.b.c", "e30.W10.c2ln", "e30.é.c2ln", ".." * 9])
def test_an_assertion_that_is_not_a_jwt_is_not_sent(text: str) -> None:
    error = script_grant(WORKLOAD, GrantInputs(assertion=Secret(text))).raises(ConfigError, "signed JWT")
    assert "opaque-t0ken" not in f"{error} {error.advice}"


@covers("enterprise")
def test_an_id_token_is_exchanged_for_an_id_jag_and_then_for_tokens() -> None:
    script = script_grant(ENTERPRISE, GrantInputs(assertion=ID_TOKEN), resource={"scopes_supported": ["a"]})
    form: dict[str, str | None] = {
        "grant_type": TOKEN_EXCHANGE,
        "requested_token_type": ID_JAG,
        "subject_token": ID_TOKEN.reveal(),
        "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
        "audience": ISSUER,
        "resource": URL,
        "scope": "a",
    }
    script = script.expects(EXCHANGE_REQUEST, form=form).responds(200, ID_JAG_RESPONSE)
    script = script.expects(
        TOKEN_REQUEST, form={"grant_type": JWT_BEARER, "assertion": "the-id-jag", "resource": URL}
    )
    assert script.responds(200, TOKEN_RESPONSE).returns().tokens.access_token == Secret("fresh-access")
    sent = form_of(script.requests[-1])
    assert ID_TOKEN.reveal() not in sent.values(), "the ID token must not reach the authorization server"


@covers("enterprise")
@pytest.mark.parametrize("member", ["access_token", "issued_token_type"])
def test_a_token_exchange_without_an_id_jag_fails(member: str) -> None:
    script = script_grant(ENTERPRISE, GrantInputs(assertion=ID_TOKEN)).expects(EXCHANGE_REQUEST)
    script.responds(200, {**ID_JAG_RESPONSE, member: None}).raises(MalformedResponse, "ID-JAG")


@covers("enterprise", "no-secret")
def test_a_refused_id_token_advises_to_sign_in_at_the_identity_provider() -> None:
    description = f"{ID_TOKEN.reveal()} is too old"
    script = script_grant(ENTERPRISE, GrantInputs(assertion=ID_TOKEN)).expects(EXCHANGE_REQUEST)
    script = script.responds(400, {"error": "invalid_grant", "error_description": description})
    error = script.raises(TokenError, "Sign in at your identity provider again")
    assert ID_TOKEN.reveal() not in str(error)


@covers("no-person", "step-up")
def test_a_step_up_requests_the_granted_and_the_required_scope() -> None:
    wider = replace(CHALLENGE, scope=frozenset({"b"}), error="insufficient_scope")
    script = script_grant(
        CLIENT_CREDENTIALS, challenge=wider, previous_login=PreviousLogin(scope=frozenset({"a"}))
    )
    script.expects(TOKEN_REQUEST, form={"scope": "a b"}).responds(200, TOKEN_RESPONSE).returns()


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
def test_tokens_are_bound_if_the_resource_requires_dpop_or_it_is_configured(
    *, dpop: bool | None, listed: list[str], is_required: bool, bound: bool
) -> None:
    prover = load_prover(new_proof_key(), lambda: NOW, lambda _: "jti")
    resource: dict[str, object] = {"dpop_bound_access_tokens_required": is_required}
    script = script_grant(
        replace(CLIENT_CREDENTIALS, dpop=dpop),
        GrantInputs(prover=prover),
        resource=resource,
        dpop_signing_alg_values_supported=listed,
    )
    script.expects(TOKEN_REQUEST).responds(
        200, {**TOKEN_RESPONSE, "token_type": "DPoP" if bound else "Bearer"}
    ).returns()
    assert ("dpop" in dict(script.requests[-1].headers)) is bound
