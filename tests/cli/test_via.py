"""`login --via telegram:7`: a command starts the login, and a bot process shows and completes it."""

from __future__ import annotations

import json
import re
import signal

import pytest

from tests.browserless import approve, approve_device
from tests.cli.commands import Cli, log_in
from tests.cli.serving import answered, known, said, serving, shown, url_of
from tests.parts.authorization_server import Demo
from tests.parts.bot_api import BotApi
from tests.requirements import covers

pytestmark = pytest.mark.slow

VIA = ("login", "demo", "--via", "telegram:7")


@covers("via", "begun-elsewhere")
def test_a_command_waits_while_a_person_answers_in_their_chat(cli: Cli, demo: Demo, api: BotApi) -> None:
    anna = known(api)
    with serving(cli, api, "--allow", "7"), cli.started(*VIA, "--json") as login:
        asked = login.event()
        assert set(asked) == {"event", "via", "login_id", "server", "owner", "expires_at"}
        assert (asked["event"], asked["via"], asked["owner"]) == ("asked", "telegram:7", None)
        assert login.event() == {"event": "shown"}
        api.say(anna, approve(url_of(shown(api, anna, "Connect demo"))))
        assert login.event()["event"] == "connected"
        ended = login.end()
        shown(api, anna, "demo: connected")
    assert ended.code == 0
    assert cli.run("token", "demo", may_show=demo.authorization_server.minted_secrets).code == 0


@covers("via")
def test_in_words_and_without_an_address_on_the_screen(cli: Cli, demo: Demo, api: BotApi) -> None:
    anna = known(api)
    with serving(cli, api, "--allow", "7"), cli.started(*VIA) as login:
        text = said(login, "The bot shows the login to them now.")
        api.say(anna, approve(url_of(shown(api, anna, "Connect demo"))))
        ended = login.end()
    assert ended.code == 0
    assert "telegram:7 is asked to log in to demo, until " in text
    assert "✓ demo: connected" in ended.out
    assert "/authorize" not in text + ended.err + ended.out


@covers("via")
def test_a_code_for_another_device_ends_it_for_both(cli: Cli, demo: Demo, api: BotApi) -> None:
    demo.authorization_server.change_behaviour(with_device=True, device_interval_seconds=1)
    anna = known(api)
    with serving(cli, api, "--allow", "7"), cli.started(*VIA, "--json") as login:
        login.event()
        login.event()
        approve_device(url_of(shown(api, anna, "Connect demo")))
        ended = login.end()
        shown(api, anna, "demo: connected")
    assert ended.code == 0
    assert ended.events[-1]["event"] == "connected"


@covers("via")
def test_nobody_who_shows_it_is_said_and_a_bot_that_comes_later_does(
    cli: Cli, demo: Demo, api: BotApi
) -> None:
    anna = known(api)
    with cli.started(*VIA, "--json") as login:
        login.event()
        unshown = login.event()
        assert unshown["event"] == "unshown"
        assert unshown["message"] == "No bot is serving telegram from this HERMES_HOME."
        assert "hermes-mcp-auth serve --telegram" in unshown["advice"]
        with serving(cli, api, "--allow", "7"):
            assert login.event() == {"event": "shown"}
            login.signal(signal.SIGINT)
            ended = login.end()
            assert "Cancelled." in shown(api, anna, "demo: not connected").text
    assert ended.code == 130
    assert ended.events == [
        {"error": "interrupted", "message": "Cancelled.", "advice": "Run the command again."}
    ]


@covers("via")
def test_whoever_is_not_on_the_list_is_not_asked(cli: Cli, demo: Demo, api: BotApi) -> None:
    bob = known(api, 8, "Bob")
    with serving(cli, api, "--allow", "7"):
        ended = cli.run("login", "demo", "--via", "telegram:8")
        assert ended.code == 5
        assert "The bot cancelled this login before the user saw it." in ended.err
        assert "telegram:8 is not allowed" in " ".join(ended.err.split())
    assert api.messages(bob) == []


def test_a_bot_that_may_not_write_first_says_so(cli: Cli, demo: Demo, api: BotApi) -> None:
    api.user(7, "Anna")
    with serving(cli, api, "--allow", "7") as bot:
        ended = cli.run(*VIA)
        bot.signal(signal.SIGTERM)
        log = bot.end().err
    assert ended.code == 5
    assert "must write to the bot first" in " ".join(ended.err.split())
    assert "may not write to user 7" in log


@covers("via")
def test_a_person_who_cancels_ends_the_command(cli: Cli, demo: Demo, api: BotApi) -> None:
    anna = known(api)
    with serving(cli, api, "--allow", "7"), cli.started(*VIA, "--json") as login:
        login.event()
        login.event()
        api.press(anna, shown(api, anna, "Connect demo"), "Cancel")
        ended = login.end()
    assert (ended.code, ended.events[-1]["error"]) == (5, "login_cancelled")


def test_without_waiting_its_id_is_printed_and_the_chat_goes_on(cli: Cli, demo: Demo, api: BotApi) -> None:
    anna = known(api)
    begun = cli.run(*VIA, "--no-wait")
    assert re.fullmatch(r"[\w-]{16,64}\n", begun.out)
    assert cli.run(*VIA, "--no-wait", "--json").events[0]["event"] == "asked"
    with serving(cli, api, "--allow", "7"):
        api.say(anna, approve(url_of(shown(api, anna, "Connect demo"))))
        shown(api, anna, "demo: connected")


@covers("operators-choice")
@pytest.mark.parametrize(("words", "owner"), [((), "telegram:7"), (("--owner", "telegram:8"), "telegram:8")])
def test_the_owner_is_the_operators_choice(cli: Cli, demo: Demo, words: tuple[str, ...], owner: str) -> None:
    entry = {"url": demo.mcp_url, "auth": "oauth"}
    cli.write_config(json.dumps({"mcp_servers": {"demo": entry}, "mcp_auth_chats": {"owners": "per_user"}}))
    assert cli.run(*VIA, *words, "--no-wait", "--json").events[0]["owner"] == owner


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["login", "demo", "--via", "telegram"], 3, "--via takes a platform and a user's id"),
        (["login", "demo", "--via", "telegram:@anna"], 3, "--via takes a platform and a user's id"),
        (["login", "demo", "--via", "irc:7"], 3, "--via takes a platform and a user's id"),
        (["login", "dmeo", "--via", "telegram:7"], 3, "No server dmeo"),
        ([*VIA, "--flow", "loopback"], 2, "--flow loopback opens a browser here"),
        ([*VIA, "--finish", "x" * 16], 2, "--via starts a login"),
    ],
)
def test_what_cannot_be_asked_is_said(cli: Cli, words: list[str], code: int, message: str) -> None:
    ended = cli.run(*words)
    assert ended.code == code
    assert message in " ".join(ended.err.split())


@covers("attention")
def test_a_session_that_a_cron_job_finds_dead_makes_one_message_over_restarts_of_the_bot(
    cli: Cli, demo: Demo, api: BotApi
) -> None:
    anna = known(api)
    log_in(cli, demo)
    cli.change_stored(expires_at=1)
    demo.authorization_server.fail_next("refresh", status=400, body='{"error": "invalid_grant"}', times=None)
    for _ in range(3):
        assert cli.run("token", "demo").code == 4
    with serving(cli, api, "--allow", "7"):
        shown(api, anna, "demo: a login is needed")
        answered(api, anna, "/connections")
    for _ in range(2):
        with serving(cli, api, "--allow", "7"):
            answered(api, anna, "/connections")
    told = [each for each in api.messages(anna) if each.text.startswith("demo: a login is needed")]
    assert len(told) == 1
    assert [each.text for each in told[0].buttons] == ["Log in again"]
    with serving(cli, api, "--allow", "7"):
        api.press(anna, told[0], "Log in again")
        prompt = shown(api, anna, "Connect demo")
        assert prompt.id == told[0].id
        demo.authorization_server.clear_faults()
        api.say(anna, approve(url_of(prompt)))
        assert shown(api, anna, "demo: connected").id == told[0].id
    assert cli.run("token", "demo", may_show=demo.authorization_server.minted_secrets).code == 0
