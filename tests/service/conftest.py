"""Fixtures: one demo server per module, reset before each test, and a service with the same clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
from tests.demo.fixtures import clock, demo, one_demo
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Demo
from tests.service.helpers import make_logged_in_service, server_of

__all__ = ["clock", "demo", "one_demo"]


@pytest.fixture
def server(demo: Demo) -> Server:
    return server_of(demo)


@pytest.fixture
def service(tmp_path: Path, clock: ManualClock) -> AuthService:
    return AuthService(tmp_path, clock=clock)


@pytest.fixture
def logged_in_service(tmp_path: Path, demo: Demo, clock: ManualClock) -> AuthService:
    """Return a service whose operator has logged in. The requests of this login are not counted."""
    return make_logged_in_service(tmp_path, demo, clock)
