"""Memory: what one session adds to a process with a client, and what each further user adds."""

from __future__ import annotations

from benchmarks.given import NAME, PYTHON, environ, home
from benchmarks.measuring import Extent, Figure, Measure, command_output, interleaved
from benchmarks.server import TOKEN, serving

_RESIDENT = """
def resident():  # KiB
    try:
        with open("/proc/self/status") as status:
            return int(next(line for line in status if line.startswith("VmRSS")).split()[1])
    except OSError:
        import resource, sys
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
"""
_ONE = (
    _RESIDENT
    + """
import asyncio
import {library}
{setup}
async def main():
    async with {library}.AsyncClient({client}) as client:
        response = await client.post("{url}", json={{}})
        assert response.status_code == 200, response
        print(resident() / 1024)
asyncio.run(main())
"""
)
_USERS = (
    _RESIDENT
    + """
import os
from pathlib import Path
from benchmarks.given import tokens
from hermes_mcp_auth_remote.auth.httpx2 import McpAuth
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
service, server = AuthService(Path(os.environ["HERMES_HOME"])), Server("bench", "{url}")
kept = []
def add(number):
    session = service.session(server, f"telegram:{{number}}")
    session.adopt(tokens())
    kept.append(McpAuth(session))
for number in range(100):
    add(number)
before = resident()
for number in range(100, 100 + {count}):
    add(number)
print((resident() - before) / {count})
"""
)
# What the issue allows; a Session, its key, its header and the auth object.
_USER_GOAL_KIB = 4.5


def figures(extent: Extent) -> list[Figure]:
    """Measure resident memory in fresh processes."""
    found: list[Figure] = []
    with serving() as origin, home(f"{origin}/delay/0") as place:
        env, url = environ(place), f"{origin}/delay/0"

        def printed(code: str, **parts: object) -> Measure:
            return command_output((PYTHON, "-c", code.format(url=url, **parts)), env)

        for library in ("httpx", "httpx2"):
            fixed = f'headers={{"Authorization": "Bearer {TOKEN}"}}'
            setup = f"from hermes_mcp_auth_remote.auth.{library} import McpAuth"
            measures = {
                "floor": printed(_ONE, library=library, setup="", client=fixed),
                "ours": printed(_ONE, library=library, setup=setup, client=f'auth=McpAuth("{NAME}")'),
            }
            if library == "httpx2":
                sdk = "from benchmarks.sdk import provider, stored"
                auth = f'auth=provider("{url}", stored("{TOKEN}"))'
                measures["mcp 2.x"] = printed(_ONE, library=library, setup=sdk, client=auth)
            medians = interleaved(measures, extent)
            floor, ours = medians.pop("floor"), medians.pop("ours")
            what = f"resident with one session, {library}"
            found.append(Figure(what, "MiB", ours, "a fixed header", floor, 1.3, medians))
        users = printed(_USERS, count=extent.of(5000, 500))
        each = interleaved({"ours": users}, extent)["ours"]
        found.append(Figure("each further user", "KiB", each, "allowed", _USER_GOAL_KIB, 1))
    return found
