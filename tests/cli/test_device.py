"""`login` with the device flow: as JSON events, finished later, and with a countdown on a terminal."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

import pytest

from tests.browserless import approve, approve_device, deny_device
from tests.cli.commands import COMMAND, Cli
from tests.cli.test_screens import TRANSCRIPTS, settled
from tests.parts.authorization_server import Demo
from tests.parts.oidc_provider import oidc_provider
from tests.parts.person import approve_device as approve_at_provider
from tests.parts.protected_resource import protected_resource
from tests.parts.terminal import Terminal, terminal
from tests.requirements import covers

pytestmark = pytest.mark.slow


@pytest.fixture
def devices(demo: Demo) -> Demo:
    demo.authorization_server.change_behaviour(with_device=True, device_interval_seconds=1)
    return demo


def compare(name: str, text: str, cli: Cli) -> None:
    """Compare a screen with its transcript, with a placeholder for the user code."""
    cli.check(text)
    text = re.sub(r"\b[B-Z]{4}-[B-Z]{4}\b", "<user code>", settled(text, cli))
    text = re.sub(r"valid for \d+:\d\d", "valid for <m:ss>", text)
    file = TRANSCRIPTS / f"{name}.txt"
    if os.environ.get("NEW_TRANSCRIPTS"):
        file.write_text(text, "utf-8")
    assert text == file.read_text("utf-8")


def test_a_program_gets_a_device_event_and_then_the_connection(cli: Cli, devices: Demo) -> None:
    with cli.started("login", "demo", "--json") as login:
        event = login.event()
        assert {name for name, value in event.items() if value is None} == {"owner"}
        assert event["event"] == "device"
        assert event["user_code"] in event["verification_uri_complete"]
        approve_device(event["verification_uri"], event["user_code"])
        ended = login.end()
    assert ended.code == 0
    assert [each["event"] for each in ended.events] == ["connected"]


def test_a_program_changes_over_by_a_line(cli: Cli, devices: Demo) -> None:
    with cli.started("login", "demo", "--json") as login:
        first = login.event()
        login.send("paste\n")
        event = login.event()
        assert (event["event"], event["login_id"]) == ("waiting", first["login_id"])
        login.send("code\n")
        again = login.event()
        assert again["user_code"] != first["user_code"]
        login.send("paste\n")
        login.send(approve(login.event()["authorization_url"]) + "\n")
        assert login.end().code == 0


@pytest.mark.parametrize(
    ("arguments", "oauth"),
    [(("--flow", "paste"), {}), ((), {"flow": "paste"}), ((), {"device": False})],
    ids=["option", "configured", "device flow disabled"],
)
@covers("flow-choice", "device-off")
def test_a_paste_comes_first_where_it_is_asked_for(
    cli: Cli, devices: Demo, arguments: tuple[str, ...], oauth: dict[str, Any]
) -> None:
    cli.configure(devices.mcp_url, **oauth)
    with cli.started("login", "demo", "--json", *arguments) as login:
        assert login.event()["event"] == "waiting"


def test_a_device_that_is_not_to_be_had_is_said_in_two_sentences(cli: Cli, demo: Demo) -> None:
    ended = cli.run("login", "demo", "--flow", "device")
    assert ended.code == 6
    assert "offers no device flow" in ended.err
    cli.configure(demo.mcp_url, device=False)
    ended = cli.run("login", "demo", "--flow", "device")
    assert ended.code == 3
    assert "turned off" in ended.err
    cli.configure(demo.mcp_url, device=False, flow="device")
    assert cli.run("login", "demo").code == 3


def test_a_code_that_is_denied_and_one_that_nobody_enters(cli: Cli, devices: Demo) -> None:
    with cli.started("login", "demo", "--json") as login:
        deny_device(login.event()["verification_uri_complete"])
        ended = login.end()
    assert ended.code == 5
    devices.authorization_server.change_behaviour(device_seconds=1)
    ended = cli.run("login", "demo", "--json")
    assert ended.code == 5
    assert [each.get("event", each.get("error")) for each in ended.events] == ["device", "login_expired"]


def test_a_login_that_was_begun_is_waited_for_by_another_process(cli: Cli, devices: Demo) -> None:
    begun = cli.run("login", "demo", "--no-wait", "--json")
    [event] = begun.events
    approve_device(event["verification_uri_complete"])
    finished = cli.run("login", "--finish", event["login_id"], "--json")
    assert finished.code == 0
    assert [each["event"] for each in finished.events] == ["device", "connected"]
    again = cli.run("login", "--finish", event["login_id"])
    assert again.code == 5


@covers("device-one-poller")
def test_a_command_that_is_killed_is_followed_by_another(cli: Cli, devices: Demo) -> None:
    gate = devices.authorization_server.hold("device_poll", after_processing=True)
    with cli.started("login", "demo", "--json") as login:
        event = login.event()
        assert gate.arrived.wait(20)
        login.signal(signal.SIGKILL)
        login.process.wait()
        devices.authorization_server.clear_faults()
    approve_device(event["verification_uri_complete"])
    assert cli.run("login", "--finish", event["login_id"]).code == 0
    assert all(
        each.interval_seconds == 1 for each in devices.authorization_server.devices.by_device_code.values()
    )


def shown_code(screen: Terminal) -> str:
    text = screen.wait_for("Waiting: the code is valid for")
    [code] = [line for line in text.splitlines() if re.fullmatch(r"[B-Z]{4}-[B-Z]{4}", line)]
    return code


@covers("device-screen")
@pytest.mark.tmux
def test_the_countdown_goes_on_in_its_place_while_somebody_types(cli: Cli, devices: Demo) -> None:
    command = [*COMMAND, "login", "demo"]
    with terminal(command, env=cli.environ(), columns=80, rows=60) as screen:
        shown_code(screen)
        screen.send("pas")
        screen.wait_for("valid for 9:5")
        first = re.findall(r"valid for (\S+)", screen.screen())
        screen.wait_for("[3 characters]")
        screen.wait_for("valid for 9:56")
        later = screen.screen()
        assert len(first) == len(re.findall(r"valid for", later)) == 1
        assert later.splitlines()[-1] == "[3 characters]"
        screen.press("C-u")
        code = shown_code(screen)
        approve_device(f"{devices.issuer}/device", code)
        assert screen.wait_for_exit() == 0
        compare("login-device", screen.joined(), cli)


@covers("device-switch")
@pytest.mark.tmux
def test_a_code_that_expires_on_a_terminal_and_a_change_over(cli: Cli, devices: Demo) -> None:
    devices.authorization_server.change_behaviour(device_seconds=2, with_verification_uri_complete=False)
    command = [*COMMAND, "login", "demo", "--no-qr"]
    with terminal(command, env=cli.environ(), columns=80, rows=100) as screen:
        screen.wait_for("has expired. Press Enter")
        devices.authorization_server.change_behaviour(device_seconds=600)
        screen.press("Enter")
        screen.wait_for("valid for 9:5")
        screen.send("paste")
        screen.press("Enter")
        text = screen.wait_for("Type code to enter")
        url = next(line for line in text.splitlines() if "/authorize?" in line)
        screen.paste(approve(url))
        screen.press("Enter")
        assert screen.wait_for_exit() == 0
        compare("login-device-expired", screen.joined(), cli)


@covers("device-off")
@pytest.mark.parametrize("device", [True, False])
def test_the_operators_word_on_devices_is_on_the_screen(cli: Cli, devices: Demo, *, device: bool) -> None:
    cli.configure(devices.mcp_url, device=device)
    ended = cli.run("login", "demo", "--no-wait", "--flow", "paste", "--no-qr")
    assert ended.code == 0
    assert ("Type code" in ended.err) is device


def test_the_demo_shows_a_device_too(cli: Cli) -> None:
    ended = cli.run("demo", "--flow", "device", "--json")
    assert ended.code == 0
    assert [event["event"] for event in ended.events] == ["device", "connected", "tool_result"]


@pytest.mark.node
@covers("device-poll", "device-grant")
def test_a_certified_server_connects_a_device(cli: Cli) -> None:
    with oidc_provider() as op, protected_resource(op) as resource:
        cli.configure(resource.url)
        with cli.started("login", "demo", "--json") as login:
            event = login.event()
            assert event["event"] == "device"
            approve_at_provider(event["verification_uri"], event["user_code"])
            ended = login.end()
        assert ended.code == 0, ended
        assert cli.run("token", "demo").code == 0
