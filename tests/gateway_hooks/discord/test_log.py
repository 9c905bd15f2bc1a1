"""The library's log at debug level contains no secret. The tripwire checks this in all tests."""

from __future__ import annotations

import logging

import pytest

from gateway_hooks.log_redaction import DISCORD_LOGGERS, DiscordArgumentFilter, harmless_value
from tests import tripwire
from tests.gateway_hooks.discord.given import Scene
from tests.requirements import covers

pytestmark = pytest.mark.slow


def whole_story(scene: Scene) -> list[str]:
    """Run logins, a call and a used answer. Return the secrets of all of them."""
    api, ada = scene.api, scene.ada
    with scene.bot() as running:
        prompt = scene.connect(ada)
        login, answer = scene.login(), scene.approve()
        api.press(ada, prompt, "QR code")
        scene.until_seen(scene.channel, "Scan this", ada)
        scene.paste(ada, prompt, answer)
        scene.until_shows(prompt, "notes: connected")
        call = running.start(running.ping(ada, scene.channel, scene.demo.ping_url, scene.guild))
        assert call.result(20) == 200
        api.say(ada, api.dm(ada), answer)
        scene.until_seen(api.dm(ada), "No login of yours", ada)
    tokens = [each.token for each in api.interactions]
    return [answer, login.authorization_url, login.request.state.reveal(), api.token, *tokens]


@covers("discord-log")
def test_no_line_holds_a_secret(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    secrets = whole_story(scene)
    written = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "discord.gateway" in {record.name for record in caplog.records}
    assert [secret for secret in secrets if secret in written] == []


@covers("discord-log")
def test_without_the_filter_they_would(
    scene: Scene, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DiscordArgumentFilter, "filter", lambda *_: True)
    secrets = whole_story(scene)
    written = caplog.text
    assert [secret for secret in secrets if secret in written]
    # The secrets in this log are intended: hide them from the tripwire.
    caplog.clear()
    tripwire.forget()


def test_all_loggers_of_the_library_that_name_values_are_covered() -> None:
    known = {name for name in logging.root.manager.loggerDict if name.startswith("discord.")}
    silent = {"discord.ext", "discord.app_commands", "discord.webhook", "discord.ui", "discord.backoff"}
    assert set(DISCORD_LOGGERS) <= known | silent


@pytest.mark.parametrize(
    ("value", "said"),
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
def test_what_is_harmless(value: object, said: object) -> None:
    assert harmless_value(value) == said
