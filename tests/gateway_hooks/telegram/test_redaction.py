"""The log never contains the bot's token, or texts that users write or see."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest
from telegram.error import InvalidToken

from gateway_hooks.dialog.platform import ChatError
from gateway_hooks.log_redaction import mask_secrets, redact_logs
from gateway_hooks.telegram.bot import run_bot
from hermes_mcp_auth_remote.values import Secret
from tests import tripwire
from tests.gateway_hooks.telegram.given import KNOWN, Scene
from tests.parts.bot_api import User
from tests.requirements import covers

pytestmark = pytest.mark.slow

TOKEN = "123456789:AAbbccddeeffgghhiijjkkllmmnnooppqq0"


@covers("telegram-log")
def test_a_whole_login_at_debug_tells_no_secret(
    scene: Scene, anna: User, caplog: pytest.LogCaptureFixture
) -> None:
    api = scene.api
    scene.demo.authorization_server.change_behaviour(with_device=True)

    async def story() -> list[str]:
        async with scene.bot():
            prompt = await scene.prompt(anna)
            code = scene.login().device_authorization
            assert code is not None
            await api.press(anna, prompt, "Paste instead")
            await api.until(lambda: "Send it to me here" in api.messages(anna)[-1].text)
            prompt = api.messages(anna)[-1]
            login = scene.login()
            api.hang_up("sendMessage")
            answer = await scene.approved(prompt)
            api.say(anna, answer.replace("state=", "state=x"))
            await scene.shown(anna, "That did not finish")
            api.say(anna, answer)
            await scene.shown(anna, "notes: connected")
        return [login.request.state.reveal(), code.user_code, answer.partition("code=")[2][:20], "state=x"]

    secrets = [api.token, api.token.partition(":")[2], *asyncio.run(story())]
    told = caplog.text
    # The libraries logged at debug level.
    for said in ("Calling Bot API endpoint `sendMessage`", "HTTP Request: POST", "Processing update"):
        assert said in told
    assert any(record.name.startswith("httpcore") for record in caplog.records)
    for secret in secrets:
        assert secret not in told


@covers("telegram-log")
def test_a_token_that_telegram_does_not_take_is_not_told_either(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    tripwire.guard([TOKEN])
    running = run_bot(
        Secret(TOKEN), scene.service(), scene.servers, KNOWN, api_url=scene.api.origin, clock=scene.clock
    )
    with pytest.raises(ChatError, match="Copy it again") as caught:
        asyncio.run(asyncio.wait_for(running, 20))
    assert TOKEN not in repr(caught.value) + str(caught.value)
    assert caught.value.__suppress_context__
    assert TOKEN not in caplog.text


@covers("telegram-log")
@pytest.mark.parametrize(
    "name", ["telegram.ext.Updater", "telegram.ext.Application", "httpx", "gateway_hooks.runtime.dispatcher"]
)
def test_a_traceback_tells_no_token_and_stays_a_traceback(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    redact_logs()
    redact_logs()
    cause = httpx.ConnectError(f"https://api.telegram.org/bot{TOKEN}/getMe?code=abc&state=def")
    trouble = InvalidToken(f"The token `{TOKEN}` was rejected by the server.")
    trouble.__cause__ = cause
    logging.getLogger(name).error("It failed for %s", TOKEN, exc_info=trouble)
    assert TOKEN not in caplog.text
    assert "state=def" not in caplog.text
    assert "InvalidToken: The token `****` was rejected" in caplog.text
    assert "It failed for ****" in caplog.text
    assert all(TOKEN not in str(record.exc_info) for record in caplog.records)


@covers("telegram-log")
def test_what_tells_nothing_is_left_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    redact_logs()
    log = logging.getLogger("telegram.ext.Updater")
    log.warning("%s of %d, %.1f, %s", "One", 2, 3.0, None)
    log.warning("%(name)s", {"name": "a body"})
    log.warning("no arguments, 100%")
    log.error("Failed", exc_info=ValueError("harmless"))
    first, by_name, bare, failed = caplog.records[-4:]
    assert first.getMessage() == "One of 2, 3.0, None"
    assert by_name.getMessage() == "****"
    assert bare.getMessage() == "no arguments, 100%"
    assert failed.exc_info is not None


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
def test_hiding(text: str, hidden: str) -> None:
    assert mask_secrets(text) == hidden
