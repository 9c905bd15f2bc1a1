"""A certificate authority for one test, so that clients verify https on loopback."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Certificates:
    """A client trusts `ca_file`; a server uses `cert_file` (with its chain) and `key_file`."""

    ca_file: Path
    cert_file: Path
    key_file: Path

    def trust(self) -> ssl.SSLContext:
        """Return an SSL context for clients that trusts only this authority."""
        return ssl.create_default_context(cafile=str(self.ca_file))


def certificates(folder: Path, *names: str) -> Certificates:
    """Issue a certificate for the names (default: localhost, 127.0.0.1) and write it to `folder`."""
    authority = trustme.CA()
    issued = authority.issue_cert(*(names or ("localhost", "127.0.0.1")))
    made = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(made.ca_file))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(made.cert_file), append=True)
    issued.private_key_pem.write_to_path(str(made.key_file))
    return made
