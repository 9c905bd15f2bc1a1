"""The harness of the quirk cases: the strict demo servers, a service, and a user who approves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.values import Flow, Server, ServerOptions
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Demo, RecordedRequest, Step
from tests.service.helpers import TERMINAL


@dataclass
class QuirkHarness:
    """One case's HERMES_HOME, service and demo; `server` holds the operator's options."""

    demo: Demo
    service: AuthService
    server: Server
    clock: ManualClock
    home: Path

    def change_behaviour(self, **behaviour: Any) -> None:
        """Change the behaviour of the demo servers from now on."""
        self.demo.authorization_server.change_behaviour(**behaviour)

    def configure(self, **options: Any) -> None:
        """Set the server's options as an operator does."""
        self.server = replace(self.server, options=ServerOptions(**options))

    def start_login(self, flow: Flow | None = None) -> Login:
        return asyncio.run(self.service.start_login(self.server, TERMINAL, flow=flow))

    def complete_login(self, login: Login, text: str | None = None) -> Connection:
        answer = approve(login.authorization_url) if text is None else text
        return asyncio.run(self.service.complete_login(login.id, answer, TERMINAL))

    def log_in(self) -> Connection:
        """Log in as a user who approves."""
        return self.complete_login(self.start_login())

    def authorization_header(self) -> str:
        """Return the Authorization header that another process would send."""
        return asyncio.run(AuthService(self.home, clock=self.clock).session(self.server).header())

    @property
    def credentials(self) -> Credentials:
        return self.service.blocking.read_credentials(self.server)

    def requests_of(self, step: Step) -> list[RecordedRequest]:
        """Return the requests of a step, in order."""
        return [request for request in self.demo.authorization_server.requests if request.step == step]


@dataclass(frozen=True)
class QuirkCase:
    """A row of docs/quirks.md: its number, its text, and the function that tests it."""

    number: int
    text: str
    check: Callable[[QuirkHarness], None]


CASES: list[QuirkCase] = []


def quirk_case(
    number: int, text: str
) -> Callable[[Callable[[QuirkHarness], None]], Callable[[QuirkHarness], None]]:
    """Register the decorated function as the case of a quirk."""

    def register_case(check: Callable[[QuirkHarness], None]) -> Callable[[QuirkHarness], None]:
        CASES.append(QuirkCase(number, text, check))
        return check

    return register_case
