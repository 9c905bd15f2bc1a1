"""Ways to complete one login compete: the real service, a real listener and the demo's servers."""

from __future__ import annotations

import asyncio
import shutil
import socket
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
from tests.browserless import approve, fetch
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.requirements import covers
from tests.tripwire import guard

pytestmark = pytest.mark.slow

T = TypeVar("T")


@pytest.fixture(scope="module")
def one_demo() -> Iterator[Demo]:
    with serve_demo() as demo:
        yield demo


@pytest.fixture
def demo(one_demo: Demo) -> Demo:
    one_demo.authorization_server.behaviour = Behaviour()
    one_demo.authorization_server.clear_faults()
    guard(one_demo.authorization_server.minted_secrets)
    return one_demo


@dataclass
class Watched:
    """A screen that records what it should show."""

    shown: asyncio.Queue[Login] = field(default_factory=asyncio.Queue)
    refusals: list[McpAuthError] = field(default_factory=list)
    counts: int = 0
    expiries: asyncio.Queue[Login] = field(default_factory=asyncio.Queue)
    opened: bool = False
    port: int | None = None

    def show(self, login: Login, *, browser_opened: bool, port: int | None) -> None:
        self.opened, self.port = browser_opened, port
        self.shown.put_nowait(login)

    def show_refusal(self, error: McpAuthError) -> None:
        self.refusals.append(error)

    def show_countdown(self, login: Login, *, on_new_line: bool = False) -> None:
        self.counts += 1

    def show_expiry(self, login: Login) -> None:
        self.expiries.put_nowait(login)


class Typed:
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


class Race:
    """One running login in this process."""

    def __init__(
        self,
        demo: Demo,
        home: Path,
        lines: Typed,
        ways: AnswerChannels,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.service = AuthService(home, clock=clock)
        self.server = Server("demo", demo.mcp_url)
        self.screen = Watched()
        self.lines = lines
        self.task = asyncio.create_task(log_in(self.service, self.server, self.screen, lines, ways))

    async def shown(self) -> Login:
        waiting = asyncio.create_task(self.screen.shown.get())
        await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        return await waiting if waiting.done() else self.task.result()  # type: ignore[return-value]

    async def end(self) -> Connection:
        async with asyncio.timeout(30):
            return await self.task


def is_listening(port: int | None) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port or 0)) == 0


def run(work: Coroutine[object, object, T]) -> T:
    return asyncio.run(work)


def test_a_paste_wins(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = Race(demo, tmp_path, Typed(), AnswerChannels(at_keyboard=True))
        login = await race.shown()
        race.lines.lines.put_nowait("")
        race.lines.lines.put_nowait("wrong one")
        race.lines.lines.put_nowait(await asyncio.to_thread(approve, login.authorization_url))
        assert (await race.end()).account == "ada@example.com"
        assert [type(each) for each in race.screen.refusals] == [PasteRefused]
        assert not is_listening(race.screen.port)

    run(main())


def test_a_redirect_wins_and_what_was_being_typed_is_dropped(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = Race(demo, tmp_path, Typed(), AnswerChannels(at_keyboard=True))
        login = await race.shown()
        assert race.screen.port == urlsplit(login.request.redirect_uri).port
        answer = await asyncio.to_thread(approve, login.authorization_url)
        status, _, page = await asyncio.to_thread(fetch, "GET", answer)
        assert (status, "You are logged in" in page) == (200, True)
        await race.end()
        assert not is_listening(race.screen.port)

    run(main())


def test_another_service_with_the_same_home_wins(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = Race(demo, tmp_path, Typed(), AnswerChannels())
        login = await race.shown()
        answer = await asyncio.to_thread(approve, login.authorization_url)
        other = await AuthService(tmp_path).complete_login(login.id, answer, TERMINAL_ORIGIN)
        assert await race.end() == other

    run(main())


def test_the_clock_ends_it(demo: Demo, tmp_path: Path) -> None:
    late = 0.0

    async def main() -> None:
        nonlocal late
        race = Race(demo, tmp_path, Typed(), AnswerChannels(), lambda: time.time() + late)
        await race.shown()
        late = 601.0
        with pytest.raises(LoginExpired):
            await race.end()
        assert not is_listening(race.screen.port)

    run(main())


def test_the_end_of_a_keyboard_cancels(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = Race(demo, tmp_path, Typed(None), AnswerChannels(at_keyboard=True))
        login = await race.shown()
        with pytest.raises(LoginCancelled):
            await race.end()
        assert race.service.login(login.id).status == "cancelled"

    run(main())


def test_the_end_of_a_pipe_leaves_it_to_the_listener(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = Race(demo, tmp_path, Typed(None), AnswerChannels())
        login = await race.shown()
        answer = await asyncio.to_thread(approve, login.authorization_url)
        await asyncio.to_thread(fetch, "GET", answer)
        await race.end()

    run(main())


@pytest.mark.parametrize("lines", [("nonsense", None), ("", None)])
def test_a_pipe_that_ends_after_a_refusal_ends_the_login_with_it(
    demo: Demo, tmp_path: Path, lines: tuple[str | None, ...]
) -> None:
    async def main() -> None:
        race = Race(demo, tmp_path, Typed(*lines), AnswerChannels())
        login = await race.shown()
        with pytest.raises(PasteRefused):
            await race.end()
        assert race.service.login(login.id).status == "cancelled"

    run(main())


def test_lines_that_break_end_the_login_instead_of_leaving_it_deaf(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = Race(demo, tmp_path, Typed(OSError("the terminal broke")), AnswerChannels(at_keyboard=True))
        await race.shown()
        with pytest.raises(OSError, match="the terminal broke"):
            await race.end()
        assert not is_listening(race.screen.port)

    run(main())


def test_a_store_that_is_deleted_under_it_ends_the_login(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = Race(demo, tmp_path, Typed(), AnswerChannels())
        await race.shown()
        shutil.rmtree(tmp_path / "mcp-tokens")
        with pytest.raises(LoginNotFound):
            await race.end()
        assert not is_listening(race.screen.port)

    run(main())


def test_cancelling_the_caller_cancels_the_login(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = Race(demo, tmp_path, Typed(), AnswerChannels())
        login = await race.shown()
        race.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await race.end()
        assert race.service.login(login.id).status == "cancelled"
        assert not is_listening(race.screen.port)

    run(main())


@covers("race")
def test_the_same_answer_by_paste_and_redirect_at_once_counts_once(demo: Demo, tmp_path: Path) -> None:
    before = demo.authorization_server.count_requests("token")

    async def main() -> None:
        race = Race(demo, tmp_path, Typed(), AnswerChannels(at_keyboard=True))
        login = await race.shown()
        answer = await asyncio.to_thread(approve, login.authorization_url)
        gate = demo.authorization_server.hold("token")
        race.lines.lines.put_nowait(answer)
        await asyncio.to_thread(gate.arrived.wait, 20)
        brought = asyncio.create_task(asyncio.to_thread(fetch, "GET", answer))
        gate.open()
        await race.end()
        await asyncio.gather(brought, return_exceptions=True)

    run(main())
    assert demo.authorization_server.count_requests("token") == before + 1


def test_nothing_is_opened_where_nobody_listens(demo: Demo, tmp_path: Path) -> None:
    asked: list[str] = []

    def browse(url: str) -> bool:
        asked.append(url)
        return True

    async def main(ways: AnswerChannels) -> bool:
        race = Race(demo, tmp_path, Typed(), ways)
        login = await race.shown()
        race.task.cancel()
        await asyncio.gather(race.task, return_exceptions=True)
        assert asked in ([], [login.authorization_url])
        return race.screen.opened

    assert not run(main(AnswerChannels(browse, should_listen=False)))
    assert asked == []
    assert run(main(AnswerChannels(browse)))
    assert len(asked) == 1


def test_a_registered_port_that_is_taken_gives_way_to_a_new_one(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        first = Race(demo, tmp_path, Typed(), AnswerChannels())
        login = await first.shown()
        await first.service.complete_login(
            login.id, await asyncio.to_thread(approve, login.authorization_url), TERMINAL_ORIGIN
        )
        await first.end()
        with socket.create_server(("127.0.0.1", first.screen.port or 0)):
            second = Race(demo, tmp_path, Typed(), AnswerChannels())
            again = await second.shown()
            assert second.screen.port not in {None, first.screen.port}
            second.lines.lines.put_nowait(await asyncio.to_thread(approve, again.authorization_url))
            await second.end()

    run(main())


def test_a_server_that_breaks_its_rules_is_told_before_anything_is_shown(demo: Demo, tmp_path: Path) -> None:
    demo.authorization_server.change_behaviour(pkce_advertised=False)

    async def main() -> None:
        race = Race(demo, tmp_path, Typed(), AnswerChannels())
        with pytest.raises(ServerError):
            await race.end()
        assert race.screen.shown.empty()

    run(main())


def test_an_error_that_cancelling_meets_does_not_hide_the_first(demo: Demo, tmp_path: Path) -> None:
    async def main() -> None:
        race = Race(demo, tmp_path, Typed(), AnswerChannels())
        await race.shown()
        shutil.rmtree(tmp_path / "mcp-tokens")
        race.task.cancel()
        with pytest.raises((asyncio.CancelledError, McpAuthError)) as ended:
            await race.end()
        assert isinstance(ended.value, asyncio.CancelledError)

    run(main())
