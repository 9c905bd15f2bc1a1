"""Wrong input of users and servers: an error message, an exit code, no secret, unchanged credentials."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.cli.commands import COMMAND, Cli, log_in
from tests.consent_form import approve
from tests.parts.authorization_server import Demo

pytestmark = pytest.mark.slow


def change_parameters(url: str, **changes: str | None) -> str:
    """Return a redirect URL with changed parameters; None removes a parameter."""
    base, _, query = url.partition("?")
    parameters: dict[str, str | None] = {name: values[0] for name, values in parse_qs(query).items()}
    remaining = {name: value for name, value in {**parameters, **changes}.items() if value is not None}
    return f"{base}?{urlencode(remaining)}"


def test_every_wrong_paste_is_explained_and_the_right_one_still_logs_in(cli: Cli, demo: Demo) -> None:
    with cli.start("login", "demo", "--json") as other:
        response_of_other_login = approve(other.read_event()["authorization_url"])
        with cli.start("login", "demo", "--json") as login:
            waiting = login.read_event()
            right_response = approve(waiting["authorization_url"])
            redirect_uri = waiting["redirect_uri"]
            pastes: list[str | bytes] = [
                "garbage",
                "   ",
                b"\xff\xfe\x00\x80\x1b[31m\x07",
                "x" * 1_000_000,
                "https://example.com/",
                waiting["authorization_url"],
                redirect_uri,
                f"{redirect_uri}?code=abcdefghijkl",
                f"{redirect_uri}?code=abcdefghijkl&state=old-state-of-yesterday",
                response_of_other_login,
                f"{right_response}&code=another-code-in-it",
                change_parameters(right_response, iss="https://evil.example"),
                change_parameters(right_response, iss=None),
                change_parameters(right_response, code=None),
                change_parameters(right_response, code=""),
                f"{redirect_uri}?error=access_denied",
                f"{redirect_uri}?error=access_denied&state=wrong-state-altogether",
                "javascript:alert(1)",
                "bare-code-which-the-server-does-not-take-alone",
            ]
            for paste in pastes:
                login.send(paste if isinstance(paste, bytes) else paste.encode())
                login.send("\n")
                refusal = login.read_event()
                assert refusal["event"] == "refused", paste[:80]
                is_provider_error = paste == f"{redirect_uri}?error=access_denied"
                expected = "provider_error_pasted" if is_provider_error else "paste_refused"
                assert refusal["error"] == expected, paste[:80]
                assert refusal["message"].endswith(".")
                assert refusal["advice"].endswith(".")
            login.send(right_response + "\n")
            assert login.read_event()["event"] == "connected"
            assert login.wait_for_exit().exit_code == 0
        assert demo.authorization_server.count_requests("token") == 1
        other.send(response_of_other_login + "\n")
        assert other.read_event()["event"] == "connected"
    again = cli.run("login", "--finish", waiting["login_id"], "--json", stdin=right_response.encode())
    assert (again.exit_code, again.events[0]["error"]) == (5, "login_already_used")


HTML_PAGE = "<!doctype html><title>Nothing here</title>"
SERVER_ERROR, NETWORK_ERROR = 6, 7


@pytest.mark.parametrize(
    ("step", "fault", "code"),
    [
        ("authorization_server_metadata", {"body": HTML_PAGE}, SERVER_ERROR),
        ("authorization_server_metadata", {"body": "[" * 100_000}, SERVER_ERROR),
        ("authorization_server_metadata", {"body": b'{"issuer": "cut o'}, SERVER_ERROR),
        ("authorization_server_metadata", {"body": b"\x00" * 10_000_000}, NETWORK_ERROR),
        ("authorization_server_metadata", {"hang_up": True}, NETWORK_ERROR),
        ("authorization_server_metadata", {"status": 503, "body": HTML_PAGE}, SERVER_ERROR),
        ("protected_resource_metadata", {"body": HTML_PAGE}, SERVER_ERROR),
        ("protected_resource_metadata", {"body": '{"resource": "https://elsewhere.example/"}'}, SERVER_ERROR),
        ("registration", {"status": 201, "body": '{"client_id": ["a", "list"]}'}, SERVER_ERROR),
        ("registration", {"status": 403, "body": HTML_PAGE}, SERVER_ERROR),
        ("registration", {"status": 302, "headers": {"Location": "http://169.254.169.254/"}}, NETWORK_ERROR),
    ],
)
def test_a_bad_response_is_an_error_and_keeps_the_credentials(
    cli: Cli, demo: Demo, step: str, fault: dict[str, object], code: int
) -> None:
    store_tokens(cli, demo)
    before = cli.credential_files()
    demo.authorization_server.fail_next(step, times=None, **fault)  # type: ignore[arg-type]
    # With another port, the command must register the client again.
    cli.configure(demo.mcp_url, redirect_port=1)
    result = cli.run("login", "demo", "--json")
    assert result.exit_code == code, result
    assert [event["event"] for event in result.events] == ["error"]
    assert result.err == ""
    assert cli.credential_files() == before


def store_tokens(cli: Cli, demo: Demo) -> None:
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
def test_unsafe_metadata_is_refused_and_not_printed(cli: Cli, demo: Demo, member: str, value: object) -> None:
    demo.authorization_server.change_behaviour(metadata_overrides={member: value})
    result = cli.run("login", "demo")
    assert result.exit_code == SERVER_ERROR
    assert result.err.startswith("✗ ")
    assert result.out == ""
    assert "http://169" not in result.err
    assert "javascript:" not in result.err
    assert cli.credential_files() == {}


def test_a_cloud_metadata_address_gets_no_request(cli: Cli, demo: Demo) -> None:
    cli.write_config(
        json.dumps({"mcp_servers": {"demo": {"url": "https://169.254.169.254/mcp", "auth": "oauth"}}})
    )
    result = cli.run("login", "demo", "--json")
    assert result.exit_code == NETWORK_ERROR
    assert result.events[0]["error"] == "address_refused"
    assert cli.run("login", "http://169.254.169.254/", "--json").exit_code == 3


def test_an_unreachable_server_is_an_error(cli: Cli, demo: Demo) -> None:
    result = cli.run("login", "http://127.0.0.1:9/mcp", "--json")
    assert (result.exit_code, result.events[0]["error"]) == (NETWORK_ERROR, "unreachable")


def test_a_malformed_token_response_fails_the_login_and_keeps_the_credentials(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    before = cli.credential_files()
    demo.authorization_server.change_behaviour(
        token_overrides={"access_token": "two words", "expires_in": "soon", "scope": ["a"]}
    )
    with cli.start("login", "demo", "--json") as login:
        login.send(approve(login.read_event()["authorization_url"]) + "\n")
        result = login.wait_for_exit()
    assert result.exit_code == SERVER_ERROR
    assert cli.credential_files() == before


@pytest.mark.parametrize(
    ("config", "expected_text"),
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
def test_an_invalid_configuration_is_explained(
    cli: Cli, verb: str, config: str | None, expected_text: str
) -> None:
    if verb != "login" and expected_text not in {"twice", "stdio"}:
        return
    if config is None:
        (cli.home / "config.yaml").unlink()
    else:
        cli.write_config(config)
    result = cli.run(verb, "demo")
    assert result.exit_code == 3
    assert expected_text in " ".join(result.err.split())
    assert "pass-word" not in result.err
    assert result.out == ""


def run_with_full_disk(cli: Cli, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
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


def test_a_full_disk_keeps_the_stored_credentials(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    before = cli.credential_files()
    begun = cli.run("login", "demo", "--no-wait", "--json").events[0]
    redirect_url = approve(begun["authorization_url"]).encode()
    for arguments in (("login", "demo", "--json"), ("login", "--finish", begun["login_id"], "--json")):
        process = run_with_full_disk(cli, *arguments, stdin=redirect_url)
        cli.check_output((process.stdout + process.stderr).decode())
        assert process.returncode == 8, process
        assert json.loads(process.stdout.splitlines()[-1])["error"] == "store_unwritable"
        assert cli.credential_files() == before


@pytest.mark.parametrize("verb", ["login", "token", "logout", "status"])
def test_a_store_that_is_a_file_is_an_error(cli: Cli, demo: Demo, tmp_path: Path, verb: str) -> None:
    (cli.home / "mcp-tokens").write_text("a file where the folder should be")
    result = cli.run(verb, "demo", "--json")
    assert result.exit_code == 8
    assert result.events[-1]["error"] in {"store_unsafe", "store_unwritable"}


def test_a_store_that_others_can_read_is_refused_or_made_private(cli: Cli, demo: Demo) -> None:
    (cli.home / "mcp-tokens").mkdir(mode=0o777)
    (cli.home / "mcp-tokens").chmod(0o777)
    with cli.start("login", "demo", "--json") as login:
        first = login.read_event()
        if "error" not in first:
            login.send(approve(first["authorization_url"]) + "\n")
            assert login.read_event()["event"] == "connected"
    assert (cli.home / "mcp-tokens").stat().st_mode & 0o077 == 0 or cli.credential_files() == {}


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
def test_wrong_usage_exits_with_2_and_prints_the_usage(cli: Cli, arguments: tuple[str, ...]) -> None:
    result = cli.run(*arguments)
    assert result.exit_code == 2
    assert result.err.startswith("usage: hermes-mcp-auth")
    assert result.out == ""


def test_login_without_a_server_is_a_config_error(cli: Cli) -> None:
    result = cli.run("login", "--json")
    assert (result.exit_code, result.events[0]["error"]) == (3, "config")


def test_a_server_name_with_invalid_or_control_characters_is_refused(cli: Cli) -> None:
    for name in (b"\xff\xfe", b"\x1b[2J\x07", "\u202edemo".encode(), b"a" * 5000):
        process = subprocess.run(
            [*COMMAND, "token", name], capture_output=True, env=cli.environ(), check=False, timeout=40
        )
        assert process.returncode == 3
        assert b"\x1b" not in process.stderr
        assert "\u202e".encode() not in process.stderr
        assert b"Traceback" not in process.stderr


def test_control_characters_of_an_account_are_not_printed(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(account="eve\x1b]0;owned\x07\u202e@example.com")
    log_in(cli, demo)
    output = cli.run("status").out
    assert "\x1b" not in output
    assert "\u202e" not in output
    assert urlsplit(demo.mcp_url).netloc in output


@pytest.mark.parametrize(
    "arguments",
    [
        *[
            (verb, "demo", "--owner", "")
            for verb in ("login", "token", "header", "connect", "logout", "status")
        ],
        ("run", "demo", "--owner", "", "--", "true"),
        *[(verb, "") for verb in ("login", "token", "connect", "logout", "status", "doctor")],
        ("login", "demo", "--url", ""),
        ("login", "demo", "--via", " "),
    ],
)
def test_an_empty_argument_is_a_usage_error(cli: Cli, demo: Demo, arguments: tuple[str, ...]) -> None:
    """A script passes one for an unset variable. `connect` used the tokens of the operator then."""
    log_in(cli, demo)
    before = cli.credential_files()
    result = cli.run(*arguments)
    assert (result.exit_code, result.out) == (2, "")
    assert "the value is empty; is a shell variable not set?" in result.err
    assert cli.credential_files() == before
