"""The same demo, clock and services as the service's own tests."""

from __future__ import annotations

from tests.service.conftest import clock, demo, one_demo, server, service

__all__ = ["clock", "demo", "one_demo", "server", "service"]
