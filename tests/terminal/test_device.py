"""A device login at a terminal: the code, its countdown and expiry, and the words that switch the flow."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hermes_mcp_auth_remote.errors import (
    DeviceAuthorizationError,
    LoginCancelled,
    LoginError,
    LoginExpired,
    PasteRefused,
)
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.prompt import AnswerChannels, log_in
from hermes_mcp_auth_remote.terminal.screen import PlainScreen
from hermes_mcp_auth_remote.values import Server
from tests.consent_form import approve, approve_device, deny_device
from tests.leak_check import watch_secrets
from tests.oauth.poll_outcomes import make_poll_state
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.qr_codes import blocks_to_image, find_block_rows, scan_qr_codes
from tests.requirements import covers
from tests.terminal.test_prompt import RecordingScreen, ScriptedLines

pytestmark = pytest.mark.slow

TIMEOUT_SECONDS = 30
AT_KEYBOARD = AnswerChannels(should_listen=False, at_keyboard=True, flow="auto")


@pytest.fixture(scope="module")
def module_demo() -> Iterator[Demo]:
    with serve_demo() as demo:
        yield demo


@pytest.fixture
def demo(module_demo: Demo) -> Demo:
    module_demo.authorization_server.behaviour = Behaviour(with_device=True, device_interval_seconds=1)
    module_demo.authorization_server.clear_faults()
    watch_secrets(module_demo.authorization_server.minted_secrets)
    return module_demo


def complete_uri(login: Login) -> str:
    assert login.device_authorization is not None
    return login.device_authorization.verification_uri_complete or ""


class TerminalLogin:
    """A running login with a screen that a test reads and a keyboard that it types on."""

    def __init__(self, demo: Demo, home: Path, channels: AnswerChannels = AT_KEYBOARD) -> None:
        self.service = AuthService(home)
        self.screen = RecordingScreen()
        self.lines = ScriptedLines()
        server = Server("demo", demo.mcp_url)
        self.task = asyncio.create_task(log_in(self.service, server, self.screen, self.lines, channels))

    async def wait_until_shown(self) -> Login:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await self.screen.shown.get()

    def type_line(self, text: str | None) -> None:
        self.lines.lines.put_nowait(text)

    async def decide(self, login: Login, decision: Callable[[str], str] = approve_device) -> None:
        await asyncio.to_thread(decision, complete_uri(login))

    async def wait_for_connection(self) -> Connection:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await self.task


def run_test(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def test_the_login_completes_after_the_user_enters_the_code(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        terminal = TerminalLogin(demo, tmp_path)
        login = await terminal.wait_until_shown()
        # The countdown runs while the login waits.
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await terminal.screen.has_counted.wait()
        await terminal.decide(login)
        assert (await terminal.wait_for_connection()).account == "ada@example.com"

    run_test(main())


def test_a_denied_code_fails_the_login(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        terminal = TerminalLogin(demo, tmp_path)
        await terminal.decide(await terminal.wait_until_shown(), deny_device)
        with pytest.raises(LoginError, match="denied"):
            await terminal.wait_for_connection()

    run_test(main())


@covers("device-switch")
def test_typed_words_switch_to_paste_and_back_and_get_a_new_code(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        terminal = TerminalLogin(demo, tmp_path)
        first_login = await terminal.wait_until_shown()
        # The device flow is already active, so this changes nothing.
        terminal.type_line("code")
        terminal.type_line(" Paste ")
        paste_login = await terminal.wait_until_shown()
        assert (paste_login.id, paste_login.poll_state) == (first_login.id, None)
        redirect_url = await asyncio.to_thread(approve, paste_login.authorization_url)
        terminal.type_line("paste")
        terminal.type_line("code")
        second_login = await terminal.wait_until_shown()
        terminal.type_line("new")
        third_login = await terminal.wait_until_shown()
        codes = {complete_uri(login) for login in (first_login, second_login, third_login)}
        assert len(codes) == 3
        # Type the response of another flow, and an empty line.
        terminal.type_line(redirect_url)
        terminal.type_line("")
        terminal.type_line("paste")
        paste_login = await terminal.wait_until_shown()
        terminal.type_line(await asyncio.to_thread(approve, paste_login.authorization_url))
        assert (await terminal.wait_for_connection()).account == "ada@example.com"
        assert [type(error) for error in terminal.screen.refusals] == [PasteRefused]

    run_test(main())


def test_a_failed_switch_is_shown_and_the_login_still_waits(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        demo.authorization_server.change_behaviour(device_scopes=frozenset[str]())
        terminal = TerminalLogin(demo, tmp_path)
        paste_login = await terminal.wait_until_shown()
        assert paste_login.poll_state is None
        terminal.type_line("code")
        terminal.type_line(await asyncio.to_thread(approve, paste_login.authorization_url))
        await terminal.wait_for_connection()
        assert [type(error) for error in terminal.screen.refusals] == [DeviceAuthorizationError]

    run_test(main())


def test_enter_replaces_an_expired_code(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        demo.authorization_server.change_behaviour(device_seconds=1)
        terminal = TerminalLogin(demo, tmp_path)
        first = await terminal.wait_until_shown()
        async with asyncio.timeout(TIMEOUT_SECONDS):
            assert (await terminal.screen.expiries.get()).id == first.id
        demo.authorization_server.change_behaviour(device_seconds=600)
        terminal.type_line("")
        second = await terminal.wait_until_shown()
        assert second.id != first.id
        await terminal.decide(second)
        await terminal.wait_for_connection()

    run_test(main())


@pytest.mark.parametrize("at_keyboard", [True, False], ids=["Ctrl-D", "a program"])
def test_an_expired_code_fails_the_login_if_it_is_not_replaced(
    demo: Demo, tmp_path: Path, *, at_keyboard: bool
) -> None:
    async def main() -> None:
        demo.authorization_server.change_behaviour(device_seconds=1)
        terminal = TerminalLogin(demo, tmp_path, replace(AT_KEYBOARD, at_keyboard=at_keyboard))
        await terminal.wait_until_shown()
        if at_keyboard:
            await terminal.screen.expiries.get()
            terminal.type_line(None)
        with pytest.raises(LoginExpired):
            await terminal.wait_for_connection()

    run_test(main())


def test_ctrl_d_cancels_the_login(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        terminal = TerminalLogin(demo, tmp_path)
        login = await terminal.wait_until_shown()
        terminal.type_line(None)
        with pytest.raises(LoginCancelled):
            await terminal.wait_for_connection()
        assert terminal.service.blocking.login(login.id).status == "cancelled"

    run_test(main())


def test_a_local_browser_is_preferred_to_the_device_flow(demo: Demo, tmp_path: Path) -> None:
    opened: list[str] = []

    def open_browser(url: str) -> bool:
        opened.append(url)
        return True

    async def main() -> None:
        terminal = TerminalLogin(
            demo, tmp_path, AnswerChannels(open_browser, at_keyboard=True, flow="loopback")
        )
        login = await terminal.wait_until_shown()
        assert login.poll_state is None
        assert opened == [login.authorization_url]
        terminal.type_line(await asyncio.to_thread(approve, login.authorization_url))
        await terminal.wait_for_connection()

    run_test(main())


class Utf8Stream(io.StringIO):
    encoding = "utf-8"


class DeviceLoginDisplay:
    """A screen of a given width with a device login. The test sets its clock."""

    def __init__(self, columns: int, login: Login, **options: Any) -> None:
        self.stream = Utf8Stream()
        self.login = login
        self.now = login.started_at
        self.screen = PlainScreen(self.stream, columns, 60 if columns else 0, lambda: self.now, **options)

    def record_output(self, show: Callable[[], None]) -> str:
        self.stream.truncate(0)
        self.stream.seek(0)
        show()
        return self.stream.getvalue()


def make_device_login(*, complete: bool = True, user_code: str = "WDJB-MJHT") -> Login:
    from tests.login.test_login import LOGIN

    pending = make_poll_state(lifetime=600)
    code = pending.parameters.authorization
    uri = f"{code.verification_uri}?user_code={user_code}" if complete else None
    code = replace(code, user_code=user_code, verification_uri_complete=uri)
    device = replace(pending, parameters=replace(pending.parameters, authorization=code))
    return replace(LOGIN, poll_state=device)


@covers("device-screen")
def test_security_1_code_and_url_are_alone_on_their_lines_with_warnings() -> None:
    display = DeviceLoginDisplay(80, make_device_login(), colour=False)
    text = display.record_output(lambda: display.screen.show(display.login, browser_opened=False, port=None))
    lines = text.splitlines()
    assert "WDJB-MJHT" in lines
    code = display.login.device_authorization
    assert code is not None
    assert code.verification_uri in lines
    assert max(len(line) for line in lines) <= 80
    joined = " ".join(text.split())
    for warning in (
        "compare every letter",
        "Do not send the code to anyone",
        "you just started here",
        "as.example",
    ):
        assert warning in joined
    assert lines[-1] == "Waiting: the code is valid for 10:00"
    assert "device-code" not in text


def test_the_qr_code_contains_the_user_code_if_the_server_supports_it() -> None:
    for complete in (True, False):
        display = DeviceLoginDisplay(80, make_device_login(complete=complete), colour=False)
        text = display.record_output(
            lambda at=display: at.screen.show(at.login, browser_opened=False, port=None)  # type: ignore[misc]
        )
        rows = find_block_rows(text)
        [url] = scan_qr_codes(blocks_to_image(rows, ink=255, paper=0))
        code = display.login.device_authorization
        assert code is not None
        assert url == (code.verification_uri_complete or code.verification_uri)
        assert ("compare" in text.split("Access")[1]) is complete


@covers("qr-content")
@pytest.mark.parametrize(("complete", "with_qr"), [(True, True), (True, False), (False, True)])
def test_the_screen_says_what_the_qr_code_holds(*, complete: bool, with_qr: bool) -> None:
    display = DeviceLoginDisplay(80, make_device_login(complete=complete), colour=False, with_qr=with_qr)
    text = display.record_output(lambda: display.screen.show(display.login, browser_opened=False, port=None))
    code = display.login.device_authorization
    assert code is not None
    assert ("The QR code opens the same page with the code filled in:" in text) is (complete and with_qr)
    assert (f"{code.verification_uri}?user_code=" in text) is (complete and with_qr)
    assert ("Scan the QR code" in text) is with_qr


def test_the_countdown_is_rewritten_without_moving_the_cursor() -> None:
    display = DeviceLoginDisplay(80, make_device_login())
    display.now += 61.5
    assert display.record_output(lambda: display.screen.show_countdown(display.login)) == (
        "\x1b7\x1b[1A\rWaiting: the code is valid for 8:58\x1b[K\x1b8"
    )
    display.now += 3600
    assert "0:00" in display.record_output(lambda: display.screen.show_countdown(display.login))


@pytest.mark.parametrize(("columns", "more"), [(0, {}), (80, {"in_place": False}), (30, {})])
def test_without_rewriting_the_countdown_is_printed_only_twice(columns: int, more: dict[str, bool]) -> None:
    display = DeviceLoginDisplay(columns, make_device_login(), **more)
    output = ""
    for _ in range(600):
        display.now += 1
        output += display.record_output(lambda: display.screen.show_countdown(display.login))
    assert output == "The code is valid for 5 minutes more.\nThe code is valid for 1 minute more.\n"


def test_control_characters_of_a_user_code_are_replaced() -> None:
    display = DeviceLoginDisplay(
        80, make_device_login(user_code="AB\x1b[2J\nCD", complete=False), colour=True, with_qr=False
    )
    text = display.record_output(lambda: display.screen.show(display.login, browser_opened=False, port=None))
    assert re.findall(r"\x1b\[[0-9;]*[A-Za-z]", text) == ["\x1b[1m", "\x1b[m"]
    assert "AB\ufffd[2J\ufffdCD" in text


def test_the_paste_screen_offers_a_code_only_if_the_server_has_one() -> None:
    login = replace(make_device_login(), poll_state=None)
    for endpoint in (None, "https://as.example/device_authorization"):
        server = replace(login.authorization_server, device_authorization_endpoint=endpoint)
        display = DeviceLoginDisplay(80, replace(login, authorization_server=server), with_qr=False)
        text = display.record_output(
            lambda at=display: at.screen.show(at.login, browser_opened=False, port=None)  # type: ignore[misc]
        )
        assert ('"code"' in text) is (endpoint is not None)


@covers("device-off")
def test_the_paste_screen_offers_no_code_if_devices_are_disabled() -> None:
    login = replace(make_device_login(), poll_state=None)
    endpoint = "https://as.example/device_authorization"
    server = replace(login.authorization_server, device_authorization_endpoint=endpoint)
    display = DeviceLoginDisplay(
        80, replace(login, authorization_server=server), with_qr=False, allows_device=lambda _: False
    )
    text = display.record_output(lambda: display.screen.show(display.login, browser_opened=False, port=None))
    assert "Paste it only here" in text
    assert '"code"' not in text
