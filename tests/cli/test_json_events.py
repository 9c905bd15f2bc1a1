"""Each line that a verb prints with `--json` is an event of docs/json.md.

`CommandResult.events` and `RunningCommand.read_event` check the events of all other tests too.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from hermes_mcp_auth_remote import cli as cli_package
from hermes_mcp_auth_remote.cli.arguments import build_parser
from tests.cli.commands import Cli, log_in
from tests.json_events import check_event, event_names
from tests.parts.authorization_server import Demo
from tests.requirements import covers

# `header --json` prints HTTP headers. `run` and `connect` have no `--json`.
VERBS = {"login", "status", "token", "logout", "doctor", "serve", "demo"}


def printed_event_names() -> set[str]:
    """Return each event name in the source of the command line."""
    names: set[str] = set()
    for path in Path(cli_package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Dict):
                names |= {
                    str(value.value)
                    for key, value in zip(node.keys, node.values, strict=True)
                    if isinstance(key, ast.Constant)
                    and key.value == "event"
                    and isinstance(value, ast.Constant)
                }
    return names


@covers("json-schema")
def test_the_page_has_exactly_the_events_of_the_program() -> None:
    assert printed_event_names() == event_names()


@covers("json-schema")
def test_an_event_with_another_member_or_type_is_refused() -> None:
    good = {"version": 1, "event": "expired", "login_id": "a"}
    check_event(good)
    for bad in (
        {**good, "login_id": 1},
        {**good, "more": 1},
        {**good, "version": 2},
        {"event": "expired", "version": 1},
        {**good, "event": "over"},
    ):
        with pytest.raises(AssertionError):
            check_event(bad)


@covers("json-schema")
def test_the_events_of_every_verb(cli: Cli, demo: Demo) -> None:
    """Let each verb succeed and fail. Other tests use `serve` and `login --via`."""
    may_show = demo.authorization_server.minted_secrets
    seen: set[str] = set()

    def run(*arguments: str, stdin: bytes = b"") -> None:
        result = cli.run(*arguments, "--json", stdin=stdin, may_show=may_show)
        assert result.events, arguments
        seen.update(event["event"] for event in result.events)

    run("status")
    run("token", "demo")
    run("login", "demo", "--no-wait")
    run("login", "demo", stdin=b"nonsense\n")
    seen.update(event["event"] for event in log_in(cli, demo).events)
    for verb in ("status", "token", "doctor"):
        run(verb, "demo")
        run(verb, "dmeo")
    cli.write_config(json.dumps({"mcp_server": {}, "mcp_auth_chats": {"owners": "shared"}}))
    run("status")
    run("doctor")
    run("doctor", "--hermes")
    run("logout", "demo")
    run("serve", "--telegram")
    run("demo")
    demo.authorization_server.change_behaviour(with_device=True)
    cli.configure(demo.mcp_url)
    run("login", "demo", "--no-wait", "--flow", "device")
    run("status")
    run("login", "demo", "--no-wait", "--via", "telegram:7")
    assert event_names() - seen <= {
        "shown",
        "unshown",
        "serving",
        "demo_serving",
        "expired",
        "refused_requests",
    }


@covers("json-schema")
def test_every_verb_with_the_option_is_on_the_page() -> None:
    parser = build_parser()
    verbs = next(action for action in parser._actions if action.dest == "verb").choices
    assert isinstance(verbs, dict)
    with_json = {verb for verb, each in verbs.items() if "--json" in each._option_string_actions}
    assert with_json == VERBS | {"header"}


@covers("json-schema")
def test_the_header_is_a_plain_object_of_headers(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    result = cli.run("header", "demo", "--json", may_show=demo.authorization_server.minted_secrets)
    assert list(json.loads(result.out)) == ["Authorization"]
