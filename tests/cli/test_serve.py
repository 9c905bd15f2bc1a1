"""`serve`: a bot in its own process; how it starts, fails to start, and stops."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway_hooks.dialog.platform import ChatError
from gateway_hooks.dialog.policy import AllowList
from hermes_mcp_auth_remote.cli.serve import Bot, _make_policy, _parse_user_ids, run_bots
from hermes_mcp_auth_remote.config.chats import ChatSettings, PlatformSettings
from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError, ServerError, Unreachable
from tests.browserless import approve
from tests.cli.commands import Cli
from tests.cli.serving import known, said, serving, shown, url_of
from tests.parts import discord_api
from tests.parts.authorization_server import Demo
from tests.parts.bot_api import BotApi
from tests.parts.ports import free_port
from tests.requirements import covers
from tests.tripwire import guard

pytestmark = pytest.mark.slow

TOKEN = "123456789:AAa-token-that-nobody-may-see-0123456"


@pytest.fixture
def unused_port() -> int:
    return free_port()


@covers("serve", "operators-choice")
def test_a_newcomer_learns_their_id_from_the_bot_and_can_do_nothing_else(
    cli: Cli, demo: Demo, api: BotApi
) -> None:
    anna = known(api)
    words = ("serve", "--telegram", "--telegram-api", api.origin)
    with cli.started(*words, env={"TELEGRAM_BOT_TOKEN": api.token}) as bot:
        text = said(bot, "config.yaml.")
        assert f"Telegram: {api.bot.username} is running." in text
        assert "share the operator's tokens" in text
        assert "No user may use it yet. Write /start to it" in text
        api.start(anna)
        assert "Your id here is 7." in shown(api, anna, "You may not use this bot yet").text
        said_again = api.say(anna, "/connect demo")
        bot.signal(signal.SIGTERM)
        ended = bot.end()
    # Before this line, the library may report an unfinished update.
    assert (ended.code, ended.out, ended.err.splitlines()[-1]) == (0, "", "Stopped.")
    assert [each.text for each in api.messages(anna) if each.from_bot and each.id > said_again.id] == []
    assert demo.authorization_server.requests == []


@covers("serve")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_person_on_the_list_logs_in_and_the_bot_stops_cleanly(
    cli: Cli, demo: Demo, api: BotApi, number: signal.Signals
) -> None:
    anna = known(api)
    with serving(cli, api, "--allow", "7") as bot:
        api.say(anna, "/connect demo")
        api.say(anna, approve(url_of(shown(api, anna, "Connect demo"))))
        shown(api, anna, "demo: connected")
        assert cli.run("status", "--json").events[0]["state"] == "connected"
        bot.signal(number)
        ended = bot.end()
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert not api.polling
    assert api.unknown_parameters == []


@covers("operators-choice")
def test_the_configuration_says_who_may_whose_the_tokens_are_and_whether_a_device_may_do(
    cli: Cli, demo: Demo, api: BotApi
) -> None:
    demo.authorization_server.change_behaviour(with_device=True)
    anna, bob = known(api), known(api, 8, "Bob")
    section = {"owners": "per_user", "telegram": {"allow": [7], "device": False}}
    entry = {"url": demo.mcp_url, "auth": "oauth"}
    cli.write_config(json.dumps({"mcp_servers": {"demo": entry}, "mcp_auth_chats": section}))
    (cli.home / ".env").write_text(f"TELEGRAM_BOT_TOKEN={api.token}\n")
    with cli.started("serve", "--telegram", "--telegram-api", api.origin, "--json") as bot:
        serves = bot.event()
        assert (serves["owners"], serves["nobody"]) == ("per_user", False)
        api.say(bob, "/connect demo")
        shown(api, bob, "You may not use this bot yet")
        api.say(anna, "/connect demo")
        prompt = shown(api, anna, "Connect demo")
        assert "/authorize" in url_of(prompt)
        assert "Use a code instead" not in [each.text for each in prompt.buttons]
        api.say(anna, approve(url_of(prompt)))
        shown(api, anna, "demo: connected")
    owners = [(each["owner"], each["state"]) for each in cli.run("status", "--json").events[:-1]]
    assert owners == [(None, "not_connected"), ("telegram:7", "connected")]


@covers("serve")
def test_a_token_may_come_from_a_file_of_ones_own(cli: Cli, demo: Demo, api: BotApi, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{api.token}\n")
    words = ("serve", "--telegram", "--telegram-api", api.origin, "--telegram-token-file", str(file))
    file.chmod(0o644)
    refused = cli.run(*words)
    assert refused.code == 8
    assert f"chmod 600 '{file}'" in refused.err.replace("\n", " ")
    file.chmod(0o600)
    with cli.started(*words, "--json") as bot:
        assert bot.event()["event"] == "serving"
    file.unlink()
    assert cli.run(*words).code == 3


@covers("serve", "exit-codes")
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--telegram"], 3, "There is no token for the Telegram bot."),
        (["--discord"], 3, "There is no token for the Discord bot."),
        ([], 2, "name a bot to run: --telegram, --discord or both"),
        (["--telegram", "--allow", "anna"], 3, "--allow takes ids, which are numbers."),
        (["--telegram", "--admin", "slack:7"], 3, "--admin takes ids, which are numbers."),
        (
            ["--telegram", "--discord", "--allow", "7"],
            3,
            "--allow does not name the platform of the id.",
        ),
        (["--telegram", "--telegram-token", TOKEN], 2, "unrecognized arguments"),
    ],
)
def test_what_cannot_be_served_is_said(cli: Cli, words: list[str], code: int, message: str) -> None:
    ended = cli.run("serve", *words)
    assert ended.code == code
    assert message in " ".join(ended.err.split())


def test_an_address_that_is_none_is_refused(cli: Cli) -> None:
    ended = cli.run("serve", "--telegram", "--telegram-api", "tdlib", env={"TELEGRAM_BOT_TOKEN": TOKEN})
    assert (ended.code, "--telegram-api is not a URL" in ended.err) == (3, True)


@covers("serve", "no-secret")
def test_a_token_that_is_not_taken_ends_the_command_with_a_sentence(cli: Cli, api: BotApi) -> None:
    ended = cli.run("serve", "--telegram", "--telegram-api", api.origin, env={"TELEGRAM_BOT_TOKEN": TOKEN})
    assert ended.code == 3
    assert "Telegram rejected this bot's token" in ended.err
    assert TOKEN not in ended.err + ended.out


@pytest.mark.parametrize("platform", ["telegram", "discord"])
def test_a_missing_library_is_said_with_what_to_install(cli: Cli, tmp_path: Path, platform: str) -> None:
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / f"{platform}.py").write_text(f"raise ModuleNotFoundError(name={platform!r})")
    env = {"PYTHONPATH": str(tmp_path / "absent"), f"{platform.upper()}_BOT_TOKEN": TOKEN}
    ended = cli.run("serve", f"--{platform}", env=env)
    assert ended.code == 3
    assert f"pip install 'hermes-mcp-auth-remote[{platform}]'" in ended.err


def test_without_a_server_to_log_in_to_that_is_said(cli: Cli, api: BotApi) -> None:
    cli.write_config("{}")
    words = ("serve", "--telegram", "--telegram-api", api.origin, "--allow", "7")
    with cli.started(*words, env={"TELEGRAM_BOT_TOKEN": api.token}) as bot:
        assert "No server is configured yet" in said(bot, "Ctrl-C stops it.")


@covers("serve")
def test_both_bots_serve_from_one_process(cli: Cli, demo: Demo, api: BotApi) -> None:
    anna = known(api)
    with discord_api.running() as discord:
        guard([discord.token])
        ada = discord.user("ada")
        channel = discord.guild("Home", [ada], channels=["general"]).channel("general")
        env = {"TELEGRAM_BOT_TOKEN": api.token, "DISCORD_BOT_TOKEN": discord.token}
        words = ["--telegram", "--telegram-api", api.origin, "--discord", "--discord-api", discord.url]
        allowed = ["--allow", f"telegram:7,discord:{ada.id}"]
        with cli.started("serve", *words, *allowed, "--json", env=env) as bot:
            started = [bot.event(), bot.event()]
            assert {each["platform"]: each["nobody"] for each in started} == {
                "telegram": False,
                "discord": False,
            }
            discord.wait(lambda: len(discord.commands) >= 3)
            prompt = discord.answer(discord.slash(ada, channel, "connect", server="demo"))
            [waiting] = cli.run("status", "--json").events[0]["waiting"]
            discord.press(ada, prompt, "Cancel")
            discord.wait(lambda: "Cancelled." in discord.fresh(prompt).text)
            assert waiting["login_id"]
            api.say(anna, "/connect demo")
            api.say(anna, approve(url_of(shown(api, anna, "Connect demo"))))
            shown(api, anna, "demo: connected")
            bot.signal(signal.SIGTERM)
            ended = bot.end()
    assert (ended.code, ended.out) == (0, "")


@covers("serve", "no-secret")
def test_a_token_that_discord_does_not_take_ends_the_command(cli: Cli) -> None:
    with discord_api.running() as discord:
        words = ("serve", "--discord", "--discord-api", discord.url)
        ended = cli.run(*words, env={"DISCORD_BOT_TOKEN": TOKEN})
    assert ended.code == 3
    assert "Discord rejected this bot's token." in ended.err
    assert TOKEN not in ended.err + ended.out


@covers("serve")
@pytest.mark.parametrize("platform", ["telegram", "discord"])
def test_a_platform_that_is_out_of_reach_is_waited_for(cli: Cli, platform: str, unused_port: int) -> None:
    address = f"http://127.0.0.1:{unused_port}"
    env = {f"{platform.upper()}_BOT_TOKEN": TOKEN}
    with cli.started("serve", f"--{platform}", f"--{platform}-api", address, env=env) as bot:
        text = said(bot, f"{platform.title()} cannot be reached")
        bot.signal(signal.SIGTERM)
        ended = bot.end()
    assert ended.code == 0
    assert TOKEN not in text + ended.err


def test_a_webhook_is_handed_on(cli: Cli, api: BotApi, unused_port: int) -> None:
    webhook = {"url": "https://bot.example/hook", "port": unused_port}
    cli.write_config(json.dumps({"mcp_auth_chats": {"telegram": {"allow": [7], "webhook": webhook}}}))
    words = ("serve", "--telegram", "--telegram-api", api.origin, "--json")
    with cli.started(*words, env={"TELEGRAM_BOT_TOKEN": api.token}) as bot:
        assert bot.event()["event"] == "serving"
        [call] = api.calls_of("setWebhook")
        assert call.parameters["url"] == "https://bot.example/hook"
        with socket.create_connection(("127.0.0.1", unused_port), timeout=20):
            pass
        bot.signal(signal.SIGTERM)
        assert bot.end().code == 0


def test_a_port_that_is_taken_ends_the_command_with_a_sentence(cli: Cli, api: BotApi) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        webhook = {"url": "https://bot.example/hook", "port": taken.getsockname()[1]}
        cli.write_config(json.dumps({"mcp_auth_chats": {"telegram": {"allow": [7], "webhook": webhook}}}))
        words = ("serve", "--telegram", "--telegram-api", api.origin)
        ended = cli.run(*words, env={"TELEGRAM_BOT_TOKEN": api.token})
    assert ended.code == 3
    assert re.search(r"Cannot listen on 127\.0\.0\.1:\d+", ended.err)


# Several bots in one process.


def bot_that(runs: Callable[[Callable[[str], None]], object], platform: str = "telegram") -> Bot:
    return Bot(platform, AllowList(), has_no_users=True, run_bot=runs)  # type: ignore[arg-type]


async def _serve(*bots: Bot) -> list[str]:
    started: list[str] = []
    await run_bots(list(bots), lambda bot, name: started.append(f"{bot.platform}:{name}"))
    return started


@covers("serve", "no-secret")
@pytest.mark.parametrize(
    ("trouble", "kind", "message"),
    [
        (ChatError("Telegram does not take it."), ConfigError, "Telegram does not take it."),
        (ServerError("It answers nonsense."), ServerError, "It answers nonsense."),
        (OSError(111, f"http://x/bot{TOKEN}"), Unreachable, "Telegram cannot be reached"),
        (ValueError(TOKEN), McpAuthError, "The Telegram bot has ended: ValueError."),
        (None, McpAuthError, "The Telegram bot has ended."),
    ],
)
def test_the_first_bot_that_ends_ends_all_with_a_sentence(
    trouble: Exception | None, kind: type[McpAuthError], message: str
) -> None:
    cleaned: list[bool] = []

    async def goes_on(started: Callable[[str], None]) -> None:
        started("one")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    async def ends(started: Callable[[str], None]) -> None:
        await asyncio.sleep(0)
        if trouble is not None:
            raise trouble

    with pytest.raises(kind, match=message) as ended:
        asyncio.run(_serve(bot_that(goes_on, "discord"), bot_that(ends)))
    assert cleaned == [True]
    assert TOKEN not in f"{ended.value!r} {ended.value.advice}"


def test_ids_are_taken_as_people_write_them() -> None:
    words = ["7,8", "telegram:9", "discord:10"]
    assert list(_parse_user_ids(words, "telegram", "--allow", is_only_platform=True)) == ["7", "8", "9"]
    assert list(_parse_user_ids(words[1:], "discord", "--allow", is_only_platform=False)) == ["10"]


def test_the_command_adds_to_the_lists_of_the_configuration() -> None:
    people = PlatformSettings(allow=frozenset({"1"}), roles=frozenset({"5"}))
    none, some = frozenset[str](), frozenset({"7"})
    assert _make_policy(people, ChatSettings(), some, none) == AllowList(
        frozenset({"1", "7"}), None, frozenset({"5"})
    )
    assert _make_policy(people, ChatSettings("per_user"), none, some) == AllowList(
        frozenset({"1"}), some, frozenset({"5"}), owners="per_user"
    )
    closed = PlatformSettings(admins=frozenset())
    assert _make_policy(closed, ChatSettings(), none, none).admins == frozenset()


def test_no_option_takes_a_token() -> None:
    from hermes_mcp_auth_remote.cli.arguments import build_parser

    verbs = next(each for each in build_parser()._actions if isinstance(each, argparse._SubParsersAction))
    options = {option for each in verbs.choices["serve"]._actions for option in each.option_strings}
    assert {option for option in options if "token" in option} == {
        "--telegram-token-file",
        "--discord-token-file",
    }
