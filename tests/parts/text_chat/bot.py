"""Run the bot of the text platform until it is cancelled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from urllib.parse import urlsplit

from gateway_hooks.dialog.platform import ChatError, IncomingEvent, Sender
from gateway_hooks.dialog.policy import Policy
from gateway_hooks.dialog.servers import Servers
from gateway_hooks.runtime.dispatcher import Dispatcher
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Secret
from tests.parts.text_chat import TextPlatform


async def run_bot(
    token: Secret,
    service: AuthService,
    servers: Servers,
    policy: Policy,
    *,
    api_url: str | None = None,
    on_started: Callable[[str], None] | None = None,
) -> None:
    """Connect, send the token, and handle each line of a user as a command or a message."""
    parts = urlsplit(api_url or "")
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(token.reveal().encode() + b"\n")
    platform = TextPlatform(writer)
    dispatcher = Dispatcher(service, platform, servers, policy)
    if on_started is not None:
        on_started("the wire bot")
    update_task = asyncio.create_task(dispatcher.run())
    try:
        while line := await reader.readline():
            message = json.loads(line)
            sender, text = Sender(message["user"]), message["text"]
            command, _, rest = text[1:].partition(" ") if text.startswith("/") else ("", "", text)
            event = IncomingEvent(sender, command=command, text=rest)
            await dispatcher.handle(event, platform.private_chat(sender.user_id))
        raise ChatError("The server has closed the connection.")
    finally:
        update_task.cancel()
        writer.close()
