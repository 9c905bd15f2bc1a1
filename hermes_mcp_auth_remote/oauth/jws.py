"""Sign JWTs with a key that the caller passes, and read their claims. RFC 7515, 7519, 7638."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

from hermes_mcp_auth_remote.oauth.wire import Document

# RFC 7638 section 3.2: the members of a public JWK that the thumbprint covers, by key type.
_THUMBPRINT_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A signing key: its algorithm (RFC 7518 section 3.1), its public JWK and its sign function.

    `sign` takes the signing input and returns the signature in JWS format. `key_id` is the header's `kid`.
    """

    algorithm: str
    public_jwk: Mapping[str, str]
    sign: Callable[[bytes], bytes] = field(repr=False)
    key_id: str | None = None


def sign_jwt(key: SigningKey, header: Mapping[str, object], claims: Mapping[str, object]) -> str:
    """Sign claims as a compact JWS (RFC 7515 section 7.1); `alg` and `kid` come from the key."""
    full_header: dict[str, object] = {**header, "alg": key.algorithm}
    if key.key_id is not None:
        full_header["kid"] = key.key_id
    signing_input = f"{_encode_part(full_header)}.{_encode_part(claims)}"
    return f"{signing_input}.{base64url_encode(key.sign(signing_input.encode('ascii')))}"


def jwk_thumbprint(public_jwk: Mapping[str, str]) -> str:
    """Return the SHA-256 thumbprint of a public JWK (RFC 7638 section 3)."""
    required = {name: public_jwk[name] for name in _THUMBPRINT_MEMBERS[public_jwk["kty"]]}
    canonical = json.dumps(required, sort_keys=True, separators=(",", ":"))
    return base64url_encode(hashlib.sha256(canonical.encode()).digest())


def base64url_encode(data: bytes) -> str:
    """Encode bytes as base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def base64url_decode(text: str) -> bytes:
    """Decode base64url with or without padding (RFC 7515 section 2); raises ValueError."""
    return base64.urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))


def read_unverified_claims(jwt: str) -> Document | None:
    """Return a JWT's claims without checking its signature; None if it is not a signed JWT."""
    try:
        _, payload, _ = jwt.split(".")
        claims: object = json.loads(base64url_decode(payload))
    except (ValueError, RecursionError):
        return None
    return cast("Document", claims) if isinstance(claims, Mapping) else None


def _encode_part(members: Mapping[str, object]) -> str:
    return base64url_encode(json.dumps(members, separators=(",", ":")).encode())
