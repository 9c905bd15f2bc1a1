"""Device codes in a chat: the prompt, its end, the switch of the flow, a new code and the QR code."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway_hooks.dialog.rendering import MAX_QR_BYTES
from gateway_hooks.dialog.servers import StaticServers
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server, ServerOptions
from tests import leak_check
from tests.consent_form import approve, approve_device, deny_device
from tests.gateway_hooks.fake_platform import ChatBot, ChatUser, demo_servers, without_secrets
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.qr_codes import scan_qr_code
from tests.requirements import covers
from tests.transcript_files import compare_transcript, replace_times

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def module_demo() -> Iterator[Demo]:
    # Use the real clock: the polls use it.
    with serve_demo() as demo:
        yield demo


@pytest.fixture
def demo(module_demo: Demo) -> Iterator[Demo]:
    module_demo.authorization_server.behaviour = Behaviour(with_device=True, device_interval_seconds=1)
    module_demo.authorization_server.clear_faults()
    module_demo.authorization_server.requests.clear()
    leak_check.watch_secrets(module_demo.authorization_server.minted_secrets)
    yield module_demo
    module_demo.authorization_server.clear_faults()


@pytest.fixture
def bot(tmp_path: Path, demo: Demo, runner: asyncio.Runner) -> ChatBot:
    return ChatBot(runner, AuthService(tmp_path), demo_servers(demo), time.time)


@pytest.fixture
def ada(bot: ChatBot) -> ChatUser:
    return bot.user("ada")


def device_authorization_of(bot: ChatBot) -> DeviceAuthorization:
    code = bot.login.device_authorization
    assert code is not None
    return code


def verification_page_of(bot: ChatBot) -> str:
    page = device_authorization_of(bot).verification_uri_complete
    assert page is not None
    return page


def decode_qr_codes(user: ChatUser) -> list[str]:
    """Decode each QR code in the room."""
    return [scan_qr_code(message.png) for message in user.room.messages.values() if message.png]


@covers("device-screen", "chat-prompt")
def test_approved_device_code_finishes_login(ada: ChatUser, bot: ChatBot) -> None:
    ada.send_text("/connect notes")
    login = bot.login
    prompt_text = without_secrets(ada.visible_text(), login)
    page = verification_page_of(bot)
    approve_device(page)
    bot.run_until(lambda: ada.visible_titles() == ["notes: connected"])
    outcome_text = without_secrets(ada.visible_text(), login)
    compare_transcript("chat_device", replace_times(f"{prompt_text}\n\n--------\n\n{outcome_text}"))
    assert page not in outcome_text


def test_denied_device_code_fails_login(ada: ChatUser, bot: ChatBot) -> None:
    ada.send_text("/connect notes")
    deny_device(verification_page_of(bot))
    bot.run_until(lambda: ada.visible_titles() == ["notes: not connected"])
    assert "denied" in ada.visible_text()


@covers("device-switch", "chat-tidy")
def test_switch_from_device_code_to_paste_and_back(ada: ChatUser, bot: ChatBot) -> None:
    ada.send_text("/connect notes")
    first = device_authorization_of(bot)
    ada.press("QR code")
    assert decode_qr_codes(ada) == [verification_page_of(bot)]
    ada.press("Paste instead")
    # The pictures and texts of the code are deleted with it.
    assert decode_qr_codes(ada) == []
    assert first.user_code not in ada.visible_text()
    assert bot.login.device_authorization is None
    url = bot.login.authorization_url
    ada.press("QR code")
    assert decode_qr_codes(ada) == [url]
    ada.press("Use a code instead")
    assert device_authorization_of(bot).user_code != first.user_code
    ada.press("Paste instead")
    answer = approve(bot.login.authorization_url)
    ada.paste(answer)
    assert ada.visible_titles() == ["notes: connected"]


@covers("device-switch")
def test_new_device_code_replaces_old_one(ada: ChatUser, bot: ChatBot) -> None:
    ada.send_text("/connect notes")
    first = device_authorization_of(bot)
    ada.press("New code")
    second = device_authorization_of(bot)
    assert first.user_code not in ada.visible_text()
    assert ada.last_card.code == second.user_code
    approve_device(verification_page_of(bot))
    bot.run_until(lambda: ada.visible_titles() == ["notes: connected"])


def test_failed_request_for_new_code_keeps_login(ada: ChatUser, bot: ChatBot, demo: Demo) -> None:
    ada.send_text("/connect notes")
    first = device_authorization_of(bot)
    demo.authorization_server.fail_next("device_authorization", status=503, times=None)
    ada.press("New code")
    assert device_authorization_of(bot) == first
    assert ada.visible_titles() == ["Connect notes", "Connect notes"]
    assert ada.last_card.tone == "bad"
    approve_device(verification_page_of(bot))
    bot.run_until(lambda: ada.visible_titles() == ["notes: connected"])


@covers("chat-survives")
def test_device_code_is_polled_after_restart(
    ada: ChatUser, bot: ChatBot, tmp_path: Path, demo: Demo, runner: asyncio.Runner
) -> None:
    ada.send_text("/connect notes")
    restarted_bot = ChatBot(
        runner, AuthService(tmp_path), demo_servers(demo), time.time, platform=bot.platform
    )
    page = verification_page_of(bot)

    async def stop_first_bot() -> None:
        prompt_messages = bot.dispatcher.prompt_messages
        for task in (*prompt_messages._update_tasks.values(), *prompt_messages._poll_tasks.values()):
            task.cancel()
        await asyncio.gather(*prompt_messages._poll_tasks.values(), return_exceptions=True)

    bot.run(stop_first_bot())
    approve_device(page)
    restarted_bot.run_until(lambda: ada.visible_titles() == ["notes: connected"])


@covers("device-off")
def test_no_device_code_if_platform_is_excluded(tmp_path: Path, demo: Demo, runner: asyncio.Runner) -> None:
    service = AuthService(tmp_path, device_platforms=())
    ada = ChatBot(runner, service, demo_servers(demo), time.time).user("ada")
    ada.send_text("/connect notes")
    assert ada.last_card.code == ""
    assert [button.label for row in ada.last_card.buttons for button in row] == ["QR code", "Cancel"]


@covers("qr-fits")
def test_too_long_url_gets_no_qr_code(tmp_path: Path, demo: Demo, runner: asyncio.Runner) -> None:
    demo.authorization_server.change_behaviour(with_device=False)
    options = ServerOptions(scope=frozenset(f"mcp:scope-number-{n:03}" for n in range(60)))
    servers = StaticServers([Server("notes", demo.ping_url, options)])
    bot = ChatBot(runner, AuthService(tmp_path), servers, time.time)
    ada = bot.user("ada")
    ada.send_text("/connect notes")
    assert len(bot.login.authorization_url.encode()) > MAX_QR_BYTES
    ada.press("QR code")
    assert "The address is too long for a QR code" in ada.visible_text()
    assert decode_qr_codes(ada) == []
    ada.press("Cancel")
    assert ada.visible_titles() == ["notes: not connected"]


@covers("qr-fits")
def test_largest_qr_code_can_be_decoded() -> None:
    from hermes_mcp_auth_remote.qr import render_png

    text = "https://as.example/authorize?" + "x" * (MAX_QR_BYTES - 29)
    png = render_png(text)
    assert png is not None
    assert scan_qr_code(png) == text
