"""The log never contains the bot's token, or texts that users write or see."""

from __future__ import annotations

import asyncio
import io
import logging
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from telegram.error import InvalidToken

from gateway_hooks.log_redaction import mask_secrets, redact_logs
from gateway_hooks.telegram import TelegramApplication, TelegramLogins
from gateway_hooks.telegram.bot import run_bot
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.values import Secret
from tests import leak_check
from tests.gateway_hooks.telegram.environment import ALLOW_LIST, TelegramEnvironment
from tests.parts.bot_api import User
from tests.requirements import covers

pytestmark = pytest.mark.slow

TOKEN = "123456789:AAbbccddeeffgghhiijjkkllmmnnooppqq0"


@covers("telegram-log")
def test_debug_log_of_login_contains_no_secret(
    env: TelegramEnvironment, anna: User, caplog: pytest.LogCaptureFixture
) -> None:
    api = env.api
    env.demo.authorization_server.change_behaviour(with_device=True)

    async def finish_login() -> list[str]:
        async with env.running_bot():
            prompt = await env.request_prompt(anna)
            code = env.waiting_login().device_authorization
            assert code is not None
            await api.press(anna, prompt, "Paste instead")
            await api.until(lambda: "Send it to me here" in api.messages(anna)[-1].text)
            prompt = api.messages(anna)[-1]
            login = env.waiting_login()
            api.hang_up("sendMessage")
            answer = await env.approve_login(prompt)
            api.say(anna, answer.replace("state=", "state=x"))
            await env.wait_for_message(anna, "Your answer did not complete")
            api.say(anna, answer)
            await env.wait_for_message(anna, "notes: connected")
        return [login.request.state.reveal(), code.user_code, answer.partition("code=")[2][:20], "state=x"]

    secrets = [api.token, api.token.partition(":")[2], *asyncio.run(finish_login())]
    log_text = caplog.text
    # The libraries logged at debug level.
    for expected_text in (
        "Calling Bot API endpoint `sendMessage`",
        "HTTP Request: POST",
        "Processing update",
    ):
        assert expected_text in log_text
    assert any(record.name.startswith("httpcore") for record in caplog.records)
    for secret in secrets:
        assert secret not in log_text


@covers("telegram-log")
def test_rejected_token_is_not_logged(env: TelegramEnvironment, caplog: pytest.LogCaptureFixture) -> None:
    leak_check.watch_secrets([TOKEN])
    bot_run = run_bot(
        Secret(TOKEN), env.make_service(), env.servers, ALLOW_LIST, api_url=env.api.origin, clock=env.clock
    )
    with pytest.raises(ConfigError, match="rejected this bot's token") as error:
        asyncio.run(asyncio.wait_for(bot_run, 20))
    assert TOKEN not in repr(error.value) + str(error.value)
    assert error.value.__suppress_context__
    assert TOKEN not in caplog.text


@covers("telegram-log")
@pytest.mark.parametrize(
    "name", ["telegram.ext.Updater", "telegram.ext.Application", "httpx", "gateway_hooks.runtime.dispatcher"]
)
def test_traceback_is_logged_without_token(name: str, caplog: pytest.LogCaptureFixture) -> None:
    redact_logs()
    redact_logs()
    cause = httpx.ConnectError(f"https://api.telegram.org/bot{TOKEN}/getMe?code=abc&state=def")
    error = InvalidToken(f"The token `{TOKEN}` was rejected by the server.")
    error.__cause__ = cause
    logging.getLogger(name).error("It failed for %s", TOKEN, exc_info=error)
    assert TOKEN not in caplog.text
    assert "state=def" not in caplog.text
    assert "InvalidToken: The token `****` was rejected" in caplog.text
    assert "It failed for ****" in caplog.text
    assert all(TOKEN not in str(record.exc_info) for record in caplog.records)


@covers("telegram-log")
def test_harmless_log_records_are_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    redact_logs()
    log = logging.getLogger("telegram.ext.Updater")
    log.warning("%s of %d, %.1f, %s", "One", 2, 3.0, None)
    log.warning("%(name)s", {"name": "a body"})
    log.warning("no arguments, 100%")
    log.error("Failed", exc_info=ValueError("harmless"))
    positional, by_mapping, without_arguments, with_traceback = caplog.records[-4:]
    assert positional.getMessage() == "One of 2, 3.0, None"
    assert by_mapping.getMessage() == "****"
    assert without_arguments.getMessage() == "no arguments, 100%"
    assert with_traceback.exc_info is not None


@covers("telegram-log")
@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f"https://api.telegram.org/bot{TOKEN}/getMe", "https://api.telegram.org/bot****/getMe"),
        (TOKEN.replace(":", "%3A"), "****"),
        ("http://127.0.0.1/?code=a-b&state=c", "http://127.0.0.1/?code=****&state=****"),
        ("redirect%3Fcode%3Da-b%26state%3Dc", "redirect%3Fcode%3D****"),
        ("access_token=x refresh_token=y", "access_token=**** refresh_token=****"),
        ("2026-11-24 20:00:00,123 statement=1", "2026-11-24 20:00:00,123 statement=1"),
    ],
)
def test_mask_secrets(text: str, hidden: str) -> None:
    assert mask_secrets(text) == hidden


@covers("telegram-log")
def test_from_home_with_a_built_application_logs_no_token(tmp_path: Path) -> None:
    script = (
        "import logging; from pathlib import Path; logging.basicConfig(level=logging.DEBUG)\n"
        "from gateway_hooks.telegram import TelegramLogins\n"
        "from telegram.ext import ApplicationBuilder\n"
        f"application = ApplicationBuilder().token({TOKEN!r}).build()\n"
        f"TelegramLogins.from_home(application, users={{42}}, home=Path({str(tmp_path)!r}))\n"
        "logging.getLogger('httpx').info('POST /bot%s/getMe', application.bot.token)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "/bot****/getMe" in result.stderr
    assert TOKEN not in result.stderr


FROM_HOME = "TelegramLogins.from_home(application, users={42}, home=home)"
CONSTRUCTOR = "logins = TelegramLogins(AuthService(home), StaticServers([]), AllowList())"


@covers("telegram-log")
@pytest.mark.parametrize(
    "steps",
    [(FROM_HOME, "later_logger()"), (CONSTRUCTOR, "later_logger()", "logins.add_to(application)")],
    ids=["from_home", "constructor and add_to"],
)
def test_an_application_that_exists_before_the_import_logs_no_token_afterwards(
    tmp_path: Path, steps: tuple[str, ...]
) -> None:
    lines = (
        "import logging",
        "from pathlib import Path",
        # The level hides the records of the builder, which this package cannot change afterwards.
        "logging.basicConfig(level=logging.WARNING)",
        "logging.getLogger('telegram').addHandler(logging.StreamHandler())",
        "from telegram.ext import ApplicationBuilder",
        f"application = ApplicationBuilder().token({TOKEN!r}).build()",
        f"home = Path({str(tmp_path)!r})",
        "def later_logger(): logging.getLogger('telegram.ext.CreatedLater')",
        "from gateway_hooks.telegram import TelegramLogins",
        "from gateway_hooks.dialog.policy import AllowList",
        "from gateway_hooks.dialog.servers import StaticServers",
        "from hermes_mcp_auth_remote.service import AuthService",
        *steps,
        "logging.getLogger().setLevel(logging.DEBUG)",
        "for name in ('telegram', 'telegram.Bot', 'telegram.ext.CreatedLater', 'telegram.ext.AfterAll',",
        "             'httpx', 'httpcore.http11', 'httpcore.of_another_version'):",
        "    logging.getLogger(name).warning('%s: POST /bot%s/getMe', name, application.bot.token)",
        "logging.getLogger('application.own').warning('code=%s', 'of the application')",
    )
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert TOKEN not in result.stderr
    assert result.stderr.count("POST /bot****/getMe") == 4 * 2 + 3
    assert "code=of the application" in result.stderr


@covers("telegram-log")
def test_loggers_and_handlers_that_appear_before_the_first_update_are_filtered(
    env: TelegramEnvironment, anna: User
) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)

    async def start_bot_and_log() -> None:
        async with env.running_bot():
            await env.request_prompt(anna)
            logging.getLogger("telegram.ext.AfterAll").warning("POST /bot%s/getMe", TOKEN)

    application_logger = logging.getLogger("telegram")
    original_check = TelegramLogins._check_once

    def add_handler_and_check(logins: TelegramLogins, application: TelegramApplication) -> None:
        application_logger.addHandler(handler)
        original_check(logins, application)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TelegramLogins, "_check_once", add_handler_and_check)
        try:
            asyncio.run(start_bot_and_log())
        finally:
            application_logger.removeHandler(handler)
    assert "POST /bot****/getMe" in stream.getvalue()
