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
from tests.http.peers import always, configured, fetch, leading, listening, reply, serving
from tests.requirements import covers


class Issuer:
    """A certificate authority with its CA file. It issues certificates for servers and clients."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.authority = trustme.CA()
        self.folder = folder
        self.ca_file = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))

    def server(self, *names: str, expired: bool = False, ask_client: bool = False) -> ssl.SSLContext:
        past = datetime.now(UTC) - timedelta(days=1)
        issued = self.authority.issue_cert(*names, not_after=past if expired else None)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        if ask_client:
            context.verify_mode = ssl.CERT_REQUIRED
            self.authority.configure_trust(context)
        return context

    def client(self, password: bytes | None = None) -> tuple[str, str]:
        """Issue a client certificate. Return the paths of the certificate and of its key."""
        issued = self.authority.issue_cert("agent@example.com")
        certificate, key = self.folder / "client.pem", self.folder / "client.key"
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        private = issued.private_key_pem.bytes()
        if password is not None:
            loaded = load_pem_private_key(private, None)
            locked = BestAvailableEncryption(password)
            private = loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)
        key.write_bytes(private)
        return str(certificate), str(key)


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "authority")


def reached(
    tls: ssl.SSLContext | None,
    *,
    host: str = "mcp.example",
    own: bool = True,
    environ: Mapping[str, str] | None = None,
    **options: Any,
) -> tuple[int, int]:
    """Fetch from a server over TLS. Return the status and the number of requests that it received."""

    async def main() -> tuple[int, int]:
        async with serving(always(reply()), tls=tls) as peer:
            url = peer.url("/mcp", host, "https")
            server = configured(url if own else "https://elsewhere.example/mcp", **options)
            resolve = leading("127.0.0.1")
            response = await fetch(server, get_json(url, "step"), resolve=resolve, environ=environ or {})
            return response[0].status, len(peer.heard)

    return asyncio.run(main())


def trouble(tls: ssl.SSLContext | None, **given: Any) -> McpAuthError:
    with pytest.raises(Unreachable) as caught:
        reached(tls, **given)
    return caught.value


def test_an_unknown_authority_is_named_as_such(issuer: Issuer) -> None:
    error = trouble(issuer.server("mcp.example"))
    assert str(error) == "The TLS certificate of mcp.example is from an unknown authority."
    assert "SSL_CERT_FILE" in error.advice


def test_an_expired_certificate_is_named_as_such(issuer: Issuer) -> None:
    error = trouble(issuer.server("mcp.example", expired=True), ca_file=str(issuer.ca_file))
    assert str(error) == "The TLS certificate of mcp.example has expired, or is not valid yet."
    assert "clock" in error.advice


@pytest.mark.parametrize("host", ["auth.example", "127.0.0.1"])
def test_a_certificate_for_another_name_is_named_as_such(issuer: Issuer, host: str) -> None:
    error = trouble(issuer.server("mcp.example"), host=host, ca_file=str(issuer.ca_file))
    assert str(error) == f"The TLS certificate of {host} is for another name."


def test_plain_http_on_the_port_is_no_matter_of_certificates() -> None:
    async def main() -> None:
        async with listening(reply(400)) as peer:
            url = peer.url("/mcp", "mcp.example", "https")
            await fetch(configured(url), resolve=leading("127.0.0.1"))

    with pytest.raises(
        Unreachable, match=r"The TLS handshake with mcp\.example failed during the step"
    ) as caught:
        asyncio.run(main())
    assert "port" in caught.value.advice


def test_tls_older_than_1_2_is_refused(issuer: Issuer) -> None:
    tls = issuer.server("mcp.example")
    tls.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_1
    assert "The TLS handshake with" in str(trouble(tls, ca_file=str(issuer.ca_file)))


@covers("authorities")
@pytest.mark.parametrize("own", [True, False])
def test_the_operator_s_authorities_are_trusted_for_every_host(issuer: Issuer, *, own: bool) -> None:
    tls = issuer.server("mcp.example")
    hashed = issuer.folder / "hashed"
    hashed.mkdir()
    (hashed / f"{_openssl_hash(issuer.ca_file)}.0").write_bytes(issuer.ca_file.read_bytes())
    assert reached(tls, own=own, ca_file=str(issuer.ca_file)) == (200, 1)
    assert reached(tls, own=own, environ={"SSL_CERT_FILE": str(issuer.ca_file)}) == (200, 1)
    assert reached(tls, own=own, environ={"SSL_CERT_DIR": str(hashed)}) == (200, 1)
    several = f"/nowhere/at/all:{hashed}"
    assert reached(tls, own=own, environ={"SSL_CERT_DIR": several}) == (200, 1)


def _openssl_hash(ca_file: Path) -> str:
    """Return the file name that OpenSSL looks for in a directory."""
    asked = ["openssl", "x509", "-hash", "-noout", "-in", str(ca_file)]
    return run(asked, check=True, capture_output=True, text=True).stdout.strip()


@covers("authorities")
def test_ca_file_alone_counts_for_the_own_host_and_adds_to_the_usual_elsewhere(tmp_path: Path) -> None:
    mine, usual = Issuer(tmp_path / "mine"), Issuer(tmp_path / "usual")
    given: dict[str, Any] = {"ca_file": str(mine.ca_file), "environ": {"SSL_CERT_FILE": str(usual.ca_file)}}
    assert reached(usual.server("auth.example"), host="auth.example", own=False, **given) == (200, 1)
    assert reached(mine.server("auth.example"), host="auth.example", own=False, **given) == (200, 1)
    assert "unknown authority" in str(trouble(usual.server("mcp.example"), **given))


@covers("authorities")
def test_ssl_verify_false_counts_for_the_own_host_alone(issuer: Issuer) -> None:
    tls = issuer.server("other.example", expired=True)
    assert reached(tls, verify_tls=False) == (200, 1)
    assert "certificate of auth.example" in str(
        trouble(tls, host="auth.example", own=False, verify_tls=False)
    )


@covers("own-headers")
def test_a_client_certificate_is_shown_to_the_own_host_alone(issuer: Issuer) -> None:
    certificate, key = issuer.client()
    tls = issuer.server("mcp.example", ask_client=True)
    given: dict[str, Any] = {"client_cert": certificate, "client_key": key, "ca_file": str(issuer.ca_file)}
    assert reached(tls, **given) == (200, 1)
    # The client reads an alert or a reset, in either order.
    assert "mcp.example" in str(trouble(tls, own=False, **given))


@pytest.mark.parametrize("broken", ["missing", "empty", "garbage", "folder", "encrypted", "other key"])
def test_a_client_certificate_that_cannot_be_used_is_a_mistake_in_the_configuration(
    issuer: Issuer, broken: str
) -> None:
    certificate, key = issuer.client(b"a-password" if broken == "encrypted" else None)
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


def test_an_encrypted_client_key_asks_no_terminal_for_its_password(issuer: Issuer) -> None:
    certificate, key = issuer.client(b"a-password")
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
def test_an_authority_s_file_that_cannot_be_used_is_a_mistake_in_the_configuration(
    tmp_path: Path, content: bytes | None, variable: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    own = variable == "ca_file"
    with pytest.raises(ConfigError) as caught:
        reached(None, ca_file=str(file) if own else None, environ={} if own else {variable: str(file)})
    assert "SSL_CERT_FILE" in caught.value.advice


def test_a_renewed_certificate_is_seen_without_a_restart(tmp_path: Path) -> None:
    old, new = Issuer(tmp_path / "old"), Issuer(tmp_path / "new")
    file = tmp_path / "current.pem"
    file.write_bytes(old.ca_file.read_bytes())
    os.utime(file, (1, 1))
    assert reached(old.server("mcp.example"), ca_file=str(file)) == (200, 1)
    file.write_bytes(new.ca_file.read_bytes())
    assert reached(new.server("mcp.example"), ca_file=str(file)) == (200, 1)


def test_contexts_are_shared_as_long_as_nothing_changes(issuer: Issuer) -> None:
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


def test_a_handshake_that_never_ends_is_timed_out_and_closed() -> None:
    async def main() -> None:
        async with listening() as peer:
            server = configured(peer.url("/mcp", "mcp.example", "https"))
            with pytest.raises(TimedOut):
                await fetch(server, resolve=leading("127.0.0.1"), response_seconds=0.2)
            await asyncio.wait_for(peer.left.wait(), 5)

    asyncio.run(main())


def test_a_cancelled_handshake_leaves_no_connection_behind() -> None:
    async def main() -> None:
        async with listening() as peer:
            server = configured(peer.url("/mcp", "mcp.example", "https"))
            fetching = asyncio.create_task(fetch(server, resolve=leading("127.0.0.1")))
            await peer.connected.wait()
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            await asyncio.wait_for(peer.left.wait(), 5)

    asyncio.run(main())
