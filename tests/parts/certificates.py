"""A certificate authority for one test, so that clients verify https on loopback."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Certificates:
    """A client must trust `ca_file`. A server uses `cert_file` (it includes the chain) and `key_file`."""

    ca_file: Path
    cert_file: Path
    key_file: Path

    def client_context(self) -> ssl.SSLContext:
        """Return an SSL context for clients that trusts only this authority."""
        return ssl.create_default_context(cafile=str(self.ca_file))


def issue_certificates(folder: Path, *names: str) -> Certificates:
    """Issue a certificate for the names (default: localhost, 127.0.0.1) and write it to `folder`."""
    authority = trustme.CA()
    server_certificate = authority.issue_cert(*(names or ("localhost", "127.0.0.1")))
    paths = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(paths.ca_file))
    for blob in server_certificate.cert_chain_pems:
        blob.write_to_path(str(paths.cert_file), append=True)
    server_certificate.private_key_pem.write_to_path(str(paths.key_file))
    return paths
