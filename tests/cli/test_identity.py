"""One address means one server: in every command, in programs, and under the name that `login` says."""

from __future__ import annotations

import asyncio
import json
import shlex
from pathlib import Path

import pytest

from hermes_mcp_auth_remote import McpAuth
from hermes_mcp_auth_remote.config import server_from_url
from hermes_mcp_auth_remote.errors import AmbiguousAddress, AuthorizationRequired, SchemeMissing
from tests.cli.commands import Cli, log_in
from tests.consent_form import approve
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow


@pytest.fixture
def cli(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The default home of this process. Its config.yaml has the demo server as `notes`."""
    cli = Cli(tmp_path / "home", demo.authorization_server.minted_secrets)
    cli.configure(demo.mcp_url, name="notes")
    monkeypatch.setenv("HERMES_HOME", str(cli.home))
    return cli


def read_login_command(error: AuthorizationRequired) -> str:
    """Return the arguments of the command in an advice."""
    return error.advice.split("`")[1].removeprefix("hermes-mcp-auth ")


@covers("one-identity")
def test_every_command_takes_the_address_of_a_configured_server(cli: Cli, demo: Demo) -> None:
    spelling = f"{demo.mcp_url.replace('http', 'HTTP', 1)}#part"
    login = log_in(cli, demo, spelling)
    assert login.events[-1]["server"] == "notes"
    assert set(cli.credential_files()) == {f"notes{end}.json" for end in ("", ".binding", ".client", ".meta")}
    token = cli.stored_tokens("notes")["access_token"]
    for address in (demo.mcp_url, spelling):
        assert cli.run("token", address, may_show=[token]).out.strip() == token
        assert token in cli.run("header", address, may_show=[token]).out
        assert cli.run("run", address, "--", "true").exit_code == 0
        [status, *_] = cli.run("status", address, "--json").events
        assert (status["server"], status["state"]) == ("notes", "connected")
        doctor = cli.run("doctor", address)
        assert (doctor.exit_code, doctor.out.split()[0]) == (0, "notes")
    assert "notes: logged out" in cli.run("logout", spelling).out
    assert cli.credential_files() == {}


@covers("one-identity")
def test_a_program_uses_the_login_of_a_command_by_its_address(cli: Cli, demo: Demo) -> None:
    with pytest.raises(AuthorizationRequired, match="notes needs a login") as caught:
        McpAuth(demo.mcp_url).headers()
    assert read_login_command(caught.value) == "login notes"
    log_in(cli, demo, *read_login_command(caught.value).split()[1:])
    assert McpAuth(demo.mcp_url).headers() == McpAuth("notes").headers() != {}


@covers("one-identity", "advice-runs")
def test_the_advice_for_an_unknown_address_logs_in_to_it(cli: Cli, demo: Demo) -> None:
    other = demo.mcp_url.replace("/mcp", "/other/mcp")
    auth = McpAuth(other)
    with pytest.raises(AuthorizationRequired) as caught:
        asyncio.run(auth.async_headers())
    name = server_from_url(other).name
    command = read_login_command(caught.value)
    # A model may read the error: it contains no address.
    assert command == f"login {name} --url -"
    with cli.start(*command.split(), "--json") as login:
        login.send(f"{other}\n")
        login.send(approve(login.read_event()["authorization_url"]) + "\n")
        assert login.wait_for_exit().exit_code == 0
    assert auth.headers() != {}
    # From now on, the name alone is enough.
    assert cli.run("token", name, may_show=[cli.stored_tokens(name)["access_token"]]).exit_code == 0


@covers("one-identity")
def test_login_by_url_says_which_server_it_logs_in_to(cli: Cli, demo: Demo) -> None:
    for arguments in (("--url", demo.mcp_url), (demo.mcp_url,)):
        result = cli.run("login", *arguments, "--no-wait")
        assert f"{demo.mcp_url} is the address of notes: this login is for notes." in result.err
        assert "Server         notes" in result.err
    assert "is the address of" not in cli.run("login", "notes", "--url", demo.mcp_url, "--no-wait").err
    named = cli.run("login", "work", "--url", demo.mcp_url, "--no-wait")
    assert "notes has the same address." in named.err
    assert "use the names notes and work" in named.err
    assert "Server         work" in named.err


@covers("one-identity")
def test_two_accounts_at_one_address_are_used_by_name(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo, "work", "--url", demo.mcp_url)
    # The entry of config.yaml has no login yet, so the address means the one that has.
    assert "work" in cli.run("status", demo.mcp_url).out
    log_in(cli, demo, "notes")
    for arguments in (("token",), ("status",), ("doctor",), ("logout",), ("login", "--url"), ("connect",)):
        result = cli.run(*arguments, demo.mcp_url)
        assert result.exit_code == 3, arguments
        shown = " ".join((result.err + result.out).split())
        assert f"2 servers have the address {demo.mcp_url}." in shown
        assert "Use a name instead of the address: notes or work." in shown
        assert "`hermes-mcp-auth logout work`" in shown
    with pytest.raises(AmbiguousAddress):
        McpAuth(demo.mcp_url)
    [status, *_] = cli.run("status", "work", "--json").events
    assert status["state"] == "connected"
    assert cli.run("logout", "work").exit_code == 0
    assert cli.run("login", "--url", demo.mcp_url, "--no-wait").exit_code == 0


@covers("one-identity")
def test_a_name_keeps_its_address(cli: Cli, demo: Demo) -> None:
    other = demo.mcp_url.replace("/mcp", "/other/mcp")
    result = cli.run("login", "notes", "--url", other)
    assert result.exit_code == 3
    assert f"The name notes already belongs to {demo.mcp_url}." in result.err
    assert f"`hermes-mcp-auth login --url {other}`" in " ".join(result.err.split())
    # The same address in another spelling is no other address.
    assert cli.run("login", "notes", "--url", f"{demo.mcp_url}#part", "--no-wait").exit_code == 0


@covers("one-identity")
def test_two_addresses_with_the_same_words_get_two_names(cli: Cli, demo: Demo) -> None:
    (cli.home / "config.yaml").unlink()
    first, second = f"{demo.mcp_url}?project=a", f"{demo.mcp_url}?project=b"
    taken_name = server_from_url(second).name
    log_in(cli, demo, taken_name, "--url", demo.mcp_url)
    names = [log_in(cli, demo, "--url", url).events[-1]["server"] for url in (first, second)]
    assert names == [server_from_url(first).name, f"{taken_name}-2"]
    tokens = [cli.stored_tokens(name)["access_token"] for name in names]
    assert tokens == [cli.run("token", url, may_show=tokens).out.strip() for url in (first, second)]


@covers("one-identity", "advice-runs")
def test_an_address_with_a_query_is_read_from_standard_input(cli: Cli, demo: Demo) -> None:
    (cli.home / "config.yaml").unlink()
    url = f"{demo.mcp_url}?key=a-key-that-nobody-else-knows"
    with pytest.raises(AuthorizationRequired) as caught:
        McpAuth(url).headers()
    command = read_login_command(caught.value)
    assert command == f"login {server_from_url(url).name} --url -"
    for arguments in (("token", url), ("status", url), (*command.split(), "--no-wait")):
        result = cli.run(*arguments, "--json", stdin=url.encode())
        assert "a-key-that" not in result.err
        assert "a-key-that" not in json.dumps([event.get("advice") for event in result.events])
    result = cli.run(*command.split(), "--no-wait", stdin=url.encode())
    assert result.exit_code == 0, result
    assert cli.run(*command.split(), stdin=b"").exit_code == 3


@covers("one-identity")
def test_a_waiting_login_is_known_by_name_and_address(cli: Cli, demo: Demo) -> None:
    other = demo.mcp_url.replace("/mcp", "/other/mcp")
    assert cli.run("login", "begun", "--url", other, "--no-wait").exit_code == 0
    for server in ("begun", other):
        [event] = cli.run("token", server, "--json").events
        assert (event["error"], event["server"]) == ("authorization_required", "begun")
        assert event["login_id"] is not None
    assert "the waiting login is cancelled" in " ".join(cli.run("logout", "begun").out.split())


@covers("did-you-mean")
@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (("statsu",), "did you mean status?"),
        (("Login", "notes"), "did you mean login?"),
        (("dctor", "--json"), "did you mean doctor?"),
        (("xyz",), "invalid choice"),
    ],
)
def test_a_mistyped_verb(cli: Cli, arguments: tuple[str, ...], suggestion: str) -> None:
    result = cli.run(*arguments)
    assert result.exit_code == 2
    assert suggestion in result.err
    assert result.err.startswith("usage: ")


@covers("did-you-mean")
def test_an_unknown_option_shows_the_usage_of_its_verb(cli: Cli) -> None:
    result = cli.run("status", "--chekc")
    assert (result.exit_code, "[--check]" in result.err) == (2, True)
    assert "unrecognized arguments: --chekc" in result.err


def test_help_is_a_word_too(cli: Cli) -> None:
    assert cli.run("help") == cli.run("help", "help") == cli.run("--help")
    assert cli.run("help", "token") == cli.run("token", "--help")
    assert "did you mean token?" in cli.run("help", "tokne").err


@covers("did-you-mean")
def test_a_mistyped_name_of_a_stored_login(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo, "linear", "--url", demo.mcp_url.replace("/mcp", "/other/mcp"))
    for verb in ("token", "status", "doctor", "logout", "login", "header", "connect"):
        result = cli.run(verb, "linaer")
        assert result.exit_code == 3
        assert "Did you mean linear?" in result.err + result.out
    assert "Did you mean notes?" in cli.run("token", "ntoes").err


@covers("scheme-missing")
def test_an_address_without_https_gets_the_corrected_command(cli: Cli) -> None:
    address = "mcp.linear.app/mcp"
    for arguments in (
        ("token", address),
        ("header", address),
        ("status", address),
        ("doctor", address),
        ("logout", address),
        ("connect", address),
        ("run", address, "--", "curl", address),
        ("login", address, "--no-wait"),
        ("login", "linear", "--url", address),
        ("login", f"--url={address}"),
    ):
        result = cli.run(*arguments)
        assert result.exit_code == 3
        shown = result.err + result.out
        assert f"✗ {address} is an address without https://." in shown
        command = shlex.join(arguments).replace(address, f"https://{address}", 1)
        assert f"  Run `hermes-mcp-auth {command}`." in shown
    result = cli.run("token", f"{address}?key=an-api-key", "--json")
    assert result.events[-1]["error"] == "scheme_missing"
    assert result.events[-1]["advice"] == "Put https:// before the address."
    assert "an-api-key" not in result.out
    # A name with a dot or a slash may be mistyped, too.
    cli.configure("https://a.example/mcp", name="git.hub/copilot")
    assert "Did you mean git.hub/copilot?" in cli.run("token", "git.hub-copilot").err
    with pytest.raises(SchemeMissing, match="is an address without https"):
        McpAuth(address)


def test_the_verbs_are_those_of_the_parser_and_have_modules() -> None:
    from hermes_mcp_auth_remote.cli.arguments import build_parser
    from hermes_mcp_auth_remote.cli.verbs import VERBS, load_verb

    usage = build_parser().format_help()
    for verb in VERBS:
        assert callable(load_verb(verb))
        assert f"\n    {verb} " in usage
    with pytest.raises(ValueError, match="no verb"):
        load_verb("statsu")
