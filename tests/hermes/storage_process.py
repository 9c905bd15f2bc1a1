"""Runs scripts with Hermes's storage class in Hermes's environment, each script in its own process.

A parent process imports the class (this takes a second) and forks a child for each script.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.parts.hermes_gateway import PYTHON
from tests.parts.requirements import MissingDependency

# A script uses the variable `storage` (the storage of a server), and prints its result.
PARENT_SCRIPT = """
import asyncio, contextlib, fcntl, io, json, os, sys
from mcp.shared.auth import OAuthClientInformationFull, OAuthMetadata, OAuthToken
from tools.mcp_oauth import HermesTokenStorage

def run(job):
    os.chdir(job["home"])
    os.environ.update(HERMES_HOME=job["home"], HOME=job["home"])
    names = {**globals(), "storage": HermesTokenStorage(job["server"]), "server": job["server"]}
    exec(job["script"], names)

for line in sys.stdin:
    child = os.fork()
    if not child:
        output = io.StringIO()
        try:
            with contextlib.redirect_stdout(output):
                run(json.loads(line))
        except BaseException as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
            os._exit(1)
        print(json.dumps({"output": output.getvalue()}), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""

READ_SCRIPT = """
def as_json(value):
    return None if value is None else value.model_dump(mode="json", exclude_none=True)
print(json.dumps({
    "tokens": as_json(asyncio.run(storage.get_tokens())),
    "client": as_json(asyncio.run(storage.get_client_info())),
    "metadata": as_json(storage.load_oauth_metadata()),
}))
"""

# Holds the lock until another line arrives on stdin.
LOCK_SCRIPT = """
path = os.path.join(os.environ["HERMES_HOME"], "mcp-tokens", server + ".json.refresh.lock")
file = open(path, "a")
fcntl.flock(file, fcntl.LOCK_EX)
print(json.dumps({"output": "locked"}), file=sys.__stdout__, flush=True)
sys.stdin.readline()
"""


@dataclass(frozen=True, slots=True)
class HermesStorage:
    """Runs scripts with Hermes's storage in a HERMES_HOME."""

    process_stdin: IO[str]
    process_stdout: IO[str]

    def run_script(self, home: Path, script: str, server: str = "notes") -> str:
        """Run a script in its own process; return its output."""
        self._send_job(home, script, server)
        return self._read_output()

    def read_stored(self, home: Path, server: str = "notes") -> dict[str, Any]:
        """Return tokens, client and metadata as Hermes reads them."""
        stored: dict[str, Any] = json.loads(self.run_script(home, READ_SCRIPT, server))
        return stored

    @contextmanager
    def hold_lock(self, home: Path) -> Iterator[None]:
        """Hold the lock of the tokens of "notes", as later versions of Hermes do."""
        self._send_job(home, LOCK_SCRIPT, "notes")
        assert self._read_output() == "locked"
        try:
            yield
        finally:
            self.process_stdin.write("go\n")
            self.process_stdin.flush()
            self._read_output()

    def _send_job(self, home: Path, script: str, server: str) -> None:
        self.process_stdin.write(json.dumps({"home": str(home), "script": script, "server": server}) + "\n")
        self.process_stdin.flush()

    def _read_output(self) -> str:
        result: dict[str, str] = json.loads(self.process_stdout.readline())
        assert "error" not in result, result["error"]
        return result["output"]


@contextmanager
def run_hermes_storage(home: Path) -> Iterator[HermesStorage]:
    """Run the parent process. It does not use `home`, its HERMES_HOME."""
    if not PYTHON.exists():
        raise MissingDependency("Hermes Agent is not installed: run `make .venvs/hermes/.stamp`.")
    with subprocess.Popen(
        [PYTHON, "-c", PARENT_SCRIPT],
        cwd=home,
        env={"HERMES_HOME": str(home), "PATH": "/usr/bin:/bin", "HOME": str(home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield HermesStorage(process.stdin, process.stdout)
        finally:
            process.stdin.close()
            process.wait()
    assert process.returncode == 0
