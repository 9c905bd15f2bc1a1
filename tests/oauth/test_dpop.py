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
from tests.oauth.parties import CODE, GRANTED, NOW, OLD, REDIRECT_URI, STATE, TOKEN, client, request, server
from tests.playbook import Play, headers_of, play
from tests.requirements import covers

KEY = new_proof_key()
NONCE_WANTED: dict[str, object] = {"error": "use_dpop_nonce"}
BOUND: dict[str, object] = {**GRANTED, "token_type": "DPoP"}


@pytest.fixture
def proving() -> Prover:
    numbers = itertools.count()
    return load_prover(KEY, lambda: NOW, lambda size: f"jti-{next(numbers)}-of-{size}")


def proofs(script: Play[Tokens]) -> list[dict[str, Any]]:
    """Return the claims of the sent proofs; verify each with its embedded key, as a server does."""
    return [read_proof(headers_of(each)["dpop"]) for each in script.requests]


def read_proof(proof: str) -> dict[str, Any]:
    header = jwt.get_unverified_header(proof)
    assert header["typ"] == "dpop+jwt"
    assert header["jwk"].keys() == {"kty", "crv", "x", "y"}, "the private key must not leave this process"
    key = jwt.PyJWK.from_dict({**header["jwk"], "alg": "ES256"})
    claims: dict[str, Any] = jwt.decode(proof, key, ["ES256"], options={"verify_iat": False})
    return claims


def exchanging(proving: Prover | None) -> Play[Tokens]:
    response = read_authorization_response(f"{REDIRECT_URI}?code={CODE}&state={STATE}", request())
    return play(exchange_code(response, request(), NOW, prover=proving))


@covers("dpop-proof")
def test_a_token_request_carries_a_proof_for_its_method_and_url(proving: Prover) -> None:
    script = exchanging(proving).expects(TOKEN).answers(200, BOUND)
    tokens = script.returns()
    assert tokens.authorization_header == "DPoP fresh-access"
    (claims,) = proofs(script)
    assert claims == {"jti": "jti-0-of-16", "htm": "POST", "htu": TOKEN[5:], "iat": int(NOW)}


@covers("dpop-proof")
def test_a_refresh_carries_a_proof_as_well(proving: Prover) -> None:
    script = (
        play(refresh_tokens(server(), client(), OLD, NOW, prover=proving)).expects(TOKEN).answers(200, BOUND)
    )
    assert script.returns().scheme == "DPoP"
    assert len(proofs(script)) == 1


@covers("dpop-proof")
def test_a_server_that_binds_nothing_grants_a_bearer_token(proving: Prover) -> None:
    assert exchanging(proving).expects(TOKEN).answers(200, GRANTED).returns().scheme == "Bearer"


@covers("dpop-proof")
def test_a_dpop_token_is_of_no_use_to_whoever_sent_no_proof() -> None:
    script = exchanging(None).expects(TOKEN, headers={"dpop": None}).answers(200, BOUND)
    script.raises(MalformedResponse, "not a Bearer token")


@covers("dpop-nonce")
@pytest.mark.parametrize("status", [400, 401])
def test_the_nonce_of_an_authorization_server_is_taken_up_once(proving: Prover, status: int) -> None:
    script = exchanging(proving).expects(TOKEN).answers(status, NONCE_WANTED, {"dpop-nonce": "n-1"})
    script.expects(TOKEN, form={"code": CODE}).answers(200, BOUND, {"dpop-nonce": "n-2"}).returns()
    first, second = proofs(script)
    assert "nonce" not in first
    assert second["nonce"] == "n-1"
    assert first["jti"] != second["jti"]
    # The nonce in the successful response is for the next request.
    assert read_proof(proving.create_proof("POST", TOKEN[5:]))["nonce"] == "n-2"


@covers("dpop-nonce")
def test_a_server_that_is_never_content_is_not_asked_for_ever(proving: Prover) -> None:
    script = exchanging(proving).expects(TOKEN).answers(400, NONCE_WANTED, {"dpop-nonce": "n-1"})
    script = script.expects(TOKEN).answers(400, NONCE_WANTED, {"dpop-nonce": "n-2"})
    assert script.raises(TokenError).error == "use_dpop_nonce"


@covers("dpop-nonce")
@pytest.mark.parametrize(
    "headers", [{}, {"dpop-nonce": ""}, {"dpop-nonce": "two words"}, {"dpop-nonce": "é"}]
)
def test_without_a_usable_nonce_there_is_nothing_to_try_again(
    proving: Prover, headers: dict[str, str]
) -> None:
    exchanging(proving).expects(TOKEN).answers(400, NONCE_WANTED, headers).raises(TokenError)


@covers("dpop-nonce")
def test_an_error_of_another_kind_is_not_tried_again_for_the_sake_of_a_nonce(proving: Prover) -> None:
    refused: dict[str, object] = {"error": "invalid_grant"}
    exchanging(proving).expects(TOKEN).answers(400, refused, {"dpop-nonce": "n"}).raises(TokenError)


@covers("dpop-nonce")
def test_each_server_has_its_own_nonce(proving: Prover) -> None:
    assert proving.remember_nonce("https://as.example/token", "of-as")
    assert not proving.remember_nonce("https://as.example/other", "of-as"), (
        "the other path has the same origin"
    )
    assert proving.remember_nonce("https://mcp.example/mcp", "of-mcp")
    assert read_proof(proving.create_proof("POST", "https://as.example/x"))["nonce"] == "of-as"
    assert read_proof(proving.create_proof("POST", "https://mcp.example/x"))["nonce"] == "of-mcp"
    assert "nonce" not in read_proof(proving.create_proof("POST", "https://else.example/x"))


@covers("dpop-proof")
def test_a_proof_for_a_protected_resource_names_the_token_and_no_query(proving: Prover) -> None:
    claims = read_proof(proving.create_proof("GET", "https://mcp.example/mcp?project=1#x", "t0ken"))
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
def test_proofs_are_offered_where_our_algorithm_is_listed(
    metadata: dict[str, object], *, offered: bool
) -> None:
    assert supports_dpop(metadata) is offered


@covers("dpop-nonce")
def test_a_protected_resource_says_that_it_wants_a_nonce() -> None:
    assert requires_nonce(['DPoP error="use_dpop_nonce", error_description="x"'])
    assert not requires_nonce(['DPoP error="invalid_token"'])
    assert not requires_nonce([])


@covers("no-crash")
@given(st.text())
def test_whatever_a_server_sends_as_a_nonce_is_safe_in_a_header(text: str) -> None:
    proving = load_prover(KEY, lambda: NOW, lambda _: "jti")
    assert proving.remember_nonce("https://as.example", text) is is_valid_nonce(text)
    proof = proving.create_proof("POST", "https://as.example/token")
    assert proof.isascii()
    assert proof.isprintable()


@covers("no-secret")
def test_neither_key_nor_prover_shows_the_private_half(proving: Prover) -> None:
    private = KEY.reveal().partition('"d": "')[2].partition('"')[0]
    assert len(private) == 43
    assert private not in f"{proving!r} {KEY!r} {vars(type(proving))}"
