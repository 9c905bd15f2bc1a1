"""Run the command line as a user does: in its own process, with its own home, against the demo's servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hermes_mcp_auth_remote import cli
from tests.json_events import check_event
from tests.parts import fork_client
from tests.parts.authorization_server import Demo

MODULE = "hermes_mcp_auth_remote.cli"
COMMAND = (sys.executable, "-m", MODULE)
# The server process imports these modules, so its forks start faster.
PRELOADED_MODULES = (
    *(f"{MODULE}.{path.stem}" for path in sorted(Path(cli.__file__).parent.glob("[a-z]*.py"))),
    "hermes_mcp_auth_remote.http.client",
    "hermes_mcp_auth_remote.http.pooled",
    "hermes_mcp_auth_remote.service.start_login",
    "hermes_mcp_auth_remote.service.default",
)
# `serve` runs in the forks of a second server, because the library of Telegram takes long to import.
SERVE_MODULES = (*PRELOADED_MODULES, "gateway_hooks.telegram.bot")
TIMEOUT_SECONDS = 40


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The exit code and the output of a command."""

    exit_code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """Parse standard output as events of docs/json.md; raises ValueError if a line is not JSON."""
        events: list[dict[str, Any]] = [json.loads(line) for line in self.out.splitlines()]
        for event in events:
            check_event(event)
        return events


@dataclass(frozen=True, slots=True)
class Cli:
    """Runs commands, and fails if a command writes a secret or a traceback."""

    home: Path
    secrets: Collection[str] = field(repr=False)
    env: Mapping[str, str] = field(default_factory=dict)

    def configure(self, url: str, *, name: str = "demo", **oauth: object) -> None:
        """Write a config.yaml with one server."""
        entry = {"url": url, "auth": "oauth", "oauth": oauth}
        self.write_config(json.dumps({"mcp_servers": {name: entry}}))

    def write_config(self, text: str) -> None:
        """Write a config.yaml; JSON is YAML too."""
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "config.yaml").write_text(text, "utf-8")

    def environ(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment variables of a command."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        # Printed commands begin with the name of the program only if the shell finds it.
        inherited["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
        own_variables = {"HERMES_HOME": str(self.home), "TZ": "UTC", "LANG": "C.UTF-8"}
        return inherited | own_variables | dict(self.env) | dict(extra or {})

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        may_show: Collection[str] = (),
    ) -> CommandResult:
        """Run a command to its end. The command may print the secrets in `may_show`.

        The command runs in a fork of a process that has imported all modules. If `env` changes how Python
        starts, the command runs in a new interpreter.
        """
        environ = self.environ(env)
        if self._can_fork(env):
            path = fork_client.start_fork_server(PRELOADED_MODULES)
            code, out, err = fork_client.run_program(
                path, (MODULE, *arguments), environ, stdin, TIMEOUT_SECONDS
            )
        else:
            process = subprocess.run(
                [*COMMAND, *arguments],
                input=stdin,
                capture_output=True,
                env=environ,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
            code, out, err = process.returncode, process.stdout, process.stderr
        result = CommandResult(code, out.decode("utf-8", "replace"), err.decode(errors="replace"))
        self.check_output(result.out + result.err, may_show)
        return result

    def _can_fork(self, env: Mapping[str, str] | None) -> bool:
        return fork_client.can_fork_with({**self.env, **(env or {})})

    def _fork_command(self, arguments: tuple[str, ...], env: Mapping[str, str] | None) -> fork_client.Process:
        modules = SERVE_MODULES if arguments[0] == "serve" else PRELOADED_MODULES
        return fork_client.Process(
            fork_client.start_fork_server(modules), (MODULE, *arguments), self.environ(env)
        )

    @contextmanager
    def start(
        self, *arguments: str, env: Mapping[str, str] | None = None, in_fork: bool = True
    ) -> Iterator[RunningCommand]:
        """Start a command, in a fork as `run` does if `in_fork` is set. Kill it when the block ends."""
        process = (
            # fork_client.Process has the members that `RunningCommand` uses.
            cast("subprocess.Popen[bytes]", self._fork_command(arguments, env))
            if in_fork and self._can_fork(env)
            else subprocess.Popen(
                [*COMMAND, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.environ(env),
            )
        )
        command = RunningCommand(process, self)
        try:
            yield command
        finally:
            process.kill()
            process.communicate()
            command.watchdog.cancel()

    def check_output(self, text: str, may_show: Collection[str] = ()) -> None:
        """Fail if `text` holds a traceback or a secret. The failure does not show the secret."""
        assert "Traceback" not in text, text
        leaked = [secret for secret in list(self.secrets) if len(secret) > 7 and secret in text]
        assert len([secret for secret in leaked if secret not in may_show]) == 0, (
            "the command printed a secret"
        )

    def credential_files(self) -> dict[str, bytes]:
        """Return the stored credential files, without locks and logins."""
        root = self.home / "mcp-tokens"
        paths = [path for path in sorted(root.rglob("*.json")) if path.parent.name != "logins"]
        return {str(path.relative_to(root)): path.read_bytes() for path in paths}

    def stored_tokens(self, name: str = "demo") -> dict[str, Any]:
        """Return the stored tokens of a server."""
        tokens: dict[str, Any] = json.loads((self.home / "mcp-tokens" / f"{name}.json").read_bytes())
        return tokens

    def change_stored_tokens(self, name: str = "demo", **members: object) -> None:
        """Change members of the stored tokens; None removes a member."""
        changed = {**self.stored_tokens(name), **members}
        remaining = {key: value for key, value in changed.items() if value is not None}
        (self.home / "mcp-tokens" / f"{name}.json").write_text(json.dumps(remaining), "utf-8")


class RunningCommand:
    """A running command that writes JSON lines."""

    def __init__(self, process: subprocess.Popen[bytes], cli: Cli) -> None:
        self.process = process
        self._cli = cli
        # If a line never comes, the test must fail and not hang.
        self.watchdog = threading.Timer(TIMEOUT_SECONDS, process.kill)
        self.watchdog.start()

    def read_event(self) -> dict[str, Any]:
        """Wait for the next JSON line: an event of docs/json.md, or a JSON-RPC message of `connect`."""
        event = self.read_json()
        if "jsonrpc" not in event:
            check_event(event)
        return event

    def read_json(self) -> dict[str, Any]:
        """Wait for the next JSON line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        if not line:
            raise AssertionError(f"The command wrote no event: {self.wait_for_exit()}")
        self._cli.check_output(line)
        document: dict[str, Any] = json.loads(line)
        return document

    def send(self, text: str | bytes) -> None:
        """Write to the command's standard input, and leave it open."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() if isinstance(text, str) else text)
        self.process.stdin.flush()

    def send_signal(self, signal_number: signal.Signals) -> None:
        self.process.send_signal(signal_number)

    def wait_for_exit(self, stdin: bytes | None = None) -> CommandResult:
        """Close the standard input and wait for the exit; return the output since the last event."""
        out, err = self.process.communicate(stdin)
        result = CommandResult(self.process.returncode, out.decode(), err.decode())
        self._cli.check_output(result.out + result.err)
        return result


def log_in(cli: Cli, demo: Demo, *arguments: str) -> CommandResult:
    """Log in with a paste and `--json`, as a program does."""
    from tests.consent_form import approve

    with cli.start("login", *(arguments or ("demo",)), "--json") as login:
        url = login.read_event()["authorization_url"]
        login.send(approve(url) + "\n")
        result = login.wait_for_exit()
    assert result.exit_code == 0, result
    return result
