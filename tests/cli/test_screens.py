"""Compare the screens with tests/transcripts. `NEW_TRANSCRIPTS=1` writes the transcripts again.

Placeholders replace values that differ between runs: <port>, <time>, <home>, and <...> for all other values.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import COMMAND, Cli, log_in
from tests.consent_form import approve, deny
from tests.parts.authorization_server import Demo
from tests.parts.terminal import Terminal, open_terminal
from tests.requirements import covers
from tests.transcript_files import TRANSCRIPTS, replace_times

pytestmark = pytest.mark.slow


def replace_variable_parts(text: str, cli: Cli) -> str:
    """Replace secrets, and values that differ between runs, with placeholders."""
    text = text.replace(str(cli.home), "<home>")
    # The rows of a QR code with its quiet zone.
    text = re.sub(r"(?:^ *[█▀▄][█▀▄ ]*\n)+", "<QR code>\n", text, flags=re.MULTILINE)
    text = re.sub(r"(?<=[=])(?:client-[\w-]+|[\w-]{43}|urn[\w%.-]+)", "<...>", text)
    text = re.sub(r"127\.0\.0\.1(:|%3A)\d+", r"127.0.0.1\1<port>", text)
    text = re.sub(r"(ssh -N -L )\S+ \S+@\S+", r"\1<port>:127.0.0.1:<port> <user>@<host>", text)
    text = re.sub(r"(Waiting.*: open for )\d+:\d\d", r"\1<m:ss>", text)
    text = re.sub(r"\S+ -m hermes_mcp_auth_remote.cli", "hermes-mcp-auth", text)
    text = re.sub(r"--finish \S{22}\b", "--finish <id>", text)
    text = replace_times(text)
    text = re.sub(r"\[\d+ characters\]", "[<...> characters]", text)
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n") + "\n"


def unwrap_usage(text: str) -> str:
    """Join the lines of each usage that argparse prints."""
    pattern = re.compile(r"^usage: .*(?:\n +\S.*)*", re.MULTILINE)
    return pattern.sub(lambda usage: " ".join(usage[0].split()), text)


def compare_screen(name: str, text: str, cli: Cli) -> None:
    """Compare a screen with its transcript."""
    cli.check_output(text)
    file = TRANSCRIPTS / f"{name}.txt"
    if os.environ.get("NEW_TRANSCRIPTS"):
        file.write_text(replace_variable_parts(text, cli), "utf-8")
    shown, expected = replace_variable_parts(text, cli), file.read_text("utf-8")
    if sys.version_info >= (3, 14):
        # argparse wraps a usage at other words.
        shown, expected = unwrap_usage(shown), unwrap_usage(expected)
    assert shown == expected


def find_url(screen: str) -> str:
    """Return the URL; it must be alone on its line."""
    [url] = [line for line in screen.splitlines() if line.startswith("http")]
    return url


def wait_for_login_url(screen: Terminal) -> str:
    # A narrow screen has a shorter prompt.
    return find_url(screen.wait_for("here:"))


@pytest.mark.tmux
def test_a_login_screen_with_a_qr_code_and_a_wrong_paste(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(with_par=True)
    with open_terminal([*COMMAND, "login", "demo"], env=cli.environ(), columns=80, rows=60) as screen:
        url = wait_for_login_url(screen)
        assert all(len(line) <= 80 for line in screen.screen().splitlines())
        screen.paste("https://example.com/somewhere")
        screen.press("Enter")
        screen.wait_for("The login still waits.")
        screen.paste(approve(url))
        screen.press("Enter")
        assert screen.wait_for_exit() == 0
        compare_screen("login-80-columns", screen.full_text(), cli)


@covers("expected-page")
@pytest.mark.tmux
def test_a_denied_login_on_a_wide_terminal(cli: Cli, demo: Demo) -> None:
    with open_terminal(
        [*COMMAND, "login", "demo", "--no-qr"], env=cli.environ(), columns=120, rows=40
    ) as screen:
        screen.paste(deny(wait_for_login_url(screen)))
        screen.press("Enter")
        assert screen.wait_for_exit() == 5
        compare_screen("login-120-columns-denied", screen.full_text(), cli)


@pytest.mark.tmux
def test_a_cancelled_login_on_a_narrow_terminal(cli: Cli, demo: Demo) -> None:
    with open_terminal([*COMMAND, "login", "demo"], env=cli.environ(), columns=40, rows=40) as screen:
        wait_for_login_url(screen)
        screen.press("C-d")
        assert screen.wait_for_exit() == 5
        text = screen.full_text()
    # The command never wraps a URL, so that the user can copy it. All other lines fit.
    assert [line for line in text.splitlines() if len(line) > 40 and "://" not in line] == []
    compare_screen("login-40-columns-given-up", text, cli)


@covers("qr-fits", "facts-visible")
@pytest.mark.tmux
def test_a_login_in_a_small_window_draws_its_qr_code_on_request(cli: Cli, demo: Demo) -> None:
    # A pushed authorization request has a short address.
    demo.authorization_server.change_behaviour(with_par=True)
    with open_terminal([*COMMAND, "login", "demo"], env=cli.environ(), columns=80, rows=24) as screen:
        url = wait_for_login_url(screen)
        visible = screen.screen()
        assert "█" not in visible
        for fact in ("Server         demo", "You log in at", "Access  ", "Open until"):
            assert fact in visible
        screen.send("qr")
        screen.press("Enter")
        screen.wait_for("The QR code needs")
        screen.resize(80, 40)
        screen.send("qr")
        screen.press("Enter")
        screen.wait_for("Press Enter to go back.")
        assert "█" in screen.screen()
        assert "You log in at" not in screen.screen()
        screen.press("Enter")
        screen.wait_for("here:")
        assert "You log in at" in screen.screen()
        assert "█" not in screen.screen()
        screen.paste(approve(url))
        screen.press("Enter")
        assert screen.wait_for_exit() == 0


@covers("csi-u")
@pytest.mark.tmux
def test_a_control_sequence_for_ctrl_c_cancels_the_login(cli: Cli, demo: Demo) -> None:
    with open_terminal([*COMMAND, "login", "demo", "--no-qr"], env=cli.environ()) as screen:
        wait_for_login_url(screen)
        screen.send("\x1b[99;5u")
        assert screen.wait_for_exit() == 130


@covers("paste-together")
@pytest.mark.tmux
def test_finish_asks_again_after_a_wrong_paste_and_takes_lines_without_paste_marks(
    cli: Cli, demo: Demo
) -> None:
    started = cli.run("login", "demo", "--no-wait")
    assert "here" not in started.err
    assert "Ctrl-C" not in started.err
    command = [*COMMAND, "login", "--finish", started.out.split()[-1]]
    with open_terminal(command, env=cli.environ(), rows=60) as screen:
        url = wait_for_login_url(screen)
        screen.paste("https://example.com/somewhere")
        screen.press("Enter")
        screen.wait_for("The login still waits.")
        answer = approve(url)
        screen.send("\r".join(answer[n : n + 80] for n in range(0, len(answer), 80)) + "\r")
        assert screen.wait_for_exit() == 0
        assert "✓ demo: connected" in screen.full_text()


@pytest.mark.tmux
def test_an_interrupted_login(cli: Cli, demo: Demo) -> None:
    with open_terminal([*COMMAND, "login", "demo", "--no-qr"], env=cli.environ()) as screen:
        wait_for_login_url(screen)
        screen.press("C-c")
        assert screen.wait_for_exit() == 130
        compare_screen("login-interrupted", screen.full_text(), cli)


def test_a_login_without_waiting_and_an_expired_login(cli: Cli, demo: Demo) -> None:
    started = cli.run("login", "demo", "--no-wait")
    compare_screen("login-no-wait", started.err + started.out, cli)
    cli.configure(demo.mcp_url, timeout=1)
    expired = cli.run("login", "demo")
    assert expired.exit_code == 5
    compare_screen("login-expired", expired.err + expired.out, cli)


@pytest.mark.tmux
def test_the_demo_on_a_terminal(cli: Cli) -> None:
    with open_terminal([*COMMAND, "demo"], env=cli.environ(), columns=80, rows=40) as screen:
        screen.wait_for("Paste the address here:")
        screen.send("approve")
        screen.press("Enter")
        assert screen.wait_for_exit() == 0
        text = screen.full_text()
    compare_screen("demo", text, cli)
    assert not cli.credential_files()


def test_the_servers_of_the_demo_keep_running_for_other_commands(cli: Cli) -> None:
    with cli.start("demo", "--serve", "--json") as serving:
        event = serving.read_event()
        assert event["event"] == "demo_serving"
        waiting = cli.run("login", "tried", "--url", event["url"], "--flow", "device", "--no-wait", "--json")
        assert waiting.events[0]["event"] == "device"
        doctor = cli.run("doctor", event["broken_url"])
        assert doctor.exit_code == 6
        assert "PKCE" in doctor.out + doctor.err
        serving.process.send_signal(signal.SIGINT)
        assert serving.process.wait(20) == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_commands_of_the_demo_run_as_printed(cli: Cli, demo: Demo) -> None:
    with cli.start("demo", "--serve") as serving:
        assert serving.process.stdout is not None
        lines = list[str]()
        while not lines or "login broken" not in lines[-1]:
            lines.append(serving.process.stdout.readline().decode())
        commands = [line.strip() for line in lines if line.startswith("  ")]
        [export, login, _, _, *others, _] = commands
        home = Path(shlex.split(export)[1].removeprefix("HERMES_HOME="))
        log_in(Cli(home, ()), demo, "demo", *shlex.split(login)[-2:], "--flow", "paste")
        outputs = dict[str, str]()
        for command in others:
            process = subprocess.run(
                ["sh", "-c", f"{export}\n{command}"],
                capture_output=True,
                text=True,
                env=cli.environ(),
                timeout=40,
                check=False,
            )
            outputs[command] = process.stdout
            assert process.returncode == (6 if "doctor http" in command else 0), (command, process.stderr)
        [challenge] = [outputs[command] for command in others if command.startswith("curl")]
        assert challenge.startswith("HTTP/1.1 401")
        assert "www-authenticate: Bearer resource_metadata=" in challenge
        [answer] = [outputs[command] for command in others if " header demo | curl" in command]
        assert json.loads(answer)["result"]["content"][0]["text"] == "ada@example.com"


def test_a_closed_standard_input_is_not_asked_for_a_paste(cli: Cli, demo: Demo) -> None:
    cli.configure(demo.mcp_url, timeout=1)
    for redirection in ("<&-", "</dev/null"):
        process = subprocess.run(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", *COMMAND, "login", "demo"],
            env=cli.environ(),
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        assert process.returncode == 5
        assert "has expired" in process.stderr or "in time" in process.stderr
        assert "Paste" not in process.stderr
        assert "paste it here" not in process.stderr
        assert "hermes-mcp-auth login --finish" in process.stderr


def test_the_demo_without_a_terminal_needs_no_input(cli: Cli) -> None:
    result = cli.run("demo", "--json")
    assert result.exit_code == 0
    assert [event["event"] for event in result.events] == ["waiting", "connected", "tool_result"]
    assert result.events[-1]["text"] == "ada@example.com"
    text = cli.run("demo")
    assert text.exit_code == 0
    compare_screen("demo-by-itself", text.out, cli)


def test_the_status_of_connections_in_every_state(cli: Cli, demo: Demo) -> None:
    other = demo.mcp_url.replace("/mcp", "/other/mcp")
    names = ("connected", "ended", "expired", "corrupt")
    for name in names:
        demo.authorization_server.change_behaviour(issue_refresh_token=name != "expired")
        log_in(cli, demo, name, "--url", demo.mcp_url if name != "ended" else other)
    demo.authorization_server.change_behaviour(
        grant_scopes=frozenset({"mcp:tools"}), issue_refresh_token=True
    )
    log_in(cli, demo, "connected", "--owner", "telegram:42", "--url", demo.mcp_url)
    cli.change_stored_tokens("expired", expires_at=1_000_000)
    cli.change_stored_tokens("ended", expires_at=1_000_000)
    (cli.home / "mcp-tokens" / "corrupt.json").write_text("[]")
    demo.authorization_server.fail_next("refresh", status=400, body='{"error": "invalid_grant"}')
    assert cli.run("token", "ended").exit_code == 4
    entries: dict[str, object] = {
        name: {"url": demo.mcp_url if name != "ended" else other, "auth": "oauth"} for name in names
    }
    entries["missing"] = {"url": "https://missing.example/mcp", "auth": "oauth"}
    entries["misspelt"] = {"url": "ftp://misspelt.example/mcp", "auth": "oauth"}
    cli.write_config(json.dumps({"mcp_servers": entries}))
    result = cli.run("status")
    assert result.exit_code in {3, 8}
    compare_screen("status", result.out, cli)


def test_logout_with_and_without_a_revocation(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    output = cli.run("logout", "demo").out
    output += cli.run("logout", "demo").out
    log_in(cli, demo)
    demo.authorization_server.fail_next("revocation", status=503, times=None)
    compare_screen("logout", output + cli.run("logout", "demo").out, cli)


@covers("exit-codes")
def test_an_error_for_each_exit_code(cli: Cli, demo: Demo) -> None:
    transcript: list[str] = []

    def record_error(code: int, *arguments: str, stdin: bytes = b"") -> None:
        result = cli.run(*arguments, stdin=stdin)
        assert result.exit_code == code
        error_text = result.err[result.err.rindex("✗") :]
        transcript.append(f"$ hermes-mcp-auth {' '.join(arguments)}\n{error_text}[exit code {code}]\n")

    record_error(3, "token", "dmeo")
    record_error(4, "token", "demo")
    record_error(5, "login", "demo", stdin=b"nonsense\n")
    demo.authorization_server.change_behaviour(pkce_advertised=False)
    record_error(6, "login", "demo")
    record_error(7, "login", "http://127.0.0.1:9/mcp")
    (cli.home / "mcp-tokens" / "demo.json").write_text("[]")
    record_error(8, "token", "demo")
    compare_screen("errors", "\n".join(transcript), cli)


@covers("help-fits")
@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_the_help_fits_a_small_window_with_the_command_and_the_prompt(
    cli: Cli, arguments: tuple[str, ...]
) -> None:
    lines = cli.run(*arguments).out.splitlines()
    assert len(lines) <= 22
    assert max(map(len, lines)) <= 80
    assert "--version" in lines[0]


@pytest.mark.parametrize(
    "verb", ["", "login", "status", "token", "header", "run", "connect", "logout", "serve", "demo"]
)
def test_the_help_of_every_verb(cli: Cli, verb: str) -> None:
    # Python 3.14 colours help texts by itself.
    result = cli.run(*verb.split(), "--help", env={"FORCE_COLOR": "1"})
    assert result.exit_code == 0
    assert all(len(line) <= 80 for line in result.out.splitlines())
    compare_screen(f"help-{verb}" if verb else "help", result.out, cli)
