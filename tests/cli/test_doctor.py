"""`doctor` reports the errors that a login would raise, and changes nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import COMMAND, Cli, Ended, log_in
from tests.cli.test_screens import compare
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.parts.certificates import Certificates, certificates
from tests.parts.terminal import terminal
from tests.requirements import covers
from tests.tripwire import guard

pytestmark = pytest.mark.slow

HTML = "<!doctype html><title>Nothing here</title>"
HARMLESS = {"mcp", "protected_resource_metadata", "authorization_server_metadata"}


def everything(cli: Cli) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in cli.home.rglob("*") if path.is_file()}


def examined(cli: Cli, demo: Demo, *arguments: str) -> Ended:
    """Run the doctor; check that it changed no file and sent only harmless requests."""
    before = everything(cli)
    demo.authorization_server.requests.clear()
    ended = cli.run("doctor", *(arguments or ("demo",)))
    assert {request.step for request in demo.authorization_server.requests} <= HARMLESS
    assert demo.authorization_server.count_requests("mcp") <= 1
    targets = [(request.step, request.target) for request in demo.authorization_server.requests]
    assert len(targets) == len(set(targets)), "the doctor sent a request twice"
    assert everything(cli) == before
    assert ended.err == ""
    return ended


def answer(cli: Cli, demo: Demo, *arguments: str) -> dict[str, Any]:
    ended = examined(cli, demo, "demo", "--json", *arguments)
    [event] = ended.events
    assert set(event) >= {"steps", "supports", "problems", "remedy"}
    assert ended.code == 0 or event["problems"]
    return event


def golden(name: str, ended: Ended, cli: Cli) -> None:
    compare(f"doctor-{name}", re.sub(r"\(\d+ ms\)", "(<n> ms)", ended.out), cli)


@covers("doctor")
def test_a_server_that_is_well(cli: Cli, demo: Demo) -> None:
    ended = examined(cli, demo)
    assert ended.code == 0
    assert ended.out.endswith("✓ Nothing is wrong: run hermes-mcp-auth login demo\n")
    golden("healthy", ended, cli)


@covers("address-key")
@pytest.mark.parametrize("more", [(), ("--json",)], ids=["screen", "json"])
def test_what_people_paste_into_issues_holds_no_key_of_an_address(
    cli: Cli, demo: Demo, more: tuple[str, ...]
) -> None:
    cli.configure(f"{demo.mcp_url}?api_key=k3y-of-mine")
    ended = examined(cli, demo, "demo", *more)
    assert "k3y-of-mine" not in ended.out
    assert "mcp?" in ended.out


# For each transcript: the exit code, and the changed behaviour of the demo.
SCREENS: dict[str, tuple[int, dict[str, object]]] = {
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
@pytest.mark.parametrize("name", SCREENS)
def test_what_is_wrong_is_shown_and_ends_with_one_remedy(cli: Cli, demo: Demo, name: str) -> None:
    code, knobs = SCREENS[name]
    demo.authorization_server.change_behaviour(**knobs)
    ended = examined(cli, demo)
    assert ended.code == code
    golden(name, ended, cli)


@pytest.mark.parametrize(
    ("name", "step", "fault", "code"),
    [
        ("html", "authorization_server_metadata", {"body": HTML}, 6),
        ("server-fails", "authorization_server_metadata", {"status": 503, "body": HTML}, 6),
        ("resource-fails", "protected_resource_metadata", {"status": 500}, 6),
        ("hang-up", "protected_resource_metadata", {"hang_up": True}, 7),
        ("post-redirected", "mcp", {"status": 307, "headers": {"Location": "https://new.example/mcp"}}, 7),
    ],
)
def test_a_server_that_answers_badly_is_shown(
    cli: Cli, demo: Demo, name: str, step: str, fault: dict[str, object], code: int
) -> None:
    demo.authorization_server.fail_next(step, times=None, **fault)  # type: ignore[arg-type]
    before = everything(cli)
    ended = cli.run("doctor", "demo")
    assert (ended.code, everything(cli)) == (code, before)
    golden(name, ended, cli)


def test_a_redirect_is_a_line_of_its_own(cli: Cli, demo: Demo) -> None:
    moved = f"{demo.issuer}/.well-known/oauth-authorization-server?moved=1"
    demo.authorization_server.fail_next(
        "authorization_server_metadata", status=302, headers={"Location": moved}
    )
    said = answer(cli, demo)
    assert [(each["status"], each["was"]) for each in said["steps"][2:4]] == [
        (302, f"redirects to {moved}"),
        (200, f"authorization server metadata, issuer {demo.issuer}"),
    ]
    assert said["problems"] == []


def test_a_server_out_of_reach_is_shown(cli: Cli, demo: Demo) -> None:
    cli.configure("http://127.0.0.1:9/mcp")
    ended = examined(cli, demo)
    assert ended.code == 7
    golden("unreachable", ended, cli)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def over_tls(authority: Certificates) -> Iterator[Demo]:
    with serve_demo(ssl_certfile=str(authority.cert_file), ssl_keyfile=str(authority.key_file)) as demo:
        yield demo


def test_a_certificate_of_an_unknown_authority_is_shown(cli: Cli, over_tls: Demo) -> None:
    cli.configure(over_tls.mcp_url)
    ended = examined(cli, over_tls)
    assert ended.code == 7
    golden("unknown-authority", ended, cli)


def test_authorities_that_were_named_are_said_and_used(
    cli: Cli, over_tls: Demo, authority: Certificates
) -> None:
    cli.configure(over_tls.mcp_url)
    ended = cli.run("doctor", "demo", "--json", env={"SSL_CERT_FILE": str(authority.ca_file)})
    assert ended.code == 0
    assert ended.events[0]["network"]["trusts"] == f"SSL_CERT_FILE ({authority.ca_file})"


def test_a_server_of_2025_03_26_is_well(cli: Cli) -> None:
    behaviour = Behaviour(
        resource_metadata_locations=(), challenge_names_metadata=False, metadata_locations=()
    )
    with serve_demo(behaviour, separate_origins=False) as demo:
        cli.configure(demo.mcp_url)
        ended = examined(cli, demo)
        assert ended.code == 0
        golden("2025-03-26", ended, cli)
        assert answer(cli, demo)["supports"]["metadata"] is False


@pytest.mark.tmux
def test_a_narrow_terminal_breaks_nothing_but_addresses(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(with_registration=False)
    with terminal([*COMMAND, "doctor", "demo"], env=cli.environ(), columns=72, rows=60) as screen:
        assert screen.wait_for_exit() == 6
        text = screen.joined()
    long = [line for line in text.splitlines() if len(line) > 72]
    assert [line for line in long if "://" not in line] == []
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
def test_what_it_finds_is_what_a_login_meets(cli: Cli, demo: Demo, knobs: dict[str, object]) -> None:
    demo.authorization_server.change_behaviour(**knobs)
    found = answer(cli, demo)
    login = cli.run("login", "demo", "--json", "--no-wait")
    if login.code == 0:
        assert found["problems"] == []
        return
    met, first = login.events[-1], found["problems"][0]
    assert (first["code"], first["message"]) == (met["error"], met["message"])
    assert cli.run("doctor", "demo").code == login.code


def test_what_a_server_supports_is_said_whole(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(
        with_par=True,
        with_device=True,
        cimd_supported=True,
        metadata_overrides={"dpop_signing_alg_values_supported": ["ES256"]},
    )
    said = answer(cli, demo)["supports"]
    assert said["flows"] == ["browser", "paste", "device"]
    assert said["device_issuer"] == demo.issuer
    assert said["registration"] == ["pre_registered", "client_id_metadata_document", "dynamic"]
    assert (said["pkce"], said["par"], said["par_required"]) == (["S256"], True, False)
    assert (said["dpop"], said["iss"], said["revocation"]) == (["ES256"], True, True)
    assert (said["scopes"], said["challenged_scope"]) == (["mcp:tools"], ["mcp:tools"])
    assert said["offline_access"] is True
    assert "refresh_token" in said["grants"]
    assert demo.authorization_server.count_requests("pushed_request") == 0


def test_a_device_endpoint_that_only_the_openid_document_names_is_found(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(
        with_device=True, device_only_in_openid=True, metadata_locations=("rfc8414", "openid_appended")
    )
    assert answer(cli, demo)["supports"]["device_issuer"] == demo.issuer
    cli.configure(demo.mcp_url, device=False)
    assert answer(cli, demo)["supports"]["flows"] == ["browser", "paste"]


def test_a_login_that_stands_is_told_and_its_secrets_are_not(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    said = answer(cli, demo)
    assert said["stored"] == ["tokens", "refresh token", "client", "metadata", "binding"]
    assert said["remedy"] == "Nothing is wrong, and you are connected."
    demo.authorization_server.change_behaviour(pkce_advertised=False)
    assert answer(cli, demo)["problems"][0]["code"] == "pkce_not_supported"


def test_a_file_that_cannot_be_read_comes_before_all_that_a_server_did(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    (cli.home / "mcp-tokens" / "demo.json").write_text("[]")
    demo.authorization_server.change_behaviour(with_registration=False)
    ended = examined(cli, demo, "demo", "--json")
    assert ended.code == 8
    codes = [each["code"] for each in ended.events[0]["problems"]]
    assert codes == ["store_corrupt", "client_id_needed"]
    assert ended.events[0]["remedy"] == ended.events[0]["problems"][0]["advice"]


def test_what_is_configured_is_named_and_never_shown(cli: Cli, demo: Demo) -> None:
    secret = "the-operators-client-secret"
    guard({secret})
    cli.configure(demo.mcp_url, client_id="ours", client_secret=secret, timeout=60)
    ended = examined(cli, demo)
    assert "Configured  oauth.client_id, oauth.client_secret, oauth.timeout" in ended.out
    assert secret not in ended.out
    assert "set `oauth.redirect_port` to the one that you registered" in ended.out
    assert secret not in json.dumps(answer(cli, demo))


@pytest.mark.parametrize(
    ("oauth", "note"),
    [
        ({"allow_missing_pkce": True}, "`oauth.allow_missing_pkce` is no longer needed"),
        ({"client_metadata_url": "https://us.example/client.json"}, "is not used"),
        ({"dpop": True}, "does not list ES256"),
        ({"scope": "mcp:tools mcp:all"}, "requests scopes that no server lists: mcp:all."),
    ],
)
def test_an_option_that_is_in_vain_is_remarked_on(
    cli: Cli, demo: Demo, oauth: dict[str, Any], note: str
) -> None:
    cli.configure(demo.mcp_url, **oauth)
    said = answer(cli, demo)
    assert any(note in each for each in said["notes"])
    assert said["problems"] == []


def test_a_proxy_is_named_without_its_password(cli: Cli, demo: Demo) -> None:
    guard({"hunter2hunter2"})
    cli.configure("https://mcp.example/mcp")
    proxy = {"HTTPS_PROXY": "http://ada:hunter2hunter2@127.0.0.1:9"}
    ended = cli.run("doctor", "demo", "--json", env=proxy)
    said = ended.events[0]
    assert (ended.code, said["problems"][0]["code"]) == (7, "unreachable")
    assert said["network"]["proxy"] == said["steps"][0]["proxy"] == "127.0.0.1:9"
    text = cli.run("doctor", "demo", env=proxy)
    assert "by the proxy 127.0.0.1:9" in text.out
    assert "hunter2" not in ended.out + text.out
    unusable = cli.run("doctor", "demo", "--json", env={"HTTPS_PROXY": "ftp://nowhere"})
    assert (unusable.code, unusable.events[0]["problems"][0]["code"]) == (3, "config")


def test_a_grant_without_a_person_is_walked_through_without_asking_for_a_token(cli: Cli, demo: Demo) -> None:
    cli.configure(demo.mcp_url, grant="client_credentials", client_id="us", client_secret="ours-alone")
    assert answer(cli, demo)["remedy"] == (
        "Nothing is wrong. No login is needed: run hermes-mcp-auth token demo"
    )
    cli.configure(
        demo.mcp_url, grant="jwt_bearer", client_id="us", assertion_file=str(Path("/nowhere/at/all"))
    )
    assert answer(cli, demo)["problems"][0]["code"] == "config"


def test_a_server_that_is_not_configured_is_said_to_be(cli: Cli, demo: Demo) -> None:
    ended = examined(cli, demo, "dmeo", "--json")
    assert ended.code == 3
    [said] = ended.events
    assert (said["steps"], said["problems"][0]["code"]) == ([], "server_not_found")
    assert said["remedy"] == "Did you mean demo?"
    text = examined(cli, demo, "dmeo")
    assert (text.code, text.out.strip().endswith("Did you mean demo?")) == (3, True)


def test_a_server_is_examined_by_its_address_too(cli: Cli, demo: Demo) -> None:
    (cli.home / "config.yaml").unlink()
    ended = examined(cli, demo, demo.mcp_url)
    assert ended.code == 0
    assert ended.out.endswith(f"run hermes-mcp-auth login {demo.mcp_url}\n")


@covers("no-escape")
def test_nothing_that_a_server_says_steers_the_terminal(cli: Cli, demo: Demo) -> None:
    evil = "https://login.example/\u202e\u001b[2J\n✓ Nothing is wrong"
    demo.authorization_server.change_behaviour(
        metadata_overrides={"issuer": evil, "grant_types_supported": [evil]},
        resource_overrides={"scopes_supported": [evil], "authorization_servers": [demo.issuer, evil]},
    )
    ended = examined(cli, demo)
    assert ended.code == 6
    assert all(line.isprintable() for line in ended.out.splitlines())
    assert "✓" not in ended.out


def test_the_help(cli: Cli) -> None:
    ended = cli.run("doctor", "--help")
    assert (ended.code, max(map(len, ended.out.splitlines())) <= 80) == (0, True)
    compare("help-doctor", ended.out, cli)
