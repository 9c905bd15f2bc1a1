"""DPoP: tokens bound to a key, and a proof of the key with each request. RFC 9449 §4, §5, §7, §8, §9."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

from hermes_mcp_auth_remote.errors import MalformedResponse
from hermes_mcp_auth_remote.oauth.challenge import read_challenge
from hermes_mcp_auth_remote.oauth.jws import SigningKey, base64url_encode, jwk_thumbprint, sign_jwt
from hermes_mcp_auth_remote.oauth.urls import origin_of
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response, read_json_or_form, string_member
from hermes_mcp_auth_remote.values import Clock, Entropy, Secret

# Every known server that lists algorithms lists ES256. `signing.new_proof_key` creates keys for it.
DPOP_ALGORITHM = "ES256"
USE_DPOP_NONCE = "use_dpop_nonce"
# RFC 9449 section 4.2: jti "at least 96 bits".
JTI_BYTES = 16
# Longer than any known nonce, and short enough for a header.
MAX_NONCE_CHARS = 1024


class Prover:
    """Creates the proofs of one key and remembers the nonce of each server.

    Threads may share a Prover: if another thread replaces a nonce, the request needs one more round trip.
    """

    __slots__ = ("_clock", "_entropy", "_key", "_nonces")

    def __init__(self, key: SigningKey, clock: Clock, entropy: Entropy) -> None:
        self._key = key
        self._clock = clock
        self._entropy = entropy
        self._nonces: dict[str, str] = {}

    @property
    def thumbprint(self) -> str:
        """The thumbprint of the key, to which a server binds its tokens (`cnf.jkt`, section 6)."""
        return jwk_thumbprint(self._key.public_jwk)

    def create_proof(self, method: str, url: str, access_token: str | None = None) -> str:
        """Create the value of the `DPoP` header for one request (section 4.2). Each proof is unique.

        Pass the `access_token` of a request to a protected resource (`ath`, section 7).
        """
        claims: dict[str, object] = {
            "jti": self._entropy(JTI_BYTES),
            "htm": method,
            "htu": without_query(url),
            "iat": int(self._clock()),
        }
        if access_token is not None:
            claims["ath"] = base64url_encode(hashlib.sha256(access_token.encode("ascii")).digest())
        nonce = self._nonces.get(origin_of(url))
        if nonce is not None:
            claims["nonce"] = nonce
        return sign_jwt(self._key, {"typ": "dpop+jwt", "jwk": dict(self._key.public_jwk)}, claims)

    def remember_nonce(self, url: str, nonce: str | None) -> bool:
        """Remember the value of a `DPoP-Nonce` header; True if it differs from the remembered nonce."""
        if nonce is None or not is_valid_nonce(nonce):
            return False
        origin = origin_of(url)
        if self._nonces.get(origin) == nonce:
            return False
        self._nonces[origin] = nonce
        return True


def is_valid_nonce(text: str) -> bool:
    """True if a nonce has the syntax of section 8.1: visible ASCII without quotes and backslashes."""
    return 0 < len(text) <= MAX_NONCE_CHARS and all("!" <= c <= "~" and c not in '"\\' for c in text)


def without_query(url: str) -> str:
    """Return the `htu` of a URL: "without query and fragment parts" (section 4.2)."""
    return urlunsplit(urlsplit(url)._replace(query="", fragment=""))


def requires_nonce(www_authenticate: Iterable[str]) -> bool:
    """True if a protected resource refused a proof only because of its nonce (section 9)."""
    return read_challenge(www_authenticate).error == USE_DPOP_NONCE


def send_with_proof(request: Request, prover: Prover | None) -> Exchange[Response]:
    """Send a request with a proof; send it again if the authorization server requires a nonce (section 8).

    Without a prover, send the request unchanged.
    """
    if prover is None:
        return (yield request)
    response = yield _with_proof(request, prover)
    # Any response may bring the nonce for the next request (section 8.2).
    is_new = prover.remember_nonce(request.url, response.header("dpop-nonce"))
    if is_new and _requires_nonce(response):
        response = yield _with_proof(request, prover)
        prover.remember_nonce(request.url, response.header("dpop-nonce"))
    return response


def _with_proof(request: Request, prover: Prover) -> Request:
    proof = Secret(prover.create_proof(request.method, request.url))
    return replace(request, headers=(*request.headers, ("dpop", proof)))


def _requires_nonce(response: Response) -> bool:
    if response.status not in {400, 401}:
        return False
    try:
        return string_member(read_json_or_form(response, "response to a proof"), "error") == USE_DPOP_NONCE
    except MalformedResponse:
        return False


def supports_dpop(metadata: Mapping[str, object]) -> bool:
    """True if metadata lists ES256 in `dpop_signing_alg_values_supported` (section 5.1)."""
    algorithms = metadata.get("dpop_signing_alg_values_supported")
    return isinstance(algorithms, list) and DPOP_ALGORITHM in algorithms
