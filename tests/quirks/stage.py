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
from tests.browserless import approve
from tests.demo.player import MovedClock
from tests.parts.authorization_server import Demo, RecordedRequest, Step
from tests.service.given import TERMINAL


@dataclass
class Stage:
    """One case's HERMES_HOME, service and demo; `server` holds the operator's options."""

    demo: Demo
    service: AuthService
    server: Server
    clock: MovedClock
    home: Path

    def plays(self, **knobs: Any) -> None:
        """Change the behaviour of the demo servers from now on."""
        self.demo.authorization_server.change_behaviour(**knobs)

    def configure(self, **options: Any) -> None:
        """Set the server's options as an operator does."""
        self.server = replace(self.server, options=ServerOptions(**options))

    def begin(self, flow: Flow | None = None) -> Login:
        return asyncio.run(self.service.start_login(self.server, TERMINAL, flow=flow))

    def finish(self, login: Login, text: str | None = None) -> Connection:
        answer = approve(login.authorization_url) if text is None else text
        return asyncio.run(self.service.complete_login(login.id, answer, TERMINAL))

    def connect(self) -> Connection:
        """Log in as a user who approves."""
        return self.finish(self.begin())

    def header(self) -> str:
        """Return the Authorization header that another process would send."""
        return asyncio.run(AuthService(self.home, clock=self.clock).session(self.server).header())

    @property
    def stored(self) -> Credentials:
        return self.service.read_credentials(self.server)

    def asked(self, step: Step) -> list[RecordedRequest]:
        """Return the requests of a step, in order."""
        return [request for request in self.demo.authorization_server.requests if request.step == step]


@dataclass(frozen=True)
class Case:
    """A row of docs/quirks.md: its number, its text, and the function that tests it."""

    number: int
    text: str
    play: Callable[[Stage], None]


CASES: list[Case] = []


def quirk(number: int, text: str) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Register the decorated function as the case of a quirk."""

    def named(play: Callable[[Stage], None]) -> Callable[[Stage], None]:
        CASES.append(Case(number, text, play))
        return play

    return named
