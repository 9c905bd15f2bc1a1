"""A call that needs a login prompts once, through the prompter of its context, for all waiting calls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from hermes_mcp_auth_remote.auth.httpx import McpAuth
from hermes_mcp_auth_remote.errors import AuthorizationDenied, AuthorizationRequired
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.logins import Logins
from hermes_mcp_auth_remote.service.prompting import PROMPT_COOLDOWN_SECONDS, InteractiveLogins, prompting
from hermes_mcp_auth_remote.values import Origin, Server
from tests.consent_form import approve, deny
from tests.demo.manual_client import ManualClock
from tests.loop_clock import LoopClock, loop_clock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.helpers import CHAT, log_in, refresh_elsewhere

pytestmark = pytest.mark.slow

OTHER_CHAT = Origin("telegram", chat_id="8", user_id="43")
WAIT_SECONDS = 300.0

__all__ = ["loop_clock"]


class RecordingPrompter:
    """A prompter whose user follows the login link at once. It records what it shows."""

    def __init__(self, service: AuthService, follow_link: Callable[[str], str] | None = approve) -> None:
        self.service = service
        self.follow_link = follow_link
        self.shown: list[Login] = []
        self.outcomes: list[tuple[str, Connection | None]] = []
        self.shown_event, self.outcome_event = asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[object]] = set()

    async def show(self, login: Login) -> None:
        self.shown.append(login)
        self.shown_event.set()
        if self.follow_link is not None:
            task: asyncio.Task[object] = asyncio.create_task(self._complete_login(login, self.follow_link))
            self._tasks.add(task)

    async def _complete_login(self, login: Login, follow_link: Callable[[str], str]) -> None:
        text = await asyncio.to_thread(follow_link, login.authorization_url)
        with contextlib.suppress(AuthorizationDenied):
            await self.service.complete_login(login.id, text, login.origin)

    async def show_outcome(self, login: Login, connection: Connection | None) -> None:
        self.outcomes.append((login.status, connection))
        self.outcome_event.set()


@covers("one-prompt")
def test_ten_calls_without_a_login_share_one_prompt_and_all_succeed(
    service: AuthService, server: Server, demo: Demo
) -> None:
    async def story() -> None:
        chat = RecordingPrompter(service)
        async with httpx.AsyncClient(auth=McpAuth(service.session(server)), trust_env=False) as client:
            with prompting(chat, CHAT, can_connect_shared=True):
                answers = await asyncio.gather(*(client.get(server.url) for _ in range(10)))
        assert [answer.status_code for answer in answers] == [200] * 10
        assert len(chat.shown) == 1
        assert chat.shown[0].origin == CHAT
        await chat.outcome_event.wait()
        ((status, connection),) = chat.outcomes
        assert status == "done"
        assert connection is not None
        assert demo.authorization_server.count_requests("token") == 1

    asyncio.run(story())


@covers("one-prompt")
def test_a_revoked_session_prompts_during_a_call_and_the_call_succeeds(
    service: AuthService, server: Server, demo: Demo
) -> None:
    async def story() -> None:
        await log_in(service, server)
        demo.authorization_server.ledger.revoke_everything()
        chat = RecordingPrompter(service)
        async with httpx.AsyncClient(auth=McpAuth(service.session(server)), trust_env=False) as client:
            with prompting(chat, CHAT, can_connect_shared=True):
                assert (await client.get(server.url)).status_code == 200
        assert len(chat.shown) == 1

    asyncio.run(story())


@covers("no-user-to-ask")
def test_a_call_without_a_prompter_fails_at_once_and_names_a_waiting_login_but_no_url(
    service: AuthService, server: Server
) -> None:
    async def story() -> None:
        with pytest.raises(AuthorizationRequired) as first:
            await service.session(server).header()
        assert first.value.login_id is None
        waiting = await service.start_login(server, CHAT)
        with pytest.raises(AuthorizationRequired) as second:
            await service.session(server).header()
        assert second.value.login_id == waiting.id
        assert second.value.expires_at == waiting.expires_at
        assert "://" not in f"{second.value!r} {second.value} {second.value.advice}"

    asyncio.run(story())


@pytest.fixture
def user_who_waits(loop_clock: LoopClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let WAIT_SECONDS pass as soon as the first call waits for the user."""
    wait_for_login, waits = Logins.wait_for_login, iter([WAIT_SECONDS])

    async def wait_until_late(logins: Logins, login_id: str) -> Login:
        # Later, the time would pass for whatever else runs, such as the exchange of the code.
        loop_clock(next(waits, 0.0))
        return await wait_for_login(logins, login_id)

    monkeypatch.setattr(Logins, "wait_for_login", wait_until_late)


@pytest.mark.usefixtures("user_who_waits")
@covers("no-user-to-ask")
def test_a_call_stops_waiting_at_its_limit_and_the_login_stays_open(
    service: AuthService, server: Server
) -> None:
    async def story() -> None:
        chat = RecordingPrompter(service, follow_link=None)
        with (
            prompting(chat, CHAT, wait_seconds=WAIT_SECONDS, can_connect_shared=True),
            pytest.raises(AuthorizationRequired) as late,
        ):
            await service.session(server).header()
        (login,) = chat.shown
        assert late.value.login_id == login.id
        assert service.blocking.login(login.id).status == "waiting"
        # The next call joins the same login, and gets its token when the user completes it.
        with prompting(chat, CHAT, can_connect_shared=True):
            waiting = asyncio.create_task(service.session(server).header())
            await service.complete_login(
                login.id, await asyncio.to_thread(approve, login.authorization_url), CHAT
            )
            assert (await waiting).startswith("Bearer ")
        assert chat.shown == [login]

    asyncio.run(story())


def test_a_call_joins_a_login_that_another_process_of_the_same_chat_started(
    service: AuthService, server: Server, tmp_path: Path, clock: ManualClock
) -> None:
    async def story() -> None:
        login = await AuthService(tmp_path, clock=clock).start_login(server, CHAT)
        chat = RecordingPrompter(service)
        with prompting(chat, CHAT, can_connect_shared=True):
            waiting = asyncio.create_task(service.session(server).header())
            text = await asyncio.to_thread(approve, login.authorization_url)
            await AuthService(tmp_path, clock=clock).complete_login(login.id, text, CHAT)
            assert (await waiting).startswith("Bearer ")
        assert chat.shown == []

    asyncio.run(story())


def test_each_chat_gets_its_own_prompt(service: AuthService, server: Server) -> None:
    async def story() -> None:
        one, other = (
            RecordingPrompter(service, follow_link=None),
            RecordingPrompter(service, follow_link=None),
        )
        with prompting(one, CHAT, can_connect_shared=True):
            first = asyncio.create_task(service.session(server).header())
        with prompting(other, OTHER_CHAT, can_connect_shared=True):
            second = asyncio.create_task(service.session(server).header())
        async with asyncio.timeout(20):
            await one.shown_event.wait()
            await other.shown_event.wait()
        for waiting in (first, second):
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert [login.origin for login in one.shown + other.shown] == [CHAT, OTHER_CHAT]

    asyncio.run(story())


@pytest.mark.parametrize(("does", "status"), [(deny, "failed"), (None, "cancelled")])
def test_a_declined_prompt_is_not_repeated_until_its_cooldown_ends(
    service: AuthService,
    server: Server,
    clock: ManualClock,
    does: Callable[[str], str] | None,
    status: str,
) -> None:
    async def story() -> None:
        chat = RecordingPrompter(service, does)
        session = service.session(server)

        async def call() -> None:
            with (
                prompting(chat, CHAT, can_connect_shared=True),
                pytest.raises(AuthorizationRequired, match="login"),
            ):
                await session.header()

        calling = asyncio.create_task(call())
        await chat.shown_event.wait()
        if does is None:
            await service.cancel(chat.shown[0].id)
        await calling
        assert service.blocking.login(chat.shown[0].id).status == status
        await call()
        assert len(chat.shown) == 1
        clock.now += PROMPT_COOLDOWN_SECONDS[status]
        chat.follow_link = approve
        with prompting(chat, CHAT, can_connect_shared=True):
            assert (await session.header()).startswith("Bearer ")
        assert len(chat.shown) == 2

    asyncio.run(story())


def test_a_cancelled_call_leaves_the_login_to_the_other_calls(service: AuthService, server: Server) -> None:
    async def story() -> None:
        chat = RecordingPrompter(service, follow_link=None)
        session = service.session(server)
        with prompting(chat, CHAT, can_connect_shared=True):
            calls = [asyncio.create_task(session.header()) for _ in range(3)]
            await chat.shown_event.wait()
            calls[0].cancel()
            (login,) = chat.shown
            await service.complete_login(
                login.id, await asyncio.to_thread(approve, login.authorization_url), CHAT
            )
            headers = await asyncio.gather(*calls[1:])
        assert headers[0] == headers[1]
        assert len(chat.shown) == 1

    asyncio.run(story())


def test_a_login_that_the_prompter_cannot_show_is_cancelled(
    service: AuthService, server: Server, tmp_path: Path
) -> None:
    class UnreachablePrompter(RecordingPrompter):
        async def show(self, login: Login) -> None:
            self.shown.append(login)
            raise ConnectionError("The chat is unreachable.")

    async def story() -> None:
        chat = UnreachablePrompter(service)
        with prompting(chat, CHAT, can_connect_shared=True), pytest.raises(ConnectionError):
            await service.session(server).header()
        assert service.blocking.login(chat.shown[0].id).status == "cancelled"

    asyncio.run(story())


@covers("step-up")
def test_a_403_requests_the_union_of_scopes_once_and_shows_the_added_scope(
    service: AuthService, server: Server, demo: Demo
) -> None:
    async def story() -> None:
        await log_in(service, server)
        before = service.blocking.connection(server)
        assert before is not None
        assert before.scope is not None
        session = service.session(server)
        header = await session.header()
        chat = RecordingPrompter(service)
        lines = ['Bearer error="insufficient_scope", scope="mcp:admin"']
        with prompting(chat, CHAT, can_connect_shared=True):
            new_header = await session.handle_challenge(header, 403, lines)
        assert new_header not in {None, header}
        (login,) = chat.shown
        assert login.request.scope == before.scope | {"mcp:admin"}
        assert login.added_scope == frozenset({"mcp:admin"})

    demo.authorization_server.change_behaviour(scopes_supported=("mcp:tools", "mcp:admin", "offline_access"))
    asyncio.run(story())


@covers("step-up")
def test_a_refreshed_token_that_is_refused_again_ends_the_call_after_two_requests(
    service: AuthService, server: Server, demo: Demo, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        await log_in(service, server)
        demo.authorization_server.requests.clear()
        demo.authorization_server.fail_next("ping", status=401, times=None)
        chat = RecordingPrompter(service)
        async with httpx.AsyncClient(auth=McpAuth(service.session(server)), trust_env=False) as client:
            with prompting(chat, CHAT, can_connect_shared=True):
                assert (await client.get(server.url)).status_code == 401
        assert demo.authorization_server.count_requests("ping") == 2
        assert demo.authorization_server.count_requests("refresh") == 1
        assert chat.shown == []
        assert "127.0.0.1 refuses a token that was refreshed just now" in caplog.text

    asyncio.run(story())


def test_a_synchronous_client_prompts_as_well(service: AuthService, server: Server) -> None:
    class AnsweringPrompter(RecordingPrompter):
        async def show(self, login: Login) -> None:
            self.shown.append(login)
            text = await asyncio.to_thread(approve, login.authorization_url)
            await self.service.complete_login(login.id, text, login.origin)

    async def make_prompter() -> RecordingPrompter:
        return AnsweringPrompter(service)

    chat = asyncio.run(make_prompter())
    auth = McpAuth(service.session(server))
    with httpx.Client(auth=auth, trust_env=False) as client, prompting(chat, CHAT, can_connect_shared=True):
        assert client.get(server.url).status_code == 200
    assert len(chat.shown) == 1


@covers("whose-tokens")
@pytest.mark.parametrize(
    ("owner", "prompt_count"),
    [(None, 0), ("telegram:42", 1), ("telegram:43", 0), ("discord:42", 0)],
)
def test_a_chat_user_logs_in_only_for_own_tokens_unless_the_operator_allows_more(
    service: AuthService, server: Server, owner: str | None, prompt_count: int
) -> None:
    async def story() -> None:
        chat = RecordingPrompter(service)
        session = service.session(server, owner)
        with prompting(chat, CHAT):
            if prompt_count:
                assert (await session.header()).startswith("Bearer ")
            else:
                with pytest.raises(AuthorizationRequired):
                    await session.header()
        assert len(chat.shown) == prompt_count

    asyncio.run(story())


@pytest.mark.usefixtures("user_who_waits")
@covers("one-prompt")
def test_a_server_that_requests_another_scope_with_each_call_prompts_once(
    service: AuthService, server: Server, clock: ManualClock
) -> None:
    async def story() -> None:
        await log_in(service, server)
        session = service.session(server)
        header = await session.header()
        chat = RecordingPrompter(service, follow_link=None)
        for number in range(12):
            lines = [f'Bearer error="insufficient_scope", scope="mcp:more{number}"']
            with (
                prompting(chat, CHAT, wait_seconds=WAIT_SECONDS, can_connect_shared=True),
                pytest.raises(AuthorizationRequired) as refused,
            ):
                await session.handle_challenge(header, 403, lines)
            assert refused.value.login_id == chat.shown[0].id
        assert len(chat.shown) == 1

    asyncio.run(story())


def test_a_call_joins_no_login_at_another_address_of_the_same_server_name(
    service: AuthService, server: Server, demo: Demo
) -> None:
    async def story() -> None:
        await service.start_login(Server(server.name, demo.mcp_url), CHAT)
        chat = RecordingPrompter(service)
        with prompting(chat, CHAT, can_connect_shared=True):
            assert (await service.session(server).header()).startswith("Bearer ")
        assert len(chat.shown) == 1

    asyncio.run(story())


@covers("one-prompt")
def test_two_processes_that_need_a_login_at_once_show_one(
    service: AuthService, server: Server, tmp_path: Path, clock: ManualClock
) -> None:
    async def story() -> None:
        services = [service, AuthService(tmp_path, clock=clock), AuthService(tmp_path, clock=clock)]
        prompters = [RecordingPrompter(each) for each in services]
        calls: list[asyncio.Task[str]] = []
        for each, prompter in zip(services, prompters, strict=True):
            with prompting(prompter, CHAT, can_connect_shared=True):
                calls.append(asyncio.create_task(each.session(server).header()))
        headers = await asyncio.gather(*calls)
        assert len(set(headers)) == 1
        assert sum(len(prompter.shown) for prompter in prompters) == 1
        assert len(await service.logins()) == 1

    asyncio.run(story())


@covers("one-prompt")
def test_a_call_joins_a_login_whose_code_is_being_exchanged(
    service: AuthService, server: Server, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_looked = asyncio.Event()
    find_open_login = InteractiveLogins._find_open_login

    async def story() -> None:
        loop = asyncio.get_running_loop()

        def find(*arguments: Any) -> Login | None:
            login = find_open_login(*arguments)
            loop.call_soon_threadsafe(has_looked.set)
            return login

        login = await service.start_login(server, CHAT)
        gate = demo.authorization_server.hold("token")
        text = await asyncio.to_thread(approve, login.authorization_url)
        completing = asyncio.create_task(service.complete_login(login.id, text, CHAT))
        await asyncio.to_thread(gate.arrived.wait)
        chat = RecordingPrompter(service)
        monkeypatch.setattr(InteractiveLogins, "_find_open_login", find)
        with prompting(chat, CHAT, can_connect_shared=True):
            call = asyncio.create_task(service.session(server).header())
        await has_looked.wait()
        gate.open()
        await completing
        assert (await call).startswith("Bearer ")
        assert chat.shown == []

    asyncio.run(story())


@covers("one-prompt")
def test_a_login_that_completes_after_a_call_has_read_the_store_needs_no_second_page(
    service: AuthService, server: Server, tmp_path: Path, clock: ManualClock
) -> None:
    find_open_login = service._interactive_logins._find_open_login

    def complete_login_and_search(*arguments: Any) -> Login | None:
        # The call has read the store already: it found no token.
        asyncio.run(log_in(AuthService(tmp_path, clock=clock), server))
        return find_open_login(*arguments)

    service._interactive_logins._find_open_login = complete_login_and_search  # type: ignore[assignment]

    async def story() -> None:
        chat = RecordingPrompter(service)
        with prompting(chat, CHAT, can_connect_shared=True):
            assert (await service.session(server).header()).startswith("Bearer ")
        assert chat.shown == []

    asyncio.run(story())


@covers("one-prompt")
def test_a_login_that_ends_while_another_is_prepared_makes_that_one_unnecessary(
    service: AuthService, server: Server, demo: Demo, tmp_path: Path, clock: ManualClock
) -> None:
    async def story() -> None:
        other = AuthService(tmp_path, clock=clock)
        login = await other.start_login(server, OTHER_CHAT)
        text = await asyncio.to_thread(approve, login.authorization_url)
        # The call prepares a login: it looks at the server first.
        gate = demo.authorization_server.hold("protected_resource_metadata")
        chat = RecordingPrompter(service)
        with prompting(chat, CHAT, can_connect_shared=True):
            call = asyncio.create_task(service.session(server).header())
        await asyncio.to_thread(gate.arrived.wait)
        await other.complete_login(login.id, text, OTHER_CHAT)
        gate.open()
        assert (await call).startswith("Bearer ")
        assert chat.shown == []

    asyncio.run(story())


@covers("step-up")
def test_a_new_token_with_the_demanded_scope_needs_no_page_and_one_without_it_does(
    service: AuthService, server: Server, demo: Demo, tmp_path: Path, clock: ManualClock
) -> None:
    lines = ['Bearer error="insufficient_scope", scope="mcp:admin"']

    async def story() -> None:
        await log_in(service, server)
        session = service.session(server)
        header = await session.header()
        clock.now += 1
        refresh_elsewhere(tmp_path, demo)
        chat = RecordingPrompter(service)
        with prompting(chat, CHAT, can_connect_shared=True):
            assert await session.handle_challenge(header, 403, lines) not in {None, header}
        assert len(chat.shown) == 1
        # The login has granted the scope. A second call had sent the old token.
        with prompting(chat, CHAT, can_connect_shared=True):
            assert await session.handle_challenge(header, 403, lines) not in {None, header}
        assert len(chat.shown) == 1

    demo.authorization_server.change_behaviour(scopes_supported=("mcp:tools", "mcp:admin", "offline_access"))
    asyncio.run(story())
