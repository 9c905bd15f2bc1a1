"""The fixtures of the service tests: demo, clock and services."""

from __future__ import annotations

from tests.service.conftest import clock, demo, logged_in_service, one_demo, server, service

__all__ = ["clock", "demo", "logged_in_service", "one_demo", "server", "service"]
