"""`login --via telegram:7`: a command starts the login, and a bot process shows and completes it."""

from __future__ import annotations

import json
import re
import signal

import pytest

from tests.cli.bot_process import (
    add_user,
    login_url,
    read_stderr_until,
    run_bot_process,
    send_and_wait_for_reply,
    wait_for_message,
    without_mark,
)
from tests.cli.commands import Cli, log_in
from tests.consent_form import approve, approve_device
from tests.parts.authorization_server import Demo
from tests.parts.bot_api import BotApi
from tests.requirements import covers

pytestmark = pytest.mark.slow

VIA_ARGUMENTS = ("login", "demo", "--via", "telegram:7")


@covers("via", "begun-elsewhere")
def test_the_command_waits_while_the_user_logs_in_from_their_chat(cli: Cli, demo: Demo, api: BotApi) -> None:
    anna = add_user(api)
    with run_bot_process(cli, api, "--allow", "7"), cli.start(*VIA_ARGUMENTS, "--json") as login:
        event = login.read_event()
        assert set(event) == {"version", "event", "via", "login_id", "server", "owner", "expires_at"}
        assert (event["event"], event["via"], event["owner"]) == ("asked", "telegram:7", None)
        assert login.read_event()["event"] == "shown"
        api.say(anna, approve(login_url(wait_for_message(api, anna, "Connect demo"))))
        assert login.read_event()["event"] == "connected"
        result = login.wait_for_exit()
        wait_for_message(api, anna, "demo: connected")
    assert result.exit_code == 0
    assert cli.run("token", "demo", may_show=demo.authorization_server.minted_secrets).exit_code == 0


@covers("via")
def test_the_screen_shows_no_authorization_url(cli: Cli, demo: Demo, api: BotApi) -> None:
    anna = add_user(api)
    with run_bot_process(cli, api, "--allow", "7"), cli.start(*VIA_ARGUMENTS) as login:
        text = read_stderr_until(login, "The bot shows the login to them now.")
        api.say(anna, approve(login_url(wait_for_message(api, anna, "Connect demo"))))
        result = login.wait_for_exit()
    assert result.exit_code == 0
    assert "telegram:7 is asked to log in to demo, until " in text
    assert "✓ demo: connected" in result.out
    assert "/authorize" not in text + result.err + result.out


@covers("via")
def test_an_approved_device_code_connects_command_and_chat(cli: Cli, demo: Demo, api: BotApi) -> None:
    demo.authorization_server.change_behaviour(with_device=True, device_interval_seconds=1)
    anna = add_user(api)
    with run_bot_process(cli, api, "--allow", "7"), cli.start(*VIA_ARGUMENTS, "--json") as login:
        login.read_event()
        login.read_event()
        approve_device(login_url(wait_for_message(api, anna, "Connect demo")))
        result = login.wait_for_exit()
        wait_for_message(api, anna, "demo: connected")
    assert result.exit_code == 0
    assert result.events[-1]["event"] == "connected"


@covers("via")
def test_a_missing_bot_is_reported_and_a_later_bot_shows_the_login(cli: Cli, demo: Demo, api: BotApi) -> None:
    anna = add_user(api)
    with cli.start(*VIA_ARGUMENTS, "--json") as login:
        login.read_event()
        unshown = login.read_event()
        assert unshown["event"] == "unshown"
        assert unshown["message"] == "No bot is serving telegram from this HERMES_HOME."
        assert "hermes-mcp-auth serve --telegram" in unshown["advice"]
        with run_bot_process(cli, api, "--allow", "7"):
            assert login.read_event()["event"] == "shown"
            login.send_signal(signal.SIGINT)
            result = login.wait_for_exit()
            assert "Cancelled." in wait_for_message(api, anna, "demo: not connected").text
    assert result.exit_code == 130
    assert [event["error"] for event in result.events] == ["interrupted"]


@covers("via")
def test_a_user_who_is_not_allowed_gets_no_message(cli: Cli, demo: Demo, api: BotApi) -> None:
    bob = add_user(api, 8, "Bob")
    with run_bot_process(cli, api, "--allow", "7"):
        result = cli.run("login", "demo", "--via", "telegram:8")
        assert result.exit_code == 5
        assert "The bot cancelled this login before the user saw it." in result.err
        assert "telegram:8 is not allowed" in " ".join(result.err.split())
    assert api.messages(bob) == []


def test_a_bot_that_may_not_write_first_cancels_the_login(cli: Cli, demo: Demo, api: BotApi) -> None:
    api.add_user(7, "Anna")
    with run_bot_process(cli, api, "--allow", "7") as bot:
        result = cli.run(*VIA_ARGUMENTS)
        bot.send_signal(signal.SIGTERM)
        log = bot.wait_for_exit().err
    assert result.exit_code == 5
    assert "must write to the bot first" in " ".join(result.err.split())
    assert "may not write to user 7" in log


@covers("via")
def test_a_cancel_in_the_chat_ends_the_command(cli: Cli, demo: Demo, api: BotApi) -> None:
    anna = add_user(api)
    with run_bot_process(cli, api, "--allow", "7"), cli.start(*VIA_ARGUMENTS, "--json") as login:
        login.read_event()
        login.read_event()
        api.press(anna, wait_for_message(api, anna, "Connect demo"), "Cancel")
        result = login.wait_for_exit()
    assert (result.exit_code, result.events[-1]["error"]) == (5, "login_cancelled")


def test_no_wait_prints_the_login_id_and_the_chat_continues(cli: Cli, demo: Demo, api: BotApi) -> None:
    anna = add_user(api)
    started = cli.run(*VIA_ARGUMENTS, "--no-wait")
    assert re.fullmatch(r"[\w-]{16,64}\n", started.out)
    assert cli.run(*VIA_ARGUMENTS, "--no-wait", "--json").events[0]["event"] == "asked"
    with run_bot_process(cli, api, "--allow", "7"):
        api.say(anna, approve(login_url(wait_for_message(api, anna, "Connect demo"))))
        wait_for_message(api, anna, "demo: connected")


@covers("operators-choice")
@pytest.mark.parametrize(("words", "owner"), [((), "telegram:7"), (("--owner", "telegram:8"), "telegram:8")])
def test_the_owner_follows_the_operators_configuration(
    cli: Cli, demo: Demo, words: tuple[str, ...], owner: str
) -> None:
    entry = {"url": demo.mcp_url, "auth": "oauth"}
    cli.write_config(json.dumps({"mcp_servers": {"demo": entry}, "mcp_auth_chats": {"owners": "per_user"}}))
    assert cli.run(*VIA_ARGUMENTS, *words, "--no-wait", "--json").events[0]["owner"] == owner


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["login", "demo", "--via", "telegram"], 3, "--via takes a user's id at Telegram"),
        (["login", "demo", "--via", "telegram:@anna"], 3, "--via takes a user's id at Telegram"),
        (["login", "demo", "--via", "irc:7"], 3, "--via takes a platform and a user's id"),
        (["login", "dmeo", "--via", "telegram:7"], 3, "No server dmeo"),
        ([*VIA_ARGUMENTS, "--flow", "loopback"], 2, "--flow loopback opens a browser here"),
        ([*VIA_ARGUMENTS, "--finish", "x" * 16], 2, "--via starts a login"),
    ],
)
def test_invalid_via_options_are_explained(cli: Cli, words: list[str], code: int, message: str) -> None:
    result = cli.run(*words)
    assert result.exit_code == code
    assert message in " ".join(result.err.split())


@covers("attention")
def test_an_ended_session_causes_one_message_across_bot_restarts(cli: Cli, demo: Demo, api: BotApi) -> None:
    anna = add_user(api)
    log_in(cli, demo)
    cli.change_stored_tokens(expires_at=1)
    demo.authorization_server.fail_next("refresh", status=400, body='{"error": "invalid_grant"}', times=None)
    for _ in range(3):
        assert cli.run("token", "demo").exit_code == 4
    with run_bot_process(cli, api, "--allow", "7"):
        wait_for_message(api, anna, "demo: a login is needed")
        send_and_wait_for_reply(api, anna, "/connections")
    for _ in range(2):
        with run_bot_process(cli, api, "--allow", "7"):
            send_and_wait_for_reply(api, anna, "/connections")
    reminders = [
        message for message in api.messages(anna) if without_mark(message.text).startswith("demo: a login")
    ]
    assert len(reminders) == 1
    assert [button.text for button in reminders[0].buttons] == ["Log in again"]
    with run_bot_process(cli, api, "--allow", "7"):
        api.press(anna, reminders[0], "Log in again")
        prompt = wait_for_message(api, anna, "Connect demo")
        assert prompt.id == reminders[0].id
        demo.authorization_server.clear_faults()
        api.say(anna, approve(login_url(prompt)))
        assert wait_for_message(api, anna, "demo: connected").id == reminders[0].id
    assert cli.run("token", "demo", may_show=demo.authorization_server.minted_secrets).exit_code == 0
