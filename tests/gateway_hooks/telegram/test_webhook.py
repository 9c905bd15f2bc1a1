"""The bot with a webhook, behind a proxy or with its own certificate."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import httpx
import pytest
import trustme

from gateway_hooks.dialog.platform import ChatError
from hermes_mcp_auth_remote.config.chats import Webhook
from hermes_mcp_auth_remote.values import Secret
from tests.gateway_hooks.telegram.environment import TelegramEnvironment
from tests.parts.bot_api import User
from tests.parts.ports import free_port
from tests.requirements import covers

pytestmark = pytest.mark.slow


@covers("telegram-story")
@pytest.mark.parametrize("with_tls", [False, True], ids=["behind a proxy", "with its own certificate"])
def test_login_with_webhook(env: TelegramEnvironment, anna: User, tmp_path: Path, *, with_tls: bool) -> None:
    api, port = env.api, free_port()
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    if with_tls:
        # An operator without a domain uses a self-signed certificate. The bot uploads it to Telegram.
        authority = trustme.CA()
        issued_certificate = authority.issue_cert("127.0.0.1")
        key.write_bytes(issued_certificate.private_key_pem.bytes())
        certificate.write_bytes(
            b"".join(pem.bytes() for pem in issued_certificate.cert_chain_pems) + authority.cert_pem.bytes()
        )
    webhook = Webhook(
        f"http{'s' if with_tls else ''}://127.0.0.1:{port}/hook/of/ours",
        port=port,
        certificate=certificate if with_tls else None,
        key=key if with_tls else None,
    )

    async def log_in() -> None:
        async with env.running_bot(webhook=webhook):
            prompt = await env.request_prompt(anna)
            await api.press(anna, prompt, "QR code")
            api.say(anna, await env.approve_login(prompt))
            await env.wait_for_message(anna, "notes: connected")
        assert api.calls_of("getUpdates") == []
        assert len(api.state.updates.webhook.secret_token) >= 32
        env.check_no_secrets()
        # The bot can poll after the webhook ends.
        async with env.running_bot():
            api.say(anna, "/connections")
            await env.wait_for_message(anna, "Connections")

    asyncio.run(log_in())


@covers("telegram-people")
def test_update_without_webhook_secret_is_rejected(env: TelegramEnvironment, anna: User) -> None:
    port = free_port()
    webhook = Webhook(f"http://127.0.0.1:{port}/hook", port=port, secret=Secret("a-secret-of-the-operators"))
    message = {"message_id": 1, "date": 1, "chat": {"id": 7, "type": "private"}, "text": "/connections"}
    forged = {
        "update_id": 1,
        "message": {
            **message,
            "from": anna.json(),
            "entities": [{"type": "bot_command", "offset": 0, "length": 12}],
        },
    }

    async def send_forged_updates() -> None:
        async with env.running_bot(webhook=webhook), httpx.AsyncClient(trust_env=False) as client:
            for headers in ({}, {"X-Telegram-Bot-Api-Secret-Token": "another"}):
                response = await client.post(webhook.url, json=forged, headers=headers)
                assert response.status_code == 403
            await env.request_prompt(anna)
        assert len(env.api.calls_of("sendMessage")) == 1
        assert env.api.state.updates.webhook.secret_token == "a-secret-of-the-operators"

    asyncio.run(send_forged_updates())


@covers("telegram-trouble")
def test_webhook_setup_errors_are_reported(
    env: TelegramEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start_bot(webhook: Webhook) -> None:
        async with env.running_bot(webhook=webhook):
            pass

    with socket.create_server(("127.0.0.1", 0)) as listening_socket:
        port = listening_socket.getsockname()[1]
        with pytest.raises(ChatError, match="Cannot listen on"):
            asyncio.run(start_bot(Webhook("https://bot.example/hook", port=port)))
    with pytest.raises(ChatError, match="an https url must be provided"):
        asyncio.run(start_bot(Webhook("http://bot.example/hook", port=free_port())))
    missing_file = tmp_path / "none.pem"
    with pytest.raises(ChatError, match="cannot be read: No such file"):
        asyncio.run(
            start_bot(
                Webhook(
                    "https://bot.example/hook", port=free_port(), certificate=missing_file, key=missing_file
                )
            )
        )
    monkeypatch.setattr(sys.modules["telegram.ext._updater"], "WEBHOOKS_AVAILABLE", False)
    with pytest.raises(ChatError, match=r"python-telegram-bot\[webhooks\]"):
        asyncio.run(start_bot(Webhook("https://bot.example/hook", port=free_port())))
