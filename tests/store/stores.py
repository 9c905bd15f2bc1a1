"""Every store, by name: the tests of `store.protocol` run against each of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.protocol import Store
from hermes_mcp_auth_remote.values import Clock
from tests.parts.sqlite_store import SqliteStore


class OpenStore(Protocol):
    """Opens another store object of the data in a folder, as another process does."""

    def __call__(self, folder: Path, clock: Clock | None = None) -> Store: ...


def _open_files(folder: Path, clock: Clock | None = None) -> Store:
    # The clock of the files is that of the system.
    return FileStore(folder)


def _open_sqlite(folder: Path, clock: Clock | None = None) -> Store:
    return SqliteStore(folder / "store.db", clock=clock)


def _open_sqlite_without_feed(folder: Path, clock: Clock | None = None) -> Store:
    return SqliteStore(folder / "store.db", clock=clock, knows_changes=False)


WITHOUT_FEED = "sqlite-without-feed"
STORES: dict[str, OpenStore] = {
    "files": _open_files,
    "sqlite": _open_sqlite,
    WITHOUT_FEED: _open_sqlite_without_feed,
}
# The stores whose leases end by the clock, also while their holder lives.
WITH_TIMED_LEASES = tuple(name for name in STORES if name != "files")
OpenAgain = Callable[[], Store]
