"""`serve`: a bot in its own process; how it starts, fails to start, and stops."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import shlex
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway_hooks.dialog.platform import ChatError
from gateway_hooks.dialog.policy import AllowList
from hermes_mcp_auth_remote import cancellation
from hermes_mcp_auth_remote.cli import serve
from hermes_mcp_auth_remote.cli.serve import EXAMPLE_CONFIG, Bot, _make_policy, _parse_user_ids, run_bots
from hermes_mcp_auth_remote.config import load_servers
from hermes_mcp_auth_remote.config.chats import ChatSettings, PlatformSettings
from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError, ServerError, Unreachable
from hermes_mcp_auth_remote.platforms import DISCORD, PLATFORMS, TELEGRAM
from tests.cli.bot_process import add_user, login_url, read_stderr_until, run_bot_process, wait_for_message
from tests.cli.commands import COMMAND, Cli
from tests.consent_form import approve
from tests.leak_check import watch_secrets
from tests.parts import discord_api
from tests.parts.authorization_server import Demo
from tests.parts.bot_api import BotApi
from tests.parts.ports import free_port
from tests.parts.terminal import open_terminal
from tests.requirements import covers

pytestmark = pytest.mark.slow

TOKEN = "123456789:AAa-token-that-nobody-may-see-0123456"


@pytest.fixture
def unused_port() -> int:
    return free_port()


@covers("serve", "operators-choice")
def test_a_user_who_is_not_allowed_gets_only_their_id(cli: Cli, demo: Demo, api: BotApi) -> None:
    anna = add_user(api)
    arguments = ("serve", "--telegram", "--telegram-api", api.origin)
    with cli.start(*arguments, env={"TELEGRAM_BOT_TOKEN": api.token}) as bot:
        text = read_stderr_until(bot, "config.yaml.")
        assert f"Telegram: {api.bot.username} is running." in text
        assert "share the operator's tokens" in text
        assert "No user may use it yet. Write /start to it" in text
        api.start(anna)
        assert "Your id here is 7." in wait_for_message(api, anna, "You may not use this bot yet").text
        last_message = api.say(anna, "/connect demo")
        bot.send_signal(signal.SIGTERM)
        result = bot.wait_for_exit()
    # Before this line, the library may report an unfinished update.
    assert (result.exit_code, result.out, result.err.splitlines()[-1]) == (0, "", "Stopped.")
    assert [
        message.text for message in api.messages(anna) if message.is_from_bot and message.id > last_message.id
    ] == []
    assert demo.authorization_server.requests == []


@covers("serve")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_allowed_user_logs_in_and_the_bot_stops_cleanly(
    cli: Cli, demo: Demo, api: BotApi, number: signal.Signals
) -> None:
    anna = add_user(api)
    with run_bot_process(cli, api, "--allow", "7") as bot:
        api.say(anna, "/connect demo")
        api.say(anna, approve(login_url(wait_for_message(api, anna, "Connect demo"))))
        wait_for_message(api, anna, "demo: connected")
        assert cli.run("status", "--json").events[0]["state"] == "connected"
        bot.send_signal(number)
        result = bot.wait_for_exit()
    assert (result.exit_code, result.out, result.err) == (0, "", "")
    # The endpoint notices the closed connection a moment later.
    api.wait(lambda: not api.is_polling)
    assert api.unknown_parameters == []


@covers("operators-choice")
def test_the_configuration_sets_users_owners_and_the_device_flow(cli: Cli, demo: Demo, api: BotApi) -> None:
    demo.authorization_server.change_behaviour(with_device=True)
    anna, bob = add_user(api), add_user(api, 8, "Bob")
    section = {"owners": "per_user", "telegram": {"allow": [7], "device": False}}
    entry = {"url": demo.mcp_url, "auth": "oauth"}
    cli.write_config(json.dumps({"mcp_servers": {"demo": entry}, "mcp_auth_chats": section}))
    (cli.home / ".env").write_text(f"TELEGRAM_BOT_TOKEN={api.token}\n")
    with cli.start("serve", "--telegram", "--telegram-api", api.origin, "--json") as bot:
        event = bot.read_event()
        assert (event["owners"], event["has_no_users"]) == ("per_user", False)
        api.say(bob, "/connect demo")
        wait_for_message(api, bob, "You may not use this bot yet")
        api.say(anna, "/connect demo")
        prompt = wait_for_message(api, anna, "Connect demo")
        assert "/authorize" in login_url(prompt)
        assert "Use a code instead" not in [button.text for button in prompt.buttons]
        api.say(anna, approve(login_url(prompt)))
        wait_for_message(api, anna, "demo: connected")
    owners = [(event["owner"], event["state"]) for event in cli.run("status", "--json").events[:-1]]
    assert owners == [(None, "not_connected"), ("telegram:7", "connected")]


@covers("serve")
def test_the_token_can_come_from_a_private_file(cli: Cli, demo: Demo, api: BotApi, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{api.token}\n")
    arguments = ("serve", "--telegram", "--telegram-api", api.origin, "--telegram-token-file", str(file))
    file.chmod(0o644)
    refused = cli.run(*arguments)
    assert refused.exit_code == 8
    assert f"chmod 600 {shlex.quote(str(file))}`" in refused.err.replace("\n", " ")
    file.chmod(0o600)
    with cli.start(*arguments, "--json") as bot:
        assert bot.read_event()["event"] == "serving"
    file.unlink()
    assert cli.run(*arguments).exit_code == 3


@covers("serve", "exit-codes")
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--telegram"], 3, "There is no token for the Telegram bot."),
        (["--discord"], 3, "There is no token for the Discord bot."),
        ([], 2, "name one or more bots to run: --telegram"),
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
def test_invalid_options_of_serve_are_explained(cli: Cli, words: list[str], code: int, message: str) -> None:
    result = cli.run("serve", *words)
    assert result.exit_code == code
    assert message in " ".join(result.err.split())


def test_an_invalid_api_url_is_refused(cli: Cli) -> None:
    result = cli.run("serve", "--telegram", "--telegram-api", "tdlib", env={"TELEGRAM_BOT_TOKEN": TOKEN})
    assert (result.exit_code, "--telegram-api is not a URL" in result.err) == (3, True)


@covers("bot-proxy", "no-secret")
@pytest.mark.parametrize("platform", ["telegram", "discord"])
@pytest.mark.parametrize(
    "url",
    ["http://bot-api.example", "http://192.168.1.7:8081", "http://[fd00::7]", "http://127.0.0.1@bad.example"],
)
def test_plain_http_to_another_machine_is_refused_and_the_option_is_named(
    cli: Cli, platform: str, url: str
) -> None:
    env = {f"{platform.upper()}_BOT_TOKEN": TOKEN}
    result = cli.run("serve", f"--{platform}", f"--{platform}-api", url, env=env)
    assert result.exit_code == 3
    text = " ".join(result.err.split())
    assert f"--{platform}-api is plain http on another machine" in text
    assert "add --allow-plain-http-api" in text


@covers("bot-proxy")
def test_plain_http_to_another_machine_is_used_if_the_operator_allows_it(cli: Cli, api: BotApi) -> None:
    # Not a loopback address, but the system connects it to this machine.
    url = api.origin.replace("127.0.0.1", "0.0.0.0")
    arguments = ("serve", "--telegram", "--telegram-api", url, "--json")
    env = {"TELEGRAM_BOT_TOKEN": api.token}
    assert cli.run(*arguments, env=env).exit_code == 3
    with cli.start(*arguments, "--allow-plain-http-api", env=env) as bot:
        assert bot.read_event()["event"] == "serving"


@covers("serve", "no-secret")
def test_a_rejected_telegram_token_exits_with_an_error(cli: Cli, api: BotApi) -> None:
    result = cli.run("serve", "--telegram", "--telegram-api", api.origin, env={"TELEGRAM_BOT_TOKEN": TOKEN})
    assert result.exit_code == 3
    assert result.err == "✗ Telegram rejected this bot's token.\n  Copy it again from BotFather.\n"
    assert TOKEN not in result.err + result.out


@pytest.mark.parametrize("platform", ["telegram", "discord"])
def test_a_missing_library_is_an_error_with_the_install_command(
    cli: Cli, tmp_path: Path, platform: str
) -> None:
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / f"{platform}.py").write_text(f"raise ModuleNotFoundError(name={platform!r})")
    env = {"PYTHONPATH": str(tmp_path / "absent"), f"{platform.upper()}_BOT_TOKEN": TOKEN}
    result = cli.run("serve", f"--{platform}", env=env)
    assert result.exit_code == 3
    package = {"telegram": "python-telegram-bot[webhooks]", "discord": "discord"}[platform]
    assert re.search(rf"Run `.*pip install .*'{re.escape(package)}", result.err)
    assert "hermes-mcp-auth-remote" not in result.err


def test_serve_without_a_configured_server_says_so(cli: Cli, api: BotApi) -> None:
    cli.write_config("{}")
    arguments = ("serve", "--telegram", "--telegram-api", api.origin, "--allow", "7")
    with cli.start(*arguments, env={"TELEGRAM_BOT_TOKEN": api.token}) as bot:
        text = read_stderr_until(bot, "Ctrl-C stops it.")
    assert "No server is configured yet" in text
    assert "send /connect" not in text
    # The lines that it prints are a configuration.
    cli.write_config(EXAMPLE_CONFIG)
    assert list(load_servers(cli.home, {})) == ["linear"]


@covers("serve", "chat-url")
def test_serve_without_a_server_says_that_an_address_works(cli: Cli, api: BotApi) -> None:
    cli.write_config("mcp_auth_chats: {owners: per_user}")
    arguments = ("serve", "--telegram", "--telegram-api", api.origin, "--allow", "7")
    with cli.start(*arguments, env={"TELEGRAM_BOT_TOKEN": api.token}) as bot:
        assert "send /connect and the https address" in read_stderr_until(bot, "Ctrl-C stops it.")


@covers("serve")
def test_one_process_runs_both_bots(cli: Cli, demo: Demo, api: BotApi) -> None:
    anna = add_user(api)
    with discord_api.serve_discord_api() as discord:
        watch_secrets([discord.token])
        ada = discord.add_user("ada")
        channel = discord.add_guild("Home", [ada], channels=["general"]).channel("general")
        env = {"TELEGRAM_BOT_TOKEN": api.token, "DISCORD_BOT_TOKEN": discord.token}
        options = ["--telegram", "--telegram-api", api.origin, "--discord", "--discord-api", discord.url]
        allow_options = ["--allow", f"telegram:7,discord:{ada.id}"]
        with cli.start("serve", *options, *allow_options, "--json", env=env) as bot:
            started = [bot.read_event(), bot.read_event()]
            assert {event["platform"]: event["has_no_users"] for event in started} == {
                "telegram": False,
                "discord": False,
            }
            discord.wait(lambda: len(discord.commands) >= 3)
            prompt = discord.wait_for_response(discord.slash(ada, channel, "connect", server="demo"))
            [waiting] = cli.run("status", "--json").events[0]["waiting"]
            discord.press(ada, prompt, "Cancel")
            discord.wait(lambda: "Cancelled." in discord.current(prompt).text)
            assert waiting["login_id"]
            api.say(anna, "/connect demo")
            api.say(anna, approve(login_url(wait_for_message(api, anna, "Connect demo"))))
            wait_for_message(api, anna, "demo: connected")
            bot.send_signal(signal.SIGTERM)
            result = bot.wait_for_exit()
    assert (result.exit_code, result.out) == (0, "")


@covers("serve", "no-secret")
def test_a_rejected_discord_token_exits_with_an_error(cli: Cli) -> None:
    with discord_api.serve_discord_api() as discord:
        arguments = ("serve", "--discord", "--discord-api", discord.url)
        result = cli.run(*arguments, env={"DISCORD_BOT_TOKEN": TOKEN})
    assert result.exit_code == 3
    assert "Discord rejected this bot's token." in result.err
    assert TOKEN not in result.err + result.out


@covers("serve")
def test_a_discord_token_that_is_reset_later_ends_the_bot_with_an_error(cli: Cli) -> None:
    with discord_api.serve_discord_api() as discord:
        arguments = ("serve", "--discord", "--discord-api", discord.url, "--allow", "7", "--json")
        with cli.start(*arguments, env={"DISCORD_BOT_TOKEN": discord.token}) as bot:
            assert bot.read_event()["event"] == "serving"
            # Authentication failed.
            discord.close_gateway(4004)
            assert bot.read_event()["message"] == "Discord rejected this bot's token."
            assert bot.wait_for_exit().exit_code == 3


@covers("serve")
def test_a_discord_bot_that_starts_during_a_rate_limit_waits(cli: Cli) -> None:
    with discord_api.serve_discord_api() as discord:
        # Without Via, it is the limit of a network address, which the library does not wait for.
        discord.fail_next("GET", "users/@me", 429, headers={"Via": ""})
        arguments = ("serve", "--discord", "--discord-api", discord.url, "--allow", "7", "--json")
        with cli.start(*arguments, env={"DISCORD_BOT_TOKEN": discord.token}) as bot:
            assert bot.read_event()["event"] == "serving"
            bot.send_signal(signal.SIGTERM)
            result = bot.wait_for_exit()
    assert result.exit_code == 0
    assert result.err.count("Discord limits the rate of logins; retrying.") == 1


@covers("serve")
@pytest.mark.parametrize("platform", ["telegram", "discord"])
def test_serve_waits_for_an_unreachable_platform(cli: Cli, platform: str, unused_port: int) -> None:
    address = f"http://127.0.0.1:{unused_port}"
    env = {f"{platform.upper()}_BOT_TOKEN": TOKEN}
    with cli.start("serve", f"--{platform}", f"--{platform}-api", address, env=env) as bot:
        text = read_stderr_until(bot, f"{platform.title()} cannot be reached")
        bot.send_signal(signal.SIGTERM)
        result = bot.wait_for_exit()
    assert result.exit_code == 0
    assert TOKEN not in text + result.err


def test_the_configured_webhook_is_registered(cli: Cli, api: BotApi, unused_port: int) -> None:
    webhook = {"url": "https://bot.example/hook", "port": unused_port}
    cli.write_config(json.dumps({"mcp_auth_chats": {"telegram": {"allow": [7], "webhook": webhook}}}))
    arguments = ("serve", "--telegram", "--telegram-api", api.origin, "--json")
    with cli.start(*arguments, env={"TELEGRAM_BOT_TOKEN": api.token}) as bot:
        assert bot.read_event()["event"] == "serving"
        [call] = api.calls_of("setWebhook")
        assert call.parameters["url"] == "https://bot.example/hook"
        with socket.create_connection(("127.0.0.1", unused_port), timeout=20):
            pass
        bot.send_signal(signal.SIGTERM)
        assert bot.wait_for_exit().exit_code == 0


def test_a_busy_webhook_port_exits_with_an_error(cli: Cli, api: BotApi) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy_socket:
        webhook = {"url": "https://bot.example/hook", "port": busy_socket.getsockname()[1]}
        cli.write_config(json.dumps({"mcp_auth_chats": {"telegram": {"allow": [7], "webhook": webhook}}}))
        arguments = ("serve", "--telegram", "--telegram-api", api.origin)
        result = cli.run(*arguments, env={"TELEGRAM_BOT_TOKEN": api.token})
    assert result.exit_code == 3
    assert re.search(r"Cannot listen on 127\.0\.0\.1:\d+", result.err)


@covers("admission")
def test_the_pairing_code_on_the_terminal_makes_the_first_administrator(cli: Cli, api: BotApi) -> None:
    anna = add_user(api)
    command = [*COMMAND, "serve", "--telegram", "--telegram-api", api.origin]
    env = cli.environ({"TELEGRAM_BOT_TOKEN": api.token})
    with open_terminal(command, env=env, columns=200) as screen:
        text = screen.wait_for("becomes its administrator")
        link = re.search(rf"https://t\.me/{api.bot.username}\?start=(pair_\w+)", text)
        assert link is not None
        api.say(anna, f"/start {link[1]}")
        wait_for_message(api, anna, "You are an administrator of this bot")
        screen.press("C-c")
        assert screen.wait_for_exit() == 0
    # The list of users is stored, so no other user can pair.
    with open_terminal(command, env=env, columns=200) as screen:
        assert "No user may use it yet" not in screen.wait_for("is running")
        screen.press("C-c")
        assert screen.wait_for_exit() == 0


@covers("admission")
def test_no_pairing_code_reaches_a_log_file(cli: Cli, api: BotApi, tmp_path: Path) -> None:
    words = shlex.join([*COMMAND, "serve", "--telegram", "--telegram-api", api.origin])
    log = tmp_path / "log"
    command = ["sh", "-c", f"exec {words} 2>{shlex.quote(str(log))}"]
    with open_terminal(command, env=cli.environ({"TELEGRAM_BOT_TOKEN": api.token})) as screen:
        deadline = time.monotonic() + 30
        while "--allow ID" not in (log.read_text("utf-8") if log.exists() else ""):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        screen.press("C-c")
        assert screen.wait_for_exit() == 0
    assert "pair_" not in log.read_text("utf-8")


# Several bots in one process.


def make_bot(run_bot: Callable[[Callable[[str], None]], object], platform: str = "telegram") -> Bot:
    return Bot(PLATFORMS[platform], AllowList(), has_no_users=True, run_bot=run_bot)  # type: ignore[arg-type]


async def run_bots_and_list_started(*bots: Bot) -> list[str]:
    started: list[str] = []
    await run_bots(list(bots), lambda bot, name: started.append(f"{bot.platform.name}:{name}"))
    return started


@covers("serve", "no-secret")
@pytest.mark.parametrize(
    ("trouble", "kind", "message"),
    [
        (ChatError("Telegram does not take it."), ConfigError, "Telegram does not take it."),
        (ServerError("It answers nonsense."), ServerError, "It answers nonsense."),
        (OSError(111, f"http://x/bot{TOKEN}"), Unreachable, "Telegram cannot be reached"),
        (ValueError(TOKEN), McpAuthError, "The Telegram bot has ended: ValueError."),
        (ExceptionGroup("", [ChatError("It is out.")]), ConfigError, "It is out."),
        (
            ExceptionGroup("", [ExceptionGroup("", [ValueError(TOKEN)])]),
            McpAuthError,
            "The Telegram bot has ended: ValueError.",
        ),
        (None, McpAuthError, "The Telegram bot has ended."),
    ],
)
def test_the_first_bot_that_ends_stops_all_with_an_error(
    trouble: Exception | None, kind: type[McpAuthError], message: str
) -> None:
    cleanups: list[bool] = []

    async def run_until_cancelled(started: Callable[[str], None]) -> None:
        started("one")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleanups.append(True)

    async def run_and_end(started: Callable[[str], None]) -> None:
        await asyncio.sleep(0)
        if trouble is not None:
            raise trouble

    with pytest.raises(kind, match=message) as raised:
        asyncio.run(
            run_bots_and_list_started(make_bot(run_until_cancelled, "discord"), make_bot(run_and_end))
        )
    assert cleanups == [True]
    assert TOKEN not in f"{raised.value!r} {raised.value.advice}"


@pytest.fixture
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "CLOSE_SECONDS", 0.01)
    monkeypatch.setattr(cancellation, "RECANCEL_SECONDS", 0.001)


class SlowBot:
    """A bot that loses cancellations while it starts, and whose close waits for an event."""

    def __init__(self, lost_count: int = 0) -> None:
        self.lost_count = lost_count
        self.events: list[str] = []
        self.is_running, self.is_closing, self.may_close = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self, _started: Callable[[str], None]) -> None:
        self.is_running.set()
        for _ in range(self.lost_count):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        try:
            await asyncio.Event().wait()
        finally:
            self.events.append("closing")
            self.is_closing.set()
            await self.may_close.wait()
            self.events.append("closed")


async def cancel_bots(bot: SlowBot, *, times: int = 1) -> asyncio.Task[list[str]]:
    """Run a bot and cancel it as often as signals arrive. Return the ended task, or the one that closes."""
    task = asyncio.create_task(run_bots_and_list_started(make_bot(bot.run)))
    async with asyncio.timeout(20):
        await bot.is_running.wait()
        for _ in range(times):
            task.cancel()
            await bot.is_closing.wait()
    return task


@covers("serve-stop")
@pytest.mark.usefixtures("short_delays")
@pytest.mark.parametrize("lost_count", [1, 3])
def test_a_bot_stops_although_its_library_loses_a_cancellation(lost_count: int) -> None:
    async def main() -> None:
        bot = SlowBot(lost_count)
        bot.may_close.set()
        task = await cancel_bots(bot)
        await asyncio.wait({task}, timeout=20)
        assert task.cancelled()
        assert bot.events == ["closing", "closed"]

    asyncio.run(main())


@covers("serve-stop")
def test_a_bot_that_closes_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "RECANCEL_SECONDS", 0.001)

    async def main() -> None:
        bot = SlowBot()
        task = await cancel_bots(bot)
        # Far below `CLOSE_SECONDS`, and more than `RECANCEL_SECONDS`.
        done, _ = await asyncio.wait({task}, timeout=0.02)
        assert not done
        bot.may_close.set()
        await asyncio.wait({task}, timeout=20)
        assert task.cancelled()
        assert bot.events == ["closing", "closed"]

    asyncio.run(main())


@covers("serve-stop")
@pytest.mark.usefixtures("short_delays")
def test_a_bot_that_does_not_close_in_time_is_interrupted() -> None:
    async def main() -> None:
        bot = SlowBot()
        task = await cancel_bots(bot)
        await asyncio.wait({task}, timeout=20)
        assert task.cancelled()
        assert bot.events == ["closing"]

    asyncio.run(main())


@covers("serve-stop")
def test_a_second_signal_interrupts_the_close() -> None:
    async def main() -> None:
        bot = SlowBot()
        task = await cancel_bots(bot, times=2)
        await asyncio.wait({task}, timeout=20)
        assert task.cancelled()
        assert bot.events == ["closing"]

    asyncio.run(main())


@covers("serve-stop")
@pytest.mark.usefixtures("short_delays")
def test_the_tasks_that_a_bot_leaves_are_ended() -> None:
    async def lose_one_cancellation() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    left_tasks: list[asyncio.Task[None]] = []

    async def run_and_leave_task(started: Callable[[str], None]) -> None:
        left_tasks.append(asyncio.create_task(lose_one_cancellation()))
        await asyncio.sleep(0)

    with pytest.raises(McpAuthError, match=r"The Telegram bot has ended\."):
        asyncio.run(serve._serve([make_bot(run_and_leave_task)], as_json=True))
    assert left_tasks[0].cancelled()


@covers("platform-table")
def test_the_example_names_the_command_of_each_bot(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async def run_nothing(started: Callable[[str], None]) -> None:
        """Never run."""

    bots = [replace(make_bot(run_nothing), policy=AllowList(connect_urls=True)) for _ in range(3)]
    bots[2] = replace(bots[2], platform=DISCORD._replace(command_prefix="!mcp "))
    serve._print_example(tmp_path / "config.yaml", bots)
    text = " ".join(capsys.readouterr().err.split())
    assert text.endswith(
        "An administrator can also send /connect or !mcp connect and the https address of a server."
    )


@covers("platform-table")
def test_the_help_fits_with_any_number_of_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    from hermes_mcp_auth_remote.cli.arguments import build_parser

    for number in range(5):
        name = f"platform{number}"
        row = DISCORD._replace(name=name, title=name.title(), token_variable=f"PLATFORM_{number}_TOKEN")
        monkeypatch.setitem(PLATFORMS, name, row)
    verbs = next(
        action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    lines = verbs.choices["serve"].format_help().splitlines()
    assert [line for line in lines if len(line) > 80] == []


def test_user_ids_are_parsed_with_and_without_a_platform() -> None:
    values = ["7,8", "telegram:9", "discord:10"]
    assert list(_parse_user_ids(values, TELEGRAM, "--allow", is_only_platform=True)) == ["7", "8", "9"]
    assert list(_parse_user_ids(values[1:], DISCORD, "--allow", is_only_platform=False)) == ["10"]


def test_options_add_users_to_the_configured_lists() -> None:
    settings = PlatformSettings(allow=frozenset({"1"}), roles=frozenset({"5"}))
    none, some = frozenset[str](), frozenset({"7"})
    assert _make_policy(settings, ChatSettings(), some, none) == AllowList(
        frozenset({"1", "7"}), None, frozenset({"5"})
    )
    assert _make_policy(settings, ChatSettings("per_user"), none, some) == AllowList(
        frozenset({"1"}), some, frozenset({"5"}), owners="per_user"
    )
    assert _make_policy(settings, ChatSettings(connect_urls=True), some, none).allows_urls
    assert not _make_policy(settings, ChatSettings(), some, none).allows_urls
    closed_settings = PlatformSettings(admins=frozenset())
    assert _make_policy(closed_settings, ChatSettings(), none, none).admins == frozenset()


def test_no_option_takes_a_token() -> None:
    from hermes_mcp_auth_remote.cli.arguments import build_parser

    verbs = next(
        action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    options = {option for action in verbs.choices["serve"]._actions for option in action.option_strings}
    token_options = {option for option in options if "token" in option}
    assert token_options == {f"--{name}-token-file" for name in PLATFORMS}
