from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from tests.requirements import covers
from tests.store.actor import start
from tests.store.given import KEY, credentials_of, login_of

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


def died(home: Path, kind: str) -> list[Credentials]:
    """Return the stored credentials after a kill at each line that stores a login."""
    actor = start("die_everywhere", home, kind)
    said, _ = actor.communicate()
    assert actor.returncode == 0
    lines = int(said)
    assert lines > 100
    return [FileStore(home / str(line)).read(KEY) for line in range(1, lines + 1)]


@covers("killed")
def test_a_writer_killed_at_any_line_leaves_the_old_or_the_new_credentials(tmp_path: Path) -> None:
    found = [whole_generation_of(credentials) for credentials in died(tmp_path, "from elsewhere")]
    assert set(found) == {0, 1}
    # The record is the only commit point: each later death leaves the new credentials.
    assert found == sorted(found)


@covers("killed")
def test_what_hermes_wrote_meets_no_other_issuer_when_a_writer_dies(tmp_path: Path) -> None:
    for credentials in died(tmp_path, "after hermes"):
        if credentials.binding is None:
            # The writer died before it wrote anything.
            credentials = replace(credentials, binding=credentials_of(0).binding)  # noqa: PLW2901
        whole_generation_of(credentials)


@covers("killed")
def test_a_login_at_the_same_issuer_loses_no_session_when_its_writer_dies(tmp_path: Path) -> None:
    seen: set[str] = set()
    for found in died(tmp_path, "again"):
        assert found.tokens is not None
        assert found.tokens.refresh_token is not None
        assert found.client is not None
        assert found.client.client_id == "client-0"
        assert found.authorization_server is not None
        assert found.authorization_server.issuer == "https://as0.example"
        assert found.binding is not None
        seen.add(found.tokens.refresh_token.reveal())
    assert seen == {"refresh-0", "refresh-1"}


def test_what_a_killed_writer_left_behind_goes_with_the_rest(tmp_path: Path) -> None:
    lines = len(died(tmp_path, "from elsewhere"))
    homes = [tmp_path / str(line) / "mcp-tokens" for line in range(1, lines + 1)]
    assert any(name.suffix == ".tmp" for home in homes for name in home.iterdir())
    for home in homes:
        assert FileStore(home.parent).delete(KEY)
        assert {path.name for path in home.iterdir()} <= {"notes.json.refresh.lock"}


def test_a_hundred_writers_killed_at_random_leave_whole_files(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    actor = start("kill", tmp_path, "100")
    assert actor.stdout is not None
    assert actor.stdin is not None
    for _ in range(100):
        said = int(actor.stdout.readline())
        # The store holds the generation that the worker printed, or the next one.
        assert generation_of(store.read(KEY)) in {said, said + 1}
        actor.stdin.write("next\n")
        actor.stdin.flush()
    actor.communicate()
    assert actor.returncode == 0


def test_a_reader_beside_a_writer_never_sees_half_a_file(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of(0))
    actor = start("write", tmp_path)
    seen = {0}
    while len(seen) < 20 and actor.poll() is None:
        seen.add(generation_of(store.read(KEY)))
    actor.kill()
    actor.communicate()
    assert len(seen) == 20


def test_only_one_process_is_inside_the_lock_at_any_time(tmp_path: Path) -> None:
    actors = [start("enter", tmp_path, "25") for _ in range(4)]
    for actor in actors:
        assert actor.stdout is not None
        assert actor.stdout.readline() == "ready\n"
    for actor in actors:
        assert actor.stdin is not None
        actor.stdin.write("go\n")
        actor.stdin.flush()
    for actor in actors:
        actor.communicate()
        assert actor.returncode == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 200
    for entered, left in zip(lines[::2], lines[1::2], strict=True):
        assert entered.startswith("< ")
        assert left == entered.replace("<", ">")
    assert len(Counter(lines)) == 8


def test_a_holder_that_is_killed_frees_the_lock_and_its_file_stays(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    actor = start("hold", tmp_path)
    assert actor.stdout is not None
    assert actor.stdout.readline() == "held\n"
    path = tmp_path / "mcp-tokens" / "notes.json.refresh.lock"
    inode = path.stat().st_ino
    assert not store.lock(KEY).try_acquire()
    actor.kill()
    actor.communicate()
    lock = store.lock(KEY)
    assert lock.try_acquire()
    lock.release()
    assert path.stat().st_ino == inode


def test_of_eight_processes_that_claim_one_login_exactly_one_wins(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.logins.add(login_of())
    actors = [start("claim", tmp_path) for _ in range(8)]
    for actor in actors:
        assert actor.stdout is not None
        assert actor.stdout.readline() == "ready\n"
    for actor in actors:
        assert actor.stdin is not None
        actor.stdin.write("go\n")
        actor.stdin.flush()
    answers = {actor.pid: actor.communicate()[0].strip() for actor in actors}
    assert Counter(answers.values()) == {"won": 1, "login_already_used": 7}
    login = store.logins.get(login_of().id)
    assert login.status == "exchanging"
    assert answers[int(login.failure_code or "0")] == "won"


def test_no_change_of_eight_processes_is_lost(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.logins.add(login_of())
    actors = [start("count", tmp_path, "10") for _ in range(8)]
    for actor in actors:
        actor.communicate("go\n")
        assert actor.returncode == 0
    assert store.logins.get(login_of().id).paste_attempts == 80


@pytest.mark.parametrize("limit", ["0", "100", "200"])
def test_a_full_disk_leaves_what_was_stored_and_no_temporary_file(tmp_path: Path, limit: str) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of(0))
    actor = start("fill", tmp_path, limit)
    said, _ = actor.communicate()
    assert "could not be written" in said
    assert str(tmp_path) in said
    kept = store.read(KEY).tokens
    assert kept is not None
    assert kept.access_token.reveal() == "access-0"
    assert not [path for path in (tmp_path / "mcp-tokens").iterdir() if path.suffix == ".tmp"]
