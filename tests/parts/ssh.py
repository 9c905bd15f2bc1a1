"""A real SSH session: Debian's OpenSSH server on a free loopback port, with new keys."""

from __future__ import annotations

import getpass
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.parts.ports import free_port
from tests.parts.requirements import find_program

POLL_SECONDS = 0.02
START_SECONDS = 20.0
ATTEMPTS = 5  # another process may take the port before sshd binds it
CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
AuthenticationMethods publickey
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
PrintMotd no
PrintLastLog no
UseDNS no
AllowTcpForwarding yes
LogLevel VERBOSE
"""


@dataclass(frozen=True, slots=True)
class SshServer:
    """A running server; `command` returns the ssh command line of a user."""

    port: int
    folder: Path
    ssh: str
    user: str

    def command(
        self, remote: Sequence[str] = (), *, tty: bool = True, forwards: Sequence[tuple[int, int]] = ()
    ) -> list[str]:
        """Return the argv of an ssh client that runs `remote` on the server (empty: a login shell).

        `forwards` are (local port, remote port) pairs on loopback, as with -L. ssh passes on no environment
        variables: to set one, start `remote` with "env", "NAME=value".
        """
        options = (
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "ExitOnForwardFailure=yes",
            "LogLevel=ERROR",
        )
        argv = [self.ssh, "-F", "/dev/null", "-i", str(self.folder / "user_key"), "-p", str(self.port)]
        argv += ["-tt"] if tty else ["-T"]
        for option in options:
            argv += ["-o", option]
        for local_port, remote_port in forwards:
            argv += ["-L", f"127.0.0.1:{local_port}:127.0.0.1:{remote_port}"]
        argv.append(f"{self.user}@127.0.0.1")
        # ssh joins its arguments with spaces and the remote shell splits them again.
        return [*argv, shlex.join(remote)] if remote else argv

    def log(self) -> str:
        """Return sshd's log so far."""
        return (self.folder / "sshd.log").read_text("utf-8", "replace")


@contextmanager
def run_ssh_server(folder: Path) -> Iterator[SshServer]:
    """Run sshd as the current user until the block ends; keep its keys and its log in `folder`."""
    sshd, ssh = find_program("sshd", "openssh-server"), find_program("ssh", "openssh-client")
    keygen = find_program("ssh-keygen", "openssh-client")
    if os.geteuid() == 0:
        # As root, sshd needs this empty folder, which Debian's service creates.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    for key in ("host_key", "user_key"):
        subprocess.run(
            [keygen, "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", str(folder / key)],
            check=True,
            stdin=subprocess.DEVNULL,
        )
    process, port = _start_sshd(sshd, folder)
    server = SshServer(port, folder, ssh, getpass.getuser())
    try:
        yield server
    except BaseException:
        print(f"--- sshd\n{server.log()}", file=sys.stderr)
        raise
    finally:
        process.terminate()
        process.wait()


def _start_sshd(sshd: str, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    config, log_file = folder / "sshd_config", folder / "sshd.log"
    for _ in range(ATTEMPTS):
        port = free_port()
        config.write_text(CONFIG.format(port=port, folder=folder), "utf-8")
        with log_file.open("wb") as log:
            # sshd executes itself for each connection and requires an absolute path.
            process = subprocess.Popen(
                [sshd, "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if "Server listening on" in log_file.read_text("utf-8", "replace"):
                return process, port
            time.sleep(POLL_SECONDS)
        process.kill()
        process.wait()
        if "Address already in use" not in log_file.read_text("utf-8", "replace"):
            break
    raise AssertionError(f"sshd did not start:\n{log_file.read_text('utf-8', 'replace')}")
