"""The real Hermes gateway in its own virtual environment, with a HERMES_HOME of the test.

    api.start(anna)                          # first: Hermes loses messages that directly follow a Start
    with run_gateway(home, telegram=api, model=fake_model, allowed=[anna.id]) as hermes:
        api.say(anna, "Good morning.")
        hermes.logs()                        # what the process printed and logged
        hermes.find_in_home(secret)          # all files and tables below HERMES_HOME that contain a text

The gateway answers only the users in `allowed`. All its servers are on loopback. `plugins` are names of
installed plugins, or folders that this module links into HERMES_HOME/plugins.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from tests.parts.bot_api import BotApi
from tests.parts.discord_api import DiscordApi
from tests.parts.fake_model import MODEL_NAME, FakeModel
from tests.parts.requirements import MissingDependency

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venvs" / "hermes" / "bin" / "python"
MAIN = Path(__file__).with_name("hermes_main.py")
# For each layout, the command that runs `hermes`: 0.19 is the real Hermes, 0.21 is
# tests/parts/hermes_stand_in.
COMMANDS = {
    "0.19": (str(PYTHON), str(MAIN)),
    "0.21": (sys.executable, str(Path(__file__).with_name("hermes_stand_in"))),
}
START_SECONDS = 90.0  # about 5 s on an idle machine, mostly imports
STOP_SECONDS = 20.0
OUTPUT_FILE = "gateway-output.txt"
# Hermes logs this line last when it starts; by then it has answered the queued messages.
READY_LOG_LINE = "Gateway housekeeping started"
# Hermes looks up fallback addresses of Telegram on the internet unless the settings have one.
UNUSED_FALLBACK_IP = "149.154.167.220"
Settings = Mapping[str, Any]


@dataclass(slots=True)
class Gateway:
    """One gateway. `settings` becomes config.yaml, `secrets` becomes .env. `restart` replaces `process`."""

    home: Path
    settings: dict[str, Any]
    secrets: dict[str, str]
    environment: dict[str, str]
    is_ready: Callable[[], bool]
    process: subprocess.Popen[bytes] | None = None
    layout: str = "0.19"
    plugins: list[Path] = field(default_factory=list[Path])
    verbosity: str = "-v"
    output_offset: int = 0
    # How to run `hermes`; None for the command of the layout.
    own_command: tuple[str, ...] | None = None

    @property
    def command(self) -> tuple[str, ...]:
        return self.own_command or COMMANDS[self.layout]

    def start(self) -> None:
        """Write config.yaml and .env, start the process and wait until it listens to its platforms."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.write_settings()
        lines = [f"{name}={value}\n" for name, value in self.secrets.items()]
        (self.home / ".env").write_text("".join(lines))
        (self.home / ".env").chmod(0o600)
        for folder in self.plugins:
            link = self.home / "plugins" / folder.name
            link.parent.mkdir(exist_ok=True)
            if not link.exists():
                link.symlink_to(folder)
        # The file may contain the output of an earlier process; skip it.
        (self.home / OUTPUT_FILE).touch()
        self.output_offset = (self.home / OUTPUT_FILE).stat().st_size
        with (self.home / OUTPUT_FILE).open("ab") as output:
            self.process = subprocess.Popen(
                [*self.command, "gateway", "run", self.verbosity],
                cwd=self.home,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not (READY_LOG_LINE in self.output()[self.output_offset :] and self.is_ready()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"The gateway did not start:\n{self.output()[-4000:]}")
            time.sleep(0.05)

    def write_settings(self) -> None:
        """Write config.yaml from `settings`. A running gateway rereads mcp_servers on /reload-mcp."""
        draft = self.home / "config.yaml.draft"
        draft.write_text(yaml.safe_dump(self.settings))
        draft.replace(self.home / "config.yaml")

    @property
    def is_running(self) -> bool:
        """Return True while the process runs."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """Send SIGTERM, wait, then kill the process group. Do nothing if it has stopped."""
        if self.process is None:
            return
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill the process and its children at once."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def restart(self) -> None:
        """Stop and start again with the same HERMES_HOME and the current `settings`."""
        self.stop()
        self.start()

    def run_command(
        self, *arguments: str, stdin: str = "", seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run `hermes ARGUMENTS` with the same HERMES_HOME while the gateway runs."""
        return subprocess.run(
            [*self.command, *arguments],
            cwd=self.home,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def output(self) -> str:
        """Return what the process wrote to its terminal."""
        path = self.home / OUTPUT_FILE
        return path.read_text(errors="replace") if path.exists() else ""

    def logs(self) -> str:
        """Return the process's output and all log files."""
        files = sorted((self.home / "logs").rglob("*.log"))
        return self.output() + "".join(path.read_text(errors="replace") for path in files)

    def state_db_text(self) -> str:
        """Return all cells of state.db, one per line."""
        return "\n".join(text for _, text in _cells(self.home / "state.db"))

    def transcripts(self) -> str:
        """Return the contents of all session files."""
        files = [path for path in sorted((self.home / "sessions").rglob("*")) if path.is_file()]
        return "".join(path.read_text(errors="replace") for path in files)

    def find_in_home(self, text: str) -> list[str]:
        """Return the files and database tables below HERMES_HOME that contain a text."""
        return self.find_any_in_home([text])

    def find_any_in_home(self, texts: Collection[str]) -> list[str]:
        """Return the files and database tables below HERMES_HOME that contain one of these texts.

        The result does not contain the texts. The gateway may be running: this also reads SQLite's
        write-ahead log.
        """
        encoded_texts = [text.encode() for text in texts]
        places: list[str] = []
        for path in sorted(self.home.rglob("*")):
            if not path.is_file() or path.is_symlink():
                continue
            name = str(path.relative_to(self.home))
            # A running gateway creates and deletes files.
            with suppress(FileNotFoundError):
                content = path.read_bytes()
                if any(encoded in content for encoded in encoded_texts):
                    places.append(name)
                if content.startswith(b"SQLite format 3\0"):
                    tables = (table for table, cell in _cells(path) if any(text in cell for text in texts))
                    places += [f"{name}: {table}" for table in tables]
        return list(dict.fromkeys(places))


def _cells(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (table, content) of all cells of a database. Another process may write to it."""
    if not path.exists():
        return
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            try:
                for row in database.execute(f'SELECT * FROM "{table}"'):
                    yield from ((table, _cell_text(cell)) for cell in row)
            except sqlite3.OperationalError as error:
                # Some shadow tables of a full-text index cannot be read: skip them. A locked table can be
                # read later: raise the error, so that the table does not count as searched.
                if "locked" in str(error):
                    raise


def _cell_text(cell: object) -> str:
    return cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell)


@contextmanager
def run_gateway(
    home: Path,
    *,
    model: FakeModel,
    telegram: BotApi | None = None,
    discord: DiscordApi | None = None,
    mcp_servers: Settings | None = None,
    plugins: Sequence[Path | str] = (),
    allowed: Sequence[int | str] = (),
    settings: Settings | None = None,
    secrets: Mapping[str, str] | None = None,
    verbosity: str = "-v",
    layout: str = "0.19",
    command: tuple[str, ...] | None = None,
) -> Iterator[Gateway]:
    """Run the gateway until the block ends. Merge `settings` into config.yaml, section by section.

    `layout` is "0.19" for the real Hermes, "0.21" for the stand-in of a later one. `command` is the `hermes`
    of another installation. `secrets` are additional lines of .env. `verbosity` is Hermes's option: `-v`
    prints INFO, `-vv` DEBUG.
    """
    if layout == "0.19" and not PYTHON.exists():
        raise MissingDependency("Hermes Agent is not installed: run `make .venvs/hermes/.stamp`.")
    names = [plugin if isinstance(plugin, str) else plugin.name for plugin in plugins]
    config: dict[str, Any] = {
        # If the context length is not set, Hermes asks a server on the internet for it.
        "model": {
            "default": MODEL_NAME,
            "provider": "custom",
            "base_url": model.url,
            "api_key": "none",
            "context_length": 200_000,
        },
        "platforms": {},
        "mcp_servers": dict(mcp_servers or {}),
        "plugins": {"enabled": names},
        # Without this setting, Hermes downloads a scanner of terminal commands when it starts.
        "security": {"tirith_enabled": False},
    }
    allowed_ids = ",".join(str(user_id) for user_id in allowed)
    env_file = {"HERMES_TELEGRAM_DISABLE_FALLBACK_IPS": "1", **(secrets or {})}
    environment = {"HERMES_HOME": str(home), "HOME": str(home), "PATH": "/usr/bin:/bin", "NO_COLOR": "1"}
    if telegram:
        env_file |= {"TELEGRAM_BOT_TOKEN": telegram.token, "TELEGRAM_ALLOWED_USERS": allowed_ids}
        extra = {
            "base_url": telegram.base_url,
            "base_file_url": telegram.base_file_url,
            "fallback_ips": [UNUSED_FALLBACK_IP],
        }
        config["platforms"]["telegram"] = {"enabled": True, "extra": extra}
    if discord:
        env_file |= {"DISCORD_BOT_TOKEN": discord.token, "DISCORD_ALLOWED_USERS": allowed_ids}
        # Register all commands in one request. The default sends one request per command, for minutes.
        env_file["DISCORD_COMMAND_SYNC_POLICY"] = "bulk"
        config["platforms"]["discord"] = {"enabled": True, "extra": {}}
        environment |= {
            "HERMES_TEST_DISCORD_URL": discord.url,
            "HERMES_TEST_DISCORD_GATEWAY": discord.gateway_url,
        }

    running_gateway = Gateway(
        home,
        _merge_settings(config, settings or {}),
        env_file,
        environment,
        lambda: telegram is None or telegram.is_polling,
        layout=layout,
        own_command=command,
        plugins=[plugin for plugin in plugins if isinstance(plugin, Path)],
        verbosity=verbosity,
    )
    try:
        running_gateway.start()
        yield running_gateway
    finally:
        running_gateway.kill()


def _merge_settings(base: Settings, overrides: Settings) -> dict[str, Any]:
    merged = dict(base)
    for name, value in overrides.items():
        nested = merged.get(name)
        are_both_mappings = isinstance(value, Mapping) and isinstance(nested, Mapping)
        merged[name] = (
            _merge_settings(cast("Settings", nested), cast("Settings", value)) if are_both_mappings else value
        )
    return merged
