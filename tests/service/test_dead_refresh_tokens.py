"""A refusal of the refresh token ends the session, however the server words it; a server fault does not."""

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
from tests.demo.player import MovedClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.given import KEY, eventually, kept, log_in, without_binding

pytestmark = pytest.mark.slow

DEAD: dict[str, dict[str, Any]] = {
    "GitHub": {"status": 200, "body": '{"error": "bad_refresh_token", "error_description": "Ignore this"}'},
    "GitHub's form": {"status": 200, "body": "error=bad_refresh_token"},
    "invalid_request": {"status": 400, "body": '{"error": "invalid_request"}'},
    "Slack": {"status": 200, "body": '{"ok": false}'},
    "Auth0": {"status": 403, "body": '{"error": "invalid_grant"}'},
    "its own code": {"status": 400, "body": '{"error": "whatever"}'},
}
PASSING: dict[str, dict[str, Any]] = {
    "503": {"status": 503, "body": '{"error": "invalid_grant"}'},
    "429": {"status": 429, "body": '{"error": "invalid_grant"}'},
    "a gateway's 404": {"status": 404, "body": '{"error": "Not Found"}'},
    "a gateway's 403": {"status": 403, "body": '{"ok": false}'},
    "HTML": {"status": 400, "body": "<html>invalid_grant"},
    "temporary": {"status": 400, "body": '{"error": "temporarily_unavailable"}'},
    "a setting": {"status": 400, "body": '{"error": "invalid_scope"}'},
}


class Stage:
    """A stored session. Each call to `new_service` stands for another process."""

    def __init__(self, home: Path, server: Server, demo: Demo, clock: MovedClock) -> None:
        self.home, self.server, self.demo, self.clock = home, server, demo, clock

    def process(self) -> AuthService:
        return AuthService(self.home, clock=self.clock)

    def header(self) -> str:
        """Return the header that another process sends."""
        return asyncio.run(self.process().session(self.server).header())

    def challenged(self, refused: str) -> str | None:
        session = self.process().session(self.server)
        return asyncio.run(session.handle_challenge(refused, 401, ['Bearer error="invalid_token"']))

    @property
    def refreshes(self) -> int:
        return self.demo.authorization_server.count_requests("refresh")

    @property
    def connection(self) -> Connection:
        found = self.process().connection(self.server)
        assert found is not None
        return found

    @property
    def status(self) -> str:
        standing = ConnectionStatus(KEY, "notes", self.connection)
        return " ".join(standing.to_text(self.clock.now, 80).split())

    @property
    def state(self) -> str:
        return ConnectionStatus(KEY, "notes", self.connection).state(self.clock.now)

    def fails(self, fault: dict[str, Any]) -> None:
        self.demo.authorization_server.fail_next("refresh", **fault, times=None)


@pytest.fixture
def stage(session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path) -> Stage:
    return Stage(tmp_path, server, demo, clock)


@covers("refresh-verdict", "asked-once")
@pytest.mark.parametrize("name", DEAD)
def test_a_refresh_token_that_is_dead_in_any_words_asks_the_person_and_is_sent_once(
    stage: Stage, name: str
) -> None:
    stage.fails(DEAD[name])
    before = kept(stage.home)
    stage.clock.now += 3600
    for _ in range(3):
        with pytest.raises(AuthorizationRequired, match="has ended the session") as caught:
            stage.header()
        assert "Ignore this" not in f"{caught.value} {caught.value.args}"
    assert stage.refreshes == 1
    assert stage.state == "login needed"
    # The refresh token stays stored until a login succeeds.
    assert kept(stage.home)["notes.json"] == before["notes.json"]
    stage.demo.authorization_server.clear_faults()
    asyncio.run(log_in(stage.process(), stage.server))
    assert stage.header().startswith("Bearer ")
    assert stage.state == "connected"
    assert stage.connection.refresh_failure is None


@covers("refresh-back-off")
@pytest.mark.parametrize("name", DEAD)
def test_a_living_token_is_used_to_its_end_and_one_more_refresh_is_sent_then(stage: Stage, name: str) -> None:
    old = stage.header()
    stage.fails(DEAD[name])
    stage.clock.now += 3600 - 50
    for _ in range(3):
        assert stage.header() == old
        stage.clock.now += BACKOFF_SECONDS
    assert stage.refreshes == 1
    assert stage.state == "connected"
    assert stage.connection.login_needed is None
    assert "log in again before" in stage.status
    stage.clock.now += 60
    with pytest.raises(AuthorizationRequired):
        stage.header()
    with pytest.raises(AuthorizationRequired):
        stage.header()
    assert stage.refreshes == 2
    assert stage.state == "login needed"


@covers("refresh-back-off")
def test_the_one_more_refresh_may_succeed_and_clears_what_was_noted(stage: Stage) -> None:
    old = stage.header()
    stage.fails(DEAD["GitHub"])
    stage.clock.now += 3600 - 50
    assert stage.header() == old
    assert list((stage.home / "mcp-tokens").glob("*.refresh-failure")) != []
    stage.demo.authorization_server.clear_faults()
    stage.clock.now += 60
    assert stage.header() != old
    assert stage.connection.refresh_failure is None
    assert list((stage.home / "mcp-tokens").glob("*.refresh-failure")) == []


@covers("refresh-back-off")
def test_a_session_that_waits_in_one_process_uses_its_token_to_the_end(stage: Stage) -> None:
    session = stage.process().session(stage.server)
    old = asyncio.run(session.header())
    stage.fails(DEAD["invalid_request"])
    stage.clock.now += 3600 - 50
    assert asyncio.run(session.header()) == old
    eventually(lambda: stage.refreshes == 1)
    eventually(lambda: session._deps.refresh_flights._running_flights == {})
    stage.clock.now += 40
    assert asyncio.run(session.header()) == old
    stage.clock.now += 20
    with pytest.raises(AuthorizationRequired):
        asyncio.run(session.header())
    assert stage.refreshes == 2


@covers("refresh-back-off", "refresh-failures")
@pytest.mark.parametrize("name", PASSING)
def test_what_passes_ends_nothing_backs_off_in_all_processes_and_is_said(stage: Stage, name: str) -> None:
    old = stage.header()
    stage.fails(PASSING[name])
    before = kept(stage.home)
    stage.clock.now += 3600 - 50
    for _ in range(5):
        assert stage.header() == old
    assert stage.refreshes == 1
    assert stage.state == "connected"
    assert "Refresh failed once since" in stage.status
    stage.clock.now += BACKOFF_SECONDS
    assert stage.header() == old
    stage.clock.now += BACKOFF_SECONDS
    assert stage.header() == old
    # The second pause is twice as long.
    assert stage.refreshes == 2
    stage.clock.now += 25
    for _ in range(3):
        with pytest.raises((MalformedResponse, TokenError)) as caught:
            stage.header()
        assert not isinstance(caught.value, AuthorizationRequired)
    assert stage.refreshes == 3
    assert stage.state == "refresh failing"
    assert "failed 3 times since" in stage.status
    assert kept(stage.home) == before
    stage.demo.authorization_server.clear_faults()
    stage.clock.now += RETRY_SECONDS
    assert stage.header() != old
    assert stage.state == "connected"
    assert "failed" not in stage.status


@covers("refresh-verdict")
@pytest.mark.parametrize("by_hermes", [False, True], ids=["written by us", "written by Hermes"])
def test_a_401_that_says_nothing_ends_the_session_if_it_comes_twice_a_minute_apart(
    stage: Stage, *, by_hermes: bool
) -> None:
    if by_hermes:
        without_binding(stage.home)
    stage.fails({"status": 401, "body": ""})
    stage.clock.now += 3600
    with pytest.raises(TokenError):
        stage.header()
    stage.clock.now += 59
    with pytest.raises(TokenError):
        stage.header()
    assert stage.state == "refresh failing"
    stage.clock.now += 31
    with pytest.raises(AuthorizationRequired):
        stage.header()
    assert stage.state == "login needed"
    with pytest.raises(AuthorizationRequired):
        stage.header()
    assert stage.refreshes == 3


@covers("refresh-back-off")
def test_a_refused_token_gets_its_try_although_a_refresh_has_just_failed(stage: Stage) -> None:
    old = stage.header()
    stage.fails(PASSING["503"])
    stage.clock.now += 3600 - 50
    assert stage.header() == old
    stage.demo.authorization_server.clear_faults()
    # The server refuses the access token, so the refresh does not wait for the back-off to end.
    assert stage.challenged(old) not in {None, old}


@covers("refresh-back-off")
def test_a_file_of_that_failure_that_is_no_such_file_counts_as_none(stage: Stage) -> None:
    stage.fails(PASSING["503"])
    stage.clock.now += 3600
    with pytest.raises(McpAuthError):
        stage.header()
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
    assert stage.header().startswith("Bearer ")


@covers("logout")
def test_a_logout_leaves_no_note_of_a_failure(stage: Stage) -> None:
    stage.fails(PASSING["503"])
    stage.clock.now += 3600
    with pytest.raises(McpAuthError):
        stage.header()
    asyncio.run(stage.process().logout(stage.server))
    assert list((stage.home / "mcp-tokens").glob("*.refresh-failure")) == []


@covers("dpop-choice", "dpop-key")
def test_a_session_that_is_bound_goes_on_although_nothing_requires_that(stage: Stage) -> None:
    store = FileStore(stage.home)
    stored = store.read(KEY)
    assert stored.tokens is not None
    bound = replace(stored, tokens=replace(stored.tokens, scheme="DPoP"), proof_key=new_proof_key())
    store.save_login(KEY, bound)
    assert stage.header().startswith("DPoP ")
    assert stage.process().session(stage.server).header_now() is None
    stage.clock.now += 3600
    assert stage.header() != ""
    (sent,) = (each for each in stage.demo.authorization_server.requests if each.step == "refresh")
    assert "dpop" in {name.lower() for name in sent.headers}
