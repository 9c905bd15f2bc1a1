"""Fixtures: one demo server per module, reset before each test, and a service with the same clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
from tests.demo.one import clock, demo, one_demo
from tests.demo.player import MovedClock
from tests.parts.authorization_server import Demo
from tests.service.given import logged_in, server_of

__all__ = ["clock", "demo", "one_demo"]


@pytest.fixture
def server(demo: Demo) -> Server:
    return server_of(demo)


@pytest.fixture
def service(tmp_path: Path, clock: MovedClock) -> AuthService:
    return AuthService(tmp_path, clock=clock)


@pytest.fixture
def session_kept(tmp_path: Path, demo: Demo, clock: MovedClock) -> AuthService:
    """A service whose operator has logged in. The requests of that login are not counted."""
    return logged_in(tmp_path, demo, clock)
