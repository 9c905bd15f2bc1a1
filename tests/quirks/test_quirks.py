"""Each quirk of real servers, imitated by the demo server; the test's id is the case's text."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
from tests.demo.player import MovedClock
from tests.parts.authorization_server import Demo
from tests.quirks import discovery, registration, tokens
from tests.quirks.stage import CASES, Case, Stage

pytestmark = pytest.mark.slow

ROWS = 47
# These cases need several processes or a proxy, so they are not in this directory.
ELSEWHERE = {36: "tests/service/test_processes.py", 45: "tests/http/test_proxies.py"}
PLAYED = (discovery, registration, tokens)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"quirk {case.number}: {case.text}")
def test_a_server_that_deviates(
    case: Case, demo: Demo, service: AuthService, server: Server, clock: MovedClock, tmp_path: Path
) -> None:
    case.play(Stage(demo, service, server, clock, tmp_path))


def test_every_case_is_played_once() -> None:
    numbers = [case.number for case in CASES]
    assert sorted([*numbers, *ELSEWHERE]) == list(range(1, ROWS + 1))
    assert {case.play.__module__ for case in CASES} == {module.__name__ for module in PLAYED}
    root = Path(__file__).parents[2]
    for number, place in ELSEWHERE.items():
        assert f"def test_quirk_{number}_" in (root / place).read_text("utf-8")
