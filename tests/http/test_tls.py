from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import run
from typing import Any

import pexpect
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError, TimedOut, Unreachable
from hermes_mcp_auth_remote.http.tls import tls_context
from hermes_mcp_auth_remote.oauth.wire import get_json
from hermes_mcp_auth_remote.values import ServerOptions
from tests.http.peers import (
    encode_response,
    fetch,
    make_sequence_resolver,
    make_server,
    respond_with,
    run_http_server,
    run_raw_server,
)
from tests.requirements import covers


class CertificateIssuer:
    """A certificate authority with its CA file. It issues certificates for servers and clients."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.authority = trustme.CA()
        self.folder = folder
        self.ca_file = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))

    def server_context(self, *names: str, expired: bool = False, ask_client: bool = False) -> ssl.SSLContext:
        past = datetime.now(UTC) - timedelta(days=1)
        issued = self.authority.issue_cert(*names, not_after=past if expired else None)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        if ask_client:
            context.verify_mode = ssl.CERT_REQUIRED
            self.authority.configure_trust(context)
        return context

    def issue_client_certificate(self, password: bytes | None = None) -> tuple[str, str]:
        """Issue a client certificate. Return the paths of the certificate and of its key."""
        issued = self.authority.issue_cert("agent@example.com")
        certificate, key = self.folder / "client.pem", self.folder / "client.key"
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        private = issued.private_key_pem.bytes()
        if password is not None:
            loaded = load_pem_private_key(private, None)
            encryption = BestAvailableEncryption(password)
            private = loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        key.write_bytes(private)
        return str(certificate), str(key)


@pytest.fixture
def issuer(tmp_path: Path) -> CertificateIssuer:
    return CertificateIssuer(tmp_path / "authority")


def fetch_over_tls(
    tls: ssl.SSLContext | None,
    *,
    host: str = "mcp.example",
    own: bool = True,
    environ: Mapping[str, str] | None = None,
    **options: Any,
) -> tuple[int, int]:
    """Fetch from a server over TLS. Return the status and the number of requests that it received."""

    async def main() -> tuple[int, int]:
        async with run_http_server(respond_with(encode_response()), tls=tls) as peer:
            url = peer.url("/mcp", host, "https")
            server = make_server(url if own else "https://elsewhere.example/mcp", **options)
            resolve = make_sequence_resolver("127.0.0.1")
            response = await fetch(server, get_json(url, "step"), resolve=resolve, environ=environ or {})
            return response[0].status, len(peer.requests)

    return asyncio.run(main())


def tls_error(tls: ssl.SSLContext | None, **options: Any) -> McpAuthError:
    with pytest.raises(Unreachable) as caught:
        fetch_over_tls(tls, **options)
    return caught.value


def test_the_error_names_an_unknown_authority(issuer: CertificateIssuer) -> None:
    error = tls_error(issuer.server_context("mcp.example"))
    assert str(error) == "The TLS certificate of mcp.example is from an unknown authority."
    assert "SSL_CERT_FILE" in error.advice


def test_the_error_names_an_expired_certificate(issuer: CertificateIssuer) -> None:
    error = tls_error(issuer.server_context("mcp.example", expired=True), ca_file=str(issuer.ca_file))
    assert str(error) == "The TLS certificate of mcp.example has expired, or is not valid yet."
    assert "clock" in error.advice


@pytest.mark.parametrize("host", ["auth.example", "127.0.0.1"])
def test_the_error_names_a_certificate_for_another_host(issuer: CertificateIssuer, host: str) -> None:
    error = tls_error(issuer.server_context("mcp.example"), host=host, ca_file=str(issuer.ca_file))
    assert str(error) == f"The TLS certificate of {host} is for another name."


def test_plain_http_on_the_port_is_a_handshake_error() -> None:
    async def main() -> None:
        async with run_raw_server(encode_response(400)) as peer:
            url = peer.url("/mcp", "mcp.example", "https")
            await fetch(make_server(url), resolve=make_sequence_resolver("127.0.0.1"))

    with pytest.raises(
        Unreachable, match=r"The TLS handshake with mcp\.example failed during the step"
    ) as caught:
        asyncio.run(main())
    assert "port" in caught.value.advice


def test_tls_older_than_1_2_is_refused(issuer: CertificateIssuer) -> None:
    tls = issuer.server_context("mcp.example")
    tls.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_1
    assert "The TLS handshake with" in str(tls_error(tls, ca_file=str(issuer.ca_file)))


@covers("authorities")
@pytest.mark.parametrize("own", [True, False])
def test_the_operators_authorities_are_trusted_for_every_host(
    issuer: CertificateIssuer, *, own: bool
) -> None:
    tls = issuer.server_context("mcp.example")
    hashed = issuer.folder / "hashed"
    hashed.mkdir()
    (hashed / f"{_openssl_hash(issuer.ca_file)}.0").write_bytes(issuer.ca_file.read_bytes())
    assert fetch_over_tls(tls, own=own, ca_file=str(issuer.ca_file)) == (200, 1)
    assert fetch_over_tls(tls, own=own, environ={"SSL_CERT_FILE": str(issuer.ca_file)}) == (200, 1)
    assert fetch_over_tls(tls, own=own, environ={"SSL_CERT_DIR": str(hashed)}) == (200, 1)
    several = f"/nowhere/at/all:{hashed}"
    assert fetch_over_tls(tls, own=own, environ={"SSL_CERT_DIR": several}) == (200, 1)


def _openssl_hash(ca_file: Path) -> str:
    """Return the file name that OpenSSL looks for in a directory."""
    command = ["openssl", "x509", "-hash", "-noout", "-in", str(ca_file)]
    return run(command, check=True, capture_output=True, text=True).stdout.strip()


@covers("authorities")
def test_ca_file_replaces_authorities_for_the_server_and_extends_them_elsewhere(tmp_path: Path) -> None:
    server_issuer, default_issuer = (
        CertificateIssuer(tmp_path / "mine"),
        CertificateIssuer(tmp_path / "usual"),
    )
    options: dict[str, Any] = {
        "ca_file": str(server_issuer.ca_file),
        "environ": {"SSL_CERT_FILE": str(default_issuer.ca_file)},
    }
    assert fetch_over_tls(
        default_issuer.server_context("auth.example"), host="auth.example", own=False, **options
    ) == (200, 1)
    assert fetch_over_tls(
        server_issuer.server_context("auth.example"), host="auth.example", own=False, **options
    ) == (200, 1)
    assert "unknown authority" in str(tls_error(default_issuer.server_context("mcp.example"), **options))


@covers("authorities")
def test_ssl_verify_false_applies_to_the_server_host_only(issuer: CertificateIssuer) -> None:
    tls = issuer.server_context("other.example", expired=True)
    assert fetch_over_tls(tls, verify_tls=False) == (200, 1)
    assert "certificate of auth.example" in str(
        tls_error(tls, host="auth.example", own=False, verify_tls=False)
    )


@covers("own-headers")
def test_a_client_certificate_is_sent_to_the_server_host_only(issuer: CertificateIssuer) -> None:
    certificate, key = issuer.issue_client_certificate()
    tls = issuer.server_context("mcp.example", ask_client=True)
    options: dict[str, Any] = {"client_cert": certificate, "client_key": key, "ca_file": str(issuer.ca_file)}
    assert fetch_over_tls(tls, **options) == (200, 1)
    # The client reads an alert or a reset: it depends on which of the two arrives first.
    assert "mcp.example" in str(tls_error(tls, own=False, **options))


@pytest.mark.parametrize("broken", ["missing", "empty", "garbage", "folder", "encrypted", "other key"])
def test_an_unusable_client_certificate_is_a_config_error(issuer: CertificateIssuer, broken: str) -> None:
    certificate, key = issuer.issue_client_certificate(b"a-password" if broken == "encrypted" else None)
    if broken == "missing":
        Path(key).unlink()
    elif broken in {"empty", "garbage"}:
        Path(key).write_bytes(b"" if broken == "empty" else os.urandom(300))
    elif broken == "folder":
        key = str(issuer.folder)
    elif broken == "other key":
        Path(key).write_bytes(issuer.authority.issue_cert("x.example").private_key_pem.bytes())
    options = ServerOptions(client_cert=certificate, client_key=key)
    with pytest.raises(ConfigError, match="certificate file"):
        tls_context(options, {}, is_server_host=True)
    assert tls_context(options, {}, is_server_host=False).verify_mode == ssl.CERT_REQUIRED


def test_an_encrypted_client_key_does_not_prompt_for_a_password(issuer: CertificateIssuer) -> None:
    certificate, key = issuer.issue_client_certificate(b"a-password")
    program = (
        "import sys; from hermes_mcp_auth_remote.http.tls import tls_context as c; "
        "from hermes_mcp_auth_remote.values import ServerOptions as O; "
        "c(O(client_cert=sys.argv[1], client_key=sys.argv[2]), {}, is_server_host=True)"
    )
    child = pexpect.spawn(sys.executable, ["-c", program, certificate, key], timeout=30)
    assert child.expect(["pass phrase", "must not be encrypted|ConfigError"]) == 1
    child.close()


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
@pytest.mark.parametrize("variable", ["ca_file", "SSL_CERT_FILE"])
def test_an_unusable_ca_file_is_a_config_error(tmp_path: Path, content: bytes | None, variable: str) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    is_option = variable == "ca_file"
    with pytest.raises(ConfigError) as caught:
        fetch_over_tls(
            None, ca_file=str(file) if is_option else None, environ={} if is_option else {variable: str(file)}
        )
    setting = "ssl_verify" if is_option else variable
    assert str(caught.value) == f"The certificate file {file} (`{setting}`) cannot be used."
    assert f"`{setting}`" in caught.value.advice


def test_a_changed_ca_file_is_read_without_a_restart(tmp_path: Path) -> None:
    old, new = CertificateIssuer(tmp_path / "old"), CertificateIssuer(tmp_path / "new")
    file = tmp_path / "current.pem"
    file.write_bytes(old.ca_file.read_bytes())
    os.utime(file, (1, 1))
    assert fetch_over_tls(old.server_context("mcp.example"), ca_file=str(file)) == (200, 1)
    file.write_bytes(new.ca_file.read_bytes())
    assert fetch_over_tls(new.server_context("mcp.example"), ca_file=str(file)) == (200, 1)


def test_tls_contexts_are_shared_until_the_options_change(issuer: CertificateIssuer) -> None:
    options = ServerOptions(ca_file=str(issuer.ca_file))
    first = tls_context(options, {}, is_server_host=True)
    assert tls_context(options, {}, is_server_host=True) is first
    assert tls_context(options, {}, is_server_host=False) is not first
    unverified = tls_context(ServerOptions(verify_tls=False), {}, is_server_host=True)
    assert unverified.verify_mode == ssl.CERT_NONE
    assert (
        tls_context(ServerOptions(verify_tls=False), {}, is_server_host=False).verify_mode
        == ssl.CERT_REQUIRED
    )


def test_an_endless_handshake_times_out_and_closes_its_connection() -> None:
    async def main() -> None:
        async with run_raw_server() as peer:
            server = make_server(peer.url("/mcp", "mcp.example", "https"))
            with pytest.raises(TimedOut):
                await fetch(server, resolve=make_sequence_resolver("127.0.0.1"), response_seconds=0.2)
            await asyncio.wait_for(peer.disconnected.wait(), 20)

    asyncio.run(main())


def test_a_cancelled_handshake_closes_its_connection() -> None:
    async def main() -> None:
        async with run_raw_server() as peer:
            server = make_server(peer.url("/mcp", "mcp.example", "https"))
            fetching = asyncio.create_task(fetch(server, resolve=make_sequence_resolver("127.0.0.1")))
            await peer.connected.wait()
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            await asyncio.wait_for(peer.disconnected.wait(), 20)

    asyncio.run(main())
