"""The fixtures of the service tests: demo, clock and services."""

from __future__ import annotations

from tests.service.conftest import clock, demo, one_demo, server, service, session_kept

__all__ = ["clock", "demo", "one_demo", "server", "service", "session_kept"]
