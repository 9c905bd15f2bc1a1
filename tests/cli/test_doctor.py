"""`doctor` reports the errors that a login would raise. It stores, registers and requests nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import COMMAND, Cli, CommandResult, log_in
from tests.cli.test_screens import compare_screen
from tests.leak_check import watch_secrets
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.parts.authorization_server.faults import RecordedRequest
from tests.parts.certificates import Certificates, issue_certificates
from tests.parts.terminal import open_terminal
from tests.requirements import covers

pytestmark = pytest.mark.slow

HTML_PAGE = "<!doctype html><title>Nothing here</title>"
# Everything that the doctor may send: the step, the HTTP method, the MCP method, and whether a token is sent.
FIRST_REQUEST = ("mcp", "POST", "initialize", False)
TOKEN_PROBE = ("mcp", "POST", "ping", True)
RESOURCE_METADATA = ("protected_resource_metadata", "GET", None, False)
SERVER_METADATA = ("authorization_server_metadata", "GET", None, False)
# The doctor sends this for a stored client.
SIGN_IN_PAGE = ("authorization", "GET", None, False)
# If the client is stored or configured, the doctor may send this instead of the request for the sign-in
# page. The pushed request expires unused.
PUSHED_REQUEST = ("pushed_request", "POST", None, False)
ALLOWED_REQUESTS = {
    FIRST_REQUEST,
    TOKEN_PROBE,
    RESOURCE_METADATA,
    SERVER_METADATA,
    SIGN_IN_PAGE,
    PUSHED_REQUEST,
}


def read_home(cli: Cli) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in cli.home.rglob("*") if path.is_file()}


def describe_request(request: RecordedRequest) -> tuple[str, str, str | None, bool]:
    mcp_method = json.loads(request.body)["method"] if request.step == "mcp" else None
    return request.step, request.method, mcp_method, "authorization" in request.headers


def run_doctor(cli: Cli, demo: Demo, *arguments: str) -> CommandResult:
    """Run the doctor; check that it changed no file and sent only allowed requests, each of them once."""
    before = read_home(cli)
    demo.authorization_server.requests.clear()
    result = cli.run("doctor", *(arguments or ("demo",)))
    requests = list(demo.authorization_server.requests)
    kinds = [describe_request(request) for request in requests]
    assert set(kinds) <= ALLOWED_REQUESTS
    targets = [(*kind, request.target) for kind, request in zip(kinds, requests, strict=True)]
    assert len(targets) == len(set(targets)), "the doctor sent a request twice"
    for kind in (FIRST_REQUEST, TOKEN_PROBE, SIGN_IN_PAGE, PUSHED_REQUEST):
        assert kinds.count(kind) <= 1
    assert read_home(cli) == before
    assert result.err == ""
    return result


@covers("doctor")
def test_the_requests_of_the_doctor_are_those_of_its_help(cli: Cli, demo: Demo) -> None:
    def sent() -> set[tuple[str, str, str | None, bool]]:
        run_doctor(cli, demo)
        return {describe_request(request) for request in demo.authorization_server.requests}

    discovery = {FIRST_REQUEST, RESOURCE_METADATA, SERVER_METADATA}
    assert sent() == discovery
    log_in(cli, demo)
    assert sent() == {*discovery, TOKEN_PROBE, SIGN_IN_PAGE}
    demo.authorization_server.change_behaviour(with_par=True)
    assert sent() == {*discovery, TOKEN_PROBE, PUSHED_REQUEST}


def read_report(cli: Cli, demo: Demo, *arguments: str) -> dict[str, Any]:
    result = run_doctor(cli, demo, "demo", "--json", *arguments)
    [event] = result.events
    assert set(event) >= {"steps", "supports", "problems", "advice"}
    assert result.exit_code == 0 or event["problems"]
    return event


def compare_doctor_transcript(name: str, ended: CommandResult, cli: Cli) -> None:
    compare_screen(f"doctor-{name}", re.sub(r"\(\d+ ms\)", "(<n> ms)", ended.out), cli)


@covers("doctor")
def test_a_healthy_server(cli: Cli, demo: Demo) -> None:
    result = run_doctor(cli, demo)
    assert result.exit_code == 0
    assert result.out.endswith("✓ Nothing is wrong: run hermes-mcp-auth login demo\n")
    compare_doctor_transcript("healthy", result, cli)


@covers("address-key")
@pytest.mark.parametrize("more", [(), ("--json",)], ids=["screen", "json"])
def test_the_output_hides_a_key_in_the_url(cli: Cli, demo: Demo, more: tuple[str, ...]) -> None:
    cli.configure(f"{demo.mcp_url}?api_key=k3y-of-mine")
    result = run_doctor(cli, demo, "demo", *more)
    assert "k3y-of-mine" not in result.out
    assert "mcp?" in result.out


# For each transcript: the exit code, and the changed behaviour of the demo.
BEHAVIOUR_BY_SCREEN: dict[str, tuple[int, dict[str, object]]] = {
    "no-registration": (6, {"with_registration": False}),
    "no-pkce": (6, {"pkce_advertised": False}),
    "no-pkce-no-registration": (6, {"pkce_advertised": False, "with_registration": False}),
    "issuer-mismatch": (6, {"metadata_issuer": "https://login.example/tenant"}),
    "private-address": (7, {"resource_overrides": {"authorization_servers": ["https://10.0.0.1"]}}),
    "no-authorization-server": (6, {"resource_overrides": {"authorization_servers": None}}),
    "another-resource": (6, {"resource_overrides": {"resource": "https://elsewhere.example/mcp"}}),
    "entra": (0, {"metadata_overrides": {"msgraph_host": "graph.example"}}),
    "no-metadata": (6, {"metadata_locations": ()}),
    "no-authorization": (
        6,
        {
            "open_methods": frozenset({"initialize"}),
            "resource_metadata_locations": (),
            "metadata_locations": (),
        },
    ),
}


@covers("doctor")
@pytest.mark.parametrize("name", BEHAVIOUR_BY_SCREEN)
def test_each_problem_is_shown_with_one_remedy(cli: Cli, demo: Demo, name: str) -> None:
    code, changes = BEHAVIOUR_BY_SCREEN[name]
    demo.authorization_server.change_behaviour(**changes)
    result = run_doctor(cli, demo)
    assert result.exit_code == code
    compare_doctor_transcript(name, result, cli)


@pytest.mark.parametrize(
    ("name", "step", "fault", "code"),
    [
        ("html", "authorization_server_metadata", {"body": HTML_PAGE}, 6),
        ("server-fails", "authorization_server_metadata", {"status": 503, "body": HTML_PAGE}, 6),
        ("resource-fails", "protected_resource_metadata", {"status": 500}, 6),
        ("hang-up", "protected_resource_metadata", {"hang_up": True}, 7),
        ("post-redirected", "mcp", {"status": 307, "headers": {"Location": "https://new.example/mcp"}}, 7),
    ],
)
def test_a_bad_response_is_shown(
    cli: Cli, demo: Demo, name: str, step: str, fault: dict[str, object], code: int
) -> None:
    demo.authorization_server.fail_next(step, times=None, **fault)  # type: ignore[arg-type]
    before = read_home(cli)
    result = cli.run("doctor", "demo")
    assert (result.exit_code, read_home(cli)) == (code, before)
    compare_doctor_transcript(name, result, cli)


@covers("no-secret")
def test_a_redirect_is_a_separate_step_and_shows_no_query(cli: Cli, demo: Demo) -> None:
    moved = f"{demo.issuer}/.well-known/oauth-authorization-server?code=a-code"
    demo.authorization_server.fail_next(
        "authorization_server_metadata", status=302, headers={"Location": moved}
    )
    report = read_report(cli, demo)
    assert [(step["status"], step["result"]) for step in report["steps"][2:4]] == [
        (302, f"redirects to {moved.partition('?')[0]}?…"),
        (200, f"authorization server metadata, issuer {demo.issuer}"),
    ]
    assert report["problems"] == []


def test_an_unreachable_server_is_shown(cli: Cli, demo: Demo) -> None:
    cli.configure("http://127.0.0.1:9/mcp")
    result = run_doctor(cli, demo)
    assert result.exit_code == 7
    compare_doctor_transcript("unreachable", result, cli)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return issue_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_demo(authority: Certificates) -> Iterator[Demo]:
    with serve_demo(ssl_certfile=str(authority.cert_file), ssl_keyfile=str(authority.key_file)) as demo:
        yield demo


def test_a_certificate_of_an_unknown_authority_is_shown(cli: Cli, tls_demo: Demo) -> None:
    cli.configure(tls_demo.mcp_url)
    result = run_doctor(cli, tls_demo)
    assert result.exit_code == 7
    compare_doctor_transcript("unknown-authority", result, cli)


def test_configured_certificate_authorities_are_used_and_shown(
    cli: Cli, tls_demo: Demo, authority: Certificates
) -> None:
    cli.configure(tls_demo.mcp_url)
    result = cli.run("doctor", "demo", "--json", env={"SSL_CERT_FILE": str(authority.ca_file)})
    assert result.exit_code == 0
    assert result.events[0]["network"]["trusts"] == f"SSL_CERT_FILE ({authority.ca_file})"


def test_a_server_of_2025_03_26_is_healthy(cli: Cli) -> None:
    behaviour = Behaviour(
        resource_metadata_locations=(), challenge_names_metadata=False, metadata_locations=()
    )
    with serve_demo(behaviour, separate_origins=False) as demo:
        cli.configure(demo.mcp_url)
        result = run_doctor(cli, demo)
        assert result.exit_code == 0
        compare_doctor_transcript("2025-03-26", result, cli)
        assert read_report(cli, demo)["supports"]["metadata"] is False


@pytest.mark.tmux
def test_on_a_narrow_terminal_only_urls_exceed_the_width(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(with_registration=False)
    with open_terminal([*COMMAND, "doctor", "demo"], env=cli.environ(), columns=72, rows=60) as screen:
        assert screen.wait_for_exit() == 6
        text = screen.full_text()
    long_lines = [line for line in text.splitlines() if len(line) > 72]
    assert [line for line in long_lines if "://" not in line] == []
    assert "with the redirect URI http://127.0.0.1:" in " ".join(text.split())


@covers("doctor")
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"with_registration": False},
        {"pkce_advertised": False},
        {"metadata_issuer": "https://login.example"},
        {"metadata_locations": ()},
        {"metadata_overrides": {"token_endpoint": "http://169.254.169.254/"}},
        {"metadata_overrides": {"authorization_endpoint": "javascript:alert(1)"}},
        {"resource_overrides": {"authorization_servers": ["https://10.0.0.1"]}},
        {"resource_overrides": {"resource": None}},
        {"challenge_lines": ('Bearer resource_metadata="{metadata}", error="\u00ff"',)},
        {"open_methods": frozenset({"initialize"})},
        {"open_methods": frozenset({"initialize"}), "resource_metadata_locations": ()},
    ],
)
def test_the_doctor_reports_the_error_that_a_login_raises(
    cli: Cli, demo: Demo, knobs: dict[str, object]
) -> None:
    demo.authorization_server.change_behaviour(**knobs)
    report = read_report(cli, demo)
    login = cli.run("login", "demo", "--json", "--no-wait")
    if login.exit_code == 0:
        assert report["problems"] == []
        return
    expected, problem = login.events[-1], report["problems"][0]
    assert (problem["error"], problem["message"]) == (expected["error"], expected["message"])
    assert cli.run("doctor", "demo").exit_code == login.exit_code


def test_all_supported_features_are_reported(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(
        with_par=True,
        with_device=True,
        cimd_supported=True,
        metadata_overrides={"dpop_signing_alg_values_supported": ["ES256"]},
    )
    supports = read_report(cli, demo)["supports"]
    assert supports["flows"] == ["browser", "paste", "device"]
    assert supports["device_issuer"] == demo.issuer
    assert supports["registration"] == ["pre_registered", "client_id_metadata_document", "dynamic"]
    assert (supports["pkce"], supports["par"], supports["par_required"]) == (["S256"], True, False)
    assert (supports["dpop"], supports["iss"], supports["revocation"]) == (["ES256"], True, True)
    assert (supports["scopes"], supports["challenged_scope"]) == (["mcp:tools"], ["mcp:tools"])
    assert supports["offline_access"] is True
    assert "refresh_token" in supports["grants"]
    assert demo.authorization_server.count_requests("pushed_request") == 0


def test_a_device_endpoint_only_in_the_openid_document_is_found(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(
        with_device=True, device_only_in_openid=True, metadata_locations=("rfc8414", "openid_appended")
    )
    assert read_report(cli, demo)["supports"]["device_issuer"] == demo.issuer
    cli.configure(demo.mcp_url, device=False)
    assert read_report(cli, demo)["supports"]["flows"] == ["browser", "paste"]


def test_a_stored_login_is_reported_without_its_secrets(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    report = read_report(cli, demo)
    assert report["stored"] == ["tokens", "refresh token", "client", "metadata", "binding"]
    assert report["advice"] == "Nothing is wrong, and you are connected."
    demo.authorization_server.change_behaviour(pkce_advertised=False)
    assert read_report(cli, demo)["problems"][0]["error"] == "pkce_not_supported"


def test_an_unreadable_file_is_the_first_problem(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    (cli.home / "mcp-tokens" / "demo.json").write_text("[]")
    demo.authorization_server.change_behaviour(with_registration=False)
    result = run_doctor(cli, demo, "demo", "--json")
    assert result.exit_code == 8
    codes = [event["error"] for event in result.events[0]["problems"]]
    assert codes == ["store_corrupt", "client_id_needed"]
    assert result.events[0]["advice"] == result.events[0]["problems"][0]["advice"]


def test_configured_options_are_named_without_their_values(cli: Cli, demo: Demo) -> None:
    secret = "the-operators-client-secret"
    watch_secrets({secret})
    cli.configure(demo.mcp_url, client_id="ours", client_secret=secret, timeout=60)
    result = run_doctor(cli, demo)
    assert "Configured  oauth.client_id, oauth.client_secret, oauth.timeout" in result.out
    assert secret not in result.out
    assert "set `oauth.redirect_port` to the one that you registered." in " ".join(result.out.split())
    assert secret not in json.dumps(read_report(cli, demo))


@pytest.mark.parametrize(
    ("oauth", "note"),
    [
        ({"allow_missing_pkce": True}, "`oauth.allow_missing_pkce` is no longer needed"),
        ({"client_metadata_url": "https://us.example/client.json"}, "is not used"),
        ({"dpop": True}, "does not list ES256"),
        ({"scope": "mcp:tools mcp:all"}, "requests scopes that no server lists: mcp:all."),
    ],
)
def test_a_note_names_an_option_without_effect(
    cli: Cli, demo: Demo, oauth: dict[str, Any], note: str
) -> None:
    cli.configure(demo.mcp_url, **oauth)
    report = read_report(cli, demo)
    assert any(note in line for line in report["notes"])
    assert report["problems"] == []


def test_a_proxy_is_named_without_its_password(cli: Cli, demo: Demo) -> None:
    watch_secrets({"hunter2hunter2"})
    cli.configure("https://mcp.example/mcp")
    proxy = {"HTTPS_PROXY": "http://ada:hunter2hunter2@127.0.0.1:9"}
    result = cli.run("doctor", "demo", "--json", env=proxy)
    report = result.events[0]
    assert (result.exit_code, report["problems"][0]["error"]) == (7, "unreachable")
    assert report["network"]["proxy"] == report["steps"][0]["proxy"] == "127.0.0.1:9"
    text = cli.run("doctor", "demo", env=proxy)
    assert "by the proxy 127.0.0.1:9" in text.out
    assert "hunter2" not in result.out + text.out
    unusable = cli.run("doctor", "demo", "--json", env={"HTTPS_PROXY": "ftp://nowhere"})
    assert (unusable.exit_code, unusable.events[0]["problems"][0]["error"]) == (3, "config")


def test_a_machine_grant_is_checked_without_a_token_request(cli: Cli, demo: Demo) -> None:
    cli.configure(demo.mcp_url, grant="client_credentials", client_id="us", client_secret="ours-alone")
    assert read_report(cli, demo)["advice"] == (
        "Nothing is wrong. No login is needed: run hermes-mcp-auth token demo"
    )
    cli.configure(
        demo.mcp_url, grant="jwt_bearer", client_id="us", assertion_file=str(Path("/nowhere/at/all"))
    )
    assert read_report(cli, demo)["problems"][0]["error"] == "config"


def test_an_unknown_server_name_is_a_problem(cli: Cli, demo: Demo) -> None:
    result = run_doctor(cli, demo, "dmeo", "--json")
    assert result.exit_code == 3
    [report] = result.events
    assert (report["steps"], report["problems"][0]["error"]) == ([], "server_not_found")
    assert report["advice"] == "Did you mean demo?"
    text = run_doctor(cli, demo, "dmeo")
    assert (text.exit_code, text.out.strip().endswith("Did you mean demo?")) == (3, True)


def test_the_doctor_accepts_a_url(cli: Cli, demo: Demo) -> None:
    (cli.home / "config.yaml").unlink()
    result = run_doctor(cli, demo, demo.mcp_url)
    assert result.exit_code == 0
    assert result.out.endswith(f"run hermes-mcp-auth login --url {demo.mcp_url}\n")


@covers("no-escape")
def test_control_characters_of_a_server_are_not_printed(cli: Cli, demo: Demo) -> None:
    evil = "https://login.example/\u202e\u001b[2J\n✓ Nothing is wrong"
    demo.authorization_server.change_behaviour(
        metadata_overrides={"issuer": evil, "grant_types_supported": [evil]},
        resource_overrides={"scopes_supported": [evil], "authorization_servers": [demo.issuer, evil]},
    )
    result = run_doctor(cli, demo)
    assert result.exit_code == 6
    assert all(line.isprintable() for line in result.out.splitlines())
    assert "✓" not in result.out


def test_the_help_of_doctor(cli: Cli) -> None:
    result = cli.run("doctor", "--help")
    assert (result.exit_code, max(map(len, result.out.splitlines())) <= 80) == (0, True)
    compare_screen("help-doctor", result.out, cli)
