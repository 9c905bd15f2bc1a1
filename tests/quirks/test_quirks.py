"""The demo server imitates each quirk of real servers. The test's id is the text of the case."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Demo
from tests.quirks import discovery, field_servers, registration, tokens
from tests.quirks.harness import CASES, QuirkCase, QuirkHarness

pytestmark = pytest.mark.slow

QUIRK_COUNT = 66
# These quirks need several processes or a proxy, so their tests are not in this directory.
ELSEWHERE = {
    36: "tests/service/test_processes.py",
    45: "tests/http/test_proxies.py",
    48: "tests/oauth/test_redirect.py",
    64: "tests/cli/test_doctor_verdicts.py",
}
CASE_MODULES = (discovery, registration, tokens, field_servers)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"quirk {case.number}: {case.text}")
def test_quirk(
    case: QuirkCase, demo: Demo, service: AuthService, server: Server, clock: ManualClock, tmp_path: Path
) -> None:
    case.check(QuirkHarness(demo, service, server, clock, tmp_path))


def test_every_quirk_has_one_case() -> None:
    numbers = [case.number for case in CASES]
    assert sorted([*numbers, *ELSEWHERE]) == list(range(1, QUIRK_COUNT + 1))
    assert {case.check.__module__ for case in CASES} == {module.__name__ for module in CASE_MODULES}
    root = Path(__file__).parents[2]
    for number, path in ELSEWHERE.items():
        assert f"def test_quirk_{number}_" in (root / path).read_text("utf-8")
