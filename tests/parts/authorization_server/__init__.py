"""The servers of `hermes-mcp-auth demo`, with a record of every request and with faults.

    with serve_demo(Behaviour(rotates_refresh_tokens=False)) as demo:
        demo.authorization_server.fail_next("refresh", status=503)
        gate = demo.authorization_server.hold("token")              # holds requests until `gate.open()`
        demo.authorization_server.count_requests("registration")

The tests use these servers, and so do the benchmarks that count requests. The package has the same servers
(`hermes_mcp_auth_remote.demo`), but without the record, the faults and some of the settings.
"""

from tests.parts.authorization_server.authorization_server import FaultyAuthorizationServer
from tests.parts.authorization_server.behaviour import Behaviour
from tests.parts.authorization_server.faults import Fault, Gate, RecordedRequest, Step
from tests.parts.authorization_server.servers import Demo, serve_demo

__all__ = [
    "Behaviour",
    "Demo",
    "Fault",
    "FaultyAuthorizationServer",
    "Gate",
    "RecordedRequest",
    "Step",
    "serve_demo",
]
