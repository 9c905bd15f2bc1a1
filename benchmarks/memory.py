"""The memory that one session takes in a process with a client, and that each further user takes."""

from __future__ import annotations

from benchmarks.login_home import PYTHON, SERVER_NAME, environ_for, logged_in_home
from benchmarks.measurement import Figure, Measure, Scale, command_output_measure, measure_interleaved
from benchmarks.server import TOKEN, run_server

_RESIDENT_CODE = """
def resident():  # KiB
    try:
        with open("/proc/self/status") as status:
            return int(next(line for line in status if line.startswith("VmRSS")).split()[1])
    except OSError:
        import resource, sys
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
"""
_ONE_SESSION_CODE = (
    _RESIDENT_CODE
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
_USERS_CODE = (
    _RESIDENT_CODE
    + """
import os
from pathlib import Path
from benchmarks.login_home import tokens
from hermes_mcp_auth_remote.auth.httpx2 import McpAuth
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
service, server = AuthService(Path(os.environ["HERMES_HOME"])), Server("bench", "{url}")
auths = []
def add(number):
    session = service.session(server, f"telegram:{{number}}")
    session.adopt(tokens())
    auths.append(McpAuth(session))
for number in range(100):
    add(number)
before = resident()
for number in range(100, 100 + {count}):
    add(number)
print((resident() - before) / {count})
"""
)
# The allowed size of a Session, its key, its header and the auth object.
_MAX_USER_KIB = 4.5


def measure_figures(scale: Scale) -> list[Figure]:
    """Measure resident memory in fresh processes."""
    figures: list[Figure] = []
    with run_server() as origin, logged_in_home(f"{origin}/delay/0") as home:
        env, url = environ_for(home), f"{origin}/delay/0"

        def output_measure(code: str, **fields: object) -> Measure:
            return command_output_measure((PYTHON, "-c", code.format(url=url, **fields)), env)

        for library in ("httpx", "httpx2"):
            fixed = f'headers={{"Authorization": "Bearer {TOKEN}"}}'
            setup = f"from hermes_mcp_auth_remote.auth.{library} import McpAuth"
            measures = {
                "floor": output_measure(_ONE_SESSION_CODE, library=library, setup="", client=fixed),
                "ours": output_measure(
                    _ONE_SESSION_CODE, library=library, setup=setup, client=f'auth=McpAuth("{SERVER_NAME}")'
                ),
            }
            if library == "httpx2":
                sdk = "from benchmarks.sdk import make_provider, make_storage_with_token"
                auth = f'auth=make_provider("{url}", make_storage_with_token("{TOKEN}"))'
                measures["mcp 2.x"] = output_measure(
                    _ONE_SESSION_CODE, library=library, setup=sdk, client=auth
                )
            medians = measure_interleaved(measures, scale)
            floor, ours = medians.pop("floor"), medians.pop("ours")
            what = f"resident with one session, {library}"
            figures.append(Figure(what, "MiB", ours, "a fixed header", floor, 1.3, medians))
        users = output_measure(_USERS_CODE, count=scale.choose_size(5000, 500))
        user_kib = measure_interleaved({"ours": users}, scale)["ours"]
        figures.append(Figure("each further user", "KiB", user_kib, "allowed", _MAX_USER_KIB, 1))
    return figures
