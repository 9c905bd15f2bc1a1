"""The file of sent notices: persistent, private, changed under a lock, refused if it is corrupt."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import StoreCorrupt, StoreUnsafe
from hermes_mcp_auth_remote.store.files.login_files import LoginFiles
from hermes_mcp_auth_remote.store.files.record_files import NoticeFile
from hermes_mcp_auth_remote.store.protocol import Notice
from hermes_mcp_auth_remote.store.record_codec import notices_document
from hermes_mcp_auth_remote.values import CredentialKey

KEY = CredentialKey("notes", "telegram:7")
NOTICE = Notice("telegram", "7", KEY, is_over=True, at=1.25, of_tokens=1.5, message="12")


def test_without_a_file_there_are_no_notices_and_none_is_created(tmp_path: Path) -> None:
    assert NoticeFile(tmp_path / "mcp-tokens").list_all() == []
    assert list(tmp_path.iterdir()) == []


def test_notices_are_stored_in_a_private_file_that_is_not_a_login(tmp_path: Path) -> None:
    root = tmp_path / "mcp-tokens"
    other = Notice("discord", "8", CredentialKey("notes"), is_over=False, at=2.0)
    for notice in (NOTICE, other):
        assert NoticeFile(root).replace(None, notice)
    assert NoticeFile(root).list_all() == [NOTICE, other]
    file = root / "logins" / ".notices.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert LoginFiles(root).list_all() == []
    LoginFiles(root).remove_expired(1e12)
    assert NoticeFile(root).list_all() == [NOTICE, other]


def test_an_unchanged_list_is_not_written(tmp_path: Path) -> None:
    file = NoticeFile(tmp_path)
    file.replace(None, NOTICE)
    before = (tmp_path / "logins" / ".notices.json").stat().st_ino
    assert not file.replace(None, replace(NOTICE, message="13"))
    assert (tmp_path / "logins" / ".notices.json").stat().st_ino == before


def test_concurrent_changes_are_not_lost(tmp_path: Path) -> None:
    def add(number: int) -> None:
        assert NoticeFile(tmp_path).replace(None, replace(NOTICE, user=str(number)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert sorted(int(notice.user) for notice in NoticeFile(tmp_path).list_all()) == list(range(40))


def test_ten_thousand_users_can_have_a_notice(tmp_path: Path) -> None:
    root = tmp_path / "mcp-tokens"
    notices = [
        replace(NOTICE, user=str(number), key=CredentialKey("a-long-server-name", f"telegram:{number}"))
        for number in range(1_000_000_000, 1_000_010_000)
    ]
    assert NoticeFile(root).replace(None, notices[0])
    document = notices_document(notices[:-1])
    (root / "logins" / ".notices.json").write_text(json.dumps(document))
    assert NoticeFile(root).replace(None, notices[-1])
    assert NoticeFile(root).list_all() == notices


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        json.dumps({"version": 1}),
        json.dumps({"version": 9, "notices": []}),
        json.dumps({"version": 1, "notices": {}}),
        json.dumps({"version": 1, "notices": [1]}),
        json.dumps({"version": 1, "notices": [{"platform": "telegram"}]}),
        json.dumps({"version": 1, "notices": [{"key": {"server": 1}}]}),
    ],
)
def test_a_corrupt_file_is_refused_and_not_changed(tmp_path: Path, text: str) -> None:
    file = NoticeFile(tmp_path)
    file.replace(None, NOTICE)
    path = tmp_path / "logins" / ".notices.json"
    path.write_text(text)
    with pytest.raises(StoreCorrupt, match="notices"):
        file.list_all()
    with pytest.raises(StoreCorrupt):
        file.replace(NOTICE, None)
    assert path.read_text() == text


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "logins").mkdir(mode=0o700)
    (tmp_path / "elsewhere").write_text("{}")
    (tmp_path / "logins" / ".notices.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnsafe):
        NoticeFile(tmp_path).list_all()
