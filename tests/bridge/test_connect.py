"""`connect` in a process, against the demo's servers: tokens, logins, and the ends of the process."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import parse_qs, urlsplit

import pytest

from benchmarks.login_home import logged_in_home
from tests.bridge.client import meta, run_in_loop
from tests.bridge.raw_server import Reply, Request, serve
from tests.cli.bot_process import add_user, login_url, run_bot_process, wait_for_message
from tests.cli.commands import COMMAND, Cli, RunningCommand, log_in
from tests.consent_form import approve, approve_device, deny, fetch
from tests.parts.authorization_server import Demo
from tests.parts.bot_api import BotApi
from tests.parts.terminal import open_terminal
from tests.requirements import covers

pytestmark = pytest.mark.slow

INITIALIZE: dict[str, Any] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}
ADD = {"name": "add", "arguments": {"a": 2, "b": 3}}
PARSE_ERROR = -32700


class ConnectClient:
    """A JSON-RPC client of a `connect` process."""

    def __init__(self, command: RunningCommand) -> None:
        self.command = command
        # What was read and not yet returned: notifications, and responses to other requests.
        self.notifications: list[dict[str, Any]] = []
        self._responses: dict[int, dict[str, Any]] = {}
        self._next_id = 0

    def send(self, method: str, params: dict[str, Any] | None = None, *, is_request: bool = True) -> int:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        if is_request:
            self._next_id += 1
            message["id"] = self._next_id
        self.command.send(json.dumps(message) + "\n")
        return self._next_id

    def read_response(self, request_id: int) -> dict[str, Any]:
        while request_id not in self._responses:
            self._read_message()
        return self._responses.pop(request_id)

    def _read_message(self) -> None:
        message = self.command.read_event()
        if "method" in message:
            self.notifications.append(message)
        else:
            self._responses[message["id"]] = message

    def wait_for_notification(self, method: str) -> dict[str, Any]:
        while not any(message["method"] == method for message in self.notifications):
            self._read_message()
        return next(message for message in self.notifications if message["method"] == method)

    def request(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        return self.read_response(self.send(method, params))

    def initialize(self, **capabilities: Any) -> dict[str, Any]:
        response = self.request("initialize", {**INITIALIZE, "capabilities": capabilities})
        self.send("notifications/initialized", is_request=False)
        return response

    def tools(self, **params: Any) -> list[str]:
        return [tool["name"] for tool in self.request("tools/list", params)["result"]["tools"]]

    def call(self, **params: Any) -> str:
        """Call a tool and return its text."""
        text: str = self.request("tools/call", params or ADD)["result"]["content"][0]["text"]
        return text

    def end(self) -> str:
        """Close the input; return standard error."""
        result = self.command.wait_for_exit(b"")
        assert (result.exit_code, result.out) == (0, "")
        assert "http" not in result.err
        return result.err


@contextmanager
def connect(cli: Cli, *arguments: str, env: dict[str, str] | None = None) -> Iterator[ConnectClient]:
    with cli.start("connect", *(arguments or ("demo", "--no-browser")), env=env) as command:
        yield ConnectClient(command)


def finish_in_browser(url: str, wait_seconds: float = 0) -> None:
    """Approve. When a process listens at the redirect URI, let the browser follow the redirect."""
    redirect, deadline = approve(url), time.monotonic() + wait_seconds
    while True:
        try:
            with urllib.request.urlopen(redirect, timeout=20) as response:
                assert response.status == 200
        except URLError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


@covers("bridge-recovers")
def test_a_dead_token_is_refreshed_once_for_calls_at_the_same_time(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    with connect(cli) as client:
        assert client.initialize()["result"]["serverInfo"]["name"] == "demo"
        assert client.tools() == ["whoami", "add"]
        demo.authorization_server.ledger.revoke_access_tokens()
        ids = [client.send("tools/call", ADD) for _ in range(20)]
        texts = dict[int, str]()
        while len(texts) < len(ids):
            response = client.command.read_event()
            texts[response["id"]] = response["result"]["content"][0]["text"]
        assert texts == dict.fromkeys(ids, "5")
        assert demo.authorization_server.count_requests("refresh") == 1
        assert client.end() == ""


@covers("bridge-login")
def test_without_a_login_the_error_names_the_command_and_no_address(cli: Cli, demo: Demo) -> None:
    with connect(cli) as client:
        assert "log_in" in client.initialize()["result"]["instructions"]
        assert client.tools() == ["log_in"]
        assert client.request("prompts/list")["result"] == {"prompts": []}
        response = client.request("tools/call", {"name": "log_in"})
        assert response["result"]["isError"] is True
        text = response["result"]["content"][0]["text"]
        assert "Run `hermes-mcp-auth login demo`. Then try again." in text
        assert "http" not in text
        assert "hermes-mcp-auth login demo" in client.request("completion/complete")["error"]["message"]
        log_in(cli, demo)
        assert client.call(name="log_in").startswith("You are logged in to demo.")
        client.wait_for_notification("notifications/tools/list_changed")
        assert client.tools() == ["whoami", "add"]
        assert client.call() == "5"
        client.end()


def test_the_command_in_an_error_has_the_owner_and_the_name_or_the_address_of_the_server(
    cli: Cli, demo: Demo
) -> None:
    other_url = demo.mcp_url.replace("/mcp", "/other/mcp")
    for url, argument in ((demo.mcp_url, "demo"), (other_url, f"--url {other_url}")):
        with connect(cli, url, "--owner", "telegram:42", "--no-browser") as client:
            client.initialize()
            assert f"hermes-mcp-auth login {argument} --owner telegram:42`" in client.call()
    with connect(cli, f"{demo.mcp_url}?key=k3y", "--no-browser") as client:
        client.initialize()
        text = client.call()
        assert "k3y" not in text
        # The command asks for the address, and its login is the one that this process uses.
        command = re.search(r"`hermes-mcp-auth (login --url -)`", text)
        assert command is not None
        with cli.start(*command[1].split(), "--json") as login:
            login.send(f"{demo.mcp_url}?key=k3y\n")
            login.send(approve(login.read_event()["authorization_url"]) + "\n")
            assert login.wait_for_exit().exit_code == 0
        assert client.call() == "5"


@covers("bridge-login")
@pytest.mark.parametrize("has_login", [False, True])
def test_url_elicitation_of_2025_11_25(cli: Cli, demo: Demo, has_login: bool) -> None:  # noqa: FBT001
    if has_login:
        log_in(cli, demo)
    with connect(cli) as client:
        client.initialize(elicitation={"url": {}})
        if has_login:
            demo.authorization_server.ledger.revoke_everything()
        ids = [client.send("tools/call", ADD) for _ in range(2)]
        errors = [client.read_response(ids[0])["error"], client.read_response(ids[1])["error"]]
        assert [error["code"] for error in errors] == [-32042, -32042]
        [elicitation] = errors[0]["data"]["elicitations"]
        # Calls at the same time share one login.
        assert errors[1]["data"]["elicitations"] == [elicitation]
        assert elicitation["mode"] == "url"
        assert "http" not in errors[0]["message"] + elicitation["message"]
        finish_in_browser(elicitation["url"])
        complete = client.wait_for_notification("notifications/elicitation/complete")
        assert complete["params"] == {"elicitationId": elicitation["elicitationId"]}
        assert client.call() == "5"
        client.end()


@covers("bridge-login", "one-identity")
def test_two_new_addresses_that_differ_in_the_query_keep_their_logins(cli: Cli, demo: Demo) -> None:
    cli.write_config("{}")
    first_url, second_url = f"{demo.mcp_url}?project=a", f"{demo.mcp_url}?project=b"
    with (
        connect(cli, first_url, "--no-browser") as first,
        connect(cli, second_url, "--no-browser") as second,
    ):
        # Both have chosen their names before one logs in.
        for client in (first, second):
            client.initialize(elicitation={"url": {}})
        for client in (first, second):
            [elicitation] = client.request("tools/call", ADD)["error"]["data"]["elicitations"]
            finish_in_browser(elicitation["url"])
            client.wait_for_notification("notifications/elicitation/complete")
            assert client.call() == "5"
            assert "project" not in elicitation["message"]
        first.end()
        second.end()
    statuses = [cli.run("status", url, "--json").events[0] for url in (first_url, second_url)]
    assert [status["state"] for status in statuses] == ["connected", "connected"]
    assert statuses[0]["server"] != statuses[1]["server"]


@covers("bridge-login")
def test_a_second_login_by_elicitation_gets_its_redirect(cli: Cli, demo: Demo) -> None:
    with connect(cli) as client:
        client.initialize(elicitation={"url": {}})
        redirect_uris: list[str] = []
        for _ in range(2):
            [elicitation] = client.request("tools/call", ADD)["error"]["data"]["elicitations"]
            redirect_uris.append(redirect_uri_of(elicitation["url"]))
            finish_in_browser(elicitation["url"])
            client.wait_for_notification("notifications/elicitation/complete")
            client.notifications.clear()
            assert client.call() == "5"
            demo.authorization_server.ledger.revoke_everything()
        # The second login reuses the registered port, which the first one has freed.
        assert redirect_uris[0] == redirect_uris[1]
        client.end()


@covers("bridge-login")
def test_a_login_by_elicitation_uses_another_port_if_the_registered_one_is_in_use(
    cli: Cli, demo: Demo
) -> None:
    log_in(cli, demo)
    [file] = (cli.home / "mcp-tokens").glob("*.client.json")
    [registered_uri] = json.loads(file.read_text("utf-8"))["redirect_uris"]
    demo.authorization_server.ledger.revoke_everything()
    port = urlsplit(registered_uri).port
    with socket.create_server(("127.0.0.1", port or 0)), connect(cli) as client:
        client.initialize(elicitation={"url": {}})
        [elicitation] = client.request("tools/call", ADD)["error"]["data"]["elicitations"]
        assert redirect_uri_of(elicitation["url"]) != registered_uri
        finish_in_browser(elicitation["url"])
        client.wait_for_notification("notifications/elicitation/complete")
        assert client.call() == "5"
        client.end()


@covers("bridge-login")
def test_the_command_of_an_error_works_while_another_bridge_uses_the_port(cli: Cli, demo: Demo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    client_id = demo.authorization_server.add_client(f"http://127.0.0.1:{port}/callback").client_id
    cli.configure(demo.mcp_url, client_id=client_id, redirect_port=port)
    with connect(cli) as first, connect(cli) as second:
        first.initialize(elicitation={"url": {}})
        assert "elicitations" in first.request("tools/call", ADD)["error"]["data"]
        # This client cannot show an address.
        second.initialize()
        assert "Run `hermes-mcp-auth login demo`. Then try again." in second.call()
        log_in(cli, demo)
        assert [client.call() for client in (first, second)] == ["5", "5"]


SESSION_METHODS = frozenset({"initialize", "notifications/initialized", "tools/list"})


@covers("bridge-optional-login")
@pytest.mark.parametrize("has_browser", [False, True])
def test_a_server_that_demands_no_login_needs_none(
    cli: Cli,
    demo: Demo,
    tmp_path: Path,
    has_browser: bool,  # noqa: FBT001
) -> None:
    demo.authorization_server.change_behaviour(open_methods=SESSION_METHODS | {"tools/call"})
    env, pages = make_browser(tmp_path, approves=True)
    with connect(cli, "demo", *([] if has_browser else ["--no-browser"]), env=env) as client:
        assert client.initialize(elicitation={"url": {}})["result"]["serverInfo"]["name"] == "demo"
        assert client.tools() == ["whoami", "add"]
        assert client.call() == "5"
        client.end()
    assert not pages.exists()
    assert demo.authorization_server.count_requests("registration") == 0


@covers("bridge-optional-login")
def test_a_login_requests_the_scope_that_the_refused_call_needs(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(
        open_methods=SESSION_METHODS, tool_scope={"add": frozenset({"mcp:write"})}
    )
    with connect(cli) as client:
        client.initialize(elicitation={"url": {}})
        assert client.tools() == ["whoami", "add"]
        [elicitation] = client.request("tools/call", ADD)["error"]["data"]["elicitations"]
        [scope] = parse_qs(urlsplit(elicitation["url"]).query)["scope"]
        assert "mcp:write" in scope.split()
        finish_in_browser(elicitation["url"])
        client.wait_for_notification("notifications/elicitation/complete")
        assert client.call() == "5"
        client.end()


def accepted_methods(demo: Demo) -> list[str]:
    """Return the methods of the messages that the server has accepted, in order."""
    return [
        json.loads(request.body)["method"]
        for request in demo.authorization_server.requests
        if request.step == "mcp" and request.method == "POST" and request.status in {200, 202}
    ]


# A server may accept requests of a session only after `initialized`.
WHOLE_SESSION = ["initialize", "notifications/initialized", "tools/call"]


@covers("bridge-optional-login")
def test_the_server_gets_an_initialized_that_it_refused_before_the_login(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(open_methods=frozenset({"initialize"}))
    with connect(cli) as client:
        client.initialize(elicitation={"url": {}})
        [elicitation] = client.request("tools/call", ADD)["error"]["data"]["elicitations"]
        finish_in_browser(elicitation["url"])
        client.wait_for_notification("notifications/elicitation/complete")
        assert client.call() == "5"
        client.end()
    assert accepted_methods(demo)[-3:] == WHOLE_SESSION


@covers("bridge-optional-login")
def test_messages_are_read_while_initialized_waits_for_a_login(cli: Cli, demo: Demo, tmp_path: Path) -> None:
    demo.authorization_server.change_behaviour(open_methods=frozenset({"initialize"}))
    env, record = make_browser(tmp_path, approves=False)
    with connect(cli, "demo", env=env) as client:
        client.initialize()
        [page] = read_pages(record, 1)
        call = client.send("tools/call", ADD)
        client.command.send("not JSON\n")
        assert client.command.read_event()["error"]["code"] == PARSE_ERROR
        finish_in_browser(page)
        assert client.read_response(call)["result"]["content"][0]["text"] == "5"
        client.end()
    assert accepted_methods(demo)[-3:] == WHOLE_SESSION


@covers("bridge-login")
def test_a_device_code_is_shown_by_the_client(cli: Cli, demo: Demo) -> None:
    demo.authorization_server.change_behaviour(with_device=True, device_interval_seconds=1)
    with connect(cli) as client:
        client.initialize(elicitation={"url": {}})
        [elicitation] = client.request("tools/call", ADD)["error"]["data"]["elicitations"]
        assert "code" in elicitation["message"]
        approve_device(elicitation["url"])
        client.wait_for_notification("notifications/elicitation/complete")
        assert client.call() == "5"


@covers("bridge-login")
def test_input_required_result_of_2026_07_28(cli: Cli, demo: Demo) -> None:
    stateless = {"_meta": meta(elicitation={"url": {}})}
    with connect(cli) as client:
        assert client.request("server/discover", stateless)["result"]["supportedVersions"] == ["2026-07-28"]
        assert client.tools(**stateless) == ["log_in"]
        result = client.request("tools/call", {"name": "log_in", **stateless})["result"]
        assert result["resultType"] == "input_required"
        [(key, request)] = result["inputRequests"].items()
        assert (request["method"], request["params"]["mode"]) == ("elicitation/create", "url")
        declined = {"inputResponses": {key: {"action": "decline"}}}
        assert (
            "declined" in client.request("tools/call", {**ADD, **stateless, **declined})["error"]["message"]
        )
        [request] = client.request("tools/call", {**ADD, **stateless})["result"]["inputRequests"].values()
        accepted = {"inputResponses": {key: {"action": "accept"}}}
        # The client repeats the call while the user is at the page: the call waits.
        call = client.send("tools/call", {**ADD, **stateless, **accepted})
        finish_in_browser(request["params"]["url"])
        assert client.read_response(call)["result"]["content"][0]["text"] == "5"
        assert client.tools(**stateless) == ["whoami", "add"]
        assert "logged in" in client.call(name="log_in", **stateless)
        client.end()


def test_a_login_that_cannot_start_is_an_error(cli: Cli, demo: Demo) -> None:
    with connect(cli) as client:
        client.initialize(elicitation={"url": {}})
        demo.authorization_server.fail_next("authorization_server_metadata", status=500, times=None)
        assert client.request("tools/call", ADD)["error"]["code"] == -32000
        assert "result" in client.request("ping")


def redirect_uri_of(authorization_url: str) -> str:
    [uri] = parse_qs(urlsplit(authorization_url).query)["redirect_uri"]
    return uri


def make_browser(
    tmp_path: Path, *, approves: bool, denies: bool = False, runs_seconds: float = 0
) -> tuple[dict[str, str], Path]:
    """Return the environment with a browser that records each page, and may approve or deny the login.

    The command that opens the browser ends `runs_seconds` later.
    """
    record, script = tmp_path / "pages", tmp_path / "browser"
    code = f"""#!{sys.executable}
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.consent_form import approve, deny, fetch
with open({str(record)!r}, "a") as file:
    print(sys.argv[1], file=file)
if {approves or denies}:
    fetch("GET", (deny if {denies} else approve)(sys.argv[1]))
time.sleep({runs_seconds})
"""
    script.write_text(code, "utf-8")
    script.chmod(0o755)
    return {"BROWSER": str(script)}, record


def read_pages(record: Path, count: int) -> list[str]:
    """Wait until the browser has opened `count` pages."""
    deadline = time.monotonic() + 60
    while not record.exists() or len(record.read_text().splitlines()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return record.read_text().splitlines()


@covers("bridge-login")
def test_a_browser_opens_one_page_and_the_waiting_calls_go_on(cli: Cli, demo: Demo, tmp_path: Path) -> None:
    env, record = make_browser(tmp_path, approves=True)
    log_in(cli, demo)
    with connect(cli, "demo", env=env) as client:
        client.initialize()
        demo.authorization_server.ledger.revoke_everything()
        ids = [client.send("tools/call", ADD) for _ in range(3)]
        responses = sorted((client.command.read_event() for _ in ids), key=lambda message: message["id"])
        assert {r["result"]["content"][0]["text"] for r in responses} == {"5"}
        assert "a page for the login was opened" in client.end()
    assert len(read_pages(record, 1)) == 1


@covers("bridge-login")
def test_a_bridge_that_is_started_again_opens_no_second_page(cli: Cli, demo: Demo, tmp_path: Path) -> None:
    env, record = make_browser(tmp_path, approves=False)
    with connect(cli, "demo", env=env) as client:
        client.send("initialize", INITIALIZE)
        [page] = read_pages(record, 1)
        client.command.process.kill()
    with connect(cli, "demo", env=env) as client:
        request_id = client.send("initialize", INITIALIZE)
        # The response to this line comes after the bridge has begun to wait for the login.
        client.command.send("{\n")
        assert client.command.read_event()["error"]["code"] == -32700
        finish_in_browser(page, wait_seconds=20)
        assert "result" in client.read_response(request_id)
    assert len(read_pages(record, 1)) == 1


@covers("bridge-login", "one-prompt")
def test_two_bridges_that_need_a_login_at_once_open_one_page(cli: Cli, demo: Demo, tmp_path: Path) -> None:
    env, record = make_browser(tmp_path, approves=True)
    with connect(cli, "demo", env=env) as first, connect(cli, "demo", env=env) as second:
        ids = [client.send("initialize", INITIALIZE) for client in (first, second)]
        for client, request_id in zip((first, second), ids, strict=True):
            assert "result" in client.read_response(request_id)
            assert client.call() == "5"
    assert len(read_pages(record, 1)) == 1


@covers("bridge-login")
def test_a_denied_login_is_an_error_and_opens_no_further_page_at_once(
    cli: Cli, demo: Demo, tmp_path: Path
) -> None:
    env, record = make_browser(tmp_path, approves=False, denies=True)
    log_in(cli, demo)
    with connect(cli, "demo", env=env) as client:
        client.initialize()
        demo.authorization_server.ledger.revoke_everything()
        for _ in range(3):
            # A model may try again at once. The user has just said no.
            text = client.call()
            assert "Run `hermes-mcp-auth login demo`. Then try again." in text
            assert "http" not in text
        assert len(read_pages(record, 1)) == 1
        log_in(cli, demo)
        assert client.call() == "5"


@covers("bridge-login")
def test_a_denied_login_that_the_client_showed_can_start_again(cli: Cli, demo: Demo) -> None:
    with connect(cli) as client:
        client.initialize(elicitation={"url": {}})
        for follow in (deny, approve):
            [elicitation] = client.request("tools/call", ADD)["error"]["data"]["elicitations"]
            fetch("GET", follow(elicitation["url"]))
            complete = client.wait_for_notification("notifications/elicitation/complete")
            assert complete["params"] == {"elicitationId": elicitation["elicitationId"]}
            client.notifications.clear()
        assert client.call() == "5"


@covers("bridge-login")
@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("runs_seconds", [0, 2], ids=["browser opened", "browser opens"])
def test_a_signal_during_a_login_ends_the_bridge_and_the_next_one_continues(
    cli: Cli, demo: Demo, tmp_path: Path, signal_number: signal.Signals, runs_seconds: float
) -> None:
    env, record = make_browser(tmp_path, approves=False, runs_seconds=runs_seconds)
    with connect(cli, "demo", env=env) as client:
        client.send("initialize", INITIALIZE)
        [page] = read_pages(record, 1)
        client.command.send_signal(signal_number)
        result = client.command.wait_for_exit()
        assert (result.exit_code, "Traceback" in result.err) == (128 + signal_number, False), result.err
    with connect(cli, "demo", env=env) as client:
        request_id = client.send("initialize", INITIALIZE)
        finish_in_browser(page, wait_seconds=20)
        assert "result" in client.read_response(request_id)
    assert len(read_pages(record, 1)) == 1


@covers("bridge-login")
def test_messages_during_a_login_are_handled_and_the_end_of_input_ends_the_bridge(
    cli: Cli, demo: Demo, tmp_path: Path
) -> None:
    env, record = make_browser(tmp_path, approves=False)
    log_in(cli, demo)
    with connect(cli, "demo", env=env) as client:
        client.initialize()
        # The response shows that `initialized` has reached the server: it needs no login.
        assert client.call() == "5"
        demo.authorization_server.ledger.revoke_everything()
        calls = [client.send("tools/call", ADD) for _ in range(3)]
        [page] = read_pages(record, 1)
        client.send("notifications/cancelled", {"requestId": calls[0]}, is_request=False)
        client.send("notifications/roots/list_changed", is_request=False)
        client.command.send("7\n")
        assert client.command.read_event()["error"]["code"] == -32600
        finish_in_browser(page)
        assert {client.command.read_event()["id"] for _ in range(2)} == set(calls[1:])
        demo.authorization_server.ledger.revoke_everything()
        client.send("tools/call", ADD)
        read_pages(record, 2)
        client.end()


@covers("bridge-login")
def test_a_user_is_asked_in_their_chat_while_the_call_waits(cli: Cli, demo: Demo, api: BotApi) -> None:
    log_in(cli, demo)
    anna = add_user(api)
    with run_bot_process(cli, api, "--allow", "7"), connect(cli, "demo", "--via", "telegram:7") as client:
        client.initialize()
        demo.authorization_server.ledger.revoke_everything()
        call = client.send("tools/call", ADD)
        api.say(anna, approve(login_url(wait_for_message(api, anna, "Connect demo"))))
        assert client.read_response(call)["result"]["content"][0]["text"] == "5"
        assert "telegram:7 is asked to log in" in client.end()


def test_a_revoked_refresh_token_names_the_command_and_a_login_elsewhere_helps(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    with connect(cli) as client:
        client.initialize()
        demo.authorization_server.ledger.revoke_everything()
        assert "Run `hermes-mcp-auth login demo`" in client.call()
        log_in(cli, demo)
        assert client.call() == "5"


def test_an_unknown_server_ends_the_bridge_before_the_protocol(cli: Cli) -> None:
    result = cli.run("connect", "dmeo")
    assert (result.exit_code, result.out) == (3, "")
    assert "No server dmeo" in result.err


@covers("bridge-bad-input")
@pytest.mark.tmux
def test_a_user_who_starts_the_bridge_at_a_terminal_is_told_what_it_waits_for(cli: Cli, demo: Demo) -> None:
    cli.configure(demo.mcp_url)
    with open_terminal([*COMMAND, "connect", "demo"], env=cli.environ()) as screen:
        screen.wait_for("waits for the messages of an MCP client")
        screen.press("C-c")
        assert screen.wait_for_exit() == 130


def test_without_httpx2_the_error_names_what_to_install(cli: Cli) -> None:
    code = (
        "import sys; sys.modules['httpx2'] = None; from hermes_mcp_auth_remote.cli.__main__ import run; run()"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, "connect", "demo"], env=cli.environ(), capture_output=True, check=False
    )
    assert (process.returncode, process.stdout) == (3, b"")
    assert b"pip install 'httpx2>=2.0'" in process.stderr


@covers("bridge-bad-input")
@pytest.mark.parametrize(("closed", "exit_code"), [("<&-", 3), (">&-", 3), ("2>&-", 0)])
def test_a_missing_standard_stream_is_no_traceback(cli: Cli, demo: Demo, closed: str, exit_code: int) -> None:
    log_in(cli, demo)
    command = f'exec "$0" -m hermes_mcp_auth_remote.cli connect demo {closed}'
    process = subprocess.run(
        ["sh", "-c", command, sys.executable],
        input=json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE}).encode(),
        env=cli.environ(),
        capture_output=True,
        check=False,
    )
    assert process.returncode == exit_code
    assert b"Traceback" not in process.stderr
    assert (b"Let an MCP client start it" in process.stderr) == (exit_code == 3)
    assert (b'"result"' in process.stdout) == (exit_code == 0)


@pytest.mark.parametrize(("signal_number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_bridge(
    cli: Cli, demo: Demo, signal_number: signal.Signals, exit_code: int
) -> None:
    log_in(cli, demo)
    with connect(cli) as client:
        client.initialize()
        client.command.send_signal(signal_number)
        assert client.command.wait_for_exit().exit_code == exit_code


def test_a_client_that_no_longer_reads_ends_the_bridge(cli: Cli, demo: Demo) -> None:
    log_in(cli, demo)
    with cli.start("connect", "demo", "--no-browser") as command:
        client = ConnectClient(command)
        client.initialize()
        assert client.command.process.stdout is not None
        client.command.process.stdout.close()
        client.command.process.stdout = None
        client.send("tools/list")
        assert client.command.process.wait(20) == 0


@covers("bridge-large")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@run_in_loop
async def test_a_result_of_50_megabytes_needs_constant_memory() -> None:
    block = b"x" * 1_000_000

    async def respond(request: Request, reply: Reply) -> None:
        if request.method != "POST" or "id" not in request.message:
            await reply.send(405 if request.method == "GET" else 202)
            return
        message_id, size = request.message["id"], request.message["params"].get("size", 0)
        await reply.start_stream()
        await reply.write(b'data: {"jsonrpc":"2.0","id":%d,"result":{"text":"' % message_id)
        for _ in range(size):
            await reply.write(block)
        await reply.write(b'"}}\n\n')

    def peak_kilobytes(pid: int) -> int:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])

    async with serve(respond) as url:
        with logged_in_home(url) as home, Cli(home, ()).start("connect", "bench") as command:
            client = ConnectClient(command)
            await asyncio.to_thread(client.request, "tools/call", {"size": 2})
            before = peak_kilobytes(command.process.pid)
            response = await asyncio.to_thread(client.request, "tools/call", {"size": 50})
            assert len(response["result"]["text"]) == 50_000_000
            assert peak_kilobytes(command.process.pid) - before < 8_000
