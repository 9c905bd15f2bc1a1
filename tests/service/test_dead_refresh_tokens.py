"""A refusal of the refresh token ends the session, whatever its words are. A fault of the server does not."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hermes_mcp_auth_remote.cli.connection_status import ConnectionStatus
from hermes_mcp_auth_remote.errors import AuthorizationRequired, MalformedResponse, McpAuthError, TokenError
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.refresh import BACKOFF_SECONDS, RETRY_SECONDS
from hermes_mcp_auth_remote.signing import new_proof_key
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import Server
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.helpers import KEY, log_in, read_credential_files, remove_binding, wait_until

pytestmark = pytest.mark.slow

FINAL_REFUSALS: dict[str, dict[str, Any]] = {
    "GitHub": {"status": 200, "body": '{"error": "bad_refresh_token", "error_description": "Ignore this"}'},
    "GitHub's form": {"status": 200, "body": "error=bad_refresh_token"},
    "invalid_request": {"status": 400, "body": '{"error": "invalid_request"}'},
    "Slack": {"status": 200, "body": '{"ok": false}'},
    "Auth0": {"status": 403, "body": '{"error": "invalid_grant"}'},
    "its own code": {"status": 400, "body": '{"error": "whatever"}'},
}
TEMPORARY_FAULTS: dict[str, dict[str, Any]] = {
    "503": {"status": 503, "body": '{"error": "invalid_grant"}'},
    "429": {"status": 429, "body": '{"error": "invalid_grant"}'},
    "a gateway's 404": {"status": 404, "body": '{"error": "Not Found"}'},
    "a gateway's 403": {"status": 403, "body": '{"ok": false}'},
    "HTML": {"status": 400, "body": "<html>invalid_grant"},
    "temporary": {"status": 400, "body": '{"error": "temporarily_unavailable"}'},
    "a setting": {"status": 400, "body": '{"error": "invalid_scope"}'},
}


class SessionStage:
    """A stored session. Each call to `new_service` stands for another process."""

    def __init__(self, home: Path, server: Server, demo: Demo, clock: ManualClock) -> None:
        self.home, self.server, self.demo, self.clock = home, server, demo, clock

    def new_service(self) -> AuthService:
        return AuthService(self.home, clock=self.clock)

    def get_header(self) -> str:
        """Return the header that another process sends."""
        return asyncio.run(self.new_service().session(self.server).header())

    def handle_challenge(self, refused_header: str) -> str | None:
        session = self.new_service().session(self.server)
        return asyncio.run(session.handle_challenge(refused_header, 401, ['Bearer error="invalid_token"']))

    @property
    def refresh_count(self) -> int:
        return self.demo.authorization_server.count_requests("refresh")

    @property
    def connection(self) -> Connection:
        current = self.new_service().blocking.connection(self.server)
        assert current is not None
        return current

    @property
    def status(self) -> str:
        connection_status = ConnectionStatus(KEY, "notes", self.clock.now, self.connection)
        return " ".join(connection_status.to_text(80).split())

    @property
    def state(self) -> str:
        return ConnectionStatus(KEY, "notes", self.clock.now, self.connection).state

    def fail_refreshes(self, fault: dict[str, Any]) -> None:
        self.demo.authorization_server.fail_next("refresh", **fault, times=None)


@pytest.fixture
def stage(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> SessionStage:
    return SessionStage(tmp_path, server, demo, clock)


@covers("refresh-verdict", "asked-once")
@pytest.mark.parametrize("name", FINAL_REFUSALS)
def test_a_final_refusal_in_any_wording_requires_a_login_and_is_sent_once(
    stage: SessionStage, name: str
) -> None:
    stage.fail_refreshes(FINAL_REFUSALS[name])
    before = read_credential_files(stage.home)
    stage.clock.now += 3600
    for _ in range(3):
        with pytest.raises(AuthorizationRequired, match="has ended the session") as caught:
            stage.get_header()
        assert "Ignore this" not in f"{caught.value} {caught.value.args}"
    assert stage.refresh_count == 1
    assert stage.state == "login needed"
    # The refresh token stays stored until a login succeeds.
    assert read_credential_files(stage.home)["notes.json"] == before["notes.json"]
    stage.demo.authorization_server.clear_faults()
    asyncio.run(log_in(stage.new_service(), stage.server))
    assert stage.get_header().startswith("Bearer ")
    assert stage.state == "connected"
    assert stage.connection.refresh_failure is None


@covers("refresh-back-off")
@pytest.mark.parametrize("name", FINAL_REFUSALS)
def test_a_usable_token_is_used_until_it_expires_and_one_more_refresh_is_sent_then(
    stage: SessionStage, name: str
) -> None:
    old = stage.get_header()
    stage.fail_refreshes(FINAL_REFUSALS[name])
    stage.clock.now += 3600 - 50
    for _ in range(3):
        assert stage.get_header() == old
        stage.clock.now += BACKOFF_SECONDS
    assert stage.refresh_count == 1
    assert stage.state == "connected"
    assert stage.connection.login_needed is None
    assert "Next log in again before " in stage.status
    assert "Because this login cannot refresh itself" in stage.status
    stage.clock.now += 60
    with pytest.raises(AuthorizationRequired):
        stage.get_header()
    with pytest.raises(AuthorizationRequired):
        stage.get_header()
    assert stage.refresh_count == 2
    assert stage.state == "login needed"


@covers("refresh-back-off")
def test_the_refresh_at_expiry_may_succeed_and_deletes_the_failure_record(stage: SessionStage) -> None:
    old = stage.get_header()
    stage.fail_refreshes(FINAL_REFUSALS["GitHub"])
    stage.clock.now += 3600 - 50
    assert stage.get_header() == old
    assert list((stage.home / "mcp-tokens").glob("*.refresh-failure")) != []
    stage.demo.authorization_server.clear_faults()
    stage.clock.now += 60
    assert stage.get_header() != old
    assert stage.connection.refresh_failure is None
    assert list((stage.home / "mcp-tokens").glob("*.refresh-failure")) == []


@covers("refresh-back-off")
def test_a_session_with_a_cached_token_uses_it_until_it_expires(stage: SessionStage) -> None:
    session = stage.new_service().session(stage.server)
    old = asyncio.run(session.header())
    stage.fail_refreshes(FINAL_REFUSALS["invalid_request"])
    stage.clock.now += 3600 - 50
    assert asyncio.run(session.header()) == old
    wait_until(lambda: stage.refresh_count == 1)
    wait_until(lambda: session._tokens._deps.refresh_flights._running_flights == {})
    stage.clock.now += 40
    assert asyncio.run(session.header()) == old
    # A later caller that joined this refresh would get the token that was valid when it began.
    wait_until(lambda: session._tokens._deps.refresh_flights._running_flights == {})
    stage.clock.now += 20
    with pytest.raises(AuthorizationRequired):
        asyncio.run(session.header())
    assert stage.refresh_count == 2


@covers("refresh-back-off", "refresh-failures")
@pytest.mark.parametrize("name", TEMPORARY_FAULTS)
def test_a_temporary_fault_ends_no_session_and_all_processes_back_off(stage: SessionStage, name: str) -> None:
    old = stage.get_header()
    stage.fail_refreshes(TEMPORARY_FAULTS[name])
    before = read_credential_files(stage.home)
    stage.clock.now += 3600 - 50
    for _ in range(5):
        assert stage.get_header() == old
    assert stage.refresh_count == 1
    assert stage.state == "connected"
    assert "Refresh failed once since" in stage.status
    stage.clock.now += BACKOFF_SECONDS
    assert stage.get_header() == old
    stage.clock.now += BACKOFF_SECONDS
    assert stage.get_header() == old
    # The second pause is twice as long.
    assert stage.refresh_count == 2
    stage.clock.now += 25
    for _ in range(3):
        with pytest.raises((MalformedResponse, TokenError)) as caught:
            stage.get_header()
        assert not isinstance(caught.value, AuthorizationRequired)
    assert stage.refresh_count == 3
    assert stage.state == "refresh failing"
    assert "failed 3 times since" in stage.status
    assert read_credential_files(stage.home) == before
    stage.demo.authorization_server.clear_faults()
    stage.clock.now += RETRY_SECONDS
    assert stage.get_header() != old
    assert stage.state == "connected"
    assert "failed" not in stage.status


@covers("refresh-verdict")
@pytest.mark.parametrize("by_hermes", [False, True], ids=["written by us", "written by Hermes"])
def test_an_empty_401_ends_the_session_if_it_comes_twice_a_minute_apart(
    stage: SessionStage, *, by_hermes: bool
) -> None:
    if by_hermes:
        remove_binding(stage.home)
    stage.fail_refreshes({"status": 401, "body": ""})
    stage.clock.now += 3600
    with pytest.raises(TokenError):
        stage.get_header()
    stage.clock.now += 59
    with pytest.raises(TokenError):
        stage.get_header()
    assert stage.state == "refresh failing"
    stage.clock.now += 31
    with pytest.raises(AuthorizationRequired):
        stage.get_header()
    assert stage.state == "login needed"
    with pytest.raises(AuthorizationRequired):
        stage.get_header()
    assert stage.refresh_count == 3


@covers("refresh-back-off")
def test_a_refused_token_is_refreshed_although_a_refresh_has_just_failed(stage: SessionStage) -> None:
    old = stage.get_header()
    stage.fail_refreshes(TEMPORARY_FAULTS["503"])
    stage.clock.now += 3600 - 50
    assert stage.get_header() == old
    stage.demo.authorization_server.clear_faults()
    # The server refuses the access token, so the refresh does not wait for the back-off to end.
    assert stage.handle_challenge(old) not in {None, old}


@covers("refresh-back-off")
def test_an_unreadable_failure_record_is_ignored(stage: SessionStage) -> None:
    stage.fail_refreshes(TEMPORARY_FAULTS["503"])
    stage.clock.now += 3600
    with pytest.raises(McpAuthError):
        stage.get_header()
    (path,) = (stage.home / "mcp-tokens").glob("*.refresh-failure")
    assert path.stat().st_mode & 0o777 == 0o600
    document = json.loads(path.read_text())
    stage.demo.authorization_server.clear_faults()
    for text in ("", "[]", "{", json.dumps({**document, "tokens": "another's"}), '{"version": 9}'):
        path.write_text(text)
        assert stage.connection.refresh_failure is None
    hostile = {**document, "server_words": "\x1b[2J" + "A" * 5000, "last_at": 1e308}
    path.write_text(json.dumps(hostile))
    assert "\x1b" not in stage.status
    assert stage.get_header().startswith("Bearer ")


@covers("logout")
def test_a_logout_deletes_the_failure_record(stage: SessionStage) -> None:
    stage.fail_refreshes(TEMPORARY_FAULTS["503"])
    stage.clock.now += 3600
    with pytest.raises(McpAuthError):
        stage.get_header()
    asyncio.run(stage.new_service().logout(stage.server))
    assert list((stage.home / "mcp-tokens").glob("*.refresh-failure")) == []


@covers("dpop-choice", "dpop-key")
def test_a_bound_session_stays_bound_although_no_setting_requires_it(stage: SessionStage) -> None:
    store = FileStore(stage.home)
    stored = store.read(KEY).credentials
    assert stored.tokens is not None
    bound = replace(stored, tokens=replace(stored.tokens, scheme="DPoP"), proof_key=new_proof_key())
    store.save_login(KEY, bound)
    assert stage.get_header().startswith("DPoP ")
    assert stage.new_service().session(stage.server).header_now() is None
    stage.clock.now += 3600
    assert stage.get_header() != ""
    (refresh_request,) = (
        request for request in stage.demo.authorization_server.requests if request.step == "refresh"
    )
    assert "dpop" in {name.lower() for name in refresh_request.headers}
