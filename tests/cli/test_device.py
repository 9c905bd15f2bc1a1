"""`login` with the device flow: with JSON events, with a later end, and with a countdown on a terminal."""

from __future__ import annotations

import re
import signal
from typing import Any

import pytest

from tests.cli.commands import COMMAND, Cli
from tests.cli.test_screens import replace_variable_parts
from tests.consent_form import approve, approve_device, deny_device
from tests.parts.authorization_server import Demo
from tests.parts.browser_user import approve_device as approve_at_provider
from tests.parts.oidc_provider import run_oidc_provider
from tests.parts.protected_resource import serve_protected_resource
from tests.parts.terminal import Terminal, open_terminal
from tests.requirements import covers
from tests.transcript_files import compare_transcript

pytestmark = pytest.mark.slow


@pytest.fixture
def device_demo(demo: Demo) -> Demo:
    demo.authorization_server.change_behaviour(with_device=True, device_interval_seconds=1)
    return demo


def compare_device_screen(name: str, text: str, cli: Cli) -> None:
    """Compare a screen with its transcript, with a placeholder for the user code."""
    cli.check_output(text)
    text = re.sub(r"\b[B-Z]{4}-[B-Z]{4}\b", "<user code>", replace_variable_parts(text, cli))
    compare_transcript(name, re.sub(r"valid for \d+:\d\d", "valid for <m:ss>", text))


def test_json_output_has_a_device_event_and_then_the_connection(cli: Cli, device_demo: Demo) -> None:
    with cli.start("login", "demo", "--json") as login:
        event = login.read_event()
        assert {name for name, value in event.items() if value is None} == {"owner"}
        assert event["event"] == "device"
        assert event["user_code"] in event["verification_uri_complete"]
        approve_device(event["verification_uri"], event["user_code"])
        result = login.wait_for_exit()
    assert result.exit_code == 0
    assert [later_event["event"] for later_event in result.events] == ["connected"]


def test_a_line_on_standard_input_switches_the_flow(cli: Cli, device_demo: Demo) -> None:
    with cli.start("login", "demo", "--json") as login:
        first = login.read_event()
        login.send("paste\n")
        event = login.read_event()
        assert (event["event"], event["login_id"]) == ("waiting", first["login_id"])
        login.send("code\n")
        second = login.read_event()
        assert second["user_code"] != first["user_code"]
        login.send("paste\n")
        login.send(approve(login.read_event()["authorization_url"]) + "\n")
        assert login.wait_for_exit().exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "oauth"),
    [(("--flow", "paste"), {}), ((), {"flow": "paste"}), ((), {"device": False})],
    ids=["option", "configured", "device flow disabled"],
)
@covers("flow-choice", "device-off")
def test_the_paste_flow_comes_first_if_an_option_selects_it(
    cli: Cli, device_demo: Demo, arguments: tuple[str, ...], oauth: dict[str, Any]
) -> None:
    cli.configure(device_demo.mcp_url, **oauth)
    with cli.start("login", "demo", "--json", *arguments) as login:
        assert login.read_event()["event"] == "waiting"


def test_an_unavailable_device_flow_is_an_error(cli: Cli, demo: Demo) -> None:
    result = cli.run("login", "demo", "--flow", "device")
    assert result.exit_code == 6
    assert "offers no device flow" in result.err
    cli.configure(demo.mcp_url, device=False)
    result = cli.run("login", "demo", "--flow", "device")
    assert result.exit_code == 3
    assert "turned off" in result.err
    cli.configure(demo.mcp_url, device=False, flow="device")
    assert cli.run("login", "demo").exit_code == 3


def test_a_denied_or_expired_user_code_fails_the_login(cli: Cli, device_demo: Demo) -> None:
    with cli.start("login", "demo", "--json") as login:
        deny_device(login.read_event()["verification_uri_complete"])
        result = login.wait_for_exit()
    assert result.exit_code == 5
    device_demo.authorization_server.change_behaviour(device_seconds=1)
    result = cli.run("login", "demo", "--json")
    assert result.exit_code == 5
    assert [event.get("error") for event in result.events] == [None, "login_expired"]


def test_another_process_waits_for_a_started_device_login(cli: Cli, device_demo: Demo) -> None:
    started = cli.run("login", "demo", "--no-wait", "--json")
    [event] = started.events
    approve_device(event["verification_uri_complete"])
    finished = cli.run("login", "--finish", event["login_id"], "--json")
    assert finished.exit_code == 0
    assert [finish_event["event"] for finish_event in finished.events] == ["device", "connected"]
    again = cli.run("login", "--finish", event["login_id"])
    assert again.exit_code == 5


@covers("device-one-poller")
def test_another_command_continues_the_polling_of_a_killed_one(cli: Cli, device_demo: Demo) -> None:
    gate = device_demo.authorization_server.hold("device_poll", after_processing=True)
    with cli.start("login", "demo", "--json") as login:
        event = login.read_event()
        assert gate.arrived.wait(20)
        login.send_signal(signal.SIGKILL)
        login.process.wait()
        device_demo.authorization_server.clear_faults()
    approve_device(event["verification_uri_complete"])
    assert cli.run("login", "--finish", event["login_id"]).exit_code == 0
    assert all(
        state.interval_seconds == 1
        for state in device_demo.authorization_server.devices.by_device_code.values()
    )


def wait_for_user_code(screen: Terminal) -> str:
    text = screen.wait_for("Waiting: the code is valid for")
    [code] = [line for line in text.splitlines() if re.fullmatch(r"[B-Z]{4}-[B-Z]{4}", line)]
    return code


@covers("device-screen")
@pytest.mark.tmux
def test_the_countdown_stays_in_place_while_the_user_types(cli: Cli, device_demo: Demo) -> None:
    command = [*COMMAND, "login", "demo"]
    with open_terminal(command, env=cli.environ(), columns=80, rows=60) as screen:
        wait_for_user_code(screen)
        screen.send("pas")
        screen.wait_for("valid for 9:5")
        first = re.findall(r"valid for (\S+)", screen.screen())
        screen.wait_for("[3 characters]")
        screen.wait_for("valid for 9:56")
        later = screen.screen()
        assert len(first) == len(re.findall(r"valid for", later)) == 1
        assert later.splitlines()[-1] == "[3 characters]"
        screen.press("C-u")
        code = wait_for_user_code(screen)
        approve_device(f"{device_demo.issuer}/device", code)
        assert screen.wait_for_exit() == 0
        compare_device_screen("login-device", screen.full_text(), cli)


@covers("device-switch")
@pytest.mark.tmux
def test_an_expired_code_on_a_terminal_can_be_replaced_or_switched_to_paste(
    cli: Cli, device_demo: Demo
) -> None:
    device_demo.authorization_server.change_behaviour(device_seconds=2, with_verification_uri_complete=False)
    command = [*COMMAND, "login", "demo", "--no-qr"]
    with open_terminal(command, env=cli.environ(), columns=80, rows=100) as screen:
        screen.wait_for("has expired. Press Enter")
        device_demo.authorization_server.change_behaviour(device_seconds=600)
        screen.press("Enter")
        screen.wait_for("valid for 9:5")
        screen.send("paste")
        screen.press("Enter")
        text = screen.wait_for("to get a short code")
        url = next(line for line in text.splitlines() if "/authorize?" in line)
        screen.paste(approve(url))
        screen.press("Enter")
        assert screen.wait_for_exit() == 0
        compare_device_screen("login-device-expired", screen.full_text(), cli)


@covers("device-off")
@pytest.mark.parametrize("device", [True, False])
def test_the_screen_offers_a_code_only_if_devices_are_allowed(
    cli: Cli, device_demo: Demo, *, device: bool
) -> None:
    cli.configure(device_demo.mcp_url, device=device)
    result = cli.run("login", "demo", "--flow", "paste", "--no-qr", stdin=b"nonsense\n")
    assert result.exit_code == 5
    assert ('Type "code"' in result.err) is device


def test_the_demo_supports_the_device_flow(cli: Cli) -> None:
    result = cli.run("demo", "--flow", "device", "--json")
    assert result.exit_code == 0
    assert [event["event"] for event in result.events] == ["device", "connected", "tool_result"]


@pytest.mark.node
@covers("device-poll", "device-grant")
def test_a_device_login_at_a_certified_server(cli: Cli) -> None:
    with run_oidc_provider() as op, serve_protected_resource(op) as resource:
        cli.configure(resource.url)
        with cli.start("login", "demo", "--json") as login:
            event = login.read_event()
            assert event["event"] == "device"
            approve_at_provider(event["verification_uri"], event["user_code"])
            result = login.wait_for_exit()
        assert result.exit_code == 0, result
        assert cli.run("token", "demo").exit_code == 0
