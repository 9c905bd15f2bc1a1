"""Several ways to complete one login compete; the service, the listener and the demo's servers are real."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

import pytest

from hermes_mcp_auth_remote.errors import (
    LoginCancelled,
    LoginExpired,
    LoginNotFound,
    McpAuthError,
    PasteRefused,
    ServerError,
)
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.answers import TERMINAL_ORIGIN
from hermes_mcp_auth_remote.terminal.prompt import AnswerChannels, log_in
from hermes_mcp_auth_remote.values import Server
from tests.consent_form import approve, fetch
from tests.leak_check import watch_secrets
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.requirements import covers

pytestmark = pytest.mark.slow

T = TypeVar("T")


@pytest.fixture(scope="module")
def module_demo() -> Iterator[Demo]:
    with serve_demo() as demo:
        yield demo


@pytest.fixture
def demo(module_demo: Demo) -> Demo:
    module_demo.authorization_server.behaviour = Behaviour()
    module_demo.authorization_server.clear_faults()
    watch_secrets(module_demo.authorization_server.minted_secrets)
    return module_demo


@dataclass
class RecordingScreen:
    """A screen that records what it should show."""

    shown: asyncio.Queue[Login] = field(default_factory=asyncio.Queue)
    refusals: list[McpAuthError] = field(default_factory=list)
    has_counted: asyncio.Event = field(default_factory=asyncio.Event)
    refused_request_counts: list[int] = field(default_factory=list[int])
    qr_logins: list[Login | None] = field(default_factory=list[Login | None])
    expiries: asyncio.Queue[Login] = field(default_factory=asyncio.Queue)
    was_browser_opened: bool = False
    port: int | None = None

    def show(self, login: Login, *, browser_opened: bool, port: int | None) -> None:
        self.was_browser_opened, self.port = browser_opened, port
        self.shown.put_nowait(login)

    def show_refusal(self, error: McpAuthError) -> None:
        self.refusals.append(error)

    def show_refused_requests(self, count: int) -> None:
        self.refused_request_counts.append(count)

    def show_countdown(self, login: Login, *, on_new_line: bool = False) -> None:
        self.has_counted.set()

    def show_qr(self, login: Login) -> bool:
        self.qr_logins.append(login)
        return True

    def hide_qr(self) -> None:
        self.qr_logins.append(None)

    def show_expiry(self, login: Login) -> None:
        self.expiries.put_nowait(login)


class ScriptedLines:
    """Lines that a test types; `read_line` raises an exception among them."""

    def __init__(self, *lines: str | Exception | None) -> None:
        self.lines: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        for line in lines:
            self.lines.put_nowait(line)

    async def read_line(self) -> str | None:
        line = await self.lines.get()
        if isinstance(line, Exception):
            raise line
        return line

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class RunningLogin:
    """One running login in this process."""

    def __init__(
        self,
        demo: Demo,
        home: Path,
        lines: ScriptedLines,
        channels: AnswerChannels,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.service = AuthService(home, clock=clock)
        self.server = Server("demo", demo.mcp_url)
        self.screen = RecordingScreen()
        self.lines = lines
        self.task = asyncio.create_task(log_in(self.service, self.server, self.screen, lines, channels))

    async def wait_until_shown(self) -> Login:
        waiting = asyncio.create_task(self.screen.shown.get())
        await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        return await waiting if waiting.done() else self.task.result()  # type: ignore[return-value]

    async def wait_for_connection(self) -> Connection:
        async with asyncio.timeout(30):
            return await self.task


def is_listening(port: int | None) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port or 0)) == 0


def run_test(coroutine: Coroutine[object, object, T]) -> T:
    return asyncio.run(coroutine)


def test_a_paste_completes_the_login(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels(at_keyboard=True))
        login = await race.wait_until_shown()
        race.lines.lines.put_nowait("")
        race.lines.lines.put_nowait("wrong one")
        race.lines.lines.put_nowait(await asyncio.to_thread(approve, login.authorization_url))
        assert (await race.wait_for_connection()).account == "ada@example.com"
        assert [type(error) for error in race.screen.refusals] == [PasteRefused]
        assert not is_listening(race.screen.port)

    run_test(main())


def test_a_redirect_completes_the_login_without_a_paste(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels(at_keyboard=True))
        login = await race.wait_until_shown()
        assert race.screen.port == urlsplit(login.request.redirect_uri).port
        answer = await asyncio.to_thread(approve, login.authorization_url)
        status, _, page = await asyncio.to_thread(fetch, "GET", answer)
        assert (status, "You are logged in" in page) == (200, True)
        await race.wait_for_connection()
        assert not is_listening(race.screen.port)

    run_test(main())


def test_a_login_that_is_cancelled_while_the_browser_command_runs_ends_at_once(
    demo: Demo, tmp_path: Path
) -> None:
    async def main() -> None:
        loop, release, page_opens = asyncio.get_running_loop(), threading.Event(), asyncio.Event()

        def run_command(url: str) -> bool:
            loop.call_soon_threadsafe(page_opens.set)
            return release.wait(30)

        race = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels(run_command, at_keyboard=True))
        await page_opens.wait()
        [login] = await race.service.waiting_logins()
        race.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await race.wait_for_connection()
        assert not release.is_set()
        release.set()
        assert (await race.service.login(login.id)).status == "cancelled"
        assert not is_listening(urlsplit(login.request.redirect_uri).port)
        assert race.screen.shown.empty()

    run_test(main())


@covers("listener-collapse")
def test_foreign_requests_are_counted_and_not_stored(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels(at_keyboard=True))
        login = await race.wait_until_shown()
        stored = race.service.blocking.login(login.id)
        for number in range(25):
            foreign = f"{login.request.redirect_uri}?code=some-code-{number}&state=another"
            status, _, page = await asyncio.to_thread(fetch, "GET", foreign)
            assert (status, "The login still waits" in page) == (400, True)
        assert len(race.screen.refusals) == 1
        assert race.screen.refused_request_counts == [10]
        assert race.service.blocking.login(login.id) == stored
        answer = await asyncio.to_thread(approve, login.authorization_url)
        status, _, page = await asyncio.to_thread(fetch, "GET", answer)
        assert status == 200
        for fact in ("demo", demo.mcp_url, "ada@example.com", "mcp:tools offline_access"):
            assert f"<dd>{fact}</dd>" in page
        await race.wait_for_connection()

    run_test(main())


def test_a_redirect_with_an_unusual_code_at_its_end_is_used_as_it_is(demo: Demo, tmp_path: Path) -> None:
    """A browser's request is exact, so the end of its code is certain."""

    async def main() -> None:
        race = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels(at_keyboard=True))
        login = await race.wait_until_shown()
        answer = await asyncio.to_thread(approve, login.authorization_url)
        base, _, query = answer.partition("?")
        parameters = sorted(query.split("&"), key=lambda it: it.startswith("code="))
        await asyncio.to_thread(fetch, "GET", f"{base}?{'&'.join(parameters)}~")
        with pytest.raises(McpAuthError) as caught:
            await race.wait_for_connection()
        assert not isinstance(caught.value, PasteRefused), "the code with its last character was sent"

    run_test(main())


def test_commands_before_an_address_are_run_first(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels(at_keyboard=True))
        login = await race.wait_until_shown()
        answer = await asyncio.to_thread(approve, login.authorization_url)
        race.lines.lines.put_nowait(f"qr\nQR\n{answer}\n")
        await race.wait_for_connection()
        assert race.screen.qr_logins == [login, login, None]
        assert race.screen.refusals == []

    run_test(main())


def test_another_service_with_the_same_home_completes_the_login(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels())
        login = await race.wait_until_shown()
        answer = await asyncio.to_thread(approve, login.authorization_url)
        connection = await AuthService(tmp_path).complete_login(login.id, answer, TERMINAL_ORIGIN)
        assert await race.wait_for_connection() == connection

    run_test(main())


def test_the_login_expires_by_the_clock(demo: Demo, tmp_path: Path) -> None:
    clock_offset = 0.0

    async def main() -> None:
        nonlocal clock_offset
        race = RunningLogin(
            demo, tmp_path, ScriptedLines(), AnswerChannels(), lambda: time.time() + clock_offset
        )
        await race.wait_until_shown()
        clock_offset = 601.0
        with pytest.raises(LoginExpired):
            await race.wait_for_connection()
        assert not is_listening(race.screen.port)

    run_test(main())


def test_end_of_input_at_a_keyboard_cancels_the_login(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = RunningLogin(demo, tmp_path, ScriptedLines(None), AnswerChannels(at_keyboard=True))
        login = await race.wait_until_shown()
        with pytest.raises(LoginCancelled):
            await race.wait_for_connection()
        assert race.service.blocking.login(login.id).status == "cancelled"

    run_test(main())


def test_end_of_input_in_a_pipe_waits_for_the_redirect(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = RunningLogin(demo, tmp_path, ScriptedLines(None), AnswerChannels())
        login = await race.wait_until_shown()
        answer = await asyncio.to_thread(approve, login.authorization_url)
        await asyncio.to_thread(fetch, "GET", answer)
        await race.wait_for_connection()

    run_test(main())


@pytest.mark.parametrize("lines", [("nonsense", None), ("", None)])
def test_a_pipe_that_ends_after_a_refused_line_fails_the_login(
    demo: Demo, tmp_path: Path, lines: tuple[str | None, ...]
) -> None:
    async def main() -> None:
        race = RunningLogin(demo, tmp_path, ScriptedLines(*lines), AnswerChannels())
        login = await race.wait_until_shown()
        with pytest.raises(PasteRefused):
            await race.wait_for_connection()
        assert race.service.blocking.login(login.id).status == "cancelled"

    run_test(main())


def test_an_error_of_the_line_source_ends_the_login(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = RunningLogin(
            demo, tmp_path, ScriptedLines(OSError("the terminal broke")), AnswerChannels(at_keyboard=True)
        )
        await race.wait_until_shown()
        with pytest.raises(OSError, match="the terminal broke"):
            await race.wait_for_connection()
        assert not is_listening(race.screen.port)

    run_test(main())


def test_a_deleted_store_ends_the_login(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels())
        await race.wait_until_shown()
        shutil.rmtree(tmp_path / "mcp-tokens")
        with pytest.raises(LoginNotFound):
            await race.wait_for_connection()
        assert not is_listening(race.screen.port)

    run_test(main())


def test_cancelling_the_caller_cancels_the_login(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels())
        login = await race.wait_until_shown()
        race.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await race.wait_for_connection()
        assert race.service.blocking.login(login.id).status == "cancelled"
        assert not is_listening(race.screen.port)

    run_test(main())


@covers("race")
def test_the_same_response_by_paste_and_redirect_is_used_once(demo: Demo, tmp_path: Path) -> None:
    before = demo.authorization_server.count_requests("token")

    async def main() -> None:
        race = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels(at_keyboard=True))
        login = await race.wait_until_shown()
        answer = await asyncio.to_thread(approve, login.authorization_url)
        gate = demo.authorization_server.hold("token")
        race.lines.lines.put_nowait(answer)
        await asyncio.to_thread(gate.arrived.wait, 20)
        redirect_task = asyncio.create_task(asyncio.to_thread(fetch, "GET", answer))
        gate.open()
        await race.wait_for_connection()
        await asyncio.gather(redirect_task, return_exceptions=True)

    run_test(main())
    assert demo.authorization_server.count_requests("token") == before + 1


def test_no_browser_is_opened_without_a_listener(demo: Demo, tmp_path: Path) -> None:
    opened_urls: list[str] = []

    def browse(url: str) -> bool:
        opened_urls.append(url)
        return True

    async def main(channels: AnswerChannels) -> bool:
        race = RunningLogin(demo, tmp_path, ScriptedLines(), channels)
        login = await race.wait_until_shown()
        race.task.cancel()
        await asyncio.gather(race.task, return_exceptions=True)
        assert opened_urls in ([], [login.authorization_url])
        return race.screen.was_browser_opened

    assert not run_test(main(AnswerChannels(browse, should_listen=False)))
    assert opened_urls == []
    assert run_test(main(AnswerChannels(browse)))
    assert len(opened_urls) == 1


def test_a_busy_registered_port_is_replaced_by_a_new_one(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        first = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels())
        login = await first.wait_until_shown()
        await first.service.complete_login(
            login.id, await asyncio.to_thread(approve, login.authorization_url), TERMINAL_ORIGIN
        )
        await first.wait_for_connection()
        with socket.create_server(("127.0.0.1", first.screen.port or 0)):
            second = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels())
            second_login = await second.wait_until_shown()
            assert second.screen.port not in {None, first.screen.port}
            second.lines.lines.put_nowait(await asyncio.to_thread(approve, second_login.authorization_url))
            await second.wait_for_connection()

    run_test(main())


def test_over_ssh_a_busy_registered_port_needs_no_other_registration(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        first = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels())
        login = await first.wait_until_shown()
        await first.service.complete_login(
            login.id, await asyncio.to_thread(approve, login.authorization_url), TERMINAL_ORIGIN
        )
        await first.wait_for_connection()
        registrations = demo.authorization_server.count_requests("registration")
        with socket.create_server(("127.0.0.1", first.screen.port or 0)):
            second = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels(is_remote=True))
            second_login = await second.wait_until_shown()
            assert second_login.request.redirect_uri == login.request.redirect_uri
            assert demo.authorization_server.count_requests("registration") == registrations
            second.lines.lines.put_nowait(await asyncio.to_thread(approve, second_login.authorization_url))
            await second.wait_for_connection()

    run_test(main())


def test_a_pasted_error_page_of_a_forgotten_client_shows_a_new_link(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels(at_keyboard=True))
        login = await race.wait_until_shown()
        demo.authorization_server.ledger.forget_clients()
        race.lines.lines.put_nowait("new")
        race.lines.lines.put_nowait(f"{demo.issuer}/error?error=invalid_client")
        other_login = await race.wait_until_shown()
        assert other_login.request.client.client_id != login.request.client.client_id
        assert [type(refusal).__name__ for refusal in race.screen.refusals] == [
            "PasteRefused",
            "ProviderErrorPasted",
        ]
        race.lines.lines.put_nowait(await asyncio.to_thread(approve, other_login.authorization_url))
        await race.wait_for_connection()

    run_test(main())


def test_a_server_error_is_raised_before_a_prompt_is_shown(demo: Demo, tmp_path: Path) -> None:
    demo.authorization_server.change_behaviour(pkce_advertised=False)

    async def main() -> None:
        race = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels())
        with pytest.raises(ServerError):
            await race.wait_for_connection()
        assert race.screen.shown.empty()

    run_test(main())


def test_an_error_during_cancellation_does_not_hide_the_first(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = RunningLogin(demo, tmp_path, ScriptedLines(), AnswerChannels())
        await race.wait_until_shown()
        shutil.rmtree(tmp_path / "mcp-tokens")
        race.task.cancel()
        with pytest.raises((asyncio.CancelledError, McpAuthError)) as raised:
            await race.wait_for_connection()
        assert isinstance(raised.value, asyncio.CancelledError)

    run_test(main())
