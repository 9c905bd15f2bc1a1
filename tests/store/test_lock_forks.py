"""A lock that a process holds while it forks: the child does not hold it after the parent's death."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.store.files.lock import FileLock
from tests.requirements import covers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork.")


@covers("killed")
def test_a_forked_child_does_not_hold_the_lock_of_its_killed_parent(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    parent = os.fork()
    if parent == 0:
        lock = FileLock(tmp_path / "lock")
        assert lock.try_acquire()
        child = os.fork()
        if child == 0:
            os.write(write_end, b"%d" % os.getpid())
            signal.pause()
        os._exit(0) if child < 0 else signal.pause()
    child = int(os.read(read_end, 20))
    try:
        lock = FileLock(tmp_path / "lock")
        assert not lock.try_acquire()
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        assert lock.try_acquire()
        lock.release()
    finally:
        os.kill(child, signal.SIGKILL)
