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
import zxingcpp
from PIL import Image

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
from tests.browserless import approve, approve_device, deny_device
from tests.oauth.polls import waiting
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.requirements import covers
from tests.terminal.test_prompt import Typed, Watched
from tests.tripwire import guard

pytestmark = pytest.mark.slow

SECONDS = 30
AT_KEYBOARD = AnswerChannels(should_listen=False, at_keyboard=True, flow="auto")


@pytest.fixture(scope="module")
def one_demo() -> Iterator[Demo]:
    with serve_demo() as demo:
        yield demo


@pytest.fixture
def demo(one_demo: Demo) -> Demo:
    one_demo.authorization_server.behaviour = Behaviour(with_device=True, device_interval_seconds=1)
    one_demo.authorization_server.clear_faults()
    guard(one_demo.authorization_server.minted_secrets)
    return one_demo


def complete_of(login: Login) -> str:
    assert login.device_authorization is not None
    return login.device_authorization.verification_uri_complete or ""


class Table:
    """A running login with a screen that a test reads and a keyboard that it types on."""

    def __init__(self, demo: Demo, home: Path, ways: AnswerChannels = AT_KEYBOARD) -> None:
        self.service = AuthService(home)
        self.screen = Watched()
        self.lines = Typed()
        server = Server("demo", demo.mcp_url)
        self.task = asyncio.create_task(log_in(self.service, server, self.screen, self.lines, ways))

    async def shown(self) -> Login:
        async with asyncio.timeout(SECONDS):
            return await self.screen.shown.get()

    def type(self, text: str | None) -> None:
        self.lines.lines.put_nowait(text)

    async def decide(self, login: Login, how: Callable[[str], str] = approve_device) -> None:
        await asyncio.to_thread(how, complete_of(login))

    async def end(self) -> Connection:
        async with asyncio.timeout(SECONDS):
            return await self.task


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def test_it_ends_by_itself_once_the_code_is_entered(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        table = Table(demo, tmp_path)
        login = await table.shown()
        await table.decide(login)
        assert (await table.end()).account == "ada@example.com"
        assert table.screen.counts

    run(main())


def test_a_code_that_is_denied_ends_it(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        table = Table(demo, tmp_path)
        await table.decide(await table.shown(), deny_device)
        with pytest.raises(LoginError, match="denied"):
            await table.end()

    run(main())


@covers("device-switch")
def test_words_change_over_to_pasting_and_back_and_get_another_code(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        table = Table(demo, tmp_path)
        first = await table.shown()
        # The device flow is already active, so this changes nothing.
        table.type("code")
        table.type(" Paste ")
        pasting = await table.shown()
        assert (pasting.id, pasting.poll_state) == (first.id, None)
        answer = await asyncio.to_thread(approve, pasting.authorization_url)
        table.type("paste")
        table.type("code")
        again = await table.shown()
        table.type("new")
        renewed = await table.shown()
        codes = {complete_of(each) for each in (first, again, renewed)}
        assert len(codes) == 3
        # The response of another flow, and an empty line.
        table.type(answer)
        table.type("")
        table.type("paste")
        pasting = await table.shown()
        table.type(await asyncio.to_thread(approve, pasting.authorization_url))
        assert (await table.end()).account == "ada@example.com"
        assert [type(error) for error in table.screen.refusals] == [PasteRefused]

    run(main())


def test_a_change_over_that_fails_is_told_and_the_login_still_waits(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        demo.authorization_server.change_behaviour(device_scopes=frozenset[str]())
        table = Table(demo, tmp_path)
        pasting = await table.shown()
        assert pasting.poll_state is None
        table.type("code")
        table.type(await asyncio.to_thread(approve, pasting.authorization_url))
        await table.end()
        assert [type(error) for error in table.screen.refusals] == [DeviceAuthorizationError]

    run(main())


def test_enter_gets_a_new_code_for_one_that_expired(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        demo.authorization_server.change_behaviour(device_seconds=1)
        table = Table(demo, tmp_path)
        first = await table.shown()
        async with asyncio.timeout(SECONDS):
            assert (await table.screen.expiries.get()).id == first.id
        demo.authorization_server.change_behaviour(device_seconds=600)
        table.type("")
        second = await table.shown()
        assert second.id != first.id
        await table.decide(second)
        await table.end()

    run(main())


@pytest.mark.parametrize("at_keyboard", [True, False], ids=["Ctrl-D", "a program"])
def test_a_code_that_expired_ends_it_where_nobody_wants_another(
    demo: Demo, tmp_path: Path, *, at_keyboard: bool
) -> None:
    async def main() -> None:
        demo.authorization_server.change_behaviour(device_seconds=1)
        table = Table(demo, tmp_path, replace(AT_KEYBOARD, at_keyboard=at_keyboard))
        await table.shown()
        if at_keyboard:
            await table.screen.expiries.get()
            table.type(None)
        with pytest.raises(LoginExpired):
            await table.end()

    run(main())


def test_ctrl_d_gives_it_up(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        table = Table(demo, tmp_path)
        login = await table.shown()
        table.type(None)
        with pytest.raises(LoginCancelled):
            await table.end()
        assert table.service.login(login.id).status == "cancelled"

    run(main())


def test_a_browser_that_is_here_comes_first(demo: Demo, tmp_path: Path) -> None:
    opened: list[str] = []

    def open_browser(url: str) -> bool:
        opened.append(url)
        return True

    async def main() -> None:
        table = Table(demo, tmp_path, AnswerChannels(open_browser, at_keyboard=True, flow="loopback"))
        login = await table.shown()
        assert login.poll_state is None
        assert opened == [login.authorization_url]
        table.type(await asyncio.to_thread(approve, login.authorization_url))
        await table.end()

    run(main())


class Screened(io.StringIO):
    encoding = "utf-8"


class At:
    """A screen of a given width with a device login. The test sets its clock."""

    def __init__(self, columns: int, login: Login, **more: Any) -> None:
        self.stream = Screened()
        self.login = login
        self.now = login.started_at
        self.screen = PlainScreen(self.stream, columns, 60 if columns else 0, lambda: self.now, **more)

    def said(self, what: Callable[[], None]) -> str:
        self.stream.truncate(0)
        self.stream.seek(0)
        what()
        return self.stream.getvalue()


def login_with(*, complete: bool = True, user_code: str = "WDJB-MJHT") -> Login:
    from tests.login.test_login import LOGIN

    pending = waiting(lifetime=600)
    code = pending.parameters.authorization
    uri = f"{code.verification_uri}?user_code={user_code}" if complete else None
    code = replace(code, user_code=user_code, verification_uri_complete=uri)
    device = replace(pending, parameters=replace(pending.parameters, authorization=code))
    return replace(LOGIN, poll_state=device)


@covers("device-screen")
def test_security_1_the_code_and_the_address_stand_alone_with_what_never_to_do() -> None:
    at = At(80, login_with(), colour=False)
    text = at.said(lambda: at.screen.show(at.login, browser_opened=False, port=None))
    lines = text.splitlines()
    assert "WDJB-MJHT" in lines
    code = at.login.device_authorization
    assert code is not None
    assert code.verification_uri in lines
    assert max(len(line) for line in lines) <= 80
    said = " ".join(text.split())
    for words in (
        "compare every letter",
        "Do not send the code to anyone",
        "you just started here",
        "as.example",
    ):
        assert words in said
    assert lines[-1] == "Waiting: the code is valid for 10:00"
    assert "device-code" not in text


def test_the_qr_code_brings_the_code_along_where_the_provider_has_such_an_address() -> None:
    for complete in (True, False):
        at = At(80, login_with(complete=complete), colour=False)
        text = at.said(lambda at=at: at.screen.show(at.login, browser_opened=False, port=None))  # type: ignore[misc]
        rows = [line for line in text.splitlines() if line and set(line) <= set("█▀▄ ")]
        image = Image.new("1", (len(rows[0]), 2 * len(rows)))
        for y, row in enumerate(rows):
            for x, character in enumerate(row):
                image.putpixel((x, 2 * y), character in "█▀")
                image.putpixel((x, 2 * y + 1), character in "█▄")
        [found] = zxingcpp.read_barcodes(image.convert("L").resize((len(rows[0]) * 6, len(rows) * 12)))
        code = at.login.device_authorization
        assert code is not None
        assert found.text == (code.verification_uri_complete or code.verification_uri)
        assert ("compare" in text.split("Access")[1]) is complete


def test_the_countdown_stays_on_its_line_and_what_is_being_typed_where_it_is() -> None:
    at = At(80, login_with())
    at.now += 61.5
    assert at.said(lambda: at.screen.show_countdown(at.login)) == (
        "\x1b7\x1b[1A\rWaiting: the code is valid for 8:58\x1b[K\x1b8"
    )
    at.now += 3600
    assert "0:00" in at.said(lambda: at.screen.show_countdown(at.login))


@pytest.mark.parametrize(("columns", "more"), [(0, {}), (80, {"in_place": False}), (30, {})])
def test_without_a_place_for_it_the_countdown_is_said_twice_and_no_more(
    columns: int, more: dict[str, bool]
) -> None:
    at = At(columns, login_with(), **more)
    said = ""
    for _ in range(600):
        at.now += 1
        said += at.said(lambda: at.screen.show_countdown(at.login))
    assert said == "The code is valid for 5 minutes more.\nThe code is valid for 1 minute more.\n"


def test_a_user_code_cannot_steer_the_terminal() -> None:
    at = At(80, login_with(user_code="AB\x1b[2J\nCD", complete=False), colour=True, with_qr=False)
    text = at.said(lambda: at.screen.show(at.login, browser_opened=False, port=None))
    assert re.findall(r"\x1b\[[0-9;]*[A-Za-z]", text) == ["\x1b[1m", "\x1b[m"]
    assert "AB\ufffd[2J\ufffdCD" in text


def test_a_paste_offers_a_code_only_where_the_provider_has_one() -> None:
    login = replace(login_with(), poll_state=None)
    for endpoint in (None, "https://as.example/device_authorization"):
        server = replace(login.authorization_server, device_authorization_endpoint=endpoint)
        at = At(80, replace(login, authorization_server=server), with_qr=False)
        text = at.said(lambda at=at: at.screen.show(at.login, browser_opened=False, port=None))  # type: ignore[misc]
        assert ("Type code" in text) is (endpoint is not None)


@covers("device-off")
def test_a_paste_offers_no_code_where_the_operator_has_turned_devices_off() -> None:
    login = replace(login_with(), poll_state=None)
    endpoint = "https://as.example/device_authorization"
    server = replace(login.authorization_server, device_authorization_endpoint=endpoint)
    at = At(80, replace(login, authorization_server=server), with_qr=False, allows_device=lambda _: False)
    text = at.said(lambda: at.screen.show(at.login, browser_opened=False, port=None))
    assert "Paste it only here" in text
    assert "Type code" not in text
