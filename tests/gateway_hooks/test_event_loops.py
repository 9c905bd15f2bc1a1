"""A bot never waits for the store in its event loop: the store may be a database that answers after 50 ms."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway_hooks.dialog.policy import AllowList
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.gateway_hooks.fake_platform import ChatBot, demo_servers
from tests.parts.authorization_server import Demo
from tests.parts.watched_store import LoopWatch
from tests.requirements import covers


@covers("loop-and-store")
@pytest.mark.slow
def test_a_login_in_a_chat_never_calls_the_store_in_the_event_loop(
    tmp_path: Path, demo: Demo, clock: ManualClock, runner: asyncio.Runner
) -> None:
    watch = LoopWatch()
    service = AuthService(store=watch.wrap(FileStore(tmp_path)), clock=clock)
    policy = AllowList(users=frozenset({"ada"}))
    bot = ChatBot(runner, service, demo_servers(demo), clock, policy=policy)

    async def watch_loop() -> None:
        watch.watch_this_loop()

    def check_sessions() -> None:
        bot.run(bot.dispatcher.reminders.check_sessions())

    bot.run(watch_loop())
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    (login,) = bot.run(service.waiting_logins())
    ada.paste(approve(login.authorization_url))
    assert ada.visible_titles() == ["notes: connected"]
    check_sessions()
    ada.send_text("/connections")
    demo.authorization_server.ledger.revoke_everything()
    clock.now += 86_400 * 400
    check_sessions()
    bot.run(bot.dispatcher.prompt_messages.sync())
    ada.send_text("/disconnect notes yes")
    check_sessions()
    assert bot.run(service.keys()) == []
    assert watch.blocking_calls == []
    assert {"list_all", "change", "save_login", "delete"} <= watch.names
