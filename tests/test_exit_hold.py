"""What a process waits for when it exits: real processes, real signals."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from tests.requirements import covers

pytestmark = pytest.mark.slow

BEGIN = """
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
WAITING = r"Waiting for as\.example to answer a token request, at most (\d+) s; Ctrl-C ends at once\.\n"


def started(
    script: str, *, sends: bool = True, late: bool = False, seconds: int = 30
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN.format(sends=sends, late=late, seconds=seconds) + script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str], seconds: int) -> bool:
    """Return whether the process prints what it waits for. On a busy machine, its limit may be 20 s lower."""
    assert process.stderr is not None
    found = re.fullmatch(WAITING, process.stderr.readline())
    return found is not None and seconds - 20 < int(found[1]) <= seconds


@covers("exit-waits")
def test_a_program_that_ends_waits_for_a_request_that_was_sent_and_says_so() -> None:
    process = started("")
    assert said(process, 35)
    out, err = process.communicate("answer\n", timeout=20)
    assert (process.returncode, out, err) == (0, "stored\n", "")


@covers("exit-waits")
def test_what_was_not_sent_holds_up_no_exit() -> None:
    process = started("", sends=False)
    assert process.wait(20) == 0
    assert process.communicate() == ("", "")


@covers("exit-waits")
def test_no_exit_waits_longer_than_the_request_lasts() -> None:
    process = started("exit_delay._process_holds.holds.copy().pop().holds_until = time.monotonic() + 0.6")
    assert said(process, 1)
    assert process.wait(20) == 0
    process.communicate()


@covers("exit-waits")
def test_ctrl_c_while_the_exit_waits_ends_it() -> None:
    process = started("")
    assert said(process, 35)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    out, err = process.communicate()
    assert (out, "Traceback" in err) == ("", False)


@covers("exit-waits")
def test_nothing_is_sent_by_a_process_that_ends() -> None:
    script = "exit_delay.wait_for_sent_requests(); print('free', flush=True); threading.Event().wait(10)"
    process = started(script, sends=False, late=True)
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
def test_a_process_that_becomes_a_command_waits_first() -> None:
    become = (
        "from hermes_mcp_auth_remote.cli.run import _exec_command; "
        "_exec_command(['echo', 'became'], {'PATH': '/bin'})"
    )
    process = started(become)
    assert said(process, 35)
    out, err = process.communicate("answer\n", timeout=20)
    assert (process.returncode, out, err) == (0, "stored\nbecame\n", "")
