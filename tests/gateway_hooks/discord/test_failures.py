"""Failures between Discord and the bot: lost connections, slow servers, rate limits."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import aiohttp
import discord
import pytest

from gateway_hooks.dialog.platform import ChatError, PlatformUnreachable
from gateway_hooks.dialog.policy import AllowList
from gateway_hooks.discord.errors import translate_errors
from tests.gateway_hooks.discord.environment import PASTE_BUTTON, QR_BUTTON, DiscordEnvironment
from tests.parts.authorization_server import Fault, Gate
from tests.parts.discord_api import Interaction
from tests.requirements import covers
from tests.service.helpers import wait_until

pytestmark = pytest.mark.slow


def mock_response(status: int) -> Any:
    return SimpleNamespace(status=status, reason="")


@covers("discord-gateway")
def test_lost_gateway_is_resumed_during_login(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    with env.running_bot():
        prompt = env.request_prompt(ada)
        answer = env.approve_login()
        api.abort_gateway()
        # The gateway delivers this press after the resume.
        press = api.press(ada, prompt, PASTE_BUTTON)
        modal = api.wait_for_modal(press)
        assert api.gateway.resume_count == 1
        api.abort_gateway()
        api.submit(ada, modal, {"The address your browser ended on": answer})
        env.wait_for_text(prompt, "notes: connected")
        assert api.gateway.identify_count == 1


@covers("discord-gateway")
def test_invalid_gateway_session_restarts_and_login_continues(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    with env.running_bot():
        prompt = env.request_prompt(ada)
        answer = env.approve_login()
        api.invalidate_session()
        api.wait(lambda: api.gateway.ready_count == 2, 30)
        env.submit_answer(ada, prompt, answer)
        env.wait_for_text(prompt, "notes: connected")
    assert api.command_changes == 3


@covers("chat-tidy")
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (aiohttp.ClientConnectionError(), PlatformUnreachable),
        (TimeoutError(), PlatformUnreachable),
        (discord.HTTPException(mock_response(503), ""), PlatformUnreachable),
        (discord.HTTPException(mock_response(429), ""), PlatformUnreachable),
        (discord.RateLimited(90.0), PlatformUnreachable),
        (discord.HTTPException(mock_response(400), ""), ChatError),
    ],
)
def test_only_an_error_that_may_pass_makes_discord_unreachable(
    error: Exception, kind: type[ChatError]
) -> None:
    with pytest.raises(ChatError) as caught, translate_errors():
        raise error
    assert type(caught.value) is kind
    if isinstance(error, discord.RateLimited):
        assert getattr(caught.value, "retry_seconds", 0) == 90.0


@covers("discord-gateway")
def test_login_expires_while_gateway_is_disconnected(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    with env.running_bot():
        prompt = env.request_prompt(ada)
        api.request_reconnect()
        env.clock.now += 601
        env.wait_for_text(prompt, "not finished in time")
        api.wait(lambda: api.gateway.resume_count == 1, 30)


def is_deferred(interaction: Interaction) -> bool:
    return interaction.original is not None and interaction.original.loading


@covers("discord-in-time")
def test_interaction_is_acknowledged_before_slow_authorization_server(env: DiscordEnvironment) -> None:
    api, gate = env.api, Gate()
    env.demo.authorization_server.record.add_fault("authorization_server_metadata", Fault(gate=gate))
    with env.running_bot():
        interaction = api.slash(env.ada, env.channel, "connect", server="notes")
        assert gate.arrived.wait(20)
        # The bot acknowledges before the first request to a server.
        assert interaction.acknowledged_at is not None
        assert is_deferred(interaction)
        env.clock.now += 60
        gate.open()
        assert "Connect notes" in api.wait_for_response(interaction).text


@covers("discord-in-time")
def test_modal_is_acknowledged_before_token_response(env: DiscordEnvironment) -> None:
    gate = Gate()
    with env.running_bot():
        prompt = env.request_prompt(env.ada)
        answer = env.approve_login()
        env.demo.authorization_server.record.add_fault("token", Fault(gate=gate))
        interaction = env.submit_answer(env.ada, prompt, answer)
        assert gate.arrived.wait(20)
        assert interaction.acknowledged_at is not None
        env.wait_for_text(prompt, "requesting the tokens")
        gate.open()
        env.wait_for_text(prompt, "notes: connected")


def test_interaction_without_acknowledgement_starts_no_login(env: DiscordEnvironment) -> None:
    api = env.api
    with env.running_bot():
        api.fail_next("POST", "/callback", 404, {"message": "Unknown interaction", "code": 10062})
        interaction = api.slash(env.ada, env.channel, "connect", server="notes")
        api.wait(lambda: any(call.status == 404 for call in api.calls))
        assert "Connect notes" in env.request_prompt(env.ada).text
    assert interaction.original is None
    assert len(env.service.blocking.logins()) == 1


def test_server_failure_is_shown_with_retry_button(env: DiscordEnvironment) -> None:
    api = env.api
    env.demo.authorization_server.record.add_fault("authorization_server_metadata", Fault(status=503), None)
    with env.running_bot():
        failure_message = env.request_prompt(env.ada)
        assert "notes: not connected" in failure_message.text
        env.demo.authorization_server.clear_faults()
        api.press(env.ada, failure_message, "Try again")
        env.wait_for_text(failure_message, "Connect notes")


@covers("discord-limits")
def test_rate_limited_requests_are_retried(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    with env.running_bot():
        for method, part in (("POST", "/callback"), ("POST", "/webhooks/"), ("PATCH", "/webhooks/")):
            api.rate_limit_next(method, part, 0.05)
        prompt = env.request_prompt(ada)
        env.submit_answer(ada, prompt, env.approve_login())
        env.wait_for_text(prompt, "notes: connected")


def test_rejected_edit_is_retried(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    with env.running_bot() as running:
        prompt = env.request_prompt(ada)
        api.fail_next("PATCH", "/webhooks/", 400, {"message": "No", "code": 0})
        env.submit_answer(ada, prompt, env.approve_login())
        wait_until(lambda: env.service.blocking.connection(env.server) is not None)
        # The bot adds the delay to the clock's time, so the clock may move only then.
        wait_until(lambda: bool(running.cog.dispatcher.prompt_messages._retry_at))
        env.clock.now += 6
        env.wait_for_text(prompt, "notes: connected")


@covers("discord-in-time")
def test_hundred_concurrent_users_get_replies(env: DiscordEnvironment) -> None:
    api = env.api
    users = [api.add_user(f"user{number}") for number in range(100)]
    channel = api.add_guild("Many", users).channel("general")
    with env.running_bot(policy=AllowList(users=frozenset(one.id for one in users))):
        interactions = [api.slash(one, channel, "connections") for one in users]
        for one in interactions:
            assert "Connections" in api.wait_for_response(one, seconds=30).text
        assert not any(api.has_failed(one) for one in interactions)


def test_library_error_log_contains_no_interaction_token(
    env: DiscordEnvironment, caplog: pytest.LogCaptureFixture
) -> None:
    api = env.api
    with env.running_bot():
        prompt = env.request_prompt(env.ada)
        api.fail_next("POST", "/webhooks/", 400, {"message": "No", "code": 0}, times=1)
        api.press(env.ada, prompt, QR_BUTTON)
        wait_until(lambda: "could not be answered" in caplog.text or "Discord refused" in caplog.text)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings
    for token in (interaction.token for interaction in api._state.interactions.values()):
        assert all(token not in str(record.__dict__) for record in warnings)
