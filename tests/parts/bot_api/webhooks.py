"""Webhooks: the methods that manage them, and the delivery of updates by POST."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

import aiohttp

from tests.parts.bot_api.parameters import Parameters
from tests.parts.bot_api.state import BotApiState
from tests.parts.bot_api.update_queue import Webhook
from tests.parts.bot_api.values import Json, bad_request

RETRY_SECONDS = 0.1
DELIVERY_SECONDS = 30.0
SECRET_HEADER = "X-Telegram-Bot-Api-Secret-Token"


def set_webhook(state: BotApiState, parameters: Parameters) -> object:
    """Set or remove the webhook. As in local mode, allow http and any port on loopback."""
    url = parameters.text("url")
    secret = parameters.text("secret_token")
    parts = urlsplit(url)
    if url and parts.scheme != "https" and parts.hostname not in {"127.0.0.1", "localhost"}:
        raise bad_request("bad webhook: An HTTPS URL must be provided for webhook")
    if secret and not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", secret):
        raise bad_request("secret token contains unallowed characters")
    if parameters.boolean("drop_pending_updates"):
        state.updates.pending.clear()
    state.updates.set_allowed(parameters.json_array("allowed_updates"))
    upload = parameters.uploads.get("certificate")
    certificate = upload.data.decode() if upload else ""
    connections = parameters.integer("max_connections", 40)
    state.updates.webhook = Webhook(url, secret, connections, certificate)
    state.updates.wake()
    return True


def delete_webhook(state: BotApiState, parameters: Parameters) -> object:
    if parameters.boolean("drop_pending_updates"):
        state.updates.pending.clear()
    state.updates.webhook = Webhook()
    state.updates.wake()
    return True


def get_webhook_info(state: BotApiState, parameters: Parameters) -> object:
    webhook = state.updates.webhook
    info: Json = {
        "url": webhook.url,
        "has_custom_certificate": bool(webhook.certificate),
        "pending_update_count": len(state.updates.pending),
    }
    if webhook.url:
        info |= {"max_connections": webhook.max_connections, "ip_address": "127.0.0.1"}
    if webhook.last_error:
        info |= {"last_error_message": webhook.last_error, "last_error_date": int(webhook.last_error_at)}
    if state.updates.allowed is not None:
        info["allowed_updates"] = sorted(state.updates.allowed)
    return info


WEBHOOK_METHODS: dict[str, Callable[[BotApiState, Parameters], object]] = {
    "setWebhook": set_webhook,
    "deleteWebhook": delete_webhook,
    "getWebhookInfo": get_webhook_info,
}


class WebhookSender:
    """Posts pending updates to the webhook in order; retries each until the response is 2xx."""

    def __init__(self, state: BotApiState) -> None:
        self.state = state

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        wake = asyncio.Event()

        def wake_sender() -> None:
            loop.call_soon_threadsafe(wake.set)

        self.state.updates.listeners.append(wake_sender)
        timeout = aiohttp.ClientTimeout(total=DELIVERY_SECONDS)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session:
                while True:
                    await wake.wait()
                    wake.clear()
                    await self._deliver_all(session)
        finally:
            with self.state.lock:
                self.state.updates.listeners.remove(wake_sender)

    async def _deliver_all(self, session: aiohttp.ClientSession) -> None:
        while (update := self._next_update()) is not None:
            if not await self._deliver(session, update):
                await asyncio.sleep(RETRY_SECONDS)

    def _next_update(self) -> Json | None:
        with self.state.lock:
            updates = self.state.updates
            return updates.pending[0] if updates.webhook.url and updates.pending else None

    async def _deliver(self, session: aiohttp.ClientSession, update: Json) -> bool:
        webhook = self.state.updates.webhook
        headers = {SECRET_HEADER: webhook.secret_token} if webhook.secret_token else {}
        context = ssl.create_default_context(cadata=webhook.certificate) if webhook.certificate else True
        try:
            async with session.post(webhook.url, json=update, headers=headers, ssl=context) as response:
                await response.read()
                error = "" if response.status < 300 else f"Wrong response from the webhook: {response.status}"
        except (aiohttp.ClientError, TimeoutError) as failure:
            error = f"Connection failed: {type(failure).__name__}"
        with self.state.lock:
            if error:
                webhook.last_error, webhook.last_error_at = error, self.state.clock()
            elif update in self.state.updates.pending:
                self.state.updates.pending.remove(update)
            self.state.changed.notify_all()
        return not error
