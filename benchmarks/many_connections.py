"""Measure `status`, and a check of reminders in which nothing has changed, with 10 000 stored connections."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.login_home import COMMAND, PYTHON, credentials_for, environ_for
from benchmarks.measurement import Figure, Measure, Scale, command_time_measure, measure_interleaved
from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.dialog.platform import Capabilities, Chat, Sender
from gateway_hooks.dialog.policy import AllowList
from gateway_hooks.runtime.config_servers import ConfigServers
from gateway_hooks.runtime.dispatcher import Dispatcher
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.files.paths import OWNERS_FOLDER, owner_folder
from hermes_mcp_auth_remote.values import CredentialKey

CONNECTION_COUNT, MANY_SERVERS = 10_000, 800
STATUS_GOAL_SECONDS, PASS_GOAL_SECONDS = 3.0, 0.1

_READ_ALL_CODE = """
import json, pathlib, sys
for path in pathlib.Path(sys.argv[1]).rglob("*.json"):
    json.loads(path.read_bytes())
"""


def measure_figures(scale: Scale) -> list[Figure]:
    """Measure both, each with its floor: open each file, or `stat` each folder."""
    count = scale.choose_size(CONNECTION_COUNT, 20)
    many_servers = scale.choose_size(MANY_SERVERS, 5)
    figures: list[Figure] = []
    for what, server_count, id_count in (
        (f"{count} connections", 1, 0),
        (f"{count} connections, {count} allowed ids", 1, count),
        (f"{count} connections, {many_servers} servers", many_servers, 0),
    ):
        with home_with_connections(count, server_count, id_count) as home:
            medians = measure_interleaved(_status_measures(home), scale)
            goal = _goal_ratio(STATUS_GOAL_SECONDS * 1000, medians["floor"])
            figures.append(
                Figure(f"status, {what}", "ms", medians["ours"], "reading the files", medians["floor"], goal)
            )
            with asyncio.Runner() as runner:
                passes = measure_interleaved(_pass_measures(home, runner), scale, rounds_factor=2)
            goal = _goal_ratio(PASS_GOAL_SECONDS * 1000, passes["floor"])
            figures.append(
                Figure(
                    f"reminder pass without a change, {what}",
                    "ms CPU",
                    passes["ours"],
                    "a stat of each folder",
                    passes["floor"],
                    goal,
                )
            )
    return figures


@contextmanager
def home_with_connections(count: int, server_count: int, id_count: int) -> Iterator[Path]:
    """Make a home in which each of `count` chat users is connected to one of the servers."""
    with tempfile.TemporaryDirectory(prefix="mcp-auth-bench-") as folder:
        home = Path(folder)
        names = [f"server-{number}" for number in range(server_count)]
        document: dict[str, object] = {
            "mcp_servers": {name: {"url": f"https://{name}.example/mcp", "auth": "oauth"} for name in names},
            "mcp_auth_chats": {
                "owners": "per_user",
                "telegram": {"allow": [str(1_000_000 + number) for number in range(id_count)]},
            },
        }
        # JSON is YAML.
        (home / "config.yaml").write_text(json.dumps(document), encoding="utf-8")
        for number in range(count):
            key = CredentialKey(names[number % server_count], f"telegram:{1_000_000 + number}")
            _write_connection(home, key)
        yield home


def _write_connection(home: Path, key: CredentialKey) -> None:
    """Write the files of a login as the store does, without syncing each of them to the disk."""
    template = _template_files(key.server_name)
    folder = home / "mcp-tokens" / OWNERS_FOLDER / owner_folder(key.owner or "")
    for parent in (*reversed(folder.parents[:2]), folder):
        parent.mkdir(mode=0o700, exist_ok=True)
    for name, content in template.items():
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, content)
        os.close(descriptor)


_templates = dict[str, dict[str, bytes]]()


def _template_files(server_name: str) -> dict[str, bytes]:
    if server_name not in _templates:
        with tempfile.TemporaryDirectory(prefix="mcp-auth-bench-") as folder:
            home = Path(folder)
            url = f"https://{server_name}.example/mcp"
            FileStore(home).save_login(CredentialKey(server_name), credentials_for(server_name, url, ""))
            paths = sorted((home / "mcp-tokens").glob("*.json"))
            _templates[server_name] = {path.name: path.read_bytes() for path in paths}
    return _templates[server_name]


def _status_measures(home: Path) -> dict[str, Measure]:
    env = environ_for(home)
    floor = (PYTHON, "-c", _READ_ALL_CODE, str(home / "mcp-tokens"))
    return {
        "ours": command_time_measure((COMMAND, "status"), env),
        "floor": command_time_measure(floor, env),
    }


def _pass_measures(home: Path, runner: asyncio.Runner) -> dict[str, Measure]:
    dispatcher = Dispatcher(
        AuthService(home), _SilentPlatform(), ConfigServers(home), AllowList(owners="per_user"), ENGLISH
    )

    def stat_folders() -> None:
        with os.scandir(home / "mcp-tokens" / OWNERS_FOLDER) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)

    reminders = dispatcher.reminders
    # The next check would read a very recent change again. So wait until no change is recent.
    time.sleep(0.1)
    runner.run(reminders.check_sessions())
    return {
        "ours": _cpu_milliseconds_measure(lambda: runner.run(reminders.check_sessions())),
        "floor": _cpu_milliseconds_measure(stat_folders),
    }


def _cpu_milliseconds_measure(work: Callable[[], None]) -> Measure:
    def measure() -> float:
        started_at = time.process_time()
        work()
        return (time.process_time() - started_at) * 1000

    return measure


def _goal_ratio(goal: float, floor: float) -> float:
    """Return the ratio of a goal to the measured floor; both are times in the same unit."""
    return goal / floor


class _SilentPlatform:
    """A platform on which no message is sent."""

    name, bot_id, capabilities = "telegram", "1", Capabilities()

    def private_chat(self, user_id: str) -> Chat:
        raise AssertionError(f"Nothing has changed for {user_id}.")

    async def fetch_sender(self, user_id: str) -> Sender:
        return Sender(user_id)

    def deep_link(self, payload: str) -> str | None:
        del payload
        return None
