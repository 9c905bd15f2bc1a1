"""A full or read-only disk at a refresh: the service warns, uses the tokens, and stores them later."""

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
from tests.demo.player import MovedClock
from tests.oauth.parties import URL
from tests.requirements import covers
from tests.service.given import KEY, eventually, kept
from tests.service.model import LIFE_SECONDS, Model, full_disk

REFUSED = ['Bearer error="invalid_token"']
SERVER = Server("notes", URL)


@pytest.fixture
def model(clock: MovedClock, tmp_path: Path) -> Model:
    """A server with a stored login."""
    model = Model(clock)
    FileStore(tmp_path).save_login(KEY, model.log_in())
    return model


@pytest.fixture
def session(model: Model, tmp_path: Path) -> Session:
    return another(model, tmp_path)


def another(model: Model, home: Path, server: Server = SERVER) -> Session:
    """Return a session as another process would open it."""
    return AuthService(home, run_exchange=model.runner("ours"), clock=model.clock).session(server)


def header(session: Session) -> str:
    return asyncio.run(session.header())


def no_lock(home: Path) -> None:
    """Replace the lock file with a directory, which no user can open for writing."""
    (home / "mcp-tokens" / "notes.json.refresh.lock").unlink(missing_ok=True)
    (home / "mcp-tokens" / "notes.json.refresh.lock").mkdir()


@covers("disk-refuses")
def test_the_user_is_told_once_with_the_path_and_what_to_do(
    session: Session, clock: MovedClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = kept(tmp_path)
    clock.now += LIFE_SECONDS
    with full_disk():
        for _ in range(3):
            assert header(session) == "Bearer at-2"
            clock.now += BACKOFF_SECONDS
        eventually(lambda: session._refresh_flights._running_flights == {})
    assert kept(tmp_path) == before
    assert [path.name for path in (tmp_path / "mcp-tokens").iterdir() if ".tmp" in path.name] == []
    (said,) = [
        r.getMessage() for r in caplog.records if r.name == "hermes_mcp_auth_remote.service.unsaved_tokens"
    ]
    for words in (
        f"{tmp_path}/mcp-tokens/notes.",
        "could not be written",
        "only this process has",
        "Free some space",
    ):
        assert words in said
    assert "at-" not in said
    assert "rt-" not in said


@covers("disk-refuses")
def test_what_the_disk_lacks_is_refreshed_from_memory_and_never_handed_out_once_refused(
    session: Session, model: Model, clock: MovedClock, tmp_path: Path
) -> None:
    clock.now += LIFE_SECONDS
    with full_disk():
        refused = header(session)
        model.access["at-2"].revoked = True
        assert asyncio.run(session.handle_challenge(refused, 401, REFUSED)) == "Bearer at-3"
        clock.now += LIFE_SECONDS
        assert header(session) == "Bearer at-4"
    assert model.answered == {("ours", f"rt-{number}"): 1 for number in (1, 2, 3)}
    clock.now += BACKOFF_SECONDS
    assert header(session) == "Bearer at-4"
    eventually(lambda: b"at-4" in kept(tmp_path)["notes.json"])
    assert header(another(model, tmp_path)) == "Bearer at-4"
    clock.now += LIFE_SECONDS
    assert model.live(header(another(model, tmp_path)))


@covers("disk-refuses", "asked-once")
def test_a_session_that_ends_while_the_disk_is_full_is_asked_about_once(
    session: Session, model: Model, clock: MovedClock, tmp_path: Path
) -> None:
    clock.now += LIFE_SECONDS
    with full_disk():
        header(session)
        clock.now += LIFE_SECONDS
        model.refreshes["rt-2"].session.revoked = True
        for _ in range(3):
            with pytest.raises(AuthorizationRequired, match="has ended the session"):
                header(session)
    # With free space again, other sessions read the refusal from the store.
    for one in (session, session, another(model, tmp_path)):
        with pytest.raises(AuthorizationRequired, match="has ended the session"):
            header(one)
    assert model.answered == {("ours", "rt-1"): 1, ("ours", "rt-2"): 1}
    FileStore(tmp_path).save_login(KEY, model.log_in())
    assert model.live(header(session))


@covers("disk-refuses")
def test_what_the_disk_lacks_does_not_come_back_after_a_logout(
    session: Session, model: Model, clock: MovedClock, tmp_path: Path
) -> None:
    clock.now += LIFE_SECONDS
    with full_disk():
        header(session)
    FileStore(tmp_path).delete(KEY)
    clock.now += BACKOFF_SECONDS
    with pytest.raises(AuthorizationRequired, match="nobody has logged in"):
        header(session)
    assert kept(tmp_path) == {}


@covers("disk-refuses")
def test_without_a_lock_an_old_token_serves_while_it_lives_and_no_refresh_token_is_used_up(
    session: Session, model: Model, clock: MovedClock, tmp_path: Path
) -> None:
    no_lock(tmp_path)
    clock.now += LIFE_SECONDS - 30
    assert header(session) == header(another(model, tmp_path)) == "Bearer at-1"
    clock.now += 30
    with pytest.raises(StoreUnwritable, match=r"notes\.json\.refresh\.lock"):
        header(session)
    assert model.requests["ours"] == 0


@covers("disk-refuses")
def test_a_disk_that_becomes_read_only_does_not_stop_whoever_has_the_only_good_tokens(
    session: Session, model: Model, clock: MovedClock, tmp_path: Path
) -> None:
    clock.now += LIFE_SECONDS
    with full_disk():
        header(session)
        no_lock(tmp_path)
        clock.now += LIFE_SECONDS
        assert header(session) == "Bearer at-3"
    assert model.answered == {("ours", "rt-1"): 1, ("ours", "rt-2"): 1}


@covers("disk-refuses")
@pytest.mark.parametrize("read_only", [False, True])
def test_a_grant_without_a_person_needs_no_disk(
    model: Model, clock: MovedClock, tmp_path: Path, *, read_only: bool
) -> None:
    options = ServerOptions(client_id="job-7", client_secret=Secret("s3cret"), grant="client_credentials")
    FileStore(tmp_path).delete(KEY)
    if read_only:
        no_lock(tmp_path)
    session = another(model, tmp_path, Server("notes", URL, options))
    with full_disk():
        one = header(session)
        clock.now += BACKOFF_SECONDS
        assert header(session) == one
        # Let the background refresh end before the clock moves, because it reads the clock.
        eventually(lambda: session._refresh_flights._running_flights == {})
        clock.now += LIFE_SECONDS
        assert header(session) not in {"", one}
    assert kept(tmp_path) == {}
