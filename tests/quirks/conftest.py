"""The fixtures of tests/service: the demo server, the clock and the service."""

from __future__ import annotations

from tests.service.conftest import clock, demo, one_demo, server, service

__all__ = ["clock", "demo", "one_demo", "server", "service"]
