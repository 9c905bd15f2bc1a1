"""A body over the limit gets a 413, from the plain servers and from those with faults."""

from __future__ import annotations

import httpx
import pytest

from hermes_mcp_auth_remote.demo import servers
from hermes_mcp_auth_remote.demo.body_limit import MAX_BODY_BYTES
from tests.parts.authorization_server import Demo

pytestmark = pytest.mark.slow


def refuses_only_larger_bodies(demo: servers.Demo) -> bool:
    url = f"{demo.authorization_server.origin}/token"
    statuses = [
        httpx.post(url, content=b"x" * size).status_code for size in (MAX_BODY_BYTES, MAX_BODY_BYTES + 1)
    ]
    return statuses == [400, 413]


def test_the_servers_of_the_command_refuse_a_large_body() -> None:
    with servers.serve_demo() as demo:
        assert refuses_only_larger_bodies(demo)


def test_a_refused_body_is_not_recorded(demo: Demo) -> None:
    assert refuses_only_larger_bodies(demo)
    assert [request.status for request in demo.authorization_server.requests] == [400]
