"""Listing all logins: concurrent callers share one scan, and unchanged files are not read again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from tests.requirements import covers
from tests.store.given import login_of

SECONDS = 20.0
THREADS = 8


class Turnstile:
    """A lock that reports when the expected number of threads want it."""

    def __init__(self, expected: int) -> None:
        self._lock = threading.Lock()
        self._come = threading.Semaphore(0)
        self._expected = expected

    def wait(self) -> None:
        assert all(self._come.acquire(timeout=SECONDS) for _ in range(self._expected))

    def __enter__(self) -> None:
        self._come.release()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Watched:
    """The logins of a home; records the reads and scans, and can pause a scan."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files = FileStore(home).logins
        self.others = FileStore(home).logins
        self.read: list[str] = []
        self.looks = 0
        self.arrived, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        monkeypatch.setattr(self.files, "get", self._counted(self.files.get))
        monkeypatch.setattr(self.files, "_scan_folder", self._held(self.files._scan_folder))

    def _counted(self, get: Callable[[str], Login]) -> Callable[[str], Login]:
        def counted(login_id: str) -> Login:
            self.read.append(login_id)
            return get(login_id)

        return counted

    def _held(self, look: Callable[[], list[Login]]) -> Callable[[], list[Login]]:
        def held() -> list[Login]:
            found = look()
            self.looks += 1
            self.arrived.set()
            assert self.go_on.wait(SECONDS)
            return found

        return held


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(tmp_path, monkeypatch)


def numbered(number: int) -> Login:
    return replace(login_of(), id=f"a-login-of-number-{number}", started_at=float(number))


def ids(logins: list[Login]) -> list[str]:
    return [each.id for each in logins]


@covers("looks")
def test_threads_that_ask_during_a_look_share_the_next_one_and_see_what_was_written_before(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    turnstile = Turnstile(THREADS)
    monkeypatch.setattr(watched.files, "_listing_lock", turnstile)
    watched.others.add(numbered(1))
    watched.go_on.clear()
    with ThreadPoolExecutor(THREADS) as threads:
        first = threads.submit(watched.files.list_all)
        assert watched.arrived.wait(SECONDS)
        # Too late for the current scan.
        watched.others.add(numbered(2))
        asking = [threads.submit(watched.files.list_all) for _ in range(THREADS - 1)]
        turnstile.wait()
        watched.go_on.set()
        assert ids(first.result()) == [numbered(1).id]
        assert [ids(each.result()) for each in asking] == [[numbered(1).id, numbered(2).id]] * len(asking)
    assert watched.looks == 2
    watched.files.list_all()
    assert watched.looks == 3


def test_what_this_process_wrote_is_not_read_and_what_another_one_wrote_is(watched: Watched) -> None:
    files, others = watched.files, watched.others
    assert files.list_all() == []
    files.add(numbered(1))
    others.add(numbered(2))
    assert ids(files.list_all()) == [numbered(1).id, numbered(2).id]
    assert watched.read == [numbered(2).id]
    watched.read.clear()
    changed = files.change(numbered(1).id, lambda it: replace(it, message_ids=("7",)))
    watched.read.clear()
    assert files.list_all()[0] == changed
    assert watched.read == []
    others.change(numbered(1).id, lambda it: replace(it, message_ids=("7", "8")))
    assert files.list_all()[0].message_ids == ("7", "8")
    assert watched.read == [numbered(1).id]


def test_a_login_that_is_over_is_remembered_as_it_is_stored_without_its_secrets(watched: Watched) -> None:
    files, login = watched.files, numbered(1)
    files.list_all()
    files.add(login)
    files.change(login.id, lambda it: replace(it, status="cancelled"))
    watched.read.clear()
    (found,) = files.list_all()
    assert watched.read == []
    assert found == watched.others.get(login.id)
    assert not found.request.code_verifier.reveal()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_that_is_forked_in_the_middle_of_a_look_can_look(watched: Watched) -> None:
    watched.others.add(numbered(1))
    watched.go_on.clear()
    looking = threading.Thread(target=watched.files.list_all)
    looking.start()
    assert watched.arrived.wait(SECONDS)
    child = os.fork()
    if not child:
        # This sets the child's copy of the event; the parent's scan is still paused.
        watched.go_on.set()
        os._exit(0 if ids(watched.files.list_all()) == [numbered(1).id] else 1)
    _, status = os.waitpid(child, 0)
    watched.go_on.set()
    looking.join(SECONDS)
    assert os.waitstatus_to_exitcode(status) == 0
