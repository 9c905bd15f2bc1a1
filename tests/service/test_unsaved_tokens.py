"""If the disk is full or read-only at a refresh, the service warns, uses the tokens and stores them later."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import AuthorizationRequired, StoreUnwritable
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.refresh import BACKOFF_SECONDS
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import Secret, Server, ServerOptions
from tests.demo.manual_client import ManualClock
from tests.oauth.builders import URL
from tests.requirements import covers
from tests.service.helpers import KEY, read_credential_files, wait_until
from tests.service.model import LIFE_SECONDS, ServerModel, full_disk

REFUSED = ['Bearer error="invalid_token"']
SERVER = Server("notes", URL)


@pytest.fixture
def model(clock: ManualClock, tmp_path: Path) -> ServerModel:
    """A server with a stored login."""
    model = ServerModel(clock)
    FileStore(tmp_path).save_login(KEY, model.log_in())
    return model


@pytest.fixture
def session(model: ServerModel, tmp_path: Path) -> Session:
    return open_session(model, tmp_path)


def open_session(model: ServerModel, home: Path, server: Server = SERVER) -> Session:
    """Return a session as another process would open it."""
    return AuthService(home, run_exchange=model.runner("ours"), clock=model.clock).session(server)


def get_header(session: Session) -> str:
    return asyncio.run(session.header())


def block_lock_file(home: Path) -> None:
    """Replace the lock file with a directory, which no user can open for writing."""
    (home / "mcp-tokens" / "notes.json.refresh.lock").unlink(missing_ok=True)
    (home / "mcp-tokens" / "notes.json.refresh.lock").mkdir()


@covers("disk-refuses")
def test_the_log_warns_once_with_the_path_and_the_advice(
    session: Session, clock: ManualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = read_credential_files(tmp_path)
    clock.now += LIFE_SECONDS
    with full_disk():
        for _ in range(3):
            assert get_header(session) == "Bearer at-2"
            clock.now += BACKOFF_SECONDS
        wait_until(lambda: session._tokens._deps.refresh_flights._running_flights == {})
    assert read_credential_files(tmp_path) == before
    assert [path.name for path in (tmp_path / "mcp-tokens").iterdir() if ".tmp" in path.name] == []
    (message,) = [
        r.getMessage() for r in caplog.records if r.name == "hermes_mcp_auth_remote.service.unsaved_tokens"
    ]
    for text in (
        f"{tmp_path}/mcp-tokens/notes.",
        "could not be written",
        "only this process has",
        "Free some space",
    ):
        assert text in message
    assert "at-" not in message
    assert "rt-" not in message


@covers("disk-refuses")
def test_unsaved_tokens_are_refreshed_from_memory_and_not_returned_after_a_refusal(
    session: Session, model: ServerModel, clock: ManualClock, tmp_path: Path
) -> None:
    clock.now += LIFE_SECONDS
    with full_disk():
        refused = get_header(session)
        model.access_tokens["at-2"].is_revoked = True
        assert asyncio.run(session.handle_challenge(refused, 401, REFUSED)) == "Bearer at-3"
        clock.now += LIFE_SECONDS
        assert get_header(session) == "Bearer at-4"
    assert model.response_counts == {("ours", f"rt-{number}"): 1 for number in (1, 2, 3)}
    clock.now += BACKOFF_SECONDS
    assert get_header(session) == "Bearer at-4"
    wait_until(lambda: b"at-4" in read_credential_files(tmp_path)["notes.json"])
    assert get_header(open_session(model, tmp_path)) == "Bearer at-4"
    clock.now += LIFE_SECONDS
    assert model.accepts(get_header(open_session(model, tmp_path)))


@covers("disk-refuses", "asked-once")
def test_a_session_that_ends_while_the_disk_is_full_sends_each_token_once(
    session: Session, model: ServerModel, clock: ManualClock, tmp_path: Path
) -> None:
    clock.now += LIFE_SECONDS
    with full_disk():
        get_header(session)
        clock.now += LIFE_SECONDS
        model.refresh_tokens["rt-2"].family.is_revoked = True
        for _ in range(3):
            with pytest.raises(AuthorizationRequired, match="has ended the session"):
                get_header(session)
    # With free space again, other sessions read the refusal from the store.
    for other_session in (session, session, open_session(model, tmp_path)):
        with pytest.raises(AuthorizationRequired, match="has ended the session"):
            get_header(other_session)
    assert model.response_counts == {("ours", "rt-1"): 1, ("ours", "rt-2"): 1}
    FileStore(tmp_path).save_login(KEY, model.log_in())
    assert model.accepts(get_header(session))


@covers("disk-refuses")
def test_unsaved_tokens_do_not_return_after_a_logout(
    session: Session, model: ServerModel, clock: ManualClock, tmp_path: Path
) -> None:
    clock.now += LIFE_SECONDS
    with full_disk():
        get_header(session)
    FileStore(tmp_path).delete(KEY)
    clock.now += BACKOFF_SECONDS
    with pytest.raises(AuthorizationRequired, match="no user has logged in"):
        get_header(session)
    assert read_credential_files(tmp_path) == {}


@covers("disk-refuses")
def test_without_a_lock_a_usable_token_is_returned_and_no_refresh_token_is_used_up(
    session: Session, model: ServerModel, clock: ManualClock, tmp_path: Path
) -> None:
    block_lock_file(tmp_path)
    clock.now += LIFE_SECONDS - 30
    assert get_header(session) == get_header(open_session(model, tmp_path)) == "Bearer at-1"
    clock.now += 30
    with pytest.raises(StoreUnwritable, match=r"notes\.json\.refresh\.lock"):
        get_header(session)
    assert model.request_counts["ours"] == 0


@covers("disk-refuses")
def test_unsaved_tokens_are_refreshed_although_the_lock_cannot_be_written(
    session: Session, model: ServerModel, clock: ManualClock, tmp_path: Path
) -> None:
    clock.now += LIFE_SECONDS
    with full_disk():
        get_header(session)
        block_lock_file(tmp_path)
        clock.now += LIFE_SECONDS
        assert get_header(session) == "Bearer at-3"
    assert model.response_counts == {("ours", "rt-1"): 1, ("ours", "rt-2"): 1}


@covers("disk-refuses")
@pytest.mark.parametrize("read_only", [False, True])
def test_a_machine_token_needs_no_disk(
    model: ServerModel, clock: ManualClock, tmp_path: Path, *, read_only: bool
) -> None:
    options = ServerOptions(client_id="job-7", client_secret=Secret("s3cret"), grant="client_credentials")
    FileStore(tmp_path).delete(KEY)
    if read_only:
        block_lock_file(tmp_path)
    session = open_session(model, tmp_path, Server("notes", URL, options))
    with full_disk():
        first_header = get_header(session)
        clock.now += BACKOFF_SECONDS
        assert get_header(session) == first_header
        # Let the background refresh end before the clock moves, because it reads the clock.
        wait_until(lambda: session._tokens._deps.refresh_flights._running_flights == {})
        clock.now += LIFE_SECONDS
        assert get_header(session) not in {"", first_header}
    assert read_credential_files(tmp_path) == {}
