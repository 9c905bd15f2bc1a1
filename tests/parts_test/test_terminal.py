"""The real terminal, and a real SSH session in it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.ports import free_port
from tests.parts.ssh import SshServer, ssh_server
from tests.parts.terminal import terminal

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


def test_the_screen_has_the_size_that_was_asked_for_and_can_change_it() -> None:
    show = "trap 'echo now $(stty size)' WINCH; stty size; while sleep 0.1; do :; done"
    with terminal(["sh", "-c", show], columns=57, rows=19) as screen:
        screen.wait_for("19 57")
        screen.resize(100, 30)
        screen.wait_for("now 30 100")


def test_the_command_sees_its_own_variables_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKED", "from the test's own environment")
    with terminal(["env"], env={"HERMES_HOME": "/somewhere with ü"}) as screen:
        assert screen.wait_for_exit() == 0
        assert "HERMES_HOME=/somewhere with ü" in screen.joined()
        assert "LEAKED" not in screen.joined()


def test_a_long_line_is_wrapped_on_the_screen_and_whole_when_joined() -> None:
    with terminal(["echo", "x" * 200], columns=60) as screen:
        screen.wait_for("x" * 200)
        assert screen.screen().splitlines()[0] == "x" * 60


def test_what_scrolled_off_is_still_found() -> None:
    with terminal(["sh", "-c", "echo first; seq 100"], rows=5) as screen:
        screen.wait_for("100")
        assert "first" in screen.joined()
        assert "first" not in screen.screen()


def test_typing_and_a_bracketed_paste_arrive_as_from_a_terminal() -> None:
    with terminal([sys.executable, "-c", ECHO]) as screen:
        screen.wait_for("ready")
        screen.send("-a; b")
        screen.paste("https://x/?code=1&state=2\n")
        screen.press("Up")
        screen.send("q")
        assert screen.wait_for_exit() == 0
        pasted = r"\x1b[200~https://x/?code=1&state=2\r\x1b[201~"
        assert screen.joined().splitlines()[-1].strip() == f"b'-a; b{pasted}\\x1b[Aq'"


def test_ctrl_c_ends_the_command_and_the_status_says_so() -> None:
    with terminal(["sleep", "1000"]) as screen:
        assert screen.exit_status() is None
        screen.press("C-c")
        assert screen.wait_for_exit() == 130


def test_waiting_for_what_cannot_come_shows_the_screen() -> None:
    with (
        terminal(["sh", "-c", "echo something else; exit 3"]) as screen,
        pytest.raises(AssertionError, match=r"ended with 3\. The screen:\nsomething else"),
    ):
        screen.wait_for("the right thing")


def test_the_terminal_ends_with_the_block() -> None:
    with terminal(["sleep", "1000"]) as screen:
        pane = screen._run("display-message", "-p", "#{pane_pid}").strip()
        assert Path("/proc", pane).exists()
    with pytest.raises(AssertionError, match=r"no server running|error connecting|No such file"):
        screen.screen()


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.mark.ssh
def test_arguments_cross_ssh_unchanged(ssh: SshServer) -> None:
    remote = ["env", "HERMES_HOME=/a b; c'd", "printenv", "HERMES_HOME"]
    done = subprocess.run(
        ssh.command(remote, tty=False), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("/a b; c'd\n", "", 0)


@pytest.mark.ssh
def test_a_session_in_a_terminal_knows_that_it_came_over_ssh(ssh: SshServer) -> None:
    remote = ["sh", "-c", "stty size; echo from $SSH_CONNECTION; read answer; exit $answer"]
    with terminal(ssh.command(remote), columns=70, rows=20) as screen:
        screen.wait_for("20 70")
        screen.wait_for(f"127.0.0.1 {ssh.port}")
        screen.paste("7\n")
        assert screen.wait_for_exit() == 7


@pytest.mark.ssh
def test_a_forwarded_port_leads_to_the_other_side(ssh: SshServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        local = free_port()
        command = ssh.command(["cat"], tty=False, forwards=[(local, listener.getsockname()[1])])
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
            assert session.stdin
            assert session.stdout
            # The forwards are in place when the session echoes (ExitOnForwardFailure).
            session.stdin.write(b"up\n")
            session.stdin.flush()
            assert session.stdout.readline() == b"up\n"
            with socket.create_connection(("127.0.0.1", local)) as there:
                there.sendall(b"through")
                here, _ = listener.accept()
                with here:
                    assert here.recv(7) == b"through"
            session.stdin.close()


@pytest.mark.ssh
def test_a_stranger_is_not_let_in(ssh: SshServer, tmp_path: Path) -> None:
    command = ssh.command(["true"], tty=False)
    other = tmp_path / "other_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    command[command.index("-i") + 1] = str(other)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr
