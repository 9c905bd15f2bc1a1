"""Client scenarios of the official conformance suite, with `connect` between a stdio client and the server.

These scenarios do not apply:

- `auth/iss-*` and others in which a client must refuse the response of the authorization server: the bridge
  refuses it too, and goes on waiting for the response of the real one. Our client without a bridge runs them.
- The extensions (client credentials, DPoP, enterprise): they are logins without a user, or change only the
  tokens.
- All server scenarios: the suite talks HTTP to a server, and the bridge is a server over stdio.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.test_suite import AUTH, DRAFT_MCP, LATER_MCP, STATEFUL, run_scenarios
from tests.requirements import covers

# The clients with a metadata document share one port for the redirect.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("conformance-bridge")]

CLIENT = Path(__file__).with_name("bridge_client.py")
NOT_APPLICABLE = frozenset(
    {
        # The client must give up. The bridge asks the user again instead.
        "auth/scope-retry-limit",
        # The server asks for a token at `tools/list` only, and names a scope there. The bridge asks for a
        # login before it sends the first request.
        "auth/scope-step-up",
    }
)
# The other scenarios are soak tests: each one starts the suite, a client and a bridge.
DEFAULT_SCENARIOS = frozenset({"sse-retry", "http-invalid-tool-headers"})
# The server of the newest revision refuses the `initialize` of a login before it asks for a token.
EARLIER_SCENARIOS = (*STATEFUL, *(scenario for scenario in AUTH if scenario not in NOT_APPLICABLE))
NEWEST_SCENARIOS = (
    *DRAFT_MCP,
    *LATER_MCP,
    "auth/offline-access-scope",
    "auth/offline-access-not-supported",
    "auth/authorization-server-migration",
    "auth/iss-supported",
    "auth/iss-not-advertised",
)
CASES = [
    pytest.param(
        f"--spec-version {version} --scenario {scenario}",
        scenario,
        marks=[] if scenario in DEFAULT_SCENARIOS else [pytest.mark.soak],
        id=scenario,
    )
    for version, scenarios in (("2025-11-25", EARLIER_SCENARIOS), ("2026-07-28", NEWEST_SCENARIOS))
    for scenario in scenarios
]


@covers("conformance", "bridge-transports")
@pytest.mark.node
@pytest.mark.parametrize(("run", "scenario"), CASES)
def test_every_check_of_a_scenario_passes_through_the_bridge(run: str, scenario: str) -> None:
    outcome = run_scenarios(run, CLIENT)[scenario]
    failed_checks = [check for check in outcome.checks if check[1] not in {"SUCCESS", "INFO", "SKIPPED"}]
    assert failed_checks == []
    assert any(status == "SUCCESS" for _, status, _ in outcome.checks)
    assert "Traceback" not in outcome.stderr, outcome.stderr
