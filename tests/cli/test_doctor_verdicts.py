"""`doctor` says "nothing is wrong" only if it has checked that (quirk 64)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.commands import Cli, CommandResult, log_in
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.requirements import covers


def run_doctor(cli: Cli, demo: Demo, **oauth: Any) -> CommandResult:
    cli.configure(demo.mcp_url, **oauth)
    result = cli.run("doctor", "demo")
    assert "Nothing is wrong" not in result.out
    return result


def remedy(result: CommandResult) -> str:
    return " ".join(result.out.split("\n\n")[-1].split())


@covers("doctor")
def test_quirk_64_an_ended_session_is_a_problem(cli: Cli, demo: Demo) -> None:
    cli.configure(demo.mcp_url)
    log_in(cli, demo)
    cli.change_stored_tokens(refresh_token=None, expires_at=1.0)
    result = run_doctor(cli, demo)
    assert result.exit_code == 4
    assert remedy(result).endswith("Run hermes-mcp-auth login demo")


@covers("doctor")
@pytest.mark.parametrize("late", [False, True], ids=["its page says so", "a sign-in page comes first"])
def test_quirk_64_a_forgotten_client_is_a_problem(cli: Cli, demo: Demo, *, late: bool) -> None:
    cli.configure(demo.mcp_url)
    log_in(cli, demo)
    if late:
        location = f"{demo.issuer}/error?error=invalid_client"
        demo.authorization_server.fail_next("authorization", status=302, headers={"Location": location})
    else:
        demo.authorization_server.ledger.forget_clients()
    result = run_doctor(cli, demo)
    assert result.exit_code == 6
    assert "no longer knows the client" in " ".join(result.out.split())
    assert demo.authorization_server.count_requests("registration") == 1


@covers("doctor")
def test_quirk_64_a_token_that_is_always_refused_is_a_problem(cli: Cli, demo: Demo) -> None:
    cli.configure(demo.mcp_url)
    log_in(cli, demo)
    assert "Nothing is wrong, and you are connected" in cli.run("doctor", "demo").out
    demo.authorization_server.ledger.revoke_access_tokens()
    result = run_doctor(cli, demo)
    assert result.exit_code == 4
    assert "it refuses the stored token" in " ".join(result.out.split())


@covers("doctor")
def test_quirk_64_a_refused_push_is_a_problem(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(with_par=True, require_par=True)
    demo.authorization_server.fail_next("pushed_request", status=403, times=None)
    client = demo.authorization_server.add_client("http://127.0.0.1:52765/callback")
    result = run_doctor(cli, demo, client_id=client.client_id)
    assert result.exit_code == 6
    assert "oauth.resource: false" in remedy(result)


@covers("doctor")
def test_quirk_64_assumed_endpoints_are_marked_and_not_judged(cli: Cli) -> None:
    behaviour = Behaviour(
        resource_metadata_locations=(), challenge_names_metadata=False, metadata_locations=()
    )
    with serve_demo(behaviour, separate_origins=False) as demo:
        result = run_doctor(cli, demo)
        assert result.exit_code == 0
        assert f"{demo.issuer} (assumed)" in result.out
        assert "cannot be told without trying" in remedy(result)


@covers("doctor")
def test_quirk_64_after_a_403_the_verdict_is_open(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(challenge_names_metadata=False)
    demo.authorization_server.change_behaviour(resource_metadata_locations=("root",))
    demo.authorization_server.fail_next("protected_resource_metadata", status=403, body=b"Forbidden")
    assert "cannot be told without trying" in remedy(run_doctor(cli, demo))
    demo.authorization_server.fail_next("protected_resource_metadata", status=403, times=None)
    result = run_doctor(cli, demo)
    assert result.exit_code == 6
    assert "oauth.user_agent" in remedy(result)


@covers("doctor", "more-access")
def test_doctor_and_status_report_more_access(cli: Cli, demo: Demo) -> None:
    cli.configure(demo.mcp_url)
    log_in(cli, demo)
    [binding_file] = [
        path
        for path in (cli.home / "mcp-tokens").glob("demo*.json")
        if b"requested_scope" in path.read_bytes()
    ]
    document: dict[str, Any] = json.loads(binding_file.read_bytes())
    binding_file.write_text(json.dumps({**document, "needed_scope": ["mcp:write"]}), "utf-8")
    status = cli.run("status", "demo")
    assert "the server demands mcp:write" in " ".join(status.out.split())
    assert "hermes-mcp-auth login demo" in status.out
    assert cli.run("status", "demo", "--json").events[0]["needed_scope"] == ["mcp:write"]
    assert run_doctor(cli, demo).exit_code == 4
