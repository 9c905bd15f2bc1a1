"""Processes that are killed while they store a login, and stores that refuse refreshed tokens."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import StoreUnwritable
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.complete_login import CLAIM_SECONDS
from hermes_mcp_auth_remote.service.refresh import BACKOFF_SECONDS
from hermes_mcp_auth_remote.service.sessions import STORE_CHECK_SECONDS
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import Server
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.oauth.builders import URL
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.helpers import KEY, TERMINAL
from tests.service.model import LIFE_SECONDS, ServerModel

pytestmark = pytest.mark.slow

SERVER = Server("notes", URL)
# The renames that store a login: record, binding, client, metadata, tokens, binding.
RENAME_NUMBERS = range(2, 7)


class ProcessKilled(BaseException):
    """Stands for the kill of a process: no code catches this exception to clean up."""


def refuse_renames(home: Path, patch: pytest.MonkeyPatch, number: int) -> None:
    """Make every rename to the tokens file fail."""
    original, tokens = os.replace, str(home / "mcp-tokens" / "notes.json")

    def refuse(source: str, target: str) -> None:
        if str(target) == tokens:
            raise OSError(number, os.strerror(number))
        original(source, target)

    patch.setattr(os, "replace", refuse)


def mount_read_only(home: Path, patch: pytest.MonkeyPatch) -> None:
    """Make the tokens file behave like a read-only mount."""
    refuse_renames(home, patch, errno.EBUSY)
    original, tokens = os.open, str(home / "mcp-tokens" / "notes.json")

    def refuse(path: str, flags: int, mode: int = 0o777, **rest: int) -> int:
        if str(path) == tokens and flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return original(path, flags, mode, **rest)

    patch.setattr(os, "open", refuse)


def stop_while_saving(home: Path, clock: ManualClock, demo: Demo, rename: int) -> str:
    """Log in again with another client, and stop before the n-th rename. Return the login's id."""
    server = Server("notes", demo.ping_url)
    service = AuthService(home, clock=clock)
    uri = service.new_redirect_uri(server)
    login = asyncio.run(service.start_login(server, TERMINAL, redirect_uri=uri))
    answer, original, count = approve(login.authorization_url), os.replace, 0

    def count_rename(source: str, target: str) -> None:
        nonlocal count
        count += os.path.dirname(target) == str(home / "mcp-tokens")  # noqa: PTH120
        if count == rename:
            raise ProcessKilled
        original(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", count_rename)
        with pytest.raises(ProcessKilled):
            asyncio.run(service.complete_login(login.id, answer, TERMINAL))
    return login.id


@covers("killed")
@pytest.mark.parametrize("rename", RENAME_NUMBERS)
def test_a_login_with_a_new_client_survives_the_death_of_its_process(
    logged_in_service: AuthService, demo: Demo, clock: ManualClock, tmp_path: Path, rename: int
) -> None:
    old = FileStore(tmp_path).read(KEY).credentials
    session = logged_in_service.session(Server("notes", demo.ping_url))
    before = asyncio.run(session.header())
    login_id = stop_while_saving(tmp_path, clock, demo, rename)
    # A running process notices the change within a second; a new process notices it at once.
    clock.now += STORE_CHECK_SECONDS
    after = asyncio.run(session.header())
    assert after != before
    stored = FileStore(tmp_path).read(KEY).credentials
    assert stored.client is not None
    assert old.client is not None
    assert stored.client.client_id != old.client.client_id
    assert AuthService(tmp_path, clock=clock).blocking.login(login_id).status == "done"
    # The session continues: its refresh token is stored with the client that got it.
    clock.now += 3600
    assert asyncio.run(session.header()) != after


@covers("killed")
def test_reading_a_login_past_its_deadline_completes_an_interrupted_save(
    logged_in_service: AuthService, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    login_id = stop_while_saving(tmp_path, clock, demo, RENAME_NUMBERS[-2])
    clock.now += CLAIM_SECONDS
    assert AuthService(tmp_path, clock=clock).blocking.login(login_id).status == "done"


@covers("disk-refuses")
@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.EPERM])
def test_a_rotated_refresh_token_is_stored_in_a_file_that_cannot_be_replaced(
    clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    model = ServerModel(clock)
    FileStore(tmp_path).save_login(KEY, model.log_in())
    refuse_renames(tmp_path, monkeypatch, number)
    for turn in range(2, 5):
        clock.now += LIFE_SECONDS
        session = AuthService(tmp_path, run_exchange=model.runner("ours"), clock=clock).session(SERVER)
        assert asyncio.run(session.header()) == f"Bearer at-{turn}"
    assert model.can_refresh(FileStore(tmp_path).read(KEY).credentials.tokens)


@covers("disk-refuses")
def test_a_refresh_token_is_not_used_up_for_tokens_that_cannot_be_stored(
    clock: ManualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = ServerModel(clock)
    FileStore(tmp_path).save_login(KEY, model.log_in())
    session = AuthService(tmp_path, run_exchange=model.runner("ours"), clock=clock).session(SERVER)
    with pytest.MonkeyPatch.context() as patch:
        mount_read_only(tmp_path, patch)
        clock.now += LIFE_SECONDS - 50
        for _ in range(3):
            assert asyncio.run(session.header()) == "Bearer at-1"
            clock.now += BACKOFF_SECONDS
        clock.now += 50
        with pytest.raises(StoreUnwritable, match=r"notes\.json could not be written") as caught:
            asyncio.run(session.header())
        assert "Mount the directory" in caught.value.advice
    assert model.request_counts["ours"] == 0
    (message,) = [
        r.getMessage() for r in caplog.records if r.name == "hermes_mcp_auth_remote.service.unsaved_tokens"
    ]
    for text in (
        f"{tmp_path}/mcp-tokens/notes.json",
        "not refreshed",
        "until it expires",
        "Mount the directory",
    ):
        assert text in message
    # Once the store is writable again, the session refreshes as usual.
    assert asyncio.run(session.header()) == "Bearer at-2"
