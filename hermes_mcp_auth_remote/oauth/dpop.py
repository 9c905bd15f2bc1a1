"""Tokens good only in our hands: with every request a proof of the key. RFC 9449 §4, §5, §7, §8, §9."""

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

# The one that every server which lists any is known to list, and the one that we make keys for.
DPOP_ALGORITHM = "ES256"
USE_DPOP_NONCE = "use_dpop_nonce"
# RFC 9449 section 4.2: jti "at least 96 bits".
JTI_BYTES = 16
# Longer than any nonce in the field, and short enough for a header.
MAX_NONCE_CHARS = 1024


class Prover:
    """Makes the proofs of one key, and remembers the nonce that each server wants in them.

    Any thread may use it: a nonce that is replaced meanwhile costs one more round trip, nothing else.
    """

    __slots__ = ("_clock", "_entropy", "_key", "_nonces")

    def __init__(self, key: SigningKey, clock: Clock, entropy: Entropy) -> None:
        self._key = key
        self._clock = clock
        self._entropy = entropy
        self._nonces: dict[str, str] = {}

    @property
    def thumbprint(self) -> str:
        """The key's thumbprint, which a server binds its tokens to (`cnf.jkt`, section 6)."""
        return jwk_thumbprint(self._key.public_jwk)

    def create_proof(self, method: str, url: str, access_token: str | None = None) -> str:
        """Make the `DPoP` header's value for one request (section 4.2); no two are alike.

        `access_token` is the one that goes with a request to a protected resource (`ath`, section 7).
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
        """Remember a `DPoP-Nonce` header's value; True where a request to there would now look different."""
        if nonce is None or not is_valid_nonce(nonce):
            return False
        origin = origin_of(url)
        if self._nonces.get(origin) == nonce:
            return False
        self._nonces[origin] = nonce
        return True


def is_valid_nonce(text: str) -> bool:
    """True for what section 8.1 lets a nonce be: visible ASCII without quotes and backslashes."""
    return 0 < len(text) <= MAX_NONCE_CHARS and all("!" <= c <= "~" and c not in '"\\' for c in text)


def without_query(url: str) -> str:
    """Return the `htu` of a URL: "without query and fragment parts" (section 4.2)."""
    return urlunsplit(urlsplit(url)._replace(query="", fragment=""))


def requires_nonce(www_authenticate: Iterable[str]) -> bool:
    """True where a protected resource refused a proof for its nonce alone (section 9)."""
    return read_challenge(www_authenticate).error == USE_DPOP_NONCE


def send_with_proof(request: Request, prover: Prover | None) -> Exchange[Response]:
    """Send a request to the authorization server with a proof, again where it names a nonce (section 8)."""
    if prover is None:
        return (yield request)
    response = yield _with_proof(request, prover)
    # A nonce for the next time may come with any answer (section 8.2).
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
        return string_member(read_json_or_form(response, "answer to a proof"), "error") == USE_DPOP_NONCE
    except MalformedResponse:
        return False


def supports_dpop(metadata: Mapping[str, object]) -> bool:
    """True where metadata lists our algorithm in `dpop_signing_alg_values_supported` (section 5.1)."""
    listed = metadata.get("dpop_signing_alg_values_supported")
    return isinstance(listed, list) and DPOP_ALGORITHM in listed
