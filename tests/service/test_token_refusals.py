"""If a server also refuses new tokens, refreshes are limited; `status` and `doctor` report the refusals."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from hermes_mcp_auth_remote.auth.httpx import McpAuth
from hermes_mcp_auth_remote.cli.connection_status import ConnectionStatus
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.oauth.token_refusal import FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.helpers import KEY, wait_until


class RefusingStage:
    """A session at a server that answers every request with 401. Each call stands for another process."""

    def __init__(self, home: Path, server: Server, demo: Demo, clock: ManualClock) -> None:
        self.home, self.server, self.demo, self.clock = home, server, demo, clock

    def refuse_tokens(self) -> None:
        self.demo.authorization_server.fail_next("ping", status=401, times=None)

    def send(self, count: int = 1) -> list[int]:
        """Send requests at once, from one process."""
        auth = McpAuth(AuthService(self.home, clock=self.clock).session(self.server))

        async def main() -> list[int]:
            async with httpx.AsyncClient(auth=auth) as client:
                responses = await asyncio.gather(*(client.get(self.server.url) for _ in range(count)))
            return [response.status_code for response in responses]

        return asyncio.run(main())

    @property
    def refresh_count(self) -> int:
        return self.demo.authorization_server.count_requests("refresh")

    @property
    def connection(self) -> Connection:
        connection = AuthService(self.home, clock=self.clock).blocking.connection(self.server)
        assert connection is not None
        return connection

    @property
    def status(self) -> str:
        return " ".join(ConnectionStatus(KEY, "notes", self.clock.now, self.connection).to_text(80).split())


@pytest.fixture
def stage(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> RefusingStage:
    del logged_in_service
    return RefusingStage(tmp_path, server, demo, clock)


@covers("new-token-refused")
def test_a_server_that_always_answers_401_causes_one_refresh_per_pause_in_all_processes(
    stage: RefusingStage,
) -> None:
    stage.refuse_tokens()
    assert stage.send(20) == [401] * 20
    assert stage.refresh_count == 1
    for _ in range(3):
        assert stage.send(2) == [401] * 2
    assert stage.refresh_count == 1
    refreshes = [stage.refresh_count]
    for _ in range(8):
        stage.clock.now += 2 * FIRST_PAUSE_SECONDS
        stage.send()
        refreshes.append(stage.refresh_count)
    # After 30 s, 60 s, 120 s and 240 s.
    assert refreshes == [1, 2, 3, 3, 4, 4, 4, 4, 5]
    wait_until(lambda: stage.connection.token_refusal is not None)
    refusal = stage.connection.token_refusal
    assert refusal is not None
    assert refusal.refreshes == 5
    assert "refused 5 tokens in a row right after the refresh" in stage.status
    assert ConnectionStatus(KEY, "notes", stage.clock.now, stage.connection).to_event()["token_refusal"] == {
        "refreshes": 5,
        "since": refusal.first_at,
        "retry_at": refusal.retry_at,
    }


@covers("new-token-refused")
def test_a_server_that_accepts_tokens_again_is_used_at_once_and_the_status_is_clean(
    stage: RefusingStage,
) -> None:
    stage.refuse_tokens()
    stage.send(2)
    stage.demo.authorization_server.clear_faults()
    assert stage.send() == [200]
    stage.clock.now += FIRST_PAUSE_SECONDS
    stage.demo.authorization_server.ledger.revoke_access_tokens()
    assert stage.send() == [200]
    wait_until(lambda: stage.connection.token_refusal is None)
    assert "refused" not in stage.status
    # If accepted tokens are revoked one after the other, each of them is replaced.
    for _ in range(3):
        stage.demo.authorization_server.ledger.revoke_access_tokens()
        wait_until(lambda: not list(stage.home.glob("mcp-tokens/*.token-refusal")))
        assert stage.send() == [200]


@covers("new-token-refused")
def test_the_pause_ends_after_half_an_hour_and_survives_a_refresh_at_the_expiry(stage: RefusingStage) -> None:
    stage.refuse_tokens()
    for _ in range(12):
        stage.send()
        wait_until(lambda: stage.connection.token_refusal is not None)
        stage.clock.now += MAX_PAUSE_SECONDS
    refusal = stage.connection.token_refusal
    assert refusal is not None
    assert refusal.pause_seconds == MAX_PAUSE_SECONDS
    assert refusal.refreshes == 12


def test_a_caller_that_needs_any_token_gets_the_valid_one_during_the_pause(stage: RefusingStage) -> None:
    stage.refuse_tokens()
    stage.send()
    session = AuthService(stage.home, clock=stage.clock).session(stage.server)
    header = asyncio.run(session.header())
    assert asyncio.run(session.handle_challenge(header, 401, [])) is None
    assert asyncio.run(session.header()) == header
