"""The real terminal, and a real SSH session in it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.ports import free_port
from tests.parts.ssh import SshServer, run_ssh_server
from tests.parts.terminal import open_terminal

ECHO = """
import sys, termios, tty
sys.stdout.write("\\x1b[?2004hready\\r\\n")
sys.stdout.flush()
tty.setraw(0)
seen = b""
while not seen.endswith(b"q"):
    seen += sys.stdin.buffer.raw.read(1)
print(repr(seen))
"""


pytestmark = pytest.mark.tmux


def test_screen_has_the_requested_size_and_can_be_resized() -> None:
    show = "trap 'echo now $(stty size)' WINCH; stty size; while sleep 0.1; do :; done"
    with open_terminal(["sh", "-c", show], columns=57, rows=19) as screen:
        screen.wait_for("19 57")
        screen.resize(100, 30)
        screen.wait_for("now 30 100")


def test_command_sees_only_its_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKED", "from the test's own environment")
    with open_terminal(["env"], env={"HERMES_HOME": "/somewhere with ü"}) as screen:
        assert screen.wait_for_exit() == 0
        assert "HERMES_HOME=/somewhere with ü" in screen.full_text()
        assert "LEAKED" not in screen.full_text()


def test_long_line_wraps_on_the_screen_but_not_in_the_full_text() -> None:
    with open_terminal(["echo", "x" * 200], columns=60) as screen:
        screen.wait_for("x" * 200)
        assert screen.screen().splitlines()[0] == "x" * 60


def test_full_text_includes_lines_that_scrolled_off() -> None:
    with open_terminal(["sh", "-c", "echo first; seq 100"], rows=5) as screen:
        screen.wait_for("100")
        assert "first" in screen.full_text()
        assert "first" not in screen.screen()


def test_command_receives_typed_keys_and_a_bracketed_paste() -> None:
    with open_terminal([sys.executable, "-c", ECHO]) as screen:
        screen.wait_for("ready")
        screen.send("-a; b")
        screen.paste("https://x/?code=1&state=2\n")
        screen.press("Up")
        screen.send("q")
        assert screen.wait_for_exit() == 0
        pasted = r"\x1b[200~https://x/?code=1&state=2\r\x1b[201~"
        assert screen.full_text().splitlines()[-1].strip() == f"b'-a; b{pasted}\\x1b[Aq'"


def test_ctrl_c_ends_the_command_with_status_130() -> None:
    # Wait for output: before the command runs, the signal would reach only its parent, which ignores SIGINT.
    with open_terminal(["sh", "-c", "echo ready; exec sleep 1000"]) as screen:
        screen.wait_for("ready")
        assert screen.exit_status() is None
        screen.press("C-c")
        assert screen.wait_for_exit() == 130


def test_failed_wait_shows_the_screen() -> None:
    with (
        open_terminal(["sh", "-c", "echo something else; exit 3"]) as screen,
        pytest.raises(AssertionError, match=r"ended with 3\. The screen:\nsomething else"),
    ):
        screen.wait_for("the right thing")


def test_terminal_ends_with_the_block() -> None:
    with open_terminal(["sleep", "1000"]) as screen:
        pane = screen._run_tmux("display-message", "-p", "#{pane_pid}").strip()
        assert Path("/proc", pane).exists()
    with pytest.raises(AssertionError, match=r"no server running|error connecting|No such file"):
        screen.screen()


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with run_ssh_server(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.mark.ssh
def test_arguments_reach_the_remote_command_unchanged(ssh: SshServer) -> None:
    remote = ["env", "HERMES_HOME=/a b; c'd", "printenv", "HERMES_HOME"]
    result = subprocess.run(
        ssh.command(remote, tty=False), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.stderr, result.returncode) == ("/a b; c'd\n", "", 0)


@pytest.mark.ssh
def test_session_in_a_terminal_has_the_ssh_connection_variable(ssh: SshServer) -> None:
    remote = ["sh", "-c", "stty size; echo from $SSH_CONNECTION; read answer; exit $answer"]
    with open_terminal(ssh.command(remote), columns=70, rows=20) as screen:
        screen.wait_for("20 70")
        screen.wait_for(f"127.0.0.1 {ssh.port}")
        screen.paste("7\n")
        assert screen.wait_for_exit() == 7


@pytest.mark.ssh
def test_forwarded_port_reaches_the_remote_side(ssh: SshServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        local_port = free_port()
        command = ssh.command(["cat"], tty=False, forwards=[(local_port, listener.getsockname()[1])])
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
            assert session.stdin
            assert session.stdout
            # The forwards are in place when the session echoes (ExitOnForwardFailure).
            session.stdin.write(b"up\n")
            session.stdin.flush()
            assert session.stdout.readline() == b"up\n"
            with socket.create_connection(("127.0.0.1", local_port)) as sender:
                sender.sendall(b"through")
                receiver, _ = listener.accept()
                with receiver:
                    assert receiver.recv(7) == b"through"
            session.stdin.close()


@pytest.mark.ssh
def test_unknown_key_is_refused(ssh: SshServer, tmp_path: Path) -> None:
    command = ssh.command(["true"], tty=False)
    other = tmp_path / "other_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    command[command.index("-i") + 1] = str(other)
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert result.returncode == 255
    assert "Permission denied (publickey)" in result.stderr
