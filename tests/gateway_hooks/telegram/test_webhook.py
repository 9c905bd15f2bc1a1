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
from tests.gateway_hooks.telegram.given import Scene
from tests.parts.bot_api import User
from tests.parts.ports import free_port
from tests.requirements import covers

pytestmark = pytest.mark.slow


@covers("telegram-story")
@pytest.mark.parametrize("with_tls", [False, True], ids=["behind a proxy", "with its own certificate"])
def test_a_login_where_telegram_calls_the_bot(
    scene: Scene, anna: User, tmp_path: Path, *, with_tls: bool
) -> None:
    api, port = scene.api, free_port()
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    if with_tls:
        # An operator without a domain uses a self-signed certificate. The bot uploads it to Telegram.
        authority = trustme.CA()
        made = authority.issue_cert("127.0.0.1")
        key.write_bytes(made.private_key_pem.bytes())
        certificate.write_bytes(
            b"".join(pem.bytes() for pem in made.cert_chain_pems) + authority.cert_pem.bytes()
        )
    webhook = Webhook(
        f"http{'s' if with_tls else ''}://127.0.0.1:{port}/hook/of/ours",
        port=port,
        certificate=certificate if with_tls else None,
        key=key if with_tls else None,
    )

    async def story() -> None:
        async with scene.bot(webhook=webhook):
            prompt = await scene.prompt(anna)
            await api.press(anna, prompt, "QR code")
            api.say(anna, await scene.approved(prompt))
            await scene.shown(anna, "notes: connected")
        assert api.calls_of("getUpdates") == []
        assert len(api.world.updates.webhook.secret_token) >= 32
        scene.check()
        # The bot can poll after the webhook ends.
        async with scene.bot():
            api.say(anna, "/connections")
            await scene.shown(anna, "Connections")

    asyncio.run(story())


@covers("telegram-people")
def test_an_update_that_does_not_say_the_secret_is_not_telegrams(scene: Scene, anna: User) -> None:
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

    async def story() -> None:
        async with scene.bot(webhook=webhook), httpx.AsyncClient(trust_env=False) as client:
            for headers in ({}, {"X-Telegram-Bot-Api-Secret-Token": "another"}):
                answer = await client.post(webhook.url, json=forged, headers=headers)
                assert answer.status_code == 403
            await scene.prompt(anna)
        assert len(scene.api.calls_of("sendMessage")) == 1
        assert scene.api.world.updates.webhook.secret_token == "a-secret-of-the-operators"

    asyncio.run(story())


@covers("telegram-trouble")
def test_what_webhooks_lack_is_said(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def begin(webhook: Webhook) -> None:
        async with scene.bot(webhook=webhook):
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ChatError, match="Cannot listen on"):
            asyncio.run(begin(Webhook("https://bot.example/hook", port=port)))
    with pytest.raises(ChatError, match="an https url must be provided"):
        asyncio.run(begin(Webhook("http://bot.example/hook", port=free_port())))
    nowhere = tmp_path / "none.pem"
    with pytest.raises(ChatError, match="cannot be read: No such file"):
        asyncio.run(
            begin(Webhook("https://bot.example/hook", port=free_port(), certificate=nowhere, key=nowhere))
        )
    monkeypatch.setattr(sys.modules["telegram.ext._updater"], "WEBHOOKS_AVAILABLE", False)
    with pytest.raises(ChatError, match=r"python-telegram-bot\[webhooks\]"):
        asyncio.run(begin(Webhook("https://bot.example/hook", port=free_port())))
