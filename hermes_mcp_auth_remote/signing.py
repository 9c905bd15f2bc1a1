"""Create, read and use signing keys with `cryptography`, which is imported only when a key is needed.

This package creates ES256 keys for DPoP (RFC 9449), and uses the operator's private key for private_key_jwt
(RFC 7523 section 2.2).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hermes_mcp_auth_remote.errors import ConfigError, StoreCorrupt
from hermes_mcp_auth_remote.installation import install_command
from hermes_mcp_auth_remote.oauth.client import Signer
from hermes_mcp_auth_remote.oauth.dpop import DPOP_ALGORITHM, Prover
from hermes_mcp_auth_remote.oauth.jws import SigningKey, base64url_decode, base64url_encode, sign_jwt
from hermes_mcp_auth_remote.values import Clock, Entropy, Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

# RFC 7523 section 3. The client sends an assertion at once; the lifetime only covers clock differences.
ASSERTION_LIFETIME_SECONDS = 120
MIN_RSA_BITS = 2048  # RFC 7518 section 3.3
# The limit for a private key or a JWT; real ones are far shorter.
MAX_FILE_BYTES = 65_536
_COORDINATE_BYTES = 32  # P-256
_JTI_BYTES = 16


@cache
def can_sign() -> bool:
    """True if `cryptography` is installed. Only features that need a key require it."""
    return find_spec("cryptography") is not None


def new_proof_key() -> Secret:
    """Create a P-256 key for DPoP and return it as the text of a private JWK (RFC 7518 section 6.2).

    Raises ConfigError if `cryptography` is not installed.
    """
    check_can_sign("Proofs (DPoP)")
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_numbers().private_value.to_bytes(_COORDINATE_BYTES, "big")
    return Secret(json.dumps({**_public_jwk(key), "d": base64url_encode(private)}))


def load_prover(proof_key: Secret, clock: Clock, entropy: Entropy) -> Prover:
    """Return the prover of a key that `new_proof_key` created.

    Raises StoreCorrupt for any other text, and ConfigError if `cryptography` is not installed.
    """
    check_can_sign("Proofs (DPoP)")
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    try:
        document: object = json.loads(proof_key.reveal())
        members = cast("dict[str, str]", document) if isinstance(document, dict) else {}
        private = base64url_decode(str(members["d"]))
        key = ec.derive_private_key(int.from_bytes(private, "big"), ec.SECP256R1())
    except (ValueError, KeyError, RecursionError):
        # `from None`: the cause may quote the key.
        raise StoreCorrupt("The stored proof key is invalid.", "Log in again.") from None
    return Prover(SigningKey(DPOP_ALGORITHM, _public_jwk(key), _es256_signer(key)), clock, entropy)


def load_client_signer(path: str, key_id: str | None, clock: Clock, entropy: Entropy) -> Signer:
    """Return a signer of client assertions with the operator's private key (RFC 7523 sections 2.2 and 3).

    The file is unencrypted PEM: P-256 (ES256), RSA of at least 2048 bits (RS256) or Ed25519 (EdDSA). This
    function reads the file. It raises ConfigError, which names the file and never its content.
    """
    key = _load_private_key(path, key_id)

    def sign(client_id: str, audience: str) -> Secret:
        now = int(clock())
        claims: dict[str, object] = {
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "iat": now,
            "exp": now + ASSERTION_LIFETIME_SECONDS,
            "jti": entropy(_JTI_BYTES),
        }
        return Secret(sign_jwt(key, {"typ": "JWT"}, claims))

    return sign


def read_token_file(path: str, option_name: str) -> Secret:
    """Read a token from a file that another program keeps current.

    `option_name` is the option under `oauth` in config.yaml that names the file. Raises ConfigError, which
    names the file and never its content.
    """
    text = _read_file(path, option_name).strip()
    if not text or not text.isascii() or not text.decode("ascii", "replace").isprintable() or b" " in text:
        raise ConfigError(f"{path} (`oauth.{option_name}`) does not hold one token and nothing else.")
    return Secret(text.decode("ascii"))


def _load_private_key(path: str, key_id: str | None) -> SigningKey:
    check_can_sign("`oauth.private_key_file`")
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415

    data = _read_file(path, "private_key_file")
    unsupported_key = ConfigError(
        f"{path} (`oauth.private_key_file`) holds no supported private key.",
        "Use an unencrypted PEM file with a P-256, RSA (2048 bits or more) or Ed25519 key.",
    )
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise unsupported_key from None
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return SigningKey("ES256", _public_jwk(key), _es256_signer(key), key_id)
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= MIN_RSA_BITS:
        return SigningKey("RS256", {"kty": "RSA"}, _rs256_signer(key), key_id)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return SigningKey("EdDSA", {"kty": "OKP", "crv": "Ed25519"}, key.sign, key_id)
    raise unsupported_key


def _public_jwk(key: EllipticCurvePrivateKey) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    x, y = (base64url_encode(n.to_bytes(_COORDINATE_BYTES, "big")) for n in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


def _es256_signer(key: EllipticCurvePrivateKey) -> Callable[[bytes], bytes]:
    from cryptography.hazmat.primitives.asymmetric import ec, utils  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    algorithm = ec.ECDSA(SHA256())

    def sign(data: bytes) -> bytes:
        # RFC 7518 section 3.4: JWS wants R || S, `cryptography` returns DER.
        r, s = utils.decode_dss_signature(key.sign(data, algorithm))
        return r.to_bytes(_COORDINATE_BYTES, "big") + s.to_bytes(_COORDINATE_BYTES, "big")

    return sign


def _rs256_signer(key: RSAPrivateKey) -> Callable[[bytes], bytes]:
    from cryptography.hazmat.primitives.asymmetric import padding  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    return lambda data: key.sign(data, padding.PKCS1v15(), SHA256())


def _read_file(path: str, option_name: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path} (`oauth.{option_name}`) cannot be read: {error.strerror}.",
            "Check the path and its permissions.",
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} (`oauth.{option_name}`) is larger than 64 KiB.")
    return data


def check_can_sign(feature: str) -> None:
    """Raise ConfigError if `cryptography` is not installed. `feature` (a plural) names what needs it."""
    if not can_sign():
        raise ConfigError(
            f"{feature} need the package `cryptography`, which is not installed.",
            f"Run `{install_command('cryptography')}`.",
        )
