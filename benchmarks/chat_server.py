"""Run the demo's MCP server and authorization server in one process: `python -m benchmarks.chat_server`.

The process prints the URL of the MCP server, and ends at the end of its standard input.
"""

from __future__ import annotations

import sys

from hermes_mcp_auth_remote.demo.servers import serve_demo

if __name__ == "__main__":
    with serve_demo() as demo:
        print(demo.mcp_url, flush=True)
        sys.stdin.read()
