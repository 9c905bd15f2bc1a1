"""What a process waits for when it exits: real processes, real signals."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from tests.requirements import covers

pytestmark = pytest.mark.slow

PROLOGUE = """
import os, sys, threading, time
from hermes_mcp_auth_remote import exit_delay
sent, go = threading.Event(), threading.Event()
def work():
    with exit_delay.ExitDelay() as hold:
        if {sends}:
            hold.hold_for_response("as.example", {seconds})
        sent.set()
        os.read(0, 100)
        if {late}:
            try:
                hold.hold_for_response("as.example", 5)
            finally:
                print("sent late", flush=True)
        print("stored", flush=True)
threading.Thread(target=work, daemon=True).start()
sent.wait()
"""
WAIT_MESSAGE_PATTERN = (
    r"Waiting for as\.example to answer a token request, at most (\d+) s; Ctrl-C ends at once\.\n"
)


def start_process(
    script: str, *, sends: bool = True, sends_late: bool = False, seconds: int = 30
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROLOGUE.format(sends=sends, late=sends_late, seconds=seconds) + script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def prints_wait_message(process: subprocess.Popen[str], seconds: int) -> bool:
    """Return whether the process says that it waits for `seconds` (on a busy machine, up to 20 fewer)."""
    assert process.stderr is not None
    match = re.fullmatch(WAIT_MESSAGE_PATTERN, process.stderr.readline())
    return match is not None and seconds - 20 < int(match[1]) <= seconds


@covers("exit-waits")
def test_an_exit_waits_for_a_request_that_was_sent_and_prints_that() -> None:
    process = start_process("")
    assert prints_wait_message(process, 35)
    out, err = process.communicate("answer\n", timeout=20)
    assert (process.returncode, out, err) == (0, "stored\n", "")


@covers("exit-waits")
def test_an_exit_does_not_wait_for_a_request_that_was_not_sent() -> None:
    process = start_process("", sends=False)
    assert process.wait(20) == 0
    assert process.communicate() == ("", "")


@covers("exit-waits")
def test_an_exit_waits_no_longer_than_the_limit_of_the_request() -> None:
    process = start_process(
        "exit_delay._process_holds.holds.copy().pop().holds_until = time.monotonic() + 0.6"
    )
    assert prints_wait_message(process, 1)
    assert process.wait(20) == 0
    process.communicate()


@covers("exit-waits")
def test_ctrl_c_ends_a_waiting_exit() -> None:
    process = start_process("")
    assert prints_wait_message(process, 35)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    out, err = process.communicate()
    assert (out, "Traceback" in err) == ("", False)


@covers("exit-waits")
def test_an_exiting_process_sends_no_request() -> None:
    script = "exit_delay.wait_for_sent_requests(); print('free', flush=True); threading.Event().wait(60)"
    process = start_process(script, sends=False, sends_late=True)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "free\n"
    process.stdin.write("go\n")
    process.stdin.flush()
    # `hold_for_response` raised, so the rest of the block did not run.
    assert process.stdout.readline() == "sent late\n"
    process.kill()
    assert process.communicate()[0] == ""


@covers("exit-waits")
@pytest.mark.skipif(sys.platform == "win32", reason="On Windows, exec starts another process.")
def test_exec_waits_for_a_request_that_was_sent() -> None:
    exec_script = (
        "from hermes_mcp_auth_remote.cli.run import _exec_command; "
        "_exec_command(['echo', 'became'], {'PATH': '/bin'})"
    )
    process = start_process(exec_script)
    assert prints_wait_message(process, 35)
    out, err = process.communicate("answer\n", timeout=20)
    assert (process.returncode, out, err) == (0, "stored\nbecame\n", "")
