"""Signing: its results verify, unusable keys and files are refused, and no error shows a key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hermes_mcp_auth_remote.errors import ConfigError, StoreCorrupt
from hermes_mcp_auth_remote.signing import load_client_signer, load_prover, new_proof_key, read_token_file
from hermes_mcp_auth_remote.values import Secret
from tests.requirements import covers

NOW = 1_800_000_000.0
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
KEYS: dict[str, PrivateKey] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "RS256": rsa.generate_private_key(65537, 2048),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def write_pem(path: Path, key: PrivateKey | ec.EllipticCurvePrivateKey, password: bytes | None = None) -> str:
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        protection = serialization.BestAvailableEncryption(password)
    encoding, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(encoding, kind, protection))
    return str(path)


@covers("client-credentials")
@pytest.mark.parametrize("algorithm", KEYS)
def test_a_client_assertion_follows_rfc_7523(tmp_path: Path, algorithm: str) -> None:
    key = KEYS[algorithm]
    sign = load_client_signer(write_pem(tmp_path / "key.pem", key), "kid-1", lambda: NOW, lambda _: "j")
    token = sign("client-1", "https://as.example").reveal()
    assert jwt.get_unverified_header(token) == {"alg": algorithm, "kid": "kid-1", "typ": "JWT"}
    claims = jwt.decode(
        token,
        key.public_key(),
        [algorithm],
        audience="https://as.example",
        options={"verify_exp": False, "verify_iat": False},
    )
    fixed_claims = {"iss": "client-1", "sub": "client-1", "aud": "https://as.example", "jti": "j"}
    assert claims == {**fixed_claims, "iat": int(NOW), "exp": int(NOW) + 120}


@covers("client-credentials", "no-secret")
@pytest.mark.parametrize(
    "kind", ["encrypted", "small", "other curve", "public", "garbage", "huge", "missing"]
)
def test_the_error_for_an_unusable_key_names_its_path(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "key.pem"
    if kind == "encrypted":
        write_pem(path, KEYS["ES256"], b"passw0rd")
    elif kind == "small":
        write_pem(path, rsa.generate_private_key(65537, 1024))
    elif kind == "other curve":
        write_pem(path, ec.generate_private_key(ec.SECP384R1()))
    elif kind == "public":
        shape = serialization.PublicFormat.SubjectPublicKeyInfo
        path.write_bytes(KEYS["ES256"].public_key().public_bytes(serialization.Encoding.PEM, shape))
    elif kind != "missing":
        path.write_bytes(b"s3cret" * (3 if kind == "garbage" else 20_000))
    with pytest.raises(ConfigError, match="private_key_file") as caught:
        load_client_signer(str(path), None, lambda: NOW, lambda _: "j")
    assert str(path) in str(caught.value)
    assert "s3cret" not in f"{caught.value} {caught.value.advice}"
    assert caught.value.__cause__ is None


@covers("jwt-bearer", "no-secret")
@pytest.mark.parametrize("content", [b"", b" \n", b"t0ken and more", b"t0ken\nt0ken", b"\xff", b"t" * 70_000])
def test_a_token_file_without_exactly_one_token_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "jwt").write_bytes(content)
    with pytest.raises(ConfigError, match="assertion_file") as caught:
        read_token_file(str(tmp_path / "jwt"), "assertion_file")
    assert "t0ken" not in str(caught.value)


@covers("jwt-bearer")
def test_a_token_file_is_read_at_each_use(tmp_path: Path) -> None:
    for text in ("first", "second"):
        (tmp_path / "jwt").write_text(f"{text}\n")
        assert read_token_file(str(tmp_path / "jwt"), "assertion_file") == Secret(text)


@covers("dpop-key", "no-secret")
@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"d": "AA"}', '{"d": 7}', "[" * 99_999, '{"d": "s3cret-é"}']
)
def test_an_invalid_proof_key_is_refused(text: str) -> None:
    with pytest.raises(StoreCorrupt) as caught:
        load_prover(Secret(text), lambda: NOW, lambda _: "j")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


@covers("dpop-key")
def test_every_new_proof_key_is_different() -> None:
    first, second = (load_prover(new_proof_key(), lambda: NOW, lambda _: "j") for _ in range(2))
    assert first.thumbprint != second.thumbprint


@covers("dpop-key")
def test_importing_the_service_does_not_import_cryptography() -> None:
    code = "import hermes_mcp_auth_remote.service, sys; print('cryptography' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
