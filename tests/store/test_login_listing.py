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
from tests.store.builders import build_login

SECONDS = 20.0
THREADS = 8


class CountingLock:
    """A lock that reports when the expected number of threads want it."""

    def __init__(self, expected: int) -> None:
        self._lock = threading.Lock()
        self._arrivals = threading.Semaphore(0)
        self._expected = expected

    def wait(self) -> None:
        assert all(self._arrivals.acquire(timeout=SECONDS) for _ in range(self._expected))

    def __enter__(self) -> None:
        self._arrivals.release()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class ObservedLogins:
    """The logins of a home; records the reads and scans, and can pause a scan."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files = FileStore(home).logins
        self.others = FileStore(home).logins
        self.read_ids: list[str] = []
        self.scan_count = 0
        self.scan_started, self.scan_released = threading.Event(), threading.Event()
        self.scan_released.set()
        monkeypatch.setattr(self.files, "get", self._record_reads(self.files.get))
        monkeypatch.setattr(self.files, "_scan_folder", self._pause_scans(self.files._scan_folder))

    def _record_reads(self, get: Callable[[str], Login]) -> Callable[[str], Login]:
        def get_and_record(login_id: str) -> Login:
            self.read_ids.append(login_id)
            return get(login_id)

        return get_and_record

    def _pause_scans(self, scan: Callable[[], list[Login]]) -> Callable[[], list[Login]]:
        def scan_and_wait() -> list[Login]:
            logins = scan()
            self.scan_count += 1
            self.scan_started.set()
            assert self.scan_released.wait(SECONDS)
            return logins

        return scan_and_wait


@pytest.fixture
def observed_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObservedLogins:
    return ObservedLogins(tmp_path, monkeypatch)


def build_numbered_login(number: int) -> Login:
    return replace(build_login(), id=f"a-login-of-number-{number}", started_at=float(number))


def ids_of(logins: list[Login]) -> list[str]:
    return [login.id for login in logins]


@covers("looks")
def test_concurrent_listings_share_the_next_scan(
    observed_logins: ObservedLogins, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = CountingLock(THREADS)
    monkeypatch.setattr(observed_logins.files, "_listing_lock", lock)
    observed_logins.others.add(build_numbered_login(1))
    observed_logins.scan_released.clear()
    with ThreadPoolExecutor(THREADS) as threads:
        first = threads.submit(observed_logins.files.list_all)
        assert observed_logins.scan_started.wait(SECONDS)
        # This login comes too late for the current scan.
        observed_logins.others.add(build_numbered_login(2))
        listings = [threads.submit(observed_logins.files.list_all) for _ in range(THREADS - 1)]
        lock.wait()
        observed_logins.scan_released.set()
        assert ids_of(first.result()) == [build_numbered_login(1).id]
        assert [ids_of(listing.result()) for listing in listings] == [
            [build_numbered_login(1).id, build_numbered_login(2).id]
        ] * len(listings)
    assert observed_logins.scan_count == 2
    observed_logins.files.list_all()
    assert observed_logins.scan_count == 3


def test_only_files_written_by_another_process_are_read(observed_logins: ObservedLogins) -> None:
    files, others = observed_logins.files, observed_logins.others
    assert files.list_all() == []
    files.add(build_numbered_login(1))
    others.add(build_numbered_login(2))
    assert ids_of(files.list_all()) == [build_numbered_login(1).id, build_numbered_login(2).id]
    assert observed_logins.read_ids == [build_numbered_login(2).id]
    observed_logins.read_ids.clear()
    changed = files.change(build_numbered_login(1).id, lambda it: replace(it, message_ids=("7",))).after
    observed_logins.read_ids.clear()
    assert files.list_all()[0] == changed
    assert observed_logins.read_ids == []
    others.change(build_numbered_login(1).id, lambda it: replace(it, message_ids=("7", "8")))
    assert files.list_all()[0].message_ids == ("7", "8")
    assert observed_logins.read_ids == [build_numbered_login(1).id]


def test_a_finished_login_is_cached_without_its_secrets(observed_logins: ObservedLogins) -> None:
    files, login = observed_logins.files, build_numbered_login(1)
    files.list_all()
    files.add(login)
    files.change(login.id, lambda it: replace(it, status="cancelled"))
    observed_logins.read_ids.clear()
    (cached,) = files.list_all()
    assert observed_logins.read_ids == []
    assert cached == observed_logins.others.get(login.id)
    assert not cached.request.code_verifier.reveal()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_forked_during_a_scan_can_list_logins(observed_logins: ObservedLogins) -> None:
    observed_logins.others.add(build_numbered_login(1))
    observed_logins.scan_released.clear()
    scan_thread = threading.Thread(target=observed_logins.files.list_all)
    scan_thread.start()
    assert observed_logins.scan_started.wait(SECONDS)
    child = os.fork()
    if not child:
        # This sets the child's copy of the event; the parent's scan is still paused.
        observed_logins.scan_released.set()
        os._exit(0 if ids_of(observed_logins.files.list_all()) == [build_numbered_login(1).id] else 1)
    _, status = os.waitpid(child, 0)
    observed_logins.scan_released.set()
    scan_thread.join(SECONDS)
    assert os.waitstatus_to_exitcode(status) == 0
