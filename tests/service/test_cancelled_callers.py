"""A cancelled caller leaves no claimed login, and no waiting login that no user has seen."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import pytest

from hermes_mcp_auth_remote import threads
from hermes_mcp_auth_remote.errors import PasteRefused
from hermes_mcp_auth_remote.login import Login, is_same_prompt
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.files.login_files import LoginFiles
from hermes_mcp_auth_remote.values import Flow, Server
from tests.consent_form import approve
from tests.parts.authorization_server import Behaviour, Demo
from tests.requirements import covers
from tests.service.helpers import TERMINAL, wait_until


class BlockedCall:
    """Blocks one method of the store's logins after it has done its work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.is_done, self.may_return = threading.Event(), threading.Event()
        method: Callable[..., Any] = getattr(LoginFiles, name)

        def work_and_wait(*args: Any) -> Any:
            result = method(*args)
            self.is_done.set()
            assert self.may_return.wait(20)
            return result

        monkeypatch.setattr(LoginFiles, name, work_and_wait)

    async def cancel(self, task: asyncio.Task[Any]) -> None:
        assert await asyncio.to_thread(self.is_done.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        self.may_return.set()


@covers("cancelled-caller")
def test_a_completion_that_is_cancelled_during_its_claim_leaves_a_login_that_still_waits(
    service: AuthService, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        login = await service.start_login(server, TERMINAL)
        answer = await asyncio.to_thread(approve, login.authorization_url)
        with monkeypatch.context() as patch:
            call = BlockedCall(patch, "change")
            await call.cancel(asyncio.create_task(service.complete_login(login.id, answer, TERMINAL)))
        await asyncio.to_thread(wait_until, lambda: service.blocking.login(login.id).status == "waiting")
        assert service.blocking.login(login.id) == login
        await service.complete_login(login.id, answer, TERMINAL)
        assert service.blocking.login(login.id).status == "done"

    asyncio.run(main())


@covers("cancelled-caller")
def test_a_start_that_is_cancelled_while_the_login_is_stored_leaves_no_waiting_login(
    service: AuthService, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with monkeypatch.context() as patch:
            call = BlockedCall(patch, "add")
            await call.cancel(asyncio.create_task(service.start_login(server, TERMINAL)))

    def statuses() -> list[str]:
        logins: list[Login] = service.blocking.logins()
        return [login.status for login in logins]

    asyncio.run(main())
    wait_until(lambda: statuses() == ["cancelled"])


class CancelAt:
    """Awaits a coroutine in the current task, and cancels the task at its await number `number` (from 0)."""

    def __init__(self, coroutine: Coroutine[Any, Any, object], number: int) -> None:
        self._coroutine = coroutine
        self._number = number
        self.has_cancelled = False

    def __await__(self) -> Generator[Any, Any, object]:
        steps, count, value = self._coroutine.__await__(), 0, None
        while True:
            try:
                future = steps.send(value)
            except StopIteration as end:
                return end.value
            if count == self._number:
                self.has_cancelled = True
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            count += 1
            try:
                value = yield future
            except BaseException as error:  # noqa: BLE001  the coroutine gets it
                try:
                    future = steps.throw(error)
                except StopIteration as end:
                    return end.value
                # Further awaits of a cancelled coroutine, such as a write that it completes.
                value = yield future


def finish_file_work() -> None:
    """Wait for the threads that the cancelled caller has left behind."""
    threads._file_executor.executor.shutdown(wait=True)
    threads._file_executor.reset_in_child()


async def count_awaits_cancelled(
    start: Callable[[], Coroutine[Any, Any, object]], check: Callable[[], Awaitable[object]]
) -> int:
    """Cancel the call at each of its awaits in turn, and check what is left; return the number of awaits."""
    for number in itertools.count():
        call = CancelAt(start(), number)

        async def main(call: CancelAt = call) -> object:
            return await call

        task = asyncio.create_task(main())
        await asyncio.wait({task})
        if not call.has_cancelled:
            task.result()
            return number
        await asyncio.to_thread(finish_file_work)
        await check()
    raise AssertionError("The call never ends.")


@covers("cancelled-caller")
@pytest.mark.slow
@pytest.mark.parametrize("flow", ["paste", "device"])
def test_a_switch_that_is_cancelled_at_any_await_leaves_the_prompt_that_the_user_sees(
    service: AuthService, server: Server, demo: Demo, flow: Flow
) -> None:
    demo.authorization_server.behaviour = Behaviour(with_device=True)

    async def main() -> None:
        login = await service.start_login(server, TERMINAL)

        async def check() -> None:
            assert await service.login(login.id) == login

        assert await count_awaits_cancelled(lambda: service.switch_flow(login.id, flow), check) >= 3
        switched = await service.login(login.id)
        assert not is_same_prompt(switched, login)

    asyncio.run(main())


@covers("cancelled-caller")
def test_a_switch_that_is_cancelled_while_it_is_stored_is_undone(
    service: AuthService, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        login = await service.start_login(server, TERMINAL)
        with monkeypatch.context() as patch:
            call = BlockedCall(patch, "change")
            await call.cancel(asyncio.create_task(service.switch_flow(login.id, "paste")))
        await asyncio.to_thread(finish_file_work)
        assert await service.login(login.id) == login
        answer = await asyncio.to_thread(approve, login.authorization_url)
        await service.complete_login(login.id, answer, TERMINAL)

    asyncio.run(main())


@covers("cancelled-caller")
def test_an_undone_switch_keeps_the_messages_and_leaves_a_login_that_was_cancelled_meanwhile(
    service: AuthService, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(*, is_cancelled: bool) -> Login:
        login = await service.start_login(server, TERMINAL)
        with monkeypatch.context() as patch:
            call = BlockedCall(patch, "change")
            task = asyncio.create_task(service.switch_flow(login.id, "paste"))
            assert await asyncio.to_thread(call.is_done.wait, 20)
            patch.undo()
            await service.save_messages(login.id, ("7",))
            if is_cancelled:
                await service.cancel(login.id)
            await call.cancel(task)
        await asyncio.to_thread(finish_file_work)
        return await service.login(login.id)

    undone = asyncio.run(main(is_cancelled=False))
    assert (undone.status, undone.message_ids) == ("waiting", ("7",))
    assert asyncio.run(main(is_cancelled=True)).status == "cancelled"


@covers("cancelled-caller")
@pytest.mark.slow
def test_a_start_or_a_completion_that_is_cancelled_at_any_await_leaves_no_claimed_and_no_unseen_login(
    service: AuthService, server: Server, demo: Demo
) -> None:
    async def main() -> None:
        async def check_unseen() -> None:
            assert await service.waiting_logins() == []

        await count_awaits_cancelled(lambda: service.start_login(server, TERMINAL), check_unseen)
        (login,) = await service.waiting_logins()
        answer = await asyncio.to_thread(approve, login.authorization_url)
        statuses = set[str]()

        async def complete() -> object:
            current = await service.login(login.id)
            if current.status != "waiting":
                # An earlier cancellation came after the code was sent.
                return current
            return await service.complete_login(login.id, answer, TERMINAL)

        async def check_claim() -> None:
            current = await service.login(login.id)
            # A code that was sent is exchanged; its login ends.
            ended = current if current.status == "waiting" else await service.wait_for_login(login.id)
            statuses.add(ended.status)

        await count_awaits_cancelled(complete, check_claim)
        assert statuses <= {"waiting", "done", "failed"}

    asyncio.run(main())


@covers("cancelled-caller")
@pytest.mark.slow
def test_a_new_link_that_no_caller_shows_is_undone(
    service: AuthService, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "?error=invalid_scope&error_description=The following scopes are invalid: mcp:tools"

    async def main() -> None:
        login = await service.start_login(server, TERMINAL)

        async def check() -> None:
            assert is_same_prompt(await service.login(login.id), login)

        async def paste() -> None:
            with pytest.raises(PasteRefused):
                await service.complete_login(login.id, text, TERMINAL)

        assert await count_awaits_cancelled(paste, check) >= 3
        assert not is_same_prompt(await service.login(login.id), login)

    asyncio.run(main())
