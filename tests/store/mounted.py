"""A store whose files are bind mounts: `python -m tests.store.bind_mounts <verb> <home> mount|inject`.

With `mount`, the process must run in its own mount namespace (`unshare --mount`). `inject` is for machines
that do not allow mounts: the system calls in this process fail as they do on a mount point.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest

from hermes_mcp_auth_remote.errors import StoreUnwritable
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files import private_files
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from tests.store.given import KEY, ROOT, credentials_of

# The functions that only run if a file cannot be renamed; other tests kill the rest.
_WRITING = {"replace_staged", "overwrite_private", "_overwrite", "remove_file"}
NAMES = ["notes.binding.json", "notes.client.json", "notes.meta.json", "notes.json"]


def can_mount() -> bool:
    """True if this user may create bind mounts in a new mount namespace."""
    command = ["unshare", "--mount", "mount", "--bind", "/dev/null", "/dev/null"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def run_mounted(verb: str, home: Path) -> None:
    """Run a verb in a process with bind mounts, or with injected errors if mounts are not allowed."""
    is_possible = can_mount()
    command = [sys.executable, "-m", "tests.store.mounted", verb, str(home)]
    command = ["unshare", "--mount", *command, "mount"] if is_possible else [*command, "inject"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def mount(home: Path, how: str, names: list[str]) -> Path:
    """Store generation 0 and bind-mount a copy over each file; return the directory of the copies."""
    FileStore(home).save_login(KEY, credentials_of(0))
    folder, sources = home / "mcp-tokens", home / "sources"
    sources.mkdir()
    if how == "inject":
        inject({str(folder / name) for name in names})
        return folder
    for name in names:
        (sources / name).write_bytes((folder / name).read_bytes())
        (sources / name).chmod(0o600)
        subprocess.run(["mount", "--bind", sources / name, folder / name], check=True)
    return sources


def inject(mounted: set[str]) -> None:
    """Let renames onto these files and removals of them fail as for mount points."""
    replace, unlink = os.replace, os.unlink

    def refuse(path: object) -> None:
        if os.fspath(str(path)) in mounted:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def replace_unless_mounted(source: str, target: str) -> None:
        refuse(target)
        replace(source, target)

    def unlink_unless_mounted(path: str) -> None:
        refuse(path)
        unlink(path)

    os.replace = replace_unless_mounted  # type: ignore[assignment]
    os.unlink = unlink_unless_mounted  # type: ignore[assignment]


def tokens_of(generation: int) -> Any:
    return credentials_of(generation).tokens


def whole(found: Credentials) -> int:
    """Return the generation of the credentials; check that all parts have the same one."""
    assert found.tokens is not None
    number = int(found.tokens.access_token.reveal().removeprefix("access-"))
    expected = credentials_of(number)
    assert found.tokens.refresh_token == tokens_of(number).refresh_token
    assert found.client is not None
    assert found.client.client_id == f"client-{number}"
    assert found.authorization_server == expected.authorization_server
    assert found.binding == expected.binding
    return number


def refresh(home: Path, how: str) -> None:
    """Refreshed tokens are written into the mounted file, which keeps its inode."""
    sources = mount(home, how, NAMES[-1:])
    store = FileStore(home)
    inode, version = (sources / NAMES[-1]).stat().st_ino, store.version(KEY)
    store.check_can_store(KEY)
    store.save_tokens(KEY, tokens_of(1), credentials_of(0).binding)
    assert store.version(KEY) != version
    assert (sources / NAMES[-1]).stat().st_ino == inode
    assert b"refresh-1" in (sources / NAMES[-1]).read_bytes()
    # Shorter content must not leave the end of the longer content.
    short = credentials_of(0).tokens
    assert short is not None
    store.save_tokens(KEY, short, None)
    assert FileStore(home).read(KEY).tokens is not None
    assert not [path for path in (home / "mcp-tokens").iterdir() if path.suffix == ".tmp"]


def login(home: Path, how: str) -> None:
    """A login, a changed binding, a logout and another login work on four mounted files."""
    mount(home, how, NAMES)
    store = FileStore(home)
    store.save_login(KEY, credentials_of(1))
    assert whole(store.read(KEY)) == 1
    binding = credentials_of(1).binding
    assert binding is not None
    store.save_binding(KEY, binding)
    assert store.delete(KEY)
    assert store.read(KEY) == Credentials()
    assert store.list_keys() == []
    assert not store.delete(KEY)
    store.save_login(KEY, credentials_of(2))
    assert whole(store.read(KEY)) == 2
    assert store.list_keys() == [KEY]
    assert not [path for path in (home / "mcp-tokens").iterdir() if path.suffix == ".tmp"]


def read_only(home: Path, how: str) -> None:
    """A file on a read-only mount is detected before anything is written, and does not change."""
    sources = mount(home, how, NAMES[-1:])
    target = home / "mcp-tokens" / NAMES[-1]
    if how == "inject":
        real = os.open

        def open_unless_read_only(path: Any, flags: int, *rest: Any) -> int:
            if str(path) == str(target) and flags & (os.O_RDWR | os.O_WRONLY):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return real(path, flags, *rest)

        os.open = open_unless_read_only  # type: ignore[assignment]
    else:
        subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True)
    before = (sources / NAMES[-1]).read_bytes()
    store = FileStore(home)
    attempts: list[Callable[[], None]] = [
        lambda: store.check_can_store(KEY),
        lambda: store.save_tokens(KEY, tokens_of(1), None),
        lambda: store.save_login(KEY, credentials_of(1)),
    ]
    for attempt in attempts:
        with pytest.raises(StoreUnwritable) as caught:
            attempt()
        assert "Mount the directory" in caught.value.advice
    assert (sources / NAMES[-1]).read_bytes() == before
    assert whole(FileStore(home).read(KEY)) == 0
    assert not [path for path in (home / "mcp-tokens").iterdir() if path.suffix == ".tmp"]


def killed(home: Path, how: str) -> None:
    """A process that is killed at any line while it writes in place leaves the old or the new login."""
    mount(home, how, [NAMES[1], NAMES[3]])
    store, line, seen = FileStore(home), 0, list[int]()
    while True:
        line += 1
        store.save_login(KEY, credentials_of(0))
        child = os.fork()
        if child == 0:
            _die_at(line, store)
        is_dead = os.waitpid(child, 0)[1] != 0
        seen.append(whole(FileStore(home).read(KEY)))
        if not is_dead:
            break
    assert line > 40
    assert seen == sorted(seen)
    assert set(seen) == {0, 1}


def _die_at(line: int, store: FileStore) -> NoReturn:
    left = line

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != private_files.__file__ or frame.f_code.co_name not in _WRITING:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    store.save_login(KEY, credentials_of(1))
    sys.settrace(None)
    os._exit(0)


if __name__ == "__main__":
    verbs: Any = {verb.__name__: verb for verb in (refresh, login, read_only, killed)}
    verbs[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])
