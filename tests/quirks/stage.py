"""What a case of the quirks is played on: the demo's strict servers, a service, and a person who approves."""

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
    """One case's own home; `server` is what is logged in to, with the options that an operator sets."""

    demo: Demo
    service: AuthService
    server: Server
    clock: MovedClock
    home: Path

    def plays(self, **knobs: Any) -> None:
        """Let the servers behave so from now on."""
        self.demo.authorization_server.change_behaviour(**knobs)

    def configure(self, **options: Any) -> None:
        """Set options as an operator does."""
        self.server = replace(self.server, options=ServerOptions(**options))

    def begin(self, flow: Flow | None = None) -> Login:
        return asyncio.run(self.service.start_login(self.server, TERMINAL, flow=flow))

    def finish(self, login: Login, text: str | None = None) -> Connection:
        answer = approve(login.authorization_url) if text is None else text
        return asyncio.run(self.service.complete_login(login.id, answer, TERMINAL))

    def connect(self) -> Connection:
        """Log in as a person who approves."""
        return self.finish(self.begin())

    def header(self) -> str:
        """Return what goes on a request, as another process would have it."""
        return asyncio.run(AuthService(self.home, clock=self.clock).session(self.server).header())

    @property
    def stored(self) -> Credentials:
        return self.service.read_credentials(self.server)

    def asked(self, step: Step) -> list[RecordedRequest]:
        """Return the requests of a step, in order."""
        return [request for request in self.demo.authorization_server.requests if request.step == step]


@dataclass(frozen=True)
class Case:
    """A row of the list of quirks: its number, its text, and how it is played."""

    number: int
    text: str
    play: Callable[[Stage], None]


CASES: list[Case] = []


def quirk(number: int, text: str) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Name a case by its text."""

    def named(play: Callable[[Stage], None]) -> Callable[[Stage], None]:
        CASES.append(Case(number, text, play))
        return play

    return named
