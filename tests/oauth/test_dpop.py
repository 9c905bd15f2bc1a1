"""DPoP proofs: their claims, their uniqueness, and the nonces that servers require."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_mcp_auth_remote.errors import MalformedResponse, TokenError
from hermes_mcp_auth_remote.oauth.dpop import Prover, is_valid_nonce, requires_nonce, supports_dpop
from hermes_mcp_auth_remote.oauth.jws import base64url_encode, jwk_thumbprint
from hermes_mcp_auth_remote.oauth.redirect import read_authorization_response
from hermes_mcp_auth_remote.oauth.token import Tokens, exchange_code, refresh_tokens
from hermes_mcp_auth_remote.signing import load_prover, new_proof_key
from tests.exchange_script import ExchangeScript, headers_of, script_exchange
from tests.oauth.builders import (
    CODE,
    NOW,
    OLD_TOKENS,
    REDIRECT_URI,
    STATE,
    TOKEN_REQUEST,
    TOKEN_RESPONSE,
    client,
    request,
    server,
)
from tests.requirements import covers

KEY = new_proof_key()
NONCE_REQUIRED: dict[str, object] = {"error": "use_dpop_nonce"}
DPOP_TOKEN_RESPONSE: dict[str, object] = {**TOKEN_RESPONSE, "token_type": "DPoP"}


@pytest.fixture
def prover() -> Prover:
    numbers = itertools.count()
    return load_prover(KEY, lambda: NOW, lambda size: f"jti-{next(numbers)}-of-{size}")


def sent_proofs(script: ExchangeScript[Tokens]) -> list[dict[str, Any]]:
    """Return the claims of the sent proofs; verify each with its embedded key, as a server does."""
    return [read_proof(headers_of(request)["dpop"]) for request in script.requests]


def read_proof(proof: str) -> dict[str, Any]:
    header = jwt.get_unverified_header(proof)
    assert header["typ"] == "dpop+jwt"
    assert header["jwk"].keys() == {"kty", "crv", "x", "y"}, "the private key must not leave this process"
    key = jwt.PyJWK.from_dict({**header["jwk"], "alg": "ES256"})
    claims: dict[str, Any] = jwt.decode(proof, key, ["ES256"], options={"verify_iat": False})
    return claims


def script_code_exchange(prover: Prover | None) -> ExchangeScript[Tokens]:
    response = read_authorization_response(f"{REDIRECT_URI}?code={CODE}&state={STATE}", request())
    return script_exchange(exchange_code(response, request(), NOW, prover=prover))


@covers("dpop-proof")
def test_a_token_request_carries_a_proof_for_its_method_and_url(prover: Prover) -> None:
    script = script_code_exchange(prover).expects(TOKEN_REQUEST).responds(200, DPOP_TOKEN_RESPONSE)
    tokens = script.returns()
    assert tokens.authorization_header == "DPoP fresh-access"
    (claims,) = sent_proofs(script)
    assert claims == {"jti": "jti-0-of-16", "htm": "POST", "htu": TOKEN_REQUEST[5:], "iat": int(NOW)}


@covers("dpop-proof")
def test_a_refresh_carries_a_proof(prover: Prover) -> None:
    script = (
        script_exchange(refresh_tokens(server(), client(), OLD_TOKENS, NOW, prover=prover))
        .expects(TOKEN_REQUEST)
        .responds(200, DPOP_TOKEN_RESPONSE)
    )
    assert script.returns().scheme == "DPoP"
    assert len(sent_proofs(script)) == 1


@covers("dpop-proof")
def test_a_server_without_dpop_grants_a_bearer_token(prover: Prover) -> None:
    assert (
        script_code_exchange(prover).expects(TOKEN_REQUEST).responds(200, TOKEN_RESPONSE).returns().scheme
        == "Bearer"
    )


@covers("dpop-proof")
def test_a_dpop_token_is_refused_if_no_proof_was_sent() -> None:
    script = (
        script_code_exchange(None)
        .expects(TOKEN_REQUEST, headers={"dpop": None})
        .responds(200, DPOP_TOKEN_RESPONSE)
    )
    script.raises(MalformedResponse, "not a Bearer token")


@covers("dpop-nonce")
@pytest.mark.parametrize("status", [400, 401])
def test_a_token_request_is_retried_once_with_the_servers_nonce(prover: Prover, status: int) -> None:
    script = (
        script_code_exchange(prover)
        .expects(TOKEN_REQUEST)
        .responds(status, NONCE_REQUIRED, {"dpop-nonce": "n-1"})
    )
    script.expects(TOKEN_REQUEST, form={"code": CODE}).responds(
        200, DPOP_TOKEN_RESPONSE, {"dpop-nonce": "n-2"}
    ).returns()
    first, second = sent_proofs(script)
    assert "nonce" not in first
    assert second["nonce"] == "n-1"
    assert first["jti"] != second["jti"]
    # The nonce in the successful response is for the next request.
    assert read_proof(prover.create_proof("POST", TOKEN_REQUEST[5:]))["nonce"] == "n-2"


@covers("dpop-nonce")
def test_a_second_nonce_error_is_not_retried(prover: Prover) -> None:
    script = (
        script_code_exchange(prover)
        .expects(TOKEN_REQUEST)
        .responds(400, NONCE_REQUIRED, {"dpop-nonce": "n-1"})
    )
    script = script.expects(TOKEN_REQUEST).responds(400, NONCE_REQUIRED, {"dpop-nonce": "n-2"})
    assert script.raises(TokenError).error == "use_dpop_nonce"


@covers("dpop-nonce")
@pytest.mark.parametrize(
    "headers", [{}, {"dpop-nonce": ""}, {"dpop-nonce": "two words"}, {"dpop-nonce": "é"}]
)
def test_a_nonce_error_without_a_valid_nonce_is_not_retried(prover: Prover, headers: dict[str, str]) -> None:
    script_code_exchange(prover).expects(TOKEN_REQUEST).responds(400, NONCE_REQUIRED, headers).raises(
        TokenError
    )


@covers("dpop-nonce")
def test_another_error_with_a_nonce_is_not_retried(prover: Prover) -> None:
    refused: dict[str, object] = {"error": "invalid_grant"}
    script_code_exchange(prover).expects(TOKEN_REQUEST).responds(400, refused, {"dpop-nonce": "n"}).raises(
        TokenError
    )


@covers("dpop-nonce")
def test_each_server_has_its_own_nonce(prover: Prover) -> None:
    assert prover.remember_nonce("https://as.example/token", "of-as")
    assert not prover.remember_nonce("https://as.example/other", "of-as"), (
        "the other path has the same origin"
    )
    assert prover.remember_nonce("https://mcp.example/mcp", "of-mcp")
    assert read_proof(prover.create_proof("POST", "https://as.example/x"))["nonce"] == "of-as"
    assert read_proof(prover.create_proof("POST", "https://mcp.example/x"))["nonce"] == "of-mcp"
    assert "nonce" not in read_proof(prover.create_proof("POST", "https://else.example/x"))


@covers("dpop-proof")
def test_a_proof_for_a_protected_resource_has_the_token_hash_and_no_query(prover: Prover) -> None:
    claims = read_proof(prover.create_proof("GET", "https://mcp.example/mcp?project=1#x", "t0ken"))
    assert claims["htu"] == "https://mcp.example/mcp"
    assert claims["ath"] == base64url_encode(hashlib.sha256(b"t0ken").digest())


@covers("dpop-proof")
def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    # The example of RFC 9449 section 6.1 with its proof key of section 4.1.
    public = {
        "kty": "EC",
        "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
        "crv": "P-256",
    }
    assert jwk_thumbprint(public) == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


@covers("dpop-choice")
@pytest.mark.parametrize(
    ("metadata", "offered"),
    [
        ({"dpop_signing_alg_values_supported": ["RS256", "ES256"]}, True),
        ({"dpop_signing_alg_values_supported": ["RS256"]}, False),
        ({"dpop_signing_alg_values_supported": "ES256"}, False),
        ({}, False),
    ],
)
def test_dpop_is_supported_only_if_es256_is_listed(metadata: dict[str, object], *, offered: bool) -> None:
    assert supports_dpop(metadata) is offered


@covers("dpop-nonce")
def test_a_challenge_can_require_a_nonce() -> None:
    assert requires_nonce(['DPoP error="use_dpop_nonce", error_description="x"'])
    assert not requires_nonce(['DPoP error="invalid_token"'])
    assert not requires_nonce([])


@covers("no-crash")
@given(st.text())
def test_any_nonce_of_a_server_gives_a_safe_header(text: str) -> None:
    prover = load_prover(KEY, lambda: NOW, lambda _: "jti")
    assert prover.remember_nonce("https://as.example", text) is is_valid_nonce(text)
    proof = prover.create_proof("POST", "https://as.example/token")
    assert proof.isascii()
    assert proof.isprintable()


@covers("no-secret")
def test_no_repr_contains_the_private_key(prover: Prover) -> None:
    private = KEY.reveal().partition('"d": "')[2].partition('"')[0]
    assert len(private) == 43
    assert private not in f"{prover!r} {KEY!r} {vars(type(prover))}"
