"""The MCP SDK's client over stdio, with `connect` between it and the suite's server.

The conformance suite starts it: `python bridge_client.py LOCK_FOLDER URL`. For the scenarios of authorization
`connect` opens a "browser" that follows all redirects; for the others it has a token.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mcp import StdioServerParameters
from mcp.client.stdio import stdio_client

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.login_home import environ_for, logged_in_home  # noqa: E402  found through the path above
from tests.conformance.client import (  # noqa: E402
    CLIENT_METADATA_URL,
    CONTEXT,
    SCENARIO,
    call_tools,
    limit_concurrency,
)

BROWSER = """#!{python}
import sys, urllib.request
urllib.request.urlopen(sys.argv[1]).read()
"""


@contextmanager
def make_home(url: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the name of the server in a new HERMES_HOME, and the environment of `connect`."""
    if not SCENARIO.startswith("auth/"):
        with logged_in_home(url) as home:
            yield "bench", environ_for(home)
        return
    with tempfile.TemporaryDirectory() as folder:
        home, browser = Path(folder), Path(folder, "browser")
        oauth: dict[str, str] = {"client_metadata_url": CLIENT_METADATA_URL}
        oauth |= {name: CONTEXT[name] for name in ("client_id", "client_secret") if name in CONTEXT}
        entry = {"url": url, "auth": "oauth", "oauth": oauth}
        # JSON is YAML.
        (home / "config.yaml").write_text(json.dumps({"mcp_servers": {"conformance": entry}}), "utf-8")
        browser.write_text(BROWSER.format(python=sys.executable), "utf-8")
        browser.chmod(0o755)
        yield "conformance", {**environ_for(home), "BROWSER": str(browser)}


async def run(url: str) -> None:
    with make_home(url) as (name, environ):
        arguments = ["-m", "hermes_mcp_auth_remote.cli", "connect", name]
        await call_tools(
            stdio_client(StdioServerParameters(command=sys.executable, args=arguments, env=environ))
        )


if __name__ == "__main__":
    os.chdir(ROOT)
    with limit_concurrency(sys.argv[1]):
        asyncio.run(run(sys.argv[2]))
