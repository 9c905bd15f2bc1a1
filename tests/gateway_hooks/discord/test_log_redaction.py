"""The library's log at debug level contains no secret. The leak check searches the log in all tests."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from discord import VoiceClient

from gateway_hooks.discord import McpLogins
from gateway_hooks.discord.bot import LoginBot
from gateway_hooks.log_redaction import (
    DISCORD_LOGGERS,
    DiscordArgumentFilter,
    harmless_value,
    redact_discord_logs,
)
from tests import leak_check
from tests.gateway_hooks.discord.environment import DiscordEnvironment
from tests.requirements import covers

pytestmark = pytest.mark.slow


def run_logins(env: DiscordEnvironment) -> list[str]:
    """Run logins, a call and a used answer. Return the secrets of all of them."""
    api, ada = env.api, env.ada
    with env.running_bot() as running:
        prompt = env.request_prompt(ada)
        login, answer = env.waiting_login(), env.approve_login()
        api.press(ada, prompt, "QR code")
        env.wait_for_message(env.channel, "Scan this", ada)
        env.submit_answer(ada, prompt, answer)
        env.wait_for_text(prompt, "notes: connected")
        call = running.start(running.call_server(ada, env.channel, env.demo.ping_url, env.guild))
        assert call.result(20) == 200
        api.say(ada, api.dm(ada), answer)
        env.wait_for_message(api.dm(ada), "notes: already connected", ada)
    tokens = [interaction.token for interaction in api.interactions]
    return [answer, login.authorization_url, login.request.state.reveal(), api.token, *tokens]


@covers("discord-log")
def test_log_contains_no_secret(env: DiscordEnvironment, caplog: pytest.LogCaptureFixture) -> None:
    secrets = run_logins(env)
    log_text = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "discord.gateway" in {record.name for record in caplog.records}
    assert [secret for secret in secrets if secret in log_text] == []


@covers("discord-log")
def test_log_without_filter_contains_secrets(
    env: DiscordEnvironment, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DiscordArgumentFilter, "filter", lambda *_: True)
    secrets = run_logins(env)
    log_text = caplog.text
    assert [secret for secret in secrets if secret in log_text]
    # This log contains secrets on purpose: hide them from the leak check.
    caplog.clear()
    leak_check.clear_secrets()


def test_filter_covers_all_loggers_of_library() -> None:
    known_loggers = {name for name in logging.root.manager.loggerDict if name.startswith("discord.")}
    silent_loggers = {
        "discord.ext",
        "discord.app_commands",
        "discord.webhook",
        "discord.ui",
        "discord.backoff",
    }
    assert set(DISCORD_LOGGERS) <= known_loggers | silent_loggers


@covers("discord-log")
def test_the_cog_filters_the_log_before_the_bot_loads_it(tmp_path: Path) -> None:
    for name in DISCORD_LOGGERS:
        logging.getLogger(name).filters.clear()
    McpLogins.from_home(LoginBot(), users={42}, home=tmp_path)
    for name in DISCORD_LOGGERS:
        assert any(isinstance(each, DiscordArgumentFilter) for each in logging.getLogger(name).filters), name


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (3, 3),
        ("POST", "POST"),
        (
            "https://discord.com/api/v10/interactions/1/aW50ZXJ/callback?x=1",
            "https://discord.com/api/v10/interactions/1/…/callback",
        ),
        (
            "https://discord.com/api/v10/webhooks/1/aW50ZXJ/messages/2",
            "https://discord.com/api/v10/webhooks/1/…/messages/2",
        ),
        ("MTIz.abc.def", "…"),
        ("http://127.0.0.1:1/callback?code=x", "http://127.0.0.1:1/callback"),
        ({"op": 0, "t": "READY", "s": 1, "d": {"token": "x"}}, {"op": 0, "t": "READY", "s": 1}),
        ({"content": "x"}, {}),
        (["x"], "…"),
        (b"x y", "…"),
    ],
)
def test_harmless_value(value: object, expected: object) -> None:
    assert harmless_value(value) == expected


@covers("discord-log")
@pytest.mark.parametrize(
    ("text", "expected"),
    [("Sent %s.", "Sent {'op': 2, 'd': '…', 'content': '…'}."), ("Sent %(op)s %(content)s.", "Sent 2 ….")],
)
def test_a_mapping_as_the_only_argument_is_redacted(
    caplog: pytest.LogCaptureFixture, text: str, expected: str
) -> None:
    redact_discord_logs()
    with caplog.at_level(logging.DEBUG):
        frame = {"op": 2, "d": {"token": "v0ice"}, "content": "an-answer"}
        logging.getLogger("discord.gateway").debug(text, frame)
    assert [record.getMessage() for record in caplog.records] == [expected]


def test_lines_about_missing_voice_libraries_reach_no_operator(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("warn_nacl", "warn_dave"):
        monkeypatch.setattr(VoiceClient, name, True)
    redact_discord_logs()
    with caplog.at_level(logging.WARNING):
        LoginBot()
        logging.getLogger("discord.client").warning("Another line.")
    assert [record.getMessage() for record in caplog.records] == ["Another line."]
