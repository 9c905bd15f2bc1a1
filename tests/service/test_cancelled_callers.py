"""A cancelled caller leaves no claimed login, and no waiting login that no user has seen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.files.login_files import LoginFiles
from hermes_mcp_auth_remote.values import Server
from tests.consent_form import approve
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
        await asyncio.to_thread(wait_until, lambda: service.login(login.id).status == "waiting")
        assert service.login(login.id) == login
        await service.complete_login(login.id, answer, TERMINAL)
        assert service.login(login.id).status == "done"

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
        logins: list[Login] = service.logins()
        return [login.status for login in logins]

    asyncio.run(main())
    wait_until(lambda: statuses() == ["cancelled"])
