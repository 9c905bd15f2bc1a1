"""A store whose files are bind mounts: `python -m tests.store.bind_mounts <verb> <home> mount|inject ...`.

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
from tests.store.builders import KEY, ROOT, build_credentials, keys_of

# These functions run only if a file cannot be renamed. Other tests kill a process in the other functions.
_WRITE_FUNCTIONS = {"replace_staged", "overwrite_private", "_overwrite", "remove_file"}
FILE_NAMES = ["notes.binding.json", "notes.client.json", "notes.meta.json", "notes.json"]


def can_mount() -> bool:
    """True if this user may create bind mounts in a new mount namespace."""
    command = ["unshare", "--mount", "mount", "--bind", "/dev/null", "/dev/null"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def run_on_bind_mounts(verb: str, home: Path, *arguments: str) -> None:
    """Run a verb in a process with bind mounts, or with injected errors if mounts are not allowed."""
    has_mounts = can_mount()
    command = [sys.executable, "-m", "tests.store.bind_mounts", verb, str(home)]
    command = ["unshare", "--mount", *command, "mount"] if has_mounts else [*command, "inject"]
    completed = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr


def bind_mount_files(home: Path, mode: str, names: list[str]) -> Path:
    """Store generation 0 and bind-mount a copy over each file; return the directory of the copies."""
    FileStore(home).save_login(KEY, build_credentials(0))
    folder, sources = home / "mcp-tokens", home / "sources"
    sources.mkdir()
    if mode == "inject":
        inject_mount_errors({str(folder / name) for name in names})
        return folder
    for name in names:
        (sources / name).write_bytes((folder / name).read_bytes())
        (sources / name).chmod(0o600)
        subprocess.run(["mount", "--bind", sources / name, folder / name], check=True)
    return sources


def inject_mount_errors(mounted: set[str]) -> None:
    """Let renames onto these files and removals of these files fail, as they do for mount points."""
    replace, unlink = os.replace, os.unlink

    def refuse_if_mounted(path: object) -> None:
        if os.fspath(str(path)) in mounted:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def replace_unless_mounted(source: str, target: str) -> None:
        refuse_if_mounted(target)
        replace(source, target)

    def unlink_unless_mounted(path: str) -> None:
        refuse_if_mounted(path)
        unlink(path)

    os.replace = replace_unless_mounted  # type: ignore[assignment]
    os.unlink = unlink_unless_mounted  # type: ignore[assignment]


def build_tokens(generation: int) -> Any:
    return build_credentials(generation).tokens


def check_generation(credentials: Credentials) -> int:
    """Return the generation of the credentials; check that all parts have the same one."""
    assert credentials.tokens is not None
    generation = int(credentials.tokens.access_token.reveal().removeprefix("access-"))
    expected = build_credentials(generation)
    assert credentials.tokens.refresh_token == build_tokens(generation).refresh_token
    assert credentials.client is not None
    assert credentials.client.client_id == f"client-{generation}"
    assert credentials.authorization_server == expected.authorization_server
    assert credentials.binding == expected.binding
    return generation


def refresh(home: Path, mode: str) -> None:
    """Refreshed tokens are written into the mounted file, which keeps its inode."""
    sources = bind_mount_files(home, mode, FILE_NAMES[-1:])
    store = FileStore(home)
    inode, version = (sources / FILE_NAMES[-1]).stat().st_ino, store.glance(KEY)
    store.check_can_store(KEY)
    store.save_tokens(KEY, build_tokens(1), build_credentials(0).binding)
    assert store.glance(KEY) != version
    assert (sources / FILE_NAMES[-1]).stat().st_ino == inode
    assert b"refresh-1" in (sources / FILE_NAMES[-1]).read_bytes()
    # Shorter content must not leave the end of the longer content.
    short = build_credentials(0).tokens
    assert short is not None
    store.save_tokens(KEY, short, None)
    assert FileStore(home).read(KEY).credentials.tokens is not None
    assert not [path for path in (home / "mcp-tokens").iterdir() if path.suffix == ".tmp"]


def login(home: Path, mode: str) -> None:
    """A login, a changed binding, a logout and another login work on four mounted files."""
    bind_mount_files(home, mode, FILE_NAMES)
    store = FileStore(home)
    store.save_login(KEY, build_credentials(1))
    assert check_generation(store.read(KEY).credentials) == 1
    binding = build_credentials(1).binding
    assert binding is not None
    store.save_binding(KEY, binding)
    assert store.delete(KEY)
    assert store.read(KEY).credentials == Credentials()
    assert keys_of(store) == []
    assert not store.delete(KEY)
    store.save_login(KEY, build_credentials(2))
    assert check_generation(store.read(KEY).credentials) == 2
    assert keys_of(store) == [KEY]
    assert not [path for path in (home / "mcp-tokens").iterdir() if path.suffix == ".tmp"]


def read_only(home: Path, mode: str) -> None:
    """A file on a read-only mount is detected before anything is written, and does not change."""
    sources = bind_mount_files(home, mode, FILE_NAMES[-1:])
    target = home / "mcp-tokens" / FILE_NAMES[-1]
    if mode == "inject":
        real = os.open

        def open_unless_read_only(path: Any, flags: int, *rest: Any) -> int:
            if str(path) == str(target) and flags & (os.O_RDWR | os.O_WRONLY):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return real(path, flags, *rest)

        os.open = open_unless_read_only  # type: ignore[assignment]
    else:
        subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True)
    before = (sources / FILE_NAMES[-1]).read_bytes()
    store = FileStore(home)
    attempts: list[Callable[[], object]] = [
        lambda: store.check_can_store(KEY),
        lambda: store.save_tokens(KEY, build_tokens(1), None),
        lambda: store.save_login(KEY, build_credentials(1)),
    ]
    for attempt in attempts:
        with pytest.raises(StoreUnwritable) as caught:
            attempt()
        assert "Mount the directory" in caught.value.advice
    assert (sources / FILE_NAMES[-1]).read_bytes() == before
    assert check_generation(FileStore(home).read(KEY).credentials) == 0
    assert not [path for path in (home / "mcp-tokens").iterdir() if path.suffix == ".tmp"]


def kill(home: Path, mode: str, step: str) -> None:
    """A process that is killed at each `step`-th line while it writes in place leaves one whole login."""
    bind_mount_files(home, mode, [FILE_NAMES[1], FILE_NAMES[3]])
    # Only a kill at one of the first lines leaves the old login.
    store, line, generations = FileStore(home), 1 - int(step), list[int]()
    while True:
        line += int(step)
        store.save_login(KEY, build_credentials(0))
        child = os.fork()
        if child == 0:
            kill_at_line(line, store)
        is_dead = os.waitpid(child, 0)[1] != 0
        generations.append(check_generation(FileStore(home).read(KEY).credentials))
        if not is_dead:
            break
    assert line > 40
    assert generations == sorted(generations)
    assert set(generations) == {0, 1}


def kill_at_line(line: int, store: FileStore) -> NoReturn:
    lines_left = line

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal lines_left
        if frame.f_code.co_filename != private_files.__file__ or frame.f_code.co_name not in _WRITE_FUNCTIONS:
            return None
        if event == "line":
            lines_left -= 1
            if lines_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    store.save_login(KEY, build_credentials(1))
    sys.settrace(None)
    os._exit(0)


if __name__ == "__main__":
    verbs: Any = {verb.__name__: verb for verb in (refresh, login, read_only, kill)}
    verbs[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
