"""Wrong input of users and servers: an error message, an exit code, no secret, unchanged credentials."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.browserless import approve
from tests.cli.commands import COMMAND, Cli, log_in
from tests.parts.authorization_server import Demo

pytestmark = pytest.mark.slow


def with_parameters(url: str, **changed: str | None) -> str:
    """Return a redirect URL with changed parameters; None removes a parameter."""
    base, _, query = url.partition("?")
    found: dict[str, str | None] = {name: values[0] for name, values in parse_qs(query).items()}
    kept = {name: value for name, value in {**found, **changed}.items() if value is not None}
    return f"{base}?{urlencode(kept)}"


def test_every_wrong_paste_says_why_and_the_right_one_still_logs_in(cli: Cli, demo: Demo) -> None:
    with cli.started("login", "demo", "--json") as other:
        foreign = approve(other.event()["authorization_url"])
        with cli.started("login", "demo", "--json") as login:
            waiting = login.event()
            right = approve(waiting["authorization_url"])
            uri = waiting["redirect_uri"]
            pastes: list[str | bytes] = [
                "garbage",
                "   ",
                b"\xff\xfe\x00\x80\x1b[31m\x07",
                "x" * 1_000_000,
                "https://example.com/",
                waiting["authorization_url"],
                uri,
                f"{uri}?code=abcdefghijkl",
                f"{uri}?code=abcdefghijkl&state=old-state-of-yesterday",
                foreign,
                f"{right}&code=another-code-in-it",
                with_parameters(right, iss="https://evil.example"),
                with_parameters(right, iss=None),
                with_parameters(right, code=None),
                with_parameters(right, code=""),
                f"{uri}?error=access_denied",
                f"{uri}?error=access_denied&state=wrong-state-altogether",
                "javascript:alert(1)",
                "bare-code-which-the-server-does-not-take-alone",
            ]
            for paste in pastes:
                login.send(paste if isinstance(paste, bytes) else paste.encode())
                login.send("\n")
                refused = login.event()
                assert refused["event"] == "refused", paste[:80]
                assert refused["error"] == "paste_refused"
                assert refused["message"].endswith(".")
                assert refused["advice"].endswith(".")
            login.send(right + "\n")
            assert login.event()["event"] == "connected"
            assert login.end().code == 0
        assert demo.authorization_server.count_requests("token") == 1
        other.send(foreign + "\n")
        assert other.event()["event"] == "connected"
    again = cli.run("login", "--finish", waiting["login_id"], "--json", stdin=right.encode())
    assert (again.code, again.events[0]["error"]) == (5, "login_already_used")


HTML = "<!doctype html><title>Nothing here</title>"
SERVER, NETWORK = 6, 7


@pytest.mark.parametrize(
    ("step", "fault", "code"),
    [
        ("authorization_server_metadata", {"body": HTML}, SERVER),
        ("authorization_server_metadata", {"body": "[" * 100_000}, SERVER),
        ("authorization_server_metadata", {"body": b'{"issuer": "cut o'}, SERVER),
        ("authorization_server_metadata", {"body": b"\x00" * 10_000_000}, NETWORK),
        ("authorization_server_metadata", {"hang_up": True}, NETWORK),
        ("authorization_server_metadata", {"status": 503, "body": HTML}, SERVER),
        ("protected_resource_metadata", {"body": HTML}, SERVER),
        ("protected_resource_metadata", {"body": '{"resource": "https://elsewhere.example/"}'}, SERVER),
        ("registration", {"status": 201, "body": '{"client_id": ["a", "list"]}'}, SERVER),
        ("registration", {"status": 403, "body": HTML}, SERVER),
        ("registration", {"status": 302, "headers": {"Location": "http://169.254.169.254/"}}, NETWORK),
    ],
)
def test_a_server_that_answers_badly_is_named_and_nothing_is_lost(
    cli: Cli, demo: Demo, step: str, fault: dict[str, object], code: int
) -> None:
    cli_with_a_login(cli, demo)
    before = cli.files()
    demo.authorization_server.fail_next(step, times=None, **fault)  # type: ignore[arg-type]
    # With another port, the command must register the client again.
    cli.configure(demo.mcp_url, redirect_port=1)
    ended = cli.run("login", "demo", "--json")
    assert ended.code == code, ended
    assert set(ended.events[0]) == {"error", "message", "advice"}
    assert ended.err == ""
    assert cli.files() == before


def cli_with_a_login(cli: Cli, demo: Demo) -> None:
    """Store tokens as a login does. No server needs to accept them."""
    folder = cli.home / "mcp-tokens"
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    tokens = {"access_token": "old-access-token", "token_type": "Bearer", "expires_at": 1e10}
    path = folder / "demo.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(tokens))


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("authorization_endpoint", "file:///etc/passwd"),
        ("authorization_endpoint", "javascript:alert(1)"),
        ("authorization_endpoint", "http://login.example/authorize"),
        ("token_endpoint", "http://169.254.169.254/latest/meta-data"),
        ("token_endpoint", "file:///etc/passwd"),
        ("registration_endpoint", "javascript:alert(1)"),
        ("code_challenge_methods_supported", ["plain"]),
        ("issuer", "https://another.example"),
    ],
)
def test_metadata_that_points_astray_is_refused_and_never_shown(
    cli: Cli, demo: Demo, member: str, value: object
) -> None:
    demo.authorization_server.change_behaviour(metadata_overrides={member: value})
    ended = cli.run("login", "demo")
    assert ended.code == SERVER
    assert ended.err.startswith("✗ ")
    assert ended.out == ""
    assert "http://169" not in ended.err
    assert "javascript:" not in ended.err
    assert cli.files() == {}


def test_an_authorization_server_at_a_cloud_metadata_address_is_not_asked(cli: Cli, demo: Demo) -> None:
    cli.write_config(
        json.dumps({"mcp_servers": {"demo": {"url": "https://169.254.169.254/mcp", "auth": "oauth"}}})
    )
    ended = cli.run("login", "demo", "--json")
    assert ended.code == NETWORK
    assert ended.events[0]["error"] == "address_refused"
    assert cli.run("login", "http://169.254.169.254/", "--json").code == 3


def test_a_server_out_of_reach_is_said_to_be(cli: Cli, demo: Demo) -> None:
    ended = cli.run("login", "http://127.0.0.1:9/mcp", "--json")
    assert (ended.code, ended.events[0]["error"]) == (NETWORK, "unreachable")


def test_a_token_answer_with_junk_ends_the_login_and_keeps_the_old_one(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    before = cli.files()
    demo.authorization_server.change_behaviour(
        token_overrides={"access_token": "two words", "expires_in": "soon", "scope": ["a"]}
    )
    with cli.started("login", "demo", "--json") as login:
        login.send(approve(login.event()["authorization_url"]) + "\n")
        ended = login.end()
    assert ended.code == SERVER
    assert cli.files() == before


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("mcp_servers: [", "not valid YAML"),
        ("mcp_servers:\n  demo:\n    url: https://a.example\n  demo:\n    url: https://b.example\n", "twice"),
        ("mcp_servers:\n  demo:\n    command: npx\n", "stdio"),
        ("mcp_servers:\n  other:\n    url: https://a.example\n", "No server demo"),
        ("mcp_servers:\n  demos:\n    url: https://a.example\n", "Did you mean demos?"),
        ("mcp_servers:\n  demo:\n    url: ftp://a.example\n    auth: oauth\n", "demo.url"),
        ("mcp_servers:\n  demo:\n    url: https://u:pass-word@a.example\n    auth: oauth\n", "demo.url"),
        ("mcp_servers:\n  demo:\n    url: https://a.example\n    oauth: yes\n", "oauth"),
        ("mcp_servers: text\n", "must be a mapping"),
        ("\x00\x01", "YAML"),
        (None, "No server demo"),
    ],
)
@pytest.mark.parametrize("verb", ["login", "token", "logout"])
def test_a_wrong_configuration_is_explained(cli: Cli, verb: str, config: str | None, said: str) -> None:
    if verb != "login" and said not in {"twice", "stdio"}:
        return
    if config is None:
        (cli.home / "config.yaml").unlink()
    else:
        cli.write_config(config)
    ended = cli.run(verb, "demo")
    assert ended.code == 3
    assert said in " ".join(ended.err.split())
    assert "pass-word" not in ended.err
    assert ended.out == ""


def run_with_small_files(cli: Cli, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command that can write at most ten bytes to a file, as on a full disk."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        env=cli.environ({"PYTHONDONTWRITEBYTECODE": "1"}),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)),
        timeout=40,
        check=False,
    )


def test_a_full_disk_keeps_the_old_credentials(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    before = cli.files()
    begun = cli.run("login", "demo", "--no-wait", "--json").events[0]
    answer = approve(begun["authorization_url"]).encode()
    for arguments in (("login", "demo", "--json"), ("login", "--finish", begun["login_id"], "--json")):
        ended = run_with_small_files(cli, *arguments, stdin=answer)
        cli.check((ended.stdout + ended.stderr).decode())
        assert ended.returncode == 8, ended
        assert json.loads(ended.stdout.splitlines()[-1])["error"] == "store_unwritable"
        assert cli.files() == before


@pytest.mark.parametrize("verb", ["login", "token", "logout", "status"])
def test_a_home_that_is_no_folder_is_said_to_be_none(cli: Cli, demo: Demo, tmp_path: Path, verb: str) -> None:
    (cli.home / "mcp-tokens").write_text("a file where the folder should be")
    ended = cli.run(verb, "demo", "--json")
    assert ended.code == 8
    assert ended.events[-1].get("error", ended.events[-1].get("state")) in {
        "store_unsafe",
        "store_unwritable",
    }


def test_a_folder_that_others_can_read_is_refused_or_closed_before_anything_goes_in(
    cli: Cli, demo: Demo
) -> None:
    (cli.home / "mcp-tokens").mkdir(mode=0o777)
    (cli.home / "mcp-tokens").chmod(0o777)
    with cli.started("login", "demo", "--json") as login:
        first = login.event()
        if "error" not in first:
            login.send(approve(first["authorization_url"]) + "\n")
            assert login.event()["event"] == "connected"
    assert (cli.home / "mcp-tokens").stat().st_mode & 0o077 == 0 or cli.files() == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ("login", "--no-wait", "--finish", "x"),
        ("token",),
        ("nonsense",),
        ("login", "--flow", "telepathy"),
        ("login", "--js"),
    ],
)
def test_wrong_usage_exits_2_and_shows_the_usage(cli: Cli, arguments: tuple[str, ...]) -> None:
    ended = cli.run(*arguments)
    assert ended.code == 2
    assert ended.err.startswith("usage: hermes-mcp-auth")
    assert ended.out == ""


def test_without_a_server_the_command_says_what_is_missing(cli: Cli) -> None:
    ended = cli.run("login", "--json")
    assert (ended.code, ended.events[0]["error"]) == (3, "config")


def test_a_name_of_bytes_that_are_no_text_or_steer_the_terminal_is_refused_in_words(cli: Cli) -> None:
    for name in (b"\xff\xfe", b"\x1b[2J\x07", "\u202edemo".encode(), b"a" * 5000):
        done = subprocess.run(
            [*COMMAND, "token", name], capture_output=True, env=cli.environ(), check=False, timeout=40
        )
        assert done.returncode == 3
        assert b"\x1b" not in done.stderr
        assert "\u202e".encode() not in done.stderr
        assert b"Traceback" not in done.stderr


def test_an_account_that_would_steer_the_terminal_is_shown_harmless(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(account="eve\x1b]0;owned\x07\u202e@example.com")
    log_in(cli, demo)
    shown = cli.run("status").out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert urlsplit(demo.mcp_url).netloc in shown
