from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from tests.requirements import covers
from tests.store.builders import KEY, build_credentials, build_login
from tests.store.worker import start_worker

pytestmark = pytest.mark.slow


def generation_of(credentials: Credentials) -> int:
    """Return the tokens' generation; check that no part belongs to another generation."""
    tokens, client, server = credentials.tokens, credentials.client, credentials.authorization_server
    assert tokens is not None
    _, token = tokens.access_token.reveal().split("-")
    assert tokens.refresh_token is not None
    assert tokens.refresh_token.reveal() == f"refresh-{token}"
    # RFC 9700 section 4.4: send a refresh token only to its own issuer. The store omits newer parts.
    assert client is None or client.client_id == f"client-{token}"
    assert server is None or server.issuer == f"https://as{token}.example"
    assert credentials.binding is not None
    assert credentials.binding.client_id == f"client-{token}"
    return int(token)


def whole_generation_of(credentials: Credentials) -> int:
    """Return the generation; check that no part is missing or of another generation."""
    assert credentials.client is not None
    assert credentials.authorization_server is not None
    return generation_of(credentials)


# A fork for each line takes ten seconds.
with_steps = pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.soak)])


def kill_at_lines(home: Path, kind: str, step: int) -> dict[Path, Credentials]:
    """Kill a writer at each `step`-th line that stores a login; return the credentials by their homes."""
    worker = start_worker("die_everywhere", home, kind, str(step))
    output, _ = worker.communicate()
    assert worker.returncode == 0
    last_line = int(output)
    assert last_line > 100
    homes = [home / str(line) for line in range(step, last_line + 1, step)]
    return {path: FileStore(path).read(KEY).credentials for path in homes}


@covers("killed")
@with_steps
def test_a_writer_killed_at_any_line_leaves_the_old_or_the_new_credentials(tmp_path: Path, step: int) -> None:
    credentials_by_home = kill_at_lines(tmp_path, "from elsewhere", step)
    generations = [whole_generation_of(credentials) for credentials in credentials_by_home.values()]
    assert set(generations) == {0, 1}
    # The record is the only commit point. If the process dies later, the new credentials remain.
    assert generations == sorted(generations)
    # A deletion removes what the killed writer left.
    folders = [home / "mcp-tokens" for home in credentials_by_home]
    assert any(path.suffix == ".tmp" for folder in folders for path in folder.iterdir())
    for folder in folders:
        assert FileStore(folder.parent).delete(KEY)
        assert {path.name for path in folder.iterdir()} <= {"notes.json.refresh.lock"}


@covers("killed")
@with_steps
def test_a_killed_writer_does_not_pair_hermes_tokens_with_another_issuer(tmp_path: Path, step: int) -> None:
    for credentials in kill_at_lines(tmp_path, "after hermes", step).values():
        if credentials.binding is None:
            # The writer died before it wrote anything.
            credentials = replace(credentials, binding=build_credentials(0).binding)  # noqa: PLW2901
        whole_generation_of(credentials)


@covers("killed")
@with_steps
def test_a_writer_killed_during_a_repeated_login_keeps_a_session(tmp_path: Path, step: int) -> None:
    refresh_tokens: set[str] = set()
    for credentials in kill_at_lines(tmp_path, "again", step).values():
        assert credentials.tokens is not None
        assert credentials.tokens.refresh_token is not None
        assert credentials.client is not None
        assert credentials.client.client_id == "client-0"
        assert credentials.authorization_server is not None
        assert credentials.authorization_server.issuer == "https://as0.example"
        assert credentials.binding is not None
        refresh_tokens.add(credentials.tokens.refresh_token.reveal())
    assert refresh_tokens == {"refresh-0", "refresh-1"}


@pytest.mark.parametrize("times", [20, pytest.param(100, marks=pytest.mark.soak)])
def test_killed_writers_leave_complete_files(tmp_path: Path, times: int) -> None:
    store = FileStore(tmp_path)
    worker = start_worker("kill", tmp_path, str(times))
    assert worker.stdout is not None
    assert worker.stdin is not None
    for _ in range(times):
        output = int(worker.stdout.readline())
        # The store holds the generation that the worker printed, or the next one.
        assert generation_of(store.read(KEY).credentials) in {output, output + 1}
        worker.stdin.write("next\n")
        worker.stdin.flush()
    worker.communicate()
    assert worker.returncode == 0


def test_a_reader_beside_a_writer_sees_only_complete_files(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials(0))
    worker = start_worker("write", tmp_path)
    generations = {0}
    while len(generations) < 20 and worker.poll() is None:
        generations.add(generation_of(store.read(KEY).credentials))
    worker.kill()
    worker.communicate()
    assert len(generations) == 20


def test_only_one_process_holds_the_lock_at_any_time(tmp_path: Path) -> None:
    workers = [start_worker("enter", tmp_path, "25") for _ in range(4)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 200
    for acquired, released in zip(lines[::2], lines[1::2], strict=True):
        assert acquired.startswith("< ")
        assert released == acquired.replace("<", ">")
    assert len(Counter(lines)) == 8


def test_a_killed_holder_releases_the_lock_and_its_file_stays(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    worker = start_worker("hold", tmp_path)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "held\n"
    path = tmp_path / "mcp-tokens" / "notes.json.refresh.lock"
    inode = path.stat().st_ino
    assert not store.lock(KEY).try_acquire()
    worker.kill()
    worker.communicate()
    lock = store.lock(KEY)
    assert lock.try_acquire()
    lock.release()
    assert path.stat().st_ino == inode


def test_exactly_one_of_eight_processes_claims_a_login(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.logins.add(build_login())
    workers = [start_worker("claim", tmp_path) for _ in range(8)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    answers = {actor.pid: actor.communicate()[0].strip() for actor in workers}
    assert Counter(answers.values()) == {"won": 1, "login_already_used": 7}
    login = store.logins.get(build_login().id)
    assert login.status == "exchanging"
    assert answers[int(login.failure_code or "0")] == "won"


def test_concurrent_changes_of_eight_processes_are_not_lost(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.logins.add(build_login())
    workers = [start_worker("count", tmp_path, "10") for _ in range(8)]
    for worker in workers:
        worker.communicate("go\n")
        assert worker.returncode == 0
    assert store.logins.get(build_login().id).paste_attempts == 80


@pytest.mark.parametrize("limit", ["0", "100", "200"])
def test_a_full_disk_keeps_the_stored_login_and_no_temporary_file(tmp_path: Path, limit: str) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials(0))
    worker = start_worker("fill", tmp_path, limit)
    output, _ = worker.communicate()
    assert "could not be written" in output
    assert str(tmp_path) in output
    tokens = store.read(KEY).credentials.tokens
    assert tokens is not None
    assert tokens.access_token.reveal() == "access-0"
    assert not [path for path in (tmp_path / "mcp-tokens").iterdir() if path.suffix == ".tmp"]
